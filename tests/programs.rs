//! Train, export and check in sequence: a bundle of each network agrees with libtorch.

mod support;

use std::path::{Path, PathBuf};

use protoseg_models::arch::{Preset, vit};
use support::{program, succeed};

/// Exports a random checkpoint of a preset.
fn bundle(preset: Preset, folder: &Path) -> PathBuf {
    let checkpoint = folder.join("checkpoint");
    let bundle = folder.join("bundle");
    succeed(
        program("protoseg")
            .args(["train", "init", preset.name(), "--seed", "7", "--out"])
            .arg(&checkpoint),
    );
    succeed(program("protoseg").arg("export").arg(&checkpoint).arg("--out").arg(&bundle));
    bundle
}

#[test]
fn every_network_agrees_with_libtorch_at_two_sizes() {
    for preset in Preset::ALL {
        // The other transformers differ in width and depth alone.
        if preset.vit().is_some_and(|scaling| scaling != vit::SMALL) {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let bundle = bundle(preset, folder.path());
        let report = succeed(program("protoseg").arg("check").arg(&bundle));
        eprintln!("{preset}\n{report}");
        assert!(report.contains("128x192") && report.contains("163x227"), "{preset}: {report}");
    }
}

#[test]
fn exports_are_reproducible() {
    let folder = tempfile::tempdir().unwrap();
    let preset = Preset::DeepLabV3PlusEfficientNetLite1;
    let first = bundle(preset, folder.path());
    let again = folder.path().join("again");
    succeed(
        program("protoseg")
            .arg("export")
            .arg(folder.path().join("checkpoint"))
            .arg("--out")
            .arg(&again),
    );
    let read = |folder: &Path| std::fs::read(folder.join("model.onnx")).unwrap();
    assert!(read(&first) == read(&again), "two exports differ");
}
