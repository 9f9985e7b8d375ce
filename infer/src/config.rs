//! Engine configuration: how a model is run, and on which devices.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use protoseg_models::reading::ImageReading;
use protoseg_models::variant::Precision;
use protoseg_models::window::Tiling;
use serde::{Deserialize, Serialize};

/// Text of a switch that is on.
pub const ON: &str = "on";
const OFF: &str = "off";

/// Most threads, windows or sessions that can be asked for.
const MAX_COUNT: usize = 1024;

/// Options of the engine, each with the name that it has on the command line.
///
/// Serializes as a map of names to texts, the form of `tuning.json` and of reports: `{"precision":
/// "int8", "spin": "on"}`.
///
/// ```
/// use protoseg_infer::EngineConfig;
///
/// let mut config = EngineConfig::default();
/// config.set("device", "cuda:0")?;
/// config.set("window", "768:512")?;
/// assert_eq!(config.options()["window"], "768:512");
/// assert!(config.set("threads", "0").is_err());
/// # Ok::<(), protoseg_infer::config::ConfigError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct EngineConfig {
    /// Precision of the bundle's file to run; by default that of the first file.
    pub precision: Option<Precision>,
    /// Sliding windows, or whole images; by default as the bundle says.
    pub window: Option<Tiling>,
    /// Windows per run; by default 1, as more bring nothing on a CPU.
    pub batch: Option<NonZeroUsize>,
    /// Threads of all sessions together; by default as many as this process may use.
    pub threads: Option<NonZeroUsize>,
    /// Devices; by default the CPU.
    pub device: Option<Devices>,
    /// Sessions per GPU; by default 2, and fewer where there are fewer images.
    pub gpu_sessions: Option<NonZeroUsize>,
    /// Use of the cores; by default chosen by the number of images.
    pub mode: Option<ExecutionMode>,
    /// Bytes that sessions on the CPU may occupy together; by default half of the available memory.
    /// One session is always opened.
    pub memory: Option<u64>,
    /// Lets idle threads spin: runs start some microseconds sooner, and other work loses the cores.
    pub spin: bool,
    /// Lets CUDA multiply 32-bit floats with 10 bits of mantissa (TensorFloat-32).
    pub tf32: bool,
    /// Captures the launches of a run as a CUDA graph and replays it from the third run of one
    /// shape on.
    pub cuda_graph: bool,
    /// Bytes of GPU memory that a CUDA session may take for tensors; by default all.
    pub gpu_memory: Option<u64>,
    /// Lets TensorRT compute in 16-bit floats where that is faster.
    pub trt_fp16: bool,
    /// Lets TensorRT compute in 8 bits as the ONNX file says; for files of a bundle the manifest
    /// decides.
    pub trt_int8: bool,
    /// Folder of TensorRT's engine and timing caches; without it engines are built for each
    /// session.
    pub trt_cache: Option<PathBuf>,
    /// Bytes of workspace per layer in TensorRT; by default as ONNX Runtime chooses.
    pub trt_workspace: Option<u64>,
    /// Lets the CPU run operators that the device does not support; otherwise such a file is
    /// refused.
    pub cpu_fallback: bool,
    /// Runs images of the size of a frame file through that file; by default on GPUs. Not an option
    /// of the command line.
    pub frame_files: Option<bool>,
    /// Pixels of images in flight in a pipeline, beside which one image of any size is admitted; by
    /// default chosen by the available memory. Not an option of the command line.
    pub pixel_budget: Option<u64>,
    /// `[height, width]` of every image or window to come, where they are alike. Not an option of
    /// the command line.
    pub input_size: Option<[usize; 2]>,
    /// How image files are read where that is chosen, in place of what the model says. Not an engine
    /// option of the command line.
    pub reading: ImageReading,
    /// Turns graph optimization off: slow, for checking files that are meant for another runtime.
    /// Not an option of the command line.
    pub unoptimized: bool,
}

/// Reason why an engine option is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A name that no option has.
    #[error("unknown engine option `{name}`; known are {}", EngineConfig::NAMES.join(", "))]
    Unknown {
        /// The name.
        name: String,
    },
    /// A value that the option does not take.
    #[error("invalid value `{value}` of {name}: {reason}")]
    Value {
        /// The option.
        name: String,
        /// The value.
        value: String,
        /// The values that it takes.
        reason: String,
    },
    /// An option without effect on the devices that were chosen.
    #[error("--{name} {reason}")]
    NoEffect {
        /// The option.
        name: &'static str,
        /// The devices that it is for.
        reason: &'static str,
    },
}

impl EngineConfig {
    /// Names of all options of the command line.
    pub const NAMES: [&str; 17] = [
        "precision",
        "window",
        "batch",
        "threads",
        "device",
        "gpu-sessions",
        "mode",
        "memory",
        "spin",
        "tf32",
        "cuda-graph",
        "gpu-memory",
        "trt-fp16",
        "trt-int8",
        "trt-cache",
        "trt-workspace",
        "cpu-fallback",
    ];

    /// Returns the default configuration of a device.
    pub fn on(device: Device) -> Self {
        Self { device: Some(device.into()), ..Self::default() }
    }

    /// Sets an option by its name.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let invalid = |reason: String| ConfigError::Value {
            name: name.to_owned(),
            value: value.to_owned(),
            reason,
        };
        let count = || parse_count(value).map(Some).map_err(invalid);
        let bytes = || parse_bytes(value).map(Some).map_err(invalid);
        let switch = || match value {
            ON => Ok(true),
            OFF => Ok(false),
            _ => Err(invalid(format!("write {ON} or {OFF}"))),
        };
        match name {
            "precision" => self.precision = Some(parse_precision(value).map_err(invalid)?),
            "window" => self.window = Some(parse(value).map_err(invalid)?),
            "batch" => self.batch = count()?,
            "threads" => self.threads = count()?,
            "device" => self.device = Some(parse(value).map_err(invalid)?),
            "gpu-sessions" => self.gpu_sessions = count()?,
            "mode" => self.mode = Some(parse(value).map_err(invalid)?),
            "memory" => self.memory = bytes()?,
            "spin" => self.spin = switch()?,
            "tf32" => self.tf32 = switch()?,
            "cuda-graph" => self.cuda_graph = switch()?,
            "gpu-memory" => self.gpu_memory = bytes()?,
            "trt-fp16" => self.trt_fp16 = switch()?,
            "trt-int8" => self.trt_int8 = switch()?,
            "trt-cache" => self.trt_cache = Some(value.into()),
            "trt-workspace" => self.trt_workspace = bytes()?,
            "cpu-fallback" => self.cpu_fallback = switch()?,
            _ => return Err(ConfigError::Unknown { name: name.to_owned() }),
        }
        Ok(())
    }

    /// Returns the options that are set, by name; [`ON`] for switches.
    pub fn options(&self) -> BTreeMap<&'static str, String> {
        let count = |count: Option<NonZeroUsize>| count.map(|count| count.to_string());
        let switch = |on: bool| on.then(|| ON.to_owned());
        let values = [
            self.precision.map(|precision| precision.name().to_owned()),
            self.window.map(|window| window.to_string()),
            count(self.batch),
            count(self.threads),
            self.device.as_ref().map(ToString::to_string),
            count(self.gpu_sessions),
            self.mode.map(|mode| mode.name().to_owned()),
            self.memory.map(bytes_text),
            switch(self.spin),
            switch(self.tf32),
            switch(self.cuda_graph),
            self.gpu_memory.map(bytes_text),
            switch(self.trt_fp16),
            switch(self.trt_int8),
            self.trt_cache.as_ref().map(|path| path.display().to_string()),
            self.trt_workspace.map(bytes_text),
            switch(self.cpu_fallback),
        ];
        let named = Self::NAMES.into_iter().zip(values);
        named.filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// Returns this configuration with everything that `other` sets in its place.
    pub fn overlaid(&self, other: &Self) -> Self {
        let either = |one: &Option<PathBuf>, two: &Option<PathBuf>| two.clone().or(one.clone());
        Self {
            precision: other.precision.or(self.precision),
            window: other.window.or(self.window),
            batch: other.batch.or(self.batch),
            threads: other.threads.or(self.threads),
            device: other.device.clone().or(self.device.clone()),
            gpu_sessions: other.gpu_sessions.or(self.gpu_sessions),
            mode: other.mode.or(self.mode),
            memory: other.memory.or(self.memory),
            spin: self.spin || other.spin,
            tf32: self.tf32 || other.tf32,
            cuda_graph: self.cuda_graph || other.cuda_graph,
            gpu_memory: other.gpu_memory.or(self.gpu_memory),
            trt_fp16: self.trt_fp16 || other.trt_fp16,
            trt_int8: self.trt_int8 || other.trt_int8,
            trt_cache: either(&self.trt_cache, &other.trt_cache),
            trt_workspace: other.trt_workspace.or(self.trt_workspace),
            cpu_fallback: self.cpu_fallback || other.cpu_fallback,
            frame_files: other.frame_files.or(self.frame_files),
            pixel_budget: other.pixel_budget.or(self.pixel_budget),
            input_size: other.input_size.or(self.input_size),
            reading: self.reading.overlaid(other.reading),
            unoptimized: self.unoptimized || other.unoptimized,
        }
    }

    /// Returns the devices; at least one.
    pub fn devices(&self) -> &[Device] {
        self.device.as_ref().map_or(&[Device::Cpu], Devices::all)
    }

    /// Returns the device of a single session.
    pub fn first_device(&self) -> Device {
        self.devices().first().copied().unwrap_or_default()
    }

    /// True where all devices are GPUs.
    pub fn is_gpu(&self) -> bool {
        self.devices().iter().all(|device| device.is_gpu())
    }

    /// Names the kind of a device and the precision that it may give up: `cuda tf32`. Devices of
    /// one kind compute alike.
    pub fn arithmetic(&self, device: Device) -> String {
        let device = device.to_string();
        let mut text = device.split(':').next().unwrap_or(&device).to_owned();
        for (on, name) in [(self.tf32, " tf32"), (self.trt_fp16, " fp16"), (self.trt_int8, " int8")]
        {
            if on {
                text.push_str(name);
            }
        }
        text
    }

    /// Refuses options that have no effect on the devices.
    pub fn check(&self) -> Result<(), ConfigError> {
        let cpu = self.devices() == [Device::Cpu];
        let gpu = self.is_gpu();
        let cuda = self.devices().iter().all(|device| matches!(device, Device::Cuda(_)));
        let tensorrt = self.devices().iter().all(|device| matches!(device, Device::TensorRt(_)));
        let for_tensorrt = "is for TensorRT; add --device tensorrt:0";
        let given = self.options();
        let rules = [
            ("cuda-graph", gpu, "is for GPUs; add --device cuda:0"),
            (
                "tf32",
                cuda,
                "is for CUDA; TensorRT chooses by itself, and CPUs multiply 32-bit floats",
            ),
            ("gpu-memory", cuda, "is for CUDA; add --device cuda:0"),
            ("trt-fp16", tensorrt, for_tensorrt),
            ("trt-int8", tensorrt, for_tensorrt),
            ("trt-cache", tensorrt, for_tensorrt),
            ("trt-workspace", tensorrt, for_tensorrt),
            ("cpu-fallback", !cpu, "is for other devices than the CPU"),
            ("gpu-sessions", gpu, "is for GPUs; on CPUs use --mode and --memory"),
            ("mode", !gpu, "is for CPUs; on GPUs use --gpu-sessions"),
            ("memory", !gpu, "limits sessions on the CPU; on GPUs use --gpu-sessions"),
            ("spin", cpu, "is for the CPU's own kernels"),
        ];
        match rules.into_iter().find(|(name, applies, _)| given.contains_key(name) && !applies) {
            Some((name, _, reason)) => Err(ConfigError::NoEffect { name, reason }),
            None => Ok(()),
        }
    }
}

impl TryFrom<BTreeMap<String, String>> for EngineConfig {
    type Error = ConfigError;

    fn try_from(options: BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        options.iter().try_for_each(|(name, value)| config.set(name, value))?;
        Ok(config)
    }
}

impl From<EngineConfig> for BTreeMap<String, String> {
    fn from(config: EngineConfig) -> Self {
        config.options().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

fn parse<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// Parses the name of a precision.
pub fn parse_precision(text: &str) -> Result<Precision, String> {
    let all = [Precision::Fp32, Precision::Fp16, Precision::Int8];
    let found = all.into_iter().find(|precision| precision.name() == text);
    found.ok_or_else(|| "write fp32, fp16 or int8".to_owned())
}

/// Parses a number from 1 to 1024.
pub fn parse_count(text: &str) -> Result<NonZeroUsize, String> {
    let number = text.parse().ok().filter(|number: &NonZeroUsize| number.get() <= MAX_COUNT);
    number.ok_or_else(|| format!("write a number from 1 to {MAX_COUNT}"))
}

/// Parses a size in bytes, with or without a binary unit: `800M`, `6GiB`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
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

/// Formats bytes so that [`parse_bytes`] reads the same number, in the largest unit that divides
/// it.
fn bytes_text(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    match units.into_iter().find(|(shift, _)| bytes.is_multiple_of(1 << shift)) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// Use of the cores of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutionMode {
    /// One session with all cores: each image is done soonest.
    Latency,
    /// A session per core, as far as memory goes: most images per hour.
    Throughput,
}

impl ExecutionMode {
    /// Returns the name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Throughput => "throughput",
        }
    }
}

impl FromStr for ExecutionMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let found = [Self::Latency, Self::Throughput].into_iter().find(|mode| mode.name() == text);
        found.ok_or("write latency or throughput")
    }
}

/// A device that runs networks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// The CPU, by ONNX Runtime's own kernels.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this number, by CUDA.
    Cuda(u16),
    /// The NVIDIA GPU of this number, by TensorRT.
    TensorRt(u16),
    /// The CPU, by OpenVINO.
    OpenVino,
}

impl Device {
    /// True where the device has memory of its own.
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

/// One device or several GPUs of one kind: `cpu`, `openvino`, `cuda:0`, `cuda:0,1`, `tensorrt:0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices(Vec<Device>);

/// Text that names no devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write cpu, openvino, cuda:N or tensorrt:N, or several GPUs such as cuda:0,1, each once")]
pub struct DevicesError;

impl Devices {
    /// Returns the devices in the given order; at least one.
    pub fn all(&self) -> &[Device] {
        &self.0
    }
}

impl Default for Devices {
    fn default() -> Self {
        Device::Cpu.into()
    }
}

impl From<Device> for Devices {
    fn from(device: Device) -> Self {
        Self(vec![device])
    }
}

impl std::fmt::Display for Devices {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, device) in self.0.iter().enumerate() {
            match device {
                Device::Cuda(number) | Device::TensorRt(number) if index > 0 => {
                    write!(formatter, ",{number}")?;
                }
                device => device.fmt(formatter)?,
            }
        }
        Ok(())
    }
}

impl FromStr for Devices {
    type Err = DevicesError;

    fn from_str(text: &str) -> Result<Self, DevicesError> {
        let (gpu, numbers): (fn(u16) -> Device, &str) = match text.split_once(':') {
            None if text == "cpu" => return Ok(Device::Cpu.into()),
            None if text == "openvino" => return Ok(Device::OpenVino.into()),
            Some(("cuda", numbers)) => (Device::Cuda, numbers),
            Some(("tensorrt", numbers)) => (Device::TensorRt, numbers),
            _ => return Err(DevicesError),
        };
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

    fn config(text: &str) -> EngineConfig {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        let options: BTreeMap<String, String> =
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        options.try_into().unwrap()
    }

    /// Every option, in the text that it is written as.
    const ALL: &str = "precision=int8 window=768:512 batch=4 threads=2 device=cuda:0,1 gpu-sessions=3 mode=latency memory=6G \
                       spin=on tf32=on cuda-graph=on gpu-memory=4000001 trt-fp16=on trt-int8=on trt-cache=a/b \
                       trt-workspace=1536K cpu-fallback=on";

    #[test]
    fn options_are_written_as_they_are_read() {
        let all = config(ALL);
        let text: Vec<String> =
            all.options().iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut expected: Vec<&str> = ALL.split_whitespace().collect();
        expected.sort_unstable();
        assert_eq!(text, expected);
        assert_eq!(text.len(), EngineConfig::NAMES.len());
        let json = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<EngineConfig>(&json).unwrap(), all);
        assert_eq!(
            serde_json::to_string(&config("threads=2 spin=on")).unwrap(),
            "{\"spin\":\"on\",\"threads\":\"2\"}"
        );
    }

    #[test]
    fn invalid_options_are_refused_with_the_way_out() {
        let message = |name: &str, value: &str| {
            EngineConfig::default().set(name, value).unwrap_err().to_string()
        };
        assert!(message("thread", "2").contains("unknown engine option `thread`; known are prec"));
        assert!(message("threads", "0").contains("write a number from 1 to 1024"));
        assert!(message("threads", "1025").contains("write a number from 1 to 1024"));
        assert!(message("spin", "yes").contains("value `yes` of spin: write on or off"));
        assert!(message("device", "gpu").contains("write cpu, openvino, cuda:N"));
        assert!(message("precision", "int4").contains("write fp32, fp16 or int8"));
        assert_eq!(config("spin=off"), EngineConfig::default());
        assert!(serde_json::from_str::<EngineConfig>("{\"thread\":\"1\"}").is_err());
    }

    #[test]
    fn a_configuration_overlays_another() {
        let base = config("precision=int8 threads=4 spin=on");
        let over = base.overlaid(&config("threads=2 memory=1G"));
        assert_eq!(over, config("precision=int8 threads=2 spin=on memory=1G"));
        assert_eq!(EngineConfig::default().overlaid(&config(ALL)), config(ALL));
        assert_eq!(config(ALL).overlaid(&EngineConfig::default()), config(ALL));
    }

    #[test]
    fn options_without_effect_are_refused() {
        for (options, name) in [
            ("cuda-graph=on", Some("cuda-graph")),
            ("tf32=on device=tensorrt:0", Some("tf32")),
            ("trt-cache=x device=cuda:0", Some("trt-cache")),
            ("cpu-fallback=on", Some("cpu-fallback")),
            ("gpu-sessions=2", Some("gpu-sessions")),
            ("mode=latency device=cuda:0", Some("mode")),
            ("memory=1G device=cuda:0", Some("memory")),
            ("spin=on device=openvino", Some("spin")),
            ("tf32=on gpu-memory=1G cuda-graph=on device=cuda:0,1", None),
            ("trt-fp16=on trt-int8=on trt-workspace=1G device=tensorrt:0", None),
            ("spin=on mode=throughput memory=1G threads=2", None),
        ] {
            let found = config(options).check().err();
            assert_eq!(
                found.map(|error| error.to_string().split(' ').next().unwrap().to_owned()),
                name.map(|name| format!("--{name}")),
                "{options}"
            );
        }
    }

    #[test]
    fn sizes_have_units_and_bounds() {
        assert_eq!(
            (parse_bytes("17"), parse_bytes("800M"), parse_bytes("6GiB")),
            (Ok(17), Ok(800 << 20), Ok(6 << 30))
        );
        for text in ["", "0", "M", "-1M", "1.5G", "5X", "99999999999T"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

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
        assert_eq!("tensorrt:1,0".parse::<Devices>().unwrap().to_string(), "tensorrt:1,0");
    }
}
