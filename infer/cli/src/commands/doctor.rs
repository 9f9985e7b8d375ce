//! `protoseg doctor`: what there is to run models with, and why something is not. A request for support starts with its
//! output: `protoseg doctor BUNDLE --json` holds the program's and ONNX Runtime's versions, the processor as this process may
//! use it, each device with the reason why it does not work, and what the bundle makes of a picture on those that do. It
//! holds no picture and no user's name but what the paths of the library and the bundle show.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use image::RgbImage;
use protoseg_bench::machine::gpu::{Gpu, Gpus};
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

/// Say what this machine can run models with, and why it cannot with the rest
///
/// Shows versions, the processor and memory as far as this process may use them, and tries every device. With a bundle, runs
/// a drawn picture on each device that works and compares the labels with the CPU's. The exit status is 0 where the CPU
/// works, with the bundle if there is one.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Bundle folder, or an ONNX file that `protoseg export` wrote
    bundle: Option<PathBuf>,
    /// Try these devices besides the CPU [default: cuda:0, tensorrt:0, openvino]
    #[arg(long, value_name = "DEVICE")]
    device: Option<Devices>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct DoctorReport {
    #[serde(flatten)]
    machine: MachineInfo,
    devices: Vec<DeviceCheck>,
}

/// How a device did.
#[derive(Debug, Serialize)]
struct DeviceCheck {
    device: Device,
    /// Whether the loaded ONNX Runtime was built with it.
    built_in: bool,
    works: bool,
    /// Why it does not, and what to do.
    problem: Option<String>,
    /// What the bundle did on it.
    bundle: Option<BundleTrial>,
}

/// How a picture went through the bundle.
#[derive(Debug, Serialize)]
struct BundleTrial {
    height: u32,
    width: u32,
    /// Seconds that opening took.
    open: f64,
    /// Seconds of the first run, in which memory is set up and kernels are chosen.
    first: f64,
    /// Seconds of the next.
    next: f64,
    /// Share of labels that are the CPU's.
    agreement: f64,
}

/// Height and width of the picture.
const SIZE: [u32; 2] = [512, 1024];

pub(crate) fn run(arguments: &DoctorArgs) -> Result<CommandOutcome, CommandError> {
    if let Some(bundle) = &arguments.bundle {
        check(bundle).map_err(CommandError::usage)?;
    }
    let machine = MachineInfo::now();
    let others = match &arguments.device {
        Some(devices) => devices.all().to_vec(),
        None => vec![Device::Cuda(0), Device::TensorRt(0), Device::OpenVino],
    };
    let devices = std::iter::once(Device::Cpu)
        .chain(others.into_iter().filter(|&device| device != Device::Cpu));
    let mut reference = None;
    let devices: Vec<DeviceCheck> =
        devices.map(|device| tried(device, arguments.bundle.as_deref(), &mut reference)).collect();
    let report = DoctorReport { machine, devices };
    if arguments.json {
        print_json(&report)?;
    } else {
        report.lines().into_iter().try_for_each(print)?;
    }
    let works = report.devices.iter().any(|tried| tried.device == Device::Cpu && tried.works);
    Ok(if works { CommandOutcome::Success } else { CommandOutcome::Failed })
}

/// Fails where the bundle would be at fault, and no device.
fn check(bundle: &Path) -> anyhow::Result<()> {
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

fn tried(device: Device, bundle: Option<&Path>, reference: &mut Option<Vec<u8>>) -> DeviceCheck {
    let built_in = device.is_built_in();
    let mut trial = || match bundle {
        Some(bundle) => trial(device, bundle, reference).map(Some),
        None => Ok(None),
    };
    match device.check().map_err(anyhow::Error::from).and_then(|()| trial()) {
        Ok(bundle) => DeviceCheck { device, built_in, works: true, problem: None, bundle },
        Err(error) => DeviceCheck {
            device,
            built_in,
            works: false,
            problem: Some(error_chain(error.as_ref())),
            bundle: None,
        },
    }
}

/// Runs a drawn picture twice.
fn trial(
    device: Device,
    bundle: &Path,
    reference: &mut Option<Vec<u8>>,
) -> anyhow::Result<BundleTrial> {
    let start = Instant::now();
    let mut segmenter = Segmenter::open_with(bundle, &EngineConfig::on(device))?;
    let [height, width] = segmenter.only_size().map_or(SIZE, |size| size.map(|side| side as u32));
    let scene = protoseg_synthetic::render_scene(0, 0, height as usize, width as usize);
    let picture = RgbImage::from_raw(width, height, scene.image).context("a drawn picture")?;
    let opened = Instant::now();
    segmenter.predict(&picture, Outputs::default())?;
    let first = Instant::now();
    let labels = into_vec(segmenter.predict(&picture, Outputs::default())?.labels);
    let next = first.elapsed().as_secs_f64();
    let reference = reference.get_or_insert_with(|| labels.clone());
    let equal =
        labels.iter().zip(reference.iter()).filter(|(found, expected)| found == expected).count();
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
        let line = |name: &str, text: &str| format!("{name:<13}{text}");
        let MachineInfo {
            version,
            runtime,
            processor,
            memory,
            system,
            kernel,
            virtual_machine,
            container,
            ..
        } = &self.machine;
        let runtime = match runtime {
            Some(Runtime { path: Some(path), build }) => format!("{}, {build}", path.display()),
            Some(Runtime { path: None, build }) => build.clone(),
            None => "none".to_owned(),
        };
        let inside = |what: &str, name: &Option<String>| {
            name.as_ref().map(|name| format!("in a {what}: {name}"))
        };
        let system = [
            Some(system.clone().unwrap_or_else(|| "unknown".to_owned())),
            kernel.as_ref().map(|kernel| format!("kernel {kernel}")),
            inside("virtual machine", virtual_machine),
            inside("container", container),
        ];
        let mut lines = vec![
            line("protoseg", version),
            line("ONNX Runtime", &runtime),
            line("system", &system.into_iter().flatten().collect::<Vec<_>>().join(", ")),
            line("processor", &processor_line(processor)),
            line("memory", &memory_line(memory)),
        ];
        lines.extend(gpu_lines(&self.machine.gpus).iter().map(|text| line("gpu", text)));
        lines.extend(
            self.devices.iter().map(|tried| line(&tried.device.to_string(), &tried.text())),
        );
        lines
    }
}

fn processor_line(processor: &Processor) -> String {
    let Processor { name, cores, vector_extensions, quota, governor, mhz, max_mhz, .. } = processor;
    let mut parts =
        vec![name.clone().unwrap_or_else(|| "unknown".to_owned()), format!("{cores} cores to use")];
    parts.extend(quota.map(|quota| format!("time of {quota:.2} by quota")));
    parts.extend(Some(vector_extensions.join(" ")).filter(|names| !names.is_empty()));
    parts.extend(mhz.map(|mhz| match max_mhz {
        Some(most) => format!("{mhz:.0} of {most:.0} MHz"),
        None => format!("{mhz:.0} MHz"),
    }));
    parts.extend(governor.as_ref().map(|governor| format!("governor {governor}")));
    parts.join(", ")
}

/// A line for each GPU; of a machine without one, why there is none.
fn gpu_lines(found: &Gpus) -> Vec<String> {
    if let Some(reason) = &found.missing {
        return vec![format!("none: {reason}")];
    }
    let line = |gpu: &Gpu| {
        let driver = found.driver.as_ref().map(|driver| format!("driver {driver}"));
        let number = gpu
            .number
            .map_or_else(|| "without a known number".to_owned(), |number| format!("cuda:{number}"));
        let clock =
            gpu.sm_mhz.zip(gpu.sm_max_mhz).map(|(now, most)| format!("{now} of {most} MHz"));
        let held = gpu.throttled.iter().cloned().collect::<Vec<_>>().join(", ");
        let parts = [
            Some(gpu.name.clone().unwrap_or_else(|| "unknown".to_owned())),
            Some(number),
            driver,
            found.cuda.as_ref().map(|cuda| format!("CUDA up to {cuda}")),
            gpu.memory.map(|bytes| gibibytes(Some(bytes))),
            gpu.power_limit.map(|watts| format!("{watts:.0} W at most")),
            clock,
            gpu.temperature.map(|degrees| format!("{degrees} degrees")),
            Some(held).filter(|held| !held.is_empty()).map(|held| format!("held down by {held}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    };
    found.gpus.iter().map(line).collect()
}

fn gibibytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(
        || "unknown".to_owned(),
        |bytes| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    )
}

fn memory_line(memory: &Memory) -> String {
    let &Memory { machine, limit, available } = memory;
    let whole = if machine == limit {
        String::new()
    } else {
        format!(" by the limit of a control group, {} in all", gibibytes(machine))
    };
    format!("{}{whole}, of which {} are free", gibibytes(limit), gibibytes(available))
}

impl DeviceCheck {
    fn text(&self) -> String {
        let Some(BundleTrial { height, width, open, first, next, agreement }) = &self.bundle else {
            return self
                .problem
                .as_ref()
                .map_or_else(|| "works".to_owned(), |problem| format!("does not work: {problem}"));
        };
        format!(
            "works: opened in {open:.2} s, {width}x{height} pixels in {first:.2} s, then in {next:.2} s, {:.3} % of labels are the \
             CPU's",
            100.0 * agreement
        )
    }
}
