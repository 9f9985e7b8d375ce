//! Value ranges of a network over real images, from which an 8-bit file is exported without images
//! or runtime.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Number of bins in each histogram.
pub const HISTOGRAM_BINS: usize = 256;

/// Value range of one node's output over the calibration images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRange {
    /// Smallest value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
    /// Counts in [`HISTOGRAM_BINS`] equal steps from `min` to `max`.
    pub histogram: Vec<u64>,
    /// Error of the logits if only this node's output is rounded to 8 bits: root mean square of
    /// the error over that of the logits.
    pub sensitivity: f32,
}

/// `calibration.json` of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Version of the format.
    pub version: String,
    /// Origin of the images, such as a data set and list.
    #[serde(rename = "pictures")]
    pub source: String,
    /// Number of images.
    pub count: usize,
    /// Ranges by node name.
    pub nodes: BTreeMap<String, NodeRange>,
}

impl Calibration {
    /// Version written, and the newest read.
    pub const VERSION: &str = "1.0";
}
