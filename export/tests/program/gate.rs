//! Bundles written, refused and kept. A script stands in for `protoseg check`; the tests of the root
//! package run the real one.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use protoseg_models::bundle::Manifest;
use protoseg_models::checkpoint::Checkpoint;

use super::{TestDir, files};

const FILES: [&str; 3] = ["manifest.json", "model.onnx", "probe.safetensors"];

/// A checkpoint, the program, and a script as its `protoseg`.
fn test_dir(script: &str) -> TestDir {
    let dir = TestDir::new();
    let text = dir.path("text");
    fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
    // By another process: had this one a program open for writing while another test forks,
    // executing it would fail with ETXTBSY.
    for (from, to) in [
        (env!("CARGO_BIN_EXE_protoseg-export").as_ref(), "protoseg-export"),
        (text.as_path(), "protoseg"),
    ] {
        let mut install = Command::new("install");
        install.args(["-m", "755"]).args([from, &dir.path(to)]);
        assert!(install.status().unwrap().success());
    }
    dir
}

fn command(dir: &TestDir, arguments: &str) -> Command {
    let mut command = Command::new(dir.path("protoseg-export"));
    command.current_dir(dir.path("")).args(["checkpoint", "--out"]).args(arguments.split(' '));
    command
}

/// Runs an export; returns its status, standard output and standard error.
fn run(dir: &TestDir, arguments: &str) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command(dir, arguments).output().unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    (status.code().unwrap(), stdout, stderr)
}

#[test]
fn a_bundle_that_passes_is_written_with_what_the_check_records() {
    let dir = test_dir(
        "echo \"$@\" >words\nfor hidden; do :; done\necho passed\nsed -i s/street/judged/ $hidden/manifest.json",
    );
    let options = "deep/out --check-data folder --check-root in --check-limit 2";
    let (status, stdout, stderr) = run(&dir, options);
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert!(
        stdout.starts_with("model.onnx  logits  fp32") && stdout.ends_with("\npassed\n"),
        "{stdout}"
    );
    assert!(stdout.contains("\nwhole images, as training scored; "), "{stdout}");
    let words = fs::read_to_string(dir.path("words")).unwrap();
    let expected = "check --record --data=folder --root=in --limit=2 --exported-as=deep/out /";
    assert!(words.starts_with(expected) && words.ends_with("/deep/.out.partial\n"), "{words}");
    assert_eq!(files(&dir.path("deep/out")), FILES);
    assert_eq!(files(&dir.path("deep")), ["out"]);
    assert!(fs::read_to_string(dir.path("deep/out/manifest.json")).unwrap().contains("judged"));

    // The tuning of an older bundle goes with it, and so do the leftovers of a killed run.
    fs::write(dir.path("deep/out/tuning.json"), "{}").unwrap();
    fs::create_dir(dir.path("deep/.out.partial")).unwrap();
    fs::write(dir.path("deep/.out.partial/frame-9x9.onnx"), "half").unwrap();
    let (status, _, stderr) = run(&dir, options);
    assert!(status == 0 && stderr.contains("run `protoseg tune` again"), "{stderr}");
    assert_eq!(
        (files(&dir.path("deep/out")), files(&dir.path("deep"))),
        (FILES.map(str::to_owned).to_vec(), vec!["out".to_owned()])
    );
}

#[test]
fn a_bundle_that_fails_never_appears_and_an_older_one_stays() {
    let dir = test_dir("echo FAILED model.onnx\nexit 1");
    let (status, stdout, stderr) = run(&dir, "deep/out");
    assert!(status == 1 && stdout.ends_with("\nFAILED model.onnx\n"), "{stdout}");
    let expected = "nothing was written to deep/out; --no-check writes it for inspection\n";
    assert!(stderr.ends_with(expected) && stderr.lines().count() == 1, "{stderr}");
    assert!(!dir.path("deep").exists(), "its parent folder must be removed too");

    assert_eq!(run(&dir, "deep/out --no-check").0, 0);
    let before = fs::read(dir.path("deep/out/manifest.json")).unwrap();
    assert_eq!(run(&dir, "deep/out --name other").0, 1);
    assert_eq!(fs::read(dir.path("deep/out/manifest.json")).unwrap(), before);

    // The message of a check that could not begin is its own.
    let dir = test_dir("echo error: no data >&2\nexit 2");
    let (status, _, stderr) = run(&dir, "out");
    assert_eq!((status, stderr.as_str(), dir.path("out").exists()), (2, "error: no data\n", false));
}

/// A script that records a verdict for each file and fails, as the real check does.
fn recording(verdicts: &[(&str, &str)]) -> String {
    let record = |(file, verdict): &(&str, &str)| {
        format!(
            r#"{{"file": "{file}", "verdict": "{verdict}", "limits": {{"logit_error": null, "noise_to_signal": null, "label_agreement": null, "mean_iou_drop": null}}, "logit_error": null, "noise_to_signal": null, "label_agreement": null, "labels_equal": null, "score": null, "notes": []}}"#
        )
    };
    let gate = verdicts.iter().map(record).collect::<Vec<_>>().join(", ");
    format!(
        "for hidden; do :; done\nsed -i 's/\"gate\": \\[\\]/\"gate\": [{gate}]/' $hidden/manifest.json\n\
         grep -q verdict $hidden/manifest.json && echo FAILED\nexit 1"
    )
}

#[test]
fn a_precision_that_fails_costs_no_other() {
    let options = "out --precision fp32,fp16 --frame 64x64 --triton";
    let dir = test_dir(&recording(&[("model.onnx", "passed"), ("model.fp16.onnx", "failed")]));
    let (status, stdout, stderr) = run(&dir, options);
    assert!(status == 1 && stdout.ends_with("\nFAILED\n"), "{stdout}{stderr}");
    for part in [
        "model.fp16.onnx, frame-64x64.fp16.onnx did not pass",
        "out has model.onnx, frame-64x64.onnx",
        "--no-check",
    ] {
        assert!(stderr.contains(part) && stderr.lines().count() == 1, "{part}: {stderr}");
    }
    let kept = ["frame-64x64.onnx", "manifest.json", "model.onnx", "probe.safetensors", "triton"];
    assert_eq!(files(&dir.path("out")), kept);
    let manifest = Manifest::read(&dir.path("out")).unwrap().value;
    let names: Vec<&str> = manifest.files.iter().map(|file| file.file.as_str()).collect();
    assert_eq!(names, ["model.onnx", "frame-64x64.onnx"]);
    assert_eq!(manifest.gate.len(), 1);
    assert!(dir.path("out/triton/street/1/model.onnx").exists());

    // Without the fp32 file the others have no measure, and without a file of logits no use.
    for verdicts in [
        &[("model.onnx", "failed"), ("model.fp16.onnx", "passed")][..],
        &[("model.onnx", "failed"), ("model.fp16.onnx", "failed")],
    ] {
        let dir = test_dir(&recording(verdicts));
        let (status, _, stderr) = run(&dir, options);
        assert!(status == 1 && stderr.contains("nothing was written to out"), "{stderr}");
        assert!(!dir.path("out").exists());
    }
    // A frame file alone.
    let dir = test_dir(&recording(&[("model.onnx", "passed"), ("frame-64x64.onnx", "failed")]));
    assert_eq!(run(&dir, "out --frame 64x64 --triton").0, 1);
    assert_eq!(
        files(&dir.path("out")),
        ["manifest.json", "model.onnx", "probe.safetensors", "triton"]
    );
    let config = fs::read_to_string(dir.path("out/triton/street/config.pbtxt")).unwrap();
    assert!(config.contains("logits"), "{config}");
}

#[test]
fn a_signal_leaves_nothing() {
    for (name, status) in [("TERM", 143), ("INT", 130)] {
        let dir = test_dir("touch started\nexec sleep 600");
        let mut running = command(&dir, "new/deep/out").spawn().unwrap();
        while !dir.path("started").exists() {
            thread::sleep(Duration::from_millis(5));
        }
        // To this process only, as a supervisor does.
        let mut kill = Command::new("kill");
        kill.args([&format!("-{name}"), &running.id().to_string()]);
        assert!(kill.status().unwrap().success());
        assert_eq!(running.wait().unwrap().code(), Some(status));
        assert!(!dir.path("new").exists());
    }
}

#[test]
fn what_cannot_be_checked_or_replaced_is_refused_at_once() {
    let dir = test_dir("touch started");
    fs::create_dir_all(dir.path("deep/out")).unwrap();
    fs::write(dir.path("deep/out/notes.txt"), "mine").unwrap();
    fs::create_dir(dir.path("trained")).unwrap();
    for name in ["arch.json", "metrics.json"] {
        fs::write(dir.path("trained").join(name), "{}").unwrap();
    }
    for (arguments, status, part) in [
        ("deep/out", 1, "deep/out holds `notes.txt` but no manifest.json"),
        ("trained", 1, "trained is a checkpoint"),
        ("new --check-root in", 2, "--check-data <NAME>"),
        ("new --check-data it", 2, "[possible values: camvid"),
        ("new --check-data folder --no-check", 2, "cannot be used with"),
        ("new --check-data folder --check-limit 0", 2, "1..=1000000"),
    ] {
        let given = run(&dir, arguments);
        assert!(given.0 == status && given.2.contains(part), "{arguments}: {given:?}");
    }
    assert_eq!(files(&dir.path("deep/out")), ["notes.txt"]);

    fs::remove_file(dir.path("protoseg")).unwrap();
    let output = command(&dir, "new").env("PATH", Path::new("/nowhere")).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(2)
            && stderr.contains("--no-check exports without a check: protoseg is neither beside"),
        "{stderr}"
    );

    let dir = test_dir("touch started");
    let mut checkpoint = Checkpoint::read(&dir.checkpoint()).unwrap();
    checkpoint.probe.clear();
    checkpoint.write(&dir.checkpoint()).unwrap();
    let (status, _, stderr) = run(&dir, "new");
    assert!(
        status == 1 && stderr.starts_with("error: new: the checkpoint has no probe"),
        "{stderr}"
    );
    assert!(!dir.path("started").exists() && !dir.path("new").exists());
}
