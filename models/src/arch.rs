//! Network presets by name, and the graphs that they stand for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::analysis::WeightMismatch;
use crate::graph::{Graph, Tag};

mod deeplab;
pub mod efficientnet_lite;
pub mod resnet;

use efficientnet_lite::{LITE0, LITE1, LITE2};

/// A network family and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Preset {
    /// DeepLabV3+ on a ResNet-101, the paper's network.
    #[serde(rename = "deeplabv3plus-resnet101")]
    DeepLabV3PlusResNet101,
    /// DeepLabV3+ on a ResNet-50, the paper's smaller network.
    #[serde(rename = "deeplabv3plus-resnet50")]
    DeepLabV3PlusResNet50,
    /// Separable DeepLabV3+ for CPUs and edge devices: 4 million parameters.
    #[serde(rename = "deeplabv3plus-efficientnet-lite0")]
    DeepLabV3PlusEfficientNetLite0,
    /// The same on a deeper encoder.
    #[serde(rename = "deeplabv3plus-efficientnet-lite1")]
    DeepLabV3PlusEfficientNetLite1,
    /// The same on a deeper and wider encoder.
    #[serde(rename = "deeplabv3plus-efficientnet-lite2")]
    DeepLabV3PlusEfficientNetLite2,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 5] = [
        Self::DeepLabV3PlusResNet101,
        Self::DeepLabV3PlusResNet50,
        Self::DeepLabV3PlusEfficientNetLite0,
        Self::DeepLabV3PlusEfficientNetLite1,
        Self::DeepLabV3PlusEfficientNetLite2,
    ];

    /// Returns the name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeepLabV3PlusResNet101 => "deeplabv3plus-resnet101",
            Self::DeepLabV3PlusResNet50 => "deeplabv3plus-resnet50",
            Self::DeepLabV3PlusEfficientNetLite0 => "deeplabv3plus-efficientnet-lite0",
            Self::DeepLabV3PlusEfficientNetLite1 => "deeplabv3plus-efficientnet-lite1",
            Self::DeepLabV3PlusEfficientNetLite2 => "deeplabv3plus-efficientnet-lite2",
        }
    }

    /// Returns true if all resizing, the upsampling of logits included, aligns corner pixels.
    /// This decides which windows fit, see [`LogitGrid`](crate::window::LogitGrid).
    pub fn align_corners(self) -> bool {
        matches!(self, Self::DeepLabV3PlusResNet101 | Self::DeepLabV3PlusResNet50)
    }

    /// Returns the output stride of the encoder in pixels.
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
        let mut presets = Self::ALL.into_iter();
        presets
            .find(|preset| preset.name() == name)
            .ok_or_else(|| ArchError::Preset(name.to_owned()))
    }
}

/// An invalid network description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchError {
    /// An unknown preset name.
    #[error("unknown network `{0}`; known are {known}", known = Preset::ALL.map(Preset::name).join(", "))]
    Preset(String),
    /// A class count out of range: labels are bytes, and 255 marks ignored pixels.
    #[error("unsupported number of classes: {0}; a network has 2 to 255")]
    Classes(usize),
    /// An auxiliary head on a preset without one.
    #[error("{0} has no auxiliary head; set `auxiliary = false`")]
    Auxiliary(Preset),
    /// Weights of another network.
    #[error("the weights do not fit {0}: {1}")]
    Weights(Preset, #[source] WeightMismatch),
}

/// A network: a preset with its number of classes and heads.
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

/// Unchecked fields of a file.
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
    /// Returns a network without auxiliary head.
    pub fn new(preset: Preset, classes: usize) -> Result<Self, ArchError> {
        if !(2..=255).contains(&classes) {
            return Err(ArchError::Classes(classes));
        }
        Ok(Self { preset, classes, auxiliary: false })
    }

    /// Adds or removes the auxiliary head, which is used in training only.
    pub fn with_auxiliary(self, auxiliary: bool) -> Result<Self, ArchError> {
        if auxiliary && !self.preset.align_corners() {
            return Err(ArchError::Auxiliary(self.preset));
        }
        Ok(Self { auxiliary, ..self })
    }

    /// Returns the family and size.
    pub fn preset(self) -> Preset {
        self.preset
    }

    /// Returns the number of classes.
    pub fn classes(self) -> usize {
        self.classes
    }

    /// Returns the stride of the logits in pixels.
    pub fn logit_stride(self) -> usize {
        4
    }

    /// Builds the network as it is trained.
    pub fn graph(self) -> Graph {
        let Self { preset, classes, auxiliary } = self;
        match preset {
            Preset::DeepLabV3PlusResNet101 => deeplab::on_resnet([3, 4, 23, 3], classes, auxiliary),
            Preset::DeepLabV3PlusResNet50 => deeplab::on_resnet([3, 4, 6, 3], classes, auxiliary),
            Preset::DeepLabV3PlusEfficientNetLite0 => deeplab::on_efficientnet_lite(LITE0, classes),
            Preset::DeepLabV3PlusEfficientNetLite1 => deeplab::on_efficientnet_lite(LITE1, classes),
            Preset::DeepLabV3PlusEfficientNetLite2 => deeplab::on_efficientnet_lite(LITE2, classes),
        }
    }

    /// Builds the part of the network that the logits depend on.
    pub fn inference_graph(self) -> Graph {
        let graph = self.graph();
        let logits: Vec<_> = graph.tagged(Tag::Logits).into_iter().collect();
        graph.keep(&logits)
    }
}
