//! OpenVINO gives the labels of the CPU provider. It runs on any x86 processor with the PyPI
//! package onnxruntime-openvino, whose libonnxruntime.so PROTOSEG_OPENVINO names.

mod support;

use std::path::PathBuf;

use protoseg_models::arch::Preset;
use support::{program, skip, succeed, write_checkpoint};

/// Smallest share of equal labels in 32-bit floats: sums are in another order.
const AGREEMENT: f64 = 0.9999;

#[test]
fn openvino_agrees_with_the_cpu() {
    let Some(library) = std::env::var_os("PROTOSEG_OPENVINO").map(PathBuf::from) else {
        return skip(
            "OpenVINO against the CPU",
            "set PROTOSEG_OPENVINO to the libonnxruntime.so of onnxruntime-openvino",
        );
    };
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("checkpoint");
    let bundle = folder.path().join("bundle");
    for (preset, window) in [
        (Preset::DeepLabV3PlusEfficientNetLite0, "256:128"),
        (Preset::DeepLabV3PlusResNet50, "257:128"),
    ] {
        write_checkpoint(&checkpoint, preset);
        succeed(program("protoseg-export").arg(&checkpoint).arg("--out").arg(&bundle).args([
            "--no-check",
            "--window",
            window,
        ]));
        let mut doctor = program("protoseg");
        doctor
            .arg("doctor")
            .arg(&bundle)
            .args(["--device", "openvino", "--json"])
            .env("ORT_DYLIB_PATH", &library);
        let report: serde_json::Value =
            serde_json::from_slice(&doctor.output().unwrap().stdout).unwrap();
        let tried = &report["devices"][1];
        assert!(tried["device"] == "openvino" && tried["works"] == true, "{report}");
        let agreement = tried["bundle"]["agreement"].as_f64().unwrap();
        eprintln!("{preset}: {agreement:.6} of labels");
        assert!(agreement >= AGREEMENT, "{preset}: {agreement}");
    }
}
