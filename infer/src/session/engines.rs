//! Where TensorRT keeps what it built: building takes minutes, loading seconds.
//!
//! ONNX Runtime names an engine by the names in a graph, by precision, GPU and versions, but not by the weights. So each file
//! has a folder of its own, named by its content; timings of kernels are the same for all.

use std::io;
use std::path::{Path, PathBuf};

use ort::session::Session;
use ort::session::builder::SessionBuilder;
use protoseg_models::bundle::external_data;
use protoseg_models::digest;

use super::SessionError;
use crate::config::{Device, EngineConfig};

/// What a session is opened from.
#[derive(Debug, Clone, Copy)]
pub(super) enum ModelSource<'a> {
    /// The file that is named.
    File,
    /// The bytes of a file.
    Bytes(&'a [u8]),
}

/// The folders of one file's engines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EngineCache {
    pub(super) engines: String,
    pub(super) timings: String,
}

impl ModelSource<'_> {
    pub(super) fn commit(self, path: &Path, mut builder: SessionBuilder) -> ort::Result<Session> {
        match self {
            Self::File => builder.commit_from_file(path),
            Self::Bytes(bytes) => builder.commit_from_memory(bytes),
        }
    }

    /// A digest of the weights and all else.
    fn digest(self, path: &Path) -> io::Result<String> {
        if let Self::Bytes(bytes) = self {
            return Ok(digest::sha256_bytes(bytes));
        }
        let own = digest::sha256_file(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let beside = path.with_file_name(external_data(&name));
        if !beside.is_file() {
            return Ok(own);
        }
        Ok(digest::sha256_bytes(format!("{own}\n{}", digest::sha256_file(&beside)?).as_bytes()))
    }
}

impl EngineCache {
    /// Makes the folders where engines shall be kept.
    pub(super) fn open(
        source: ModelSource<'_>,
        path: &Path,
        config: &EngineConfig,
    ) -> Result<Option<Self>, SessionError> {
        let tensorrt = matches!(config.first_device(), Device::TensorRt(_));
        let Some(cache) = config.trt_cache.as_ref().filter(|_| tensorrt) else {
            return Ok(None);
        };
        let digest = source
            .digest(path)
            .map_err(|source| SessionError::File { path: path.into(), source })?;
        let failed = |source| SessionError::Cache { path: cache.clone(), source };
        let folder = cache.join(&digest[..16]);
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let text = |path: PathBuf| {
            let text = path.into_os_string().into_string();
            text.map_err(|_| {
                failed(io::Error::new(io::ErrorKind::InvalidFilename, "its name is no text"))
            })
        };
        Ok(Some(Self { engines: text(folder)?, timings: text(cache.clone())? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_weights_have_another_folder() {
        let root = tempfile::tempdir().unwrap();
        let (path, cache) = (root.path().join("model.onnx"), root.path().join("cache"));
        let mut config = EngineConfig::on(Device::TensorRt(0));
        assert_eq!(EngineCache::open(ModelSource::File, &path, &config).unwrap(), None);
        config.trt_cache = Some(cache.clone());
        let mut seen = Vec::new();
        let mut other = |source: ModelSource<'_>| {
            let found = EngineCache::open(source, &path, &config).unwrap().unwrap();
            assert!(Path::new(&found.engines).is_dir() && Path::new(&found.timings) == cache);
            let new = !seen.contains(&found.engines);
            seen.push(found.engines);
            new
        };
        std::fs::write(&path, "graph").unwrap();
        assert!(
            other(ModelSource::File)
                && !other(ModelSource::File)
                && !other(ModelSource::Bytes(b"graph"))
        );
        std::fs::write(root.path().join("model.onnx.data"), "weights").unwrap();
        assert!(other(ModelSource::File) && !other(ModelSource::File));
        std::fs::write(root.path().join("model.onnx.data"), "better").unwrap();
        assert!(other(ModelSource::File) && other(ModelSource::Bytes(b"other")));

        config.trt_cache = Some(path.clone());
        let message = EngineCache::open(ModelSource::File, &path, &config).unwrap_err().to_string();
        assert!(message.contains("model.onnx") && message.contains("--trt-cache"), "{message}");
        config.device = Some(Device::Cuda(0).into());
        assert_eq!(EngineCache::open(ModelSource::File, &path, &config).unwrap(), None);
    }
}
