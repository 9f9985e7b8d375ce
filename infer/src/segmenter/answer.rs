//! What a model makes of a picture, from which its labels follow without the model.

use protoseg_pictures::label_map::LabelMap;

use crate::stitch::LogitMap;
use crate::upsample::{self, Frame};

/// Class scores of a picture before upsampling, and how they lie over it.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameLogits {
    /// The scores.
    pub map: LogitMap,
    /// How they lie over the picture.
    pub frame: Frame,
}

impl FrameLogits {
    /// Train ids of all pixels.
    pub fn labels(&self) -> LabelMap {
        let labels = upsample::labels(&self.map, &self.frame);
        LabelMap { height: self.frame.height, width: self.frame.width, labels }
    }
}

/// What a model made of a picture.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Class scores.
    Logits(FrameLogits),
    /// Labels, of an adopted file that gives no scores.
    Labels(LabelMap),
}

impl Answer {
    /// Train ids of all pixels.
    pub fn labels(self) -> LabelMap {
        match self {
            Self::Logits(logits) => logits.labels(),
            Self::Labels(labels) => labels,
        }
    }
}
