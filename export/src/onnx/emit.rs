//! Networks as ONNX files: the graph with its inputs, outputs and what the file says of itself. Opset 17, IR version 8, a
//! flat graph.

use anyhow::{Context, Result, ensure};
use protoseg_models::bundle::{METADATA_KEY, Model, TensorInfo};
use protoseg_models::variant::{FrameSpec, Precision, VARIANT_KEY, Variant};

use crate::network::Network;
use crate::onnx::builder::GraphBuilder;
use crate::onnx::file::OnnxFile;
use crate::onnx::nodes::{NodeWriter, resize_attributes};
use crate::onnx::pixel_outputs;
use crate::onnx::proto::{
    AttributeProto, DataType, GraphProto, IR_VERSION, ModelProto, OPSET, OperatorSetIdProto,
    StringStringEntryProto,
};
use crate::onnx::prototype_confidence;
use crate::onnx::signature;
use crate::quantize::plan::QuantizationPlan;

/// An ONNX file with what goes in and what comes out.
#[derive(Debug, Clone, PartialEq)]
pub struct EmittedModel {
    /// The file.
    pub file: OnnxFile,
    /// What goes in.
    pub inputs: Vec<TensorInfo>,
    /// What comes out.
    pub outputs: Vec<TensorInfo>,
}

/// A network as an ONNX file: bytes `image` `[N, H, W, 3]` to the network's outputs, sizes left open. The file carries the
/// facts of `model`, so that it is enough to work with by itself.
pub fn emit(network: &Network, form: &Variant, model: Option<&Model>) -> Result<EmittedModel> {
    ensure!(
        form.precision != Precision::Int8,
        "a file in 8 bits needs a scheme of what is rounded"
    );
    write(network, form, None, model)
}

/// The same in 8 bits, by the network's own scheme.
pub fn emit_quantized(
    network: &Network,
    scheme: &QuantizationPlan,
    model: Option<&Model>,
) -> Result<EmittedModel> {
    write(network, scheme.form(), Some(scheme), model)
}

fn write(
    network: &Network,
    form: &Variant,
    scheme: Option<&QuantizationPlan>,
    model: Option<&Model>,
) -> Result<EmittedModel> {
    let outputs = signature::outputs(network)?;
    ensure!(!outputs.is_empty(), "a network without outputs cannot be written");
    let mut builder = GraphBuilder::default();
    let float = match form.precision {
        Precision::Fp16 => DataType::Float16,
        Precision::Fp32 | Precision::Int8 => DataType::Float,
    };
    let mut body = NodeWriter::new(network, &mut builder, float).with_plan(scheme);
    body.set_value_name(network.graph.input(), signature::IMAGE);
    // Outputs are 32-bit floats whatever the network counts in.
    for output in network.outputs() {
        let called = if float == DataType::Float {
            output.name.clone()
        } else {
            format!("{}.narrow", output.value)
        };
        network.find(&output.value).into_iter().for_each(|id| body.set_value_name(id, &called));
    }
    network.graph.iter().for_each(|(id, _)| body.write(id));
    let judged = network.prototype_head.as_ref().map(|opinion| {
        let compared = network.find(&opinion.value).map(|id| body.value(id).to_owned());
        (&opinion.prototypes, compared.unwrap_or_else(|| opinion.value.clone()))
    });
    if float != DataType::Float {
        for output in network.outputs() {
            let to = vec![AttributeProto::int("to", i64::from(i32::from(DataType::Float)))];
            let (name, narrow) =
                (format!("{}.wide", output.value), format!("{}.narrow", output.value));
            builder.node(&name, "Cast", vec![narrow], &output.name, to);
        }
    }
    if let Some(scores) =
        network.outputs().first().filter(|_| judged.is_some() || !network.pixel_outputs.is_empty())
    {
        let model = model.context(
            "what is decided depends on how scores lie over pixels, which the model's facts say",
        )?;
        let (classes, align_corners) = (model.classes.count(), model.grid.align_corners);
        let full = upsampled(&mut builder, "upsample", &scores.name, align_corners);
        pixel_outputs::write(&mut builder, &full, classes, &network.pixel_outputs);
        if let Some((prototypes, compared)) = judged {
            let narrow = float != DataType::Float;
            let compared = if narrow {
                builder.cast("prototypes.values", &compared, DataType::Float)
            } else {
                compared
            };
            let scores = prototype_confidence::scores(&mut builder, &compared, prototypes);
            let judged = upsampled(&mut builder, "prototypes.upsample", &scores, align_corners);
            prototype_confidence::write(&mut builder, &full, &judged, classes);
        }
    }
    file(builder, vec![signature::input()], outputs, form, model)
}

/// Scores at the picture's own size.
fn upsampled(builder: &mut GraphBuilder, name: &str, scores: &str, align_corners: bool) -> String {
    let part = |part: &str| format!("{name}.{part}");
    let between = |start: i64, end: i64| {
        vec![AttributeProto::int("start", start), AttributeProto::int("end", end)]
    };
    let kept = builder.op(&part("kept"), "Shape", &[scores], between(0, 2));
    let target = builder.op(&part("target"), "Shape", &[signature::IMAGE], between(1, 3));
    let axis = vec![AttributeProto::int("axis", 0)];
    let sizes = builder.op(&part("sizes"), "Concat", &[&kept, &target], axis);
    builder.op(name, "Resize", &[scores, "", "", &sizes], resize_attributes(align_corners))
}

/// A graph as a file.
pub(crate) fn file(
    builder: GraphBuilder,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    form: &Variant,
    model: Option<&Model>,
) -> Result<EmittedModel> {
    let entry = |key: &str, value: String| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value),
    };
    let facts = model.map(|model| {
        Ok::<_, serde_json::Error>(entry(METADATA_KEY, serde_json::to_string(model)?))
    });
    let mut metadata_props: Vec<StringStringEntryProto> =
        facts.into_iter().collect::<Result<_, _>>()?;
    metadata_props.push(entry(VARIANT_KEY, serde_json::to_string(form)?));
    let declare = |ports: &[TensorInfo]| ports.iter().map(signature::declare).collect();
    let name = Some(model.map_or("network", |model| &model.name).to_owned());
    let (node, constants) = builder.finish();
    let skeleton = ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("protoseg".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        doc_string: model.map(|model| description(model, form)),
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

/// What a person reads who opens the file in a viewer.
fn description(model: &Model, form: &Variant) -> String {
    let network = model.arch.map_or(String::new(), |arch| format!(", {}", arch.preset()));
    let (name, count, stride) = (&model.name, model.classes.count(), model.grid.stride);
    let upsampling =
        if model.grid.align_corners { "aligned corners" } else { "half-pixel centres" };
    let ports = match form.frame {
        Some(FrameSpec { height, width, .. }) => format!(
            "Input: RGB frames as they are, bytes [N, {height}, {width}, 3]. Output `labels`: the class of every pixel. \
             Output `confidence`: its probability in steps of 1/255."
        ),
        None => format!(
            "Input: RGB pictures as they are, bytes [N, H, W, 3]. Output `logits`: class scores, one every {stride} \
             pixels; resize them bilinearly with {upsampling}, then the class is the largest."
        ),
    };
    format!(
        "{name}{network}: semantic segmentation into {count} classes. {ports} Classes, colours and windows: metadata entry \
         `{METADATA_KEY}`, JSON."
    )
}
