//! Errors of a check.

use protoseg_images::labeled::LabeledImageError;
use protoseg_models::bundle::BundleError;
use protoseg_models::metrics::LabelError;

use crate::segmenter::SegmentError;
use crate::session::SessionError;

/// Reason why a file cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A file cannot be run.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A logits file cannot be run on whole images or windows.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// A labeled image cannot be read.
    #[error(transparent)]
    Image(#[from] LabeledImageError),
    /// Labels that do not belong to the image.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// A folder cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A bundle that cannot be checked, or outputs that it should not give.
    #[error("{0}")]
    Invalid(String),
    /// An error, and where it happened.
    #[error("{context}")]
    Context {
        /// The file or image.
        context: String,
        /// The error.
        source: Box<CheckError>,
    },
}

/// Adds where an error happened.
pub(crate) trait WithContext<T> {
    fn context(self, context: impl FnOnce() -> String) -> Result<T, CheckError>;
}

impl<T, E: Into<CheckError>> WithContext<T> for Result<T, E> {
    fn context(self, context: impl FnOnce() -> String) -> Result<T, CheckError> {
        self.map_err(|error| CheckError::Context {
            context: context(),
            source: Box::new(error.into()),
        })
    }
}
