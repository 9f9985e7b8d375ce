//! `protoseg-export`: a checkpoint folder as an ONNX bundle.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use protoseg_export::bundle;
use protoseg_export::onnx::pixel_outputs::PixelOutput;
use protoseg_export::options::{ExportOptions, FrameOption, LinkMode};
use protoseg_export::precision::{ExportPrecision, QuantizeOverrides};
use protoseg_models::bundle::{Manifest, ModelFile, external_data, signature};
use protoseg_models::errors::error_chain;
use protoseg_models::window::Tiling;

/// Write a trained segmentor as an ONNX bundle.
///
/// The bundle is a folder: `model.onnx` (pictures [N, H, W, 3] as bytes to class scores, batch normalisation folded in),
/// the same in other number formats (`model.fp16.onnx`, `model.int8.onnx`, `model.int8-trt.onnx`), `probe.safetensors`
/// (what libtorch made of a few pictures) and `manifest.json`. `protoseg` runs it, and `protoseg check` holds it against
/// libtorch.
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
    window: Option<Tiling>,

    /// What model files give beside the logits; may be given several times: a node's values under its name, the features
    /// that prototypes saw as `features`, or at the picture's own size labels, confidence, margin
    #[arg(long = "output", value_name = "NAME")]
    outputs: Vec<String>,

    /// Give one more output in model files: how probable the prototypes of training find each label, in steps of 1/255.
    /// Needs a checkpoint that was trained with prototypes
    #[arg(long)]
    prototype_confidence: bool,

    /// Number formats, each a file; the first is the one that `protoseg` runs by default. Those in 8 bits need a checkpoint
    /// that was trained with calibration_pictures above 0
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_value = "fp32")]
    precision: Vec<ExportPrecision>,

    /// Bits of the weights in int8: 7 is right on every processor, 8 only on those with dot products of bytes (VNNI) [default: 7]
    #[arg(long, value_name = "7|8", value_parser = clap::value_parser!(u8).range(7..=8))]
    weight_bits: Option<u8>,

    /// Keep values in floats whose rounding alone moves the logits by more than this share [default: 0.05]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    float_above: Option<f32>,

    /// Frames that get a file of their own, windows and labels inside, such as 1024x2048; with :COUNT, the network takes
    /// no more than so many windows at once, in less memory: its nodes stand in the graph once for every COUNT windows
    #[arg(long = "frame", value_name = "HEIGHTxWIDTH[:COUNT]", value_delimiter = ',')]
    frames: Vec<FrameOption>,

    /// What frame files say of every pixel beside labels and confidence: margin
    #[arg(long = "decide", value_name = "LIST", value_delimiter = ',')]
    pixel_outputs: Vec<PixelOutput>,

    /// Bytes of weights from which on they lie in a file beside the ONNX file, which holds 2 GB at the most
    #[arg(long, value_name = "BYTES")]
    external_from: Option<u64>,

    /// Write a model repository for NVIDIA Triton too, of the first frame file or else of model.onnx, which it links to or
    /// copies
    #[arg(long, value_name = "HOW", num_args = 0..=1, default_missing_value = "link")]
    triton: Option<LinkMode>,

    /// Write taps.onnx too, and one for each other number format, in which every node's value comes out: `protoseg check
    /// --taps` compares those of fp32 with each other's, so --precision must name another beside fp32
    #[arg(long)]
    taps: bool,
}

fn share(text: &str) -> Result<f32, String> {
    let share: f32 = text.parse().map_err(|_| "not a number".to_owned())?;
    if share >= 0.0 { Ok(share) } else { Err("a share is 0 or more".to_owned()) }
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

fn run(arguments: Arguments) -> Result<()> {
    let Arguments {
        checkpoint,
        out,
        name,
        window,
        outputs,
        precision,
        weight_bits,
        float_above,
        ..
    } = arguments;
    let Arguments {
        prototype_confidence, frames, pixel_outputs, external_from, triton, taps, ..
    } = arguments;
    let request = ExportOptions {
        name,
        window,
        outputs,
        prototype_confidence,
        precisions: precision,
        choices: QuantizeOverrides { weight_bits, max_sensitivity: float_above },
        frames,
        pixel_outputs,
        external_from,
        triton,
        taps,
        command: command(),
    };
    let manifest = bundle::write(&checkpoint, &out, &request)?;
    if manifest.probe_sha256.is_none() {
        eprintln!(
            "warning: the checkpoint holds no probe, so `protoseg check` has nothing to compare with"
        );
    }
    report(&manifest, &out)
}

/// One line a file: name, kind, precision, size, what goes in and what comes out.
fn report(manifest: &Manifest, out: &Path) -> Result<()> {
    let mut stdout = io::stdout().lock();
    for file in &manifest.files {
        let path = out.join(&file.file);
        let size = |path: &Path| {
            path.metadata().with_context(|| path.display().to_string()).map(|data| data.len())
        };
        let mut bytes = size(&path)?;
        if file.data_sha256.is_some() {
            bytes += size(&out.join(external_data(&file.file)))?;
        }
        let ModelFile { file, variant: form, inputs, outputs, .. } = file;
        let (kind, precision) = (form.kind.name(), form.precision.name());
        let (inputs, outputs) = (signature(inputs), signature(outputs));
        writeln!(
            stdout,
            "{file}  {kind}  {precision}  {:.1} MB  {inputs} -> {outputs}",
            bytes as f64 / 1e6
        )?;
    }
    Ok(())
}

/// The command as a person would type it.
fn command() -> String {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let words = words.map(|word| if word.contains(' ') { format!("'{word}'") } else { word });
    std::iter::once("protoseg export".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}
