//! Why ONNX Runtime could not be used, or a file not be run.

use std::path::PathBuf;

use protoseg_models::versioned::JsonError;

use super::LIBRARY_VARIABLE;
use crate::config::Device;

/// Why ONNX Runtime could not be used, or a file not be run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No library in any of the usual places.
    #[error(
        "ONNX Runtime is missing: {LIBRARY_VARIABLE} is not set, and {name} is neither beside the program, nor in ../lib, nor known to the \
         system ({reason}); run `cargo xtask setup`, or set {LIBRARY_VARIABLE} to a {name} of 1.{} or newer",
        ort::MINOR_VERSION
    )]
    Nowhere {
        /// File name of the library.
        name: String,
        /// What the system's loader said.
        reason: String,
    },
    /// The library that somebody named is not there.
    #[error(
        "ONNX Runtime is missing: there is no file {}; run `cargo xtask setup`, or set {LIBRARY_VARIABLE} to a libonnxruntime.so of 1.{} or \
         newer", .0.display(), ort::MINOR_VERSION
    )]
    Missing(PathBuf),
    /// A file that is no ONNX Runtime.
    #[error(
        "{} cannot be loaded as ONNX Runtime ({reason}); run `cargo xtask setup`, or set {LIBRARY_VARIABLE} to a libonnxruntime.so of 1.{} \
         or newer", path.display(), ort::MINOR_VERSION
    )]
    NotOnnxRuntime {
        /// The file.
        path: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// An ONNX Runtime that is too old.
    #[error(
        "{} is ONNX Runtime {version}, and 1.{} or newer is needed; run `cargo xtask setup`, or set {LIBRARY_VARIABLE} to a newer one",
        path.display(), ort::MINOR_VERSION
    )]
    Old {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: String,
    },
    /// A file of which no digest can be made.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder in which nothing can be kept.
    #[error("engines of TensorRT cannot be kept in {}: {source}; name another folder with --trt-cache", path.display())]
    Cache {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What ONNX Runtime records of a run cannot be had.
    #[error("what runs the operators of {} cannot be recorded: {source}; see that there is room in the folder for temporary files (TMPDIR)", path.display())]
    Profile {
        /// The file.
        path: PathBuf,
        /// What the system said, or what is wrong with the record.
        source: std::io::Error,
    },
    /// ONNX Runtime refused to start.
    #[error("ONNX Runtime could not be started: {0}")]
    Start(#[source] ort::Error),
    /// A file that ONNX Runtime cannot open.
    #[error("{} cannot be opened as an ONNX model: {source}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What ONNX Runtime said.
        source: ort::Error,
    },
    /// A file that takes something else than pictures.
    #[error("{} takes {found}, not 8-bit pictures [N, H, W, 3]; a file that `protoseg export` did not write must become a bundle first: see `protoseg adopt --help`", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// Its inputs.
        found: String,
    },
    /// Metadata that is not understood.
    #[error(transparent)]
    Metadata(#[from] JsonError),
    /// An output that the file does not have.
    #[error("{} has no output `{name}`; it has {known}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// Pixels that do not fill the shape they are said to have.
    #[error("{found} bytes of pixels where {expected} are expected")]
    Length {
        /// Bytes given.
        found: usize,
        /// Bytes that the shape takes.
        expected: usize,
    },
    /// A label that is no class.
    #[error("{} gives the label {label}, and {classes} classes have the labels 0 to {}: its classes are not those of its description", path.display(), classes - 1)]
    Label {
        /// The file.
        path: PathBuf,
        /// The label.
        label: i64,
        /// How many classes there are.
        classes: usize,
    },
    /// A file of which labels were asked that gives scores.
    #[error("{} gives no labels of its own, only scores", .0.display())]
    NoLabels(PathBuf),
    /// Pictures that do not fit into memory as floats.
    #[error("{count} pictures of {width}x{height} pixels do not fit into memory as floats")]
    Memory {
        /// How many pictures.
        count: usize,
        /// Their height.
        height: usize,
        /// Their width.
        width: usize,
    },
    /// ONNX Runtime failed to run the file.
    #[error("{} failed to run: {source}", path.display())]
    Run {
        /// The file.
        path: PathBuf,
        /// What ONNX Runtime said.
        source: ort::Error,
    },
    /// A device that does not answer any more. What was finished before is not touched by it.
    #[error("{} failed to run, as the device {device} is lost: {source}; see what `protoseg doctor` says of it, then run again", path.display())]
    DeviceLost {
        /// The file.
        path: PathBuf,
        /// The device.
        device: Device,
        /// What ONNX Runtime said.
        source: ort::Error,
    },
    /// More memory than the device has.
    #[error("{} failed to run, as the memory of {device} is full: {source}; lower --batch, --window or the number of sessions (--memory, --gpu-sessions)", path.display())]
    OutOfMemory {
        /// The file.
        path: PathBuf,
        /// The device.
        device: Device,
        /// What ONNX Runtime said.
        source: ort::Error,
    },
    /// A device that ONNX Runtime cannot use here.
    #[error("the device {device} cannot be used: {reason}; {help}")]
    Device {
        /// The device.
        device: Device,
        /// Why not.
        reason: String,
        /// What to do.
        help: String,
    },
    /// A file with operations that a device does not know.
    #[error("{} holds operations that {device} does not know; add --cpu-fallback to run those on the CPU, which costs copies", path.display())]
    NotAllOnDevice {
        /// The file.
        path: PathBuf,
        /// The device.
        device: Device,
    },
}
