//! Nodes and constants of an ONNX graph, collected in the order in which they are computed.

use std::collections::BTreeSet;
use std::sync::Arc;

use protoseg_models::weights::Tensor;

use crate::onnx::file::{Initializer, InitializerData};
use crate::onnx::proto::{AttributeProto, DataType, NodeProto};

/// A graph while it is written.
#[derive(Default)]
pub(crate) struct GraphBuilder {
    nodes: Vec<NodeProto>,
    constants: Vec<Initializer>,
    /// Names of the constants: parts of a graph that are written twice share them.
    known: BTreeSet<String>,
}

impl GraphBuilder {
    /// The nodes and constants.
    pub(crate) fn finish(self) -> (Vec<NodeProto>, Vec<Initializer>) {
        (self.nodes, self.constants)
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
        self.multi_output_node(name, operator, inputs, vec![output.to_owned()], attribute);
    }

    /// Adds a node whose value is called as itself, and returns that name.
    pub(crate) fn op(
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
    pub(crate) fn multi_output_node(
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
        self.op(name, "Cast", &[input], vec![AttributeProto::int("to", i64::from(i32::from(to)))])
    }

    /// A constant of 32-bit floats, and its name; one of the same name is not written again.
    pub(crate) fn float_constant(&mut self, name: &str, shape: &[usize], data: &[f32]) -> String {
        self.constant(name, shape, DataType::Float, || {
            data.iter().flat_map(|value| value.to_le_bytes()).collect()
        })
    }

    /// A constant of a weight's values in a number format, 32- or 16-bit floats.
    pub(crate) fn weight(&mut self, name: &str, tensor: &Arc<Tensor>, element: DataType) -> String {
        let data = || match element {
            DataType::Float16 => InitializerData::Halves(Arc::clone(tensor)),
            _ => InitializerData::Floats(Arc::clone(tensor)),
        };
        self.add(name, &tensor.shape, element, data)
    }

    /// A constant of 64-bit integers: sizes, places, axes.
    pub(crate) fn int64_constant(&mut self, name: &str, data: &[i64]) -> String {
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
        self.add(name, shape, element, || InitializerData::Bytes(data()))
    }

    fn add(
        &mut self,
        name: &str,
        shape: &[usize],
        element: DataType,
        data: impl FnOnce() -> InitializerData,
    ) -> String {
        if self.known.insert(name.to_owned()) {
            self.constants.push(Initializer {
                name: name.to_owned(),
                shape: shape.to_vec(),
                element,
                data: data(),
            });
        }
        name.to_owned()
    }
}
