//! Helpers of the command line tests: the program, the bundle fixture, images with known labels.
//!
//! The bundle `fixtures/colors` holds a model made by hand: the mean of 4x4 pixels, then a 1x1
//! convolution, so that a pixel's class is the largest of red, green and blue.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Rgb, RgbImage};
use protoseg_images::label_map::LabelMap;
use protoseg_models::bundle::Manifest;
use protoseg_models::digest;

#[derive(Debug)]
pub(crate) struct ProgramOutput {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn protoseg<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> ProgramOutput {
    answer(Command::new(env!("CARGO_BIN_EXE_protoseg")).args(arguments))
}

pub(crate) fn answer(command: &mut Command) -> ProgramOutput {
    let output = command.output().unwrap();
    ProgramOutput {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// Copies a program in another process: had this one the file open for writing while another test
/// forks, executing it would fail with `ETXTBSY`.
pub(crate) fn install(program: &Path, target: &Path) {
    assert!(
        Command::new("install")
            .args(["-m", "755"])
            .args([program, target])
            .status()
            .unwrap()
            .success()
    );
}

/// Installs a shell script like [`install`].
pub(crate) fn install_script(script: &str, target: &Path) {
    let text = target.with_extension("text");
    std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
    install(&text, target);
    std::fs::remove_file(text).unwrap();
}

/// Sends a signal, such as `TERM`, to one process.
pub(crate) fn signal(process: u32, name: &str) {
    assert!(
        Command::new("kill")
            .args([&format!("-{name}"), &process.to_string()])
            .status()
            .unwrap()
            .success()
    );
}

/// Sorted relative paths of all files below a folder, including hidden ones.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(current) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                names.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    names.sort();
    names
}

/// Files of an output folder without those in `.protoseg`.
pub(crate) fn results(out: &Path) -> Vec<String> {
    files(out).into_iter().filter(|name| !name.starts_with(".protoseg/")).collect()
}

/// Stripes of 16 columns in red, green and blue.
pub(crate) fn stripes(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, _| {
        let mut color = [20; 3];
        color[x as usize / 16 % 3] = 220;
        Rgb(color)
    })
}

/// Labels of [`stripes`].
pub(crate) fn stripe_labels(width: u32, height: u32) -> Vec<u8> {
    (0..height).flat_map(|_| (0..width).map(|x| (x / 16 % 3) as u8)).collect()
}

/// Temporary folder with a copy of the bundle in `bundle` and a data set in `in`.
pub(crate) struct TestDir {
    root: tempfile::TempDir,
}

impl TestDir {
    pub(crate) fn new() -> Self {
        let dir = Self { root: tempfile::tempdir().unwrap() };
        for name in ["bundle", "in/images", "in/labels"] {
            std::fs::create_dir_all(dir.at(name)).unwrap();
        }
        for name in ["manifest.json", "model.onnx", "probe.safetensors"] {
            std::fs::copy(fixture("colors").join(name), dir.at("bundle").join(name)).unwrap();
        }
        std::fs::write(dir.at("in/classes.txt"), "10 red\n20 green\n30 blue\n").unwrap();
        stripes(32, 32).save(dir.at("in/images/a.png")).unwrap();
        dir.labels("in/labels/a.png", 32, 32, 10);
        dir
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn labels(&self, name: &str, width: usize, height: usize, id: u8) {
        let mut map = LabelMap { height, width, labels: vec![10; width * height] };
        map.labels[width + 3] = id;
        std::fs::write(self.at(name), map.ids_png().unwrap()).unwrap();
    }

    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.at(name)).unwrap();
        assert!(text.contains(from));
        std::fs::write(self.at(name), text.replace(from, to)).unwrap();
    }

    /// Replaces every occurrence of some bytes by others of the same length.
    pub(crate) fn patch(&self, name: &str, from: &[u8], to: &[u8]) {
        assert_eq!(from.len(), to.len());
        let mut bytes = std::fs::read(self.at(name)).unwrap();
        let offsets: Vec<usize> =
            (0..bytes.len()).filter(|&offset| bytes[offset..].starts_with(from)).collect();
        assert!(!offsets.is_empty());
        for offset in offsets {
            bytes[offset..][..to.len()].copy_from_slice(to);
        }
        std::fs::write(self.at(name), bytes).unwrap();
    }

    /// Updates the SHA-256 of the model file in the manifest.
    pub(crate) fn sign(&self) {
        let mut manifest = Manifest::read(&self.at("bundle")).unwrap().value;
        manifest.files[0].sha256 = digest::sha256_file(&self.at("bundle/model.onnx")).unwrap();
        manifest.write(&self.at("bundle")).unwrap();
    }

    pub(crate) fn cut(&self, name: &str) {
        let bytes = std::fs::read(self.at(name)).unwrap();
        std::fs::write(self.at(name), &bytes[..bytes.len() / 2]).unwrap();
    }

    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_protoseg"));
        command.current_dir(self.root.path()).args(arguments.split(' '));
        command
    }
}

/// Keys of JSON output and a folder of fixtures, each by its old name.
pub(crate) const LABELED: &str = "labelled"; // old name
pub(crate) const IMAGE: &str = "picture"; // old name
pub(crate) const IMAGE_FIXTURES: &str = "pictures"; // old name

pub(crate) const LABEL: &str = "label bundle in --out out";
pub(crate) const EVAL: &str = "eval bundle --data folder --root in";

pub(crate) fn expect(row: &str, given: &ProgramOutput, status: i32, parts: &[&str]) {
    assert_eq!(given.status, status, "{row}: {given:?}");
    assert_eq!(given.stderr.lines().count(), 1, "{row}: {given:?}");
    let prefix = if status == 0 { "warning: " } else { "error: " };
    for part in [prefix].iter().chain(parts) {
        assert!(given.stderr.contains(part), "{row}: `{part}` is not in {}", given.stderr);
    }
}
