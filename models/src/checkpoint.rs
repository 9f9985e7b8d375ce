//! The checkpoint folder: what the trainer leaves for export.
//!
//! `arch.json` says which network and classes, `weights.safetensors` holds the weights, `probe.safetensors` what libtorch
//! made of a few pictures, `calibration.json` the values inside, `prototypes.json` the prototypes of one that was trained with
//! them, `metrics.json` the score, `config.toml` how it was trained.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::arch::{Arch, ArchError};
use crate::calibration::Calibration;
use crate::classes::ClassTable;
use crate::metrics::Metrics;
use crate::probe::{self, ProbeCase};
use crate::prototypes::{Prototypes, PrototypesError};
use crate::versioned::{self, JsonError};
use crate::weights::{self, StateDict, WeightsError};
use crate::window::{LogitGrid, Window, WindowError};
use crate::{atomic, digest};

pub(crate) const ARCH: &str = "arch.json";
const WEIGHTS: &str = "weights.safetensors";
const PROBE: &str = "probe.safetensors";
const CALIBRATION: &str = "calibration.json";
const PROTOTYPES: &str = "prototypes.json";
const METRICS: &str = "metrics.json";
const CONFIG: &str = "config.toml";

/// All that a checkpoint folder holds.
pub const FILES: [&str; 7] = [ARCH, WEIGHTS, PROBE, CALIBRATION, PROTOTYPES, METRICS, CONFIG];

/// `arch.json`: which network, for which classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointHeader {
    /// Version of the format.
    pub version: String,
    /// What a person calls the model.
    pub name: String,
    /// The network.
    pub arch: Arch,
    /// Its classes, by train id.
    pub classes: ClassTable,
    /// Windows in which pictures are run; none for whole pictures.
    pub window: Option<Window>,
}

impl CheckpointHeader {
    /// Version written, and the newest read.
    pub const VERSION: &str = "1.0";

    /// A header of the present version.
    pub fn new(
        name: impl Into<String>,
        arch: Arch,
        classes: ClassTable,
        window: Option<Window>,
    ) -> Self {
        Self { version: Self::VERSION.to_owned(), name: name.into(), arch, classes, window }
    }
}

/// A trained network with all that export needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Which network, for which classes.
    pub header: CheckpointHeader,
    /// Every parameter and buffer of the network, the auxiliary head's too.
    pub weights: StateDict,
    /// What libtorch made of a few pictures.
    pub probe: Vec<ProbeCase>,
    /// The values inside, where they were recorded.
    pub calibration: Option<Calibration>,
    /// The prototypes, where it was trained with them.
    pub prototypes: Option<Prototypes>,
    /// The score, where one was measured.
    pub metrics: Option<Metrics>,
    /// How it was trained, as TOML; empty for weights that never were.
    pub config: String,
}

/// Why a checkpoint could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// No folder, or one without `arch.json`.
    #[error("{} is no checkpoint: it holds no {ARCH}; name the folder that training wrote, such as runs/x/checkpoint", .0.display())]
    Absent(PathBuf),
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A JSON file is wrong.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A tensor file is wrong.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Weights of another network.
    #[error("{}: {source}", path.display())]
    WeightMismatch {
        /// The weights file.
        path: PathBuf,
        /// How they differ.
        source: ArchError,
    },
    /// As many classes as the network has outputs is the rule.
    #[error("{}: {names} class names for a network of {outputs} classes", path.display())]
    Classes {
        /// The header file.
        path: PathBuf,
        /// Names.
        names: usize,
        /// Outputs.
        outputs: usize,
    },
    /// A probe of another network.
    #[error("{}: the case {case} is not of a network of {outputs} classes; train or init the checkpoint again", path.display())]
    Probe {
        /// The probe file.
        path: PathBuf,
        /// The case.
        case: String,
        /// Outputs of the network.
        outputs: usize,
    },
    /// Prototypes of another network.
    #[error("{}: {source}; train the checkpoint again", path.display())]
    Prototypes {
        /// The prototypes' file.
        path: PathBuf,
        /// How they differ.
        source: PrototypesError,
    },
    /// Windows that do not fit the network.
    #[error("{}: {source}", path.display())]
    Window {
        /// The header file.
        path: PathBuf,
        /// Why.
        source: WindowError,
    },
}

impl From<std::io::Error> for CheckpointError {
    fn from(source: std::io::Error) -> Self {
        Self::Io { path: PathBuf::new(), source }
    }
}

impl Checkpoint {
    /// Reads a checkpoint folder and checks that its parts fit each other.
    pub fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let header_path = folder.join(ARCH);
        if !header_path.is_file() {
            return Err(CheckpointError::Absent(folder.into()));
        }
        let header: CheckpointHeader =
            versioned::read(&header_path, CheckpointHeader::VERSION)?.value;
        let (names, outputs) = (header.classes.count(), header.arch.classes());
        if names != outputs {
            return Err(CheckpointError::Classes { path: header_path, names, outputs });
        }
        if let Some(window) = header.window {
            let fits = LogitGrid::from_arch(header.arch).check(window);
            fits.map_err(|source| CheckpointError::Window { path: header_path, source })?;
        }
        let weights_path = folder.join(WEIGHTS);
        let weights = weights::read(&weights_path)?;
        header.arch.graph().check_weights(&weights).map_err(|source| {
            CheckpointError::WeightMismatch {
                path: weights_path,
                source: ArchError::Weights { arch: header.arch.preset(), source },
            }
        })?;
        let optional = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
        let probe = optional(PROBE).map(|path| probe::read(&path)).transpose()?.unwrap_or_default();
        if let Some(case) = probe.iter().find(|case| case.logits.shape[1] != outputs) {
            return Err(CheckpointError::Probe {
                path: folder.join(PROBE),
                case: case.name.clone(),
                outputs,
            });
        }
        let calibration = optional(CALIBRATION)
            .map(|path| versioned::read(&path, Calibration::VERSION))
            .transpose()?;
        let prototypes =
            optional(PROTOTYPES).map(|path| read_prototypes(path, &header)).transpose()?;
        let metrics =
            optional(METRICS).map(|path| versioned::read_unversioned(&path)).transpose()?;
        let config = optional(CONFIG).map(std::fs::read_to_string).transpose()?.unwrap_or_default();
        let calibration = calibration.map(|read| read.value);
        Ok(Self { header, weights, probe, calibration, prototypes, metrics, config })
    }

    /// Writes a checkpoint folder whole or not at all, replacing an older one.
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
            CheckpointError::Io { source, .. } => {
                CheckpointError::Io { path: folder.into(), source }
            }
            other => other,
        })
    }

    /// SHA-256 of a checkpoint folder's weights file.
    pub fn weights_digest(folder: &Path) -> Result<String, CheckpointError> {
        let path = folder.join(WEIGHTS);
        digest::sha256_file(&path).map_err(|source| CheckpointError::Io { path, source })
    }
}
fn read_prototypes(
    path: PathBuf,
    header: &CheckpointHeader,
) -> Result<Prototypes, CheckpointError> {
    let prototypes: Prototypes = versioned::read(&path, Prototypes::VERSION)?.value;
    match prototypes.check(&header.arch.graph(), header.arch.classes()) {
        Ok(()) => Ok(prototypes),
        Err(source) => Err(CheckpointError::Prototypes { path, source }),
    }
}
