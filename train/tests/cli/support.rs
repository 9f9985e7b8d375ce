//! Small runs of the program on synthetic scenes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Settings with steps of a fraction of a second.
const SMALL: [&str; 12] = [
    "synthetic_labeled=5",
    "synthetic_unlabeled=7",
    "synthetic_validation=2",
    "synthetic_size=[64, 96]",
    "crop=64",
    "batch=2",
    "point_cells=8",
    "precise_bn_batches=2",
    "window={size=64, stride=48}",
    "log_every=1",
    "save_every=1000",
    "calibration_images=0",
];

/// Root of the repository; paths in configurations are relative to it.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A temporary folder, and a function for paths in it.
pub(crate) fn folder() -> (TempDir, impl Fn(&str) -> PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, move |name| path.join(name))
}

/// The program with the arguments of a small run.
pub(crate) fn command(out: &Path, settings: &[&str], more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_protoseg-train"));
    command.args(arguments(out, settings, more)).current_dir(root()).env_remove("LD_LIBRARY_PATH");
    command
}

pub(crate) fn arguments(out: &Path, settings: &[&str], more: &[&str]) -> Vec<String> {
    let config = root().join("train/configs/synthetic.toml");
    let fixed = [&config.to_string_lossy(), "--out", &out.to_string_lossy(), "--threads", "1"]
        .map(str::to_owned);
    let set = SMALL
        .iter()
        .chain(settings)
        .flat_map(|setting| ["--set", setting])
        .chain(more.iter().copied());
    fixed.into_iter().chain(set.map(str::to_owned)).collect()
}

/// Runs the program and asserts success.
pub(crate) fn train(out: &Path, settings: &[&str], more: &[&str]) -> Output {
    let output = command(out, settings, more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Standard error of a program.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
