//! What a message of ONNX Runtime means: memory that ran out, a device that is lost, or something else.

use std::path::Path;

use super::{SessionError, on_one_line};
use crate::config::Device;

/// Words by which ONNX Runtime, CUDA, cuDNN and C++ say that there is no more memory.
const NO_MEMORY: [&str; 4] =
    ["out of memory", "failed to allocate memory", "bad_alloc", "alloc_failed"];

/// Error numbers of CUDA after which, by its documentation, everything else fails too: memory with errors, and the kernels
/// that crashed from 700 (illegal address) to 720.
const LOST: [std::ops::RangeInclusive<u32>; 2] = [214..=214, 700..=720];

/// Words after which ONNX Runtime gives such a number.
const CUDA: &str = "cuda failure ";

/// Why a session failed to run.
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

/// Why a file could not be opened.
pub(super) fn open_error(path: &Path, device: Device, source: &ort::Error) -> SessionError {
    let source = on_one_line(source);
    let message = source.message().to_lowercase();
    if NO_MEMORY.iter().any(|words| message.contains(words)) {
        return SessionError::OutOfMemory { path: path.to_owned(), device, source };
    }
    if message.contains("fallback to cpu ep has been explicitly disabled") {
        return SessionError::NotAllOnDevice { path: path.to_owned(), device };
    }
    SessionError::Model { path: path.to_owned(), source }
}

fn is_lost(message: &str) -> bool {
    let number = message.split_once(CUDA).map_or("", |(_, rest)| rest);
    let digits =
        number.find(|letter: char| !letter.is_ascii_digit()).map_or(number, |end| &number[..end]);
    digits.parse().is_ok_and(|number: u32| LOST.iter().any(|range| range.contains(&number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        let of = |device, message: &str| {
            run_error(Path::new("m.onnx"), device, &ort::Error::new(message))
        };
        let gpu = Device::Cuda(1);
        let full = of(gpu, "CUDA failure 2: out of memory ; GPU=1 ; expr=cudaMalloc");
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
        assert!(matches!(of(Device::Cpu, arena), SessionError::OutOfMemory { .. }));
        let lost = "CUDA failure 700: an illegal memory access was encountered ; GPU=1";
        assert!(matches!(of(gpu, lost), SessionError::DeviceLost { .. }));
        assert!(matches!(of(Device::Cpu, lost), SessionError::Run { .. }));
        for other in
            ["CUDA failure 1: invalid argument", "CUDA failure : x", "Got invalid dimensions"]
        {
            assert!(matches!(of(gpu, other), SessionError::Run { .. }), "{other}");
        }
        let placed = "This session contains graph nodes that are assigned to the default CPU EP, but fallback to CPU EP has \
                      been explicitly disabled by the user.";
        let refused = open_error(Path::new("m.onnx"), gpu, &ort::Error::new(placed));
        assert!(matches!(refused, SessionError::NotAllOnDevice { .. }), "{refused:?}");
    }
}
