//! `setup` with a script in place of Python that copies a local wheel.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::python::tests::fake_python;
use crate::wheel::tests::write_wheel;

const PACKAGE: Component = Component {
    name: "package",
    title: "package 1",
    wheels: &["package==1 --hash=sha256:00"],
    place: |member| member.strip_prefix("package/").map(str::to_owned),
    finish: |folder| Ok(fs::write(folder.join("finished"), "yes")?),
    keeps: &["library.so", "finished"],
    variable: None,
    megabytes: 1,
};

/// Copies `served.whl` to the folder after `--dest`, and adds a line to `calls`.
const COPY: &str = r#"here=$(dirname "$0")
echo called >> "$here/calls"
while [ "$1" != --dest ]; do shift; done
cp "$here/served.whl" "$2/package-1-py3-none-any.whl""#;

/// Returns a folder with `served.whl` and `.runtime`, the path of the latter, and the script.
fn prepare(script: &str) -> (TempDir, PathBuf, Python) {
    let folder = tempfile::tempdir().unwrap();
    write_wheel(&folder.path().join("served.whl"), &[("package/library.so", b"library")]);
    let runtime = folder.path().join(".runtime");
    fs::create_dir(&runtime).unwrap();
    let python = fake_python(folder.path(), script);
    (folder, runtime, python)
}

fn calls(folder: &TempDir) -> usize {
    fs::read_to_string(folder.path().join("calls")).unwrap_or_default().lines().count()
}

#[test]
fn fetches_stamps_and_leaves_nothing_behind() {
    let (_folder, runtime, python) = prepare(COPY);
    assert!(!is_complete(&runtime, &PACKAGE));
    fetch(&python, &runtime, &PACKAGE).unwrap();
    assert!(is_complete(&runtime, &PACKAGE));
    let names: Vec<_> =
        fs::read_dir(&runtime).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["package"]);
}

#[test]
fn replaces_a_damaged_folder() {
    let (_folder, runtime, python) = prepare(COPY);
    fs::create_dir(runtime.join("package")).unwrap();
    fs::write(runtime.join("package/library.so"), "half").unwrap();
    fetch(&python, &runtime, &PACKAGE).unwrap();
    assert_eq!(fs::read_to_string(runtime.join("package/library.so")).unwrap(), "library");
}

#[test]
fn complete_wheels_of_an_interrupted_run_are_used() {
    let (folder, runtime, python) = prepare(COPY);
    let partial = runtime.join(".partial-package");
    download(&python, &partial, &PACKAGE).unwrap();
    fs::create_dir(partial.join("tree")).unwrap();
    fs::write(partial.join("tree/half"), "").unwrap();
    fetch(&python, &runtime, &PACKAGE).unwrap();
    assert_eq!(calls(&folder), 1);
    assert!(!runtime.join("package/half").exists());
}

#[test]
fn a_truncated_wheel_is_fetched_again() {
    let (folder, runtime, python) = prepare(COPY);
    let partial = runtime.join(".partial-package");
    let wheel = download(&python, &partial, &PACKAGE).unwrap().remove(0);
    File::options().write(true).open(wheel).unwrap().set_len(40).unwrap();
    fetch(&python, &runtime, &PACKAGE).unwrap();
    assert_eq!(calls(&folder), 2);
    assert!(is_complete(&runtime, &PACKAGE));
}

#[test]
fn a_wheel_that_stays_broken_is_an_error_and_is_not_kept() {
    let (folder, runtime, python) = prepare(COPY);
    fs::write(folder.path().join("served.whl"), "<html>please log in</html>").unwrap();
    let error = fetch(&python, &runtime, &PACKAGE).unwrap_err().to_string();
    assert!(error.contains("is not a complete wheel"), "{error}");
    assert_eq!(calls(&folder), 2);
    assert_eq!(fs::read_dir(&runtime).unwrap().count(), 0);
}

#[test]
fn a_wheel_without_the_library_is_an_error() {
    let (folder, runtime, python) = prepare(COPY);
    write_wheel(&folder.path().join("served.whl"), &[("package/other.so", b"other")]);
    let error = fetch(&python, &runtime, &PACKAGE).unwrap_err().to_string();
    assert!(error.starts_with("the wheels lack library.so"), "{error}");
    assert!(!runtime.join("package").exists());
}

#[test]
fn a_failing_pip_leaves_no_component() {
    let (_folder, runtime, python) = prepare("echo 'ERROR: Connection refused' >&2; exit 1");
    let error = fetch(&python, &runtime, &PACKAGE).unwrap_err().to_string();
    assert!(error.starts_with("pip could not reach its package index"), "{error}");
    assert!(!runtime.join("package").exists());
}

#[test]
fn one_setup_waits_for_the_other() {
    let (_folder, runtime, _python) = prepare(COPY);
    let first = lock(&runtime).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| sender.send(lock(&runtime).map(drop)).unwrap());
        let waiting = receiver.recv_timeout(std::time::Duration::from_millis(200));
        assert!(waiting.is_err(), "the second did not wait");
        drop(first);
        receiver.recv().unwrap().unwrap();
    });
}

#[test]
fn only_named_components_are_missing() {
    let folder = tempfile::tempdir().unwrap();
    let missing =
        missing(folder.path(), Some(Build::Cpu), Build::Cpu, &["weights".to_owned()]).unwrap();
    assert_eq!(missing.iter().map(|component| component.name).collect::<Vec<_>>(), ["weights"]);

    let error = command(folder.path(), &["--cpu".to_owned(), "torch".to_owned()]).unwrap_err();
    assert!(error.is::<Usage>(), "{error}");
    assert!(error.to_string().contains("libtorch, onnxruntime, weights"), "{error}");
}
