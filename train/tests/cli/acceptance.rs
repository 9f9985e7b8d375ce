//! `protoseg-train accept` on the CPU and without a device.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::said;

fn accept(report: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_protoseg-train"));
    command.args(["accept", "--threads", "2", "--report"]).arg(report).args(arguments);
    command.env_remove("LD_LIBRARY_PATH").output().unwrap()
}

#[test]
fn both_networks_pass_in_both_precisions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train-accept.json");
    let output = accept(&path, &["--brief"]);
    let table = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}\n{table}", said(&output));
    let report: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(
        (&report["passed"], &report["brief"], &report["device"]),
        (&true.into(), &true.into(), &"Cpu".into())
    );
    let trials = report["trials"].as_array().unwrap();
    let tried: Vec<(&str, &str)> = trials
        .iter()
        .map(|trial| (trial["network"].as_str().unwrap(), trial["precision"].as_str().unwrap()))
        .collect();
    let networks = ["deeplabv3plus-efficientnet-lite0", "deeplabv3plus-resnet101"];
    assert_eq!(
        tried,
        networks.map(|network| [(network, "float32"), (network, "bfloat16")]).concat()
    );
    for trial in trials {
        let checks = trial["checks"].as_array().unwrap();
        assert_eq!(checks.len(), 7, "{trial}");
        let other_than =
            |outcome: &str| checks.iter().filter(|check| check["outcome"] != outcome).count();
        assert!(other_than("passed") <= 1 && other_than("failed") == checks.len(), "{trial}");
        let losses = trial["losses"].as_array().unwrap();
        // Losses of the two steps differ, so training changes the weights.
        assert!(losses.len() == 2 && losses[0]["device"] != losses[1]["device"], "{trial}");
        let roofline = &trial["speed"]["roofline"];
        assert!(
            roofline["share"].as_f64().unwrap() > 0.0
                && trial["peak_memory"]["bytes"].as_u64().unwrap() > 0
        );
        assert_eq!(trial["speed"]["seconds"].as_array().unwrap().len(), 3);
    }
    // bfloat16 gives another loss than float32.
    assert_ne!(trials[0]["losses"][0]["device"], trials[1]["losses"][0]["device"]);
    assert!(table.contains("steps/s") && table.contains("of the roofline"), "{table}");
}

#[test]
fn a_missing_device_is_named_before_anything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    // No machine has that many.
    let output = accept(&path, &["--device", "cuda:127"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(
        said(&output).starts_with("error: ") && said(&output).lines().count() == 1,
        "{}",
        said(&output)
    );
    assert!(!path.exists());
    assert_eq!(accept(&path, &["--device", "gpu"]).status.code(), Some(2));
}
