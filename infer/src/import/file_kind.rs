//! Files that are no ONNX files, told by their first bytes, and those that were cut short.

use std::path::Path;

use super::{ImportError, external_data};
use crate::session::SessionError;

/// Beginning of files that people take for the model, what they are, and the way out.
const KINDS: [(usize, &[u8], &str); 11] = [
    (
        0,
        b"version https://git-lfs",
        "a pointer of Git LFS instead of the file: fetch it by `git lfs pull`",
    ),
    (0, b"<!DOCTYPE", "a web page: download the file itself"),
    (0, b"<html", "a web page: download the file itself"),
    (0, b"<?xml", "an XML file: name the ONNX file that it was made from"),
    (
        0,
        b"PK\x03\x04",
        "an archive, such as PyTorch's .pt and Keras' .keras: export the network by torch.onnx.export or tf2onnx",
    ),
    (0, b"\x80\x02", "a PyTorch checkpoint: export the network by torch.onnx.export"),
    (0, b"\x89HDF", "an HDF5 file, such as Keras writes: convert it by tf2onnx"),
    (4, b"TFL3", "a TensorFlow Lite file: convert it by `python -m tf2onnx.convert --tflite`"),
    (0, b"ftrt", "an engine of TensorRT, for one GPU: name the ONNX file that it was built from"),
    (0, b"ptrt", "an engine of TensorRT, for one GPU: name the ONNX file that it was built from"),
    (0, b"\x1f\x8b", "compressed by gzip: decompress it"),
];

/// Refuses files that are known to be something else.
pub(super) fn check(path: &Path, bytes: &[u8]) -> Result<(), ImportError> {
    let found = KINDS
        .iter()
        .find(|(at, start, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(start)))
        .map(|(_, _, kind)| *kind);
    let kind = match found {
        Some(kind) => kind,
        None if bytes.is_empty() => "empty: copy or download it again",
        None if is_safetensors(bytes) => {
            "a safetensors file, weights without a network: export the network by torch.onnx.export"
        }
        None => return Ok(()),
    };
    Err(ImportError::Kind { path: path.into(), kind })
}

/// A header of JSON behind its length.
fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return false };
    rest.starts_with(b"{\"") && u64::from_le_bytes(*length) <= rest.len() as u64
}

/// Adds the way out to the error of a file that ONNX Runtime does not open.
pub(super) fn with_way(error: SessionError, bytes: &[u8]) -> ImportError {
    let SessionError::Model { path, source } = &error else { return error.into() };
    if !external_data::is_whole(bytes) {
        return ImportError::CutShort { path: path.clone(), bytes: bytes.len() };
    }
    let message = source.message();
    let is = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
    let way = if is(&["not a registered function/op"]) {
        "export it with operators of the ONNX standard alone, and without those of a deployment library"
    } else if is(&["Could not find an implementation"]) {
        "ONNX Runtime lacks that operator for these types on this device: export it for another opset, or without that operator"
    } else if is(&["IR version", "onnx opset version"]) {
        "export it for an older version, such as opset 17, or set ORT_DYLIB_PATH to a newer ONNX Runtime"
    } else {
        return error.into();
    };
    ImportError::Open { source: error, way }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_told_with_the_way_out() {
        let said = |bytes: &[u8]| {
            check(Path::new("m.onnx"), bytes).map_err(|error| error.to_string()).err()
        };
        let weights = [&9_u64.to_le_bytes()[..], br#"{"a": {}} "#].concat();
        for (bytes, part) in [
            (&b""[..], "empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
            (b"PK\x03\x04archive/data.pkl", "torch.onnx.export"),
            (b"\x1c\0\0\0TFL3", "--tflite"),
            (b"<!DOCTYPE html>", "download the file itself"),
            (&weights, "weights without a network"),
        ] {
            let said = said(bytes).unwrap_or_default();
            assert!(said.starts_with("m.onnx is ") && said.contains(part), "{said}");
        }
        assert_eq!(said(b"\x08\x08\x12\x05hello"), None);
    }
}
