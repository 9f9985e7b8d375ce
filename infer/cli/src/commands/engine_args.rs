//! Command-line options of the engine, which every command that runs models has.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use protoseg_infer::EngineConfig;
use protoseg_infer::config::{Devices, ExecutionMode, parse_bytes, parse_count, parse_precision};
use protoseg_models::variant::Precision;
use protoseg_models::window::Tiling;

/// How a model is run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EngineArgs {
    /// Which of the bundle's files to run, by its precision [default: the first]
    #[arg(long, value_parser = precisions())]
    precision: Option<Precision>,
    /// Run images in windows of SIZE pixels, STRIDE apart, or `whole` [default: as the bundle says]
    #[arg(long, value_name = "SIZE:STRIDE|whole")]
    window: Option<Tiling>,
    /// Windows per run
    #[arg(long, value_name = "N", value_parser = parse_count)]
    batch: Option<NonZeroUsize>,
    /// Threads of the network, of all sessions together [default: as many as this process may use]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    threads: Option<NonZeroUsize>,
    /// Device to run on: cpu, openvino, cuda:N or tensorrt:N, or several GPUs such as cuda:0,1;
    /// never replaced by another [default: cpu]
    #[arg(long, value_name = "DEVICE")]
    device: Option<Devices>,
    /// Sessions per GPU, so that it computes while images are copied; each takes memory of its own
    /// [default: 2]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    gpu_sessions: Option<NonZeroUsize>,
    /// On CPUs, all cores for each image or a session per core [default: throughput from four
    /// images per core on]
    #[arg(long, value_parser = modes())]
    mode: Option<ExecutionMode>,
    /// Memory that sessions on CPUs may occupy together, such as 800M or 6G [default: half of what
    /// is available]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// Let idle threads spin: a few microseconds less for a run alone on its cores
    #[arg(long)]
    spin: bool,
    /// With CUDA, multiply 32-bit floats with 10 bits of mantissa (TF32)
    #[arg(long)]
    tf32: bool,
    /// On GPUs, capture the launches of a run once and replay them, where all images are run in one
    /// size
    #[arg(long)]
    cuda_graph: bool,
    /// With CUDA, GPU memory that a session may take for tensors, such as 4G [default: all]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    gpu_memory: Option<u64>,
    /// With TensorRT, compute in 16-bit floats where that is faster
    #[arg(long)]
    trt_fp16: bool,
    /// With TensorRT, compute in 8 bits as a single ONNX file says; of a bundle's files it is known
    #[arg(long)]
    trt_int8: bool,
    /// With TensorRT, keep engines and timings here: building them takes minutes, loading them
    /// seconds
    #[arg(long, value_name = "DIR")]
    trt_cache: Option<PathBuf>,
    /// With TensorRT, workspace memory per layer, such as 1G
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    trt_workspace: Option<u64>,
    /// Let the CPU run operators that the device does not support
    #[arg(long)]
    cpu_fallback: bool,
}

impl EngineArgs {
    /// The options that were given.
    pub(crate) fn config(&self) -> EngineConfig {
        EngineConfig {
            precision: self.precision,
            window: self.window,
            batch: self.batch,
            threads: self.threads,
            device: self.device.clone(),
            gpu_sessions: self.gpu_sessions,
            mode: self.mode,
            memory: self.memory,
            spin: self.spin,
            tf32: self.tf32,
            cuda_graph: self.cuda_graph,
            gpu_memory: self.gpu_memory,
            trt_fp16: self.trt_fp16,
            trt_int8: self.trt_int8,
            trt_cache: self.trt_cache.clone(),
            trt_workspace: self.trt_workspace,
            cpu_fallback: self.cpu_fallback,
            ..EngineConfig::default()
        }
    }
}

/// Parses a precision, and lists all in help texts and errors.
pub(crate) fn precisions() -> impl TypedValueParser<Value = Precision> {
    PossibleValuesParser::new(["fp32", "fp16", "int8"]).try_map(|name| parse_precision(&name))
}

fn modes() -> impl TypedValueParser<Value = ExecutionMode> {
    PossibleValuesParser::new(["latency", "throughput"]).try_map(|name| name.parse())
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn parse(words: &str) -> EngineArgs {
        let command = EngineArgs::augment_args(Command::new("engine").no_binary_name(true));
        let matches = command.try_get_matches_from(words.split_whitespace()).unwrap();
        EngineArgs::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn given_options_are_told_from_defaults() {
        assert_eq!(parse("").config(), EngineConfig::default());
        let given = parse("--threads 2 --spin --window=768:512 --device cpu").config().options();
        let expected = [("device", "cpu"), ("spin", "on"), ("threads", "2"), ("window", "768:512")];
        assert_eq!(given, expected.map(|(name, value)| (name, value.to_owned())).into());
    }

    #[test]
    fn every_option_is_on_the_command_line() {
        let command = EngineArgs::augment_args(Command::new("engine"));
        let names: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        assert_eq!(names, EngineConfig::NAMES);
        let all = "--precision int8 --window 768:512 --batch 4 --threads 2 --device cuda:0,1 --gpu-sessions 3 --mode latency \
                   --memory 6G --spin --tf32 --cuda-graph --gpu-memory 4G --trt-fp16 --trt-int8 --trt-cache a --trt-workspace 1G \
                   --cpu-fallback";
        assert_eq!(parse(all).config().options().len(), EngineConfig::NAMES.len());
    }
}
