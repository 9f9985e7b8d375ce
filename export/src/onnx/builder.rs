//! Nodes and constants of an ONNX graph, in the order of computation.

use std::collections::BTreeSet;
use std::sync::Arc;

use protoseg_models::weights::Tensor;

use crate::onnx::proto::{AttributeProto, DataType, NodeProto};

/// A constant of a graph.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Initializer {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) element: DataType,
    pub(crate) data: InitializerData,
}

/// The elements of a constant. Weights become bytes when they are written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum InitializerData {
    /// Little-endian.
    Bytes(Vec<u8>),
    /// Written as 32-bit floats.
    Floats(Arc<Tensor>),
    /// Written as 16-bit floats.
    Halves(Arc<Tensor>),
}

/// A graph under construction.
#[derive(Default)]
pub(crate) struct GraphBuilder {
    nodes: Vec<NodeProto>,
    constants: Vec<Initializer>,
    /// Names of the constants, which repeated parts of a graph share.
    known: BTreeSet<String>,
}

impl GraphBuilder {
    /// Returns the nodes and constants.
    pub(crate) fn finish(self) -> (Vec<NodeProto>, Vec<Initializer>) {
        (self.nodes, self.constants)
    }

    /// Adds a node with one output.
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

    /// Adds a node whose output has its own name, and returns the name.
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

    /// Adds a node with several outputs.
    pub(crate) fn multi_output_node(
        &mut self,
        name: &str,
        operator: &str,
        input: Vec<String>,
        output: Vec<String>,
        attribute: Vec<AttributeProto>,
    ) {
        self.nodes.push(NodeProto {
            input,
            output,
            name: Some(name.to_owned()),
            op_type: Some(operator.to_owned()),
            attribute,
        });
    }

    /// Adds a cast of a value and returns its name.
    pub(crate) fn cast(&mut self, name: &str, input: &str, to: DataType) -> String {
        self.op(name, "Cast", &[input], vec![AttributeProto::int("to", i64::from(i32::from(to)))])
    }

    /// Adds a constant of 32-bit floats and returns its name, like all functions below. A constant
    /// of the same name is shared.
    pub(crate) fn float_constant(&mut self, name: &str, shape: &[usize], data: &[f32]) -> String {
        self.constant(name, shape, DataType::Float, || {
            data.iter().flat_map(|value| value.to_le_bytes()).collect()
        })
    }

    /// Adds a weight as 32- or 16-bit floats.
    pub(crate) fn weight(&mut self, name: &str, tensor: &Arc<Tensor>, element: DataType) -> String {
        let data = || match element {
            DataType::Float16 => InitializerData::Halves(Arc::clone(tensor)),
            _ => InitializerData::Floats(Arc::clone(tensor)),
        };
        self.add(name, &tensor.shape, element, data)
    }

    /// Adds a constant of 64-bit integers: sizes, positions, axes.
    pub(crate) fn int64_constant(&mut self, name: &str, data: &[i64]) -> String {
        let bytes = || data.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, &[data.len()], DataType::Int64, bytes)
    }

    /// Adds a constant of any type, little-endian; `data` is called if the name is new.
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
