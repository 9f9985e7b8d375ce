//! Everything after the last step: the weights are kept whatever happens, and a run goes on where it was.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::broken_inputs::Fixture;
use crate::support::{arguments, command, folder, root, said, train};
use protoseg_models::checkpoint::Checkpoint;

const SHORT: [&str; 6] = [
    "steps=2",
    "warmup_steps=2",
    "synthetic_size=[256, 512]",
    "synthetic_validation=1",
    "synthetic_unlabeled=0",
    "window=512:512",
];

/// Starts a run that calibrates for long, and waits until it does.
fn start_calibrating(out: &Path) -> std::process::Child {
    let settings = [&SHORT[..], &["synthetic_labeled=40", "calibration_images=40"]].concat();
    let child =
        command(out, &settings, &[]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(240);
    while !out.join("checkpoint/metrics.json").exists() {
        assert!(Instant::now() < patience, "never scored");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_millis(300));
    child
}

#[test]
fn a_signal_during_calibration_keeps_the_weights_and_a_resume_goes_on_there() {
    let (_folder, path) = folder();
    let run = path("run");
    let mut child = start_calibrating(&run);
    let asked = Instant::now();
    assert!(
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?}", asked.elapsed());
    let before = Checkpoint::read(&run.join("checkpoint")).unwrap();
    assert!(before.calibration.is_none() && before.metrics.is_some() && !before.probe.is_empty());

    // Keys that change no weight may change; scores are not repeated, and calibration is.
    let settings = [&SHORT[..], &["synthetic_labeled=40", "calibration_images=1"]].concat();
    let output = train(&run, &settings, &["--resume"]);
    assert!(!said(&output).contains("mIoU of the student"), "{}", said(&output));
    let after = Checkpoint::read(&run.join("checkpoint")).unwrap();
    assert_eq!(after.calibration.unwrap().count, 1);
    assert_eq!((&after.weights, &after.metrics), (&before.weights, &before.metrics));

    let changed = [&settings[..], &["learning_rate=0.001"]].concat();
    let output = command(&run, &changed, &["--resume"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = said(&output);
    assert!(
        message.contains("`learning_rate` was ") && message.contains("--init-from"),
        "{message}"
    );
    assert!(!message.contains("calibration_images"), "{message}");
}

#[test]
fn a_kill_during_calibration_leaves_a_checkpoint_that_can_be_calibrated_alone() {
    let (_folder, path) = folder();
    let run = path("run");
    let mut child = start_calibrating(&run);
    child.kill().unwrap();
    child.wait().unwrap();
    let before = Checkpoint::read(&run.join("checkpoint")).unwrap();
    assert!(before.calibration.is_none());
    let calibrate = |more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_protoseg-train"))
            .arg("calibrate")
            .arg(run.join("checkpoint"))
            .args(["--threads", "1", "--set", "calibration_images=2"])
            .args(more)
            .env_remove("LD_LIBRARY_PATH")
            .output()
            .unwrap()
    };
    let output = calibrate(&[]);
    assert!(output.status.success(), "{}", said(&output));
    let after = Checkpoint::read(&run.join("checkpoint")).unwrap();
    assert_eq!(after.calibration.as_ref().unwrap().count, 2);
    assert_eq!(Checkpoint { calibration: None, ..after }, before);
    let output = calibrate(&["--set", "calibration_images=0"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("`calibration_images`"), "{}", said(&output));
}

#[test]
fn memory_that_scores_would_not_have_is_missed_before_the_first_step() {
    let (_folder, path) = folder();
    let run = path("run");
    let settings = [
        "steps=2",
        "warmup_steps=2",
        "synthetic_size=[3072, 4096]",
        "synthetic_labeled=2",
        "synthetic_unlabeled=0",
        "synthetic_validation=1",
        "window=",
    ];
    // Limits the address space to 2.5 GB.
    let output = Command::new("sh")
        .args(["-c", "ulimit -v 2500000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_protoseg-train")])
        .args(arguments(&run, &settings, &[]))
        .current_dir(root())
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .unwrap();
    let message = said(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("not enough memory while scoring"), "{message}");
    assert!(message.contains("`window`") && !message.contains("`batch`"), "{message}");
}

#[test]
fn images_of_one_color_can_be_calibrated_on() {
    let fixture = Fixture::new();
    for name in ["a", "b", "c"] {
        let path = fixture.path(&format!("data/images/{name}.png"));
        image::RgbImage::new(64, 48).save(path).unwrap();
    }
    let output = fixture.train(&["calibration_images=2".to_owned()]);
    assert!(output.status.success(), "{}", said(&output));
    let calibration =
        Checkpoint::read(&fixture.path("run/checkpoint")).unwrap().calibration.unwrap();
    let input = &calibration.nodes["normalize"];
    assert_eq!((input.min, input.histogram[0]), (input.max, 2 * 3 * 64 * 48), "one value alone");
    for (name, range) in &calibration.nodes {
        let counted: u64 = range.histogram.iter().sum();
        assert!(counted > 0 && range.sensitivity.is_finite(), "{name}: {range:?}");
    }
}
