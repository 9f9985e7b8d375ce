//! TensorBoard reads the event files. `PROTOSEG_PYTHON` is a Python with TensorBoard; the test is
//! skipped without it.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::Path;
use std::process::Command;

use protoseg_train::run::tensorboard::EventFile;

const READ: &str = "
import json
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0})
events.Reload()
series = {tag: [[scalar.step, scalar.value] for scalar in events.Scalars(tag)] for tag in events.Tags()['scalars']}
print(json.dumps([events.file_version, series]))
";

/// Version of the files in a folder and its series of steps and values, as TensorBoard reads them.
fn read(python: &std::ffi::OsStr, folder: &Path) -> serde_json::Value {
    let mut command = Command::new(python);
    // Python has libraries of its own, and its package folder must not change.
    command.env_remove("LD_LIBRARY_PATH").env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.args(["-c", READ]).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn tensorboard_reads_scalars_and_drops_those_that_a_resumed_run_repeats() {
    let Some(python) = std::env::var_os("PROTOSEG_PYTHON") else {
        eprintln!("skipped: PROTOSEG_PYTHON is not set to a Python with tensorboard");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut first = EventFile::create(folder.path(), 1).unwrap();
    for step in [10, 20, 30, 40] {
        first.scalar("loss/labeled", step, 1.0 / step as f64).unwrap();
        first.scalar("mIoU/teacher", step, 0.0).unwrap();
    }
    // Read before it is closed: every scalar is in the file as soon as it is written.
    let expected = |series: &[(u64, f64)]| -> serde_json::Value {
        series
            .iter()
            .map(|(step, value)| serde_json::json!([step, f64::from(*value as f32)]))
            .collect()
    };
    let losses = [(10, 0.1), (20, 0.05), (30, 1.0 / 30.0), (40, 0.025)];
    let scores = [(10, 0.0), (20, 0.0), (30, 0.0), (40, 0.0)];
    let found = read(&python, folder.path());
    assert_eq!(found[0], 2.0);
    assert_eq!(found[1]["loss/labeled"], expected(&losses));
    assert_eq!(found[1]["mIoU/teacher"], expected(&scores));

    // Killed after step 40, resumed from step 20, and killed again in the middle of a record.
    drop(first);
    let mut second = EventFile::create(folder.path(), 21).unwrap();
    second.scalar("loss/labeled", 30, 7.0).unwrap();
    let found = read(&python, folder.path());
    assert_eq!(found[1]["loss/labeled"], expected(&[(10, 0.1), (20, 0.05), (30, 7.0)]));
    assert_eq!(found[1]["mIoU/teacher"], expected(&scores[..2]));

    let mut files: Vec<_> =
        folder.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let bytes = std::fs::read(&files[1]).unwrap();
    std::fs::write(&files[1], &bytes[..bytes.len() - 5]).unwrap();
    let mut third = EventFile::create(folder.path(), 21).unwrap();
    third.scalar("loss/labeled", 30, 8.0).unwrap();
    let found = read(&python, folder.path());
    assert_eq!(found[1]["loss/labeled"], expected(&[(10, 0.1), (20, 0.05), (30, 8.0)]));
}
