//! Properties of every file that any options give.

use std::collections::BTreeSet;

use protoseg_models::arch::{Arch, Preset, vit};
use protoseg_models::calibration::{Calibration, HISTOGRAM_BINS, NodeRange};
use protoseg_models::classes::ClassTable;
use protoseg_models::formula;
use protoseg_models::prototypes::Prototypes;

use super::*;
use crate::onnx::file::OnnxFile;
use crate::onnx::proto::ValueInfoProto;

fn checkpoint(preset: Preset) -> Checkpoint {
    let arch = Arch::new(preset, 11).unwrap();
    let graph = arch.graph();
    let range =
        NodeRange { min: -3.0, max: 5.0, histogram: vec![1; HISTOGRAM_BINS], sensitivity: 0.0 };
    let nodes = graph.nodes().iter().map(|node| (node.name.clone(), range.clone())).collect();
    let features = graph.node(graph.tagged(Tag::Features).unwrap());
    let prototypes = Prototypes {
        version: Prototypes::VERSION.to_owned(),
        node: features.name.clone(),
        temperature: 0.1,
        mean: vec![0.1; features.channels],
        // One class has no prototypes.
        classes: (0..11)
            .map(|class| (class > 0).then(|| vec![vec![0.5; features.channels]; 2]))
            .collect(),
    };
    Checkpoint {
        header: CheckpointHeader::new("street", arch, ClassTable::camvid(), None),
        weights: formula::weights(&graph, None),
        probe: Vec::new(),
        calibration: Some(Calibration {
            version: Calibration::VERSION.to_owned(),
            source: String::new(),
            count: 1,
            nodes,
        }),
        prototypes: Some(prototypes),
        metrics: None,
        config: String::new(),
    }
}

/// Every precision with taps and all outputs, and frames of several, shifted and single windows,
/// all or some at once.
fn options(window: &str) -> ExportOptions {
    ExportOptions {
        window: Some(window.parse().unwrap()),
        outputs: ["features", "labels", "confidence", "margin"].map(str::to_owned).to_vec(),
        prototype_confidence: true,
        precisions: vec![
            ExportPrecision::Fp32,
            ExportPrecision::Fp16,
            ExportPrecision::Int8,
            ExportPrecision::Int8Trt,
        ],
        frames: ["150x200", "97x96:1", "60x131", "192x192:3"]
            .map(|frame| frame.parse().unwrap())
            .to_vec(),
        pixel_outputs: vec![PixelOutput::Margin],
        taps: true,
        ..ExportOptions::default()
    }
}

/// Returns the constants and values that nothing reads.
fn unused(file: &OnnxFile) -> Vec<&str> {
    let graph = file.skeleton.graph.as_ref().unwrap();
    let outputs = graph.output.iter().map(ValueInfoProto::name);
    let read =
        graph.node.iter().flat_map(|node| node.input.iter().map(String::as_str)).chain(outputs);
    let read: BTreeSet<&str> = read.collect();
    let made = graph.node.iter().flat_map(|node| node.output.iter().map(String::as_str));
    let constants = file.constants.iter().map(|constant| constant.name.as_str());
    constants.chain(made).filter(|name| !read.contains(name)).collect()
}

fn check(preset: Preset, options: &ExportOptions) {
    let mut checkpoint = checkpoint(preset);
    let model = model(&checkpoint.header, options).unwrap();
    let network = network(&mut checkpoint, options)
        .and_then(Network::fold_batch_norm)
        .and_then(Network::fold_layer_scale)
        .and_then(Network::merge_affine)
        .unwrap();
    let files = emit_all(&network, checkpoint.calibration.as_ref(), &model, options).unwrap();
    // Taps beside each precision, and two precisions of each frame.
    assert_eq!(files.len(), 2 * (options.precisions.len() + options.frames.len()), "{preset}");
    for file in files {
        let unused = unused(&file.model.file);
        assert!(unused.is_empty(), "{preset}: {} holds {unused:?}, which nothing reads", file.name);
    }
}

#[test]
fn files_hold_nothing_unused() {
    for preset in Preset::ALL {
        // The other transformers differ in width and depth alone.
        if preset.vit().is_some_and(|scaling| scaling != vit::SMALL) {
            continue;
        }
        check(preset, &options(if preset.align_corners() { "97:64" } else { "96:64" }));
    }
}

#[test]
fn files_of_whole_frames_hold_nothing_unused() {
    for preset in [Preset::DeepLabV3PlusEfficientNetLite0, Preset::DeepLabV3PlusResNet50] {
        let frames = vec!["97x130".parse().unwrap()];
        check(
            preset,
            &ExportOptions {
                frames,
                precisions: vec![ExportPrecision::Fp32, ExportPrecision::Fp16],
                ..options("whole")
            },
        );
    }
}
