//! Networks as ONNX files: the graph with its inputs, outputs and what the file says of itself. Opset 17, IR version 8, a
//! flat graph.

use anyhow::{Result, ensure};
use protoseg_models::bundle::{METADATA_KEY, Model};
use protoseg_models::form::{FORM_KEY, Form, Precision};

use crate::body::Body;
use crate::builder::Builder;
use crate::network::Network;
use crate::onnx::{
    DataType, GraphProto, IR_VERSION, ModelProto, OPSET, OperatorSetIdProto, StringStringEntryProto, ValueInfoProto,
};
use crate::ports;
use crate::scheme::Scheme;

/// A network as an ONNX file: bytes `image` `[N, H, W, 3]` to the network's outputs, sizes left open. The file carries the
/// facts of `model`, so that it is enough to work with by itself.
pub fn emit(network: &Network, form: &Form, model: Option<&Model>) -> Result<ModelProto> {
    ensure!(form.precision != Precision::Int8, "a file in 8 bits needs a scheme of what is rounded");
    write(network, form, None, model)
}

/// The same in 8 bits, by the network's own scheme.
pub fn emit_quantized(network: &Network, scheme: &Scheme, model: Option<&Model>) -> Result<ModelProto> {
    write(network, scheme.form(), Some(scheme), model)
}

fn write(network: &Network, form: &Form, scheme: Option<&Scheme>, model: Option<&Model>) -> Result<ModelProto> {
    let outputs = ports::outputs(network)?;
    ensure!(!outputs.is_empty(), "a network without outputs cannot be written");
    let mut builder = Builder::default();
    let float = match form.precision {
        Precision::Fp16 => DataType::Float16,
        Precision::Fp32 | Precision::Int8 => DataType::Float,
    };
    let mut body = Body::new(network, &mut builder, float).quantized(scheme);
    body.call(network.graph.input(), ports::IMAGE);
    // Outputs are 32-bit floats whatever the network counts in.
    for output in network.outputs() {
        let called = if float == DataType::Float { output.name.clone() } else { format!("{}.narrow", output.value) };
        network.find(&output.value).into_iter().for_each(|id| body.call(id, &called));
    }
    network.graph.iter().for_each(|(id, _)| body.write(id));
    if float != DataType::Float {
        for output in network.outputs() {
            builder.cast(&output.name, &format!("{}.narrow", output.value), DataType::Float);
        }
    }
    let input = vec![ports::declare(&ports::input(), DataType::Uint8)];
    let output = outputs.iter().map(|port| ports::declare(port, DataType::Float)).collect();
    file(builder, input, output, form, model)
}

/// A graph as a file.
pub(crate) fn file(
    builder: Builder,
    input: Vec<ValueInfoProto>,
    output: Vec<ValueInfoProto>,
    form: &Form,
    model: Option<&Model>,
) -> Result<ModelProto> {
    let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
    let metadata_props = match model {
        None => Vec::new(),
        Some(model) => {
            vec![entry(METADATA_KEY, serde_json::to_string(model)?), entry(FORM_KEY, serde_json::to_string(form)?)]
        }
    };
    let name = Some(model.map_or("network", |model| &model.name).to_owned());
    Ok(ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("protoseg".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        doc_string: model.map(description),
        graph: Some(GraphProto { name, input, output, ..builder.finish() }),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
        metadata_props,
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
