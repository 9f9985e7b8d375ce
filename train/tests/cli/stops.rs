//! Runs that end early, by signal, time limit, kill or a full disk: saved states survive.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{arguments, command, folder, root, said, train};
use protoseg_models::checkpoint::Checkpoint;

const LONG: [&str; 3] = ["steps=100000", "warmup_steps=2", "mode=mean-teacher"];

fn start(out: &Path, settings: &[&str], more: &[&str]) -> Child {
    command(out, settings, more).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

/// Waits until a step is logged.
fn wait_for_step(out: &Path, step: u64) {
    let needle = format!("\"event\":\"step\",\"step\":{step},");
    let patience = Instant::now() + Duration::from_secs(120);
    while !std::fs::read_to_string(out.join("log.jsonl")).unwrap_or_default().contains(&needle) {
        assert!(Instant::now() < patience, "no step {step}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn saved_step(out: &Path) -> u64 {
    let position = std::fs::read(out.join("state/position.json")).unwrap();
    serde_json::from_slice::<serde_json::Value>(&position).unwrap()["step"].as_u64().unwrap()
}

fn interrupt(signal: &str, status: i32) {
    let (_folder, path) = folder();
    let mut child = start(&path("run"), &LONG, &[]);
    wait_for_step(&path("run"), 3);
    assert!(
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(status));
    let saved = saved_step(&path("run"));
    assert!(saved >= 3, "saved at step {saved}");
    train(&path("run"), &LONG, &["--resume", "--stop-after", &(saved + 1).to_string()]);
    assert_eq!(saved_step(&path("run")), saved + 1);
}

#[test]
fn sigterm_saves_and_exits_with_143() {
    interrupt("-TERM", 143);
}

#[test]
fn ctrl_c_saves_and_exits_with_130() {
    interrupt("-INT", 130);
}

#[test]
fn a_time_limit_saves_and_exits_with_3() {
    let (_folder, path) = folder();
    let output = command(&path("run"), &LONG, &["--max-minutes", "0.05"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("--resume") && saved_step(&path("run")) >= 1);
    let output = command(&path("other"), &LONG, &["--max-minutes", "-1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

#[test]
fn a_run_killed_repeatedly_ends_like_an_undisturbed_one() {
    let (_folder, path) = folder();
    let settings = ["steps=16", "warmup_steps=4", "mode=prototype", "save_every=1"];
    train(&path("whole"), &settings, &[]);
    let run = path("killed");
    for (kill, step) in [2, 5, 8, 11, 14].into_iter().enumerate() {
        let resume = run.join("state").exists();
        let mut child = start(&run, &settings, if resume { &["--resume"] } else { &[] });
        wait_for_step(&run, step);
        // Saving follows each step, so some kills interrupt it.
        std::thread::sleep(Duration::from_millis(15 * kill as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(saved_step(&run) >= step - 1);
    }
    train(&run, &settings, &["--resume"]);
    let [whole, killed] =
        ["whole", "killed"].map(|run| Checkpoint::read(&path(run).join("checkpoint")).unwrap());
    assert_eq!(killed.weights, whole.weights);
}

#[test]
fn a_full_disk_is_named_and_the_state_before_it_is_kept() {
    let (_folder, path) = folder();
    let settings = ["steps=6", "warmup_steps=2", "save_every=1"];
    let run = path("run");
    train(&run, &settings, &["--stop-after", "2"]);
    // Writes beyond 2 MB fail, as on a full disk.
    let output = Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 4096; exec \"$@\"",
            "sh",
            env!("CARGO_BIN_EXE_protoseg-train"),
        ])
        .args(arguments(&run, &settings, &["--resume"]))
        .current_dir(root())
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("the state before it is kept"), "{}", said(&output));
    assert_eq!(saved_step(&run), 2);
    train(&run, &settings, &["--resume"]);
    assert!(run.join("checkpoint").is_dir());
}
