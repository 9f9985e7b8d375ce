//! What an ONNX file makes of its model: every choice that changes its graph, in the manifest and in the file's metadata.

use serde::{Deserialize, Serialize};

use crate::window::Tiling;

/// Key of the ONNX metadata entry that holds [`Variant`] as JSON.
pub const VARIANT_KEY: &str = "protoseg.form";

/// What an ONNX file computes, in which numbers, by which choices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// What it computes.
    pub kind: ModelKind,
    /// Its number format.
    pub precision: Precision,
    /// The frames that it takes, of the `frame` kind.
    pub frame: Option<FrameSpec>,
    /// How it counts in 8 bits, of int8 precision.
    pub quantization: Option<Quantization>,
}

/// What an ONNX file computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// Pictures `[N, H, W, 3]` to logits before upsampling.
    Logits,
    /// Frames of one size to labels and confidence, windows and upsampling inside.
    Frame,
    /// Whole pictures to a label for every pixel: what some other programs write.
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

/// Frames of one size, with the windows that the graph cuts them into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameSpec {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// The windows, as `SIZE:STRIDE`, or `whole`.
    pub pieces: Tiling,
    /// Windows of a frame that the network takes at once; as many as there are where it takes all.
    pub windows_at_once: usize,
}

/// How a file counts in 8 bits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantization {
    /// Bits that weights use: 7 where products of two bytes may overflow what sums pairs of them, else 8.
    pub weight_bits: u8,
    /// Whether activations are signed with their zero at 0, as TensorRT wants them; else they are unsigned.
    pub symmetric: bool,
    /// Nodes that count in floats, as rounding them costs too much.
    pub float_nodes: Vec<String>,
}

impl Variant {
    /// The plain form: pictures to logits in 32-bit floats.
    pub const LOGITS: Self = Self {
        kind: ModelKind::Logits,
        precision: Precision::Fp32,
        frame: None,
        quantization: None,
    };
}

impl ModelKind {
    /// The name in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::Frame => "frame",
            Self::Labels => "labels",
        }
    }
}

impl Precision {
    /// The name in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        }
    }
}
