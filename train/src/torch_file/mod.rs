//! Weights of PyTorch checkpoints (`.pth`, `.pt`), read without running anything that a file holds: its pickle goes
//! through a machine of our own which builds plain values and calls nothing.

mod error;
mod legacy_format;
mod pickle;
mod state_dict;
mod tensor;
mod value;
mod zip_format;

#[cfg(test)]
mod tests;

use std::path::Path;

use protoseg_models::weights::StateDict;

pub use error::{TorchFileError, TorchFileFault};

/// Reads the weights of a PyTorch checkpoint, of the zip format (PyTorch 1.6 and later) or the legacy one.
///
/// The weights are the file's dict of tensors, or the one under the first of `teacher_state`, `teacher`, `ema`,
/// `model_state`, `state_dict`, `model`, `model_state_dict` and `net`; an averaged model (the first three) that is there
/// but not as tensors is an error. A `module.` before every name is dropped. Floats
/// of 16, 32 and 64 bits become 32-bit ones; tensors of integers, such as `num_batches_tracked`, are passed over. What
/// else the file holds (an optimizer, arguments) is not looked at.
pub fn read(path: &Path) -> Result<StateDict, TorchFileError> {
    std::fs::read(path)
        .map_err(TorchFileFault::Io)
        .and_then(|bytes| parse(&bytes))
        .map_err(|fault| TorchFileError { path: path.into(), fault })
}

/// The weights of a checkpoint in memory.
fn parse(bytes: &[u8]) -> Result<StateDict, TorchFileFault> {
    match bytes {
        [] => Err(TorchFileFault::Truncated),
        [b'P', b'K', 3, 4, ..] => zip_format::read(bytes),
        [pickle::PROTO, ..] => legacy_format::read(bytes),
        _ => Err(foreign(bytes)),
    }
}

/// Says what a file is that is no checkpoint.
fn foreign(bytes: &[u8]) -> TorchFileFault {
    let text = bytes.trim_ascii_start();
    let (what, advice) = if b"PK\x03\x04".starts_with(bytes) {
        return TorchFileFault::Truncated;
    } else if text.starts_with(b"<") {
        ("a web page", "the download went wrong, fetch it again")
    } else if text.starts_with(b"version https://git-lfs") {
        ("a Git LFS pointer", "fetch the file itself with `git lfs pull`")
    } else if bytes.starts_with(&[0x1f, 0x8b]) {
        ("a gzip archive", "unpack it and name the file inside")
    } else if bytes.get(257..262) == Some(b"ustar") {
        ("a tar archive", "unpack it and name the .pth file inside")
    } else if bytes.get(8) == Some(&b'{') && header_fits(bytes) {
        ("a .safetensors file", "rename it to end in .safetensors")
    } else {
        ("something else", "fetch it again")
    };
    TorchFileFault::NotACheckpoint { what, advice }
}

/// Whether the first eight bytes give the length of a header inside the file, as in safetensors.
fn header_fits(bytes: &[u8]) -> bool {
    let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
    length.is_some_and(|length| length < bytes.len() as u64)
}
