//! `protoseg accept` with the three programs, briefly on a CPU.

mod support;

use std::collections::BTreeMap;

use serde_json::Value;
use support::{program, succeed};

#[test]
fn a_cpu_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("accept.json");
    let printed = succeed(program("protoseg").args(["accept", "--brief", "--report"]).arg(&report));
    let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!(
        (&report["passed"], &report["device"]),
        (&Value::from(true), &Value::from("cpu")),
        "{printed}"
    );

    let network = "deeplabv3plus-efficientnet-lite0";
    let findings = report["findings"].as_array().unwrap();
    let status: BTreeMap<&str, &str> = findings
        .iter()
        .map(|finding| (finding["what"].as_str().unwrap(), finding["status"].as_str().unwrap()))
        .collect();
    assert!(findings.iter().all(|finding| printed.contains(finding["what"].as_str().unwrap())));
    for file in ["model.onnx", "model.fp16.onnx"] {
        assert_eq!(status[format!("{network}/{file} labels as libtorch").as_str()], "passed");
        assert_eq!(status[format!("{network}/{file} runs where it should").as_str()], "passed");
    }
    let frames = status
        .iter()
        .filter(|(what, _)| what.contains("frame-192x256") && what.contains("stitched"));
    assert_eq!(frames.map(|(_, status)| *status).collect::<Vec<_>>(), ["passed"; 2]);
    for what in
        ["bound buffers", "a CUDA graph", "too little memory", "TensorRT labels as libtorch"]
    {
        assert_eq!(status[format!("{network}/{what}").as_str()], "skipped", "{what}");
    }
    assert_eq!(status["training"], "passed");
    // Other load may lower the measured ceiling, and then no share is reported.
    let roofline = format!("{network}/roofline in fp32");
    let share = findings.iter().find(|finding| finding["what"] == roofline.as_str()).unwrap();
    let detail = share["detail"].as_str().unwrap();
    assert!(
        status[roofline.as_str()] == "passed" || detail.contains("as other load held"),
        "{detail}"
    );

    let run = &report["runs"][0];
    let kinds: Vec<&str> = run["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| point["scenario"]["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["single-stream", "multi-stream", "clients", "offline", "server"]);
    assert_eq!(run["subject"]["accuracy"]["probe_agreement"], 1.0);
    assert!(run["subject"]["nodes"]["CPUExecutionProvider"].as_u64().unwrap() > 10);
    assert!(report["ceilings"][0]["operations_a_second"].as_f64().unwrap() > 1e6);
    assert_eq!(report["training"]["passed"], true);
}

#[test]
fn a_missing_device_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let output = program("protoseg")
        .args(["accept", "--device", "cuda:63", "--work"])
        .arg(folder.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.starts_with("error: ") && stderr.contains("cuda:63") && stderr.lines().count() == 1,
        "{stderr}"
    );
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
}
