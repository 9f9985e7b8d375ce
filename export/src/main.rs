//! `protoseg-export`: a checkpoint folder as an ONNX bundle.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use protoseg_export::bundle::{self, Request};
use protoseg_models::bundle::{Manifest, ModelFile, list};
use protoseg_models::errors::sentence;
use protoseg_models::window::Pieces;

/// Write a trained segmentor as an ONNX bundle.
///
/// The bundle is a folder: `model.onnx` (pictures [N, H, W, 3] as bytes to class scores, batch normalisation folded in),
/// `probe.safetensors` (what libtorch made of a few pictures) and `manifest.json`. `protoseg` runs it, and
/// `protoseg check` holds it against libtorch.
#[derive(Parser)]
#[command(name = "protoseg-export", version)]
struct Arguments {
    /// The checkpoint folder that training wrote, such as runs/x/checkpoint
    checkpoint: PathBuf,

    /// Folder to write; an older bundle there is replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// What to call the model [default: the checkpoint's name]
    #[arg(long)]
    name: Option<String>,

    /// Windows in which pictures are run, such as 769:512 in pixels, or `whole` for one piece [default: the checkpoint's]
    #[arg(long, value_name = "SIZE:STRIDE")]
    window: Option<Pieces>,

    /// Let a node's output out too, under its name; may be given several times
    #[arg(long = "output", value_name = "NODE")]
    outputs: Vec<String>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", sentence(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let Arguments { checkpoint, out, name, window, outputs } = arguments;
    let request = Request { name, pieces: window, outputs, command: command() };
    let manifest = bundle::write(&checkpoint, &out, &request)?;
    if manifest.probe_sha256.is_none() {
        eprintln!("warning: the checkpoint holds no probe, so `protoseg check` has nothing to compare with");
    }
    report(&manifest, &out)
}

/// One line a file: name, kind, precision, size, what goes in and what comes out.
fn report(manifest: &Manifest, out: &Path) -> Result<()> {
    let mut stdout = io::stdout().lock();
    for file in &manifest.files {
        let path = out.join(&file.file);
        let bytes = path.metadata().with_context(|| path.display().to_string())?.len();
        let ModelFile { file, form, inputs, outputs, .. } = file;
        let (kind, precision) = (form.kind.name(), form.precision.name());
        let (inputs, outputs) = (list(inputs), list(outputs));
        writeln!(stdout, "{file}  {kind}  {precision}  {:.1} MB  {inputs} -> {outputs}", bytes as f64 / 1e6)?;
    }
    Ok(())
}

/// The command as a person would type it.
fn command() -> String {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let words = words.map(|word| if word.contains(' ') { format!("'{word}'") } else { word });
    std::iter::once("protoseg export".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}
