//! Small ONNX files, built from their protobuf messages.

#![allow(dead_code, clippy::allow_attributes, reason = "each test program uses a part")]

use prost::Message;
use protoseg_export::onnx::proto::{
    AttributeProto, DataType, DimensionProto, GraphProto, IR_VERSION, ModelProto, NodeProto, OPSET,
    OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto,
    TypeProto, ValueInfoProto,
};

/// Returns a node with one output, which is also its name.
pub(crate) fn node(
    operator: &str,
    inputs: &[&str],
    output: &str,
    attribute: Vec<AttributeProto>,
) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        name: Some(output.to_owned()),
        op_type: Some(operator.to_owned()),
        attribute,
    }
}

/// Returns an input or output; a size of 0 stands for any.
pub(crate) fn value(name: &str, element: DataType, sizes: &[usize]) -> ValueInfoProto {
    let dimension = |(index, &size): (usize, &usize)| match size {
        0 => DimensionProto { dim_value: None, dim_param: Some(format!("{name}.{index}")) },
        size => DimensionProto { dim_value: Some(size as i64), dim_param: None },
    };
    let shape = TensorShapeProto { dim: sizes.iter().enumerate().map(dimension).collect() };
    let tensor = TensorTypeProto { elem_type: Some(element.into()), shape: Some(shape) };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { tensor_type: Some(tensor) }),
    }
}

/// Returns a constant of little-endian elements.
pub(crate) fn constant(
    name: &str,
    element: DataType,
    sizes: &[usize],
    elements: Vec<u8>,
) -> TensorProto {
    TensorProto {
        dims: sizes.iter().map(|&size| size as i64).collect(),
        data_type: Some(element.into()),
        name: Some(name.to_owned()),
        raw_data: Some(elements.into()),
        ..TensorProto::default()
    }
}

/// Returns the bytes of a file with a metadata entry.
pub(crate) fn file(graph: GraphProto, metadata: Option<(&str, String)>) -> Vec<u8> {
    let opset = OperatorSetIdProto { version: Some(OPSET), ..OperatorSetIdProto::default() };
    let entry = |(key, value): (&str, String)| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value),
    };
    let model = ModelProto {
        ir_version: Some(IR_VERSION),
        graph: Some(graph),
        opset_import: vec![opset],
        metadata_props: metadata.map(entry).into_iter().collect(),
        ..ModelProto::default()
    };
    model.encode_to_vec()
}
