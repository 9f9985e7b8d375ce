//! ONNX Runtime gives from files in fewer bits what it gives from those of 32-bit floats, but for rounding.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;

use protoseg_export::emit::{emit, emit_quantized};
use protoseg_export::{Network, Rounding, Scheme};
use protoseg_infer::session::{Runner, RunnerOptions};
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::calibration::{BINS, Calibration, NodeRange};
use protoseg_models::form::{Form, Precision};
use protoseg_models::formula;
use protoseg_models::graph::{Graph, NodeId, Tag};
use protoseg_models::scenes;

/// Height and width of the scenes that the calibration sees, and of one that it does not.
const CALIBRATED: [usize; 2] = [96, 128];
const NEW: [usize; 2] = [97, 161];

/// Root of the mean square error of the logits, over that of the logits.
///
/// A weight of 7 bits errs by a 126th of the largest in its kernel at the most, 0.8 % of a usual one in the root mean
/// square; a value of 8 bits by about 0.5 %. Errors of independent roundings add as their squares do, and a path through
/// this network has some 55 convolutions: 7 %. Twice that passes; steps or zeros that are wrong anywhere make it about 1.
const LIMIT: f64 = 0.15;

fn networks(outputs: &dyn Fn(&Graph) -> Vec<(NodeId, String)>) -> Network {
    let graph = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 7).unwrap().graph();
    let outputs = outputs(&graph);
    let outputs: Vec<(NodeId, &str)> = outputs.iter().map(|(id, name)| (*id, name.as_str())).collect();
    Network::new(&graph, &formula::weights(&graph, Some(5)), &outputs).unwrap()
}

fn logits(graph: &Graph) -> (NodeId, String) {
    (graph.tagged(Tag::Logits).unwrap(), "logits".to_owned())
}

/// What the trainer records, but for sensitivities: the values of every node over some scenes.
fn calibration() -> Calibration {
    let network = networks(&|graph| {
        let deployed = graph.keep(&[logits(graph).0]);
        let named = |name: &str| graph.find(name).map(|id| (id, format!("tap.{name}")));
        deployed
            .nodes()
            .iter()
            .filter(|node| node.name != "input" && !node.name.ends_with("dropout"))
            .filter_map(|node| named(&node.name))
            .collect()
    });
    let file = emit(&network, &Form::LOGITS, None).unwrap().file.to_bytes();
    let mut runner = Runner::from_bytes("every node", &file, &RunnerOptions::default()).unwrap();
    let names: Vec<&str> = network.outputs().iter().map(|output| output.name.as_str()).collect();
    let mut values: BTreeMap<&str, Vec<f32>> = BTreeMap::new();
    for index in 0..3 {
        let [height, width] = CALIBRATED;
        let scene = scenes::render(1, index, height, width);
        let found = runner.run_outputs(&scene.image, [1, height, width], &names).unwrap();
        for (output, tensor) in network.outputs().iter().zip(found) {
            values.entry(&output.value).or_default().extend(tensor.data);
        }
    }
    let nodes = values.into_iter().map(|(name, values)| (name.to_owned(), range(&values))).collect();
    Calibration { version: Calibration::VERSION.to_owned(), pictures: "scenes".to_owned(), count: 3, nodes }
}

fn range(values: &[f32]) -> NodeRange {
    let min = values.iter().copied().fold(f32::INFINITY, f32::min);
    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut histogram = vec![0; BINS];
    for value in values {
        let place = (value - min) / (max - min).max(f32::MIN_POSITIVE) * BINS as f32;
        histogram[(place as usize).min(BINS - 1)] += 1;
    }
    NodeRange { min, max, histogram, sensitivity: 0.0 }
}

/// The logits of a scene that the calibration has not seen.
fn run(name: &str, file: &[u8]) -> Vec<f32> {
    let scene = scenes::render(2, 0, NEW[0], NEW[1]);
    let mut runner = Runner::from_bytes(name, file, &RunnerOptions::default()).unwrap();
    runner.run(&scene.image, [1, NEW[0], NEW[1]]).unwrap().data
}

fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
    let error = squares(&mut found.iter().zip(expected).map(|(found, expected)| found - expected));
    (error / squares(&mut expected.iter().copied())).sqrt()
}

#[test]
fn fewer_bits_move_the_logits_by_rounding_alone() {
    let network = networks(&|graph| vec![logits(graph)]).folded().unwrap();
    let expected = run("fp32", &emit(&network, &Form::LOGITS, None).unwrap().file.to_bytes());
    let form = Form { precision: Precision::Fp16, ..Form::LOGITS };
    let found = distance(&run("fp16", &emit(&network, &form, None).unwrap().file.to_bytes()), &expected);
    eprintln!("fp16: {found:.4}");
    assert!(found < 0.01, "fp16: {found}");

    let mut calibration = calibration();
    let mut check = |name: &str, sensitive: &[&str]| {
        for value in sensitive {
            calibration.nodes.get_mut(*value).unwrap().sensitivity = 1.0;
        }
        let scheme = Scheme::new(&network, &calibration, Rounding::CPU).unwrap();
        let file = emit_quantized(&network, &scheme, None).unwrap().file.to_bytes();
        let found = distance(&run(name, &file), &expected);
        eprintln!("{name}: {found:.4}");
        // No better than rounding can be: something was rounded.
        assert!((0.002..LIMIT).contains(&found), "{name}: {found}");
    };
    check("int8", &[]);
    // Values that nodes in floats and in integers read, of every kind of node.
    check(
        "int8 with floats",
        &["encoder._blocks.1._bn2", "decoder.aspp.image.resize", "decoder.aspp.pool", "decoder.low.relu"],
    );
}
