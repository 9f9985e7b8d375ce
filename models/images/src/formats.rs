//! Label maps in the formats of others.
//!
//! One file a picture: [`label_ids`] for the official evaluation of Cityscapes, [`pseudo_labels`] for training; ids, colours and
//! overlays are methods of [`LabelMap`]. One file for all pictures, a [`AnnotationFormat`]: [`coco`], [`cvat`] and [`label_studio`].
//! These are written picture by picture from what [`StoredLabels`] reads back, so that their size costs no memory, and the same
//! pictures give the same bytes, however many runs and machines labelled them.

mod annotation_format;
mod brush_rle;
pub mod coco;
mod coco_rle;
pub mod cvat;
mod error;
pub mod label_ids;
pub mod label_studio;
mod names;
pub mod pseudo_labels;
mod runs;
mod stored;

use std::path::{Path, PathBuf};

use protoseg_models::classes::{ClassTable, IGNORE_INDEX};

use crate::label_map::LabelMap;
pub use annotation_format::AnnotationFormat;
pub use error::FormatError;
pub use names::png_name;
pub use stored::StoredLabels;

/// A picture's name as text that tells it from every other name: what is no text, and control characters, become `%` and two
/// digits.
pub fn escape_name(name: &Path) -> String {
    names::percent_encoded(name, |character| !character.is_control())
}

/// A picture's name and what is known of its pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLabels {
    /// Path of the picture below its folder, such as `a/street.jpg`.
    pub name: PathBuf,
    /// Train ids; 255 where there is none.
    pub map: LabelMap,
    /// Largest softmax of each pixel in steps of 1/255, `[height, width]`.
    pub confidence: Option<Vec<u8>>,
}

impl ImageLabels {
    /// Fails where a label is no class, or the sizes disagree.
    fn check(&self, classes: &ClassTable) -> Result<(), FormatError> {
        let LabelMap { height, width, labels } = &self.map;
        let pixels = height * width;
        for found in [Some(labels), self.confidence.as_ref()].into_iter().flatten().map(Vec::len) {
            if found != pixels {
                return Err(FormatError::Size {
                    name: self.name.clone(),
                    width: *width,
                    height: *height,
                    found,
                });
            }
        }
        let known = |label: u8| label == IGNORE_INDEX || usize::from(label) < classes.count();
        match labels.iter().position(|&label| !known(label)) {
            None => Ok(()),
            Some(pixel) => Err(FormatError::Label {
                name: self.name.clone(),
                label: labels[pixel],
                row: pixel / width,
                column: pixel % width,
                classes: classes.count(),
            }),
        }
    }

    /// Mean confidence of each label's pixels and of all that have a class, in [0, 1], to four digits.
    fn mean_confidence(&self) -> Option<MeanConfidence> {
        let confidence = self.confidence.as_ref()?;
        let mut sums = [(0_u64, 0_u64); 256];
        for (&label, &confidence) in self.map.labels.iter().zip(confidence) {
            let (sum, count) = &mut sums[usize::from(label)];
            *sum += u64::from(confidence);
            *count += 1;
        }
        let mean = |(sum, count): (u64, u64)| {
            let mean = sum as f64 / (255 * count.max(1)) as f64;
            (mean * 1e4).round() / 1e4
        };
        let all = sums[..usize::from(IGNORE_INDEX)]
            .iter()
            .fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        Some(MeanConfidence { labels: sums.map(mean), all: mean(all) })
    }
}

struct MeanConfidence {
    labels: [f64; 256],
    all: f64,
}
