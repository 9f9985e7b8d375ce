//! Palettes of masks that draw one color under several indices from file to file, while nobody has
//! said what the colors mean.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::label_mapping::{ClassOrigin, MaskError};

/// An index of a mask and its color.
pub type DrawnIndex = (u8, [u8; 3]);

/// Masks that draw a color under one index: the first path by name, and their number.
#[derive(Debug, Clone)]
struct DrawnMasks {
    first: PathBuf,
    count: usize,
}

/// The colors of the masks of a dataset with their indices, each with a file.
///
/// ```
/// use std::path::Path;
///
/// use protoseg_images::label_mapping::ClassOrigin;
/// use protoseg_images::palettes::PaletteCensus;
///
/// let mut palettes = PaletteCensus::default();
/// palettes.add(&[(0, [0; 3]), (1, [255, 0, 0])], Path::new("a.png"));
/// assert!(palettes.contradiction(&ClassOrigin::BuiltIn("x")).is_none());
/// palettes.add(&[(0, [0; 3]), (2, [255, 0, 0])], Path::new("b.png"));
/// assert!(palettes.contradiction(&ClassOrigin::BuiltIn("x")).is_some());
/// ```
#[derive(Debug, Clone, Default)]
pub struct PaletteCensus {
    seen: BTreeMap<[u8; 3], BTreeMap<u8, DrawnMasks>>,
}

impl PaletteCensus {
    /// Adds the indices of a mask that are in use.
    pub fn add(&mut self, drawn: &[DrawnIndex], path: &Path) {
        for &(index, color) in drawn {
            self.keep(color, index, DrawnMasks { first: path.to_owned(), count: 1 });
        }
    }

    /// Adds what another census has seen.
    pub fn merge(&mut self, other: Self) {
        for (color, indices) in other.seen {
            for (index, masks) in indices {
                self.keep(color, index, masks);
            }
        }
    }

    /// The first path by name, so that threads do not change the message.
    fn keep(&mut self, color: [u8; 3], index: u8, masks: DrawnMasks) {
        let indices = self.seen.entry(color).or_default();
        match indices.get_mut(&index) {
            Some(known) => {
                known.count += masks.count;
                if masks.first < known.first {
                    known.first = masks.first;
                }
            }
            None => {
                indices.insert(index, masks);
            }
        }
    }

    /// Returns the first color that has another index in another file, as the error of the second of
    /// these; `None` where every color has one.
    pub fn contradiction(&self, origin: &ClassOrigin) -> Option<MaskError> {
        let (color, indices) = self.seen.iter().find(|(_, indices)| indices.len() > 1)?;
        let mut masks: Vec<(&u8, &DrawnMasks)> = indices.iter().collect();
        masks.sort_by_key(|&(_, masks)| &masks.first);
        let [(first_index, first), (index, other), ..] = masks[..] else { return None };
        Some(MaskError::PalettesDiffer {
            path: other.first.clone(),
            index: *index,
            first: first.first.clone(),
            first_index: *first_index,
            masks: [other.count, first.count],
            color: *color,
            origin: origin.clone(),
        })
    }
}

/// The indices in use whose color no other one has. Shades of gray from dark to bright are there to
/// look at, and stretched from file to file, unless they are two.
pub(crate) fn drawn(used: &[u8], palette: &[[u8; 3]]) -> Vec<DrawnIndex> {
    let color = |index: u8| palette.get(usize::from(index)).copied();
    let all: Vec<DrawnIndex> =
        used.iter().filter_map(|&index| Some((index, color(index)?))).collect();
    let is_gray = |&(_, [red, green, blue]): &DrawnIndex| red == green && green == blue;
    let is_ramp = all.len() > 2 && all.iter().all(is_gray) && all.is_sorted_by_key(|drawn| drawn.1);
    let is_single =
        |drawn: &&DrawnIndex| all.iter().filter(|other| other.1 == drawn.1).count() == 1;
    if is_ramp { Vec::new() } else { all.iter().filter(is_single).copied().collect() }
}
