//! Other readers accept every file of every preset: onnx's checker, ONNX Runtime and OpenVINO (with
//! equal labels), and Triton's schema. `PROTOSEG_PYTHON` names a Python with their packages.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

mod support;

use std::path::Path;
use std::process::Command;

use protoseg_models::arch::Preset;
use support::{program, repository, succeed, write_checkpoint};

/// Exports a bundle of a preset with formula weights.
fn bundle(folder: &Path, preset: Preset, options: &[&str]) -> std::path::PathBuf {
    let from = folder.join(format!("{preset}.checkpoint"));
    let to = folder.join(preset.to_string());
    write_checkpoint(&from, preset);
    let window = if preset.align_corners() { "97:64" } else { "96:64" };
    let mut export = program("protoseg-export");
    export.arg(&from).arg("--out").arg(&to).args(["--window", window]).args(options);
    succeed(&mut export);
    std::fs::remove_dir_all(&from).unwrap();
    to
}

fn verify_with_pytest(bundle: &Path) {
    let python = std::env::var_os("PROTOSEG_PYTHON").unwrap();
    let mut command = Command::new(python);
    command.env_remove("LD_LIBRARY_PATH").env("PYTHONDONTWRITEBYTECODE", "1");
    let output =
        succeed(command.arg(repository().join("tests/external/test_onnx_files.py")).arg(bundle));
    eprint!("{output}");
}

#[test]
fn other_readers_accept_every_file_of_every_preset() {
    if std::env::var_os("PROTOSEG_PYTHON").is_none() {
        eprintln!("skipped: set PROTOSEG_PYTHON to a Python with onnx, openvino and tritonclient");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let all = ["--precision", "fp32,fp16,int8,int8-trt", "--frame", "150x200:4,97x97", "--triton"];
    let with_decisions = [all.as_slice(), &["--decide", "labels,confidence,margin"]].concat();
    for preset in Preset::ALL {
        // More variants for small networks, as each is as large again.
        let more: &[&str] = match preset {
            Preset::DeepLabV3PlusEfficientNetLite0 => &["--taps"],
            Preset::DeepLabV3PlusEfficientNetLite1 => &["--external-from", "1000000"],
            _ => &[],
        };
        let bundle = bundle(folder.path(), preset, &[with_decisions.as_slice(), more].concat());
        verify_with_pytest(&bundle);
        std::fs::remove_dir_all(bundle).unwrap();
    }
}
