//! `protoseg export`: bundles written, refused and kept. A script that copies a bundle stands in
//! for `protoseg-export`; the tests of the root package run the real one.

#![cfg(unix)]

use std::process::Command;

use crate::common::{ProgramOutput, TestDir, answer, files, install, install_script, signal};
use protoseg_models::bundle::Manifest;
use protoseg_models::gate::Verdict;

const ARGUMENTS: &str = "export checkpoint --out deep/out";

/// Test folder with `protoseg` and a `protoseg-export` that copies `bundle`.
fn test_dir(script: &str) -> TestDir {
    let dir = TestDir::new();
    install(env!("CARGO_BIN_EXE_protoseg").as_ref(), &dir.at("protoseg"));
    let copy =
        "while [ \"$1\" != --out ]; do shift; done\ncp bundle/* \"$2\" || exit 1\necho copied";
    install_script(&script.replace("COPY", copy), &dir.at("protoseg-export"));
    dir
}

fn run(dir: &TestDir, arguments: &str) -> ProgramOutput {
    answer(Command::new(dir.at("protoseg")).current_dir(dir.at("")).args(arguments.split(' ')))
}

/// Changes the model so that it differs from the probe.
fn spoil(dir: &TestDir) {
    dir.patch("bundle/model.onnx", &0.02_f32.to_le_bytes(), &0.5_f32.to_le_bytes());
    dir.sign();
}

#[test]
fn a_bundle_that_passes_is_written_with_its_gate() {
    let dir = test_dir("COPY");
    dir.edit("bundle/manifest.json", "made by hand:", "protoseg export checkpoint --out");
    for arguments in
        [ARGUMENTS, "export --out=deep/out checkpoint --check-data folder --check-root in"]
    {
        let given = run(&dir, arguments);
        assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{given:?}");
        assert!(given.stdout.starts_with("copied\npassed  model.onnx 33x47: "), "{given:?}");
        assert_eq!(
            files(&dir.at("deep")),
            ["out/manifest.json", "out/model.onnx", "out/probe.safetensors"]
        );
        let gate = &Manifest::read(&dir.at("deep/out")).unwrap().value.gate[0];
        assert_eq!((gate.verdict, gate.score.is_some()), (Verdict::Passed, arguments != ARGUMENTS));
    }
}

#[test]
fn the_tuning_of_an_older_bundle_is_removed() {
    let dir = test_dir("COPY");
    assert_eq!(run(&dir, ARGUMENTS).status, 0);
    std::fs::write(dir.at("deep/out/tuning.json"), "{}").unwrap();
    let given = run(&dir, ARGUMENTS);
    assert_eq!(given.status, 0, "{given:?}");
    assert!(given.stderr.contains("run `protoseg tune` again"), "{given:?}");
    assert_eq!(
        files(&dir.at("deep")),
        ["out/manifest.json", "out/model.onnx", "out/probe.safetensors"]
    );
}

#[test]
fn a_bundle_that_fails_never_appears_and_an_older_one_stays() {
    let dir = test_dir("COPY");
    spoil(&dir);
    let given = run(&dir, ARGUMENTS);
    assert_eq!(given.status, 1, "{given:?}");
    assert!(given.stdout.contains("FAILED  model.onnx 33x47"), "{given:?}");
    assert!(
        given.stderr.contains("nothing was written to deep/out")
            && given.stderr.contains("--no-check"),
        "{given:?}"
    );
    assert!(!dir.at("deep").exists(), "its parent folder must be removed too");

    let given = run(&dir, "export checkpoint --out deep/out --no-check");
    assert_eq!(given.status, 1, "the stand-in finds no folder: {given:?}");
    std::fs::create_dir_all(dir.at("deep/out")).unwrap();
    assert_eq!(run(&dir, "export checkpoint --out deep/out --no-check").status, 0);
    let before = std::fs::read(dir.at("deep/out/manifest.json")).unwrap();
    assert_eq!(run(&dir, ARGUMENTS).status, 1);
    assert_eq!(std::fs::read(dir.at("deep/out/manifest.json")).unwrap(), before);
    assert_eq!(files(&dir.at("deep")).len(), 3);
}

#[test]
fn a_signal_leaves_nothing() {
    for (name, status) in [("TERM", 143), ("INT", 130)] {
        let dir = test_dir(
            "while [ \"$1\" != --out ]; do shift; done\nmkdir \"$(dirname \"$2\")/.$(basename \"$2\").partial\"\ntouch \
             started\nexec sleep 600",
        );
        let mut command = Command::new(dir.at("protoseg"));
        let running =
            command.current_dir(dir.at("")).args("export checkpoint --out new/deep/out".split(' '));
        let mut running = running.spawn().unwrap();
        while !dir.at("started").exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        // To this process only, as a supervisor does.
        signal(running.id(), name);
        assert_eq!(running.wait().unwrap().code(), Some(status));
        assert!(!dir.at("new").exists(), "{:?}", files(&dir.at("new")));
    }
}

#[test]
fn leftovers_of_a_killed_run_are_removed() {
    let dir = test_dir("COPY");
    std::fs::create_dir_all(dir.at("deep/.out.partial")).unwrap();
    for name in ["manifest.json", "frame-9x9.onnx"] {
        std::fs::write(dir.at("deep/.out.partial").join(name), "half").unwrap();
    }
    std::fs::write(dir.at("deep/.out.lock"), "").unwrap();
    let given = run(&dir, ARGUMENTS);
    assert_eq!(given.status, 0, "{given:?}");
    assert_eq!(
        files(&dir.at("deep")),
        ["out/manifest.json", "out/model.onnx", "out/probe.safetensors"]
    );
}

#[test]
fn other_folders_are_left_alone() {
    let dir = test_dir("COPY");
    std::fs::create_dir_all(dir.at("deep/out")).unwrap();
    std::fs::write(dir.at("deep/out/notes.txt"), "mine").unwrap();
    let given = run(&dir, ARGUMENTS);
    assert_eq!(given.status, 1, "{given:?}");
    assert!(given.stderr.contains("deep/out") && given.stderr.contains("`notes.txt`"), "{given:?}");
    assert_eq!(files(&dir.at("deep")), ["out/notes.txt"]);
    std::fs::create_dir(dir.at("trained")).unwrap();
    for name in ["arch.json", "metrics.json"] {
        std::fs::write(dir.at("trained").join(name), "{}").unwrap();
    }
    let given = run(&dir, "export checkpoint --out trained");
    assert!(given.status == 1 && given.stderr.contains("trained is a checkpoint"), "{given:?}");
}

#[test]
fn errors_name_the_requested_folder() {
    let failing = test_dir(
        "while [ \"$1\" != --out ]; do shift; done\necho \"error: $2 is full\" >&2\nexit 7",
    );
    let given = run(&failing, ARGUMENTS);
    assert_eq!(
        (given.status, given.stderr.as_str()),
        (7, "error: deep/out is full\n"),
        "{given:?}"
    );
    assert!(files(&failing.at("deep")).is_empty());

    let dir = test_dir("COPY");
    std::fs::write(dir.at("bundle/model.onnx"), "x").unwrap();
    let given = run(&dir, ARGUMENTS);
    assert!(
        given.stdout.contains("FAILED  deep/out/model.onnx: does not match the manifest"),
        "{given:?}"
    );
    dir.edit(
        "bundle/manifest.json",
        "\"probe_sha256\": \"8d4cab71be247ce8e20ab4d39c85da375a55f534c22f74b0769aa7838c93a89e\"",
        "\"probe_sha256\": null",
    );
    let given = run(&dir, ARGUMENTS);
    assert!(
        given.status == 1
            && given.stderr.contains("no probe")
            && given.stderr.contains("--no-check"),
        "{given:?}"
    );
    for arguments in ["--check-root in", "--check-it x"] {
        assert_eq!(run(&dir, &format!("{ARGUMENTS} {arguments}")).status, 2, "{arguments}");
    }
    for (arguments, part) in [
        ("--check-data folder", "with --check-root"),
        (
            "--check-data synthetic --check-root in",
            "--check-root, --check-split and --check-list are not for synthetic scenes",
        ),
    ] {
        let given = run(&dir, &format!("{ARGUMENTS} {arguments}"));
        assert!(given.status == 2 && given.stderr.contains(part), "{given:?}");
    }
    let mut command = Command::new(dir.at("protoseg"));
    command.current_dir(dir.at("")).args(ARGUMENTS.split(' ')).env("ORT_DYLIB_PATH", "gone.so");
    let given = answer(&mut command);
    assert!(given.status == 2 && given.stderr.contains("--no-check"), "{given:?}");
}
