//! Variants of an exported model: all choices that change an ONNX file's graph, as they stand in
//! the manifest and in the file's metadata.

use serde::{Deserialize, Serialize};

use crate::window::Tiling;

/// Key of the ONNX metadata entry that holds [`Variant`] as JSON.
pub const VARIANT_KEY: &str = "protoseg.form";

/// Kind, precision and further choices of an ONNX file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// Inputs and outputs.
    pub kind: ModelKind,
    /// Number format.
    pub precision: Precision,
    /// Frame size and windows, for [`ModelKind::Frame`].
    pub frame: Option<FrameSpec>,
    /// Quantization, for [`Precision::Int8`].
    pub quantization: Option<Quantization>,
}

/// Inputs and outputs of an ONNX file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// Images `[N, H, W, 3]` to logits before upsampling.
    Logits,
    /// Frames of one size to labels and confidence, with windows and upsampling in the graph.
    Frame,
    /// Whole images to a label for every pixel, as some other programs export.
    Labels,
}

/// Number format of an ONNX file's weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    Fp32,
    /// 16-bit floats.
    Fp16,
    /// 8-bit integers.
    Int8,
}

/// Frame size, and the windows that the graph splits frames into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameSpec {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Windows, as `SIZE:STRIDE`, or `whole`.
    #[serde(rename = "pieces")]
    pub tiling: Tiling,
    /// Batch size of the network inside; the number of windows if it takes all at once.
    pub windows_at_once: usize,
}

/// Choices of an 8-bit file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantization {
    /// Bits of a weight: 7 where a sum of two products of bytes may overflow 16 bits, else 8.
    pub weight_bits: u8,
    /// Signed activations with zero point 0, as TensorRT requires; otherwise unsigned.
    pub symmetric: bool,
    /// Nodes that stay in floats, because rounding them costs too much.
    pub float_nodes: Vec<String>,
}

impl Variant {
    /// The default variant: images to logits in 32-bit floats.
    pub const LOGITS: Self = Self {
        kind: ModelKind::Logits,
        precision: Precision::Fp32,
        frame: None,
        quantization: None,
    };
}

impl ModelKind {
    /// Returns the name in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::Frame => "frame",
            Self::Labels => "labels",
        }
    }
}

impl Precision {
    /// Every precision, the most exact first.
    pub const ALL: [Self; 3] = [Self::Fp32, Self::Fp16, Self::Int8];

    /// Returns the name in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        }
    }
}

/// An unknown precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write fp32, fp16 or int8")]
pub struct ParsePrecisionError;

impl std::str::FromStr for Precision {
    type Err = ParsePrecisionError;

    fn from_str(name: &str) -> Result<Self, ParsePrecisionError> {
        let mut all = Self::ALL.into_iter();
        all.find(|precision| precision.name() == name).ok_or(ParsePrecisionError)
    }
}
