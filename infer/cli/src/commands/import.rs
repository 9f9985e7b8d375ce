//! `protoseg import`: an ONNX file that somebody else made becomes a bundle.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;
use protoseg_infer::import::{ImportError, ImportOptions, write_bundle};
use protoseg_infer::session;
use protoseg_models::adapter::{ChannelOrder, Normalization};
use protoseg_models::bundle::{Manifest, ModelFile, signature};
use protoseg_models::classes::ClassTable;
use protoseg_models::variant::{ModelKind, Precision};
use protoseg_models::window::Tiling;

use super::{CommandError, CommandOutcome, print};

/// Make a bundle of a segmentation ONNX file that another program wrote
///
/// The file takes one picture: floats or bytes, [N, 3, H, W] or [N, H, W, 3], of one size or of any. It gives logits
/// [N, classes, h, w], at the picture's size or a whole fraction of it, or labels [N, H, W] or [N, 1, H, W]. It is copied
/// unchanged; what it does not say of itself goes into the manifest, with its own answers for two drawn scenes, so that
/// `protoseg check` can tell whether another machine computes the same. `protoseg label` and `protoseg eval` then run it.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// The ONNX file
    model: PathBuf,
    /// Its classes, in order of its channels or labels: cityscapes, camvid, voc, or a file. JSON:
    /// [{"name": "road", "color": [128, 64, 128]}, …]; else one class a line: `id name red green blue`
    #[arg(long, value_name = "NAME|FILE")]
    classes: PathBuf,
    /// Folder to write; an older bundle there is replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What to call the model [default: the file's name]
    #[arg(long)]
    name: Option<String>,
    /// The output that counts [default: the only one that can be logits or labels]
    #[arg(long, value_name = "NAME")]
    output: Option<String>,
    /// Order in which colours go in
    #[arg(long, value_enum, default_value = "rgb")]
    order: ChannelOrderArg,
    /// What becomes of a byte before it goes in as a float: `imagenet` (0 to 1, less ImageNet's mean, by its deviation),
    /// `unit` (0 to 1) or `none` (0 to 255)
    #[arg(long, value_enum, conflicts_with_all = ["mean", "std", "scale"])]
    normalization: Option<NormalizationPreset>,
    /// Mean of red, green and blue, whatever the --order: a byte becomes (byte / SCALE - MEAN) / STD
    #[arg(long, value_name = "R,G,B", value_parser = three, requires = "std")]
    mean: Option<[f32; 3]>,
    /// Standard deviation of red, green and blue, in the units of the mean
    #[arg(long, value_name = "R,G,B", value_parser = three, requires = "mean")]
    std: Option<[f32; 3]>,
    /// What bytes are divided by first: 255 for means of 0 to 1, 1 for means of 0 to 255
    #[arg(long, value_name = "SCALE", default_value_t = 255.0, requires = "mean")]
    scale: f32,
    /// Corner logits lie on corner pixels; without, the edges of both coincide (half-pixel centres)
    #[arg(long)]
    align_corners: bool,
    /// Pad pictures to multiples of N pixels (with --align-corners, one more), for a file that takes any size [default: the
    /// least power of two at which the network runs]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    multiple: Option<usize>,
    /// Run pictures in windows of SIZE pixels, STRIDE apart, or `whole` [default: windows where the file takes one square
    /// size, else whole]
    #[arg(long, value_name = "SIZE:STRIDE|whole")]
    window: Option<Tiling>,
    /// Number format of the weights, which decides by how much answers may differ in `protoseg check`
    #[arg(long, value_enum, default_value = "fp32")]
    precision: WeightPrecisionArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ChannelOrderArg {
    Rgb,
    Bgr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NormalizationPreset {
    Imagenet,
    Unit,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WeightPrecisionArg {
    Fp32,
    Fp16,
    Int8,
}

pub(crate) fn run(arguments: &ImportArgs) -> Result<CommandOutcome, CommandError> {
    let request = request(arguments).map_err(CommandError::usage)?;
    session::load_runtime().map_err(CommandError::usage)?;
    let manifest = write_bundle(&arguments.model, &arguments.out, &request).map_err(|error| {
        match error {
            error @ ImportError::Write { .. } => CommandError::Runtime(error.into()),
            error @ ImportError::Folder(_) => CommandError::Runtime(
                anyhow::Error::from(error).context(arguments.out.display().to_string()),
            ),
            error => {
                let model = arguments.model.display().to_string();
                // What is wrong with the file's inputs and outputs does not say whose they are.
                let named = error.to_string().contains(&model);
                let error = anyhow::Error::from(error);
                CommandError::Usage(if named {
                    error
                } else {
                    error.context(format!("{model} cannot be adopted"))
                })
            }
        }
    })?;
    for file in &manifest.files {
        print(describe(&manifest, file))?;
    }
    Ok(CommandOutcome::Success)
}

fn request(arguments: &ImportArgs) -> anyhow::Result<ImportOptions> {
    let ImportArgs { model, classes, name, output, order, normalization, mean, std, scale, .. } =
        arguments;
    let named = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = name
        .clone()
        .or_else(|| named(model))
        .with_context(|| format!("{} names no file", model.display()))?;
    if !model.is_file() {
        bail!("{} is no file: name an ONNX file", model.display());
    }
    let normalization = match (normalization, mean, std) {
        (Some(NormalizationPreset::Imagenet), ..) => Some(Normalization::IMAGENET),
        (Some(NormalizationPreset::Unit), ..) => Some(Normalization::UNIT),
        (Some(NormalizationPreset::None), ..) => Some(Normalization::NONE),
        (None, Some(mean), Some(std)) => Some(Normalization::new(*scale, *mean, *std)?),
        (None, ..) => None,
    };
    Ok(ImportOptions {
        name,
        classes: ClassTable::load(classes)?,
        output: output.clone(),
        order: match order {
            ChannelOrderArg::Rgb => ChannelOrder::Rgb,
            ChannelOrderArg::Bgr => ChannelOrder::Bgr,
        },
        normalization,
        align_corners: arguments.align_corners,
        multiple: arguments.multiple,
        tiling: arguments.window,
        precision: match arguments.precision {
            WeightPrecisionArg::Fp32 => Precision::Fp32,
            WeightPrecisionArg::Fp16 => Precision::Fp16,
            WeightPrecisionArg::Int8 => Precision::Int8,
        },
        command: command(),
    })
}

/// What goes in and comes out, and how pictures will be run: what a person should look over.
fn describe(manifest: &Manifest, file: &ModelFile) -> String {
    let ModelFile { file, variant: form, inputs, outputs, adapter, .. } = file;
    let (kind, precision) = (form.kind.name(), form.precision.name());
    let (inputs, outputs) = (signature(inputs), signature(outputs));
    let (grid, window) = (manifest.model.grid, manifest.model.window);
    let output = adapter.as_ref().map_or("", |adapter| &adapter.output);
    let given = match form.kind {
        ModelKind::Labels => format!("`{output}` gives labels"),
        ModelKind::Logits | ModelKind::Frame if grid.stride == 1 => {
            format!("`{output}` gives logits for every pixel")
        }
        ModelKind::Logits | ModelKind::Frame => {
            format!("`{output}` gives logits for every {} pixels", grid.stride)
        }
    };
    let size = adapter.as_ref().and_then(|adapter| adapter.size);
    let pieces = match (window, size) {
        (Some(_), _) => format!("windows of {}", Tiling::from(window)),
        (None, Some([height, width])) => format!("pictures of {height}x{width} only"),
        (None, None) if grid.encoder_stride == 1 => "whole pictures".to_owned(),
        (None, None) => {
            let more = if grid.align_corners { " and one more" } else { "" };
            format!("whole pictures, padded to multiples of {} pixels{more}", grid.encoder_stride)
        }
    };
    format!("{file}  {kind}  {precision}  {inputs} -> {outputs}\n{given}; {pieces}")
}

/// Three numbers, such as `0.485,0.456,0.406`.
fn three(text: &str) -> Result<[f32; 3], String> {
    let numbers: Option<Vec<f32>> =
        text.split(',').map(|number| number.trim().parse().ok()).collect();
    let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
    numbers.ok_or_else(|| "write three numbers, such as 0.485,0.456,0.406".to_owned())
}

/// The command as a person would type it.
fn command() -> String {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let words = words.map(|word| if word.contains(' ') { format!("'{word}'") } else { word });
    std::iter::once("protoseg".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}
