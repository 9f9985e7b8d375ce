//! What a bundle's maker decides.

use std::num::NonZeroUsize;
use std::str::FromStr;

use anyhow::{Result, ensure};
use protoseg_models::bundle::Model;
use protoseg_models::variant::FrameSpec;
use protoseg_models::window::{MIN_SIDE, Tiling, WindowPlan};

use crate::onnx::pixel_outputs::PixelOutput;
use crate::precision::{ExportPrecision, QuantizeOverrides};

/// Pixels of a frame file's longest side. The scores of all classes at full size are one tensor there.
const LONGEST_SIDE: usize = 8192;

/// What a bundle's maker decides.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportOptions {
    /// What the model is called; none for the checkpoint's name.
    pub name: Option<String>,
    /// In which pieces pictures are run; none for the checkpoint's.
    pub window: Option<Tiling>,
    /// What comes out beside the logits: nodes under their own names, `features`, and pixel_outputs by theirs.
    pub outputs: Vec<String>,
    /// Whether model files say how sure the prototypes are of each label.
    pub prototype_confidence: bool,
    /// In which precisions the network is written; the first file is the one that runs where nobody says otherwise.
    pub precisions: Vec<ExportPrecision>,
    /// How 8-bit files are made.
    pub choices: QuantizeOverrides,
    /// Frames that get a file of their own.
    pub frames: Vec<FrameOption>,
    /// What frame files say of every pixel beside labels and confidence.
    pub pixel_outputs: Vec<PixelOutput>,
    /// Bytes of weights from which on they lie in a file beside the ONNX file; none for [`EXTERNAL_FROM`](crate::onnx::file::EXTERNAL_FROM).
    pub external_from: Option<u64>,
    /// How the model comes into a model repository for Triton; none for no repository.
    pub triton: Option<LinkMode>,
    /// Whether to write, beside each model file, one in which every node's value comes out.
    pub taps: bool,
    /// The command, for the manifest.
    pub command: String,
}

impl ExportOptions {
    /// Refuses what cannot be meant.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { precisions, choices, frames, .. } = self;
        ensure!(
            !precisions.is_empty(),
            "no precision is asked for; ask for one at least, such as fp32"
        );
        for (index, twice) in precisions.iter().enumerate() {
            ensure!(
                !precisions[..index].contains(twice),
                "the precision {twice} is asked for twice"
            );
        }
        ensure!(
            choices.weight_bits.is_none() || precisions.contains(&ExportPrecision::Int8),
            "the bits of weights are for int8, which is not asked for; add it to --precision"
        );
        ensure!(
            choices.max_sensitivity.is_none()
                || precisions.iter().any(|precisions| precisions.is_int8()),
            "the limit of sensitivities is for int8 and int8-trt, which are not asked for; add one to --precision"
        );
        for (index, FrameOption { height, width, .. }) in frames.iter().enumerate() {
            let twice = frames[..index]
                .iter()
                .any(|other| [other.height, other.width] == [*height, *width]);
            ensure!(
                !twice,
                "frames of {height}x{width} are asked for twice, and there is one file for them"
            );
        }
        ensure!(
            self.pixel_outputs.is_empty() || !frames.is_empty(),
            "what is decided of every pixel goes into frame files, of which none is asked for; add --frame, or ask for it as \
             an --output of the model files"
        );
        ensure!(
            frames.is_empty() || precisions.iter().any(|precisions| !precisions.is_int8()),
            "frame files count in floats, and only 8-bit files are asked for; add fp32 or fp16 to --precision"
        );
        let named = |name: &String| !name.trim().is_empty() && !name.contains(char::is_control);
        ensure!(
            self.name.as_ref().is_none_or(named),
            "the name is blank or holds characters that no line shows; leave out --name to call the model as the checkpoint is"
        );
        Ok(())
    }
}

/// How a file comes to a second place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LinkMode {
    /// A hard link: no room, but gone where the folder is copied to another disk file by file.
    Link,
    /// A copy.
    Copy,
}

/// A frame size that gets a file: `HEIGHTxWIDTH`, or `HEIGHTxWIDTH:COUNT` where the network shall take no more than so
/// many windows at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameOption {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Most windows at once; none for all of them.
    pub at_once: Option<NonZeroUsize>,
}

/// Not the size of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "write HEIGHTxWIDTH in pixels such as 1024x2048, and :COUNT behind it for the most windows at once"
)]
pub struct ParseFrameOptionError;

impl FromStr for FrameOption {
    type Err = ParseFrameOptionError;

    fn from_str(text: &str) -> Result<Self, ParseFrameOptionError> {
        let (size, at_once) =
            text.split_once(':').map_or((text, None), |(size, count)| (size, Some(count)));
        let (height, width) = size.split_once('x').ok_or(ParseFrameOptionError)?;
        let number = |text: &str| text.parse::<NonZeroUsize>().map_err(|_| ParseFrameOptionError);
        let at_once = at_once.map(number).transpose()?;
        Ok(Self { height: number(height)?.get(), width: number(width)?.get(), at_once })
    }
}

impl FrameOption {
    /// The frame with the model's windows.
    pub(crate) fn form(self, model: &Model) -> Result<FrameSpec> {
        let Self { height, width, at_once } = self;
        ensure!(
            height.max(width) <= LONGEST_SIDE,
            "a frame of {height}x{width} pixels is too large for one graph; the longest side is {LONGEST_SIDE}"
        );
        let windows = match model.window {
            None => {
                ensure!(
                    height.min(width) >= MIN_SIDE,
                    "a frame of {height}x{width} pixels is too small to be run whole: {MIN_SIDE} are the least of a side"
                );
                ensure!(
                    at_once.is_none(),
                    "frames are run whole, not in windows of which some are run at once: leave out :COUNT"
                );
                1
            }
            Some(window) => WindowPlan::new(height, width, window, model.grid)?.count(),
        };
        let windows_at_once = at_once.map_or(windows, |at_once| at_once.get().min(windows));
        Ok(FrameSpec { height, width, tiling: model.window.into(), windows_at_once })
    }
}
