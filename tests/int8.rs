//! ONNX Runtime gives from files in fewer bits what it gives from those of 32-bit floats, but for rounding.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

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

/// Height and width of a scene that the calibration does not see.
const NEW: [usize; 2] = [97, 161];

/// Root of the mean square error of the logits, over that of the logits.
///
/// A weight of 7 bits errs by a 126th of the largest in its kernel at the most, 0.8 % of a usual one in the root mean
/// square; a value of 8 bits by about 0.5 %. Errors of independent roundings add as their squares do, and a path through
/// this network has some 55 convolutions: 7 %. Twice that passes; steps or zeros that are wrong anywhere make it about 1.
const LIMIT: f64 = 0.15;

/// The logits of a scene that the calibration has not seen.
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
fn fewer_bits_move_the_logits_by_rounding_alone() {
    let graph = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 7).unwrap().graph();
    let weights = formula::weights(&graph, Some(5));
    let logits = graph.tagged(Tag::Logits).unwrap();
    let network =
        Network::new(&graph, &weights, &[(logits, "logits")]).unwrap().fold_batch_norm().unwrap();
    let expected = run("fp32", &emit(&network, &Variant::LOGITS, None).unwrap().file.to_bytes());
    let form = Variant { precision: Precision::Fp16, ..Variant::LOGITS };
    let found =
        distance(&run("fp16", &emit(&network, &form, None).unwrap().file.to_bytes()), &expected);
    eprintln!("fp16: {found:.4}");
    assert!(found < 0.01, "fp16: {found}");

    let mut calibration = calibration::record(&graph, &weights);
    let mut check = |name: &str, sensitive: &[&str]| {
        for value in sensitive {
            calibration.nodes.get_mut(*value).unwrap().sensitivity = 1.0;
        }
        let scheme = QuantizationPlan::new(&network, &calibration, QuantizeConfig::CPU).unwrap();
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
        &[
            "encoder._blocks.1._bn2",
            "decoder.aspp.image.resize",
            "decoder.aspp.pool",
            "decoder.low.relu",
        ],
    );
}
