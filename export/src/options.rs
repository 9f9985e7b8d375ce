//! Options of an export, as the command line parses them.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use protoseg_models::bundle::Model;
use protoseg_models::reading::{Channels, ImageReading, SampleRange};
use protoseg_models::variant::FrameSpec;
use protoseg_models::window::{MIN_SIDE, Tiling, WindowPlan};

use crate::network::PixelOutput;

/// Longest side of a frame file in pixels: the logits of all classes at full size are one tensor.
const LONGEST_SIDE: usize = 8192;

// Options of an export. Not a doc comment: clap would use it as the description of the program.
#[derive(Debug, Clone, PartialEq, Default, clap::Args)]
pub struct ExportOptions {
    /// Name of the model [default: the checkpoint's name]
    #[arg(long)]
    pub name: Option<String>,

    /// Sliding windows in pixels such as 769:512, or `whole` for whole images [default: the
    /// checkpoint's]
    #[arg(long, value_name = "SIZE:STRIDE")]
    pub window: Option<Tiling>,

    /// Further output of model files beside the logits; may be given several times
    ///
    /// A node's name gives its values, `features` the features that prototypes are compared with.
    /// `labels`, `confidence` and `margin` have the size of the image.
    #[arg(long = "output", value_name = "NAME")]
    pub outputs: Vec<String>,

    /// Output the prototypes' probability of each label, in steps of 1/255
    ///
    /// Requires a checkpoint that was trained with prototypes.
    #[arg(long)]
    pub prototype_confidence: bool,

    /// Precisions, one file each; the first is the default of `protoseg`
    ///
    /// 8-bit files require a checkpoint that was trained with calibration_images above 0.
    #[arg(
        long = "precision",
        value_name = "LIST",
        value_enum,
        value_delimiter = ',',
        default_value = "fp32"
    )]
    pub precisions: Vec<ExportPrecision>,

    /// Bits of int8 weights: 7 is right on every processor, 8 only with VNNI [default: 7]
    #[arg(long, value_name = "7|8", value_parser = clap::value_parser!(u8).range(7..=8))]
    pub weight_bits: Option<u8>,

    /// Keep values in floats whose rounding alone changes the logits by a larger share [default:
    /// 0.05]
    #[arg(long = "float-above", value_name = "SHARE", value_parser = share)]
    pub max_sensitivity: Option<f32>,

    /// Frame sizes such as 1024x2048, each with a file from frame to labels
    ///
    /// Windows and upsampling are part of its graph. With :COUNT, the network takes at most COUNT
    /// windows at once and needs less memory; the graph repeats it for every COUNT windows.
    #[arg(long = "frame", value_name = "HEIGHTxWIDTH[:COUNT]", value_delimiter = ',')]
    pub frames: Vec<FrameOption>,

    /// Outputs of frame files beside labels and confidence
    #[arg(long = "decide", value_name = "LIST", value_delimiter = ',')]
    pub pixel_outputs: Vec<PixelOutput>,

    /// Weights of at least so many bytes go into a file beside the ONNX file, whose limit is 2 GB
    #[arg(long, value_name = "BYTES")]
    pub external_from: Option<u64>,

    /// Write a model repository for NVIDIA Triton
    ///
    /// It holds the first frame file, or else model.onnx, as a link or a copy.
    #[arg(long, value_name = "HOW", num_args = 0..=1, default_missing_value = "link")]
    pub triton: Option<LinkMode>,

    /// Write taps.onnx, and one for each other precision, with the value of every node as an output
    ///
    /// `protoseg check --taps` compares those of fp32 with the others, so --precision must name
    /// another precision beside fp32.
    #[arg(long)]
    pub taps: bool,

    /// Channels that programs take of image files, such as 3,2,1 of a satellite's bands, color,
    /// alpha-black or alpha-white [default: those of training]
    #[arg(long, value_name = "CHANNELS", help_heading = "Reading images")]
    pub channels: Option<Channels>,

    /// Values that become black and white in files of more than 8 bits, such as 0:4095 [default:
    /// those of training]
    #[arg(
        long,
        value_name = "LOW:HIGH",
        allow_hyphen_values = true,
        help_heading = "Reading images"
    )]
    pub range: Option<SampleRange>,

    /// The command, for the manifest.
    #[arg(skip)]
    pub command: String,
}

fn share(text: &str) -> Result<f32, String> {
    let share: f32 = text.parse().map_err(|_| "not a number".to_owned())?;
    if share >= 0.0 { Ok(share) } else { Err("a share is 0 or more".to_owned()) }
}

impl ExportOptions {
    /// Returns how image files are read, as far as options say.
    pub(crate) fn reading(&self) -> ImageReading {
        ImageReading { channels: self.channels, range: self.range }
    }

    /// Refuses options that contradict each other or have no effect.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { precisions, frames, .. } = self;
        let int8 = |precision: &ExportPrecision| precision.is_int8();
        ensure!(!precisions.is_empty(), "no precision is given; name at least one, such as fp32");
        for (index, precision) in precisions.iter().enumerate() {
            let again = precisions[..index].contains(precision);
            ensure!(!again, "the precision {precision} is given twice");
        }
        ensure!(
            self.weight_bits.is_none() || precisions.contains(&ExportPrecision::Int8),
            "--weight-bits has no effect without int8; add it to --precision"
        );
        ensure!(
            self.max_sensitivity.is_none() || precisions.iter().any(int8),
            "--float-above has no effect without int8 or int8-trt; add one to --precision"
        );
        for (index, FrameOption { height, width, .. }) in frames.iter().enumerate() {
            let same = |other: &FrameOption| [other.height, other.width] == [*height, *width];
            let again = frames[..index].iter().any(same);
            ensure!(!again, "the frame {height}x{width} is given twice; each size has one file");
        }
        ensure!(
            self.pixel_outputs.is_empty() || !frames.is_empty(),
            "--decide has no effect without frame files; add --frame, or name an --output of the \
             model files"
        );
        ensure!(
            frames.is_empty() || !precisions.iter().all(int8),
            "frame files are in floats, and only 8-bit files are asked for; add fp32 or fp16 to \
             --precision"
        );
        let printable = |name: &String| !name.trim().is_empty() && !name.contains(char::is_control);
        ensure!(
            self.name.as_ref().is_none_or(printable),
            "the name is blank or has control characters; leave out --name for the checkpoint's"
        );
        Ok(())
    }
}

/// Precision and target of a model file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum ExportPrecision {
    /// 32-bit floats
    Fp32,
    /// 16-bit floats, for GPUs
    Fp16,
    /// 8-bit integers, for ONNX Runtime and OpenVINO on CPUs
    Int8,
    /// 8-bit integers symmetric around zero, for TensorRT
    Int8Trt,
}

impl ExportPrecision {
    /// Returns true for integers, which require a calibration.
    pub fn is_int8(self) -> bool {
        matches!(self, Self::Int8 | Self::Int8Trt)
    }

    /// Returns the file name in a bundle.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Fp32 => "model.onnx",
            Self::Fp16 => "model.fp16.onnx",
            Self::Int8 => "model.int8.onnx",
            Self::Int8Trt => "model.int8-trt.onnx",
        }
    }
}

impl fmt::Display for ExportPrecision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
            Self::Int8Trt => "int8-trt",
        })
    }
}

/// How the model file is placed in the Triton repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LinkMode {
    /// A hard link, which takes no space
    Link,
    /// A copy
    Copy,
}

/// A frame size: `HEIGHTxWIDTH`, or `HEIGHTxWIDTH:COUNT` with a limit on windows at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameOption {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Largest number of windows at once; none for all.
    pub max_windows: Option<NonZeroUsize>,
}

/// A malformed frame size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "write HEIGHTxWIDTH in pixels such as 1024x2048, optionally with :COUNT for the windows at once"
)]
pub struct ParseFrameOptionError;

impl FromStr for FrameOption {
    type Err = ParseFrameOptionError;

    fn from_str(text: &str) -> Result<Self, ParseFrameOptionError> {
        let number = |text: &str| text.parse::<NonZeroUsize>().map_err(|_| ParseFrameOptionError);
        let (size, max_windows) = match text.split_once(':') {
            Some((size, count)) => (size, Some(number(count)?)),
            None => (text, None),
        };
        let (height, width) = size.split_once('x').ok_or(ParseFrameOptionError)?;
        Ok(Self { height: number(height)?.get(), width: number(width)?.get(), max_windows })
    }
}

impl FrameOption {
    /// Returns the frame with the windows of a model.
    pub(crate) fn spec(self, model: &Model) -> Result<FrameSpec> {
        let Self { height, width, max_windows } = self;
        ensure!(
            height.max(width) <= LONGEST_SIDE,
            "a frame of {height}x{width} pixels is too large for one graph; the longest side is \
             {LONGEST_SIDE}"
        );
        let windows = match model.window {
            Some(window) => {
                WindowPlan::new([height, width], window, model.grid, model.blend)?.count()
            }
            None => {
                ensure!(
                    height.min(width) >= MIN_SIDE,
                    "a frame of {height}x{width} pixels is too small to be run whole; the shortest \
                     side is {MIN_SIDE}"
                );
                ensure!(
                    max_windows.is_none(),
                    "frames are run whole, without windows: leave out :COUNT"
                );
                1
            }
        };
        let windows_at_once = max_windows.map_or(windows, |most| most.get().min(windows));
        Ok(FrameSpec { height, width, tiling: model.window.into(), windows_at_once })
    }
}
