//! Structure of every file, decoded from its bytes: rules of the format that readers rely on.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

use std::collections::BTreeSet;

use prost::Message;
use protoseg_export::Network;
use protoseg_export::onnx::emit::emit;
use protoseg_export::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto,
};
use protoseg_models::arch::efficientnet_lite::{LITE0, classifier};
use protoseg_models::arch::vit::{self, VitScaling};
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::digest;
use protoseg_models::formula;
use protoseg_models::graph::{Conv, Graph, Op, Tag};
use protoseg_models::variant::{Precision, Variant};

/// Returns the folded file of a graph's logits.
fn file(graph: &Graph) -> ModelProto {
    let logits = graph.tagged(Tag::Logits).unwrap();
    let network =
        Network::new(graph, &formula::weights(graph, None), &[(logits, "logits")]).unwrap();
    read(&network.fold_batch_norm().unwrap())
}

/// Returns the decoded file of a network.
fn read(network: &Network) -> ModelProto {
    let bytes = emit(network, &Variant::LOGITS, None).unwrap().file.to_bytes();
    ModelProto::decode(bytes.as_slice()).unwrap()
}

/// Checks the rules of the format and returns the graph.
fn checked(model: ModelProto) -> GraphProto {
    assert_eq!(
        (model.ir_version, model.opset_import[0].version, model.opset_import.len()),
        (Some(8), Some(17), 1)
    );
    let graph = model.graph.unwrap();
    let mut defined = BTreeSet::from([String::new()]);
    for constant in &graph.initializer {
        let count: i64 = constant.dims.iter().product();
        let name = constant.name.as_deref().unwrap();
        // 32-bit floats, or 64-bit sizes and positions.
        let bytes = match constant.data_type {
            Some(1) => 4,
            Some(7) => 8,
            other => panic!("{name} has the type {other:?}"),
        };
        assert_eq!(constant.raw_data.as_ref().unwrap().len() as i64, bytes * count, "{name}");
        assert!(defined.insert(name.to_owned()), "two values are named {name}");
    }
    for input in &graph.input {
        assert!(defined.insert(input.name.clone().unwrap()));
    }
    let mut read = BTreeSet::new();
    let mut names = BTreeSet::new();
    for node in &graph.node {
        let name = node.name.as_deref().unwrap();
        assert!(names.insert(name), "two nodes are named {name}");
        for input in &node.input {
            assert!(defined.contains(input), "{name} reads {input} before it is computed");
            read.insert(input.clone());
        }
        for output in &node.output {
            assert!(defined.insert(output.clone()), "{name} computes {output} again");
        }
        assert!(
            node.attribute.iter().all(|attribute| attribute.r#type.is_some_and(|kind| kind > 0)),
            "{name}"
        );
    }
    for output in &graph.output {
        assert!(read.insert(output.name.clone().unwrap()) && defined.contains(output.name()));
    }
    assert!(
        defined.iter().all(|name| name.is_empty() || read.contains(name)),
        "a value that nothing reads"
    );
    graph
}

fn operators(graph: &GraphProto) -> BTreeSet<&str> {
    graph.node.iter().map(NodeProto::op_type).collect()
}

#[test]
fn every_preset_keeps_the_rules_and_has_no_training_nodes() {
    for preset in Preset::ALL {
        // The other transformers differ in width and depth alone.
        if preset.vit().is_some_and(|scaling| scaling != vit::SMALL) {
            continue;
        }
        let arch = Arch::new(preset, 5).unwrap().with_auxiliary(preset.align_corners()).unwrap();
        let graph = checked(file(&arch.graph()));
        assert!(
            operators(&graph).is_disjoint(&BTreeSet::from([
                "BatchNormalization",
                "Dropout",
                "Identity"
            ])),
            "{preset}"
        );
        let mut constants = graph.initializer.iter().map(TensorProto::name);
        assert!(
            constants.all(|name| !name.starts_with("aux") && !name.contains("proto")),
            "{preset}"
        );
        let sizes: Vec<String> = graph.output[0]
            .r#type
            .iter()
            .flat_map(|value| &value.tensor_type.as_ref().unwrap().shape.as_ref().unwrap().dim)
            .map(|dim| dim.dim_param.clone().unwrap_or_else(|| dim.dim_value().to_string()))
            .collect();
        assert_eq!(sizes, ["N", "5", "h", "w"], "{preset}");
    }
}

#[test]
fn names_are_the_published_ones() {
    let arch = Arch::new(Preset::DeepLabV3PlusResNet50, 5).unwrap();
    let graph = checked(file(&arch.graph()));
    let node = |name: &str| graph.node.iter().find(|node| node.name() == name).unwrap();
    let conv = node("encoder.layer1.0.conv1");
    let weights =
        ["encoder.maxpool", "encoder.layer1.0.conv1.weight", "encoder.layer1.0.conv1.bias"];
    assert_eq!(
        (conv.op_type(), conv.input.as_slice()),
        ("Conv", weights.map(str::to_owned).as_slice())
    );
    assert_eq!(conv.output, ["encoder.layer1.0.bn1"]);
    assert_eq!(node("decoder.classifier.8").output, ["logits"]);
    assert_eq!(node("encoder.layer1.0.relu3").output, ["encoder.layer1.0.relu3"]);
    let resize = node("decoder.resize");
    let sizes = ["decoder.head.2", "", "", "decoder.resize.sizes"];
    assert_eq!(resize.input, sizes);
    assert!(
        resize
            .attribute
            .contains(&AttributeProto::string("coordinate_transformation_mode", "align_corners"))
    );
}

#[test]
fn a_classifier_ends_with_a_matrix_product() {
    let graph = checked(file(&classifier(LITE0)));
    assert_eq!(graph.node.last().unwrap().op_type(), "Gemm");
    assert!(operators(&graph).contains("Clip"));
}

#[test]
fn an_unfolded_network_keeps_its_batch_normalization() {
    let graph = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 5).unwrap().graph();
    let logits = graph.tagged(Tag::Logits).unwrap();
    let network =
        Network::new(&graph, &formula::weights(&graph, None), &[(logits, "logits")]).unwrap();
    let graph = checked(read(&network));
    let norm = graph.node.iter().find(|node| node.op_type() == "BatchNormalization").unwrap();
    let parts = ["weight", "bias", "running_mean", "running_var"]
        .map(|part| format!("{}.{part}", norm.name()));
    assert_eq!(norm.input[1..], parts);
    assert_eq!(norm.attribute, [AttributeProto::float("epsilon", 1e-3)]);
}

/// A checkpoint gives the same file from one version to the next, unless the writer is changed on
/// purpose: then results and speed are compared, and these digests follow.
#[test]
fn float_files_keep_their_nodes_and_weights() {
    let mut transformer = Graph::new();
    let encoder = vit::encoder(&mut transformer, "encoder.", VitScaling::new(64, 4), 14, 1);
    let joined = transformer.push("decoder.concat", Op::Concat, &encoder.taps);
    let classifier = Op::Conv(Conv::new(5, 1).bias());
    let logits = transformer.push("decoder.classifier", classifier, &[joined]);
    transformer.tag(Tag::Logits, logits);
    let lite = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 5).unwrap().graph();
    let digests = [&lite, &transformer].map(|graph| {
        let logits = (graph.tagged(Tag::Logits).unwrap(), "logits");
        let network = Network::new(graph, &formula::weights(graph, None), &[logits]).unwrap();
        let network = network.fold_batch_norm().unwrap().fold_layer_scale().unwrap();
        [Precision::Fp32, Precision::Fp16].map(|precision| {
            let variant = Variant { precision, ..Variant::LOGITS };
            let bytes = emit(&network, &variant, None).unwrap().file.to_bytes();
            let graph = ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap();
            digest::sha256_bytes(&graph.encode_to_vec())[..16].to_owned()
        })
    });
    let expected =
        [["76417ed13cbaf61d", "fe83f31fa399ed8a"], ["7cf86c7212d754b7", "bb3dd39be7d0d067"]];
    assert_eq!(digests, expected);
}
