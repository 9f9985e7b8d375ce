//! Why a segmenter could not be opened, or a picture not be segmented.

use std::path::PathBuf;

use protoseg_models::bundle::BundleError;
use protoseg_models::variant::Precision;
use protoseg_models::window::WindowError;

use crate::session::SessionError;

/// Why a segmenter could not be opened, or a picture not be segmented.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The bundle is wrong.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The runtime or the ONNX file is wrong.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A bundle without a file of the `logits` or `labels` kind.
    #[error("{} holds no model file of the kind `logits` or `labels`; export the bundle again", .0.display())]
    NoLogits(PathBuf),
    /// A bundle without a file of the wanted number format.
    #[error(
        "{} holds no model file in {}; it has {known}: export the bundle again with --precision {}", path.display(), precision.name(), precision.name()
    )]
    NoPrecision {
        /// The bundle's folder.
        path: PathBuf,
        /// What was asked for.
        precision: Precision,
        /// What there is.
        known: String,
    },
    /// A number format asked of an ONNX file by itself.
    #[error("{} is a single file, and its precision is its own: leave out --precision, or name a bundle folder", .0.display())]
    OnePrecision(PathBuf),
    /// An ONNX file by itself that does not say what it is.
    #[error("{} does not say which classes it knows; name a bundle folder, or an ONNX file that `protoseg export` wrote", .0.display())]
    NoMetadata(PathBuf),
    /// A file of another kind.
    #[error("{} is no ONNX file; name one that `protoseg export` wrote, or a bundle folder", .0.display())]
    NoOnnx(PathBuf),
    /// 8 bits asked of a file that counts in floats.
    #[error(
        "{0} counts in floats, and without calibration 8 bits would spoil it: leave out --trt-int8, or run a file of `protoseg export \
         --precision int8-trt`"
    )]
    Floats(String),
    /// Windows that the network cannot take.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// The system gives no more threads.
    #[error("no thread could be started for the model")]
    Threads(#[source] std::io::Error),
    /// A picture without pixels.
    #[error("the picture has no pixels")]
    Empty,
    /// A manifest and a file of different models.
    #[error("the manifest of {} and the file {file} describe different models (their {field}), so one was exchanged; export the bundle again", bundle.display())]
    Different {
        /// The bundle's folder.
        bundle: PathBuf,
        /// The file's name.
        file: String,
        /// The first field in which they differ.
        field: &'static str,
    },
    /// A file whose scores are of another number of classes than its description.
    #[error("{} gives scores of {found} classes where its description names {expected}; export the bundle again", path.display())]
    Classes {
        /// The bundle or file.
        path: PathBuf,
        /// Classes of the scores.
        found: usize,
        /// Classes of the description.
        expected: usize,
    },
    /// A picture whose windows or scores do not fit into memory.
    #[error("a picture of {width}x{height} pixels, run as asked for, does not fit into memory")]
    TooLarge {
        /// Height of the picture.
        height: usize,
        /// Width of the picture.
        width: usize,
    },
    /// Scores of another shape than the model's description promises.
    #[error(
        "the model returned scores of shape {found:?} where {expected:?} was expected; export the bundle again"
    )]
    Shape {
        /// What came, `[n, classes, h, w]`.
        found: Vec<usize>,
        /// What was expected; 0 where any size will do.
        expected: [usize; 4],
    },
    /// A picture or windows of a size that an adopted file does not take.
    #[error(
        "{found} pixels do not fit: this model takes {expected} and nothing else (height x width)"
    )]
    OneSize {
        /// The picture or windows.
        found: String,
        /// What the file takes.
        expected: String,
    },
    /// Windows for a file that gives labels.
    #[error(
        "this model gives labels, and there is no mean of labels where windows overlap: run pictures `whole`"
    )]
    LabelsInWindows,
    /// Scores asked of a file that gives labels.
    #[error("this model gives labels and no scores")]
    NoScores,
    /// Scores that are no numbers.
    #[error(
        "the model returned scores that are not finite: its weights or its number format are at fault"
    )]
    NotFinite,
}

impl SegmentError {
    /// Whether the next picture would meet the same: the device is lost.
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::Session(SessionError::DeviceLost { .. }))
    }
}
