//! Outputs of libtorch over our graphs equal those of the original PyTorch implementations with the
//! same weights.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "../../tests/support/mod.rs"]
mod support;

use protoseg_models::arch::efficientnet_lite::{self, LITE0};
use protoseg_models::arch::{Arch, Preset, vit};
use protoseg_models::formula;
use protoseg_models::graph::{Graph, NodeId, Tag};
use protoseg_train::net::{self, ForwardMode, Net, from_torch};
use protoseg_train::pretrained;
use support::{UNFOLDED, floats, relative_error, repository, tensors};
use tch::Device;

fn resnet101() -> Net {
    let arch = Arch::new(Preset::DeepLabV3PlusResNet101, 19).unwrap().with_auxiliary(true).unwrap();
    let graph = arch.graph();
    let weights = formula::weights(&graph, None);
    Net::new(graph, &weights, Device::Cpu).unwrap()
}

/// Runs an image and compares outputs with the expected ones, which may hold the first channels
/// alone.
fn compare(net: &Net, image: &[u8], size: [usize; 2], expected: &[(NodeId, &[f32])]) {
    let _guard = tch::no_grad_guard();
    let input = net::images_to_tensor(image, size, Device::Cpu).unwrap();
    let ids: Vec<NodeId> = expected.iter().map(|(id, _)| *id).collect();
    for (output, (id, expected)) in
        net.forward(&input, ForwardMode::Eval, &ids).unwrap().iter().zip(expected)
    {
        let found = from_torch(output).unwrap().data;
        let error = relative_error(&found[..expected.len()], expected);
        let name = &net.graph().node(*id).name;
        eprintln!("{size:?} {name}: relative error {error:.1e}");
        assert!(error < UNFOLDED, "{name}: {error:.1e}");
    }
}

#[test]
fn resnet101_equals_the_reference_logits() {
    let expected = tensors(&repository().join("tests/fixtures/resnet101_97x97.safetensors"));
    let net = resnet101();
    let logits = net.graph().tagged(Tag::Logits).unwrap();
    let expected = floats(&expected["97x97.logits"].1);
    compare(&net, &formula::image(97, 97), [97, 97], &[(logits, &expected)]);
}

#[test]
fn resnet101_equals_the_reference_outputs_at_two_sizes() {
    let check = "resnet101_equals_the_reference_outputs_at_two_sizes";
    let Some(path) = support::real_data(check, "../fixtures/pcr_resnet101/outputs.safetensors")
    else {
        return;
    };
    let expected = tensors(&path);
    let net = resnet101();
    let graph = net.graph();
    for (name, size) in [("97x97", [97, 97]), ("129x193", [129, 193])] {
        let part = |part: &str| &expected[&format!("{name}.{part}")].1;
        assert_eq!(part("image"), &formula::image(size[0], size[1]));
        let logits = (graph.tagged(Tag::Logits).unwrap(), floats(part("logits")));
        let aux = (graph.tagged(Tag::Aux).unwrap(), floats(part("aux")));
        // The first branch of the pyramid pools the mean of the encoder's last map.
        let mean = (graph.find("decoder.aspp.conv1.0").unwrap(), floats(part("layer4_mean")));
        let pairs = [&logits, &aux, &mean].map(|(id, values)| (*id, values.as_slice()));
        compare(&net, part("image"), size, &pairs);
    }
}

#[test]
fn dinov2_equals_its_reference_at_two_sizes() {
    let check = "dinov2_equals_its_reference_at_two_sizes";
    let Some(path) = support::real_data(check, "../fixtures/dinov2_s14/outputs.safetensors") else {
        return;
    };
    let (graph, outputs) = vit::backbone(vit::SMALL, 0);
    let weights = formula::weights(&graph, None);
    let net = Net::new(graph, &weights, Device::Cpu).unwrap();
    for (image, size, blocks) in support::dinov2_cases(&path) {
        let pairs: Vec<_> =
            outputs.taps.iter().zip(&blocks).map(|(&id, block)| (id, block.as_slice())).collect();
        compare(&net, &image, size, &pairs);
    }
}

#[test]
fn dinov2_with_published_weights_equals_its_reference_on_a_photograph() {
    let check = "dinov2_with_published_weights_equals_its_reference_on_a_photograph";
    let Some(path) = support::real_data(check, "../fixtures/dinov2_s14/outputs.safetensors") else {
        return;
    };
    let expected = tensors(&path);
    let (graph, outputs) = vit::backbone(vit::SMALL, 0);
    // The matrices of this file have no names.
    let weights =
        pretrained::read(&repository().join(".runtime/weights/dinov2-vits14.onnx")).unwrap();
    let net = Net::new(graph, &weights, Device::Cpu).unwrap();
    let (shape, image) = &expected["real.image"];
    let last = floats(&expected["real.block11"].1);
    compare(&net, image, [shape[1], shape[2]], &[(outputs.taps[3], &last)]);
}

fn block(graph: &Graph, index: usize) -> NodeId {
    let named = |part: &str| graph.find(&format!("_blocks.{index}.{part}"));
    named("add").or_else(|| named("_bn2")).unwrap()
}

#[test]
fn efficientnet_lite0_equals_its_package_in_features_and_imagenet_logits() {
    let check = "efficientnet_lite0_equals_its_package_in_features_and_imagenet_logits";
    let Some(path) =
        support::real_data(check, "../fixtures/efficientnet_lite0/outputs.safetensors")
    else {
        return;
    };
    let expected = tensors(&path);
    let graph = efficientnet_lite::classifier(LITE0);
    let weights =
        pretrained::read(&repository().join(".runtime/weights/efficientnet-lite0.pth")).unwrap();
    let net = Net::new(graph, &weights, Device::Cpu).unwrap();
    let names: Vec<&str> = expected.keys().filter_map(|name| name.strip_suffix(".image")).collect();
    assert_eq!(names.len(), 2);
    for name in names {
        let (shape, image) = &expected[&format!("{name}.image")];
        let part = |part: &str| floats(&expected[&format!("{name}.{part}")].1);
        let mut outputs: Vec<(NodeId, Vec<f32>)> = [2, 4, 10, 15]
            .map(|index| (block(net.graph(), index), part(&format!("block{index}"))))
            .into();
        outputs.push((net.graph().tagged(Tag::Logits).unwrap(), part("imagenet_logits")));
        let pairs: Vec<_> = outputs.iter().map(|(id, values)| (*id, values.as_slice())).collect();
        compare(&net, image, [shape[1], shape[2]], &pairs);
    }
}
