//! Devices that the CPU-only ONNX Runtime of the tests lacks, and the report of `protoseg doctor`.

use crate::common::{TestDir, answer, expect};

#[test]
fn a_device_is_never_replaced_by_another() {
    for (device, package) in [
        ("cuda:0", "onnxruntime-gpu"),
        ("tensorrt:1", "onnxruntime-gpu"),
        ("openvino", "onnxruntime-openvino"),
        ("cuda:0,1", "cuda"),
    ] {
        let dir = TestDir::new();
        let given =
            answer(&mut dir.command(&format!("label bundle in --out out --device {device}")));
        expect(
            device,
            &given,
            2,
            &[device.split(',').next().unwrap(), "built without it", package, "ORT_DYLIB_PATH"],
        );
        assert!(!dir.at("out").exists());
    }
    let dir = TestDir::new();
    for (option, arguments) in [
        ("--tf32", "--tf32"),
        ("--tf32", "--tf32 --device tensorrt:0"),
        ("--cuda-graph", "--cuda-graph"),
        ("--cpu-fallback", "--cpu-fallback"),
        ("--mode", "--mode latency --device cuda:0"),
        ("--memory", "--memory 1G --device cuda:0,1"),
        ("--spin", "--spin --device openvino"),
        ("--trt-fp16", "--trt-fp16 --device cuda:0"),
        ("--trt-int8", "--trt-int8"),
        ("--trt-cache", "--trt-cache engines --device cuda:0,1"),
        ("--trt-workspace", "--trt-workspace 1G --device openvino"),
        ("--gpu-sessions", "--gpu-sessions 2"),
        ("--gpu-sessions", "--gpu-sessions 1 --device openvino"),
    ] {
        let given = answer(&mut dir.command(&format!("label bundle in --out out {arguments}")));
        expect(arguments, &given, 2, &[&format!("{option} ")]);
    }
    let floats =
        answer(&mut dir.command("label bundle in --out out --trt-int8 --device tensorrt:0"));
    expect("8 bits of floats", &floats, 2, &["model.onnx computes in floats", "--trt-int8"]);
    for arguments in [
        "--device gpu",
        "--device cuda",
        "--device cuda:0,0",
        "--memory 0",
        "--memory x",
        "--mode fast",
    ] {
        let given = answer(&mut dir.command(&format!("label bundle in --out out {arguments}")));
        assert_eq!((given.status, given.stdout.as_str()), (2, ""), "{arguments}: {given:?}");
    }
}

#[test]
fn the_doctor_reports_devices_and_why_others_fail() {
    let dir = TestDir::new();
    let given = answer(&mut dir.command("doctor"));
    assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{given:?}");
    let line =
        |name: &str| given.stdout.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(
        line("cpu").ends_with("works") && line("ONNX Runtime").contains("libonnxruntime"),
        "{given:?}"
    );
    assert!(
        line("cuda:0").contains("built without it") && line("openvino").contains("pip install"),
        "{given:?}"
    );

    let given = answer(&mut dir.command("doctor bundle --json --device cpu"));
    assert_eq!(given.status, 0, "{given:?}");
    let report: serde_json::Value = serde_json::from_str(&given.stdout).unwrap();
    let devices = report["devices"].as_array().unwrap();
    assert_eq!(
        (devices.len(), &devices[0]["device"], &devices[0]["built_in"]),
        (1, &"cpu".into(), &true.into())
    );
    assert!(
        devices[0]["bundle"]["agreement"] == 1.0 && devices[0]["bundle"]["width"] == 1024,
        "{report}"
    );
    assert!(
        report["processor"]["cores"].as_u64() > Some(0) && report["version"].is_string(),
        "{report}"
    );
}

#[test]
fn the_doctor_fails_where_the_cpu_does() {
    let dir = TestDir::new();
    let given = answer(dir.command("doctor").env("ORT_DYLIB_PATH", dir.at("gone.so")));
    assert_eq!((given.status, given.stderr.as_str()), (1, ""), "{given:?}");
    assert!(
        given.stdout.contains("ONNX Runtime none") && given.stdout.contains("gone.so"),
        "{given:?}"
    );
    dir.cut("bundle/model.onnx");
    let given = answer(&mut dir.command("doctor bundle"));
    assert_eq!(given.status, 1, "{given:?}");
    assert!(given.stdout.contains("bundle/model.onnx"), "{given:?}");
}
