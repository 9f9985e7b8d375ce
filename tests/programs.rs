//! The programs one after the other: a checkpoint of each network becomes a bundle that agrees with libtorch.

mod support;

use std::path::Path;

use protoseg_models::arch::Preset;
use support::{program, succeed};

/// A random checkpoint of a preset as a bundle.
fn bundle(preset: Preset, folder: &Path) -> std::path::PathBuf {
    let (checkpoint, bundle) = (folder.join("checkpoint"), folder.join("bundle"));
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
        let folder = tempfile::tempdir().unwrap();
        let bundle = bundle(preset, folder.path());
        let report = succeed(program("protoseg").arg("check").arg(&bundle));
        eprintln!("{preset}\n{report}");
        assert!(report.contains("128x192") && report.contains("163x227"), "{preset}: {report}");
    }
}

#[test]
fn the_same_checkpoint_gives_the_same_file() {
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
