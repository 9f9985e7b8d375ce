//! Errors inside a step: their messages, and runs that continue.

use std::process::Command;

use crate::support::{arguments, command, folder, root, said, train};

#[test]
fn a_loss_that_is_not_finite_is_named_with_its_step_and_images() {
    let (_folder, path) = folder();
    let wild = [
        "steps=30",
        "learning_rate=10",
        "head_multiplier=1000",
        "mode=prototype",
        "warmup_steps=20",
    ];
    let output = command(&path("run"), &wild, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(
        said.contains("step ") && said.contains("the term `") && said.contains("scene "),
        "{said}"
    );
    assert!(said.contains("lower `learning_rate`"), "{said}");
}

#[test]
fn images_without_a_kept_pixel_do_no_harm() {
    let (_folder, path) = folder();
    let strict = ["steps=6", "warmup_steps=2", "mode=prototype", "unlabeled_gate=1", "gate=1"];
    train(&path("run"), &strict, &[]);
    let log = std::fs::read_to_string(path("run/log.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let after: Vec<_> = lines
        .iter()
        .filter(|line| line["event"] == "step" && line["step"].as_u64().unwrap() > 2)
        .collect();
    assert_eq!(after.len(), 4);
    for line in after {
        assert_eq!(
            (line["unlabeled"].as_f64(), line["kept_share"].as_f64()),
            (Some(0.0), Some(0.0)),
            "{line}"
        );
        assert_eq!(line["prototype_unlabeled"].as_f64(), Some(0.0), "{line}");
        assert!(
            line["dropped"].as_f64().unwrap() > 0.0 && line["labeled"].as_f64().unwrap() > 0.0,
            "{line}"
        );
    }
}

#[test]
fn memory_that_runs_out_names_the_keys_that_need_less() {
    let (_folder, path) = folder();
    let large = ["steps=3", "warmup_steps=1", "crop=512", "batch=32", "precise_bn_batches=0"];
    // Limits the address space to 2.5 GB.
    let output = Command::new("sh")
        .args(["-c", "ulimit -v 2500000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_protoseg-train")])
        .args(arguments(&path("run"), &large, &[]))
        .current_dir(root())
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in ["not enough memory", "`batch`", "`accumulate`", "`crop`"] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn invalid_options_are_refused_before_anything_is_written() {
    let (_folder, path) = folder();
    for (settings, arguments, words) in [
        (&["batch=1"][..], &[][..], "`batch` is 1"),
        (&["fidelity=pcr", "points=balanced"], &[], "`points`"),
        (&["steps=0"], &[], "`epochs`"),
        (&["mode=prototype", "synthetic_unlabeled=0"], &[], "`synthetic_unlabeled`"),
        (&[], &["--device", "cuda:0"], "libtorch_cuda.so"),
        (&[], &["--device", "tpu"], "cuda:N"),
        (&[], &["--ablate", "mode"], "key=one,two"),
    ] {
        let output = command(&path("run"), settings, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{settings:?} {arguments:?}: {}", said(&output));
        assert!(said(&output).contains(words), "{settings:?} {arguments:?}: {}", said(&output));
        assert!(!path("run").exists(), "{settings:?} {arguments:?}");
    }
}
