//! fp16 and int8 files in ONNX Runtime differ from fp32 files by rounding only.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

#[path = "support/calibration.rs"]
mod calibration;

use protoseg_export::onnx::emit::{emit, emit_quantized};
use protoseg_export::{Network, QuantizationPlan, QuantizeConfig};
use protoseg_infer::EngineConfig;
use protoseg_infer::session::Runner;
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::formula;
use protoseg_models::graph::Tag;
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
