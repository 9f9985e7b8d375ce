//! Scaling of images for networks that were made for scaled ones: filters, sizes, and bars beside an
//! image.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::interface::ParseInterfaceError;

/// Filter of a scaling. All but the bilinear one are those of Pillow before version 13, to the bit:
/// the width is scaled first, where later versions may begin with the height. The bilinear one
/// differs from Pillow's by a step of rounding at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Resample {
    Nearest,
    Box,
    #[default]
    Bilinear,
    Hamming,
    Bicubic,
    Lanczos,
}

/// Rule by which the size of an image follows from its own. Sides are at least one pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaling {
    /// Proportions are kept, and the shorter side gets a length.
    Edge {
        /// Length of the shorter side in pixels.
        shortest: usize,
        /// Most pixels of the longer side, for which the shorter gets less.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        longest: Option<usize>,
    },
    /// Proportions are kept, and the image is as large as fits into a height and width.
    Within([usize; 2]),
    /// Proportions are nearly kept: both sides are scaled as the one that is to change less, and
    /// rounded to multiples, as `keep_aspect_ratio` of DPT does.
    Near {
        /// Height and width that are aimed at.
        size: [usize; 2],
        /// Number of pixels of which both sides are multiples.
        multiple: usize,
    },
}

/// Bars beside an image that does not fill what the network sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bars {
    /// Red, green and blue.
    pub color: [u8; 3],
    /// True where the image lies in the top left corner, not in the middle.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub corner: bool,
}

/// Gray bars around the middle, as in YOLO.
impl Default for Bars {
    fn default() -> Self {
        Self { color: [114; 3], corner: false }
    }
}

impl Resample {
    /// All filters, in the order of their numbers in Pillow.
    pub const ALL: [(&str, Self); 6] = [
        ("nearest", Self::Nearest),
        ("lanczos", Self::Lanczos),
        ("bilinear", Self::Bilinear),
        ("bicubic", Self::Bicubic),
        ("box", Self::Box),
        ("hamming", Self::Hamming),
    ];

    /// Returns the name on the command line and in manifests.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, filter)| *filter == self).map_or("", |(name, _)| name)
    }
}

impl FromStr for Resample {
    type Err = ParseInterfaceError;

    fn from_str(text: &str) -> Result<Self, ParseInterfaceError> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text);
        found
            .map(|(_, filter)| filter)
            .ok_or(ParseInterfaceError("nearest, box, bilinear, hamming, bicubic or lanczos"))
    }
}

impl Scaling {
    /// Returns the size `[height, width]` of an image `[height, width]` after scaling, as
    /// transformers round it.
    pub fn scaled(self, size: [usize; 2]) -> [usize; 2] {
        let [height, width] = size.map(|side| side.max(1) as f64);
        let cut = |side: f64| (side as usize).max(1);
        match self {
            Self::Edge { shortest, longest } => {
                let (short, long) = (height.min(width), height.max(width));
                let (mut small, mut large) =
                    (shortest.max(1), cut(shortest.max(1) as f64 * long / short));
                if let Some(longest) = longest.filter(|&longest| large > longest) {
                    small = (longest as f64 * short / long).round().max(1.0) as usize;
                    large = longest.max(1);
                }
                if height <= width { [small, large] } else { [large, small] }
            }
            Self::Within([most_height, most_width]) => {
                let scale = (most_height as f64 / height).min(most_width as f64 / width);
                [
                    ((height * scale).round() as usize).clamp(1, most_height.max(1)),
                    ((width * scale).round() as usize).clamp(1, most_width.max(1)),
                ]
            }
            Self::Near { size: [to_height, to_width], multiple } => {
                let [down, across] = [to_height as f64 / height, to_width as f64 / width];
                let scale = if (1.0 - across).abs() < (1.0 - down).abs() { across } else { down };
                let multiple = multiple.max(1);
                let rounded = |side: f64| {
                    let steps = (side * scale / multiple as f64).round_ties_even() as usize;
                    steps.max(1).saturating_mul(multiple)
                };
                [rounded(height), rounded(width)]
            }
        }
    }
}

impl fmt::Display for Scaling {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edge { shortest, longest: None } => {
                write!(formatter, "to a shorter side of {shortest}")
            }
            Self::Edge { shortest, longest: Some(longest) } => {
                write!(
                    formatter,
                    "to a shorter side of {shortest} and a longer of at most {longest}"
                )
            }
            Self::Within([height, width]) => write!(formatter, "into {height}x{width}"),
            Self::Near { size: [height, width], multiple } => {
                write!(
                    formatter,
                    "near {height}x{width} with their proportions kept, in multiples of {multiple}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_transformers() {
        let edge = |shortest, longest| Scaling::Edge { shortest, longest };
        let near = |size, multiple| Scaling::Near { size, multiple };
        for (scaling, size, expected) in [
            // `get_resize_output_image_size`
            (edge(512, None), [480, 640], [512, 682]),
            (edge(72, None), [100, 30], [240, 72]),
            // `get_size_with_aspect_ratio`
            (edge(800, Some(1333)), [480, 640], [800, 1066]),
            (edge(800, Some(1333)), [500, 1000], [667, 1333]),
            (edge(800, Some(1333)), [1000, 500], [1333, 667]),
            (Scaling::Within([1024; 2]), [1200, 1800], [683, 1024]),
            (Scaling::Within([32, 64]), [10, 1], [32, 3]),
            // `get_resize_output_image_size` of DPT
            (near([384; 2], 32), [480, 640], [384, 512]),
            (near([384; 2], 32), [640, 480], [512, 384]),
            (near([384; 2], 1), [300, 500], [230, 384]),
            (near([384; 2], 32), [384, 1], [384, 32]),
            (edge(0, Some(0)), [0, 0], [1, 1]),
            (near([0; 2], 0), [7, 9], [1, 1]),
        ] {
            assert_eq!(scaling.scaled(size), expected, "{scaling}, {size:?}");
        }
    }

    #[test]
    fn names_and_manifests_are_read_back() {
        assert!(Resample::ALL.iter().all(|(name, filter)| name.parse() == Ok(*filter)));
        assert!(Resample::ALL.iter().all(|(name, filter)| filter.name() == *name));
        assert!("mitchell".parse::<Resample>().is_err());
        let text = |scaling: Scaling| serde_json::to_string(&scaling).unwrap();
        for (scaling, expected) in [
            (Scaling::Edge { shortest: 5, longest: None }, r#"{"edge":{"shortest":5}}"#),
            (Scaling::Within([3, 4]), r#"{"within":[3,4]}"#),
            (
                Scaling::Near { size: [3, 4], multiple: 2 },
                r#"{"near":{"size":[3,4],"multiple":2}}"#,
            ),
        ] {
            assert_eq!(text(scaling), expected);
            assert_eq!(serde_json::from_str::<Scaling>(expected).unwrap(), scaling);
        }
    }
}
