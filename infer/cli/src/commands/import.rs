//! `protoseg import`: makes a bundle of another program's ONNX file.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use protoseg_infer::import::{ImportError, ImportOptions, write_bundle};
use protoseg_infer::session;
use protoseg_models::adapter::{ChannelOrder, Normalization};
use protoseg_models::bundle::{Manifest, ModelFile, signature};
use protoseg_models::classes::ClassTable;
use protoseg_models::variant::{ModelKind, Precision};
use protoseg_models::window::Tiling;

use super::engine_args::precisions;
use super::reading_args::ReadingArgs;
use super::{CommandError, CommandOutcome, OrUsage, print};

/// Make a bundle of another program's segmentation ONNX file
///
/// Input: float32 or uint8 [N, 3, H, W] or [N, H, W, 3], of a fixed or any size. Output: logits
/// [N, classes, h, w] at the image's size or a whole fraction of it, or labels [N, H, W] or
/// [N, 1, H, W]. The file is copied unchanged. The manifest adds preprocessing and classes, and the
/// probe holds the model's outputs for two synthetic scenes, by which `protoseg check` compares
/// another machine with this one.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// ONNX file
    model: PathBuf,
    /// Classes in order of channels or labels: cityscapes, camvid, voc, or a file
    ///
    /// The file is JSON, [{"name": "road", "color": [128, 64, 128]}, …], or text with a class a
    /// line: `id name red green blue`.
    #[arg(long, value_name = "NAME|FILE")]
    classes: PathBuf,
    /// Bundle folder to write; replaces an older bundle
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name of the model [default: the file's name]
    #[arg(long)]
    name: Option<String>,
    /// Output with logits or labels [default: the only possible one]
    #[arg(long, value_name = "NAME")]
    output: Option<String>,
    /// Channel order of the input
    #[arg(long, value_parser = channel_orders(), default_value = "rgb", help_heading = "Preprocessing")]
    order: ChannelOrder,
    /// Normalization of float inputs
    #[arg(long, value_enum, conflicts_with_all = ["mean", "std", "scale"], help_heading = "Preprocessing")]
    normalization: Option<NormalizationPreset>,
    /// Mean of red, green and blue: a byte becomes (byte / SCALE - MEAN) / STD
    #[arg(long, value_name = "R,G,B", value_parser = parse_rgb, requires = "std", help_heading = "Preprocessing")]
    mean: Option<[f32; 3]>,
    /// Standard deviation of red, green and blue, in units of the mean
    #[arg(long, value_name = "R,G,B", value_parser = parse_rgb, requires = "mean", help_heading = "Preprocessing")]
    std: Option<[f32; 3]>,
    /// Divisor of bytes: 255 for means from 0 to 1, 1 for means from 0 to 255
    #[arg(
        long,
        value_name = "SCALE",
        default_value_t = 255.0,
        requires = "mean",
        help_heading = "Preprocessing"
    )]
    scale: f32,
    /// Upsample logits with align_corners [default: half-pixel centers]
    #[arg(long, help_heading = "Geometry")]
    align_corners: bool,
    /// Pad images to multiples of N pixels [default: least power of two that runs]
    ///
    /// With --align-corners to a multiple and one more. For files that take any size.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024), help_heading = "Geometry")]
    multiple: Option<usize>,
    /// Sliding window, or `whole` images [default: windows for files of one square size]
    #[arg(long, value_name = "SIZE:STRIDE|whole", help_heading = "Geometry")]
    window: Option<Tiling>,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Precision of the weights, which sets the limits of `protoseg check`
    #[arg(long, value_parser = precisions(), default_value = "fp32")]
    precision: Precision,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NormalizationPreset {
    /// 0 to 1, minus ImageNet's mean, divided by its standard deviation
    Imagenet,
    /// 0 to 1
    Unit,
    /// 0 to 255
    None,
}

pub(crate) fn run(arguments: &ImportArgs) -> Result<CommandOutcome, CommandError> {
    let request = request(arguments).or_usage()?;
    session::load_runtime().or_usage()?;
    let manifest = write_bundle(&arguments.model, &arguments.out, &request).map_err(|error| {
        match error {
            error @ ImportError::Write { .. } => CommandError::Runtime(error.into()),
            error @ ImportError::Folder(_) => CommandError::Runtime(
                anyhow::Error::from(error).context(arguments.out.display().to_string()),
            ),
            error => {
                let model = arguments.model.display().to_string();
                // Errors about inputs and outputs do not name the file.
                let named = error.to_string().contains(&model);
                let error = anyhow::Error::from(error);
                CommandError::Usage(if named {
                    error
                } else {
                    error.context(format!("{model} cannot be imported"))
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
        .with_context(|| format!("{} is not a file name", model.display()))?;
    if !model.is_file() {
        bail!("{} is not a file; name an ONNX file", model.display());
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
        order: *order,
        normalization,
        align_corners: arguments.align_corners,
        multiple: arguments.multiple,
        tiling: arguments.window,
        precision: arguments.precision,
        reading: arguments.reading.reading(),
        command: command(),
    })
}

/// Inputs, outputs and geometry of the imported file, for the user to review.
fn describe(manifest: &Manifest, file: &ModelFile) -> String {
    let ModelFile { file, variant, inputs, outputs, adapter, .. } = file;
    let (kind, precision) = (variant.kind.name(), variant.precision.name());
    let (inputs, outputs) = (signature(inputs), signature(outputs));
    let (grid, window) = (manifest.model.grid, manifest.model.window);
    let output = adapter.as_ref().map_or("", |adapter| &adapter.output);
    let meaning = match variant.kind {
        ModelKind::Labels => format!("`{output}` gives labels"),
        ModelKind::Logits | ModelKind::Frame if grid.stride == 1 => {
            format!("`{output}` gives logits for every pixel")
        }
        ModelKind::Logits | ModelKind::Frame => {
            format!("`{output}` gives logits at stride {}", grid.stride)
        }
    };
    let size = adapter.as_ref().and_then(|adapter| adapter.size);
    let tiling = match (window, size) {
        (Some(_), _) => format!("windows of {}", Tiling::from(window)),
        (None, Some([height, width])) => format!("images of {height}x{width} only"),
        (None, None) if grid.encoder_stride == 1 => "whole images".to_owned(),
        (None, None) => {
            let more = if grid.align_corners { " and one more" } else { "" };
            format!("whole images, padded to multiples of {} pixels{more}", grid.encoder_stride)
        }
    };
    format!("{file}  {kind}  {precision}  {inputs} -> {outputs}\n{meaning}; {tiling}")
}

fn channel_orders() -> impl TypedValueParser<Value = ChannelOrder> {
    PossibleValuesParser::new(["rgb", "bgr"]).map(|name| match name.as_str() {
        "bgr" => ChannelOrder::Bgr,
        _ => ChannelOrder::Rgb,
    })
}

/// Parses three numbers such as `0.485,0.456,0.406`.
fn parse_rgb(text: &str) -> Result<[f32; 3], String> {
    let numbers: Option<Vec<f32>> =
        text.split(',').map(|number| number.trim().parse().ok()).collect();
    let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
    numbers.ok_or_else(|| "write three numbers, such as 0.485,0.456,0.406".to_owned())
}

/// The command line, for the bundle's provenance.
fn command() -> String {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let words = words.map(|word| if word.contains(' ') { format!("'{word}'") } else { word });
    std::iter::once("protoseg".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}
