//! The gate at the end of `protoseg export`: a checkpoint whose probe agrees with ONNX Runtime
//! becomes a bundle, another leaves nothing, and a kill never leaves half of one. Broken fp16 and
//! int8 files are told from sound ones.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

#[path = "support/calibration.rs"]
mod calibration;
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use protoseg_export::Network;
use protoseg_export::onnx::emit::emit;
use protoseg_infer::EngineConfig;
use protoseg_infer::session::Runner;
use protoseg_infer::stitch::LogitMap;
use protoseg_infer::upsample::{self, LogitGeometry};
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::bundle::Manifest;
use protoseg_models::calibration::Calibration;
use protoseg_models::checkpoint::{Checkpoint, CheckpointHeader};
use protoseg_models::classes::ClassTable;
use protoseg_models::gate::{GateResult, Verdict};
use protoseg_models::graph::Tag;
use protoseg_models::probe::ProbeCase;
use protoseg_models::weights::{StateDict, Tensor};
use protoseg_models::{digest, formula};
use support::{program, succeed};

const PRESET: Preset = Preset::DeepLabV3PlusEfficientNetLite0;
const SIZE: [usize; 2] = [64, 96];
/// An image with enough pixels for label agreement.
const LARGE: [usize; 2] = [163, 227];

/// Writes a checkpoint with formula weights and a probe from ONNX Runtime.
fn checkpoint(root: &Path) -> PathBuf {
    let arch = Arch::new(PRESET, 19).unwrap();
    probed(root, SIZE, formula::weights(&arch.graph(), None), None)
}

/// Writes a checkpoint with a probe of one size, with given weights and calibration.
fn probed(
    root: &Path,
    [height, width]: [usize; 2],
    weights: StateDict,
    calibration: Option<Calibration>,
) -> PathBuf {
    let arch = Arch::new(PRESET, 19).unwrap();
    let image = protoseg_synthetic::render_scene(1, 0, height, width).image;
    let case = ProbeCase {
        name: format!("{height}x{width}"),
        height,
        width,
        image: image.clone(),
        logits: Tensor { shape: vec![1, 19, 1, 1], data: vec![0.0; 19] },
        labels: vec![0; height * width],
        prototype_confidence: None,
    };
    let mut checkpoint = Checkpoint {
        header: CheckpointHeader::new("street", arch, ClassTable::cityscapes(), None),
        weights,
        probe: vec![case],
        calibration,
        prototypes: None,
        metrics: None,
        config: String::new(),
    };
    let folder = root.join("checkpoint");
    let bundle = root.join("unchecked");
    checkpoint.write(&folder).unwrap();
    succeed(export(&folder, &bundle).arg("--no-check"));
    let mut runner = Runner::open(&bundle.join("model.onnx"), &EngineConfig::default()).unwrap();
    let logits = runner.run(&image, [1, height, width]).unwrap();
    let map = LogitMap {
        classes: 19,
        height: logits.shape[2],
        width: logits.shape[3],
        data: logits.data.clone(),
    };
    let frame = LogitGeometry::new([height, width], [height, width], false);
    checkpoint.probe[0].labels = upsample::labels(&map, &frame);
    checkpoint.probe[0].logits = logits;
    checkpoint.write(&folder).unwrap();
    folder
}

fn export(checkpoint: &Path, out: &Path) -> Command {
    let mut command = program("protoseg");
    command.arg("export").arg(checkpoint).arg("--out").arg(out);
    command
}

/// Returns the names in a folder, hidden ones included.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn only_a_network_that_agrees_becomes_a_bundle() {
    let root = tempfile::tempdir().unwrap();
    let (checkpoint, bundle) = (checkpoint(root.path()), root.path().join("bundle"));
    let data = ["--check-data", "synthetic", "--check-limit", "2", "--taps"];
    let report = succeed(export(&checkpoint, &bundle).args(data));
    assert!(report.contains("passed  model.onnx 64x96: ") && report.contains("mIoU"), "{report}");
    assert_eq!(names(&bundle), ["manifest.json", "model.onnx", "probe.safetensors", "taps.onnx"]);
    let manifest = Manifest::read(&bundle).unwrap().value;
    let gate = &manifest.gate[0];
    assert_eq!((gate.verdict, gate.score.as_ref().unwrap().images), (Verdict::Passed, 2));
    let command = &manifest.provenance.command;
    assert!(
        command.contains(bundle.to_str().unwrap()) && !command.contains("partial"),
        "{command}"
    );

    let mut wrong = Checkpoint::read(&checkpoint).unwrap();
    wrong.probe[0].logits.data[100] += 100.0;
    let (elsewhere, new) = (root.path().join("wrong"), root.path().join("new"));
    wrong.write(&elsewhere).unwrap();
    for out in [&bundle, &new] {
        let output = export(&elsewhere, out).output().unwrap();
        let (report, message) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(report.contains("FAILED  model.onnx 64x96: "), "{report}");
        assert!(message.contains("does not pass its check, so nothing was written"), "{message}");
    }
    assert_eq!(Manifest::read(&bundle).unwrap().value, manifest);
    assert_eq!(names(root.path()), ["bundle", "checkpoint", "unchecked", "wrong"]);
    for out in ["checkpoint", "checkpoint/bundle", "."] {
        let output = export(&checkpoint, &root.path().join(out)).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{out}");
    }
    assert!(Checkpoint::read(&checkpoint).is_ok());
}

#[test]
fn after_a_kill_the_old_or_the_new_bundle_is_complete() {
    let root = tempfile::tempdir().unwrap();
    let (checkpoint, bundle) = (checkpoint(root.path()), root.path().join("bundle"));
    succeed(&mut export(&checkpoint, &bundle));
    for round in 0..12 {
        let mut command = export(&checkpoint, &bundle);
        let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(25 * round));
        running.kill().unwrap();
        running.wait().unwrap();
        let manifest = Manifest::read(&bundle).unwrap().value;
        assert_eq!(manifest.gate[0].verdict, Verdict::Passed, "round {round}");
        manifest.verified(&bundle, &manifest.files[0]).unwrap();
    }
    succeed(&mut export(&checkpoint, &bundle));
    assert_eq!(names(&bundle), ["manifest.json", "model.onnx", "probe.safetensors"]);
}

/// Returns the result of `protoseg check` for the second file of a bundle, and its report.
fn second_gate(bundle: &Path) -> (GateResult, String) {
    let output = program("protoseg").arg("check").arg(bundle).arg("--record").output().unwrap();
    let gate = Manifest::read(bundle).unwrap().value.gate.swap_remove(1);
    assert_eq!(output.status.code(), Some(i32::from(gate.verdict == Verdict::Failed)));
    (gate, String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_two_percent_error_in_a_layer_of_an_fp16_file_is_found() {
    let root = tempfile::tempdir().unwrap();
    let graph = Arch::new(PRESET, 19).unwrap().graph();
    let weights = formula::weights(&graph, Some(1));
    let (checkpoint, bundle) =
        (probed(root.path(), LARGE, weights.clone(), None), root.path().join("bundle"));
    succeed(export(&checkpoint, &bundle).args(["--precision", "fp32,fp16"]));
    let (sound, report) = second_gate(&bundle);
    assert_eq!(sound.verdict, Verdict::Passed, "{report}");
    // Labels that rounding decides are not counted.
    assert!(
        sound.labels_equal < sound.label_agreement && sound.label_agreement > Some(0.9999),
        "{report}"
    );

    for layer in ["decoder.classifier", "decoder.refine1.pointwise.conv"] {
        let mut weights = weights.clone();
        let values = &mut weights.get_mut(&format!("{layer}.weight")).unwrap().data;
        for (index, value) in values.iter_mut().enumerate() {
            *value *= if index % 2 == 0 { 1.02 } else { 0.98 };
        }
        let logits = graph.tagged(Tag::Logits).unwrap();
        let network = Network::new(&graph, &weights, &[(logits, "logits")])
            .unwrap()
            .fold_batch_norm()
            .unwrap();
        let mut manifest = Manifest::read(&bundle).unwrap().value;
        let file = emit(&network, &manifest.files[1].variant, Some(&manifest.model))
            .unwrap()
            .file
            .to_bytes();
        std::fs::write(bundle.join("model.fp16.onnx"), &file).unwrap();
        manifest.files[1].sha256 = digest::sha256_bytes(&file);
        manifest.write(&bundle).unwrap();
        let (gate, report) = second_gate(&bundle);
        assert!(gate.verdict == Verdict::Failed && gate.notes.len() == 1, "{layer}: {report}");
        // By all logits together, not by a single one.
        assert!(gate.logit_error < gate.limits.logit_error, "{layer}: {report}");
    }
}

#[test]
fn wrong_ranges_are_found_even_if_one_class_fills_the_probe() {
    let root = tempfile::tempdir().unwrap();
    let graph = Arch::new(PRESET, 19).unwrap().graph();
    let mut weights = formula::weights(&graph, Some(1));
    weights.get_mut("decoder.classifier.bias").unwrap().data[7] += 100.0;
    let calibration = calibration::record(&graph, &weights);
    for (name, scale, verdict) in
        [("sound", 1.0, Verdict::NotJudged), ("narrow", 0.25, Verdict::Failed)]
    {
        let mut calibration = calibration.clone();
        for range in calibration.nodes.values_mut() {
            (range.min, range.max) = (scale * range.min, scale * range.max);
        }
        let place = root.path().join(name);
        let checkpoint = probed(&place, LARGE, weights.clone(), Some(calibration));
        let bundle = place.join("bundle");
        succeed(export(&checkpoint, &bundle).args(["--precision", "fp32,int8", "--no-check"]));
        let (gate, report) = second_gate(&bundle);
        assert_eq!((gate.verdict, gate.labels_equal), (verdict, Some(1.0)), "{report}");
        // The fp32 file is exported whatever becomes of the other.
        let apart = place.join("apart");
        let output =
            export(&checkpoint, &apart).args(["--precision", "fp32,int8"]).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        let failed = verdict == Verdict::Failed;
        assert_eq!(output.status.code(), Some(i32::from(failed)), "{message}");
        assert_eq!(message.contains("model.int8.onnx did not pass the check"), failed, "{message}");
        let manifest = Manifest::read(&apart).unwrap().value;
        assert_eq!(
            (manifest.files.len(), manifest.gate.len()),
            if failed { (1, 1) } else { (2, 2) }
        );
        assert!(
            apart.join("model.onnx").exists() && apart.join("model.int8.onnx").exists() != failed
        );
        succeed(program("protoseg").arg("check").arg(&apart));
    }
    // int8 alone cannot be judged, and the message says what is missing.
    let (checkpoint, bundle) = (root.path().join("sound/checkpoint"), root.path().join("alone"));
    let output = export(&checkpoint, &bundle).args(["--precision", "int8"]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && message.contains("--check-data") && message.contains("add fp32"),
        "{message}"
    );
}
