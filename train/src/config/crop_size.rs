//! Size of training crops.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Height and width of training crops in pixels; written as one number where they are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Spelling", into = "Spelling")]
pub struct CropSize([usize; 2]);

/// Spellings in a configuration.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Spelling {
    Square(usize),
    Sides([usize; 2]),
}

impl CropSize {
    /// Square crops.
    pub fn square(side: usize) -> Self {
        Self([side; 2])
    }

    /// Height and width.
    pub fn sides(self) -> [usize; 2] {
        self.0
    }

    /// The smaller one of height and width.
    pub fn shorter(self) -> usize {
        self.0[0].min(self.0[1])
    }

    /// Says whether an image of this height and width lies within a crop.
    pub fn holds(self, size: [usize; 2]) -> bool {
        size[0] <= self.0[0] && size[1] <= self.0[1]
    }
}

impl From<Spelling> for CropSize {
    fn from(spelling: Spelling) -> Self {
        match spelling {
            Spelling::Square(side) => Self::square(side),
            Spelling::Sides(sides) => Self(sides),
        }
    }
}

impl From<CropSize> for Spelling {
    fn from(CropSize([height, width]): CropSize) -> Self {
        if height == width { Self::Square(height) } else { Self::Sides([height, width]) }
    }
}

/// Width x height, as sizes of images are written.
impl fmt::Display for CropSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [height, width] = self.0;
        write!(f, "{width}x{height}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn square_crops_are_one_number_and_others_two() {
        for (text, sides) in [("64", [64, 64]), ("[48,64]", [48, 64])] {
            let crop: CropSize = serde_json::from_str(text).unwrap();
            assert_eq!(crop.sides(), sides);
            assert_eq!(serde_json::to_string(&crop).unwrap(), text);
        }
        let crop: CropSize = serde_json::from_str("[64,64]").unwrap();
        assert_eq!(serde_json::to_string(&crop).unwrap(), "64");
        assert_eq!(CropSize([48, 64]).to_string(), "64x48");
        assert!(CropSize([48, 64]).holds([48, 60]) && !CropSize([48, 64]).holds([64, 48]));
    }
}
