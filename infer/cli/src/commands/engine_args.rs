//! How a model is run: the options that every command which runs models has.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::bail;
use protoseg_infer::pipeline::{self, PipelineOptions};
use protoseg_infer::segmenter::SegmenterOptions;
use protoseg_infer::session::{CudaOptions, Device, Devices, RunnerOptions, TensorRtOptions};
use protoseg_models::variant;
use protoseg_models::window::Tiling;

use super::parse_count;

/// How a model is run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EngineArgs {
    /// Which of the bundle's files to run, by its number format [default: the first]
    #[arg(long, value_enum)]
    precision: Option<PrecisionArg>,
    /// Run pictures in windows of SIZE pixels, STRIDE apart, or `whole`; as the bundle says where absent
    #[arg(long, value_name = "SIZE:STRIDE|whole")]
    window: Option<Tiling>,
    /// Windows that are run at once
    #[arg(long, value_name = "N", value_parser = parse_count)]
    batch: Option<NonZeroUsize>,
    /// Threads of the network, of all sessions together [default: as many as this process may use]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    threads: Option<NonZeroUsize>,
    /// What computes: cpu, openvino, cuda:N or tensorrt:N, or several GPUs such as cuda:0,1. It is never replaced by another
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Devices,
    /// Sessions of each GPU, so that it computes while pictures are copied; each takes memory for itself [default: 2]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    gpu_sessions: Option<NonZeroUsize>,
    /// On CPUs, all cores for each picture or a session for each core [default: throughput from four pictures a core on]
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
    /// Memory that sessions on CPUs may occupy together, such as 800M or 6G [default: half of what is available]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    memory: Option<u64>,
    /// Let threads without work wait actively: fewer microseconds for a run alone on its cores
    #[arg(long)]
    spin: bool,
    /// With CUDA, multiply 32-bit floats with 10 bits of precision
    #[arg(long)]
    tf32: bool,
    /// On GPUs, record the launches of a run once and replay them, where all pictures are run in one size
    #[arg(long)]
    cuda_graph: bool,
    /// With CUDA, memory of the GPU that a session may take for tensors, such as 4G [default: all there is]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    gpu_memory: Option<u64>,
    /// With TensorRT, count in 16-bit floats where that is faster
    #[arg(long)]
    trt_fp16: bool,
    /// With TensorRT, count in 8 bits where an ONNX file without a bundle says so; of a bundle's files it is known
    #[arg(long)]
    trt_int8: bool,
    /// With TensorRT, keep engines and timings here: building them takes minutes, loading them seconds
    #[arg(long, value_name = "DIR")]
    trt_cache: Option<PathBuf>,
    /// With TensorRT, memory that a layer may use for itself, such as 1G
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    trt_workspace: Option<u64>,
    /// Let the CPU run operations that the device does not know
    #[arg(long)]
    cpu_fallback: bool,
}

/// What the cores of a processor are used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ModeArg {
    Latency,
    Throughput,
}

/// A number format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PrecisionArg {
    Fp32,
    Fp16,
    Int8,
}

impl From<PrecisionArg> for variant::Precision {
    fn from(precision: PrecisionArg) -> Self {
        match precision {
            PrecisionArg::Fp32 => Self::Fp32,
            PrecisionArg::Fp16 => Self::Fp16,
            PrecisionArg::Int8 => Self::Int8,
        }
    }
}

impl EngineArgs {
    /// What computes, and how finely: devices of one kind count alike.
    pub(crate) fn arithmetic(&self, device: Device) -> String {
        let device = device.to_string();
        let kind = device.split(':').next().unwrap_or(&device);
        let finer = [(self.tf32, " tf32"), (self.trt_fp16, " fp16"), (self.trt_int8, " int8")];
        finer
            .into_iter()
            .filter(|(asked, _)| *asked)
            .fold(kind.to_owned(), |kind, (_, finer)| kind + finer)
    }

    /// Refuses what would change nothing on the devices that were asked for.
    fn check(&self) -> anyhow::Result<()> {
        let devices = self.device.all();
        let cpu = devices == [Device::Cpu];
        let gpu = devices.iter().all(|device| device.is_gpu());
        let cuda = devices.iter().all(|device| matches!(device, Device::Cuda(_)));
        let tensorrt = devices.iter().all(|device| matches!(device, Device::TensorRt(_)));
        let only_tensorrt = "is for TensorRT; add --device tensorrt:0";
        let idle = [
            ("--cuda-graph", self.cuda_graph && !gpu, "is for GPUs; add --device cuda:0"),
            (
                "--tf32",
                self.tf32 && !cuda,
                "is for CUDA; TensorRT chooses by itself, and CPUs multiply 32 bits",
            ),
            (
                "--gpu-memory",
                self.gpu_memory.is_some() && !cuda,
                "is for CUDA; add --device cuda:0",
            ),
            ("--trt-fp16", self.trt_fp16 && !tensorrt, only_tensorrt),
            ("--trt-int8", self.trt_int8 && !tensorrt, only_tensorrt),
            ("--trt-cache", self.trt_cache.is_some() && !tensorrt, only_tensorrt),
            ("--trt-workspace", self.trt_workspace.is_some() && !tensorrt, only_tensorrt),
            ("--cpu-fallback", self.cpu_fallback && cpu, "is for other devices than the CPU"),
            (
                "--gpu-sessions",
                self.gpu_sessions.is_some() && !gpu,
                "is for GPUs; --mode and --memory count those of CPUs",
            ),
            (
                "--mode",
                self.mode.is_some() && gpu,
                "is for CPUs; --gpu-sessions counts those of GPUs",
            ),
            (
                "--memory",
                self.memory.is_some() && gpu,
                "counts sessions on the CPU; --gpu-sessions those of GPUs",
            ),
            ("--spin", self.spin && !cpu, "is for the CPU's own kernels"),
        ];
        match idle.into_iter().find(|(_, idle, _)| *idle) {
            Some((option, _, why)) => bail!("{option} {why}"),
            None => Ok(()),
        }
    }

    /// How a model is opened to run so many pictures.
    pub(crate) fn options(&self, pictures: usize) -> anyhow::Result<PipelineOptions> {
        self.check()?;
        let runner = RunnerOptions {
            threads: self.threads,
            spin: self.spin,
            cuda: CudaOptions {
                tf32: self.tf32,
                graph: self.cuda_graph,
                memory: self.gpu_memory.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            },
            tensorrt: TensorRtOptions {
                fp16: self.trt_fp16,
                int8: self.trt_int8,
                cache: self.trt_cache.clone(),
                workspace: self
                    .trt_workspace
                    .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            },
            cpu_fallback: self.cpu_fallback,
            ..RunnerOptions::default()
        };
        Ok(PipelineOptions {
            segmenter: SegmenterOptions {
                pieces: self.window,
                batch: self.batch,
                precision: self.precision.map(variant::Precision::from),
                frame_files: None,
                runner,
            },
            devices: self.device.clone(),
            gpu_sessions: self.gpu_sessions,
            pixels: None,
            mode: self.mode.map(|mode| match mode {
                ModeArg::Latency => pipeline::ExecutionMode::Latency,
                ModeArg::Throughput => pipeline::ExecutionMode::Throughput,
            }),
            memory: self.memory,
            pictures,
        })
    }

    /// Windows that are run at once, where the command line says so.
    pub(crate) fn batch(&self) -> Option<NonZeroUsize> {
        self.batch
    }

    /// Whether all of it runs on GPUs.
    pub(crate) fn is_gpu(&self) -> bool {
        self.device.all().iter().all(|device| device.is_gpu())
    }
}

/// Bytes, as a number with or without a unit of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text[number.len()..].to_ascii_uppercase().as_str() {
        "" => Some(1),
        "K" | "KIB" => Some(1 << 10),
        "M" | "MIB" => Some(1 << 20),
        "G" | "GIB" => Some(1 << 30),
        "T" | "TIB" => Some(1 << 40),
        _ => None,
    };
    let bytes = unit.and_then(|unit: u64| number.parse::<u64>().ok()?.checked_mul(unit));
    bytes.filter(|&bytes| bytes > 0).ok_or_else(|| "write a size such as 800M or 6G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_bounds() {
        assert_eq!(
            (bytes("17"), bytes("800M"), bytes("6GiB")),
            (Ok(17), Ok(800 << 20), Ok(6 << 30))
        );
        for text in ["", "0", "M", "-1M", "1.5G", "5X", "99999999999T"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
