//! Errors of importing a file.

use std::path::PathBuf;

use protoseg_models::bundle::BundleError;
use protoseg_models::bundle_output::BundleOutputError;
use protoseg_models::window::WindowError;

use crate::session::SessionError;

/// Reason why a file cannot be imported. Sizes are height x width in pixels.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The bundle may not be written there.
    #[error(transparent)]
    Place(#[from] BundleOutputError),
    /// ONNX Runtime is missing, or cannot open or run the file.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file of another kind.
    #[error("{} is {kind}", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// Its kind, and the way out.
        kind: &'static str,
    },
    /// A file that ends too early.
    #[error(
        "{} cannot be opened as an ONNX model: it is cut short, or not an ONNX file ({bytes} bytes); copy or download it again", path.display()
    )]
    CutShort {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// A file that ONNX Runtime does not open, for a known reason.
    #[error("{source}; {way}")]
    Open {
        /// The error.
        source: SessionError,
        /// The way out.
        way: &'static str,
    },
    /// Inputs or outputs that protoseg does not take.
    #[error("{0}")]
    Signature(String),
    /// Logits of another number of classes than the table's.
    #[error(
        "the file gives logits of {found} classes, and --classes names {expected}: name a class for each channel, in their order{}",
        match found.checked_sub(*expected) {
            Some(1) => ", the background too, often the first",
            None if found + 1 == *expected => "; a background without a channel cannot be told from the others: export it with one",
            _ => "",
        }
    )]
    Classes {
        /// Classes of the logits.
        found: usize,
        /// Classes of the table.
        expected: usize,
    },
    /// Options that do not fit the file.
    #[error("{0}")]
    Options(String),
    /// Windows that do not fit the grid.
    #[error(transparent)]
    WindowSize(#[from] WindowError),
    /// Windows whose logits have another stride than those of other sizes.
    #[error(
        "windows of {size} pixels give logits that are not 1/{stride} of their size, as those of other sizes are: choose another size"
    )]
    Window {
        /// Side of the windows.
        size: usize,
        /// Pixels per logit.
        stride: usize,
    },
    /// The trial run fails.
    #[error(
        "the trial on a synthetic image of {}x{} (height x width) failed: {source}; if the network takes other sizes only, say so with \
         --multiple N, or --size HEIGHTxWIDTH for a single one", size[0], size[1]
    )]
    Trial {
        /// Height and width.
        size: [usize; 2],
        /// The error.
        source: SessionError,
    },
    /// Logits that are NaN or infinite.
    #[error(
        "the file gives logits that are not finite for a synthetic image of {}x{}: its weights or its normalization are at fault",
        .0[0], .0[1]
    )]
    NotFinite([usize; 2]),
    /// An output whose shape does not belong to one image.
    #[error(
        "the file gives `{output}` of shape {found:?} for one image of {}x{}, which is neither logits (one for each class over the image) \
         nor labels; name another with --output, or cut the file so that one comes out", size[0], size[1]
    )]
    Grid {
        /// Height and width.
        size: [usize; 2],
        /// The shape.
        found: Vec<usize>,
        /// Name of the output.
        output: String,
    },
    /// Logits without a common stride.
    #[error(
        "the file gives logits of {found} (height x width), which fits no whole stride of 1 to 64 pixels; where corner logits lie on corner \
         pixels, say --align-corners, else leave it out; a network that pads to its own multiple needs --multiple"
    )]
    Stride {
        /// Sizes of logits and of the images that they came from.
        found: String,
    },
    /// A file with weights that cannot be taken along.
    #[error("the file keeps weights in `{name}`, which {reason}")]
    ExternalData {
        /// Its name in the ONNX file.
        name: String,
        /// The reason, after the name.
        reason: String,
    },
    /// A copy that does not open.
    #[error("{} opens in its folder, but not in the bundle: {source}", path.display())]
    Alone {
        /// The file.
        path: PathBuf,
        /// The error.
        source: SessionError,
    },
    /// A file of the bundle that cannot be written.
    #[error("{} could not be written: {source}", out.display())]
    Write {
        /// The bundle.
        out: PathBuf,
        /// The error.
        source: BundleError,
    },
    /// The folder cannot be put into place.
    #[error("the bundle could not be written: {0}")]
    Folder(#[from] std::io::Error),
}

impl ImportError {
    /// True where another way to read the input changes nothing.
    pub(super) fn is_final(&self) -> bool {
        !matches!(
            self,
            Self::Trial { .. }
                | Self::Stride { .. }
                | Self::Grid { .. }
                | Self::Classes { .. }
                | Self::Signature(_)
        )
    }
}
