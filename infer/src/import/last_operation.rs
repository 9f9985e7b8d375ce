//! The operation that makes an output's values, which tells their bounds where no trial can: a file
//! that takes bytes cannot be given values beyond those of images.

use std::collections::BTreeMap;

use prost::Message;

/// Operations between which and an output nothing changes the bounds of values.
const PASSED: [&str; 16] = [
    "Cast",
    "Concat",
    "DepthToSpace",
    "DequantizeLinear",
    "Dropout",
    "Flatten",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Resize",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
    "Upsample",
];

/// Operations whose values lie between -1 and 1, on both sides of 0.
const BETWEEN_ONES: [&str; 5] = ["Cos", "Erf", "Sin", "Softsign", "Tanh"];

// The parts of `onnx.proto` that tell what a node does; everything else is skipped.

#[derive(Clone, PartialEq, Message)]
struct TracedModel {
    #[prost(message, optional, tag = "7")]
    graph: Option<TracedGraph>,
}

#[derive(Clone, PartialEq, Message)]
struct TracedGraph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<TracedNode>,
}

#[derive(Clone, PartialEq, Message)]
struct TracedNode {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, optional, tag = "4")]
    op_type: Option<String>,
}

/// True where an output of an ONNX file comes from an operation such as a hyperbolic tangent, whose
/// values lie between -1 and 1; false too where the bytes do not tell.
pub(super) fn lies_between_ones(bytes: &[u8], output: &str) -> bool {
    let graph = TracedModel::decode(bytes).ok().and_then(|model| model.graph).unwrap_or_default();
    let mut makers: BTreeMap<&str, &TracedNode> = BTreeMap::new();
    for node in &graph.node {
        makers.extend(node.output.iter().map(|name| (name.as_str(), node)));
    }
    let mut name = output;
    // No more steps than nodes, also where names go in circles.
    for _ in 0..graph.node.len() {
        let Some(node) = makers.get(name) else { return false };
        let operation = node.op_type.as_deref().unwrap_or_default();
        if BETWEEN_ONES.contains(&operation) {
            return true;
        }
        match node.input.first() {
            Some(input) if PASSED.contains(&operation) => name = input,
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(nodes: &[(&str, &str, &str)]) -> Vec<u8> {
        let node = |&(operation, input, output): &(&str, &str, &str)| TracedNode {
            input: vec![input.to_owned(), "weights".to_owned()],
            output: vec![output.to_owned()],
            op_type: Some(operation.to_owned()),
        };
        let graph = TracedGraph { node: nodes.iter().map(node).collect() };
        TracedModel { graph: Some(graph) }.encode_to_vec()
    }

    #[test]
    fn the_operation_is_found_behind_those_that_move_values() {
        let plain = file(&[("Conv", "x", "a"), ("Tanh", "a", "y")]);
        assert!(lies_between_ones(&plain, "y") && !lies_between_ones(&plain, "a"));
        assert!(!lies_between_ones(&plain, "z") && !lies_between_ones(&plain[..9], "y"));
        let moved = file(&[("Tanh", "a", "b"), ("Resize", "b", "c"), ("Transpose", "c", "y")]);
        assert!(lies_between_ones(&moved, "y"));
        let scaled = file(&[("Tanh", "a", "b"), ("Mul", "b", "y")]);
        assert!(!lies_between_ones(&scaled, "y"));
        let circle = file(&[("Identity", "y", "x"), ("Identity", "x", "y")]);
        assert!(!lies_between_ones(&circle, "y"));
    }
}
