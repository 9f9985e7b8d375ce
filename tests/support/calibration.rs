//! Calibration ranges as the trainer records them, without libtorch and without sensitivities.

use std::collections::BTreeMap;

use protoseg_export::Network;
use protoseg_export::onnx::emit::emit;
use protoseg_infer::EngineConfig;
use protoseg_infer::session::Runner;
use protoseg_models::calibration::{Calibration, HISTOGRAM_BINS, NodeRange};
use protoseg_models::graph::{Graph, NodeId, Tag};
use protoseg_models::variant::Variant;
use protoseg_models::weights::StateDict;

/// Height and width of the calibration scenes.
const SIZE: [usize; 2] = [96, 128];

/// Records the value ranges of every inference node over three scenes.
pub(crate) fn record(graph: &Graph, weights: &StateDict) -> Calibration {
    let logits = graph.tagged(Tag::Logits).expect("logits");
    let nodes = graph.keep(&[logits]);
    let nodes =
        nodes.nodes().iter().filter(|node| node.name != "input" && !node.name.ends_with("dropout"));
    let tap = |name: &str| graph.find(name).map(|id| (id, format!("tap.{name}")));
    let outputs: Vec<(NodeId, String)> = nodes.filter_map(|node| tap(&node.name)).collect();
    let outputs: Vec<(NodeId, &str)> =
        outputs.iter().map(|(id, name)| (*id, name.as_str())).collect();
    let network = Network::new(graph, weights, &outputs).expect("every node as an output");
    let file =
        emit(&network, &Variant::LOGITS, None).expect("every node as an output").file.to_bytes();
    let mut runner =
        Runner::from_bytes("every node", &file, &EngineConfig::default()).expect("the network");
    let names: Vec<&str> = network.outputs().iter().map(|output| output.name.as_str()).collect();
    let mut values: BTreeMap<&str, Vec<f32>> = BTreeMap::new();
    let [height, width] = SIZE;
    for index in 0..3 {
        let scene = protoseg_synthetic::render_scene(1, index, height, width);
        let found = runner
            .run_outputs(&scene.image, [1, height, width], &names)
            .expect("values of every node");
        for (output, tensor) in network.outputs().iter().zip(found) {
            values.entry(&output.value).or_default().extend(tensor.data);
        }
    }
    let nodes =
        values.into_iter().map(|(name, values)| (name.to_owned(), range(&values))).collect();
    Calibration {
        version: Calibration::VERSION.to_owned(),
        source: "scenes".to_owned(),
        count: 3,
        nodes,
    }
}

fn range(values: &[f32]) -> NodeRange {
    let min = values.iter().copied().fold(f32::INFINITY, f32::min);
    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut histogram = vec![0; HISTOGRAM_BINS];
    for value in values {
        let bin = (value - min) / (max - min).max(f32::MIN_POSITIVE) * HISTOGRAM_BINS as f32;
        histogram[(bin as usize).min(HISTOGRAM_BINS - 1)] += 1;
    }
    NodeRange { min, max, histogram, sensitivity: 0.0 }
}
