//! fp16 and int8 files in ONNX Runtime differ from fp32 files by rounding only.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

#[path = "support/calibration.rs"]
mod calibration;

use protoseg_export::onnx::emit::{emit, emit_quantized};
use protoseg_export::{Network, QuantizationPlan, QuantizeConfig};
use protoseg_infer::EngineConfig;
use protoseg_infer::session::Runner;
use protoseg_models::arch::vit::{self, VitScaling};
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::formula;
use protoseg_models::graph::{Conv, Graph, Op, Tag};
use protoseg_models::variant::{Precision, Variant};

/// Height and width of a scene that is not in the calibration.
const NEW: [usize; 2] = [97, 161];

/// Largest root mean square error of the logits, relative to that of the logits.
///
/// A 7-bit weight errs by at most 1/126 of the largest in its kernel, in the root mean square 0.8 %
/// of a typical one; an 8-bit value by about 0.5 %. Independent errors add up in quadrature, and a
/// path through this network has some 55 convolutions: 7 %. Twice that is allowed; any wrong scale
/// or zero point gives about 1.
const LIMIT: f64 = 0.15;

/// Returns the logits of a scene that is not in the calibration.
fn run(name: &str, file: &[u8]) -> Vec<f32> {
    let scene = protoseg_synthetic::render_scene(2, 0, NEW[0], NEW[1]);
    let mut runner = Runner::from_bytes(name, file, &EngineConfig::default()).unwrap();
    runner.run(&scene.image, [1, NEW[0], NEW[1]]).unwrap().data
}

fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let squares = |values: &mut dyn Iterator<Item = f32>| {
        values.map(|value| f64::from(value).powi(2)).sum::<f64>()
    };
    let error = squares(&mut found.iter().zip(expected).map(|(found, expected)| found - expected));
    (error / squares(&mut expected.iter().copied())).sqrt()
}

#[test]
fn lower_precision_changes_logits_by_rounding_only() {
    let graph = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 7).unwrap().graph();
    let weights = formula::weights(&graph, Some(5));
    let logits = graph.tagged(Tag::Logits).unwrap();
    let network =
        Network::new(&graph, &weights, &[(logits, "logits")]).unwrap().fold_batch_norm().unwrap();
    let expected = run("fp32", &emit(&network, &Variant::LOGITS, None).unwrap().file.to_bytes());
    let variant = Variant { precision: Precision::Fp16, ..Variant::LOGITS };
    let found =
        distance(&run("fp16", &emit(&network, &variant, None).unwrap().file.to_bytes()), &expected);
    eprintln!("fp16: {found:.4}");
    assert!(found < 0.01, "fp16: {found}");

    let mut calibration = calibration::record(&graph, &weights);
    let mut check = |name: &str, sensitive: &[&str]| {
        for value in sensitive {
            calibration.nodes.get_mut(*value).unwrap().sensitivity = 1.0;
        }
        let plan = QuantizationPlan::new(&network, &calibration, QuantizeConfig::CPU).unwrap();
        let file = emit_quantized(&network, &plan, None).unwrap().file.to_bytes();
        let found = distance(&run(name, &file), &expected);
        eprintln!("{name}: {found:.4}");
        // At least the error of rounding: something was rounded.
        assert!((0.002..LIMIT).contains(&found), "{name}: {found}");
    };
    check("int8", &[]);
    // Values of every kind of node with readers in floats and in integers.
    check(
        "int8 with floats",
        &[
            "encoder._blocks.1._bn2",
            "decoder.aspp.image.resize",
            "decoder.aspp.pool",
            "decoder.low.relu",
        ],
    );
}

/// Width of the small transformer.
const WIDTH: usize = 128;
/// Depth of the small transformer.
const DEPTH: usize = 4;

/// Returns a small transformer with a linear head.
fn transformer() -> Graph {
    let mut graph = Graph::new();
    let outputs = vit::encoder(&mut graph, "encoder.", VitScaling::new(WIDTH, DEPTH), 14, 0);
    let joined = graph.push("decoder.concat", Op::Concat, &outputs.taps);
    let logits = graph.push("decoder.classifier", Op::Conv(Conv::new(5, 1).bias()), &[joined]);
    graph.tag(Tag::Logits, logits);
    graph
}

/// A linear layer in integers gives the product of the dequantized input with weights that are
/// rounded here once more, in 64-bit floats, and the bias.
///
/// ONNX Runtime rounds the scale of the products, the product and the sum to 24 bits, and the
/// input as it is read here; each errs by at most 2^-24 of the sum of all terms' sizes.
#[test]
fn a_linear_layer_in_integers_computes_what_its_integers_say() {
    let graph = transformer();
    let weights = formula::weights(&graph, Some(5));
    let layers = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"];
    let inputs = ["norm1", "attn", "norm2", "mlp.act"];
    let name = |part: &&str| format!("encoder.blocks.1.{part}");
    let names: Vec<String> = layers.iter().chain(&inputs).map(name).collect();
    let outputs: Vec<_> =
        names.iter().map(|name| (graph.find(name).unwrap(), name.as_str())).collect();
    let network = Network::new(&graph, &weights, &outputs).unwrap();
    let calibration = calibration::record(&graph, &weights);
    let plan = QuantizationPlan::new(&network, &calibration, QuantizeConfig::CPU).unwrap();
    let file = emit_quantized(&network, &plan, None).unwrap().file.to_bytes();
    let scene = protoseg_synthetic::render_scene(2, 0, 56, 70);
    let mut runner = Runner::from_bytes("layers", &file, &EngineConfig::default()).unwrap();
    let asked: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = runner.run_outputs(&scene.image, [1, 56, 70], &asked).unwrap();
    for (layer, input) in [0, 1, 2, 3].map(|index| (index, index + 4)) {
        let parameter = |part: &str| &weights[&format!("{}.{part}", names[layer])];
        let (weight, bias) = (parameter("weight"), parameter("bias"));
        let (out, inside) = (weight.shape[0], weight.shape[1]);
        let rounded: Vec<f64> = weight.data.chunks(inside).flat_map(round_row).collect();
        let mut levels: Vec<u32> = found[input].data.iter().map(|value| value.to_bits()).collect();
        levels.sort_unstable();
        levels.dedup();
        assert!((20..=256).contains(&levels.len()), "{}: {}", names[input], levels.len());
        for (tokens, sums) in found[input].data.chunks(inside).zip(found[layer].data.chunks(out)) {
            for (channel, &sum) in sums.iter().enumerate() {
                let row = &rounded[channel * inside..][..inside];
                let terms = || row.iter().zip(tokens).map(|(weight, &x)| weight * f64::from(x));
                let bias = f64::from(bias.data[channel]);
                let expected = terms().sum::<f64>() + bias;
                let size = terms().map(f64::abs).sum::<f64>() + bias.abs();
                let error = (f64::from(sum) - expected).abs();
                let limit = 4.0 * size / f64::from(1_u32 << 24);
                assert!(error <= limit, "{}: {sum} is not {expected}", names[layer]);
            }
        }
    }
}

/// Rounds the weights of an output channel to 7 bits.
fn round_row(row: &[f32]) -> Vec<f64> {
    let reach = row.iter().fold(0.0_f32, |reach, weight| reach.max(weight.abs()));
    let scale = f64::from((f64::from(reach) / 63.0) as f32);
    row.iter().map(|&weight| (f64::from(weight) / scale).round_ties_even() * scale).collect()
}

/// The limit is that of convolutions: a path through this network has 16 linear layers, whose
/// branches are scaled down and added to what stays in floats, so errors are smaller.
#[test]
fn a_transformer_in_integers_differs_by_rounding_only_and_runs_in_integers() {
    let graph = transformer();
    let weights = formula::weights(&graph, Some(5));
    let logits = graph.tagged(Tag::Logits).unwrap();
    let network = Network::new(&graph, &weights, &[(logits, "logits")]).unwrap();
    let network = network.fold_layer_scale().unwrap();
    let expected = run("fp32", &emit(&network, &Variant::LOGITS, None).unwrap().file.to_bytes());
    let calibration = calibration::record(&graph, &weights);
    let plan = QuantizationPlan::new(&network, &calibration, QuantizeConfig::CPU).unwrap();
    let file = emit_quantized(&network, &plan, None).unwrap().file.to_bytes();
    let found = distance(&run("int8", &file), &expected);
    eprintln!("transformer: {found:.4}");
    assert!((0.002..LIMIT).contains(&found), "{found}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, &file).unwrap();
    let runner = Runner::open(&path, &EngineConfig::default()).unwrap();
    let profile = runner.profile([1, NEW[0], NEW[1]]).unwrap();
    let nodes = |name: &str| {
        profile.operators.iter().find(|found| found.name == name).map(|found| found.nodes)
    };
    // Four linear layers a block; the two products of attention are in floats.
    assert_eq!(nodes("MatMulIntegerToFloat"), Some(4 * DEPTH), "{profile:?}");
}
