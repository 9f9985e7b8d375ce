//! `protoseg import`: makes a bundle of another program's ONNX file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use protoseg_infer::import::{
    ImportError, ImportOptions, ImportedBundle, LabelChoice, load_classes, write_bundle,
};
use protoseg_infer::session;
use protoseg_models::adapter::{ChannelOrder, Normalization};
use protoseg_models::bundle::{Manifest, ModelFile, signature};
use protoseg_models::classes::{Class, ClassTable};
use protoseg_models::interface::{Fit, OutputLayout, ScoreKind};
use protoseg_models::scaling::{Resample, Scaling};
use protoseg_models::variant::{ModelKind, Precision};
use protoseg_models::window::{Tiling, Window};

use super::engine_args::precisions;
use super::reading_args::ReadingArgs;
use super::{CommandError, CommandOutcome, OrUsage, print};

/// Make a bundle of another program's segmentation ONNX file
///
/// Input: one image of three channels or one, in any order of dimensions and of any element type.
/// Output: scores for each class, one channel of scores for two classes, or labels; at any
/// resolution. What the file leaves open or says wrongly is found by trial runs, and said. The file
/// is copied unchanged, with the files that hold its weights. The manifest adds preprocessing and
/// classes, and the probe holds the model's outputs for two synthetic scenes, by which `protoseg
/// check` compares another machine with this one.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// ONNX file
    model: PathBuf,
    /// Classes in order of channels or labels: cityscapes, camvid, voc, or a file
    ///
    /// The file is JSON, [{"name": "road", "color": [128, 64, 128]}, …], COCO's categories or a
    /// config.json with id2label, or text with a class a line: `id name red green blue`, `red green
    /// blue name`, a row with commas, a name, or a line of labelmap.txt. A background is added to a
    /// single class.
    #[arg(long, value_name = "NAME|FILE")]
    classes: PathBuf,
    /// Bundle folder to write; replaces an older bundle
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name of the model [default: the file's name]
    #[arg(long)]
    name: Option<String>,
    /// Output with logits or labels [default: the only possible one]
    #[arg(long, value_name = "NAME", help_heading = "Output")]
    output: Option<String>,
    /// Order of the output's dimensions, such as nchw or nhwc [default: by its shape and by trial]
    #[arg(long, value_name = "ORDER", help_heading = "Output")]
    output_layout: Option<OutputLayout>,
    /// Meaning of the scores: logits, log-probabilities, log-sigmoid, probabilities or unscaled [default: by trial]
    #[arg(long, value_name = "KIND", help_heading = "Output")]
    scores: Option<ScoreKind>,
    /// Score of one channel above which a pixel is of class 1 [default: that of one half]
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true, value_parser = parse_finite, help_heading = "Output")]
    threshold: Option<f32>,
    /// Values of labels: positions or ids of the classes, or a value for each [default: by trial]
    #[arg(long, value_name = "positions|ids|V,V,…", value_parser = parse_label_values, help_heading = "Output")]
    label_values: Option<LabelChoice>,
    /// Channel order of the input [default: that of preprocessor_config.json, else rgb]
    #[arg(long, value_parser = channel_orders(), help_heading = "Preprocessing")]
    order: Option<ChannelOrder>,
    /// Normalization of float inputs
    #[arg(long, value_enum, conflicts_with_all = ["mean", "std", "scale"], help_heading = "Preprocessing")]
    normalization: Option<NormalizationPreset>,
    /// Mean of red, green and blue, or one for all: a byte becomes (byte / SCALE - MEAN) / STD
    #[arg(long, value_name = "R,G,B", value_parser = parse_rgb, requires = "std", help_heading = "Preprocessing")]
    mean: Option<[f32; 3]>,
    /// Standard deviation of red, green and blue, or one for all, in units of the mean
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
    /// Sliding window, or `whole` images [default: windows for files of one size]
    #[arg(long, value_name = "SIZE:STRIDE|whole", value_parser = parse_windows, help_heading = "Geometry")]
    window: Option<Windows>,
    /// Size that the network takes, where the file leaves it open
    #[arg(long, value_name = "HEIGHTxWIDTH", value_parser = parse_size, help_heading = "Geometry")]
    size: Option<[usize; 2]>,
    /// Way of images of other sizes: window, resize, letterbox or pad
    ///
    /// Labels have the size of the image in any case. The default is windows, and resizing for
    /// labels and where preprocessor_config.json beside the file says so.
    #[arg(long, value_name = "WAY", help_heading = "Geometry")]
    fit: Option<Fit>,
    /// Scale images so that their shorter side has so many pixels, and the longer at most as many as
    /// stand behind a colon; for files that take any size
    #[arg(long, value_name = "SHORTER[:LONGER]", value_parser = parse_edge, conflicts_with_all = ["fit", "size"], help_heading = "Geometry")]
    edge: Option<Scaling>,
    /// Filter of scaled images: nearest, box, bilinear, hamming, bicubic or lanczos [default: that of
    /// preprocessor_config.json, else bilinear]
    #[arg(long, value_name = "FILTER", help_heading = "Geometry")]
    resample: Option<Resample>,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Precision of the weights, which sets the limits of `protoseg check`
    #[arg(long, value_parser = precisions(), default_value = "fp32")]
    precision: Precision,
}

/// Windows of an option: square or whole, or oblong along height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Windows {
    Tiling(Tiling),
    Oblong([Window; 2]),
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
    let (request, remark) = request(arguments).or_usage()?;
    session::load_runtime().or_usage()?;
    let written = write_bundle(&arguments.model, &arguments.out, &request).map_err(|error| {
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
    let ImportedBundle { manifest, remarks } = written;
    for file in &manifest.files {
        print(describe(&manifest, file))?;
    }
    print(describe_classes(&manifest.model.classes))?;
    for remark in remark.into_iter().chain(remarks) {
        print(remark)?;
    }
    Ok(CommandOutcome::Success)
}

/// Returns the options, and what was added to the classes.
fn request(arguments: &ImportArgs) -> anyhow::Result<(ImportOptions, Option<String>)> {
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
    let classes = load_classes(classes)?;
    let (tiling, oblong) = match arguments.window {
        None => (None, None),
        Some(Windows::Tiling(tiling)) => (Some(tiling), None),
        Some(Windows::Oblong(windows)) => (None, Some(windows)),
    };
    let options = ImportOptions {
        name,
        classes: classes.table,
        output: output.clone(),
        output_layout: arguments.output_layout,
        order: *order,
        normalization,
        align_corners: arguments.align_corners,
        multiple: arguments.multiple,
        size: arguments.size,
        fit: arguments.fit.or(arguments.edge.map(Fit::Scale)),
        resample: arguments.resample,
        tiling,
        oblong,
        scores: arguments.scores,
        threshold: arguments.threshold,
        labels: arguments.label_values.clone(),
        precision: arguments.precision,
        reading: arguments.reading.reading(),
        command: command(),
    };
    Ok((options, classes.remark))
}

/// Inputs, outputs and geometry of the imported file, for the user to review.
fn describe(manifest: &Manifest, file: &ModelFile) -> String {
    let ModelFile { file, variant, inputs, outputs, adapter, .. } = file;
    let (kind, precision) = (variant.kind.name(), variant.precision.name());
    let (inputs, outputs) = (signature(inputs), signature(outputs));
    let (grid, window) = (manifest.model.grid, manifest.model.window);
    let output = adapter.as_ref().map_or("", |adapter| &adapter.output);
    let interface = adapter.as_ref().map(|adapter| &adapter.interface);
    let scores = match interface.map(|interface| interface.scores).unwrap_or_default() {
        ScoreKind::Unscaled => "scores",
        kind => kind.name(),
    };
    let meaning = match variant.kind {
        ModelKind::Labels => format!("`{output}` gives labels"),
        ModelKind::Logits | ModelKind::Frame
            if interface.is_some_and(|interface| interface.covers) =>
        {
            format!("`{output}` gives {scores} over the whole image, at no whole stride")
        }
        ModelKind::Logits | ModelKind::Frame if grid.stride == 1 => {
            format!("`{output}` gives {scores} for every pixel")
        }
        ModelKind::Logits | ModelKind::Frame => {
            format!("`{output}` gives {scores} at stride {}", grid.stride)
        }
    };
    let size = adapter.as_ref().and_then(|adapter| adapter.size);
    let oblong = interface.and_then(|interface| interface.windows);
    let fit = interface.map_or(Fit::Window, |interface| interface.fit);
    let scaled = match fit {
        Fit::Scale(scaling) => format!("images scaled {scaling}"),
        _ => String::new(),
    };
    let tiling = match (window, size) {
        (None, None) if matches!(fit, Fit::Scale(_)) => scaled,
        (Some(_), _) => format!("windows of {}", Tiling::from(window)),
        (None, Some([height, width])) => match (oblong, fit) {
            (Some([down, right]), _) => {
                format!("windows of {height}x{width}, {}x{} apart", down.stride, right.stride)
            }
            (None, Fit::Window) => format!("images of {height}x{width} only"),
            (None, fit) => format!("{} to {height}x{width}", fit.name()),
        },
        (None, None) if grid.encoder_stride == 1 => match interface.map(|found| found.sides) {
            Some([Some(height), None]) => format!("whole images {height} pixels high"),
            Some([None, Some(width)]) => format!("whole images {width} pixels wide"),
            _ => "whole images".to_owned(),
        },
        (None, None) => {
            let more = if grid.align_corners { " and one more" } else { "" };
            format!("whole images, padded to multiples of {} pixels{more}", grid.encoder_stride)
        }
    };
    format!("{file}  {kind}  {precision}  {inputs} -> {outputs}\n{meaning}; {tiling}")
}

/// The classes that were taken, in one line: their number, the first names, and the ids where they
/// are not positions.
fn describe_classes(classes: &ClassTable) -> String {
    const MOST: usize = 8;
    let is_plain = classes.has_train_ids();
    let class = |class: &Class| match is_plain {
        true => format!("`{}`", class.name),
        false => format!("{} `{}`", class.source_id, class.name),
    };
    let first: Vec<String> = classes.classes().iter().take(MOST).map(class).collect();
    let ids = if is_plain { "" } else { " with ids" };
    let more = match classes.count().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{} classes{ids}: {}{more}", classes.count(), first.join(", "))
}

fn channel_orders() -> impl TypedValueParser<Value = ChannelOrder> {
    PossibleValuesParser::new(["rgb", "bgr"]).map(|name| match name.as_str() {
        "bgr" => ChannelOrder::Bgr,
        _ => ChannelOrder::Rgb,
    })
}

/// Parses three numbers such as `0.485,0.456,0.406`, or one for all channels.
fn parse_rgb(text: &str) -> Result<[f32; 3], String> {
    let numbers: Option<Vec<f32>> =
        text.split(',').map(|number| number.trim().parse().ok()).collect();
    let numbers = numbers.and_then(|numbers| match numbers[..] {
        [one] => Some([one; 3]),
        [red, green, blue] => Some([red, green, blue]),
        _ => None,
    });
    numbers
        .ok_or_else(|| "write three numbers, such as 0.485,0.456,0.406, or one for all".to_owned())
}

fn parse_finite(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number: &f32| number.is_finite());
    number.ok_or_else(|| "write a number such as 0.5".to_owned())
}

/// Parses `positions`, `ids` or a list of values.
fn parse_label_values(text: &str) -> Result<LabelChoice, String> {
    match text {
        "positions" => Ok(LabelChoice::Positions),
        "ids" => Ok(LabelChoice::Ids),
        list => {
            let values: Option<Vec<i64>> =
                list.split(',').map(|value| value.trim().parse().ok()).collect();
            let values = values.ok_or("write positions, ids, or values such as 0,255")?;
            let distinct: BTreeSet<i64> = values.iter().copied().collect();
            if distinct.len() < values.len() {
                return Err("a value stands for two classes".to_owned());
            }
            Ok(LabelChoice::Values(values))
        }
    }
}

/// Parses `512x1024`, height and width.
fn parse_size(text: &str) -> Result<[usize; 2], String> {
    let side = |text: &str| text.trim().parse().ok().filter(|side| (1..=16_384).contains(side));
    let size = text.split_once('x').and_then(|(height, width)| Some([side(height)?, side(width)?]));
    size.ok_or_else(|| "write HEIGHTxWIDTH in pixels, such as 512x1024".to_owned())
}

/// Parses `512` or `512:2048`, the shorter side and the most of the longer.
fn parse_edge(text: &str) -> Result<Scaling, String> {
    let side = |text: &str| text.trim().parse().ok().filter(|side| (1..=16_384).contains(side));
    let edge = match text.split_once(':') {
        None => side(text).map(|shortest| (shortest, None)),
        Some((shortest, longest)) => {
            let longest = side(longest);
            side(shortest).filter(|_| longest.is_some()).map(|shortest| (shortest, longest))
        }
    };
    edge.filter(|(shortest, longest)| longest.is_none_or(|longest| longest >= *shortest))
        .map(|(shortest, longest)| Scaling::Edge { shortest, longest })
        .ok_or_else(|| {
            "write SHORTER or SHORTER:LONGER in pixels, such as 512 or 512:2048".to_owned()
        })
}

/// Parses `whole`, `512:384`, or `512x1024:384` for oblong windows.
fn parse_windows(text: &str) -> Result<Windows, String> {
    let Some((size, stride)) = text.split_once(':').filter(|(size, _)| size.contains('x')) else {
        let error = |_| "write `whole`, SIZE:STRIDE such as 768:512, or 512x1024:384".to_owned();
        return text.parse().map(Windows::Tiling).map_err(error);
    };
    let stride = stride.parse().map_err(|_| "write a stride in pixels, such as 512x1024:384")?;
    let [down, right] = parse_size(size)?.map(|size| Window { size, stride });
    Ok(match down == right {
        true => Windows::Tiling(Tiling::Windows(down)),
        false => Windows::Oblong([down, right]),
    })
}

/// The command line, for the bundle's provenance.
fn command() -> String {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let words = words.map(|word| if word.contains(' ') { format!("'{word}'") } else { word });
    std::iter::once("protoseg".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}
