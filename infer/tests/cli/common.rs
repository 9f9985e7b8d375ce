//! What the command line tests share: the program, the bundle fixture, pictures whose labels are known.
//!
//! The bundle `fixtures/colors` holds a model made by hand: the mean of 4x4 pixels, then a 1x1 convolution, so that a pixel's
//! class is the largest of red, green and blue.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Rgb, RgbImage};

/// What the program answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the program.
pub(crate) fn protoseg<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Answer {
    answer(Command::new(env!("CARGO_BIN_EXE_protoseg")).args(arguments))
}

pub(crate) fn answer(command: &mut Command) -> Answer {
    let output = command.output().unwrap();
    Answer {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Every file below a folder, relative to it, hidden ones too, in order.
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

/// Stripes of 16 columns in red, green and blue.
pub(crate) fn stripes(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, _| {
        let mut color = [20; 3];
        color[x as usize / 16 % 3] = 220;
        Rgb(color)
    })
}

/// The labels of [`stripes`].
pub(crate) fn stripe_labels(width: u32, height: u32) -> Vec<u8> {
    (0..height).flat_map(|_| (0..width).map(|x| (x / 16 % 3) as u8)).collect()
}
