//! The choices that a configuration has, by their names in the file.

use serde::{Deserialize, Serialize};

/// Which pictures and labels are read, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataSource {
    /// CamVid, eleven classes.
    Camvid,
    /// The official tree of Cityscapes, 19 classes; `labelIds` files are mapped on load.
    Cityscapes,
    /// Pascal VOC 2012, 21 classes.
    Voc,
    /// A folder of one's own, with `images/`, `labels/` and `classes.txt`.
    Folder,
    /// Street scenes that the program draws; nothing is read.
    Synthetic,
}

/// What is trained on after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainingMode {
    /// Labelled pictures only.
    Supervised,
    /// Unlabelled pictures too, by the labels that a moving average of the student gives them.
    MeanTeacher,
    /// The same, with a prototype predictor that is made to agree.
    Prototype,
}

/// How much a class counts in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassWeights {
    /// Every pixel the same.
    None,
    /// 1 / ln(1.02 + share of the labelled pixels) (Paszke et al., ENet, 2016).
    Enet,
    /// 1 / square root of the share of the labelled pixels, with a mean of 1 over labelled pixels.
    SquareRoot,
}

/// The loss of the linear head on labelled pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SupervisedLoss {
    /// Mean cross-entropy.
    CrossEntropy,
    /// Cross-entropy of the hardest pixels (Shrivastava et al., 2016, as U2PL has it).
    Ohem,
}

/// How points are drawn that the prototype predictor sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PointSampling {
    /// One pixel in each of `point_cells` x `point_cells` cells, for each picture anew.
    #[serde(alias = "per-picture")]
    PerImage,
    /// The same pixels for every picture of a micro-batch, cells of floor(side / `point_cells`) pixels.
    Shared,
    /// As many for each class of a picture, at most `points_per_class`.
    Balanced,
}

/// What a prototype is the moving average of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrototypeAverage {
    /// Features of length 1; the prototype has length 1 too.
    #[serde(alias = "normalised")]
    Normalized,
    /// Features as they are.
    Raw,
}

/// Which features the prototype predictor compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeatureSource {
    /// The map that the linear head reads; not negative, so cosines lie in [0, 1].
    Plain,
    /// The same before its last ReLU; networks whose map ends otherwise have none.
    BeforeRelu,
    /// The map minus its running mean.
    #[serde(alias = "centred")]
    Centered,
}

/// Where the teacher's batch normalisation statistics come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TeacherStatistics {
    /// They follow the student's, as the weights do.
    Average,
    /// A forward pass of the teacher in training mode over labelled and mixed pictures; the entropy of the mixed pictures
    /// comes from that pass.
    Batch,
}

/// The label of pixels that lie outside a labelled picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PadLabel {
    /// None: they count nowhere.
    Ignore,
    /// The first class; padding of unlabelled pictures is learnt from too.
    Zero,
}

/// Which pixels the unlabelled loss is scaled by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnlabeledScale {
    /// Those that are not padding.
    Valid,
    /// All.
    All,
}

/// Numbers of convolutions in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    Float32,
    /// Inputs and weights of convolutions in bfloat16; everything else, and the weights that are learnt, in 32 bits.
    Bfloat16,
}

impl Precision {
    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
        }
    }
}

/// A published line of code whose habits are followed to the letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fidelity {
    /// The paper's repository on top of U2PL.
    Pcr,
}
