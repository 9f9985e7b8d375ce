//! `protoseg-export`: exports a checkpoint folder as an ONNX bundle.

mod gate;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::{CommandFactory, Parser};
use protoseg_export::bundle;
use protoseg_export::options::ExportOptions;
use protoseg_models::atomic;
use protoseg_models::bundle::{Manifest, TUNING, external_data, signature};
use protoseg_models::errors::error_chain;
use protoseg_program::manual;
use protoseg_program::signals::StopSignals;

use gate::{CheckOptions, Judgement, Stop};

/// Export a trained segmentor as an ONNX bundle.
///
/// The bundle is a folder: `model.onnx` (images [N, H, W, 3] as bytes to logits, with batch
/// normalization folded), the same in other precisions (`model.fp16.onnx`, `model.int8.onnx`,
/// `model.int8-trt.onnx`), `probe.safetensors` (libtorch's outputs for a few images) and
/// `manifest.json`. `protoseg check` compares it with libtorch before it takes its place, and
/// `protoseg` runs it.
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

    #[command(flatten)]
    check: CheckOptions,
}

fn main() -> ExitCode {
    let outcome = match manual::write_if_asked(Arguments::command) {
        Ok(true) => Ok(()),
        Ok(false) => run(Arguments::parse()),
        Err(error) => Err(error.into()),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    let stop = error.downcast_ref::<Stop>();
    match stop {
        // The reason is printed.
        Some(Stop::Status(_)) => {}
        Some(stop) => eprintln!("error: {stop}"),
        None => eprintln!("error: {}", error_chain(error.as_ref())),
    }
    ExitCode::from(stop.map_or(1, Stop::exit_status))
}

fn run(Arguments { checkpoint, out, options, check }: Arguments) -> Result<()> {
    let options = ExportOptions { command: command(), ..options };
    let gate = check.gate()?;
    atomic::recover(&out).with_context(|| out.display().to_string())?;
    let tuned = out.join(TUNING).is_file();
    let mut left_out = None;
    let bundle = bundle::prepare(&checkpoint, &out, &options)?;
    let window = bundle.window_reason().to_owned();
    if let Some(other) = bundle.other_reading() {
        eprintln!("note: {other}");
    }
    match gate {
        None => {
            if !bundle.has_probe() {
                eprintln!(
                    "warning: the checkpoint has no probe, so `protoseg check` has nothing to compare with"
                );
            }
            report(&bundle.write(|_, _| Ok(Vec::new()))?, &out)?;
            println_result(&window)?;
        }
        Some(_) if !bundle.has_probe() => {
            return Err(anyhow!(
                "{}: the checkpoint has no probe, so its bundle cannot be checked; --no-check exports without a check",
                out.display()
            ));
        }
        Some(gate) => {
            let signals = StopSignals::catch()?;
            let mut judgement = Judgement::default();
            let manifest = bundle.write(|folder, manifest| {
                report(manifest, folder)?;
                println_result(&window)?;
                judgement = gate.judge(folder, &out, &signals)?;
                Ok(judgement.failed.clone())
            })?;
            print(&judgement.lines)?;
            left_out = (!judgement.failed.is_empty()).then(|| Stop::LeftOut {
                out: out.clone(),
                failed: judgement.failed.join(", "),
                kept: manifest
                    .files
                    .iter()
                    .map(|file| file.file.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            });
        }
    }
    if tuned {
        eprintln!(
            "warning: the tuning of the older bundle was removed with it; run `protoseg tune` again"
        );
    }
    left_out.map_or(Ok(()), |stop| Err(stop.into()))
}

/// Writes a line to the standard output.
fn println_result(line: &str) -> Result<()> {
    print(&format!("{line}\n"))
}

/// Writes text to the standard output.
fn print(text: &str) -> Result<()> {
    io::stdout().lock().write_all(text.as_bytes()).context("cannot write to the standard output")
}

/// Prints one line for each file of a folder: name, kind, precision, size, inputs and outputs.
fn report(manifest: &Manifest, folder: &Path) -> Result<()> {
    let size = |name: &str| {
        let path = folder.join(name);
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
