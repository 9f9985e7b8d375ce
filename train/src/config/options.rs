//! Named values of configuration keys. The doc comments are user documentation, see
//! [`super::reference`].

use protoseg_models::arch::VitHead;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Data sets, see `data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DataSource {
    /// CamVid, 11 classes.
    Camvid,
    /// The official folder tree of Cityscapes, 19 classes; `labelIds` files are mapped on load.
    Cityscapes,
    /// Pascal VOC 2012, 21 classes.
    Voc,
    /// A folder of your own with `images/`, `labels/` and `classes.txt`.
    Folder,
    /// Synthetic street scenes, rendered by the program; no files are read.
    Synthetic,
}

/// Training methods, see `mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TrainingMode {
    /// Labeled images only.
    Supervised,
    /// Adds unlabeled images with pseudo-labels of a mean teacher.
    MeanTeacher,
    /// Adds a prototype predictor that is trained to agree with the teacher (Xu et al., NeurIPS
    /// 2022).
    Prototype,
    /// Adds unlabeled images with the labels that a finished network, `teacher`, gave to them.
    Distill,
}

impl TrainingMode {
    /// The value of `mode`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Supervised => "supervised",
            Self::MeanTeacher => "mean-teacher",
            Self::Prototype => "prototype",
            Self::Distill => "distill",
        }
    }
}

/// Heads of vision transformers, see `head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TransformerHead {
    /// Batch normalization and a 1x1 convolution, at the stride of the patches.
    Linear,
    /// Maps of four blocks projected, mixed and refined at a finer stride, beside shallow
    /// convolutions over the image.
    Pyramid,
    /// Like `pyramid`, with the first three stages of EfficientNet-Lite0 in place of the shallow
    /// convolutions: its weights are `pretrained_stem`, and it is frozen with the encoder.
    PyramidLite0,
}

impl From<TransformerHead> for VitHead {
    fn from(head: TransformerHead) -> Self {
        match head {
            TransformerHead::Linear => Self::Linear,
            TransformerHead::Pyramid => Self::Pyramid,
            TransformerHead::PyramidLite0 => Self::PyramidLite0,
        }
    }
}

/// Update rules, see `optimizer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UpdateRule {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Adam with decoupled weight decay (Loshchilov and Hutter, 2019).
    AdamW,
}

/// Class weights, see `class_weights`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClassWeights {
    /// 1 for every class.
    None,
    /// 1 / ln(1.02 + share of the labeled pixels) (Paszke et al., ENet, 2016).
    Enet,
    /// 1 / square root of the share of the labeled pixels, scaled to a mean of 1 over labeled
    /// pixels.
    SquareRoot,
}

/// Supervised losses, see `criterion`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SupervisedLoss {
    /// Mean cross-entropy.
    CrossEntropy,
    /// Cross-entropy of the hardest pixels (Shrivastava et al., 2016, as in U2PL).
    Ohem,
}

/// Point sampling, see `points`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PointSampling {
    /// One pixel in each of `point_cells` x `point_cells` cells, drawn for each image.
    #[serde(alias = "per-picture")]
    PerImage,
    /// The same pixels for all images of a micro-batch; cells have floor(`crop` / `point_cells`)
    /// pixels a side.
    Shared,
    /// At most `points_per_class` pixels of each class of an image.
    Balanced,
}

/// Prototype averages, see `average`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PrototypeAverage {
    /// Features scaled to unit length; prototypes have unit length too.
    #[serde(alias = "normalised")]
    Normalized,
    /// Features as they are.
    Raw,
}

/// Feature maps, see `features`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FeatureSource {
    /// The input of the linear head. It is not negative, so cosines lie between 0 and 1.
    Plain,
    /// The same map before its last ReLU, for networks whose map ends in one.
    BeforeRelu,
    /// The input of the linear head minus its running mean.
    #[serde(alias = "centred")]
    Centered,
}

/// Batch normalization of the teacher, see `teacher_statistics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TeacherStatistics {
    /// Moving average of the student's statistics, as for the weights.
    Average,
    /// Statistics of a teacher forward pass in training mode over labeled and mixed images, which
    /// also gives the entropy of the mixed images.
    Batch,
}

/// Labels of padding, see `pad_label`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PadLabel {
    /// Padding is ignored.
    Ignore,
    /// Padding is of the first class; padding of unlabeled images is learned from too.
    Zero,
}

/// Scales of the unlabeled loss, see `unlabeled_scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UnlabeledScale {
    /// All pixels but padding.
    Valid,
    /// All pixels.
    All,
}

/// Arithmetic of convolutions, see `precision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    Float32,
    /// bfloat16 inputs and weights of convolutions; everything else, and the trained weights, in
    /// 32-bit floats.
    Bfloat16,
}

impl Precision {
    /// The value of `precision` in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
        }
    }
}

/// Presets that reproduce published code, see `fidelity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fidelity {
    /// The repository of Xu et al. (NeurIPS 2022), which builds on U2PL.
    Pcr,
}
