//! Reader of PyTorch checkpoints (`.pth`, `.pt`) that executes nothing: the pickle is interpreted
//! by a machine of our own that builds plain values and calls no function.

mod containers;
mod pickle;
mod weights;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use protoseg_models::weights::StateDict;

/// A PyTorch checkpoint that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct TorchFileError {
    pub path: PathBuf,
    #[source]
    pub fault: TorchFileFault,
}

/// Reasons why a PyTorch checkpoint could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TorchFileFault {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the file is cut short; download or copy it again")]
    Truncated,
    /// Another kind of file, or a checkpoint that is not supported.
    #[error("{what}, not a PyTorch checkpoint: {advice}")]
    NotACheckpoint { what: &'static str, advice: &'static str },
    #[error("damaged zip entry {entry:?} ({source}); download or copy the file again")]
    Archive { entry: String, source: zip::result::ZipError },
    #[error("malformed pickle ({why} at byte {at}); download the file again")]
    Pickle { why: &'static str, at: usize },
    #[error(
        "malformed checkpoint ({0}); download the file again, or save it again with torch.save"
    )]
    Inconsistent(&'static str),
    #[error(
        "the file holds or unpacks to far more than weights need; save the weights alone with \
         torch.save"
    )]
    TooLarge,
    #[error(
        "{found} instead of a dict of tensors; save the weights with \
         torch.save(model.state_dict(), ...)"
    )]
    NoWeights { found: String },
    #[error("tensor {name:?} {why}; save the weights as plain float32 tensors")]
    Tensor { name: String, why: &'static str },
}

/// Reads the weights of a PyTorch checkpoint in the zip format (PyTorch 1.6 and later) or the
/// legacy format.
///
/// The weights are the file's dict of tensors, or the one under the first of `teacher_state`,
/// `teacher`, `ema`, `model_state`, `state_dict`, `model`, `model_state_dict` and `net`. An
/// averaged model (the first three keys) that is present but holds no tensors is an error. A common
/// prefix `module.` is removed. Floats of 16, 32 and 64 bits become 32-bit floats; integer tensors,
/// such as `num_batches_tracked`, are skipped, and so is everything else in the file.
pub fn read(path: &Path) -> Result<StateDict, TorchFileError> {
    std::fs::read(path)
        .map_err(TorchFileFault::Io)
        .and_then(|bytes| parse(&bytes))
        .map_err(|fault| TorchFileError { path: path.into(), fault })
}

/// Reads the weights of a checkpoint in memory.
fn parse(bytes: &[u8]) -> Result<StateDict, TorchFileFault> {
    match bytes {
        [] => Err(TorchFileFault::Truncated),
        [b'P', b'K', 3, 4, ..] => containers::read_zip(bytes),
        [pickle::PROTO, ..] => containers::read_legacy(bytes),
        _ => Err(foreign(bytes)),
    }
}

/// Names the kind of a file that is not a checkpoint.
fn foreign(bytes: &[u8]) -> TorchFileFault {
    let text = bytes.trim_ascii_start();
    let (what, advice) = if b"PK\x03\x04".starts_with(bytes) {
        return TorchFileFault::Truncated;
    } else if text.starts_with(b"<") {
        ("a web page", "the download failed, try it again")
    } else if text.starts_with(b"version https://git-lfs") {
        ("a Git LFS pointer", "fetch the file itself with `git lfs pull`")
    } else if bytes.starts_with(&[0x1f, 0x8b]) {
        ("a gzip archive", "unpack it and name the file inside")
    } else if bytes.get(257..262) == Some(b"ustar") {
        ("a tar archive", "unpack it and name the .pth file inside")
    } else if bytes.get(8) == Some(&b'{') && is_safetensors_header(bytes) {
        ("a .safetensors file", "rename it to end in .safetensors")
    } else {
        ("an unknown kind of file", "download it again")
    };
    TorchFileFault::NotACheckpoint { what, advice }
}

/// Tells if the first eight bytes give the length of a header inside the file, as in safetensors.
fn is_safetensors_header(bytes: &[u8]) -> bool {
    let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
    length.is_some_and(|length| length < bytes.len() as u64)
}
