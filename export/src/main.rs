//! `protoseg-export`: exports a checkpoint folder as an ONNX bundle.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use protoseg_export::bundle;
use protoseg_export::options::ExportOptions;
use protoseg_models::bundle::{Manifest, external_data, signature};
use protoseg_models::errors::error_chain;

/// Export a trained segmentor as an ONNX bundle.
///
/// The bundle is a folder: `model.onnx` (images [N, H, W, 3] as bytes to logits, with batch
/// normalization folded), the same in other precisions (`model.fp16.onnx`, `model.int8.onnx`,
/// `model.int8-trt.onnx`), `probe.safetensors` (libtorch's outputs for a few images) and
/// `manifest.json`. `protoseg` runs it, and `protoseg check` compares it with libtorch.
#[derive(Parser)]
#[command(name = "protoseg-export", version)]
struct Arguments {
    /// Checkpoint folder that training wrote, such as runs/x/checkpoint
    checkpoint: PathBuf,

    /// Folder to write; an older bundle there is replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    #[command(flatten)]
    options: ExportOptions,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error_chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(Arguments { checkpoint, out, options }: Arguments) -> Result<()> {
    let options = ExportOptions { command: command(), ..options };
    let manifest = bundle::write(&checkpoint, &out, &options)?;
    if manifest.probe_sha256.is_none() {
        eprintln!(
            "warning: the checkpoint has no probe, so `protoseg check` has nothing to compare with"
        );
    }
    report(&manifest, &out)
}

/// Prints one line for each file: name, kind, precision, size, inputs and outputs.
fn report(manifest: &Manifest, out: &Path) -> Result<()> {
    let size = |name: &str| {
        let path = out.join(name);
        path.metadata().map(|data| data.len()).with_context(|| path.display().to_string())
    };
    let mut stdout = io::stdout().lock();
    for file in &manifest.files {
        let mut bytes = size(&file.file)?;
        if file.data_sha256.is_some() {
            bytes += size(&external_data(&file.file))?;
        }
        writeln!(
            stdout,
            "{}  {}  {}  {:.1} MB  {} -> {}",
            file.file,
            file.variant.kind.name(),
            file.variant.precision.name(),
            bytes as f64 / 1e6,
            signature(&file.inputs),
            signature(&file.outputs)
        )?;
    }
    Ok(())
}

/// Returns the command line as typed.
fn command() -> String {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let words = words.map(|word| if word.contains(' ') { format!("'{word}'") } else { word });
    std::iter::once("protoseg export".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}
