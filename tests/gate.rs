//! The gate at the end of `protoseg export`, with the real `protoseg-export`: a checkpoint whose probe agrees with ONNX
//! Runtime becomes a bundle, one that does not leaves nothing, and no kill leaves half of one.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use protoseg_infer::session::{Runner, RunnerOptions};
use protoseg_infer::stitch::LogitMap;
use protoseg_infer::upsample::{self, Frame};
use protoseg_models::arch::{Arch, Preset};
use protoseg_models::bundle::Manifest;
use protoseg_models::checkpoint::{Checkpoint, Header};
use protoseg_models::classes::ClassTable;
use protoseg_models::gate::Verdict;
use protoseg_models::probe::ProbeCase;
use protoseg_models::weights::Tensor;
use protoseg_models::{formula, scenes};
use support::{program, succeed};

const SIZE: [usize; 2] = [64, 96];

/// A checkpoint folder with weights by formula, whose probe holds what ONNX Runtime makes of one scene.
fn checkpoint(root: &Path) -> PathBuf {
    let arch = Arch::new(Preset::DeepLabV3PlusEfficientNetLite0, 19).unwrap();
    let [height, width] = SIZE;
    let image = scenes::render(1, 0, height, width).image;
    let case = ProbeCase {
        name: "64x96".to_owned(),
        height,
        width,
        image: image.clone(),
        logits: Tensor { shape: vec![1, 19, 1, 1], data: vec![0.0; 19] },
        labels: vec![0; height * width],
        prototype_confidence: None,
    };
    let mut checkpoint = Checkpoint {
        header: Header::new("street", arch, ClassTable::cityscapes(), None),
        weights: formula::weights(&arch.graph(), None),
        probe: vec![case],
        calibration: None,
        prototypes: None,
        metrics: None,
        config: String::new(),
    };
    let (folder, bundle) = (root.join("checkpoint"), root.join("unchecked"));
    checkpoint.write(&folder).unwrap();
    succeed(export(&folder, &bundle).arg("--no-check"));
    let mut runner = Runner::open(&bundle.join("model.onnx"), &RunnerOptions::default()).unwrap();
    let logits = runner.run(&image, [1, height, width]).unwrap();
    let map = LogitMap { classes: 19, height: logits.shape[2], width: logits.shape[3], data: logits.data.clone() };
    let frame = Frame { height, width, padded: SIZE, align_corners: false };
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

/// Names in a folder, hidden ones too.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn only_what_agrees_becomes_a_bundle() {
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
    assert!(command.contains(bundle.to_str().unwrap()) && !command.contains("partial"), "{command}");

    let mut wrong = Checkpoint::read(&checkpoint).unwrap();
    wrong.probe[0].logits.data[100] += 100.0;
    let (elsewhere, new) = (root.path().join("wrong"), root.path().join("new"));
    wrong.write(&elsewhere).unwrap();
    for out in [&bundle, &new] {
        let output = export(&elsewhere, out).output().unwrap();
        let (report, message) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
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
fn whenever_it_is_killed_the_old_bundle_or_the_new_one_is_there_whole() {
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
