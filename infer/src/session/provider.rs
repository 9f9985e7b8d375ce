//! Execution providers of ONNX Runtime: the device that a session runs on, never replaced by
//! another; and the engine cache of TensorRT.
//!
//! Building engines takes minutes, loading them seconds. ONNX Runtime names an engine by the names
//! in a graph, by precision, GPU and versions, but not by the weights. So each file has a folder of
//! its own, named by its content; timings of kernels are shared.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use ort::ep::cuda::ConvAlgorithmSearch;
use ort::ep::{CPU, CUDA, ExecutionProvider, OpenVINO, TensorRT};
use ort::session::builder::SessionBuilder;
use protoseg_models::bundle::external_data;
use protoseg_models::digest;

use super::SessionError;
use super::error::on_one_line;
use crate::config::{Device, EngineConfig};
use crate::machine::cores;

/// True where the loaded ONNX Runtime was built with the provider of a device.
pub(super) fn is_built_in(device: Device) -> bool {
    let available = match device {
        Device::Cpu => CPU::is_available(),
        Device::Cuda(_) => CUDA::is_available(),
        Device::TensorRt(_) => TensorRT::is_available(),
        Device::OpenVino => OpenVINO::is_available(),
    };
    available.unwrap_or(false)
}

/// Returns the package whose library has the provider of a device, and what the provider loads from
/// the system.
fn requirements(device: Device) -> (&'static str, &'static str) {
    match device {
        Device::Cpu => ("onnxruntime", "nothing more"),
        Device::Cuda(_) => (
            "onnxruntime-gpu",
            "an NVIDIA driver, CUDA and cuDNN of the versions that this ONNX Runtime was built for, on LD_LIBRARY_PATH",
        ),
        Device::TensorRt(_) => (
            "onnxruntime-gpu",
            "an NVIDIA driver, CUDA, cuDNN and TensorRT of the versions that this ONNX Runtime was built for, on LD_LIBRARY_PATH",
        ),
        Device::OpenVino => {
            ("onnxruntime-openvino", "the libraries of OpenVINO that lie beside it in its package")
        }
    }
}

/// Strips the location in ONNX Runtime's sources from a message.
fn plain(message: &str) -> &str {
    message.rsplit_once(" : FAIL : ").map_or(message, |(_, rest)| rest)
}

/// Places a session on the first device of its configuration.
pub(super) fn place(
    builder: SessionBuilder,
    config: &EngineConfig,
    engines: Option<EngineCache>,
) -> Result<SessionBuilder, SessionError> {
    let device = config.first_device();
    let (package, system) = requirements(device);
    if !is_built_in(device) {
        return Err(SessionError::Device {
            device,
            reason: "this ONNX Runtime was built without it".to_owned(),
            help: format!(
                "install the package {package} (pip install {package}), and set {} to the libonnxruntime.so in it",
                super::LIBRARY_VARIABLE
            ),
        });
    }
    with_providers(builder, config, engines).map_err(|source| SessionError::Device {
        device,
        reason: plain(on_one_line(&source).message()).to_owned(),
        help: format!("it needs {system}; `protoseg doctor` shows what loads"),
    })
}

fn with_providers(
    mut builder: SessionBuilder,
    config: &EngineConfig,
    engines: Option<EngineCache>,
) -> ort::Result<SessionBuilder> {
    let device = config.first_device();
    // Exhaustive search pays where sizes repeat; each new size costs a search.
    let search = if config.input_size.is_some() {
        ConvAlgorithmSearch::Exhaustive
    } else {
        ConvAlgorithmSearch::Heuristic
    };
    let cuda = |number: u16| {
        let mut provider =
            CUDA::default().with_device_id(number.into()).with_conv_algorithm_search(search);
        if let Some(bytes) = config.gpu_memory {
            provider = provider.with_memory_limit(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        provider = provider.with_tf32(config.tf32).with_cuda_graph(config.cuda_graph);
        provider.build().error_on_failure()
    };
    let providers = match device {
        Device::Cpu => Vec::new(),
        Device::Cuda(number) => vec![cuda(number)],
        // What TensorRT does not take, CUDA runs on the same GPU.
        Device::TensorRt(number) => {
            vec![tensorrt(number, config, engines).build().error_on_failure(), cuda(number)]
        }
        Device::OpenVino => {
            let threads = config.threads.map_or_else(cores, NonZeroUsize::get);
            let provider = OpenVINO::default()
                .with_device_type("CPU")
                .with_precision("FP32")
                .with_num_threads(threads);
            vec![provider.build().error_on_failure()]
        }
    };
    builder = builder.with_execution_providers(providers)?;
    if device != Device::Cpu && !config.cpu_fallback {
        builder = builder.with_disable_cpu_fallback()?;
    }
    if let Some([height, width]) = config.input_size {
        // The names that `protoseg export` gives to the sizes it leaves open; a file without them
        // is not changed by this.
        builder = builder.with_dimension_override("H", height as i64)?;
        builder = builder.with_dimension_override("W", width as i64)?;
    }
    Ok(builder)
}

fn tensorrt(number: u16, config: &EngineConfig, engines: Option<EngineCache>) -> TensorRT {
    let mut provider = TensorRT::default()
        .with_device_id(number.into())
        .with_cuda_graph(config.cuda_graph)
        .with_fp16(config.trt_fp16)
        .with_int8(config.trt_int8);
    if let Some(bytes) = config.trt_workspace {
        provider = provider.with_max_workspace_size(usize::try_from(bytes).unwrap_or(usize::MAX));
    }
    let Some(EngineCache { engines, timings }) = engines else { return provider };
    provider = provider.with_engine_cache(true).with_engine_cache_path(engines);
    provider.with_timing_cache(true).with_timing_cache_path(timings)
}

/// The source of a session.
#[derive(Debug, Clone, Copy)]
pub(super) enum ModelSource<'a> {
    File,
    Bytes(&'a [u8]),
}

impl ModelSource<'_> {
    /// Digest of graph and weights.
    fn digest(self, path: &Path) -> io::Result<String> {
        if let Self::Bytes(bytes) = self {
            return Ok(digest::sha256_bytes(bytes));
        }
        let own = digest::sha256_file(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let data = path.with_file_name(external_data(&name));
        if !data.is_file() {
            return Ok(own);
        }
        Ok(digest::sha256_bytes(format!("{own}\n{}", digest::sha256_file(&data)?).as_bytes()))
    }
}

/// Folders of one file's engines and of all timings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EngineCache {
    engines: String,
    timings: String,
}

impl EngineCache {
    /// Makes the folders, if the configuration asks for them.
    pub(super) fn open(
        source: ModelSource<'_>,
        path: &Path,
        config: &EngineConfig,
    ) -> Result<Option<Self>, SessionError> {
        let tensorrt = matches!(config.first_device(), Device::TensorRt(_));
        let Some(cache) = config.trt_cache.as_ref().filter(|_| tensorrt) else {
            return Ok(None);
        };
        let digest = source.digest(path).map_err(|source| SessionError::Io {
            context: path.display().to_string(),
            source,
            help: "",
        })?;
        let failed = |source| SessionError::Io {
            context: format!("engines of TensorRT cannot be kept in {}", cache.display()),
            source,
            help: "; name another folder with --trt-cache",
        };
        let folder = cache.join(&digest[..16]);
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let text = |path: PathBuf| {
            let text = path.into_os_string().into_string();
            text.map_err(|_| {
                failed(io::Error::new(io::ErrorKind::InvalidFilename, "the name is not UTF-8"))
            })
        };
        Ok(Some(Self { engines: text(folder)?, timings: text(cache.clone())? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_locations_are_left_out() {
        let message =
            "/src/bridge.cc:1 Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library x.so";
        assert_eq!(plain(message), "Failed to load library x.so");
        assert_eq!(plain("no device"), "no device");
    }

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
