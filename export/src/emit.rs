//! Networks as ONNX: one `match` over what a node computes.
//!
//! Node names are those of the graph, constants have their published parameter names, values the name of the node that
//! makes them in the trainer's network. Opset 17, IR version 8, a flat graph, sizes left open.

use anyhow::{Result, ensure};
use bytes::Bytes;
use protoseg_models::bundle::{METADATA_KEY, Model};
use protoseg_models::graph::{Conv, Node, NodeId, Op};

use crate::network::Network;
use crate::onnx::{
    AttributeProto, DataType, GraphProto, IR_VERSION, ModelProto, NodeProto, OPSET, OperatorSetIdProto,
    StringStringEntryProto, TensorProto,
};
use crate::ports;

/// The bounds of every ReLU6.
const RELU6_BOUNDS: [(&str, f32); 2] = [("relu6.min", 0.0), ("relu6.max", 6.0)];

/// A network as an ONNX file: bytes `image` `[N, H, W, 3]` to the network's outputs. The file carries the facts of `model`,
/// so that it is enough to work with by itself.
pub fn emit(network: &Network, model: Option<&Model>) -> Result<ModelProto> {
    let outputs = ports::outputs(network)?;
    ensure!(!outputs.is_empty(), "a network without outputs cannot be written");
    let graph = Writer::new(network).graph();
    let metadata = model.map(serde_json::to_string).transpose()?;
    Ok(ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("protoseg".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        doc_string: model.map(description),
        graph: Some(GraphProto {
            name: Some(model.map_or("network", |model| &model.name).to_owned()),
            input: vec![ports::declare(&ports::input(), DataType::Uint8)],
            output: outputs.iter().map(|port| ports::declare(port, DataType::Float)).collect(),
            ..graph
        }),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
        metadata_props: metadata
            .map(|json| StringStringEntryProto { key: Some(METADATA_KEY.to_owned()), value: Some(json) })
            .into_iter()
            .collect(),
    })
}

/// What a person reads who opens the file in a viewer.
fn description(model: &Model) -> String {
    let network = model.arch.map_or(String::new(), |arch| format!(", {}", arch.preset()));
    let upsampling = if model.grid.align_corners { "aligned corners" } else { "half-pixel centres" };
    format!(
        "{name}{network}: semantic segmentation into {count} classes. Input: RGB pictures as they are, bytes \
         [N, H, W, 3]. Output `logits`: class scores, one every {stride} pixels; resize them bilinearly with \
         {upsampling}, then the class is the largest. Classes, colours and windows: metadata entry `{METADATA_KEY}`, JSON.",
        name = model.name,
        count = model.classes.count(),
        stride = model.grid.stride,
    )
}

/// Collects the nodes and constants of a graph.
struct Writer<'a> {
    network: &'a Network,
    /// What each node's value is called in the file.
    values: Vec<String>,
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
}

impl<'a> Writer<'a> {
    fn new(network: &'a Network) -> Self {
        let mut values = network.values.clone();
        values[network.graph.input().0] = ports::IMAGE.to_owned();
        for output in network.outputs() {
            if let Some(id) = network.find(&output.value) {
                values[id.0].clone_from(&output.name);
            }
        }
        Self { network, values, nodes: Vec::new(), constants: Vec::new() }
    }

    fn graph(mut self) -> GraphProto {
        let graph = self.network.graph();
        if graph.nodes().iter().any(|node| node.op == Op::Relu6) {
            for (name, bound) in RELU6_BOUNDS {
                self.constant(name.to_owned(), &[], &[bound]);
            }
        }
        for (id, node) in graph.iter() {
            self.write(id, node);
        }
        GraphProto { node: self.nodes, initializer: self.constants, ..GraphProto::default() }
    }

    fn write(&mut self, id: NodeId, node: &Node) {
        let value = |id: NodeId| self.values[id.0].clone();
        let mut inputs: Vec<String> = node.inputs.iter().map(|&input| value(input)).collect();
        let output = value(id);
        for parameter in self.network.graph.node_parameters(node) {
            let data = &self.network.weights[&parameter.name].data;
            self.constant(parameter.name.clone(), &parameter.shape, data);
            inputs.push(parameter.name);
        }
        let (operator, attributes) = match node.op {
            Op::Input => return,
            Op::Normalize { mean, std } => return self.normalize(&node.name, &inputs[0], output, mean, std),
            Op::Resize { align_corners } => {
                let [picture, like] = [&inputs[0], &inputs[1]];
                let sizes = self.sizes(&node.name, picture, like);
                // Neither a region of interest nor scales: the sizes say it all.
                inputs = vec![picture.clone(), String::new(), String::new(), sizes];
                ("Resize", resize_attributes(align_corners))
            }
            Op::Linear { .. } => {
                let flat = self.step(&node.name, "flat", "Flatten", &inputs[..1], vec![AttributeProto::int("axis", 1)]);
                inputs[0] = flat;
                ("Gemm", vec![AttributeProto::int("transB", 1)])
            }
            Op::Conv(conv) => ("Conv", conv_attributes(conv)),
            Op::BatchNorm { eps, .. } => ("BatchNormalization", vec![AttributeProto::float("epsilon", eps as f32)]),
            Op::Relu => ("Relu", vec![]),
            Op::Relu6 => {
                inputs.extend(RELU6_BOUNDS.map(|(name, _)| name.to_owned()));
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
            Op::GlobalAvgPool => ("GlobalAveragePool", vec![]),
            Op::Add => ("Add", vec![]),
            Op::Concat => ("Concat", vec![AttributeProto::int("axis", 1)]),
            // Outside training it hands its input on.
            Op::Dropout2d { .. } => ("Identity", vec![]),
        };
        self.node(node.name.clone(), operator, inputs, output, attributes);
    }

    /// Bytes `[N, H, W, 3]` to `(x - mean) / std`, `[N, 3, H, W]`: while they are bytes, transposing is cheapest.
    fn normalize(&mut self, name: &str, image: &str, output: String, mean: [f64; 3], std: [f64; 3]) {
        let scale = std.map(|std| (1.0 / std) as f32);
        let shift = [0, 1, 2].map(|channel| (-mean[channel] / std[channel]) as f32);
        let [scale_name, shift_name] = ["scale", "shift"].map(|part| format!("{name}.{part}"));
        self.constant(scale_name.clone(), &[1, 3, 1, 1], &scale);
        self.constant(shift_name.clone(), &[1, 3, 1, 1], &shift);
        let order = vec![AttributeProto::ints("perm", &[0, 3, 1, 2])];
        let planes = self.step(name, "planes", "Transpose", &[image.to_owned()], order);
        let to = vec![AttributeProto::int("to", i64::from(i32::from(DataType::Float)))];
        let floats = self.step(name, "floats", "Cast", &[planes], to);
        let scaled = self.step(name, "scaled", "Mul", &[floats, scale_name], vec![]);
        self.node(name.to_owned(), "Add", vec![scaled, shift_name], output, vec![]);
    }

    /// `[N, C, H, W]` as one tensor: the first two of a value, the last two of another.
    fn sizes(&mut self, name: &str, picture: &str, like: &str) -> String {
        let batch = vec![AttributeProto::int("start", 0), AttributeProto::int("end", 2)];
        let kept = self.step(name, "kept", "Shape", &[picture.to_owned()], batch);
        let target = self.step(name, "target", "Shape", &[like.to_owned()], vec![AttributeProto::int("start", 2)]);
        self.step(name, "sizes", "Concat", &[kept, target], vec![AttributeProto::int("axis", 0)])
    }

    /// A node that a graph's node needs beside its own, and the name of its value.
    fn step(
        &mut self,
        name: &str,
        part: &str,
        operator: &str,
        inputs: &[String],
        settings: Vec<AttributeProto>,
    ) -> String {
        let value = format!("{name}.{part}");
        self.node(value.clone(), operator, inputs.to_vec(), value.clone(), settings);
        value
    }

    fn node(
        &mut self,
        name: String,
        operator: &str,
        input: Vec<String>,
        output: String,
        attribute: Vec<AttributeProto>,
    ) {
        let op_type = Some(operator.to_owned());
        self.nodes.push(NodeProto { input, output: vec![output], name: Some(name), op_type, attribute });
    }

    fn constant(&mut self, name: String, shape: &[usize], data: &[f32]) {
        self.constants.push(TensorProto {
            dims: shape.iter().map(|&size| size as i64).collect(),
            data_type: Some(DataType::Float.into()),
            name: Some(name),
            raw_data: Some(Bytes::from_iter(data.iter().flat_map(|value| value.to_le_bytes()))),
        });
    }
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

fn resize_attributes(align_corners: bool) -> Vec<AttributeProto> {
    let mode = if align_corners { "align_corners" } else { "half_pixel" };
    vec![AttributeProto::string("mode", "linear"), AttributeProto::string("coordinate_transformation_mode", mode)]
}
