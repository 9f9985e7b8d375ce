//! Exported networks in ONNX Runtime agree with the published PyTorch implementations.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

mod support;

use protoseg_export::Network;
use protoseg_export::onnx::emit::emit;
use protoseg_infer::EngineConfig;
use protoseg_infer::session::Runner;
use protoseg_models::arch::efficientnet_lite::{self, LITE0};
use protoseg_models::arch::{Arch, Preset, vit};
use protoseg_models::formula;
use protoseg_models::graph::{Graph, NodeId, Tag};
use protoseg_models::variant::Variant;
use protoseg_models::weights::{self, StateDict};
use support::{
    FOLDED, UNFOLDED, dinov2_cases, floats, program, real_data, relative_error, repository,
    succeed, tensors,
};

/// Outputs of one image: node and expected values.
type Expected = Vec<(NodeId, Vec<f32>)>;

/// An image `[height, width, 3]` with its size and expected outputs.
type Case = (Vec<u8>, [usize; 2], Expected);

/// Exports nodes of a graph, with and without folding, and compares ONNX Runtime's outputs with the
/// expected ones, which may hold the first channels alone.
fn compare(graph: &Graph, weights: &StateDict, cases: &[Case]) {
    let names: Vec<(NodeId, String)> =
        cases[0].2.iter().map(|(id, _)| (*id, format!("output{}", id.0))).collect();
    let outputs: Vec<(NodeId, &str)> =
        names.iter().map(|(id, name)| (*id, name.as_str())).collect();
    let network = Network::new(graph, weights, &outputs).unwrap();
    let folded = network.clone().fold_batch_norm().unwrap().fold_layer_scale().unwrap();
    for (name, network, tolerance) in [("unfolded", network, UNFOLDED), ("folded", folded, FOLDED)]
    {
        let file = emit(&network, &Variant::LOGITS, None).unwrap().file.to_bytes();
        let mut runner = Runner::from_bytes(name, &file, &EngineConfig::default()).unwrap();
        for (image, [height, width], expected) in cases {
            let asked: Vec<&str> = outputs.iter().map(|(_, name)| *name).collect();
            let found = runner.run_outputs(image, [1, *height, *width], &asked).unwrap();
            for (found, (id, expected)) in found.iter().zip(expected) {
                let error = relative_error(&found.data[..expected.len()], expected);
                let node = &graph.node(*id).name;
                eprintln!("{name} {height}x{width} {node}: relative error {error:.1e}");
                assert!(error < tolerance, "{name} {height}x{width} {node}: {error:.1e}");
            }
        }
    }
}

fn resnet101() -> (Graph, StateDict) {
    let arch = Arch::new(Preset::DeepLabV3PlusResNet101, 19).unwrap().with_auxiliary(true).unwrap();
    let graph = arch.graph();
    let weights = formula::weights(&graph, None);
    (graph, weights)
}

#[test]
fn resnet101_agrees_with_its_committed_reference() {
    let (graph, weights) = resnet101();
    let expected = tensors(&repository().join("tests/fixtures/resnet101_97x97.safetensors"));
    let logits = (graph.tagged(Tag::Logits).unwrap(), floats(&expected["97x97.logits"].1));
    compare(&graph, &weights, &[(formula::image(97, 97), [97, 97], vec![logits])]);
}

#[test]
fn resnet101_agrees_with_its_reference_at_two_sizes() {
    let check = "ONNX Runtime: resnet101_agrees_with_its_reference_at_two_sizes";
    let Some(path) = real_data(check, "../fixtures/pcr_resnet101/outputs.safetensors") else {
        return;
    };
    let expected = tensors(&path);
    let (graph, weights) = resnet101();
    let case = |(name, size): (&str, [usize; 2])| {
        let part = |part: &str| floats(&expected[&format!("{name}.{part}")].1);
        let of = |tag: Tag| graph.tagged(tag).unwrap();
        (
            formula::image(size[0], size[1]),
            size,
            vec![(of(Tag::Logits), part("logits")), (of(Tag::Aux), part("aux"))],
        )
    };
    compare(&graph, &weights, &[("97x97", [97, 97]), ("129x193", [129, 193])].map(case));
}

#[test]
fn dinov2_agrees_with_its_reference_at_two_sizes() {
    let check = "ONNX Runtime: dinov2_agrees_with_its_reference_at_two_sizes";
    let Some(path) = real_data(check, "../fixtures/dinov2_s14/outputs.safetensors") else {
        return;
    };
    let (graph, taps) = vit::backbone(vit::SMALL, 0);
    let weights = formula::weights(&graph, None);
    let cases: Vec<Case> = dinov2_cases(&path)
        .into_iter()
        .map(|(image, size, blocks)| (image, size, taps.taps.into_iter().zip(blocks).collect()))
        .collect();
    compare(&graph, &weights, &cases);
}

#[test]
fn efficientnet_lite0_agrees_with_its_package() {
    let check = "ONNX Runtime: efficientnet_lite0_agrees_with_its_package";
    let Some(path) = real_data(check, "../fixtures/efficientnet_lite0/outputs.safetensors") else {
        return;
    };
    let expected = tensors(&path);
    let folder = tempfile::tempdir().unwrap();
    let converted = folder.path().join("lite0.safetensors");
    let published = repository().join(".runtime/weights/efficientnet-lite0.pth");
    succeed(program("protoseg-train").arg("convert").arg(published).arg("--out").arg(&converted));
    let graph = efficientnet_lite::classifier(LITE0);
    let block = |index: usize| {
        let named = |part: &str| graph.find(&format!("_blocks.{index}.{part}"));
        named("add").or_else(|| named("_bn2")).unwrap()
    };
    let case = |name: &str| {
        let part = |part: &str| &expected[&format!("{name}.{part}")];
        let mut outputs: Expected = [2, 4, 10, 15]
            .map(|index| (block(index), floats(&part(&format!("block{index}")).1)))
            .into();
        outputs.push((graph.tagged(Tag::Logits).unwrap(), floats(&part("imagenet_logits").1)));
        let (shape, image) = part("image");
        (image.clone(), [shape[1], shape[2]], outputs)
    };
    let cases: Vec<Case> =
        expected.keys().filter_map(|name| name.strip_suffix(".image")).map(case).collect();
    assert_eq!(cases.len(), 2);
    compare(&graph, &weights::read(&converted).unwrap(), &cases);
}
