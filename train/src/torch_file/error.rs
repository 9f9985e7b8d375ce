//! Why a PyTorch checkpoint could not be read: one sentence that names the file and what to do.

use std::fmt;
use std::path::PathBuf;

/// Why a PyTorch checkpoint could not be read.
#[derive(Debug)]
pub struct TorchFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: TorchFileFault,
}

/// What is wrong with a file that should be a PyTorch checkpoint.
#[derive(Debug)]
pub enum TorchFileFault {
    /// The file system refused.
    Io(std::io::Error),
    /// The file ends too early.
    Truncated,
    /// The file is of another kind.
    NotACheckpoint {
        /// What it is.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A compiled model, whose weights are inside a program.
    TorchScript,
    /// Written by a big-endian machine.
    BigEndian,
    /// The zip archive around the weights is damaged.
    Archive {
        /// The entry that could not be read.
        entry: String,
        /// What the archive reader said.
        source: zip::result::ZipError,
    },
    /// The pickle is damaged, or holds what PyTorch does not write.
    Pickle {
        /// What is wrong with it.
        why: &'static str,
        /// The byte of the pickle where it shows.
        at: usize,
    },
    /// The parts of the file do not fit together.
    Inconsistent(&'static str),
    /// The file holds, or unpacks to, far more than weights need.
    TooLarge,
    /// There is no dict of tensors where one is looked for.
    NoWeights {
        /// What there is instead.
        found: String,
    },
    /// One of the weights cannot be read.
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl fmt::Display for TorchFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            TorchFileFault::Io(source) => write!(f, "{path}: {source}"),
            TorchFileFault::Truncated => write!(f, "{path} is cut short; fetch or copy it again"),
            TorchFileFault::NotACheckpoint { what, advice } => {
                write!(f, "{path} is {what}, not a PyTorch checkpoint: {advice}")
            }
            TorchFileFault::TorchScript => {
                write!(
                    f,
                    "{path} is a TorchScript program; save its weights with torch.save(model.state_dict(), ...)"
                )
            }
            TorchFileFault::BigEndian => {
                write!(f, "{path} was written by a big-endian machine; save it again on another")
            }
            TorchFileFault::Archive { entry, source } => {
                write!(f, "{path} is damaged at {entry:?} ({source}); fetch or copy it again")
            }
            TorchFileFault::Pickle { why, at } => {
                write!(
                    f,
                    "{path} is no readable PyTorch checkpoint ({why} at byte {at} of its pickle); fetch it again"
                )
            }
            TorchFileFault::Inconsistent(why) => {
                write!(
                    f,
                    "{path} is no readable PyTorch checkpoint ({why}); fetch it again or save it with torch.save"
                )
            }
            TorchFileFault::TooLarge => {
                write!(
                    f,
                    "{path} holds or unpacks to far more than weights need; save them alone with torch.save"
                )
            }
            TorchFileFault::NoWeights { found } => {
                write!(
                    f,
                    "{path} holds {found} where a dict of tensors should be; save it with \
                     torch.save(model.state_dict(), ...)"
                )
            }
            TorchFileFault::Tensor { name, why } => {
                write!(
                    f,
                    "{path}: tensor {name:?} {why}; save the weights as plain float32 tensors"
                )
            }
        }
    }
}

impl std::error::Error for TorchFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            TorchFileFault::Io(source) => Some(source),
            TorchFileFault::Archive { source, .. } => Some(source),
            _ => None,
        }
    }
}
