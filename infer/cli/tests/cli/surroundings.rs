//! Surroundings of the program: a closed standard error, user folders, a truncated ONNX Runtime,
//! signals, and names with control characters.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{LABEL, TestDir, answer, expect, files, fixture, results, signal, stripes};

#[test]
fn a_standard_error_that_cannot_be_written_stops_nothing() {
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let dir = TestDir::new();
    for index in 0..4 {
        std::fs::write(dir.at(&format!("in/images/bad{index}.png")), "hello").unwrap();
    }
    for stderr in
        [Stdio::from(File::options().write(true).open("/dev/full").unwrap()), Stdio::from(closed)]
    {
        let mut command = dir.command(&format!("{LABEL} --resume --verbose"));
        let status = command.stdout(Stdio::null()).stderr(stderr).status().unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(results(&dir.at("out")), ["ids/images/a.png", "ids/labels/a.png"]);
    }
    let full = File::options().write(true).open("/dev/full").unwrap();
    let status = dir.command("label gone in --out new").stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn home_and_temporary_folders_stay_empty() {
    let dir = TestDir::new();
    std::fs::create_dir(dir.at("home")).unwrap();
    std::fs::create_dir(dir.at("tmp")).unwrap();
    for line in [LABEL, "check bundle", "doctor bundle --device cpu"] {
        let mut command = dir.command(line);
        for name in ["XDG_CACHE_HOME", "XDG_DATA_HOME", "ORT_DISABLE_TELEMETRY"] {
            command.env_remove(name);
        }
        let given = answer(command.env("HOME", dir.at("home")).env("TMPDIR", dir.at("tmp")));
        assert_eq!(given.status, 0, "{given:?}");
        let left = [files(&dir.at("home")), files(&dir.at("tmp"))].concat();
        assert_eq!(left, [""; 0], "{line}");
    }
}

#[test]
fn a_truncated_runtime_is_an_error() {
    let dir = TestDir::new();
    let whole = std::env::var_os("ORT_DYLIB_PATH")
        .map(std::path::PathBuf::from)
        .filter(|path| path.is_file());
    // Default library of the tests, if the variable is not set.
    let whole = whole.unwrap_or_else(|| fixture("../../../.runtime/onnxruntime/libonnxruntime.so"));
    let mut start = vec![0; 1 << 20];
    File::open(whole).and_then(|mut file| file.read_exact(&mut start)).unwrap();
    std::fs::write(dir.at("libonnxruntime.so"), start).unwrap();
    let mut command = dir.command(LABEL);
    let given = answer(command.env("ORT_DYLIB_PATH", dir.at("libonnxruntime.so")));
    expect(
        "cut short",
        &given,
        2,
        &["libonnxruntime.so cannot be loaded", "the file is cut short"],
    );
    std::fs::write(dir.at("libonnxruntime.so"), "no library").unwrap();
    let mut command = dir.command(LABEL);
    let given = answer(command.env("ORT_DYLIB_PATH", dir.at("libonnxruntime.so")));
    // Message of the dynamic loader.
    expect("no library", &given, 2, &["libonnxruntime.so cannot be loaded", "too short"]);
}

#[test]
fn a_missing_bundle_is_not_blamed_on_devices() {
    let dir = TestDir::new();
    expect(
        "gone",
        &answer(&mut dir.command("doctor gone --device cpu")),
        2,
        &["gone does not exist"],
    );
    dir.cut("bundle/manifest.json");
    expect("cut", &answer(&mut dir.command("doctor bundle --device cpu")), 2, &["manifest.json"]);
}

/// Images of a run that is stopped in its middle, besides the one of the fixture.
const IMAGES: usize = 1000;

#[test]
fn sighup_stops_the_run_unless_it_is_ignored() {
    // Ignored signals are inherited from the parent of the tests, so both cases set them.
    for (before, ends) in [("exec env --default-signal=HUP", true), ("trap '' HUP; exec", false)] {
        let dir = TestDir::new();
        // Enough images that the run is not done before the signal, even on a busy machine.
        stripes(256, 256).save(dir.at("in/images/0.png")).unwrap();
        for index in 1..IMAGES {
            std::fs::hard_link(
                dir.at("in/images/0.png"),
                dir.at(&format!("in/images/{index}.png")),
            )
            .unwrap();
        }
        let line = format!(
            "{before} {} label bundle in/images --out out --threads 1",
            env!("CARGO_BIN_EXE_protoseg")
        );
        let mut command = Command::new("sh");
        command.args(["-c", &line]).current_dir(dir.at("")).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        while results(&dir.at("out")).is_empty() {
            std::thread::sleep(Duration::from_millis(2));
        }
        signal(child.id(), "HUP");
        let status = child.wait().unwrap().code();
        let labeled = results(&dir.at("out")).len();
        assert_eq!(
            (status, labeled == IMAGES + 1),
            if ends { (Some(129), false) } else { (Some(0), true) },
            "{labeled}"
        );
    }
}

#[test]
fn control_characters_in_image_names_are_escaped() {
    let dir = TestDir::new();
    std::fs::write(dir.at("in/images/a\nb\u{1b}[31m.png"), "hello").unwrap();
    expect("control", &answer(&mut dir.command(LABEL)), 3, &["a\\nb\\u{1b}[31m.png"]);
}
