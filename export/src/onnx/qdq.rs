//! Quantized values and weights in ONNX: integers with a `DequantizeLinear` (QDQ format). Runtimes
//! fuse these with the operation between them to one on integers.
//!
//! A value `x` is `x.float` before it is rounded, `x.integers` after, and `x` when dequantized.

use crate::onnx::builder::GraphBuilder;
use crate::onnx::proto::{AttributeProto, DataType};
use crate::quantize::conv::QuantizedConv;
use crate::quantize::linear::QuantizedLinear;
use crate::quantize::range::QuantParams;

/// Name of a value before it is rounded.
pub(crate) fn unrounded(value: &str) -> String {
    format!("{value}.float")
}

/// Name of the integers of a value.
pub(crate) fn integers(value: &str) -> String {
    format!("{value}.integers")
}

/// Writes the rounding of an [`unrounded`] value.
pub(crate) fn quantize(
    builder: &mut GraphBuilder,
    value: &str,
    params: QuantParams,
    symmetric: bool,
) {
    let [scale, zero] = constants(builder, value, params, symmetric);
    builder.op(&integers(value), "QuantizeLinear", &[&unrounded(value), &scale, &zero], vec![]);
}

/// Writes the value of its [`integers`].
pub(crate) fn dequantize(
    builder: &mut GraphBuilder,
    value: &str,
    params: QuantParams,
    symmetric: bool,
) {
    let [scale, zero] = constants(builder, value, params, symmetric);
    let inputs = vec![integers(value), scale, zero];
    builder.node(&format!("{value}.dequantized"), "DequantizeLinear", inputs, value, vec![]);
}

fn constants(
    builder: &mut GraphBuilder,
    value: &str,
    params: QuantParams,
    symmetric: bool,
) -> [String; 2] {
    let element = if symmetric { DataType::Int8 } else { DataType::Uint8 };
    let scale = builder.float_constant(&format!("{value}.step"), &[], &[params.scale]);
    let zero_point = || vec![params.zero_point];
    [scale, builder.constant(&format!("{value}.zero"), &[], element, zero_point)]
}

/// Writes the 8-bit weights of a convolution.
pub(crate) fn weights(
    builder: &mut GraphBuilder,
    name: &str,
    shape: &[usize],
    conv: &QuantizedConv,
) -> String {
    let bytes = || conv.weights.iter().map(|&weight| weight as u8).collect();
    let integers = builder.constant(&integers(name), shape, DataType::Int8, bytes);
    let channels = conv.scales.len();
    let zero = format!("{name}.zero");
    let zero = builder.constant(&zero, &[channels], DataType::Int8, || vec![0; channels]);
    by_channel(builder, name, [&integers, &zero], &conv.scales, 0)
}

/// Writes the 8-bit weights `[inputs, outputs]` of a linear layer.
pub(crate) fn linear_weights(
    builder: &mut GraphBuilder,
    name: &str,
    linear: &QuantizedLinear,
) -> String {
    let channels = linear.scales.len();
    let shape = [linear.weights.len() / channels.max(1), channels];
    let bytes = || linear.weights.iter().map(|&weight| weight as u8).collect();
    let integers = builder.constant(&integers(name), &shape, DataType::Int8, bytes);
    let zero = format!("{name}.zero");
    let zero = builder.constant(&zero, &[channels], DataType::Int8, || vec![0; channels]);
    by_channel(builder, name, [&integers, &zero], &linear.scales, 1)
}

/// Writes the 32-bit bias of a convolution.
pub(crate) fn bias(builder: &mut GraphBuilder, name: &str, conv: &QuantizedConv) -> String {
    let channels = conv.biases.len();
    let bytes = || conv.biases.iter().flat_map(|integer| integer.to_le_bytes()).collect();
    let integers = builder.constant(&integers(name), &[channels], DataType::Int32, bytes);
    let zero = format!("{name}.zero");
    let zero = builder.constant(&zero, &[channels], DataType::Int32, || vec![0; 4 * channels]);
    by_channel(builder, name, [&integers, &zero], &conv.bias_scales, 0)
}

/// Writes the floats of integers with one scale for each index of a dimension.
fn by_channel(
    builder: &mut GraphBuilder,
    name: &str,
    [integers, zero]: [&str; 2],
    scales: &[f32],
    axis: i64,
) -> String {
    let scales = builder.float_constant(&format!("{name}.step"), &[scales.len()], scales);
    let axis = vec![AttributeProto::int("axis", axis)];
    builder.op(name, "DequantizeLinear", &[integers, &scales, zero], axis)
}
