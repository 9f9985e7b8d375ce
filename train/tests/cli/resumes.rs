//! States that a run refuses to resume from, and its messages.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::broken_inputs::Fixture;
use crate::support::{command, folder, said, train};
use protoseg_models::checkpoint::Checkpoint;

#[test]
fn a_missing_or_changed_part_of_the_state_is_refused_by_name() {
    let (_folder, path) = folder();
    let settings = ["steps=8", "warmup_steps=2", "mode=mean-teacher"];
    train(&path("run"), &settings, &["--stop-after", "4"]);
    let state = |name: &str| path("run/state").join(name);
    let refused = |name: &str, spoil: &dyn Fn(), parts: &[&str]| {
        let kept = fs::read(state(name)).unwrap();
        spoil();
        let output = command(&path("run"), &settings, &["--resume"]).output().unwrap();
        fs::write(state(name), kept).unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}: {}", said(&output));
        parts
            .iter()
            .for_each(|part| assert!(said(&output).contains(part), "{name}: {}", said(&output)));
    };
    let teacher = "teacher.safetensors";
    refused(teacher, &|| fs::remove_file(state(teacher)).unwrap(), &[teacher, "is missing"]);
    let velocity = "velocity.safetensors";
    // The student's file has the same names and more.
    let swap = || assert!(fs::copy(state("student.safetensors"), state(velocity)).unwrap() > 0);
    refused(velocity, &swap, &["momentum buffers for", velocity]);
    let position = "position.json";
    let later = || {
        let text = fs::read_to_string(state(position)).unwrap();
        assert!(text.contains("\"step\": 4"));
        fs::write(state(position), text.replace("\"step\": 4", "\"step\": 99")).unwrap();
    };
    refused(position, &later, &["step 99 of a run of 8 steps"]);
    train(&path("run"), &settings, &["--resume"]);
}

#[test]
fn classes_and_lists_must_be_those_of_the_run() {
    for (file, text, says) in [
        ("classes.txt", "3 sea\n8 land\n", "names or order of the classes changed since"),
        (
            "list.txt",
            "images/a.png\nimages/b.png\nimages/b.png\n",
            "the list of labeled images (list.txt) changed since",
        ),
    ] {
        let fixture = Fixture::new();
        let settings =
            ["steps=4".to_owned(), "batch=2".to_owned(), "precise_bn_batches=1".to_owned()];
        let first = fixture.train_more(&settings, &["--stop-after", "1"]);
        assert!(first.status.success(), "{}", said(&first));
        fs::write(fixture.path("data").join(file), text).unwrap();
        let output = fixture.train_more(&settings, &["--resume"]);
        assert_eq!(output.status.code(), Some(2), "{file}: {}", said(&output));
        assert!(said(&output).contains(says), "{file}: {}", said(&output));
    }
}

#[test]
fn a_data_set_may_move_and_get_colors_before_a_resume_but_not_change() {
    let fixture = Fixture::new();
    let settings = ["steps=3".to_owned(), "batch=2".to_owned(), "precise_bn_batches=1".to_owned()];
    let first = fixture.train_more(&settings, &["--stop-after", "1"]);
    assert!(first.status.success(), "{}", said(&first));
    let moved = fixture.path("moved");
    fs::rename(fixture.path("data"), &moved).unwrap();
    let output = fixture.train_more(&settings, &["--resume"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("`--set root=DIR`"), "{}", said(&output));

    fs::write(moved.join("classes.txt"), "3 land 1 2 3\n8 sea 4 5 6\n").unwrap();
    let settings = [&settings[..], &[format!("root={}", moved.display())]].concat();
    let output = fixture.train_more(&settings, &["--resume", "--stop-after", "2"]);
    assert!(output.status.success(), "{}", said(&output));

    // The state knows the new place by now; a third one differs in a file.
    let third = fixture.path("third");
    fs::rename(&moved, &third).unwrap();
    fs::copy(third.join("labels/a.png"), third.join("labels/c.png")).unwrap();
    let settings = [&settings[..], &[format!("root={}", third.display())]].concat();
    let output = fixture.train_more(&settings, &["--resume"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let message = said(&output);
    assert!(message.contains("third/labels/c.png has changed since"), "{message}");
}

#[test]
fn files_that_changed_since_the_run_began_are_noticed_and_may_be_accepted() {
    let fixture = Fixture::new();
    let settings = ["steps=4".to_owned(), "batch=2".to_owned(), "precise_bn_batches=1".to_owned()];
    let first = fixture.train_more(&settings, &["--stop-after", "1"]);
    assert!(first.status.success(), "{}", said(&first));
    let same = fixture.train_more(&settings, &["--resume", "--stop-after", "2"]);
    assert!(same.status.success(), "{}", said(&same));
    fixture.label("b", 64, 48, 8);
    let output = fixture.train_more(&settings, &["--resume"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    for words in ["labels/b.png has changed since the run began", "--accept-changes"] {
        assert!(said(&output).contains(words), "{}", said(&output));
    }
    let output =
        fixture.train_more(&settings, &["--resume", "--accept-changes", "--stop-after", "3"]);
    assert!(output.status.success(), "{}", said(&output));
    // Accepted once, they are those of the run.
    let output = fixture.train_more(&settings, &["--resume"]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_folder_holds_one_run_at_a_time() {
    let (_folder, path) = folder();
    // In its warm-up, the run has saved nothing yet.
    let settings = ["steps=100000", "warmup_steps=100000"];
    let mut child = command(&path("run"), &settings, &[])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    while !path("run/log.jsonl").exists() {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = command(&path("run"), &["steps=2", "warmup_steps=2"], &[]).output().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("another process trains in"), "{}", said(&output));
}

#[test]
fn a_signal_interrupts_scoring() {
    let (_folder, path) = folder();
    // Scoring a scene of this size takes a good part of a second.
    let settings =
        ["steps=2", "warmup_steps=2", "synthetic_validation=400", "synthetic_size=[256, 512]"];
    let mut child = command(&path("run"), &settings, &[])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let patience = Instant::now() + Duration::from_secs(120);
    while !path("run/state/position.json").exists() {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    let asked = Instant::now();
    assert!(
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(asked.elapsed() < Duration::from_secs(20), "it took {:?}", asked.elapsed());
    assert!(path("run/state/position.json").exists());
    let checkpoint = Checkpoint::read(&path("run/checkpoint")).unwrap();
    assert!(checkpoint.metrics.is_none(), "the weights are there before they are scored");
}

#[test]
fn labels_that_are_ignored_everywhere_are_refused() {
    let fixture = Fixture::new();
    let ignored = image::GrayImage::from_pixel(64, 48, image::Luma([255]));
    for name in ["a", "b", "c"] {
        ignored.save(fixture.path(&format!("data/labels/{name}.png"))).unwrap();
    }
    let output = fixture.train(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("no pixel of the labeled images has a class"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_run_without_validation_leaves_a_report() {
    let fixture = Fixture::new();
    let output = fixture.train(&[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(fixture.path("run/report.html").is_file());
}
