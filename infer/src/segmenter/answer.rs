//! What a model makes of a picture, from which its labels follow without the model.

use protoseg_images::label_map::LabelMap;

use crate::stitch::LogitMap;
use crate::upsample::{self, LogitGeometry, Outputs, Prediction};

/// Class scores of a picture before upsampling, and how they lie over it.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageLogits {
    /// The scores.
    pub map: LogitMap,
    /// How they lie over the picture.
    pub frame: LogitGeometry,
}

impl ImageLogits {
    /// Train ids of all pixels.
    pub fn labels(&self) -> LabelMap {
        self.predict(Outputs::default()).into()
    }

    /// Train ids of all pixels, with what else is wanted of them.
    pub fn predict(&self, wanted: Outputs) -> Prediction {
        upsample::predict(&self.map, &self.frame, wanted)
    }
}

/// What a model made of a picture.
#[derive(Debug, Clone, PartialEq)]
pub enum RawPrediction {
    /// Class scores.
    Logits(ImageLogits),
    /// Decided already: by an adopted file that gives no scores, or because the picture is large.
    Final(Prediction),
}

impl RawPrediction {
    /// Train ids of all pixels.
    pub fn labels(self) -> LabelMap {
        self.predict(Outputs::default()).into()
    }

    /// Train ids of all pixels, with what else is wanted of them. What was decided already stays as it is: of an adopted
    /// file that gives no scores, without confidence and margin.
    pub fn predict(self, wanted: Outputs) -> Prediction {
        match self {
            Self::Logits(logits) => logits.predict(wanted),
            Self::Final(decided) => decided,
        }
    }
}
