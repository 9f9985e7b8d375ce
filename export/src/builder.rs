//! Nodes and constants of an ONNX graph, collected in the order in which they are computed.

use std::collections::BTreeSet;

use bytes::Bytes;
use half::f16;

use crate::onnx::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto};

/// A graph while it is written.
#[derive(Default)]
pub(crate) struct Builder {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    /// Names of the constants: parts of a graph that are written twice share them.
    known: BTreeSet<String>,
}

impl Builder {
    /// The graph, still without inputs and outputs.
    pub(crate) fn finish(self) -> GraphProto {
        GraphProto { node: self.nodes, initializer: self.constants, ..GraphProto::default() }
    }

    /// Adds a node that makes one value.
    pub(crate) fn node(
        &mut self,
        name: &str,
        operator: &str,
        inputs: Vec<String>,
        output: &str,
        attribute: Vec<AttributeProto>,
    ) {
        self.split(name, operator, inputs, vec![output.to_owned()], attribute);
    }

    /// Adds a node whose value is called as itself, and returns that name.
    pub(crate) fn step(
        &mut self,
        name: &str,
        operator: &str,
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
    ) -> String {
        let inputs = inputs.iter().map(|&input| input.to_owned()).collect();
        self.node(name, operator, inputs, name, attribute);
        name.to_owned()
    }

    /// Adds a node that makes several values.
    pub(crate) fn split(
        &mut self,
        name: &str,
        operator: &str,
        input: Vec<String>,
        output: Vec<String>,
        attribute: Vec<AttributeProto>,
    ) {
        let (name, op_type) = (Some(name.to_owned()), Some(operator.to_owned()));
        self.nodes.push(NodeProto { input, output, name, op_type, attribute });
    }

    /// Changes the number format of a value.
    pub(crate) fn cast(&mut self, name: &str, input: &str, to: DataType) -> String {
        self.step(name, "Cast", &[input], vec![AttributeProto::int("to", i64::from(i32::from(to)))])
    }

    /// A constant of 32-bit floats, and its name; one of the same name is not written again.
    pub(crate) fn floats(&mut self, name: &str, shape: &[usize], data: &[f32]) -> String {
        self.constant(name, shape, DataType::Float, || data.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// The same, rounded to 16-bit floats.
    pub(crate) fn halves(&mut self, name: &str, shape: &[usize], data: &[f32]) -> String {
        let bytes = || data.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
        self.constant(name, shape, DataType::Float16, bytes)
    }

    /// A constant of 64-bit integers: sizes, places, axes.
    pub(crate) fn integers(&mut self, name: &str, data: &[i64]) -> String {
        let bytes = || data.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, &[data.len()], DataType::Int64, bytes)
    }

    /// A constant of any type, little-endian; `data` is asked only where the name is new.
    pub(crate) fn constant(
        &mut self,
        name: &str,
        shape: &[usize],
        element: DataType,
        data: impl FnOnce() -> Vec<u8>,
    ) -> String {
        if self.known.insert(name.to_owned()) {
            self.constants.push(TensorProto {
                dims: shape.iter().map(|&size| size as i64).collect(),
                data_type: Some(element.into()),
                name: Some(name.to_owned()),
                raw_data: Some(Bytes::from(data())),
            });
        }
        name.to_owned()
    }
}
