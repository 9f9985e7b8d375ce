//! `protoseg doctor`: what this machine can run models with, and why it cannot with the rest. Its
//! output belongs into every request for support: versions, processor, memory, each device with the
//! reason why it does not work, and what a bundle does on those that work. It holds no images, and
//! no user names but those in paths.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use image::RgbImage;
use protoseg_bench::machine::gpu::Gpus;
use protoseg_bench::machine::{MachineInfo, Processor};
use protoseg_infer::config::{Device, Devices};
use protoseg_infer::machine::Memory;
use protoseg_infer::session::Runtime;
use protoseg_infer::upsample::into_vec;
use protoseg_infer::{EngineConfig, Outputs, Segmenter};
use protoseg_models::bundle::Manifest;
use protoseg_models::errors::error_chain;
use serde::Serialize;

use super::{CommandError, CommandOutcome, print, print_json};

/// Height and width of the test image.
const SIZE: [usize; 2] = [512, 1024];

/// Show what this machine can run models with, and why it cannot with the rest
///
/// Shows versions, the processor and memory as far as this process may use them, and tries every
/// device. With a bundle, runs a synthetic image on each device that works and compares the labels
/// with the CPU's. The exit status is 0 where the CPU works, with the bundle if there is one.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Bundle folder, or an ONNX file that `protoseg export` wrote
    bundle: Option<PathBuf>,
    /// Devices to try besides the CPU [default: cuda:0, tensorrt:0, openvino]
    #[arg(long, value_name = "DEVICE")]
    device: Option<Devices>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct DoctorReport {
    #[serde(flatten)]
    machine: MachineInfo,
    devices: Vec<DeviceCheck>,
}

#[derive(Debug, Serialize)]
struct DeviceCheck {
    device: Device,
    /// The loaded ONNX Runtime was built with it.
    built_in: bool,
    works: bool,
    /// Why it does not work, and what to do.
    problem: Option<String>,
    bundle: Option<BundleTrial>,
}

/// Two runs of an image.
#[derive(Debug, Serialize)]
struct BundleTrial {
    height: usize,
    width: usize,
    /// Seconds to open.
    open: f64,
    /// Seconds of the first run, which allocates memory and chooses kernels.
    first: f64,
    /// Seconds of the second.
    next: f64,
    /// Share of labels equal to the CPU's.
    agreement: f64,
}

pub(crate) fn run(arguments: &DoctorArgs) -> Result<CommandOutcome, CommandError> {
    if let Some(bundle) = &arguments.bundle {
        check_bundle(bundle).map_err(CommandError::usage)?;
    }
    let mut devices = vec![Device::Cpu];
    match &arguments.device {
        Some(others) => devices.extend(others.all().iter().filter(|&&other| other != Device::Cpu)),
        None => devices.extend([Device::Cuda(0), Device::TensorRt(0), Device::OpenVino]),
    }
    let machine = MachineInfo::now();
    let mut reference = None;
    let check = |device| check_device(device, arguments.bundle.as_deref(), &mut reference);
    let report = DoctorReport { machine, devices: devices.into_iter().map(check).collect() };
    if arguments.json {
        print_json(&report)?;
    } else {
        report.lines().into_iter().try_for_each(print)?;
    }
    let works = report.devices.iter().any(|check| check.device == Device::Cpu && check.works);
    Ok(if works { CommandOutcome::Success } else { CommandOutcome::Failed })
}

/// Fails where the bundle itself is at fault.
fn check_bundle(bundle: &Path) -> anyhow::Result<()> {
    ensure!(
        bundle.exists(),
        "{} does not exist; name a bundle folder, or an ONNX file",
        bundle.display()
    );
    if bundle.is_dir() {
        Manifest::read(bundle)?;
    }
    Ok(())
}

fn check_device(
    device: Device,
    bundle: Option<&Path>,
    reference: &mut Option<Vec<u8>>,
) -> DeviceCheck {
    let mut trial = || {
        device.check()?;
        bundle.map(|bundle| run_bundle(device, bundle, reference)).transpose()
    };
    let (problem, bundle) = match trial() {
        Ok(bundle) => (None, bundle),
        Err(error) => (Some(error_chain(error.as_ref())), None),
    };
    let built_in = device.is_built_in();
    DeviceCheck { device, built_in, works: problem.is_none(), problem, bundle }
}

/// Runs a synthetic image twice. The labels of the first device are the reference.
fn run_bundle(
    device: Device,
    bundle: &Path,
    reference: &mut Option<Vec<u8>>,
) -> anyhow::Result<BundleTrial> {
    let start = Instant::now();
    let mut segmenter = Segmenter::open_with(bundle, &EngineConfig::on(device))?;
    let [height, width] = segmenter.only_size().unwrap_or(SIZE);
    let scene = protoseg_synthetic::render_scene(0, 0, height, width);
    let image = RgbImage::from_raw(width as u32, height as u32, scene.image)
        .context("a synthetic image")?;
    let opened = Instant::now();
    segmenter.predict(&image, Outputs::default())?;
    let first = Instant::now();
    let labels = into_vec(segmenter.predict(&image, Outputs::default())?.labels);
    let next = first.elapsed().as_secs_f64();
    let reference = reference.get_or_insert_with(|| labels.clone());
    let equal = labels.iter().zip(reference.iter()).filter(|(one, other)| one == other).count();
    Ok(BundleTrial {
        height,
        width,
        open: (opened - start).as_secs_f64(),
        first: (first - opened).as_secs_f64(),
        next,
        agreement: equal as f64 / labels.len() as f64,
    })
}

impl DoctorReport {
    fn lines(&self) -> Vec<String> {
        let machine = &self.machine;
        let runtime = match &machine.runtime {
            Some(Runtime { path: Some(path), build }) => format!("{}, {build}", path.display()),
            Some(Runtime { path: None, build }) => build.clone(),
            None => "none".to_owned(),
        };
        let mut rows = vec![
            ("protoseg".to_owned(), machine.version.clone()),
            ("ONNX Runtime".to_owned(), runtime),
            ("system".to_owned(), system_line(machine)),
            ("processor".to_owned(), processor_line(&machine.processor)),
            ("memory".to_owned(), memory_line(&machine.memory)),
        ];
        rows.extend(gpu_lines(&machine.gpus).into_iter().map(|text| ("gpu".to_owned(), text)));
        rows.extend(self.devices.iter().map(|check| (check.device.to_string(), check.text())));
        rows.into_iter().map(|(name, text)| format!("{name:<13}{text}")).collect()
    }
}

fn system_line(machine: &MachineInfo) -> String {
    let mut parts = vec![machine.system.clone().unwrap_or_else(|| "unknown".to_owned())];
    parts.extend(machine.kernel.as_ref().map(|kernel| format!("kernel {kernel}")));
    let machine_name = machine.virtual_machine.as_ref();
    parts.extend(machine_name.map(|name| format!("in a virtual machine: {name}")));
    parts.extend(machine.container.as_ref().map(|name| format!("in a container: {name}")));
    parts.join(", ")
}

fn processor_line(processor: &Processor) -> String {
    let mut parts = vec![
        processor.name.clone().unwrap_or_else(|| "unknown".to_owned()),
        format!("{} usable cores", processor.cores),
    ];
    parts.extend(processor.quota.map(|quota| format!("time of {quota:.2} by quota")));
    if !processor.vector_extensions.is_empty() {
        parts.push(processor.vector_extensions.join(" "));
    }
    parts.extend(processor.mhz.map(|mhz| match processor.max_mhz {
        Some(max) => format!("{mhz:.0} of {max:.0} MHz"),
        None => format!("{mhz:.0} MHz"),
    }));
    parts.extend(processor.governor.as_ref().map(|governor| format!("governor {governor}")));
    parts.join(", ")
}

/// A line per GPU; without any, why.
fn gpu_lines(gpus: &Gpus) -> Vec<String> {
    if let Some(reason) = &gpus.missing {
        return vec![format!("none: {reason}")];
    }
    let mut lines = Vec::new();
    for gpu in &gpus.gpus {
        let mut parts = vec![gpu.name.clone().unwrap_or_else(|| "unknown".to_owned())];
        parts.push(match gpu.number {
            Some(number) => format!("cuda:{number}"),
            None => "without a known number".to_owned(),
        });
        parts.extend(gpus.driver.as_ref().map(|driver| format!("driver {driver}")));
        parts.extend(gpus.cuda.as_ref().map(|cuda| format!("CUDA up to {cuda}")));
        parts.extend(gpu.memory.map(|bytes| gibibytes(Some(bytes))));
        parts.extend(gpu.power_limit.map(|watts| format!("{watts:.0} W at most")));
        let clock = gpu.sm_mhz.zip(gpu.sm_max_mhz);
        parts.extend(clock.map(|(now, max)| format!("{now} of {max} MHz")));
        parts.extend(gpu.temperature.map(|degrees| format!("{degrees} degrees")));
        if !gpu.throttled.is_empty() {
            let reasons: Vec<String> = gpu.throttled.iter().cloned().collect();
            parts.push(format!("throttled by {}", reasons.join(", ")));
        }
        lines.push(parts.join(", "));
    }
    lines
}

fn gibibytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(
        || "unknown".to_owned(),
        |bytes| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    )
}

fn memory_line(memory: &Memory) -> String {
    let &Memory { machine, limit, available } = memory;
    let all = if machine == limit {
        String::new()
    } else {
        format!(" by the limit of a control group, {} in all", gibibytes(machine))
    };
    format!("{}{all}, of which {} are free", gibibytes(limit), gibibytes(available))
}

impl DeviceCheck {
    fn text(&self) -> String {
        if let Some(problem) = &self.problem {
            return format!("does not work: {problem}");
        }
        let Some(BundleTrial { height, width, open, first, next, agreement }) = &self.bundle else {
            return "works".to_owned();
        };
        format!(
            "works: opened in {open:.2} s, {width}x{height} pixels in {first:.2} s, then in {next:.2} s, {:.3} % of labels are \
             the CPU's",
            100.0 * agreement
        )
    }
}
