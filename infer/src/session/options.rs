//! How an ONNX file is run, and on which device.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

/// How a file is run.
#[derive(Debug, Clone, Default)]
pub struct RunnerOptions {
    /// What computes.
    pub device: Device,
    /// Threads that one run uses on a CPU; as many as this process may use at once where nobody says otherwise.
    pub threads: Option<NonZeroUsize>,
    /// Whether threads without work wait actively: a run may start some microseconds sooner, and other work loses the cores.
    pub spin: bool,
    /// Whether the file's operations are run one by one as they stand, without being taken together: slow, for judging files
    /// that are made for another runtime.
    pub unoptimized: bool,
    /// Height and width of every picture or window that will be run, where they are known to be alike.
    pub size: Option<[usize; 2]>,
    /// What only GPUs of NVIDIA know.
    pub cuda: CudaOptions,
    /// What only TensorRT knows.
    pub tensorrt: TensorRtOptions,
    /// Whether operations that the device does not know may run on the CPU; otherwise such a file is refused.
    pub cpu_fallback: bool,
}

/// What only GPUs of NVIDIA know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CudaOptions {
    /// Whether CUDA multiplies 32-bit floats with 10 bits of precision, as tensor cores do it; TensorRT chooses by itself.
    pub tf32: bool,
    /// Whether the launches of a run are recorded once and then replayed, from the third run of pictures of one shape on.
    pub graph: bool,
    /// Bytes of the GPU's memory that a session may take for tensors; all there is where nobody says otherwise.
    pub memory: Option<usize>,
}

/// What only TensorRT knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TensorRtOptions {
    /// Whether it may count in 16-bit floats where that is faster.
    pub fp16: bool,
    /// Whether it counts in 8 bits where the file says so, which such files need. Of bundles the manifest tells it.
    pub int8: bool,
    /// Folder in which engines and timings are kept for the next session of the same file; none where they are built anew.
    pub cache: Option<PathBuf>,
    /// Bytes that a layer may use for itself; as ONNX Runtime chooses where nobody says otherwise.
    pub workspace: Option<usize>,
}

/// What computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// The processor, by ONNX Runtime's own kernels.
    #[default]
    Cpu,
    /// The GPU of NVIDIA with this number, by CUDA.
    Cuda(u16),
    /// The GPU of NVIDIA with this number, by TensorRT.
    TensorRt(u16),
    /// The processor, by OpenVINO.
    OpenVino,
}

impl Device {
    /// Whether it has memory of its own.
    pub fn is_gpu(self) -> bool {
        matches!(self, Self::Cuda(_) | Self::TensorRt(_))
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
            Self::TensorRt(number) => write!(formatter, "tensorrt:{number}"),
            Self::OpenVino => formatter.write_str("openvino"),
        }
    }
}

impl Serialize for Device {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One device or several GPUs: `cpu`, `openvino`, `cuda:0`, `cuda:0,1`, `tensorrt:0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices(Vec<Device>);

/// A text that names no devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write cpu, openvino, cuda:N or tensorrt:N, or several GPUs such as cuda:0,1, each once")]
pub struct DevicesError;

impl Devices {
    /// In the order in which they were named; at least one.
    pub fn all(&self) -> &[Device] {
        &self.0
    }
}

impl Default for Devices {
    fn default() -> Self {
        Self(vec![Device::Cpu])
    }
}

impl FromStr for Devices {
    type Err = DevicesError;

    fn from_str(text: &str) -> Result<Self, DevicesError> {
        let gpu: fn(u16) -> Device = match text.split_once(':') {
            None if text == "cpu" => return Ok(Self(vec![Device::Cpu])),
            None if text == "openvino" => return Ok(Self(vec![Device::OpenVino])),
            Some(("cuda", _)) => Device::Cuda,
            Some(("tensorrt", _)) => Device::TensorRt,
            _ => return Err(DevicesError),
        };
        let numbers = text.split_once(':').map_or("", |(_, numbers)| numbers);
        let mut devices = Vec::new();
        for number in numbers.split(',') {
            let device = gpu(number.parse().map_err(|_| DevicesError)?);
            if devices.contains(&device) {
                return Err(DevicesError);
            }
            devices.push(device);
        }
        Ok(Self(devices))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_by_kind_and_number() {
        let parse = |text: &str| text.parse::<Devices>().map(|devices| devices.0);
        assert_eq!(parse("cpu"), Ok(vec![Device::Cpu]));
        assert_eq!(parse("openvino"), Ok(vec![Device::OpenVino]));
        assert_eq!(parse("cuda:0"), Ok(vec![Device::Cuda(0)]));
        assert_eq!(parse("tensorrt:1,0"), Ok(vec![Device::TensorRt(1), Device::TensorRt(0)]));
        for text in [
            "",
            "gpu",
            "cuda",
            "cuda:",
            "cuda:-1",
            "cuda:0,",
            "cuda:0,0",
            "cpu:0",
            "openvino:0",
            "CPU",
            "cuda:70000",
        ] {
            assert_eq!(parse(text), Err(DevicesError), "{text}");
        }
        assert_eq!(Device::TensorRt(3).to_string(), "tensorrt:3");
    }
}
