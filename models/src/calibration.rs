//! What a network's values look like over real pictures: what an 8-bit file is made from, without pictures or runtime.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bins of every histogram.
pub const HISTOGRAM_BINS: usize = 256;

/// The values of one node's output over the calibration pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRange {
    /// Smallest value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
    /// Counts in [`HISTOGRAM_BINS`] equal steps from `min` to `max`.
    pub histogram: Vec<u64>,
    /// Error of the logits where only this node's output is rounded to 8 bits: root of the mean square error over root
    /// of the mean square logit.
    pub sensitivity: f32,
}

/// `calibration.json` of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Version of the format.
    pub version: String,
    /// What the pictures were.
    pub pictures: String,
    /// How many.
    pub count: usize,
    /// By node name.
    pub nodes: BTreeMap<String, NodeRange>,
}

impl Calibration {
    /// Version written, and the newest read.
    pub const VERSION: &str = "1.0";
}
