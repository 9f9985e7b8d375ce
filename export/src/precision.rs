//! The number formats in which a network can be written, each a file of its own.

use std::fmt;

use anyhow::{Context, Result};
use clap::ValueEnum;
use protoseg_models::bundle::Model;
use protoseg_models::calibration::Calibration;
use protoseg_models::form::{Form, Precision};

use crate::network::Network;
use crate::onnx::emit::{Emission, emit, emit_quantized};
use crate::quantize::float16;
use crate::quantize::plan::{Rounding, Scheme};

/// A number format, with what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Numbers {
    /// 32-bit floats
    Fp32,
    /// 16-bit floats, for GPUs
    Fp16,
    /// 8-bit integers, for ONNX Runtime and OpenVINO on CPUs
    Int8,
    /// 8-bit integers that are symmetric around zero, for TensorRT
    Int8Trt,
}

/// What the maker of an 8-bit file may decide otherwise than [`Rounding`]'s constants.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Choices {
    /// Bits of weights in `int8`.
    pub weight_bits: Option<u8>,
    /// Largest sensitivity of values that are rounded.
    pub float_above: Option<f32>,
}

impl Numbers {
    /// Whether it counts in integers, which takes a calibration.
    pub fn integers(self) -> bool {
        matches!(self, Self::Int8 | Self::Int8Trt)
    }

    /// Name of its file in a bundle.
    pub fn file(self) -> &'static str {
        match self {
            Self::Fp32 => "model.onnx",
            Self::Fp16 => "model.fp16.onnx",
            Self::Int8 => "model.int8.onnx",
            Self::Int8Trt => "model.int8-trt.onnx",
        }
    }

    /// Writes a network in these numbers, and says which form that is.
    pub(crate) fn emit(
        self,
        network: &Network,
        calibration: Option<&Calibration>,
        choices: Choices,
        model: Option<&Model>,
    ) -> Result<(Form, Emission)> {
        let rounding = match self {
            Self::Fp32 => return floats(network, Precision::Fp32, model),
            Self::Fp16 => {
                float16::check(network, calibration)?;
                return floats(network, Precision::Fp16, model);
            }
            Self::Int8 => {
                Rounding { weight_bits: choices.weight_bits.unwrap_or(Rounding::CPU.weight_bits), ..Rounding::CPU }
            }
            Self::Int8Trt => Rounding::TENSORRT,
        };
        let rounding = Rounding { float_above: choices.float_above.unwrap_or(rounding.float_above), ..rounding };
        let calibration = calibration.with_context(|| {
            format!(
                "{self} needs to know what values the network makes, and the checkpoint has no calibration.json; train with \
                 calibration_pictures above 0"
            )
        })?;
        let scheme = Scheme::new(network, calibration, rounding)?;
        Ok((scheme.form().clone(), emit_quantized(network, &scheme, model)?))
    }
}

fn floats(network: &Network, precision: Precision, model: Option<&Model>) -> Result<(Form, Emission)> {
    let form = Form { precision, ..Form::LOGITS };
    let file = emit(network, &form, model)?;
    Ok((form, file))
}

impl fmt::Display for Numbers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
            Self::Int8Trt => "int8-trt",
        })
    }
}
