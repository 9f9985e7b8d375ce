//! For which machine and which model a tuning holds.

use std::path::{Path, PathBuf};

use protoseg_models::bundle::{BundleError, Manifest, external_data};
use protoseg_models::digest;
use protoseg_models::window::Tiling;
use serde::{Deserialize, Serialize};

use crate::machine::MachineInfo;
use crate::machine::gpu::Gpu;
use protoseg_infer::segmenter::fingerprint;

/// What decides how fast a model runs: a tuning holds where all of it is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineId {
    /// The processor's name, where the system says.
    pub processor: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    /// Its vector extensions.
    pub vector_extensions: Vec<String>,
    /// Names of the GPUs of NVIDIA that this process sees, in the order of CUDA's numbers.
    pub gpus: Vec<String>,
    /// What ONNX Runtime says of itself; empty where there is none.
    pub runtime: String,
}

/// Why it cannot be told which model lies at a place.
#[derive(Debug, thiserror::Error)]
pub enum ModelIdError {
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

impl MachineId {
    /// This one, as this process may use it; loads ONNX Runtime, if that has not happened yet.
    pub fn now() -> Self {
        let MachineInfo { processor, runtime, gpus, .. } = MachineInfo::now();
        Self {
            processor: processor.name,
            cores: processor.cores,
            vector_extensions: processor.vector_extensions,
            gpus: names(&gpus.gpus),
            runtime: runtime.map(|runtime| runtime.build).unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for MachineId {
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

/// Names of the GPUs that this process sees, in the order of CUDA's numbers; all in the driver's order where these are not
/// told.
fn names(gpus: &[Gpu]) -> Vec<String> {
    let mut seen: Vec<&Gpu> = gpus.iter().filter(|gpu| gpu.number.is_some()).collect();
    seen.sort_by_key(|gpu| gpu.number);
    let all = if seen.is_empty() { gpus.iter().collect() } else { seen };
    all.into_iter()
        .map(|gpu| gpu.name.clone().unwrap_or_else(|| "a GPU without a name".to_owned()))
        .collect()
}

/// A digest of all that a bundle's files compute, or a single file, and of its windows: with another one, another choice may
/// be fastest, or wrong.
pub fn model_id(path: &Path) -> Result<String, ModelIdError> {
    if path.is_dir() {
        let manifest = Manifest::read(path)?.value;
        let files = manifest
            .files
            .iter()
            .map(|file| format!("{} {}", file.file, fingerprint(&manifest, file)));
        let windows = std::iter::once(Tiling::from(manifest.model.window).to_string());
        let probe = manifest.probe_sha256.clone();
        return Ok(digest::sha256_bytes(
            files.chain(windows).chain(probe).collect::<Vec<_>>().join("\n").as_bytes(),
        ));
    }
    let data =
        path.with_file_name(external_data(&path.file_name().unwrap_or_default().to_string_lossy()));
    let sha256_file = |path: &Path| {
        digest::sha256_file(path)
            .map_err(|source| ModelIdError::Io { path: path.to_owned(), source })
    };
    let mut text = sha256_file(path)?;
    if data.is_file() {
        text = format!("{text}\n{}", sha256_file(&data)?);
    }
    Ok(digest::sha256_bytes(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_named_as_cuda_numbers_those_that_it_sees() {
        let gpu =
            |name: &str, number| Gpu { name: Some(name.to_owned()), number, ..Gpu::default() };
        assert_eq!(
            names(&[gpu("hidden", None), gpu("second", Some(1)), gpu("first", Some(0))]),
            ["first", "second"]
        );
        assert_eq!(names(&[gpu("one", None), gpu("other", None)]), ["one", "other"]);
        assert!(names(&[]).is_empty());
    }

    #[test]
    fn a_model_is_told_by_every_file_and_its_windows() {
        let root = tempfile::tempdir().unwrap();
        let of = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = Manifest::read(Path::new("../tests/fixtures/colors")).unwrap().value;
            change(&mut manifest);
            manifest.write(root.path()).unwrap();
            model_id(root.path()).unwrap()
        };
        let own = of(&|_| ());
        assert_eq!(own, model_id(Path::new("../tests/fixtures/colors")).unwrap());
        // What a check records and what a person calls it change nothing.
        assert_eq!(own, of(&|manifest| "other".clone_into(&mut manifest.model.name)));
        assert_ne!(own, of(&|manifest| manifest.model.window = None));
        assert_ne!(own, of(&|manifest| manifest.files.push(manifest.files[0].clone())));
        assert_ne!(own, of(&|manifest| manifest.files[0].sha256 = "0".repeat(64)));
        let file = root.path().join("model.onnx");
        assert!(matches!(model_id(&file), Err(ModelIdError::Io { .. })));
        std::fs::write(&file, "one").unwrap();
        let one = model_id(&file).unwrap();
        std::fs::write(root.path().join("model.onnx.data"), "weights").unwrap();
        assert_ne!(one, model_id(&file).unwrap());
    }
}
