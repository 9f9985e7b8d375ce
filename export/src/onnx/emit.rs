//! Networks as ONNX files with signature and metadata: opset 17, IR version 8, a flat graph.

use anyhow::{Context, Result, ensure};
use protoseg_models::bundle::{METADATA_KEY, Model, TensorInfo};
use protoseg_models::variant::{FrameSpec, Precision, VARIANT_KEY, Variant};

use crate::network::Network;
use crate::onnx::builder::GraphBuilder;
use crate::onnx::file::OnnxFile;
use crate::onnx::nodes::{NodeWriter, resize_attributes};
use crate::onnx::proto::{
    AttributeProto, DataType, GraphProto, IR_VERSION, ModelProto, OPSET, OperatorSetIdProto,
    StringStringEntryProto,
};
use crate::onnx::{pixel_outputs, prototype_confidence, signature};
use crate::quantize::plan::QuantizationPlan;

/// An ONNX file with its signature.
#[derive(Debug, Clone, PartialEq)]
pub struct EmittedModel {
    pub file: OnnxFile,
    pub inputs: Vec<TensorInfo>,
    pub outputs: Vec<TensorInfo>,
}

/// Makes a file from bytes `image` `[N, H, W, 3]` of any size to the network's outputs. Its
/// metadata holds `model`, so that it can be used without a manifest.
pub fn emit(network: &Network, variant: &Variant, model: Option<&Model>) -> Result<EmittedModel> {
    ensure!(variant.precision != Precision::Int8, "an 8-bit file needs a quantization plan");
    write(network, variant, None, model)
}

/// Makes an 8-bit file by the network's own plan.
pub fn emit_quantized(
    network: &Network,
    plan: &QuantizationPlan,
    model: Option<&Model>,
) -> Result<EmittedModel> {
    write(network, plan.variant(), Some(plan), model)
}

fn write(
    network: &Network,
    variant: &Variant,
    plan: Option<&QuantizationPlan>,
    model: Option<&Model>,
) -> Result<EmittedModel> {
    let outputs = signature::outputs(network)?;
    ensure!(!outputs.is_empty(), "a network without outputs cannot be written");
    let mut builder = GraphBuilder::default();
    let float = match variant.precision {
        Precision::Fp16 => DataType::Float16,
        Precision::Fp32 | Precision::Int8 => DataType::Float,
    };
    let half = float == DataType::Float16;
    let mut writer = NodeWriter::new(network, &mut builder, float).with_plan(plan);
    writer.set_value_name(network.graph.input(), signature::IMAGE);
    // Outputs are 32-bit floats in every precision.
    let narrow = |value: &str| format!("{value}.narrow");
    for output in network.outputs() {
        let id = network.required_producer(&output.value)?;
        let name = if half { narrow(&output.value) } else { output.name.clone() };
        writer.set_value_name(id, &name);
    }
    network.graph.iter().for_each(|(id, _)| writer.write(id));
    let features = match &network.prototype_head {
        Some(head) => Some(writer.value(network.required_producer(&head.value)?).to_owned()),
        None => None,
    };
    if half {
        for output in network.outputs() {
            let to = vec![AttributeProto::int("to", i64::from(i32::from(DataType::Float)))];
            let inputs = vec![narrow(&output.value)];
            builder.node(&format!("{}.wide", output.value), "Cast", inputs, &output.name, to);
        }
    }
    if features.is_some() || !network.pixel_outputs.is_empty() {
        let logits = &network.outputs()[0].name;
        let model = model.context("outputs for each pixel need the description of the model")?;
        let classes = model.classes.count();
        let align_corners = model.grid.align_corners;
        let full = upsample(&mut builder, "upsample", logits, align_corners);
        pixel_outputs::write(&mut builder, &full, classes, &network.pixel_outputs);
        if let (Some(head), Some(mut features)) = (&network.prototype_head, features) {
            if half {
                features = builder.cast("prototypes.values", &features, DataType::Float);
            }
            let logits = prototype_confidence::logits(&mut builder, &features, &head.prototypes);
            let judged = upsample(&mut builder, "prototypes.upsample", &logits, align_corners);
            prototype_confidence::write(&mut builder, &full, &judged, classes);
        }
    }
    to_file(builder, vec![signature::input(signature::any_size())], outputs, variant, model)
}

/// Writes the upsampling of logits to the size of the image.
fn upsample(builder: &mut GraphBuilder, name: &str, logits: &str, align_corners: bool) -> String {
    let part = |part: &str| format!("{name}.{part}");
    let range = |start: i64, end: i64| {
        vec![AttributeProto::int("start", start), AttributeProto::int("end", end)]
    };
    let kept = builder.op(&part("kept"), "Shape", &[logits], range(0, 2));
    let target = builder.op(&part("target"), "Shape", &[signature::IMAGE], range(1, 3));
    let axis = vec![AttributeProto::int("axis", 0)];
    let sizes = builder.op(&part("sizes"), "Concat", &[&kept, &target], axis);
    builder.op(name, "Resize", &[logits, "", "", &sizes], resize_attributes(align_corners))
}

/// Wraps a graph in a file with its signature and metadata.
pub(crate) fn to_file(
    builder: GraphBuilder,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    variant: &Variant,
    model: Option<&Model>,
) -> Result<EmittedModel> {
    let entry = |key: &str, value: String| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value),
    };
    let mut metadata_props = Vec::new();
    if let Some(model) = model {
        metadata_props.push(entry(METADATA_KEY, serde_json::to_string(model)?));
    }
    metadata_props.push(entry(VARIANT_KEY, serde_json::to_string(variant)?));
    let declare = |infos: &[TensorInfo]| infos.iter().map(signature::declare).collect();
    let name = Some(model.map_or("network", |model| &model.name).to_owned());
    let (node, constants) = builder.finish();
    let skeleton = ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("protoseg".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        doc_string: model.map(|model| description(model, variant)),
        graph: Some(GraphProto {
            name,
            input: declare(&inputs),
            output: declare(&outputs),
            node,
            ..GraphProto::default()
        }),
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(OPSET),
        }],
        metadata_props,
    };
    Ok(EmittedModel { file: OnnxFile { skeleton, constants }, inputs, outputs })
}

/// Returns the description that viewers show. Its text is part of the bytes of every file.
fn description(model: &Model, variant: &Variant) -> String {
    let network = model.arch.map_or(String::new(), |arch| format!(", {}", arch.preset()));
    let (name, count, stride) = (&model.name, model.classes.count(), model.grid.stride);
    let upsampling =
        if model.grid.align_corners { "aligned corners" } else { "half-pixel centres" };
    let signature = match variant.frame {
        Some(FrameSpec { height, width, .. }) => format!(
            "Input: RGB frames as they are, bytes [N, {height}, {width}, 3]. \
             Output `labels`: the class of every pixel. \
             Output `confidence`: its probability in steps of 1/255."
        ),
        None => format!(
            "Input: RGB pictures as they are, bytes [N, H, W, 3]. \
             Output `logits`: class scores, one every {stride} pixels; \
             resize them bilinearly with {upsampling}, then the class is the largest."
        ),
    };
    format!(
        "{name}{network}: semantic segmentation into {count} classes. {signature} \
         Classes, colours and windows: metadata entry `{METADATA_KEY}`, JSON."
    )
}
