//! Rounded values and weights as ONNX writes them: integers, and a `DequantizeLinear` that says what they mean. Runtimes
//! take these together with the operation between them as one on integers.
//!
//! A value `x` is `x.float` before it is rounded and `x.integers` after; by its own name it is a float again.

use crate::onnx::builder::GraphBuilder;
use crate::onnx::proto::{AttributeProto, DataType};
use crate::quantize::conv::QuantizedConv;
use crate::quantize::range::QuantParams;

/// What a value is called before it is rounded.
pub(crate) fn made(value: &str) -> String {
    format!("{value}.float")
}

/// What the integers of a value are called.
pub(crate) fn integers(value: &str) -> String {
    format!("{value}.integers")
}

/// Rounds the value that was [`made`].
pub(crate) fn quantize(
    builder: &mut GraphBuilder,
    value: &str,
    step: QuantParams,
    symmetric: bool,
) {
    let [size, zero] = constants(builder, value, step, symmetric);
    builder.op(&integers(value), "QuantizeLinear", &[&made(value), &size, &zero], vec![]);
}

/// The value of [`integers`], under its own name.
pub(crate) fn dequantize(
    builder: &mut GraphBuilder,
    value: &str,
    step: QuantParams,
    symmetric: bool,
) {
    let inputs =
        [[integers(value)].as_slice(), &constants(builder, value, step, symmetric)].concat();
    builder.node(&format!("{value}.dequantized"), "DequantizeLinear", inputs, value, vec![]);
}

fn constants(
    builder: &mut GraphBuilder,
    value: &str,
    step: QuantParams,
    symmetric: bool,
) -> [String; 2] {
    let element = if symmetric { DataType::Int8 } else { DataType::Uint8 };
    let size = builder.float_constant(&format!("{value}.step"), &[], &[step.size]);
    [size, builder.constant(&format!("{value}.zero"), &[], element, || vec![step.zero])]
}

/// The weights of a convolution from its kernels in 8 bits.
pub(crate) fn weights(
    builder: &mut GraphBuilder,
    name: &str,
    shape: &[usize],
    kernels: &QuantizedConv,
) -> String {
    let bytes = || kernels.weights.iter().map(|&weight| weight as u8).collect();
    let integers = builder.constant(&integers(name), shape, DataType::Int8, bytes);
    let zeros = || vec![0; kernels.sizes.len()];
    let zero =
        builder.constant(&format!("{name}.zero"), &[kernels.sizes.len()], DataType::Int8, zeros);
    by_channel(builder, name, [&integers, &zero], &kernels.sizes)
}

/// The bias of a convolution from integers of 32 bits.
pub(crate) fn bias(builder: &mut GraphBuilder, name: &str, kernels: &QuantizedConv) -> String {
    let bytes =
        |integers: &[i32]| integers.iter().flat_map(|integer| integer.to_le_bytes()).collect();
    let count = [kernels.biases.len()];
    let integers =
        builder.constant(&integers(name), &count, DataType::Int32, || bytes(&kernels.biases));
    let zero = builder.constant(&format!("{name}.zero"), &count, DataType::Int32, || {
        bytes(&vec![0; kernels.biases.len()])
    });
    by_channel(builder, name, [&integers, &zero], &kernels.bias_sizes)
}

/// Floats of integers whose first dimension has a step for each place.
fn by_channel(
    builder: &mut GraphBuilder,
    name: &str,
    [integers, zero]: [&str; 2],
    sizes: &[f32],
) -> String {
    let sizes = builder.float_constant(&format!("{name}.step"), &[sizes.len()], sizes);
    let axis = vec![AttributeProto::int("axis", 0)];
    builder.op(name, "DequantizeLinear", &[integers, &sizes, zero], axis)
}
