//! Whole runs: the files that they leave, and that resuming changes nothing.

use std::path::Path;

use crate::broken_inputs::Fixture;
use crate::support::{folder, said, train};
use protoseg_models::checkpoint::Checkpoint;
use protoseg_models::weights::{self, StateDict};

#[test]
fn a_supervised_run_leaves_a_complete_checkpoint() {
    let (_folder, path) = folder();
    let out = path("run");
    train(
        &out,
        &["steps=6", "warmup_steps=3", "calibration_images=2", "eval_every=2", "log_every=4"],
        &[],
    );
    let checkpoint = Checkpoint::read(&out.join("checkpoint")).unwrap();
    assert_eq!(checkpoint.probe.len(), 2);
    let metrics = checkpoint.metrics.as_ref().unwrap();
    assert_eq!((metrics.images, metrics.step, metrics.scores.classes.len()), (2, 6, 19));
    let calibration = checkpoint.calibration.as_ref().unwrap();
    for (name, node) in &calibration.nodes {
        assert!(node.min <= node.max && node.sensitivity.is_finite(), "{name}: {node:?}");
        assert!(node.histogram.iter().sum::<u64>() > 0, "{name}");
    }
    assert!(
        calibration.nodes.contains_key("decoder.classifier")
            && calibration.nodes.contains_key("encoder._blocks.2.add")
    );
    for file in ["config.toml", "run.json", "log.jsonl", "report.html", "best/arch.json"] {
        assert!(out.join(file).is_file(), "{file}");
    }
    let log = std::fs::read_to_string(out.join("log.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps = lines
        .iter()
        .filter(|line| line["event"] == "step")
        .map(|line| line["step"].as_u64().unwrap());
    assert_eq!(steps.collect::<Vec<_>>(), [4, 6], "the last step is logged too");
    assert!(log.contains("mean_iou") && !log.contains(r#""event":"classes""#));
    let report = std::fs::read_to_string(out.join("report.html")).unwrap();
    for list in ["validation", "unlabeled"] {
        assert!(report.contains(&format!(r#""caption":"synthetic {list}""#)), "{list}");
    }
}

/// Weights of student and teacher, momentum buffers and prototypes of a run's saved state.
fn state(out: &Path) -> Vec<StateDict> {
    ["student", "teacher", "velocity", "prototypes"]
        .map(|name| weights::read(&out.join(format!("state/{name}.safetensors"))).unwrap())
        .into()
}

/// Compares twenty steps of one process with two parts in two processes: cut inside the warm-up, at
/// its end, and in the middle of an epoch (three steps, or one and a half) after it.
fn parts_equal_the_whole(settings: &[&str]) {
    let (_folder, path) = folder();
    let prototype = [
        "steps=20",
        "warmup_steps=7",
        "mode=prototype",
        "photometric=true",
        "reseed_after=3",
        "eval_every=5",
    ];
    let settings = [&prototype[..], settings].concat();
    train(&path("whole"), &settings, &[]);
    let whole = Checkpoint::read(&path("whole/checkpoint")).unwrap();
    let log = |out: &Path| std::fs::read_to_string(out.join("log.jsonl")).unwrap();
    // Times differ from run to run; computed values do not.
    let computed = |out: &Path| -> Vec<serde_json::Value> {
        let mut lines: Vec<serde_json::Value> =
            log(out).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.retain(|line| line["event"] != "saved");
        for measured in ["seconds_per_step", "waited_share"] {
            lines
                .iter_mut()
                .filter_map(|line| line.as_object_mut())
                .for_each(|line| drop(line.remove(measured)));
        }
        lines
    };
    for stop in ["3", "7", "12"] {
        let parts = path(&format!("stopped{stop}"));
        train(&parts, &settings, &["--stop-after", stop]);
        assert!(!parts.join("checkpoint").exists());
        train(&parts, &settings, &["--resume"]);
        let resumed = Checkpoint::read(&parts.join("checkpoint")).unwrap();
        assert_eq!(resumed.weights, whole.weights, "stopped after step {stop}");
        assert_eq!(state(&parts), state(&path("whole")), "stopped after step {stop}");
        assert_eq!((resumed.probe, resumed.metrics), (whole.probe.clone(), whole.metrics.clone()));
        assert_eq!(computed(&parts), computed(&path("whole")), "stopped after step {stop}");
    }
}

#[test]
fn resuming_changes_nothing() {
    parts_equal_the_whole(&[]);
}

#[test]
fn resuming_changes_nothing_with_accumulation_and_every_option() {
    parts_equal_the_whole(&[
        "accumulate=2",
        "features=centered",
        "points=balanced",
        "points_per_class=8",
        "criterion=ohem",
        "entropy_drop_per_class=true",
        "unlabeled_ramp=0.5",
        "restart=true",
    ]);
}

#[test]
fn resuming_changes_nothing_with_fidelity_pcr() {
    let (_folder, path) = folder();
    let settings = ["steps=8", "warmup_steps=2", "mode=prototype", "fidelity=pcr"];
    train(&path("whole"), &settings, &[]);
    train(&path("parts"), &settings, &["--stop-after", "4"]);
    train(&path("parts"), &settings, &["--resume"]);
    assert_eq!(state(&path("parts")), state(&path("whole")));
}

#[test]
fn a_changed_configuration_is_named_and_refused() {
    let (_folder, path) = folder();
    train(&path("run"), &["steps=3", "warmup_steps=1"], &["--stop-after", "1"]);
    let output = crate::support::command(
        &path("run"),
        &["steps=3", "warmup_steps=1", "learning_rate=0.5"],
        &["--resume"],
    )
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("`learning_rate` was 0.02, is 0.5"), "{}", said(&output));
}

#[test]
fn weights_of_a_checkpoint_start_another_run() {
    let (_folder, path) = folder();
    train(&path("first"), &["steps=2", "warmup_steps=1"], &[]);
    let checkpoint = path("first/checkpoint");
    let output = train(
        &path("second"),
        &["steps=1", "warmup_steps=1", "learning_rate=0"],
        &["--init-from", &checkpoint.to_string_lossy()],
    );
    assert!(said(&output).contains("whole network"), "{}", said(&output));
    let [first, second] =
        ["first", "second"].map(|run| Checkpoint::read(&path(run).join("checkpoint")).unwrap());
    let learned = |name: &str| !name.contains("running");
    for (name, tensor) in first.weights.iter().filter(|(name, _)| learned(name)) {
        assert_eq!(tensor, &second.weights[name], "{name}");
    }
}

#[test]
fn a_run_without_a_validation_list_has_a_checkpoint_and_no_score() {
    let (_folder, path) = folder();
    let none = ["steps=3", "warmup_steps=1", "mode=mean-teacher", "synthetic_validation=0"];
    train(&path("run"), &none, &[]);
    let checkpoint = Checkpoint::read(&path("run/checkpoint")).unwrap();
    assert!(checkpoint.metrics.is_none() && !path("run/best").exists());
}

#[test]
fn two_classes_train_with_images_without_masks() {
    let fixture = Fixture::new();
    // The second column of the list names a label file that does not exist.
    std::fs::write(
        fixture.path("data/rest.txt"),
        "images/a.png labels/none.png\nimages/b.png\nimages/c.png",
    )
    .unwrap();
    std::fs::remove_file(fixture.path("data/labels/c.png")).unwrap();
    std::fs::write(fixture.path("data/list.txt"), "images/a.png\nimages/b.png").unwrap();
    let settings =
        ["mode=prototype", "unlabeled=rest.txt", "steps=4", "warmup_steps=2", "point_cells=8"];
    let output = fixture.train(&settings.map(str::to_owned));
    assert!(output.status.success(), "{}", said(&output));
    let checkpoint = Checkpoint::read(&fixture.path("run/checkpoint")).unwrap();
    assert_eq!(checkpoint.header.classes.count(), 2);
}

#[test]
fn images_of_a_few_pixels_train_are_scored_and_calibrate() {
    let fixture = Fixture::new();
    for (name, side) in [("a", 1), ("b", 8)] {
        let image = image::RgbImage::from_pixel(side, side, image::Rgb([90; 3]));
        image.save(fixture.path(&format!("data/images/{name}.png"))).unwrap();
        let mask = image::GrayImage::from_pixel(side, side, image::Luma([8]));
        mask.save(fixture.path(&format!("data/labels/{name}.png"))).unwrap();
    }
    std::fs::write(fixture.path("data/list.txt"), "images/a.png\nimages/b.png\nimages/c.png\n")
        .unwrap();
    let settings = ["mode=supervised", "steps=2", "warmup_steps=0", "validation=list.txt"];
    let calibrated = ["calibration_images=3", "window="];
    let settings = [&settings[..], &calibrated].concat();
    let output = fixture.train(&settings.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
    assert!(output.status.success(), "{}", said(&output));
    let checkpoint = Checkpoint::read(&fixture.path("run/checkpoint")).unwrap();
    assert!(checkpoint.calibration.is_some() && checkpoint.metrics.is_some());
}

#[test]
fn a_dry_run_prints_the_plan_and_takes_no_step() {
    let (_folder, path) = folder();
    let output =
        train(&path("run"), &["steps=5", "warmup_steps=2", "mode=prototype"], &["--dry-run"]);
    let said = said(&output);
    for words in [
        "5 labeled, 7 unlabeled, 2 validation",
        "5 steps",
        "learning rate 2.000e-2",
        "road",
        "training crops: half of them mirrored, 0.5 to 2 times as large",
        "expected:",
        "of scores",
        "of calibration",
        "GB of main memory",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!path("run/state").exists() && !path("run/checkpoint").exists());
}

#[test]
fn pseudo_labels_are_written_on_request() {
    let (_folder, path) = folder();
    train(
        &path("run"),
        &["steps=2", "warmup_steps=1", "mode=mean-teacher", "dumped_images=3"],
        &[],
    );
    let mut names: Vec<String> = std::fs::read_dir(path("run/pseudo-labels/2"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["0.confidence.png", "0.png", "2.confidence.png", "2.png", "4.confidence.png", "4.png"]
    );
    let labels = image::open(path("run/pseudo-labels/2/4.png")).unwrap();
    assert_eq!((labels.width(), labels.height()), (96, 64));
}

#[test]
fn bfloat16_convolutions_train_and_are_scored_in_32_bits() {
    let (_folder, path) = folder();
    let steps = ["steps=4", "warmup_steps=2", "mode=prototype"];
    train(&path("wide"), &steps, &[]);
    train(&path("narrow"), &[&steps[..], &["precision=bfloat16"]].concat(), &[]);
    let [wide, narrow] =
        ["wide", "narrow"].map(|run| Checkpoint::read(&path(run).join("checkpoint")).unwrap());
    assert_ne!(wide.weights, narrow.weights);
    let name = "decoder.classifier.weight";
    let [wide, narrow] = [&wide.weights[name].data, &narrow.weights[name].data];
    let largest = wide.iter().map(|value| value.abs()).fold(0.0, f32::max);
    let difference =
        wide.iter().zip(narrow).map(|(wide, narrow)| (wide - narrow).abs()).fold(0.0, f32::max);
    assert!(difference < 0.5 * largest, "{difference} {largest}");
}
