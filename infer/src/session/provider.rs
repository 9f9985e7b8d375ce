//! Execution providers of ONNX Runtime: which device a session runs on. One that was asked for is never replaced by another.

use std::num::NonZeroUsize;

use ort::ep::cuda::ConvAlgorithmSearch;
use ort::ep::{CPU, CUDA, ExecutionProvider, OpenVINO, TensorRT};
use ort::session::builder::SessionBuilder;

use super::engines::EngineCache;
use super::{SessionError, on_one_line};
use crate::config::{Device, EngineConfig};
use crate::machine::cores;

/// What one kind of device needs of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProviderRequirements {
    /// The package that holds a library with this provider.
    package: &'static str,
    /// What the provider loads from the system.
    system: &'static str,
}

impl Device {
    fn needs(self) -> ProviderRequirements {
        match self {
            Self::Cpu => ProviderRequirements { package: "onnxruntime", system: "nothing more" },
            Self::Cuda(_) => ProviderRequirements {
                package: "onnxruntime-gpu",
                system: "an NVIDIA driver, CUDA and cuDNN of the versions that this ONNX Runtime was built for, on LD_LIBRARY_PATH",
            },
            Self::TensorRt(_) => ProviderRequirements {
                package: "onnxruntime-gpu",
                system: "an NVIDIA driver, CUDA, cuDNN and TensorRT of the versions that this ONNX Runtime was built for, on \
                         LD_LIBRARY_PATH",
            },
            Self::OpenVino => ProviderRequirements {
                package: "onnxruntime-openvino",
                system: "the libraries of OpenVINO that lie beside it in its package",
            },
        }
    }
}

/// Whether the loaded ONNX Runtime was built with what runs on a device.
pub(super) fn is_built_in(device: Device) -> bool {
    let available = match device {
        Device::Cpu => CPU::is_available(),
        Device::Cuda(_) => CUDA::is_available(),
        Device::TensorRt(_) => TensorRT::is_available(),
        Device::OpenVino => OpenVINO::is_available(),
    };
    available.unwrap_or(false)
}

/// A message of ONNX Runtime without the place in its sources that comes first.
fn plain(message: &str) -> &str {
    message.rsplit_once(" : FAIL : ").map_or(message, |(_, rest)| rest)
}

/// Makes a session run on the device of its options, or says why it cannot.
pub(super) fn place(
    mut builder: SessionBuilder,
    config: &EngineConfig,
    engines: Option<EngineCache>,
) -> Result<SessionBuilder, SessionError> {
    let device = config.first_device();
    let EngineConfig { input_size, tf32, cuda_graph, .. } = *config;
    let ProviderRequirements { package, system } = device.needs();
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
    // Search by trying pays where sizes repeat; each new size costs a search.
    let search = if input_size.is_some() {
        ConvAlgorithmSearch::Exhaustive
    } else {
        ConvAlgorithmSearch::Heuristic
    };
    let on_cuda = |number: u16| {
        let mut provider =
            CUDA::default().with_device_id(number.into()).with_conv_algorithm_search(search);
        if let Some(bytes) = config.gpu_memory {
            provider = provider.with_memory_limit(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        provider.with_tf32(tf32).with_cuda_graph(cuda_graph).build().error_on_failure()
    };
    let providers = match device {
        Device::Cpu => Vec::new(),
        Device::Cuda(number) => vec![on_cuda(number)],
        // What TensorRT does not take, CUDA does, on the same GPU.
        Device::TensorRt(number) => {
            vec![tensorrt(number, config, engines).build().error_on_failure(), on_cuda(number)]
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
    let failed = |source: ort::Error| SessionError::Device {
        device,
        reason: plain(on_one_line(&source).message()).to_owned(),
        help: format!("it needs {system}; `protoseg doctor` shows what loads"),
    };
    builder = builder.with_execution_providers(providers).map_err(|error| failed(error.into()))?;
    if device != Device::Cpu && !config.cpu_fallback {
        builder = builder.with_disable_cpu_fallback().map_err(|error| failed(error.into()))?;
    }
    if let Some([height, width]) = input_size {
        // The names that `protoseg export` gives to the sizes it leaves open; a file without them is not changed by this.
        for (name, size) in [("H", height), ("W", width)] {
            builder = builder
                .with_dimension_override(name, size as i64)
                .map_err(|error| failed(error.into()))?;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_sources_are_left_out() {
        let message =
            "/src/bridge.cc:1 Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library x.so";
        assert_eq!(plain(message), "Failed to load library x.so");
        assert_eq!(plain("no device"), "no device");
    }
}
