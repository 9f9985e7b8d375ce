//! Students of a finished network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::support::{command, folder, said, train};
use protoseg_models::checkpoint::Checkpoint;

/// Files of the teacher's labels, with their times.
fn labels(run: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let files = std::fs::read_dir(run.join("teacher-labels")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    files.map(|path| (path.clone(), path.metadata().unwrap().modified().unwrap())).collect()
}

#[test]
fn a_student_learns_from_labels_that_are_made_once_and_goes_on_where_it_stopped() {
    let (_folder, path) = folder();
    train(&path("teacher"), &["steps=6", "warmup_steps=0", "mode=supervised"], &[]);
    let teacher = format!("teacher={}", path("teacher/checkpoint").display());
    for mode in ["mode=distill", "mode=prototype"] {
        let settings = [mode, &teacher, "steps=6", "warmup_steps=2", "unlabeled_gate=0.1"];
        let [whole, parts] = [path(&format!("{mode} whole")), path(&format!("{mode} parts"))];
        let output = train(&whole, &settings, &[]);
        assert!(
            said(&output)
                .contains("labels of the unlabeled images: deeplabv3plus-efficientnet-lite0 of"),
            "{}",
            said(&output)
        );
        train(&parts, &settings, &["--stop-after", "3"]);
        let made = labels(&parts);
        assert_eq!(made.len(), 7);
        train(&parts, &settings, &["--resume"]);
        assert_eq!(labels(&parts), made);
        let [whole, parts] =
            [whole, parts].map(|run| Checkpoint::read(&run.join("checkpoint")).unwrap().weights);
        assert_eq!(whole, parts);
        // Without the teacher, the same steps lead elsewhere.
        let alone = path(&format!("{mode} alone"));
        let mode = if mode == "mode=distill" { "mode=mean-teacher" } else { mode };
        train(&alone, &[&[mode], &settings[2..]].concat(), &[]);
        assert_ne!(Checkpoint::read(&alone.join("checkpoint")).unwrap().weights, whole);
    }
}

#[test]
fn a_teacher_that_cannot_be_meant_is_refused_before_anything_is_made() {
    let (_folder, path) = folder();
    std::fs::create_dir(path("bundle")).unwrap();
    std::fs::write(path("bundle/manifest.json"), "{}").unwrap();
    train(&path("teacher"), &["steps=1", "warmup_steps=0", "mode=supervised"], &[]);
    let teacher = path("teacher/checkpoint");
    let header = teacher.join("arch.json");
    let text = std::fs::read_to_string(&header).unwrap();
    let refused = |settings: &[&str], reason: &str| {
        let settings = [&["steps=2", "warmup_steps=0"], settings].concat();
        let output = command(&path("run"), &settings, &[]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(reason), "{}", said(&output));
        assert!(!path("run").exists());
    };
    let named = format!("teacher={}", teacher.display());
    refused(&["mode=distill"], "`teacher` is missing");
    refused(&["mode=supervised", &named], "`teacher` has no effect in this mode");
    refused(&["mode=distill", "teacher=nowhere"], "nowhere is not a checkpoint");
    let bundle = format!("teacher={}", path("bundle").display());
    refused(&["mode=distill", &bundle], "is a bundle; give the checkpoint");
    std::fs::write(&header, text.replace("\"road\"", "\"street\"")).unwrap();
    refused(&["mode=distill", &named], "has the classes street, sidewalk");
}
