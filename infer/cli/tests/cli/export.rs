//! `protoseg check` as `protoseg-export` asks for it: for a hidden folder, under the name that the
//! folder gets afterwards.

use crate::common::{ProgramOutput, TestDir, answer};
use protoseg_models::bundle::Manifest;
use protoseg_models::gate::Verdict;

fn run(dir: &TestDir, options: &str) -> ProgramOutput {
    let words = format!("check --record{options} --exported-as=deep/out");
    answer(dir.command(&words).arg(dir.at("bundle")))
}

#[test]
fn results_are_recorded_under_the_requested_name() {
    let dir = TestDir::new();
    for options in ["", " --data=folder --root=in"] {
        let given = run(&dir, options);
        assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{given:?}");
        assert!(given.stdout.starts_with("passed  model.onnx 33x47: "), "{given:?}");
        let gate = &Manifest::read(&dir.at("bundle")).unwrap().value.gate[0];
        assert_eq!((gate.verdict, gate.score.is_some()), (Verdict::Passed, !options.is_empty()));
    }
    std::fs::write(dir.at("bundle/model.onnx"), "x").unwrap();
    let given = run(&dir, "");
    assert_eq!((given.status, given.stderr.as_str()), (1, ""), "{given:?}");
    let expected = "FAILED  deep/out/model.onnx: does not match the manifest";
    assert!(given.stdout.contains(expected), "{given:?}");
}

#[test]
fn errors_name_the_options_of_an_export() {
    let dir = TestDir::new();
    for (options, part) in [
        (" --data=folder", "with --check-root"),
        (
            " --data=synthetic --root=in",
            "--check-root, --check-split and --check-list are not for synthetic scenes",
        ),
    ] {
        let given = run(&dir, options);
        assert!(given.status == 2 && given.stderr.contains(part), "{given:?}");
    }
    let mut command = dir.command("check bundle --record --exported-as=deep/out");
    let given = answer(command.env("ORT_DYLIB_PATH", "gone.so"));
    assert!(given.status == 2 && given.stderr.contains("--no-check"), "{given:?}");
    std::fs::remove_file(dir.at("bundle/probe.safetensors")).unwrap();
    let given = run(&dir, "");
    assert!(given.status == 1 && given.stderr.contains("deep/out/probe"), "{given:?}");
}
