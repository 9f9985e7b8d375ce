//! Inputs and outputs of a file: their names, types and shapes, as the manifest and as ONNX have them.

use anyhow::{Context, Result};
use protoseg_models::bundle::{Dimension, TensorInfo};

use crate::network::Network;
use crate::onnx::proto::{
    DataType, DimensionProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use crate::onnx::prototype_confidence;

/// Bytes, as manifests name them.
pub(crate) const UINT8: &str = "uint8";
/// 32-bit floats, as manifests name them.
pub(crate) const FLOAT32: &str = "float32";

/// What the input is called.
pub(crate) const IMAGE: &str = "image";

/// A picture size at which every network's strides and poolings show.
const SIDE: usize = 769;

/// The picture: bytes `[N, H, W, 3]`, RGB.
pub(crate) fn input() -> TensorInfo {
    let named = |name: &str| Dimension::Named(name.to_owned());
    TensorInfo {
        name: IMAGE.to_owned(),
        element: UINT8.to_owned(),
        shape: vec![named("N"), named("H"), named("W"), Dimension::Fixed(3)],
    }
}

/// What comes out of a network: floats `[N, C, h, w]`, where `h` and `w` are the first output's. Those of an output at
/// another stride s are called `hs` and `ws`, at the picture's own size `H` and `W`.
pub(crate) fn outputs(network: &Network) -> Result<Vec<TensorInfo>> {
    let graph = network.graph();
    let shapes = graph.shapes(1, SIDE, SIDE)?;
    let strides = graph.strides();
    let mut first_stride = None;
    let port = |output: &crate::Output| {
        let id = network
            .find(&output.value)
            .with_context(|| format!("no node makes `{}`", output.value))?;
        let stride = strides[id.0];
        let first = *first_stride.get_or_insert(stride);
        let size = |letter: &str, length: usize| match length {
            1 => Dimension::Fixed(1),
            _ if stride == 1 => Dimension::Named(letter.to_uppercase()),
            _ if stride == first => Dimension::Named(letter.to_owned()),
            _ => Dimension::Named(format!("{letter}{stride}")),
        };
        let sizes = ["h", "w"]
            .into_iter()
            .zip(&shapes[id.0][2..])
            .map(|(letter, &length)| size(letter, length));
        let shape = [Dimension::Named("N".to_owned()), Dimension::Fixed(graph.node(id).channels)];
        Ok(TensorInfo {
            name: output.name.clone(),
            element: FLOAT32.to_owned(),
            shape: shape.into_iter().chain(sizes).collect(),
        })
    };
    let size = ["H", "W"].map(|name| Dimension::Named(name.to_owned()));
    let pixel_outputs =
        network.pixel_outputs.iter().map(|decision| Ok(decision.port(size.clone())));
    let opinion =
        network.prototype_head.iter().map(|_| Ok(prototype_confidence::port(size.clone())));
    network.outputs().iter().map(port).chain(pixel_outputs).chain(opinion).collect()
}

/// A port as ONNX declares it.
pub(crate) fn declare(port: &TensorInfo) -> ValueInfoProto {
    let element = if port.element == UINT8 { DataType::Uint8 } else { DataType::Float };
    let dimension = |dimension: &Dimension| match dimension {
        Dimension::Fixed(size) => DimensionProto { dim_value: Some(*size as i64), dim_param: None },
        Dimension::Named(name) => DimensionProto { dim_value: None, dim_param: Some(name.clone()) },
    };
    let shape = TensorShapeProto { dim: port.shape.iter().map(dimension).collect() };
    let tensor_type = TensorTypeProto { elem_type: Some(element.into()), shape: Some(shape) };
    ValueInfoProto {
        name: Some(port.name.clone()),
        r#type: Some(TypeProto { tensor_type: Some(tensor_type) }),
    }
}
