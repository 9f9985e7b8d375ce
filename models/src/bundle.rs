//! The bundle folder: ONNX files with everything needed to run and verify them, described by
//! `manifest.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::adapter::Adapter;
use crate::arch::Arch;
use crate::classes::ClassTable;
use crate::digest;
use crate::errors::{BoxError, FileError};
use crate::gate::{GateLimits, GateResult};
use crate::metrics::Metrics;
use crate::probe::{self, ProbeCase};
use crate::reading::ImageReading;
use crate::variant::Variant;
use crate::versioned::{self, JsonError, Versioned};
use crate::weights::WeightsError;
use crate::window::{Blend, LogitGrid, Window};

/// Name of the manifest.
pub const MANIFEST: &str = "manifest.json";
/// Name of the probe in a bundle.
pub const PROBE: &str = "probe.safetensors";
/// Name of the folder with a Triton model repository in a bundle.
pub const TRITON: &str = "triton";
/// Name of the file with the fastest options, which `protoseg tune` writes into a bundle.
pub const TUNING: &str = "tuning.json";
/// Key of the ONNX metadata entry that holds [`Model`] as JSON.
pub const METADATA_KEY: &str = "protoseg";

/// Returns the name of the file that outputs the value of every node, to find the node where a
/// precision goes wrong. Manifests do not list it, so nothing serves it.
pub fn taps_file_name(file: &str) -> String {
    format!("taps{}", file.strip_prefix("model").unwrap_or(file))
}

/// Returns the name of the file with the weights of an ONNX file above the size limit of protobuf.
pub fn external_data(file: &str) -> String {
    format!("{file}.data")
}

/// Description of a model, whichever file carries it.
///
/// It stands in the manifest and in every ONNX file's metadata, so that a single `.onnx` is enough
/// to run the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Version of the format.
    pub version: String,
    /// Display name.
    pub name: String,
    /// Classes by train id.
    pub classes: ClassTable,
    /// The label of ignored pixels.
    pub ignore: u8,
    /// Position of the logits over the pixels.
    pub grid: LogitGrid,
    /// Sliding windows; none for whole images.
    pub window: Option<Window>,
    /// Weighting of overlapping windows, here and inside frame files.
    #[serde(default, skip_serializing_if = "Blend::is_mean")]
    pub blend: Blend,
    /// The network, if it is one of protoseg's.
    pub arch: Option<Arch>,
    /// SHA-256 of the weights that the model was exported from.
    pub weights_sha256: Option<String>,
    /// How image files are read; by default as they say.
    #[serde(default, skip_serializing_if = "ImageReading::is_default")]
    pub reading: ImageReading,
}

/// Signature of an ONNX file's input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorInfo {
    /// Name of the tensor.
    pub name: String,
    /// `uint8` or `float32`; in imported files any type of ONNX.
    #[serde(rename = "type")]
    pub element: String,
    /// Size of each dimension.
    pub shape: Vec<Dimension>,
}

/// A dimension of an input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a dimension is a number, or a name where any size will do")]
pub enum Dimension {
    /// A fixed size.
    Fixed(usize),
    /// Any size, by name.
    Named(String),
}

/// One ONNX file of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelFile {
    /// File name in the bundle's folder.
    pub file: String,
    /// Kind, precision and further choices of the export.
    #[serde(rename = "form")]
    pub variant: Variant,
    /// SHA-256 of the file.
    pub sha256: String,
    /// SHA-256 of [`external_data`], if the weights are too large for one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_sha256: Option<String>,
    /// SHA-256 of the files with weights that an imported file names, by their path in the folder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, String>,
    /// Signatures of the inputs.
    pub inputs: Vec<TensorInfo>,
    /// Signatures of the outputs.
    pub outputs: Vec<TensorInfo>,
    /// Limits in `protoseg check`; by default [`GateLimits::for_precision`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<GateLimits>,
    /// Input conversion of an imported file; exported files take bytes `[N, H, W, 3]`, RGB.
    pub adapter: Option<Adapter>,
}

/// Origin of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The command that wrote it.
    pub command: String,
    /// Why the model has its windows, or none; not of imported files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// Version of the program that wrote it.
    pub protoseg: String,
}

/// Origin of a probe's expected outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeReference {
    /// libtorch, at the end of training.
    Libtorch,
    /// The file itself when it was imported: the probe shows whether another machine computes the
    /// same, not whether that is right.
    #[serde(rename = "self")]
    OwnOutputs,
}

/// `manifest.json`: what a bundle holds.
///
/// ```
/// use protoseg_models::bundle::Manifest;
///
/// # let folder = std::path::Path::new("../infer/tests/fixtures/colors");
/// let manifest = Manifest::read(folder)?.value;
/// let file = &manifest.files[0];
/// assert_eq!(file.outputs[0].to_string(), "logits float32 [N, 3, h, w]");
/// let path = manifest.verified(folder, file)?; // checks the SHA-256
/// assert!(path.ends_with("model.onnx"));
/// # Ok::<(), protoseg_models::bundle::BundleError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format.
    pub version: String,
    /// The model of all files.
    pub model: Model,
    /// ONNX files; the first is the default.
    pub files: Vec<ModelFile>,
    /// SHA-256 of the probe, if there is one.
    pub probe_sha256: Option<String>,
    /// Origin of the probe's expected outputs.
    pub reference: ProbeReference,
    /// Origin of the bundle.
    pub provenance: Provenance,
    /// Validation score of the weights, if measured.
    pub metrics: Option<Metrics>,
    /// Results of the last `protoseg check`, file by file.
    pub gate: Vec<GateResult>,
}

/// A bundle that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A missing folder, or one without manifest.
    #[error("{} is not a bundle: it has no {MANIFEST}; name the folder that `protoseg export` wrote", .0.display())]
    Absent(PathBuf),
    /// A bundle whose files do not fit its manifest, or each other.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Its fault.
        #[source]
        reason: BoxError,
    },
    /// An I/O error.
    #[error(transparent)]
    File(#[from] FileError),
    /// A faulty manifest.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A faulty probe.
    #[error(transparent)]
    Probe(#[from] WeightsError),
}

impl BundleError {
    fn invalid(path: PathBuf, reason: impl Into<BoxError>) -> Self {
        Self::Invalid { path, reason: reason.into() }
    }
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

/// Returns inputs or outputs as text, separated by commas.
pub fn signature(tensors: &[TensorInfo]) -> String {
    tensors.iter().map(TensorInfo::to_string).collect::<Vec<_>>().join(", ")
}

impl Model {
    /// Version written, and the newest read.
    pub const VERSION: &str = "1.0";
}

impl ModelFile {
    /// Returns the limits in `protoseg check`.
    pub fn limits(&self) -> GateLimits {
        self.limits.unwrap_or_else(|| GateLimits::for_precision(self.variant.precision))
    }
}

impl Manifest {
    /// Version written, and the newest read.
    pub const VERSION: &str = "1.0";

    /// Reads the manifest of a bundle folder; opens no other file.
    pub fn read(folder: &Path) -> Result<Versioned<Self>, BundleError> {
        let path = folder.join(MANIFEST);
        if !path.is_file() {
            return Err(BundleError::Absent(folder.into()));
        }
        let manifest: Versioned<Self> = versioned::read(&path, Self::VERSION)?;
        let Self { files, model, .. } = &manifest.value;
        if files.is_empty() {
            return Err(BundleError::invalid(path, "lists no model file; export the bundle again"));
        }
        if let Some(window) = model.window {
            model.grid.check(window).map_err(|error| BundleError::invalid(path.clone(), error))?;
        }
        for ModelFile { file, weights, .. } in files {
            let mut parts = Path::new(file).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                let reason = format!("lists `{file}`, which is not a plain file name");
                return Err(BundleError::invalid(path, reason));
            }
            if let Some(name) = weights.keys().find(|name| !is_inside(name)) {
                let reason = format!("lists `{name}`, which is not a file of the bundle's folder");
                return Err(BundleError::invalid(path, reason));
            }
        }
        Ok(manifest)
    }

    /// Writes the manifest of a bundle folder atomically.
    pub fn write(&self, folder: &Path) -> Result<(), BundleError> {
        Ok(versioned::write(&folder.join(MANIFEST), self)?)
    }

    /// Returns the names of everything that the bundle's folder may hold, listed or not.
    pub fn names(&self) -> Vec<String> {
        let files =
            self.files.iter().flat_map(|file| [file.file.clone(), taps_file_name(&file.file)]);
        let files = files.flat_map(|name| [external_data(&name), name]);
        let weights = self.files.iter().flat_map(|file| file.weights.keys());
        let first = |name: &String| {
            let mut parts = Path::new(name).components();
            parts.find_map(|part| match part {
                Component::Normal(part) => Some(part.to_string_lossy().into_owned()),
                _ => None,
            })
        };
        let files = files.chain(weights.filter_map(first));
        files.chain([MANIFEST, PROBE, TRITON, TUNING].map(str::to_owned)).collect()
    }

    /// Returns the path of a listed file after checking its SHA-256.
    pub fn verified(&self, folder: &Path, file: &ModelFile) -> Result<PathBuf, BundleError> {
        if let Some(digest) = &file.data_sha256 {
            verify(folder.join(external_data(&file.file)), digest)?;
        }
        for (name, digest) in &file.weights {
            verify(folder.join(name), digest)?;
        }
        verify(folder.join(&file.file), &file.sha256)
    }

    /// Reads the probe after checking its SHA-256; returns no cases if the bundle has none.
    pub fn probe(&self, folder: &Path) -> Result<Vec<ProbeCase>, BundleError> {
        match &self.probe_sha256 {
            None => Ok(Vec::new()),
            Some(digest) => Ok(probe::read(&verify(folder.join(PROBE), digest)?)?),
        }
    }
}

/// True for relative paths that stay in their folder.
pub fn is_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

fn verify(path: PathBuf, expected: &str) -> Result<PathBuf, BundleError> {
    if !path.is_file() {
        let reason = "missing, although the manifest lists it; export the bundle again, or copy it \
                      with all its files";
        return Err(BundleError::invalid(path, reason));
    }
    let found = digest::sha256_file(&path).map_err(FileError::at(&path))?;
    if found != expected {
        let reason = format!(
            "does not match the manifest: its sha256 is {found}, not {expected}; copy or export \
             the bundle again"
        );
        return Err(BundleError::invalid(path, reason));
    }
    Ok(path)
}
