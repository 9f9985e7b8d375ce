//! The number formats in which a network can be written, each a file of its own.

use std::fmt;

use anyhow::{Context, Result};
use clap::ValueEnum;
use protoseg_models::bundle::Model;
use protoseg_models::calibration::Calibration;
use protoseg_models::variant::{Precision, Variant};

use crate::network::Network;
use crate::onnx::emit::{EmittedModel, emit, emit_quantized};
use crate::quantize::float16;
use crate::quantize::plan::{QuantizationPlan, QuantizeConfig};

/// A number format, with what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum ExportPrecision {
    /// 32-bit floats
    Fp32,
    /// 16-bit floats, for GPUs
    Fp16,
    /// 8-bit integers, for ONNX Runtime and OpenVINO on CPUs
    Int8,
    /// 8-bit integers that are symmetric around zero, for TensorRT
    Int8Trt,
}

/// What the maker of an 8-bit file may decide otherwise than [`QuantizeConfig`]'s constants.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct QuantizeOverrides {
    /// Bits of weights in `int8`.
    pub weight_bits: Option<u8>,
    /// Largest sensitivity of values that are rounded.
    pub max_sensitivity: Option<f32>,
}

impl ExportPrecision {
    /// Whether it counts in integers, which takes a calibration.
    pub fn is_int8(self) -> bool {
        matches!(self, Self::Int8 | Self::Int8Trt)
    }

    /// Name of its file in a bundle.
    pub fn file_name(self) -> &'static str {
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
        choices: QuantizeOverrides,
        model: Option<&Model>,
    ) -> Result<(Variant, EmittedModel)> {
        let rounding = match self {
            Self::Fp32 => return floats(network, Precision::Fp32, model),
            Self::Fp16 => {
                float16::check(network, calibration)?;
                return floats(network, Precision::Fp16, model);
            }
            Self::Int8 => QuantizeConfig {
                weight_bits: choices.weight_bits.unwrap_or(QuantizeConfig::CPU.weight_bits),
                ..QuantizeConfig::CPU
            },
            Self::Int8Trt => QuantizeConfig::TENSORRT,
        };
        let rounding = QuantizeConfig {
            max_sensitivity: choices.max_sensitivity.unwrap_or(rounding.max_sensitivity),
            ..rounding
        };
        let calibration = calibration.with_context(|| {
            format!(
                "{self} needs to know what values the network makes, and the checkpoint has no calibration.json; train with \
                 calibration_pictures above 0"
            )
        })?;
        let scheme = QuantizationPlan::new(network, calibration, rounding)?;
        Ok((scheme.form().clone(), emit_quantized(network, &scheme, model)?))
    }
}

fn floats(
    network: &Network,
    precision: Precision,
    model: Option<&Model>,
) -> Result<(Variant, EmittedModel)> {
    let form = Variant { precision, ..Variant::LOGITS };
    let file = emit(network, &form, model)?;
    Ok((form, file))
}

impl fmt::Display for ExportPrecision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
            Self::Int8Trt => "int8-trt",
        })
    }
}
