//! Writes what the tests in `tests/external` read: `external_fixtures FOLDER annotations`, or
//! `external_fixtures FOLDER bundle PRESET` for a bundle with every kind of file of a preset whose
//! weights are a formula.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "../support/annotations.rs"]
mod annotations;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;

use protoseg_models::arch::Preset;
use support::{program, succeed, write_checkpoint};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [folder, "annotations"] => annotations::write(Path::new(folder)).unwrap(),
        [folder, "bundle", preset] => bundle(Path::new(folder), preset.parse().unwrap()),
        _ => panic!("usage: external_fixtures FOLDER annotations | bundle PRESET"),
    }
}

fn bundle(folder: &Path, preset: Preset) {
    let checkpoint = folder.join("checkpoint");
    write_checkpoint(&checkpoint, preset);
    let window = if preset.align_corners() { "97:64" } else { "96:64" };
    // Small networks in more files: each more is as large again.
    let more: &[&str] = match preset {
        Preset::DeepLabV3PlusEfficientNetLite0 => &["--taps"],
        Preset::DeepLabV3PlusEfficientNetLite1 => &["--external-from", "1000000"],
        _ => &[],
    };
    let mut export = program("protoseg-export");
    export.arg(&checkpoint).arg("--out").arg(folder.join(preset.to_string()));
    export.args(["--window", window, "--precision", "fp32,fp16,int8,int8-trt", "--triton"]);
    export.args(["--frame", "150x200:4,97x97", "--decide", "labels,confidence,margin"]);
    succeed(export.arg("--no-check").args(more));
    std::fs::remove_dir_all(checkpoint).unwrap();
}
