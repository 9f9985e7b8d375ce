//! Why a file cannot be adopted.

use std::path::PathBuf;

use protoseg_models::bundle::BundleError;
use protoseg_models::bundle_output::BundleOutputError;
use protoseg_models::window::WindowError;

use crate::session::SessionError;

/// Why a file cannot be adopted.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The bundle may not be written there.
    #[error(transparent)]
    Place(#[from] BundleOutputError),
    /// ONNX Runtime is missing, or cannot open the file.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not one input.
    #[error(
        "the file has {count} inputs ({found}), and only files with one, the picture, can be adopted"
    )]
    Inputs {
        /// How many.
        count: usize,
        /// The inputs.
        found: String,
    },
    /// An input that takes no pictures.
    #[error("the input {found} takes no pictures [N, 3, H, W] or [N, H, W, 3]: {reason}")]
    Input {
        /// The input.
        found: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An output that the file does not have.
    #[error("the file has no output `{name}`; it has {known}")]
    NoOutput {
        /// The name asked for.
        name: String,
        /// The outputs.
        known: String,
    },
    /// None or several outputs that may be meant.
    #[error(
        "the file has the outputs {known}; name the one with the logits of {classes} classes or the labels with --output"
    )]
    Ambiguous {
        /// The outputs.
        known: String,
        /// How many classes there are.
        classes: usize,
    },
    /// An output that is neither logits nor labels.
    #[error(
        "the output {found} is neither logits (float32 [N, classes, h, w]) nor labels (int64, int32 or uint8, [N, H, W] or [N, 1, H, W]); \
         name another with --output, or cut the file so that one comes out"
    )]
    Output {
        /// The output.
        found: String,
    },
    /// Logits with the classes last.
    #[error(
        "the output {found} has its classes last, and logits are taken as [N, classes, h, w]: end the file with a Transpose of [0, 3, 1, 2]"
    )]
    ClassesLast {
        /// The output.
        found: String,
    },
    /// Another number of classes than the table's.
    #[error("the file gives scores of {found} classes, and --classes names {expected}")]
    Classes {
        /// Classes of the scores.
        found: usize,
        /// Classes of the table.
        expected: usize,
    },
    /// Floats, and nobody said which.
    #[error(
        "the file takes floats and does not say which: give --normalization imagenet, unit or none, or --mean and --std"
    )]
    NormalizationMissing,
    /// Bytes, and somebody said which floats.
    #[error(
        "the file takes bytes, so it normalises by itself: leave out --normalization, --mean, --std and --scale"
    )]
    NormalizationNeedless,
    /// Aligned corners of labels.
    #[error(
        "--align-corners says how logits lie over pixels, and this file gives labels: leave it out"
    )]
    LabelsAligned,
    /// Windows of labels.
    #[error(
        "the file gives labels, and there is no mean of labels where windows overlap: it can run pictures whole only"
    )]
    LabelsInWindows,
    /// Padding for a file of one size.
    #[error(
        "the file takes pictures of {height}x{width} (height x width) and nothing else, so --multiple has no meaning: leave it out"
    )]
    FixedMultiple {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
    },
    /// Windows of another size than the file takes.
    #[error(
        "windows of {size}x{size} do not fit: the file takes {height}x{width} (height x width) and nothing else"
    )]
    FixedWindow {
        /// Side of the windows asked for.
        size: usize,
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
    },
    /// Windows that do not fit the grid.
    #[error(transparent)]
    WindowSize(#[from] WindowError),
    /// Windows whose logits lie otherwise than those of other sizes.
    #[error(
        "windows of {size} pixels give logits that are not 1/{stride} of their size, as those of other sizes are: choose another size"
    )]
    Window {
        /// Side of the windows.
        size: usize,
        /// Pixels per logit step.
        stride: usize,
    },
    /// The trial failed.
    #[error(
        "the trial on a drawn scene of {height}x{width} (height x width) failed: {source}; if the network takes other sizes only, say so \
         with --multiple"
    )]
    Trial {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
        /// What went wrong.
        source: SessionError,
    },
    /// Scores that are no numbers.
    #[error(
        "the file gives scores that are not finite for a drawn scene of {height}x{width}: its weights or its normalisation are at fault"
    )]
    NotFinite {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
    },
    /// An output of a shape that does not belong to one picture.
    #[error(
        "the file gives {what} of shape {found:?} for one picture of {height}x{width}; labels must be one for every pixel, logits [1, classes, h, w]"
    )]
    Grid {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
        /// The shape.
        found: Vec<usize>,
        /// `labels` or `logits`.
        what: &'static str,
    },
    /// Logits on no grid.
    #[error(
        "the file gives logits of {found} (height x width), which fits no whole stride of 1 to 64 pixels; where corner logits lie on corner \
         pixels, say --align-corners, else leave it out; a network that pads to its own multiple needs --multiple"
    )]
    Stride {
        /// Sizes of logits and of the pictures that they came of.
        found: String,
    },
    /// Weights in other files.
    #[error("{} does not open by itself: it keeps its weights in other files; save it as one (save_as_external_data=False)", .0.display())]
    Parts(PathBuf),
    /// A file of the bundle that could not be written.
    #[error("{} could not be written: {source}", out.display())]
    Write {
        /// The bundle.
        out: PathBuf,
        /// Why.
        source: BundleError,
    },
    /// The folder could not be put into place.
    #[error("the bundle could not be written: {0}")]
    Folder(#[from] std::io::Error),
}
