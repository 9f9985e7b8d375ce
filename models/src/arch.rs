//! Network presets by name, and the graphs that they stand for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::analysis::WeightMismatch;
use crate::graph::{Graph, Tag};

mod deeplab;
pub mod efficientnet_lite;
pub mod resnet;
pub mod vit;

pub mod vit_head;

use efficientnet_lite::{LITE0, LITE1, LITE2};
use vit::VitScaling;

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
    /// DINOv2's ViT-S: 22 million parameters.
    #[serde(rename = "vit-s14")]
    VitS14,
    /// DINOv2's ViT-B: 86 million parameters.
    #[serde(rename = "vit-b14")]
    VitB14,
    /// DINOv2's ViT-L, for GPUs: 300 million parameters.
    #[serde(rename = "vit-l14")]
    VitL14,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 8] = [
        Self::DeepLabV3PlusResNet101,
        Self::DeepLabV3PlusResNet50,
        Self::DeepLabV3PlusEfficientNetLite0,
        Self::DeepLabV3PlusEfficientNetLite1,
        Self::DeepLabV3PlusEfficientNetLite2,
        Self::VitS14,
        Self::VitB14,
        Self::VitL14,
    ];

    /// Returns the name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeepLabV3PlusResNet101 => "deeplabv3plus-resnet101",
            Self::DeepLabV3PlusResNet50 => "deeplabv3plus-resnet50",
            Self::DeepLabV3PlusEfficientNetLite0 => "deeplabv3plus-efficientnet-lite0",
            Self::DeepLabV3PlusEfficientNetLite1 => "deeplabv3plus-efficientnet-lite1",
            Self::DeepLabV3PlusEfficientNetLite2 => "deeplabv3plus-efficientnet-lite2",
            Self::VitS14 => "vit-s14",
            Self::VitB14 => "vit-b14",
            Self::VitL14 => "vit-l14",
        }
    }

    /// Returns true if all resizing, the upsampling of logits included, aligns corner pixels.
    /// This decides which windows fit, see [`LogitGrid`](crate::window::LogitGrid).
    pub fn align_corners(self) -> bool {
        matches!(self, Self::DeepLabV3PlusResNet101 | Self::DeepLabV3PlusResNet50)
    }

    /// Returns width and depth of a vision transformer.
    pub fn vit(self) -> Option<VitScaling> {
        match self {
            Self::VitS14 => Some(vit::SMALL),
            Self::VitB14 => Some(vit::BASE),
            Self::VitL14 => Some(vit::LARGE),
            _ => None,
        }
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
    /// A choice for vision transformers on another preset.
    #[error("{0} is no vision transformer: it has no choice of head, patches and registers")]
    NoTransformer(Preset),
    /// Patches of another size than those that the networks are built for.
    #[error("patches of {0} pixels are not built; patches cover 8, 14 or 16 pixels")]
    PatchPixels(usize),
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
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ArchFields")]
pub struct Arch {
    preset: Preset,
    classes: usize,
    auxiliary: bool,
    #[serde(default, skip_serializing_if = "VitOptions::is_default")]
    vit: VitOptions,
}

/// As derived, but without default options of transformers, which older files do not have. The
/// text is part of a model's fingerprint.
impl fmt::Debug for Arch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { preset, classes, auxiliary, vit } = self;
        let mut fields = formatter.debug_struct("Arch");
        fields.field("preset", preset).field("classes", classes).field("auxiliary", auxiliary);
        if !vit.is_default() {
            fields.field("vit", vit);
        }
        fields.finish()
    }
}

/// Choices for vision transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitOptions {
    /// The head on the encoder.
    pub head: VitHead,
    /// Side of a patch in pixels of the image, which is resized so that it has
    /// [`PATCH`](vit::PATCH) pixels in the encoder: 8, 14 or 16.
    pub patch_pixels: usize,
    /// Number of registers of the published weights, 0 or 4.
    pub registers: usize,
}

impl VitOptions {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for VitOptions {
    fn default() -> Self {
        Self { head: VitHead::Pyramid, patch_pixels: 8, registers: 0 }
    }
}

/// Head of a vision transformer, on the maps of four of its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VitHead {
    /// Batch normalization and a 1x1 convolution; logits at the stride of the patches.
    Linear,
    /// Maps projected, mixed and refined at a finer stride, beside shallow convolutions over the
    /// image.
    Pyramid,
    /// Like `Pyramid`, with the first three stages of EfficientNet-Lite0 over the image in place of
    /// the shallow convolutions. They belong to the encoder.
    PyramidLite0,
}

/// Unchecked fields of a file.
#[derive(Deserialize)]
struct ArchFields {
    preset: Preset,
    classes: usize,
    auxiliary: bool,
    #[serde(default)]
    vit: VitOptions,
}

impl TryFrom<ArchFields> for Arch {
    type Error = ArchError;

    fn try_from(fields: ArchFields) -> Result<Self, ArchError> {
        Self::new(fields.preset, fields.classes)?
            .with_vit(fields.vit)?
            .with_auxiliary(fields.auxiliary)
    }
}

impl Arch {
    /// Returns a network without auxiliary head.
    pub fn new(preset: Preset, classes: usize) -> Result<Self, ArchError> {
        if !(2..=255).contains(&classes) {
            return Err(ArchError::Classes(classes));
        }
        Ok(Self { preset, classes, auxiliary: false, vit: VitOptions::default() })
    }

    /// Adds or removes the auxiliary head, which is used in training only.
    pub fn with_auxiliary(self, auxiliary: bool) -> Result<Self, ArchError> {
        let pyramid = self.preset.vit().is_some() && self.vit.head != VitHead::Linear;
        if auxiliary && !self.preset.align_corners() && !pyramid {
            return Err(ArchError::Auxiliary(self.preset));
        }
        Ok(Self { auxiliary, ..self })
    }

    /// Sets the choices for vision transformers.
    pub fn with_vit(self, vit: VitOptions) -> Result<Self, ArchError> {
        if self.preset.vit().is_none() && !vit.is_default() {
            return Err(ArchError::NoTransformer(self.preset));
        }
        if ![8, 14, 16].contains(&vit.patch_pixels) {
            return Err(ArchError::PatchPixels(vit.patch_pixels));
        }
        Ok(Self { vit, ..self })
    }

    /// Returns the choices for vision transformers.
    pub fn vit(self) -> VitOptions {
        self.vit
    }

    /// Returns the output stride of the encoder in pixels.
    pub fn encoder_stride(self) -> usize {
        match self.preset.vit() {
            Some(_) => self.vit.patch_pixels,
            None if self.preset.align_corners() => 8,
            None => 16,
        }
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
        match (self.preset.vit(), self.vit.head) {
            (Some(_), VitHead::Linear) => self.vit.patch_pixels,
            (Some(_), VitHead::Pyramid | VitHead::PyramidLite0) => {
                vit_head::pyramid_stride(self.vit.patch_pixels)
            }
            (None, _) => 4,
        }
    }

    /// Builds the network as it is trained.
    pub fn graph(self) -> Graph {
        let Self { preset, classes, auxiliary, vit } = self;
        match preset {
            Preset::DeepLabV3PlusResNet101 => deeplab::on_resnet([3, 4, 23, 3], classes, auxiliary),
            Preset::DeepLabV3PlusResNet50 => deeplab::on_resnet([3, 4, 6, 3], classes, auxiliary),
            Preset::DeepLabV3PlusEfficientNetLite0 => deeplab::on_efficientnet_lite(LITE0, classes),
            Preset::DeepLabV3PlusEfficientNetLite1 => deeplab::on_efficientnet_lite(LITE1, classes),
            Preset::DeepLabV3PlusEfficientNetLite2 => deeplab::on_efficientnet_lite(LITE2, classes),
            Preset::VitS14 => vit_head::build(vit::SMALL, vit, classes, auxiliary),
            Preset::VitB14 => vit_head::build(vit::BASE, vit, classes, auxiliary),
            Preset::VitL14 => vit_head::build(vit::LARGE, vit, classes, auxiliary),
        }
    }

    /// Builds the part of the network that the logits depend on.
    pub fn inference_graph(self) -> Graph {
        let graph = self.graph();
        let logits: Vec<_> = graph.tagged(Tag::Logits).into_iter().collect();
        graph.keep(&logits)
    }
}
