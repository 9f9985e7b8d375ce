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
    /// Labels and confidence, of a file for whole frames.
    Frame {
        /// Train ids.
        labels: LabelMap,
        /// Largest softmax of every pixel, in steps of 1/255.
        confidence: Vec<u8>,
    },
    /// Labels, of an adopted file that gives no scores.
    Labels(LabelMap),
}

/// What is wanted beside labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// How sure each label is.
    pub confidence: bool,
    /// By how much each label won.
    pub margin: bool,
}

/// Labels and what was wanted beside them.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// Train ids.
    pub labels: LabelMap,
    /// Largest softmax of every pixel, in steps of 1/255; none where it was not wanted or is not known.
    pub confidence: Option<Vec<u8>>,
    /// Highest score less the second highest of every pixel; none where it was not wanted or is not known.
    pub margin: Option<Vec<f32>>,
}

impl Answer {
    /// Train ids of all pixels.
    pub fn labels(self) -> LabelMap {
        self.decide(Wanted::default()).labels
    }

    /// Train ids of all pixels, and what else is wanted, as far as the model gives it.
    pub fn decide(self, wanted: Wanted) -> Decided {
        match self {
            Self::Logits(logits) => {
                let labels = logits.labels();
                let any = wanted.confidence || wanted.margin;
                let choices = if any { upsample::choices(&logits.map, &logits.frame) } else { Vec::new() };
                let confidence = wanted.confidence.then(|| choices.iter().map(|choice| choice.confidence).collect());
                let margin = wanted.margin.then(|| choices.iter().map(|choice| choice.gap).collect());
                Decided { labels, confidence, margin }
            }
            Self::Frame { labels, confidence } => {
                Decided { labels, confidence: wanted.confidence.then_some(confidence), margin: None }
            }
            Self::Labels(labels) => Decided { labels, confidence: None, margin: None },
        }
    }
}
