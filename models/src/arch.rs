//! The networks that protoseg offers, by name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::efficientnet_lite::{LITE0, LITE1, LITE2};
use crate::graph::{Graph, Tag};
use crate::{deeplab, parameters::WeightMismatch};

/// A network family and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Preset {
    /// The paper's network on a ResNet-101.
    #[serde(rename = "deeplabv3plus-resnet101")]
    DeepLabV3PlusResNet101,
    /// The paper's network on a ResNet-50.
    #[serde(rename = "deeplabv3plus-resnet50")]
    DeepLabV3PlusResNet50,
    /// For CPUs and edge devices: 4 million parameters.
    #[serde(rename = "deeplabv3plus-efficientnet-lite0")]
    DeepLabV3PlusEfficientNetLite0,
    /// A little larger.
    #[serde(rename = "deeplabv3plus-efficientnet-lite1")]
    DeepLabV3PlusEfficientNetLite1,
    /// Larger still.
    #[serde(rename = "deeplabv3plus-efficientnet-lite2")]
    DeepLabV3PlusEfficientNetLite2,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::DeepLabV3PlusResNet101,
        Self::DeepLabV3PlusResNet50,
        Self::DeepLabV3PlusEfficientNetLite0,
        Self::DeepLabV3PlusEfficientNetLite1,
        Self::DeepLabV3PlusEfficientNetLite2,
    ];

    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeepLabV3PlusResNet101 => "deeplabv3plus-resnet101",
            Self::DeepLabV3PlusResNet50 => "deeplabv3plus-resnet50",
            Self::DeepLabV3PlusEfficientNetLite0 => "deeplabv3plus-efficientnet-lite0",
            Self::DeepLabV3PlusEfficientNetLite1 => "deeplabv3plus-efficientnet-lite1",
            Self::DeepLabV3PlusEfficientNetLite2 => "deeplabv3plus-efficientnet-lite2",
        }
    }

    /// Whether it resizes with aligned corners, the logits' upsampling included. Decides which windows fit.
    pub fn align_corners(self) -> bool {
        matches!(self, Self::DeepLabV3PlusResNet101 | Self::DeepLabV3PlusResNet50)
    }

    /// Pixels per step of the encoder's last map.
    pub fn encoder_stride(self) -> usize {
        if self.align_corners() { 8 } else { 16 }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Preset {
    type Err = ArchError;

    fn from_str(name: &str) -> Result<Self, ArchError> {
        Self::ALL
            .into_iter()
            .find(|preset| preset.name() == name)
            .ok_or_else(|| ArchError::Preset(name.to_owned()))
    }
}

/// A network that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchError {
    /// No preset is called so.
    #[error("there is no network `{0}`; there are {known}", known = Preset::ALL.map(Preset::name).join(", "))]
    Preset(String),
    /// Labels are bytes, and 255 is kept for ignored pixels.
    #[error("a network of {0} classes cannot be: between 2 and 255 are possible")]
    Classes(usize),
    /// The Lites have no auxiliary head.
    #[error("{0} has no auxiliary head; set `auxiliary = false`")]
    Auxiliary(Preset),
    /// Weights of another network.
    #[error("the weights do not fit {arch}: {source}")]
    Weights {
        /// The network.
        arch: Preset,
        /// How they differ.
        source: WeightMismatch,
    },
}

/// A network: a preset and its numbers.
///
/// ```
/// use protoseg_models::arch::{Arch, Preset};
///
/// let arch = Arch::new(Preset::DeepLabV3PlusResNet101, 19)?;
/// let graph = arch.graph();
/// assert_eq!(graph.encoder_stride(), 8);
/// assert_eq!(arch.logit_stride(), 4);
/// # Ok::<(), protoseg_models::arch::ArchError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ArchFields")]
pub struct Arch {
    preset: Preset,
    classes: usize,
    auxiliary: bool,
}

/// What stands in a file, before it is checked.
#[derive(Deserialize)]
struct ArchFields {
    preset: Preset,
    classes: usize,
    auxiliary: bool,
}

impl TryFrom<ArchFields> for Arch {
    type Error = ArchError;

    fn try_from(fields: ArchFields) -> Result<Self, ArchError> {
        Self::new(fields.preset, fields.classes)?.with_auxiliary(fields.auxiliary)
    }
}

impl Arch {
    /// A network without auxiliary head.
    pub fn new(preset: Preset, classes: usize) -> Result<Self, ArchError> {
        if !(2..=255).contains(&classes) {
            return Err(ArchError::Classes(classes));
        }
        Ok(Self { preset, classes, auxiliary: false })
    }

    /// The same with or without the auxiliary head, which only training uses.
    pub fn with_auxiliary(self, auxiliary: bool) -> Result<Self, ArchError> {
        if auxiliary && !self.preset.align_corners() {
            return Err(ArchError::Auxiliary(self.preset));
        }
        Ok(Self { auxiliary, ..self })
    }

    /// Family and size.
    pub fn preset(self) -> Preset {
        self.preset
    }

    /// Number of classes.
    pub fn classes(self) -> usize {
        self.classes
    }

    /// Pixels per step of the logits.
    pub fn logit_stride(self) -> usize {
        4
    }

    /// The network.
    pub fn graph(self) -> Graph {
        match self.preset {
            Preset::DeepLabV3PlusResNet101 => {
                deeplab::on_resnet([3, 4, 23, 3], self.classes, self.auxiliary)
            }
            Preset::DeepLabV3PlusResNet50 => {
                deeplab::on_resnet([3, 4, 6, 3], self.classes, self.auxiliary)
            }
            Preset::DeepLabV3PlusEfficientNetLite0 => {
                deeplab::on_efficientnet_lite(LITE0, self.classes)
            }
            Preset::DeepLabV3PlusEfficientNetLite1 => {
                deeplab::on_efficientnet_lite(LITE1, self.classes)
            }
            Preset::DeepLabV3PlusEfficientNetLite2 => {
                deeplab::on_efficientnet_lite(LITE2, self.classes)
            }
        }
    }

    /// The network as it is deployed: what the logits need, and nothing else.
    pub fn inference_graph(self) -> Graph {
        let graph = self.graph();
        let logits: Vec<_> = graph.tagged(Tag::Logits).into_iter().collect();
        graph.keep(&logits)
    }
}
