//! The checkpoint folder: everything that training hands to export.
//!
//! | file | content |
//! |---|---|
//! | `arch.json` | network and classes |
//! | `weights.safetensors` | parameters and buffers |
//! | `probe.safetensors` | libtorch's outputs for a few images |
//! | `calibration.json` | value ranges of the nodes |
//! | `prototypes.json` | class prototypes, if trained with them |
//! | `metrics.json` | validation score |
//! | `config.toml` | training configuration |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::arch::{Arch, ArchError};
use crate::calibration::Calibration;
use crate::classes::ClassTable;
use crate::errors::{BoxError, FileError};
use crate::metrics::Metrics;
use crate::probe::{self, ProbeCase};
use crate::prototypes::Prototypes;
use crate::reading::ImageReading;
use crate::versioned::{self, JsonError};
use crate::weights::{self, StateDict, WeightsError};
use crate::window::{LogitGrid, Window};
use crate::{atomic, digest};

pub(crate) const ARCH: &str = "arch.json";
const WEIGHTS: &str = "weights.safetensors";
const PROBE: &str = "probe.safetensors";
const CALIBRATION: &str = "calibration.json";
const PROTOTYPES: &str = "prototypes.json";
const METRICS: &str = "metrics.json";
const CONFIG: &str = "config.toml";

/// Names of all files of a checkpoint.
pub const FILES: [&str; 7] = [ARCH, WEIGHTS, PROBE, CALIBRATION, PROTOTYPES, METRICS, CONFIG];

/// `arch.json`: the network and its classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointHeader {
    /// Version of the format.
    pub version: String,
    /// Display name of the model.
    pub name: String,
    /// The network.
    pub arch: Arch,
    /// Classes by train id.
    pub classes: ClassTable,
    /// Sliding windows; none for whole images.
    pub window: Option<Window>,
    /// How image files were read in training; by default as they say.
    #[serde(default, skip_serializing_if = "ImageReading::is_default")]
    pub reading: ImageReading,
}

impl CheckpointHeader {
    /// Version written, and the newest read.
    pub const VERSION: &str = "1.0";

    /// Returns a header of the current version.
    pub fn new(
        name: impl Into<String>,
        arch: Arch,
        classes: ClassTable,
        window: Option<Window>,
    ) -> Self {
        let (version, reading) = (Self::VERSION.to_owned(), ImageReading::default());
        Self { version, name: name.into(), arch, classes, window, reading }
    }
}

/// A trained network with everything that export needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The network and its classes.
    pub header: CheckpointHeader,
    /// All parameters and buffers, the auxiliary head's included.
    pub weights: StateDict,
    /// libtorch's outputs for a few images.
    pub probe: Vec<ProbeCase>,
    /// Value ranges of the nodes, if recorded.
    pub calibration: Option<Calibration>,
    /// Class prototypes, if trained with them.
    pub prototypes: Option<Prototypes>,
    /// Validation score, if measured.
    pub metrics: Option<Metrics>,
    /// Training configuration as TOML; empty for untrained weights.
    pub config: String,
}

/// A checkpoint that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A missing folder, or one without `arch.json`.
    #[error("{} is not a checkpoint: it has no {ARCH}; name the folder that training wrote, such as runs/x/checkpoint", .0.display())]
    Absent(PathBuf),
    /// A file that does not fit the network.
    #[error("{}: {reason}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The difference.
        #[source]
        reason: BoxError,
    },
    /// An I/O error.
    #[error(transparent)]
    File(#[from] FileError),
    /// A faulty JSON file.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A faulty tensor file.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

impl From<std::io::Error> for CheckpointError {
    fn from(source: std::io::Error) -> Self {
        FileError { path: PathBuf::new(), source }.into()
    }
}

/// Returns a function that makes a [`CheckpointError::Mismatch`] from a reason, for `map_err`.
fn mismatch<E: Into<BoxError>>(path: &Path) -> impl Fn(E) -> CheckpointError {
    move |reason| CheckpointError::Mismatch { path: path.into(), reason: reason.into() }
}

impl Checkpoint {
    /// Reads a checkpoint folder and checks that its files fit the network.
    pub fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(ARCH);
        if !path.is_file() {
            return Err(CheckpointError::Absent(folder.into()));
        }
        let header: CheckpointHeader = versioned::read(&path, CheckpointHeader::VERSION)?.value;
        let names = header.classes.count();
        let classes = header.arch.classes();
        if names != classes {
            let reason = format!("{names} class names for a network of {classes} classes");
            return Err(mismatch(&path)(reason));
        }
        if let Some(window) = header.window {
            LogitGrid::from_arch(header.arch).check(window).map_err(mismatch(&path))?;
        }
        let path = folder.join(WEIGHTS);
        let weights = weights::read(&path)?;
        let graph = header.arch.graph();
        graph
            .check_weights(&weights)
            .map_err(|error| ArchError::Weights(header.arch.preset(), error))
            .map_err(mismatch(&path))?;
        let optional = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
        let probe = optional(PROBE).map(|path| probe::read(&path)).transpose()?.unwrap_or_default();
        if let Some(case) = probe.iter().find(|case| case.logits.shape[1] != classes) {
            let reason = format!(
                "the case {} is not from a network of {classes} classes; train or init the \
                 checkpoint again",
                case.name
            );
            return Err(mismatch(&folder.join(PROBE))(reason));
        }
        let calibration = optional(CALIBRATION)
            .map(|path| versioned::read(&path, Calibration::VERSION))
            .transpose()?
            .map(|read| read.value);
        let prototypes = optional(PROTOTYPES)
            .map(|path| {
                let prototypes: Prototypes = versioned::read(&path, Prototypes::VERSION)?.value;
                prototypes.check(&graph, classes).map_err(mismatch(&path))?;
                Ok::<_, CheckpointError>(prototypes)
            })
            .transpose()?;
        let metrics =
            optional(METRICS).map(|path| versioned::read_unversioned(&path)).transpose()?;
        let config = optional(CONFIG)
            .map(|path| std::fs::read_to_string(&path).map_err(FileError::at(&path)))
            .transpose()?
            .unwrap_or_default();
        Ok(Self { header, weights, probe, calibration, prototypes, metrics, config })
    }

    /// Writes a checkpoint folder atomically, replacing an older one.
    pub fn write(&self, folder: &Path) -> Result<(), CheckpointError> {
        let written = atomic::write_folder(folder, &FILES, |folder| {
            versioned::write(&folder.join(ARCH), &self.header)?;
            weights::write(&folder.join(WEIGHTS), &self.weights, &BTreeMap::new())?;
            probe::write(&folder.join(PROBE), &self.probe)?;
            if let Some(calibration) = &self.calibration {
                versioned::write(&folder.join(CALIBRATION), calibration)?;
            }
            if let Some(prototypes) = &self.prototypes {
                versioned::write(&folder.join(PROTOTYPES), prototypes)?;
            }
            if let Some(metrics) = &self.metrics {
                versioned::write(&folder.join(METRICS), metrics)?;
            }
            Ok(atomic::write(&folder.join(CONFIG), self.config.as_bytes())?)
        });
        written.map_err(|error| match error {
            CheckpointError::File(FileError { source, .. }) => FileError::at(folder)(source).into(),
            other => other,
        })
    }

    /// Returns the SHA-256 of a checkpoint folder's weights file.
    pub fn weights_digest(folder: &Path) -> Result<String, CheckpointError> {
        let path = folder.join(WEIGHTS);
        Ok(digest::sha256_file(&path).map_err(FileError::at(&path))?)
    }
}
