//! Whole runs of the program: what they leave, and that going on after a stop changes nothing.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use protoseg_models::checkpoint::Checkpoint;
use tempfile::TempDir;

fn train(out: &Path, settings: &[&str], more: &[&str]) {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/synthetic.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_protoseg-train"));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command.arg(config).arg("--out").arg(out).args(["--threads", "1"]).args(more);
    let small = [
        "synthetic_labeled=5",
        "synthetic_validation=2",
        "synthetic_size=[64, 96]",
        "crop=64",
        "batch=2",
        "window={size=64, stride=48}",
    ];
    for setting in small.iter().chain(settings) {
        command.args(["--set", setting]);
    }
    let output = command.env_remove("LD_LIBRARY_PATH").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn folder() -> (TempDir, impl Fn(&str) -> PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, move |name| path.join(name))
}

#[test]
fn a_run_leaves_a_whole_checkpoint_and_going_on_changes_nothing() {
    let (_folder, path) = folder();
    let whole = ["steps=6", "warmup_steps=3", "calibration_pictures=2", "eval_every=2"];
    train(&path("whole"), &whole, &[]);
    let checkpoint = Checkpoint::read(&path("whole/checkpoint")).unwrap();
    assert_eq!(checkpoint.probe.len(), 2);
    let metrics = checkpoint.metrics.as_ref().unwrap();
    assert_eq!((metrics.images, metrics.step, metrics.scores.classes.len()), (2, 6, 19));
    let calibration = checkpoint.calibration.as_ref().unwrap();
    for (name, node) in &calibration.nodes {
        assert!(node.min <= node.max && node.sensitivity.is_finite(), "{name}: {node:?}");
        assert!(node.histogram.iter().sum::<u64>() > 0, "{name}");
    }
    assert!(
        calibration.nodes.contains_key("decoder.classifier") && calibration.nodes.contains_key("encoder._blocks.2.add")
    );
    let log = std::fs::read_to_string(path("whole/log.jsonl")).unwrap();
    assert!(
        log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()) && log.contains("mean_iou")
    );

    // Stopped at a step and gone on from there, each part in a process of its own: inside the warm-up, and behind it.
    for stop in ["2", "4"] {
        let parts = path(&format!("stopped{stop}"));
        train(&parts, &whole, &["--stop-after", stop]);
        assert!(!parts.join("checkpoint").exists());
        train(&parts, &whole, &["--resume"]);
        let resumed = Checkpoint::read(&parts.join("checkpoint")).unwrap();
        assert_eq!(resumed.weights, checkpoint.weights, "stopped after step {stop}");
        let events = |log: &str| log.lines().filter(|line| line.contains("mean_iou")).count();
        let log_of_parts = std::fs::read_to_string(parts.join("log.jsonl")).unwrap();
        assert_eq!(events(&log_of_parts), events(&log), "lines are lost or twice");
        assert_eq!((resumed.probe, resumed.metrics), (checkpoint.probe.clone(), checkpoint.metrics.clone()));
    }
}
