//! Errors of opening a segmenter and of segmenting an image.

use std::path::PathBuf;

use protoseg_models::bundle::BundleError;
use protoseg_models::variant::Precision;
use protoseg_models::window::WindowError;

use crate::session::SessionError;

/// Reason why a segmenter cannot be opened, or an image not be segmented.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// ONNX Runtime or the ONNX file fails.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A bundle without a file of the `logits` or `labels` kind.
    #[error("{} holds no model file of the kind `logits` or `labels`; export the bundle again", .0.display())]
    NoModelFile(PathBuf),
    /// A bundle without a file in the chosen precision.
    #[error(
        "{} holds no model file in {}; it has {known}: export the bundle again with --precision {}", path.display(), precision.name(), precision.name()
    )]
    NoPrecision {
        /// The bundle's folder.
        path: PathBuf,
        /// The chosen precision.
        precision: Precision,
        /// Precisions of the bundle.
        known: String,
    },
    /// A precision asked of a single ONNX file.
    #[error("{} is a single file, and its precision is its own: leave out --precision, or name a bundle folder", .0.display())]
    SinglePrecision(PathBuf),
    /// A single ONNX file without a description of its model.
    #[error("{} does not say which classes it knows; name a bundle folder, or an ONNX file that `protoseg export` wrote", .0.display())]
    NoMetadata(PathBuf),
    /// A file of another kind.
    #[error("{} is not an ONNX file; name one that `protoseg export` wrote, or a bundle folder", .0.display())]
    NotOnnx(PathBuf),
    /// 8 bits asked of a file that computes in floats.
    #[error(
        "{0} computes in floats, and 8 bits without calibration would spoil it: leave out --trt-int8, or run a file of `protoseg export \
         --precision int8-trt`"
    )]
    NotQuantized(String),
    /// Windows that the network does not take.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// The system gives no more threads.
    #[error("no thread could be started for the model")]
    Threads(#[source] std::io::Error),
    /// An image without pixels.
    #[error("the image has no pixels")]
    Empty,
    /// An array whose last axis is not RGB.
    #[error("the image has {0} channels; pass RGB, [height, width, 3]")]
    Channels(usize),
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
    /// A file whose logits have another number of classes than its description.
    #[error("{} gives logits of {found} classes where its description names {expected}; export the bundle again", path.display())]
    Classes {
        /// The bundle or file.
        path: PathBuf,
        /// Classes of the logits.
        found: usize,
        /// Classes of the description.
        expected: usize,
    },
    /// An image whose windows or logits do not fit into memory.
    #[error("an image of {width}x{height} pixels, run as asked for, does not fit into memory")]
    TooLarge {
        /// Height of the image.
        height: usize,
        /// Width of the image.
        width: usize,
    },
    /// An output of another shape than the model's description promises.
    #[error(
        "the model returned an output of shape {found:?}, expected {expected:?}; export the bundle again"
    )]
    Shape {
        /// Shape that came, `[n, classes, h, w]`.
        found: Vec<usize>,
        /// Expected shape; 0 where any size will do.
        expected: [usize; 4],
    },
    /// An image or windows of a size that an imported file does not take.
    #[error(
        "{found} pixels do not fit: this model takes {expected} and nothing else (height x width){way}"
    )]
    OneSize {
        /// Size of the image or windows.
        found: String,
        /// Size that the file takes.
        expected: String,
        /// The way out, after a semicolon; empty where there is none.
        way: String,
    },
    /// An image that would be scaled beyond all measure.
    #[error(
        "{}x{} pixels would be scaled to {}x{} (height x width) for this model, which is too large: cut the image into parts of usual \
         proportions, or import the file again with --fit window", size[0], size[1], scaled[0], scaled[1]
    )]
    Scaled {
        /// Height and width of the image.
        size: [usize; 2],
        /// Height and width after scaling.
        scaled: [usize; 2],
    },
    /// Windows for a file that gives labels.
    #[error(
        "this model gives labels, and overlapping windows of labels have no mean: run images `whole`"
    )]
    LabelsInWindows,
    /// Windows for a file whose logits lie at no whole stride.
    #[error(
        "this model gives logits at no whole fraction of its pixels, so windows of them cannot be joined: run images `whole`"
    )]
    CoversInWindows,
    /// An image that comes by rows, for a model that runs images whole.
    #[error(
        "this model runs images whole, and this one is too large for that: choose windows, such as --window 512:384"
    )]
    WholeByRows,
    /// Rows of an image that are not whole, or too few or many.
    #[error("{bytes} bytes up to row {row} are no rows of an image of {width}x{height} pixels")]
    Rows {
        /// Bytes that came at once.
        bytes: usize,
        /// Rows with them.
        row: usize,
        /// Height of the image.
        height: usize,
        /// Width of the image.
        width: usize,
    },
    /// Logits asked of a file that gives labels.
    #[error("this model gives labels and no logits")]
    NoLogits,
    /// Logits that are NaN or infinite.
    #[error(
        "the model returned logits that are not finite: its weights or its precision are at fault"
    )]
    NotFinite,
}

impl SegmentError {
    /// True where the next image would meet the same error: the device is lost.
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::Session(SessionError::DeviceLost { .. }))
    }
}
