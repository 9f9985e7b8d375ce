//! Errors of ONNX Runtime, told apart by its messages.

use std::path::{Path, PathBuf};

use protoseg_models::versioned::JsonError;

use super::LIBRARY_VARIABLE;
use crate::config::Device;

/// Reason why ONNX Runtime cannot be used, or a file not be run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The library is missing, too old or another library.
    #[error(
        "{reason}; run `cargo xtask setup`, or set {LIBRARY_VARIABLE} to a libonnxruntime.so of 1.{} or newer",
        ort::MINOR_VERSION
    )]
    Library {
        /// The reason.
        reason: String,
    },
    /// ONNX Runtime does not start.
    #[error("ONNX Runtime could not be started: {0}")]
    Start(#[source] ort::Error),
    /// The system refuses to read or write a file.
    #[error("{context}: {source}{help}")]
    Io {
        /// The file, and what was to be done with it.
        context: String,
        /// The system's error.
        source: std::io::Error,
        /// The way out, after a semicolon.
        help: &'static str,
    },
    /// A file that ONNX Runtime cannot open.
    #[error("{} cannot be opened as an ONNX model: {source}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// ONNX Runtime's error.
        source: ort::Error,
    },
    /// Metadata that cannot be read.
    #[error(transparent)]
    Metadata(#[from] JsonError),
    /// Images that the file does not take, outputs that it does not have, or labels beyond its
    /// classes.
    #[error("{0}")]
    Invalid(String),
    /// ONNX Runtime fails to run the file.
    #[error("{} failed to run: {source}", path.display())]
    Run {
        /// The file.
        path: PathBuf,
        /// ONNX Runtime's error.
        source: ort::Error,
    },
    /// A device that no longer responds. Results from before are intact.
    #[error("{} failed to run, as the device {device} is lost: {source}; see what `protoseg doctor` says of it, then run again", path.display())]
    DeviceLost {
        /// The file.
        path: PathBuf,
        /// The device.
        device: Device,
        /// ONNX Runtime's error.
        source: ort::Error,
    },
    /// More memory than the device has.
    #[error("{} failed to run, as the memory of {device} is full: {source}; lower --batch, --window or the number of sessions (--memory, --gpu-sessions)", path.display())]
    OutOfMemory {
        /// The file.
        path: PathBuf,
        /// The device.
        device: Device,
        /// ONNX Runtime's error.
        source: ort::Error,
    },
    /// A device that ONNX Runtime cannot use here.
    #[error("the device {device} cannot be used: {reason}; {help}")]
    Device {
        /// The device.
        device: Device,
        /// The reason.
        reason: String,
        /// The way out.
        help: String,
    },
    /// A file with operators that a device does not support.
    #[error("{} holds operators that {device} does not support; add --cpu-fallback to run those on the CPU, which costs copies", path.display())]
    NotAllOnDevice {
        /// The file.
        path: PathBuf,
        /// The device.
        device: Device,
    },
}

/// Parts of messages by which ONNX Runtime, CUDA, cuDNN and C++ say that there is no more memory.
const NO_MEMORY: [&str; 4] =
    ["out of memory", "failed to allocate memory", "bad_alloc", "alloc_failed"];

/// Error codes of CUDA after which, by its documentation, everything else fails too: memory with
/// errors (214), and crashed kernels from 700 (illegal address) to 720.
const LOST: [std::ops::RangeInclusive<u32>; 2] = [214..=214, 700..=720];

/// Start of a place in ONNX Runtime's source, as its builds have it.
const SOURCE: &str = "/onnxruntime_src/";

/// Text after which ONNX Runtime gives such a code.
const CUDA: &str = "cuda failure ";

/// Classifies the error of a run.
pub(super) fn run_error(path: &Path, device: Device, source: &ort::Error) -> SessionError {
    let source = on_one_line(source);
    let message = source.message().to_lowercase();
    let path = path.to_owned();
    if NO_MEMORY.iter().any(|words| message.contains(words)) {
        return SessionError::OutOfMemory { path, device, source };
    }
    if device.is_gpu() && (source.code() == ort::ErrorCode::DeviceReset || is_lost(&message)) {
        return SessionError::DeviceLost { path, device, source };
    }
    SessionError::Run { path, source }
}

/// Classifies the error of opening a file.
pub(super) fn open_error(path: &Path, device: Device, source: &ort::Error) -> SessionError {
    let source = on_one_line(source);
    let message = source.message().to_lowercase();
    let path = path.to_owned();
    if NO_MEMORY.iter().any(|words| message.contains(words)) {
        return SessionError::OutOfMemory { path, device, source };
    }
    if message.contains("fallback to cpu ep has been explicitly disabled") {
        return SessionError::NotAllOnDevice { path, device };
    }
    SessionError::Model { path, source }
}

fn is_lost(message: &str) -> bool {
    let number = message.split_once(CUDA).map_or("", |(_, rest)| rest);
    let digits =
        number.find(|letter: char| !letter.is_ascii_digit()).map_or(number, |end| &number[..end]);
    digits.parse().is_ok_and(|number: u32| LOST.iter().any(|range| range.contains(&number)))
}

/// Joins the lines of a message, of which some end in empty ones, without the places in ONNX
/// Runtime's source.
pub(super) fn on_one_line(error: &ort::Error) -> ort::Error {
    let words: Vec<&str> = error.message().split_whitespace().collect();
    ort::Error::new_with_code(error.code(), without_source_places(&words.join(" ")))
}

/// Leaves out `/onnxruntime_src/FILE:LINE SIGNATURE`: it says nothing of the model, and its numbers
/// are mistaken for sizes.
fn without_source_places(message: &str) -> String {
    let mut left = String::new();
    let mut rest = message;
    while let Some((before, place)) = rest.split_once(SOURCE) {
        let Some(after) = place.find('(').and_then(|open| balanced(&place[open..], '(', ')'))
        else {
            break;
        };
        let after = after.trim_start();
        let after = after.strip_prefix("const ").unwrap_or(after).trim_start();
        let types = if after.starts_with("[with ") { balanced(after, '[', ']') } else { None };
        left.push_str(before.trim_end());
        left.push(' ');
        rest = types.unwrap_or(after).trim_start();
    }
    left.push_str(rest);
    left.trim().to_owned()
}

/// The text after the bracket that closes the first one; None where it never closes.
fn balanced(text: &str, open: char, close: char) -> Option<&str> {
    let mut depth = 0_usize;
    for (index, letter) in text.char_indices() {
        if letter == open {
            depth += 1;
        } else if letter == close {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(&text[index + close.len_utf8()..]);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_source_are_left_out() {
        for (message, expected) in [
            (
                "Load model from a.onnx failed:/onnxruntime_src/onnxruntime/core/graph/model.cc:187 \
                 onnxruntime::Model::Model(onnx::ModelProto&&, const std::map<int, f(int)>&) ModelProto does not have a graph.",
                "Load model from a.onnx failed: ModelProto does not have a graph.",
            ),
            (
                "Status Message: /onnxruntime_src/x.h:540 void onnxruntime::BroadcastIterator::Init(ptrdiff_t) const \
                 [with T = int[3]] axis == 1 was false. Attempting to broadcast. 37 by 97",
                "Status Message: axis == 1 was false. Attempting to broadcast. 37 by 97",
            ),
            ("plain (1 by 2)", "plain (1 by 2)"),
            ("cut short /onnxruntime_src/x.cc:1 f(", "cut short /onnxruntime_src/x.cc:1 f("),
        ] {
            assert_eq!(without_source_places(message), expected);
        }
    }

    #[test]
    fn messages_are_told_apart() {
        let error = |device, message: &str| {
            run_error(Path::new("m.onnx"), device, &ort::Error::new(message))
        };
        let gpu = Device::Cuda(1);
        let full = error(gpu, "CUDA failure 2: out of memory ; GPU=1 ; expr=cudaMalloc");
        assert!(
            matches!(full, SessionError::OutOfMemory { device: Device::Cuda(1), .. }),
            "{full:?}"
        );
        assert!(
            full.to_string().contains("m.onnx")
                && full.to_string().contains("lower --batch, --window"),
            "{full}"
        );
        let arena = "Failed to allocate memory for requested buffer of size 123";
        assert!(matches!(error(Device::Cpu, arena), SessionError::OutOfMemory { .. }));
        let lost = "CUDA failure 700: an illegal memory access was encountered ; GPU=1";
        assert!(matches!(error(gpu, lost), SessionError::DeviceLost { .. }));
        assert!(matches!(error(Device::Cpu, lost), SessionError::Run { .. }));
        for other in
            ["CUDA failure 1: invalid argument", "CUDA failure : x", "Got invalid dimensions"]
        {
            assert!(matches!(error(gpu, other), SessionError::Run { .. }), "{other}");
        }
        let placed = "This session contains graph nodes that are assigned to the default CPU EP, but fallback to CPU EP has \
                      been explicitly disabled by the user.";
        let refused = open_error(Path::new("m.onnx"), gpu, &ort::Error::new(placed));
        assert!(matches!(refused, SessionError::NotAllOnDevice { .. }), "{refused:?}");
    }
}
