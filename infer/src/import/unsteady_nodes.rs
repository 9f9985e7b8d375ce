//! Nodes of an ONNX file that give other values at every run, or by the images beside one: those of
//! networks that were exported in training mode, and random numbers.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

/// Depth of graphs inside nodes beyond which nothing is read; ONNX Runtime takes no more.
const MAX_DEPTH: usize = 32;

/// Operators whose output is drawn anew at every run.
const RANDOM: [&str; 6] = [
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
];

/// Place of a dropout's switch among its inputs, and of its ratio.
const SWITCH: usize = 2;
const RATIO: usize = 1;

// The parts of the messages in `onnx.proto` that tell which nodes an output needs; everything else is skipped.

#[derive(Clone, PartialEq, Message)]
struct WiredModel {
    #[prost(message, optional, tag = "7")]
    graph: Option<WiredGraph>,
    #[prost(message, repeated, tag = "25")]
    functions: Vec<WiredFunction>,
}

#[derive(Clone, PartialEq, Message)]
struct WiredFunction {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(message, repeated, tag = "7")]
    node: Vec<WiredNode>,
}

#[derive(Clone, PartialEq, Message)]
struct WiredGraph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<WiredNode>,
}

#[derive(Clone, PartialEq, Message)]
struct WiredNode {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, optional, tag = "3")]
    name: Option<String>,
    #[prost(string, optional, tag = "4")]
    op_type: Option<String>,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<WiredAttribute>,
}

#[derive(Clone, PartialEq, Message)]
struct WiredAttribute {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(float, optional, tag = "2")]
    f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(message, optional, tag = "5")]
    t: Option<SingleValue>,
    #[prost(message, optional, tag = "6")]
    g: Option<WiredGraph>,
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<WiredGraph>,
}

/// A tensor of one value.
#[derive(Clone, PartialEq, Message)]
struct SingleValue {
    #[prost(int32, optional, tag = "2")]
    data_type: Option<i32>,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    int32_data: Vec<i32>,
    #[prost(string, optional, tag = "8")]
    name: Option<String>,
    #[prost(bytes = "vec", optional, tag = "9")]
    raw_data: Option<Vec<u8>>,
}

/// The weights of a file, which are read where a dropout's switch is one of them.
#[derive(Clone, PartialEq, Message)]
struct ValuedModel {
    #[prost(message, optional, tag = "7")]
    graph: Option<ValuedGraph>,
}

#[derive(Clone, PartialEq, Message)]
struct ValuedGraph {
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<SingleValue>,
}

/// Nodes that make an output unsteady, each as `name` (operator).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct UnsteadyNodes {
    /// Nodes in training mode.
    pub(super) training: Vec<String>,
    /// Nodes that draw random numbers.
    pub(super) random: Vec<String>,
}

impl UnsteadyNodes {
    /// Finds those that an output of a file depends on. Bytes that are no ONNX file have none.
    pub(super) fn find(bytes: &[u8], output: &str) -> Self {
        let mut found = Self::default();
        let Ok(model) = WiredModel::decode(bytes) else { return found };
        let mut search = Search { bytes, functions: &model.functions, values: None };
        if let Some(graph) = &model.graph {
            for node in needed(graph, output) {
                search.add(node, &graph.node, 0, &mut found);
            }
        }
        found
    }
}

/// The nodes of a graph that an output depends on.
fn needed<'a>(graph: &'a WiredGraph, output: &str) -> Vec<&'a WiredNode> {
    let mut makers: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        makers.extend(node.output.iter().map(|output| (output.as_str(), index)));
    }
    let mut reached = BTreeSet::new();
    let mut names: Vec<&str> =
        makers.get_key_value(output).map(|(name, _)| *name).into_iter().collect();
    while let Some(name) = names.pop() {
        let Some(&index) = makers.get(name) else { continue };
        if reached.insert(index)
            && let Some(node) = graph.node.get(index)
        {
            inputs(node, 0, &mut names);
        }
    }
    reached.into_iter().filter_map(|index| graph.node.get(index)).collect()
}

/// Appends the names of a node's inputs, and of those of graphs inside it.
fn inputs<'a>(node: &'a WiredNode, depth: usize, names: &mut Vec<&'a str>) {
    names.extend(node.input.iter().map(String::as_str));
    if depth < MAX_DEPTH {
        for inner in graphs(node).flat_map(|graph| &graph.node) {
            inputs(inner, depth + 1, names);
        }
    }
}

fn graphs(node: &WiredNode) -> impl Iterator<Item = &WiredGraph> {
    node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
}

struct Search<'a> {
    bytes: &'a [u8],
    functions: &'a [WiredFunction],
    /// Single values among the weights by name, once they were needed.
    values: Option<BTreeMap<String, f64>>,
}

impl Search<'_> {
    /// Adds a node, and those in graphs and functions inside it. `beside` are the nodes of its graph.
    fn add(
        &mut self,
        node: &WiredNode,
        beside: &[WiredNode],
        depth: usize,
        found: &mut UnsteadyNodes,
    ) {
        let kind = node.op_type.as_deref().unwrap_or_default();
        let name = node.name.as_deref().filter(|name| !name.is_empty());
        let name = name.or(node.output.first().map(String::as_str)).unwrap_or_default();
        let text = || format!("`{name}` ({kind})");
        if RANDOM.contains(&kind) {
            found.random.push(text());
        }
        let normalizes = kind == "BatchNormalization"
            && node.attribute.iter().any(|attribute| {
                attribute.name.as_deref() == Some("training_mode") && attribute.i == Some(1)
            });
        if normalizes || kind == "Dropout" && self.drops(node, beside) {
            found.training.push(text());
        }
        if depth >= MAX_DEPTH {
            return;
        }
        for graph in graphs(node) {
            graph.node.iter().for_each(|inner| self.add(inner, &graph.node, depth + 1, found));
        }
        let called = self.functions.iter().find(|function| function.name.as_deref() == Some(kind));
        if let Some(function) = called {
            function.node.iter().for_each(|inner| {
                self.add(inner, &function.node, depth + 1, found);
            });
        }
    }

    /// True for a dropout that is switched on, and drops a share above 0.
    fn drops(&mut self, node: &WiredNode, beside: &[WiredNode]) -> bool {
        let mut value = |index: usize| {
            let name = node.input.get(index).filter(|name| !name.is_empty())?;
            let maker = beside.iter().find(|other| other.output.contains(name));
            match maker {
                Some(maker) => constant(maker),
                None => self.values().get(name).copied(),
            }
        };
        value(SWITCH).is_some_and(|switch| switch != 0.0) && value(RATIO) != Some(0.0)
    }

    fn values(&mut self) -> &BTreeMap<String, f64> {
        let bytes = self.bytes;
        self.values.get_or_insert_with(|| {
            let graph = ValuedModel::decode(bytes).ok().and_then(|model| model.graph);
            let weights = graph.map(|graph| graph.initializer).unwrap_or_default();
            let value = |tensor: SingleValue| Some((tensor.name.clone()?, tensor.value()?));
            weights.into_iter().filter_map(value).collect()
        })
    }
}

/// The single value of a node `Constant`.
fn constant(node: &WiredNode) -> Option<f64> {
    if node.op_type.as_deref() != Some("Constant") {
        return None;
    }
    let attribute = node.attribute.first()?;
    let tensor = attribute.t.as_ref().and_then(SingleValue::value);
    tensor.or(attribute.f.map(f64::from)).or(attribute.i.map(|value| value as f64))
}

impl SingleValue {
    /// The value of a tensor that has only one.
    fn value(&self) -> Option<f64> {
        /// Numbers of element types in `onnx.proto`.
        const FLOAT: i32 = 1;
        const BOOL: i32 = 9;
        const DOUBLE: i32 = 11;
        let raw = self.raw_data.as_deref().unwrap_or_default();
        match (self.data_type?, raw, self.float_data.as_slice(), self.int32_data.as_slice()) {
            (BOOL, &[value], ..) => Some(value.into()),
            (BOOL, [], _, &[value]) => Some(value.into()),
            (FLOAT, [], &[value], _) => Some(value.into()),
            (FLOAT, raw, ..) => raw.try_into().ok().map(|raw| f32::from_le_bytes(raw).into()),
            (DOUBLE, raw, ..) => raw.try_into().ok().map(f64::from_le_bytes),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn node(kind: &str, inputs: &str, output: &str, attribute: Vec<WiredAttribute>) -> WiredNode {
        let names = |names: &str| names.split(' ').map(str::to_owned).collect();
        WiredNode {
            input: names(inputs),
            output: names(output),
            name: None,
            op_type: text(kind),
            attribute,
        }
    }

    /// Bytes of a file with nodes and a truth value `on`.
    fn encoded(nodes: Vec<WiredNode>, on: bool) -> Vec<u8> {
        let graph = WiredGraph { node: nodes };
        let mut bytes = WiredModel { graph: Some(graph), functions: Vec::new() }.encode_to_vec();
        let switch = SingleValue {
            data_type: Some(9),
            name: text("on"),
            raw_data: Some(vec![on.into()]),
            ..SingleValue::default()
        };
        let graph = ValuedGraph { initializer: vec![switch] };
        bytes.extend(ValuedModel { graph: Some(graph) }.encode_to_vec());
        bytes
    }

    #[test]
    fn nodes_in_training_mode_and_random_numbers_are_found_where_the_output_needs_them() {
        let training =
            WiredAttribute { name: text("training_mode"), i: Some(1), ..WiredAttribute::default() };
        let nodes = || {
            vec![
                node("Dropout", "x ratio on", "d", Vec::new()),
                node("RandomNormalLike", "d", "r", Vec::new()),
                node("BatchNormalization", "r s b m v", "y", vec![training.clone()]),
                node("RandomUniform", "", "aside", Vec::new()),
                node("Relu", "x", "steady", Vec::new()),
            ]
        };
        let found = UnsteadyNodes::find(&encoded(nodes(), true), "y");
        assert_eq!(found.training, ["`d` (Dropout)", "`y` (BatchNormalization)"]);
        assert_eq!(found.random, ["`r` (RandomNormalLike)"]);
        let off = UnsteadyNodes::find(&encoded(nodes(), false), "r");
        assert_eq!((off.training.len(), off.random.len()), (0, 1));
        assert_eq!(
            UnsteadyNodes::find(&encoded(nodes(), true), "steady"),
            UnsteadyNodes::default()
        );
        assert_eq!(UnsteadyNodes::find(b"no protobuf", "y"), UnsteadyNodes::default());
        // In a branch, with a ratio of 0, and with a constant as the switch.
        let constant = |output: &str, value| {
            let tensor = SingleValue {
                data_type: Some(1),
                float_data: vec![value],
                ..SingleValue::default()
            };
            let value = WiredAttribute { t: Some(tensor), ..WiredAttribute::default() };
            node("Constant", "", output, vec![value])
        };
        for (ratio, count) in [(0.0, 0), (0.5, 1)] {
            let inner = vec![
                constant("ratio", ratio),
                constant("switch", 1.0),
                node("Dropout", "x ratio switch", "d", Vec::new()),
            ];
            let branch =
                WiredAttribute { g: Some(WiredGraph { node: inner }), ..WiredAttribute::default() };
            let bytes = encoded(vec![node("If", "c", "y", vec![branch])], false);
            assert_eq!(UnsteadyNodes::find(&bytes, "y").training.len(), count, "{ratio}");
        }
    }
}
