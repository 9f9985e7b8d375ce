//! Inputs and outputs of a file, as the manifest and ONNX declare them.

use anyhow::Result;
use protoseg_models::bundle::{Dimension, TensorInfo};
use protoseg_models::prototypes::PROTOTYPE_CONFIDENCE;

use crate::network::{Network, Output, PixelOutput};
use crate::onnx::proto::{
    DataType, DimensionProto, FLOAT32, TensorShapeProto, TensorTypeProto, TypeProto, UINT8,
    ValueInfoProto,
};

/// Name of the input.
pub(crate) const IMAGE: &str = "image";
/// Name of the logits.
pub(crate) const LOGITS: &str = "logits";

/// An image size at which all strides and poolings of every network show.
const SIDE: usize = 769;

fn named(name: impl Into<String>) -> Dimension {
    Dimension::Named(name.into())
}

fn info(name: &str, element: &str, shape: Vec<Dimension>) -> TensorInfo {
    TensorInfo { name: name.to_owned(), element: element.to_owned(), shape }
}

/// The images: bytes `[N, H, W, 3]`, RGB.
pub(crate) fn input([height, width]: [Dimension; 2]) -> TensorInfo {
    info(IMAGE, UINT8, vec![named("N"), height, width, Dimension::Fixed(3)])
}

/// Height and width of images of any size.
pub(crate) fn any_size() -> [Dimension; 2] {
    ["H", "W"].map(named)
}

/// An output for each pixel, `[N, H, W]`.
pub(crate) fn pixel_output(output: PixelOutput, [height, width]: [Dimension; 2]) -> TensorInfo {
    let element = match output {
        PixelOutput::Labels | PixelOutput::Confidence => UINT8,
        PixelOutput::Margin => FLOAT32,
    };
    info(output.name(), element, vec![named("N"), height, width])
}

/// Returns the outputs of a network: floats `[N, C, h, w]`, or `[N, T, C]` for tokens, where `h`
/// and `w` are those of the first output. At another stride s they are called `hs` and `ws`, at stride 1 `H` and `W`.
pub(crate) fn outputs(network: &Network) -> Result<Vec<TensorInfo>> {
    let graph = network.graph();
    let shapes = graph.shapes(1, SIDE, SIDE)?;
    let strides = graph.strides();
    let extra_tokens = graph.extra_tokens();
    let mut first_stride = None;
    let mut outputs = Vec::new();
    for Output { value, name } in network.outputs() {
        let id = network.required_producer(value)?;
        let stride = strides[id.0];
        let first = *first_stride.get_or_insert(stride);
        let size = |letter: &str, length: usize| match length {
            1 => Dimension::Fixed(1),
            _ if stride == 1 => named(letter.to_uppercase()),
            _ if stride == first => named(letter),
            _ => named(format!("{letter}{stride}")),
        };
        let channels = Dimension::Fixed(graph.node(id).channels);
        if extra_tokens[id.0].is_some() {
            outputs.push(info(name, FLOAT32, vec![named("N"), named("T"), channels]));
            continue;
        }
        let mut shape = vec![named("N"), channels];
        let lengths = &shapes[id.0][2..];
        shape.extend(
            ["h", "w"].into_iter().zip(lengths).map(|(letter, &length)| size(letter, length)),
        );
        outputs.push(info(name, FLOAT32, shape));
    }
    outputs.extend(network.pixel_outputs.iter().map(|&output| pixel_output(output, any_size())));
    if network.prototype_head.is_some() {
        // The probability c of each label as bytes, `floor(255 c + 0.5)`.
        let [height, width] = any_size();
        outputs.push(info(PROTOTYPE_CONFIDENCE, UINT8, vec![named("N"), height, width]));
    }
    Ok(outputs)
}

/// Returns the declaration of an input or output in ONNX.
pub(crate) fn declare(info: &TensorInfo) -> ValueInfoProto {
    let element = if info.element == UINT8 { DataType::Uint8 } else { DataType::Float };
    let dimension = |dimension: &Dimension| match dimension {
        Dimension::Fixed(size) => DimensionProto { dim_value: Some(*size as i64), dim_param: None },
        Dimension::Named(name) => DimensionProto { dim_value: None, dim_param: Some(name.clone()) },
    };
    let shape = TensorShapeProto { dim: info.shape.iter().map(dimension).collect() };
    let tensor_type = TensorTypeProto { elem_type: Some(element.into()), shape: Some(shape) };
    ValueInfoProto {
        name: Some(info.name.clone()),
        r#type: Some(TypeProto { tensor_type: Some(tensor_type) }),
    }
}
