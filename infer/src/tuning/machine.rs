//! For which machine and which model a tuning holds.

use std::path::{Path, PathBuf};

use protoseg_models::bundle::{BundleError, Manifest, external_data};
use protoseg_models::digest;
use protoseg_models::window::Pieces;
use serde::{Deserialize, Serialize};

use crate::machine::Facts;
use crate::segmenter::fingerprint;

/// What decides how fast a model runs: a tuning holds where all of it is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name, where the system says.
    pub processor: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    /// Its vector extensions.
    pub vector_extensions: Vec<String>,
    /// Names of the GPUs of NVIDIA, in order.
    pub gpus: Vec<String>,
    /// What ONNX Runtime says of itself; empty where there is none.
    pub runtime: String,
}

/// Why it cannot be told which model lies at a place.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The file cannot be read.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

impl Machine {
    /// This one, as this process may use it; loads ONNX Runtime, if that has not happened yet.
    pub fn now() -> Self {
        let Facts { processor, runtime, .. } = Facts::now();
        Self {
            processor: processor.name,
            cores: processor.cores,
            vector_extensions: processor.vector_extensions,
            gpus: gpus(Path::new("/proc/driver/nvidia/gpus")),
            runtime: runtime.map(|runtime| runtime.build).unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { processor, cores, vector_extensions, gpus, runtime } = self;
        let processor = processor.as_deref().unwrap_or("a processor without a name");
        write!(formatter, "{processor}, {cores} cores to use, {}", vector_extensions.join(" "))?;
        for gpu in gpus {
            write!(formatter, ", {gpu}")?;
        }
        write!(formatter, ", ONNX Runtime {runtime}")
    }
}

/// Names of the GPUs that NVIDIA's driver lists in a folder each, in the order of their places on the bus, as CUDA may be told
/// to number them.
fn gpus(folder: &Path) -> Vec<String> {
    let folders = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut places: Vec<PathBuf> = folders.map(|entry| entry.path()).collect();
    places.sort();
    let name = |place: &PathBuf| {
        let text = std::fs::read_to_string(place.join("information")).ok()?;
        let name = text.lines().find_map(|line| line.strip_prefix("Model:"))?;
        Some(name.trim().to_owned())
    };
    places.iter().filter_map(name).collect()
}

/// A digest of all that a bundle's files compute, or a single file, and of its windows: with another one, another choice may
/// be fastest, or wrong.
pub fn model_of(path: &Path) -> Result<String, ModelError> {
    if path.is_dir() {
        let manifest = Manifest::read(path)?.value;
        let files = manifest.files.iter().map(|file| format!("{} {}", file.file, fingerprint(&manifest, file)));
        let windows = std::iter::once(Pieces::from(manifest.model.window).to_string());
        let probe = manifest.probe_sha256.clone();
        return Ok(digest::of_bytes(files.chain(windows).chain(probe).collect::<Vec<_>>().join("\n").as_bytes()));
    }
    let data = path.with_file_name(external_data(&path.file_name().unwrap_or_default().to_string_lossy()));
    let of_file =
        |path: &Path| digest::of_file(path).map_err(|source| ModelError::Io { path: path.to_owned(), source });
    let mut text = of_file(path)?;
    if data.is_file() {
        text = format!("{text}\n{}", of_file(&data)?);
    }
    Ok(digest::of_bytes(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_named_in_the_order_of_the_bus() {
        let root = tempfile::tempdir().unwrap();
        for (place, text) in [("0000:81:00.0", "Model: \t\t Large\nIRQ: 5\n"), ("0000:01:00.0", "Model:  Small\n")] {
            std::fs::create_dir(root.path().join(place)).unwrap();
            std::fs::write(root.path().join(place).join("information"), text).unwrap();
        }
        std::fs::create_dir(root.path().join("0000:ff:00.0")).unwrap();
        assert_eq!(gpus(root.path()), ["Small", "Large"]);
        assert!(gpus(&root.path().join("none")).is_empty());
    }

    #[test]
    fn a_model_is_told_by_every_file_and_its_windows() {
        let root = tempfile::tempdir().unwrap();
        let of = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = Manifest::read(Path::new("tests/fixtures/colors")).unwrap().value;
            change(&mut manifest);
            manifest.write(root.path()).unwrap();
            model_of(root.path()).unwrap()
        };
        let own = of(&|_| ());
        assert_eq!(own, model_of(Path::new("tests/fixtures/colors")).unwrap());
        // What a check records and what a person calls it change nothing.
        assert_eq!(own, of(&|manifest| "other".clone_into(&mut manifest.model.name)));
        assert_ne!(own, of(&|manifest| manifest.model.window = None));
        assert_ne!(own, of(&|manifest| manifest.files.push(manifest.files[0].clone())));
        assert_ne!(own, of(&|manifest| manifest.files[0].sha256 = "0".repeat(64)));
        let file = root.path().join("model.onnx");
        assert!(matches!(model_of(&file), Err(ModelError::Io { .. })));
        std::fs::write(&file, "one").unwrap();
        let one = model_of(&file).unwrap();
        std::fs::write(root.path().join("model.onnx.data"), "weights").unwrap();
        assert_ne!(one, model_of(&file).unwrap());
    }
}
