//! The bundle folder: ONNX files with what is needed to run and to trust them, described by `manifest.json`.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::adapter::Adapter;
use crate::arch::Arch;
use crate::classes::ClassTable;
use crate::digest;
use crate::gate::{GateLimits, GateResult};
use crate::metrics::Metrics;
use crate::probe::{self, ProbeCase};
use crate::variant::Variant;
use crate::versioned::{self, JsonError, Versioned};
use crate::weights::WeightsError;
use crate::window::{LogitGrid, Window, WindowError};

/// Name of the manifest in its folder.
pub const MANIFEST: &str = "manifest.json";
/// Name of the probe in a bundle.
pub const PROBE: &str = "probe.safetensors";
/// Name of the folder with a model repository for Triton in a bundle.
pub const TRITON: &str = "triton";
/// Name of the file that says how a bundle runs fastest, which `protoseg tune` writes beside the manifest.
pub const TUNING: &str = "tuning.json";
/// Key of the ONNX metadata entry that holds [`Model`] as JSON.
pub const METADATA_KEY: &str = "protoseg";

/// Name of the file in which every node's value comes out, for finding where a precision goes wrong. No manifest lists it,
/// so that nothing serves it.
pub fn taps_file_name(file: &str) -> String {
    format!("taps{}", file.strip_prefix("model").unwrap_or(file))
}

/// What a model is, whichever file carries it. The same facts stand in the manifest and in every ONNX file's metadata, so
/// that a lone `.onnx` is enough to work with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Version of the format.
    pub version: String,
    /// What a person calls it.
    pub name: String,
    /// Its classes, by train id.
    pub classes: ClassTable,
    /// The label that counts nowhere.
    pub ignore: u8,
    /// How its logits lie over its pixels.
    pub grid: LogitGrid,
    /// Windows in which pictures are run; none for whole pictures.
    pub window: Option<Window>,
    /// The network, where it is one of protoseg's.
    pub arch: Option<Arch>,
    /// SHA-256 of the weights that it was made from.
    pub weights_sha256: Option<String>,
}

/// An input or output of an ONNX file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// `uint8` or `float32`; outputs of adopted files may be `int32` or `int64`.
    #[serde(rename = "type")]
    pub element: String,
    /// Each dimension: a number, or the name of one that may vary.
    pub shape: Vec<Dimension>,
}

/// A dimension of an input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dimension {
    /// Of one size.
    Fixed(usize),
    /// Of any size, by name.
    Named(String),
}

/// One ONNX file of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelFile {
    /// Its name in the bundle's folder.
    pub file: String,
    /// What it computes, and how.
    pub form: Variant,
    /// SHA-256 of the file.
    pub sha256: String,
    /// SHA-256 of the file beside it that holds its weights, [`external_data`], where they are too large for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_sha256: Option<String>,
    /// What goes in.
    pub inputs: Vec<TensorInfo>,
    /// What comes out.
    pub outputs: Vec<TensorInfo>,
    /// What `protoseg check` holds it to; [`GateLimits::for_precision`] its precision where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<GateLimits>,
    /// How it takes pictures, where somebody else made it; files of protoseg take bytes `[N, H, W, 3]`, RGB.
    pub adapter: Option<Adapter>,
}

/// Where a bundle comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The command that wrote it.
    pub command: String,
    /// Version of the program that wrote it.
    pub protoseg: String,
}

/// Whose answers a probe holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeReference {
    /// Those of libtorch, from training.
    Libtorch,
    /// Those that the file itself gave when it was adopted: they tell whether another machine computes the same, and nothing
    /// of whether that is right.
    #[serde(rename = "self")]
    OwnOutputs,
}

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format.
    pub version: String,
    /// What the model is.
    pub model: Model,
    /// Its files; the first is the one that runs where nobody says otherwise.
    pub files: Vec<ModelFile>,
    /// SHA-256 of the probe, where there is one.
    pub probe_sha256: Option<String>,
    /// Whose answers the probe holds.
    pub reference: ProbeReference,
    /// Where it comes from.
    pub provenance: Provenance,
    /// The score of the weights, where one was measured.
    pub metrics: Option<Metrics>,
    /// What the last check found, file by file.
    pub gate: Vec<GateResult>,
}

/// Why a bundle could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// No folder, or one without manifest.
    #[error("{} is no bundle: it holds no {MANIFEST}; name the folder that `protoseg export` wrote", .0.display())]
    Absent(PathBuf),
    /// A file that the manifest names is not there.
    #[error("{} is missing, though the manifest names it; export the bundle again or copy it whole", .0.display())]
    Missing(PathBuf),
    /// A file that is not the one that was written.
    #[error("{} is not the file that the manifest describes: its sha256 is {found}, not {expected}; copy or export the bundle again", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: String,
        /// What the manifest says.
        expected: String,
    },
    /// A name that leads out of the folder.
    #[error("{}: the manifest names the file `{name}`, which is no plain file name", path.display())]
    Name {
        /// The manifest.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A manifest without files.
    #[error("{} lists no model file; export the bundle again", .0.display())]
    Empty(PathBuf),
    /// Windows that do not fit.
    #[error("{}: {source}", path.display())]
    Window {
        /// The manifest.
        path: PathBuf,
        /// Why.
        source: WindowError,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The manifest is wrong.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The probe is wrong.
    #[error(transparent)]
    Probe(#[from] WeightsError),
}

impl fmt::Display for TensorInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, element, shape } = self;
        write!(formatter, "{name} {element} [")?;
        for (index, dimension) in shape.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            match dimension {
                Dimension::Fixed(size) => write!(formatter, "{comma}{size}")?,
                Dimension::Named(name) => write!(formatter, "{comma}{name}")?,
            }
        }
        formatter.write_str("]")
    }
}

/// Inputs or outputs as a person reads them.
pub fn list(ports: &[TensorInfo]) -> String {
    ports.iter().map(TensorInfo::to_string).collect::<Vec<_>>().join(", ")
}

impl Model {
    /// Version written, and the newest read.
    pub const VERSION: &str = "1.0";
}

impl ModelFile {
    /// What `protoseg check` holds it to.
    pub fn limits(&self) -> GateLimits {
        self.limits.unwrap_or_else(|| GateLimits::for_precision(self.form.precision))
    }
}

impl Manifest {
    /// Version written, and the newest read.
    pub const VERSION: &str = "1.0";

    /// Reads the manifest of a bundle folder; no other file is opened.
    pub fn read(folder: &Path) -> Result<Versioned<Self>, BundleError> {
        let path = folder.join(MANIFEST);
        if !path.is_file() {
            return Err(BundleError::Absent(folder.into()));
        }
        let manifest: Versioned<Self> = versioned::read(&path, Self::VERSION)?;
        if manifest.value.files.is_empty() {
            return Err(BundleError::Empty(path));
        }
        if let Some(window) = manifest.value.model.window {
            let fits = manifest.value.model.grid.check(window);
            fits.map_err(|source| BundleError::Window { path: path.clone(), source })?;
        }
        for file in &manifest.value.files {
            let mut parts = Path::new(&file.file).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                return Err(BundleError::Name { path, name: file.file.clone() });
            }
        }
        Ok(manifest)
    }

    /// Writes the manifest of a bundle folder, whole or not at all.
    pub fn write(&self, folder: &Path) -> Result<(), BundleError> {
        Ok(versioned::write(&folder.join(MANIFEST), self)?)
    }

    /// Names of all that the bundle's folder may hold: what the manifest names, and what only lies beside it.
    pub fn names(&self) -> Vec<String> {
        let files =
            self.files.iter().flat_map(|file| [file.file.clone(), taps_file_name(&file.file)]);
        let files = files.flat_map(|name| [external_data(&name), name]);
        files.chain([MANIFEST, PROBE, TRITON, TUNING].map(str::to_owned)).collect()
    }

    /// Path of a file that the manifest lists, once its digest has been checked.
    pub fn verified(&self, folder: &Path, file: &ModelFile) -> Result<PathBuf, BundleError> {
        if let Some(digest) = &file.data_sha256 {
            verify(folder.join(external_data(&file.file)), digest)?;
        }
        verify(folder.join(&file.file), &file.sha256)
    }

    /// The probe, once its digest has been checked; no cases where the bundle has none.
    pub fn probe(&self, folder: &Path) -> Result<Vec<ProbeCase>, BundleError> {
        match &self.probe_sha256 {
            None => Ok(Vec::new()),
            Some(digest) => Ok(probe::read(&verify(folder.join(PROBE), digest)?)?),
        }
    }
}

/// Name of the file with the weights of an ONNX file that is too small to hold them itself.
pub fn external_data(file: &str) -> String {
    format!("{file}.data")
}

fn verify(path: PathBuf, expected: &str) -> Result<PathBuf, BundleError> {
    if !path.is_file() {
        return Err(BundleError::Missing(path));
    }
    match digest::sha256_file(&path) {
        Ok(found) if found == expected => Ok(path),
        Ok(found) => Err(BundleError::Digest { path, found, expected: expected.to_owned() }),
        Err(source) => Err(BundleError::Io { path, source }),
    }
}
