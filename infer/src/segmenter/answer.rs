//! What a model makes of a picture, from which its labels follow without the model.

use protoseg_images::label_map::LabelMap;

use crate::stitch::LogitMap;
use crate::upsample::{self, Decided, Frame, Wanted};

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
        self.decide(Wanted::default()).into()
    }

    /// Train ids of all pixels, with what else is wanted of them.
    pub fn decide(&self, wanted: Wanted) -> Decided {
        upsample::decide(&self.map, &self.frame, wanted)
    }
}

/// What a model made of a picture.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Class scores.
    Logits(FrameLogits),
    /// Decided already: by an adopted file that gives no scores, or because the picture is large.
    Decided(Decided),
}

impl Answer {
    /// Train ids of all pixels.
    pub fn labels(self) -> LabelMap {
        self.decide(Wanted::default()).into()
    }

    /// Train ids of all pixels, with what else is wanted of them. What was decided already stays as it is: of an adopted
    /// file that gives no scores, without confidence and margin.
    pub fn decide(self, wanted: Wanted) -> Decided {
        match self {
            Self::Logits(logits) => logits.decide(wanted),
            Self::Decided(decided) => decided,
        }
    }
}
