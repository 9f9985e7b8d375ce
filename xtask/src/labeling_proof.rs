//! `cargo xtask prove labelling`: `protoseg label` beside a careful Python script and PyTorch, in turns, on the same frames.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::run;
use crate::step_proof::torch_python;

/// Turns that each side takes.
const ROUNDS: &str = "3";
/// What `cargo xtask demo` leaves.
const DEMO: [&str; 2] = ["runs/demo/bundle", "runs/demo/checkpoint"];
/// Frames that are drawn where none are named.
const FRAMES: &str = "runs/prove-labelling/frames";

/// Takes a bundle, its checkpoint and a folder of PNG frames; what is not named is the demo's, and drawn.
pub(crate) fn prove(root: &Path, arguments: &[String]) -> Result<()> {
    run::build_programs(root)?;
    let named =
        |index: usize, other: &str| root.join(arguments.get(index).map_or(other, String::as_str));
    let [bundle, checkpoint] = [0, 1].map(|index| named(index, DEMO[index]));
    ensure!(
        bundle.is_dir(),
        "there is no bundle {}; `cargo xtask demo` makes one, or name one",
        bundle.display()
    );
    let frames = if arguments.len() > 2 { named(2, "") } else { draw(root)? };
    let mut pairs = torch_python(root)?;
    pairs.env("ORT_DYLIB_PATH", root.join(".runtime/onnxruntime/libonnxruntime.so"));
    pairs
        .arg(root.join("benches/peers/label_pairs.py"))
        .arg(ROUNDS)
        .arg(run::programs()?.join("protoseg"));
    run::execute(pairs.arg(bundle).arg(frames).arg(checkpoint))
}

/// Eight frames of 1024x2048; returns the folder of the pictures.
pub(crate) fn draw(root: &Path) -> Result<PathBuf> {
    let frames = root.join(FRAMES);
    let mut scenes = run::program(root, "protoseg")?;
    scenes.args(["synth", "--size", "1024x2048", "--count", "8", "--out"]).arg(&frames);
    if !frames.is_dir() {
        run::execute(&mut scenes)?;
    }
    Ok(frames.join("images"))
}
