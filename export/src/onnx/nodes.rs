//! The nodes of a network as ONNX: one `match` over what a node computes.
//!
//! Node names are those of the graph, constants have their published parameter names, values the name of the node that
//! makes them in the trainer's network.

use std::sync::Arc;

use protoseg_models::analysis::{Parameter, Role};
use protoseg_models::graph::{Conv, Node, NodeId, Op};
use protoseg_models::weights::Tensor;

use crate::network::Network;
use crate::onnx::builder::GraphBuilder;
use crate::onnx::proto::{AttributeProto, DataType};
use crate::onnx::qdq;
use crate::quantize::plan::QuantizationPlan;

/// The bounds of every ReLU6.
const RELU6_BOUNDS: [(&str, f32); 2] = [("relu6.min", 0.0), ("relu6.max", 6.0)];

/// A network on its way into a graph.
pub(crate) struct NodeWriter<'a> {
    network: &'a Network,
    builder: &'a mut GraphBuilder,
    /// What each node's value is called in the file.
    values: Vec<String>,
    /// Stands before the names of nodes and values, where the network is written more than once.
    prefix: String,
    /// Number format of weights and values.
    float: DataType,
    /// Height and width of each node's value, where they are known: resizes then go by scales, so that the number of
    /// pictures stays open.
    sizes: Option<Vec<[usize; 2]>>,
    /// What is rounded to 8 bits, where anything is.
    scheme: Option<&'a QuantizationPlan>,
}

impl<'a> NodeWriter<'a> {
    /// A network that counts in `float`, [`DataType::Float`] or [`DataType::Float16`].
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
            scheme: None,
        }
    }

    /// The same under names of its own.
    pub(crate) fn with_prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.to_owned();
        self.values.iter_mut().for_each(|value| *value = format!("{prefix}{value}"));
        self
    }

    /// The same for pictures of one size; `sizes` has the height and width of each node's value.
    pub(crate) fn with_sizes(mut self, sizes: Vec<[usize; 2]>) -> Self {
        self.sizes = Some(sizes);
        self
    }

    /// The same in 8 bits.
    pub(crate) fn with_plan(mut self, scheme: Option<&'a QuantizationPlan>) -> Self {
        self.scheme = scheme;
        self
    }

    /// Says what a node's value is called.
    pub(crate) fn set_value_name(&mut self, id: NodeId, value: &str) {
        value.clone_into(&mut self.values[id.0]);
    }

    /// What a node's value is called.
    pub(crate) fn value(&self, id: NodeId) -> &str {
        &self.values[id.0]
    }

    /// The name of a node in the file.
    fn name(&self, node: &Node) -> String {
        format!("{}{}", self.prefix, node.name)
    }

    /// Writes one node; what it reads has been written or given a name.
    pub(crate) fn write(&mut self, id: NodeId) {
        let output = self.values[id.0].clone();
        let rounding = self.scheme.and_then(|scheme| Some((scheme, scheme.step(id)?)));
        let Some((scheme, step)) = rounding else { return self.compute(id, &output) };
        if scheme.is_pixels(id) {
            let (node, order) =
                (self.network.graph.node(id), vec![AttributeProto::ints("perm", &[0, 3, 1, 2])]);
            let (name, pixels) = (self.name(node), self.values[node.inputs[0].0].clone());
            self.builder.node(&name, "Transpose", vec![pixels], &qdq::integers(&output), order);
        } else {
            self.compute(id, &qdq::made(&output));
            qdq::quantize(self.builder, &output, step, scheme.symmetric());
        }
        qdq::dequantize(self.builder, &output, step, scheme.symmetric());
    }

    /// Writes one node, its value under a name of its own.
    fn compute(&mut self, id: NodeId, output: &str) {
        let node = self.network.graph.node(id);
        let name = self.name(node);
        let mut inputs: Vec<String> =
            node.inputs.iter().map(|input| self.values[input.0].clone()).collect();
        let parameters = self.network.graph.node_parameters(node);
        inputs.extend(parameters.iter().map(|parameter| self.parameter(id, parameter)));
        let (operator, attributes) = match node.op {
            Op::Input => return,
            Op::Normalize { mean, std } => {
                return self.normalize(&name, &inputs[0], output, mean, std);
            }
            Op::GlobalAvgPool => return self.mean(&name, &inputs[0], output),
            Op::Resize { align_corners } => {
                // Neither a region of interest nor, where there are sizes, scales.
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
                inputs.extend(RELU6_BOUNDS.map(|(name, bound)| self.bound(name, bound)));
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
            // Outside training it hands its input on.
            Op::Dropout2d { .. } => ("Identity", vec![]),
        };
        self.builder.node(&name, operator, inputs, output, attributes);
    }

    /// A weight or bias of a node.
    fn parameter(&mut self, id: NodeId, Parameter { name, shape, role }: &Parameter) -> String {
        let kernels =
            self.scheme.and_then(|scheme| Some((scheme.kernels(id)?, scheme.symmetric())));
        match (kernels, role) {
            (Some((kernels, _)), Role::ConvWeight) => {
                qdq::weights(self.builder, name, shape, kernels)
            }
            (Some((kernels, false)), Role::Bias) => qdq::bias(self.builder, name, kernels),
            _ => self.builder.weight(name, &self.network.weights[name], self.float),
        }
    }

    /// A scalar in the network's number format.
    fn bound(&mut self, name: &str, bound: f32) -> String {
        let tensor = Arc::new(Tensor { shape: Vec::new(), data: vec![bound] });
        self.builder.weight(name, &tensor, self.float)
    }

    /// Bytes `[N, H, W, 3]` to `(x - mean) / std`, `[N, 3, H, W]`: while they are bytes, transposing is cheapest. Counts in
    /// 32-bit floats whatever the network does.
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
            builder.node(name, "Add", vec![scaled, shift], output, vec![])
        });
    }

    /// The mean over all places, in 32-bit floats: a sum of many halves would run past their largest number.
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

    /// A value made in 32-bit floats, changed to the network's format.
    fn in_floats(&mut self, name: &str, output: &str, make: impl FnOnce(&mut GraphBuilder, &str)) {
        if self.float == DataType::Float {
            return make(self.builder, output);
        }
        let made = format!("{name}.made");
        make(self.builder, &made);
        let to = vec![AttributeProto::int("to", i64::from(i32::from(self.float)))];
        self.builder.node(&format!("{name}.rounded"), "Cast", vec![made], output, to);
    }

    /// The last inputs of a resize: scales where the sizes are known, else nothing and the sizes as a tensor, the first two
    /// of the picture and the last two of what it shall be like.
    fn resize_to(&mut self, name: &str, node: &Node) -> Vec<String> {
        if let Some(sizes) = &self.sizes {
            let [from, to] = [0, 1].map(|input| sizes[node.inputs[input].0]);
            let [down, across] = [0, 1].map(|axis| resize_scale(from[axis], to[axis]));
            return vec![self.builder.float_constant(
                &format!("{name}.scales"),
                &[4],
                &[1.0, 1.0, down, across],
            )];
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

    /// A tensor of the size of a node's value: of a rounded one the integers, as asking for its floats would make them.
    fn measurable(&self, id: NodeId) -> String {
        let value = &self.values[id.0];
        let rounded = self.scheme.is_some_and(|scheme| scheme.step(id).is_some());
        if rounded { qdq::integers(value) } else { value.clone() }
    }
}

/// The smallest scale by which `from` steps become `to`: the standard takes the whole part of their product, and some readers
/// multiply in 32 bits, others in 64.
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
    fn scales_give_the_size_that_is_meant() {
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
