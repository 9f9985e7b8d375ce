//! Why labels cannot be had in a format.

use std::path::PathBuf;

use zip::result::ZipError;

use crate::label_map::LabelMapError;

/// Why labels cannot be had in a format.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The file being written.
    #[error("writing failed: {0}")]
    Write(#[from] std::io::Error),
    /// A file that is read, or was to be written by name.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A label file that cannot be read or encoded.
    #[error(transparent)]
    LabelMap(#[from] LabelMapError),
    /// A picture that the format cannot name.
    #[error("the picture `{}` {reason}; rename it, or leave the format out", name.display())]
    Name {
        /// Its name.
        name: PathBuf,
        /// Why the format cannot hold it.
        reason: &'static str,
    },
    /// A class that the format cannot name.
    #[error("the class `{class}` {reason}; name it otherwise, or leave the format out")]
    Class {
        /// Its name.
        class: String,
        /// Why the format cannot hold it.
        reason: &'static str,
    },
    /// Labels or confidence of another number than pixels.
    #[error("{}: {found} bytes for {width}x{height} pixels", name.display())]
    Size {
        /// The picture.
        name: PathBuf,
        /// Its width.
        width: usize,
        /// Its height.
        height: usize,
        /// How many bytes there are.
        found: usize,
    },
    /// More pixels than the format can count.
    #[error("{} has {pixels} pixels, and the format counts no more than {limit}; leave it out", name.display())]
    TooLarge {
        /// The picture.
        name: PathBuf,
        /// How many it has.
        pixels: usize,
        /// How many are possible.
        limit: usize,
    },
    /// A label that is no class.
    #[error("{}: the label {label} at row {row}, column {column}, where there are {classes} classes", name.display())]
    Label {
        /// The picture.
        name: PathBuf,
        /// What stands there.
        label: u8,
        /// Counted from 0.
        row: usize,
        /// Counted from 0.
        column: usize,
        /// How many classes there are.
        classes: usize,
    },
    /// The archive could not be written.
    #[error("writing the archive failed: {0}")]
    Zip(#[source] ZipError),
}

impl From<ZipError> for FormatError {
    fn from(error: ZipError) -> Self {
        match error {
            ZipError::Io(source) => Self::Write(source),
            other => Self::Zip(other),
        }
    }
}
