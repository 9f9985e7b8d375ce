//! The nodes of a network in ONNX: one `match` over [`Op`].
//!
//! Nodes have the names of the graph, constants those of the published parameters, and values that
//! of the node that computes them in the trainer's network.

use std::sync::Arc;

use protoseg_models::analysis::{Parameter, Role};
use protoseg_models::graph::{Conv, Node, NodeId, Op};
use protoseg_models::weights::Tensor;

use crate::network::Network;
use crate::onnx::builder::GraphBuilder;
use crate::onnx::proto::{AttributeProto, DataType};
use crate::onnx::qdq;
use crate::quantize::plan::QuantizationPlan;

mod tokens;

/// Names and values of the bounds of every ReLU6.
const RELU6_BOUNDS: [(&str, f32); 2] = [("relu6.min", 0.0), ("relu6.max", 6.0)];

/// Writes the nodes of a network into a graph.
pub(crate) struct NodeWriter<'a> {
    network: &'a Network,
    builder: &'a mut GraphBuilder,
    /// Name of each node's value in the file.
    values: Vec<String>,
    /// Prefix of all names, for networks that are written more than once.
    prefix: String,
    /// Type of weights and values, [`DataType::Float`] or [`DataType::Float16`].
    float: DataType,
    /// Height and width of each node's value, if fixed: resizes then have scales, which leaves the
    /// batch size open.
    sizes: Option<Vec<[usize; 2]>>,
    plan: Option<&'a QuantizationPlan>,
}

impl<'a> NodeWriter<'a> {
    pub(crate) fn new(
        network: &'a Network,
        builder: &'a mut GraphBuilder,
        float: DataType,
    ) -> Self {
        Self {
            network,
            builder,
            values: network.values.clone(),
            prefix: String::new(),
            float,
            sizes: None,
            plan: None,
        }
    }

    /// Sets the prefix of all names.
    pub(crate) fn with_prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.to_owned();
        self.values.iter_mut().for_each(|value| *value = format!("{prefix}{value}"));
        self
    }

    /// Sets the height and width of each node's value, for images of one size.
    pub(crate) fn with_sizes(mut self, sizes: Vec<[usize; 2]>) -> Self {
        self.sizes = Some(sizes);
        self
    }

    /// Sets the plan of an 8-bit file.
    pub(crate) fn with_plan(mut self, plan: Option<&'a QuantizationPlan>) -> Self {
        self.plan = plan;
        self
    }

    /// Sets the name of a node's value.
    pub(crate) fn set_value_name(&mut self, id: NodeId, value: &str) {
        value.clone_into(&mut self.values[id.0]);
    }

    /// Returns the name of a node's value.
    pub(crate) fn value(&self, id: NodeId) -> &str {
        &self.values[id.0]
    }

    /// Returns the name of a node in the file.
    fn name(&self, node: &Node) -> String {
        format!("{}{}", self.prefix, node.name)
    }

    /// Writes one node after its inputs.
    pub(crate) fn write(&mut self, id: NodeId) {
        let output = self.values[id.0].clone();
        let params = self.plan.and_then(|plan| Some((plan, plan.params(id)?)));
        let Some((plan, params)) = params else { return self.compute(id, &output) };
        if plan.is_pixels(id) {
            let node = self.network.graph.node(id);
            let name = self.name(node);
            let pixels = self.values[node.inputs[0].0].clone();
            let order = vec![AttributeProto::ints("perm", &[0, 3, 1, 2])];
            self.builder.node(&name, "Transpose", vec![pixels], &qdq::integers(&output), order);
        } else {
            self.compute(id, &qdq::unrounded(&output));
            qdq::quantize(self.builder, &output, params, plan.symmetric());
        }
        qdq::dequantize(self.builder, &output, params, plan.symmetric());
    }

    /// Writes one node, its value under a given name.
    fn compute(&mut self, id: NodeId, output: &str) {
        let node = self.network.graph.node(id);
        let name = self.name(node);
        let mut inputs: Vec<String> =
            node.inputs.iter().map(|input| self.values[input.0].clone()).collect();
        let parameters = match node.op {
            // These write their own.
            Op::EmbedTokens { .. } | Op::LayerNorm { .. } | Op::TokenLinear { .. } => Vec::new(),
            _ => self.network.graph.node_parameters(node),
        };
        inputs.extend(parameters.iter().map(|parameter| self.parameter(id, parameter)));
        let (operator, attributes) = match node.op {
            Op::Input => return,
            Op::PatchEmbed { patch, pixels, .. } => {
                return self.patches(node, [patch, pixels], inputs, output);
            }
            Op::EmbedTokens { grid, registers } => {
                return self.embed(node, grid, registers, output);
            }
            Op::LayerNorm { eps } => return self.layer_norm(node, eps, output),
            Op::TokenLinear { .. } => return self.token_linear(node, id, output),
            Op::Attention { heads } => return self.attention(node, heads, output),
            Op::Gelu => return self.gelu(node, output),
            Op::TokenMap { skip } => return self.token_map(node, id, skip, output),
            Op::LayerScale => ("Mul", vec![]),
            Op::Normalize { mean, std } => {
                return self.normalize(&name, &inputs[0], output, mean, std);
            }
            Op::GlobalAvgPool => return self.mean(&name, &inputs[0], output),
            Op::Resize { align_corners } => {
                // No region of interest, and either scales or sizes.
                let sizes = self.resize_to(&name, node);
                inputs = std::iter::once(inputs.swap_remove(0))
                    .chain(std::iter::once(String::new()))
                    .chain(sizes)
                    .collect();
                ("Resize", resize_attributes(align_corners))
            }
            Op::Linear { .. } => {
                let axis = vec![AttributeProto::int("axis", 1)];
                inputs[0] =
                    self.builder.op(&format!("{name}.flat"), "Flatten", &[&inputs[0]], axis);
                ("Gemm", vec![AttributeProto::int("transB", 1)])
            }
            Op::Conv(conv) => ("Conv", conv_attributes(conv)),
            Op::BatchNorm { eps, .. } => {
                ("BatchNormalization", vec![AttributeProto::float("epsilon", eps as f32)])
            }
            Op::Relu => ("Relu", vec![]),
            Op::Relu6 => {
                inputs.extend(RELU6_BOUNDS.map(|(name, bound)| self.scalar(name, bound)));
                ("Clip", vec![])
            }
            Op::MaxPool { kernel, stride, pad, ceil_mode } => {
                let attributes = vec![
                    AttributeProto::ints("kernel_shape", &[kernel; 2]),
                    AttributeProto::ints("strides", &[stride; 2]),
                    AttributeProto::ints("pads", &[pad; 4]),
                    AttributeProto::int("ceil_mode", i64::from(ceil_mode)),
                ];
                ("MaxPool", attributes)
            }
            Op::Add => ("Add", vec![]),
            Op::Concat => ("Concat", vec![AttributeProto::int("axis", 1)]),
            // Dropout in inference.
            Op::Dropout2d { .. } => ("Identity", vec![]),
        };
        self.builder.node(&name, operator, inputs, output, attributes);
    }

    /// Adds a weight or bias of a node.
    fn parameter(&mut self, id: NodeId, Parameter { name, shape, role }: &Parameter) -> String {
        let conv = self.plan.and_then(|plan| Some((plan.conv(id)?, plan.symmetric())));
        match (conv, role) {
            (Some((conv, _)), Role::ConvWeight) => qdq::weights(self.builder, name, shape, conv),
            (Some((conv, false)), Role::Bias) => qdq::bias(self.builder, name, conv),
            _ => self.builder.weight(name, &self.network.weights[name], self.float),
        }
    }

    /// Adds a scalar.
    fn scalar(&mut self, name: &str, value: f32) -> String {
        let tensor = Arc::new(Tensor { shape: Vec::new(), data: vec![value] });
        self.builder.weight(name, &tensor, self.float)
    }

    /// Writes bytes `[N, H, W, 3]` to `(x - mean) / std`, `[N, 3, H, W]`, in 32-bit floats. Bytes
    /// are transposed first, which is cheapest.
    fn normalize(&mut self, name: &str, image: &str, output: &str, mean: [f64; 3], std: [f64; 3]) {
        let scale = std.map(|std| (1.0 / std) as f32);
        let shift = [0, 1, 2].map(|channel| (-mean[channel] / std[channel]) as f32);
        let part = |part: &str| format!("{name}.{part}");
        let scale = self.builder.float_constant(&part("scale"), &[1, 3, 1, 1], &scale);
        let shift = self.builder.float_constant(&part("shift"), &[1, 3, 1, 1], &shift);
        let order = vec![AttributeProto::ints("perm", &[0, 3, 1, 2])];
        let planes = self.builder.op(&part("planes"), "Transpose", &[image], order);
        let floats = self.builder.cast(&part("floats"), &planes, DataType::Float);
        let scaled = self.builder.op(&part("scaled"), "Mul", &[&floats, &scale], vec![]);
        self.in_floats(name, output, |builder, output| {
            builder.node(name, "Add", vec![scaled, shift], output, vec![]);
        });
    }

    /// Writes the mean over all positions in 32-bit floats, as a sum of 16-bit floats may overflow.
    fn mean(&mut self, name: &str, input: &str, output: &str) {
        let input = match self.float {
            DataType::Float16 => {
                self.builder.cast(&format!("{name}.floats"), input, DataType::Float)
            }
            _ => input.to_owned(),
        };
        self.in_floats(name, output, |builder, output| {
            builder.node(name, "GlobalAveragePool", vec![input], output, vec![]);
        });
    }

    /// Writes a value in 32-bit floats and casts it to the type of the network.
    fn in_floats(&mut self, name: &str, output: &str, write: impl FnOnce(&mut GraphBuilder, &str)) {
        if self.float == DataType::Float {
            return write(self.builder, output);
        }
        let made = format!("{name}.made");
        write(self.builder, &made);
        let to = vec![AttributeProto::int("to", i64::from(i32::from(self.float)))];
        self.builder.node(&format!("{name}.rounded"), "Cast", vec![made], output, to);
    }

    /// Adds the last inputs of a resize: scales if the sizes are fixed, otherwise the target shape,
    /// of which N and C come from the first input, H and W from the second.
    fn resize_to(&mut self, name: &str, node: &Node) -> Vec<String> {
        if let Some(sizes) = &self.sizes {
            let [from, to] = [0, 1].map(|input| sizes[node.inputs[input].0]);
            let [down, across] = [0, 1].map(|axis| resize_scale(from[axis], to[axis]));
            let scales = [1.0, 1.0, down, across];
            return vec![self.builder.float_constant(&format!("{name}.scales"), &[4], &scales)];
        }
        let [from, to] = [0, 1].map(|input| self.measurable(node.inputs[input]));
        let batch = vec![AttributeProto::int("start", 0), AttributeProto::int("end", 2)];
        let kept = self.builder.op(&format!("{name}.kept"), "Shape", &[&from], batch);
        let start = vec![AttributeProto::int("start", 2)];
        let target = self.builder.op(&format!("{name}.target"), "Shape", &[&to], start);
        let axis = vec![AttributeProto::int("axis", 0)];
        vec![
            String::new(),
            self.builder.op(&format!("{name}.sizes"), "Concat", &[&kept, &target], axis),
        ]
    }

    /// Returns a tensor with the shape of a node's value: the integers of a rounded one, so that
    /// its floats need not be computed.
    fn measurable(&self, id: NodeId) -> String {
        let value = &self.values[id.0];
        let rounded = self.plan.is_some_and(|plan| plan.params(id).is_some());
        if rounded { qdq::integers(value) } else { value.clone() }
    }
}

/// Returns the smallest scale that maps length `from` to `to`: the standard takes the integer part
/// of the product, which some runtimes compute in 32 bits, others in 64.
pub(crate) fn resize_scale(from: usize, to: usize) -> f32 {
    let mut scale = to as f32 / from as f32;
    while from as f64 * f64::from(scale) < to as f64 {
        scale = scale.next_up();
    }
    scale
}

pub(crate) fn resize_attributes(align_corners: bool) -> Vec<AttributeProto> {
    let mode = if align_corners { "align_corners" } else { "half_pixel" };
    vec![
        AttributeProto::string("mode", "linear"),
        AttributeProto::string("coordinate_transformation_mode", mode),
    ]
}

fn conv_attributes(conv: Conv) -> Vec<AttributeProto> {
    vec![
        AttributeProto::ints("kernel_shape", &[conv.kernel; 2]),
        AttributeProto::ints("strides", &[conv.stride; 2]),
        AttributeProto::ints("pads", &conv.pads),
        AttributeProto::ints("dilations", &[conv.dilation; 2]),
        AttributeProto::int("group", conv.groups as i64),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_give_the_intended_size() {
        for from in 1..300 {
            for to in [from, from * 2 - 1, from * 4, from * 4 + 1, from * 7 + 3, 1025, 2049] {
                let scale = resize_scale(from, to);
                assert_eq!((from as f32 * scale).floor() as usize, to, "{from} to {to}");
                assert_eq!((from as f64 * f64::from(scale)).floor() as usize, to, "{from} to {to}");
                assert!((f64::from(scale) * from as f64 / to as f64 - 1.0).abs() < 1e-6);
            }
        }
    }
}
