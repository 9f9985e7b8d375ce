//! `protoseg accept`: whether a machine runs all that protoseg promises, and how fast, from the three programs and the runtime
//! libraries alone.

mod buffers;
mod bundles;
mod files;
mod findings;
mod speed;
mod training;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context;
use protoseg_bench::machine::MachineInfo;
use protoseg_bench::report::BenchRun;
use protoseg_infer::config::{Device, Devices};
use protoseg_infer::session::{self, DevicePeak};
use protoseg_models::variant::Precision;
use serde::Serialize;

use self::findings::{CheckResult, CheckResults};
use super::signals::StopSignals;
use super::{CommandError, CommandOutcome, output_file, print, print_json, print_stderr, sibling};

const LARGEST: &str = "deeplabv3plus-resnet101";
const SMALLEST: &str = "deeplabv3plus-efficientnet-lite0";
const OTHERS: [&str; 3] = [
    "deeplabv3plus-resnet50",
    "deeplabv3plus-efficientnet-lite1",
    "deeplabv3plus-efficientnet-lite2",
];

/// Find out whether this machine runs what protoseg promises, and how fast
///
/// Makes bundles of random networks on the spot with protoseg-train and protoseg-export, and needs no compiler, no network and
/// no files beside the programs and the runtime libraries. Holds every file against libtorch's answers, looks where its nodes
/// run, compares ways to run it, measures every scenario at 1024x2048 and says which share of the device's measured ceilings
/// was reached; then trains some steps. What cannot be tried here is listed as not run, with the reason. The exit status is 1
/// where something failed.
#[derive(Debug, clap::Args)]
pub(crate) struct AcceptArgs {
    /// What computes: cpu, openvino, cuda:N or tensorrt:N
    #[arg(long, default_value = "cpu")]
    device: Devices,
    /// Write what was found as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// All networks, not only the largest and the smallest, or on a processor the smallest alone; there it takes hours
    #[arg(long, conflicts_with = "brief")]
    all: bool,
    /// The smallest network on small pictures, for a moment each: whether it works, not how fast
    #[arg(long)]
    brief: bool,
    /// Leave training out
    #[arg(long)]
    no_training: bool,
    /// Folder for the bundles, which is kept [default: a temporary one, which is not]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

/// What is written.
#[derive(Debug, Serialize)]
struct AcceptanceReport {
    version: u32,
    program: String,
    device: Device,
    brief: bool,
    passed: bool,
    seconds: f64,
    machine: MachineInfo,
    findings: Vec<CheckResult>,
    ceilings: Vec<Ceiling>,
    runs: Vec<BenchRun>,
    /// What `protoseg-train accept` wrote.
    training: Option<serde_json::Value>,
}

/// What the device reaches at best in one number format.
#[derive(Debug, Serialize)]
struct Ceiling {
    precision: &'static str,
    tf32: bool,
    #[serde(flatten)]
    reached: DevicePeak,
}

/// What all parts of it share.
struct Acceptance<'a> {
    arguments: &'a AcceptArgs,
    device: Device,
    work: PathBuf,
    /// True once a signal has come.
    stop: Arc<AtomicBool>,
}

pub(crate) fn run(arguments: &AcceptArgs) -> Result<CommandOutcome, CommandError> {
    let start = Instant::now();
    let device = arguments.device().map_err(CommandError::Usage)?;
    session::load_runtime().map_err(CommandError::usage)?;
    device.check().map_err(CommandError::usage)?;
    // Without them nothing can be begun.
    ["train", "export"]
        .into_iter()
        .try_for_each(|name| sibling::command(name).map(drop))
        .map_err(CommandError::Usage)?;
    let signals = StopSignals::catch().map_err(CommandError::Usage)?;
    let temporary =
        tempfile::tempdir().context("a folder for the bundles").map_err(CommandError::Usage)?;
    let work = arguments.work.clone().unwrap_or_else(|| temporary.path().to_owned());
    let acceptance = Acceptance { arguments, device, work, stop: Arc::clone(&signals.stop) };
    let (mut findings, mut runs) = (CheckResults::new(!arguments.json), Vec::new());
    let ceilings = acceptance.ceilings(&mut findings);
    for network in acceptance.networks() {
        if acceptance.is_stopped() {
            break;
        }
        print_stderr(format_args!("{network}"));
        let made = match acceptance.make(network) {
            Ok(made) => made,
            Err(error) => {
                findings.failed(format!("{network}: a bundle is made"), &error);
                continue;
            }
        };
        acceptance.hold_files(&made, &mut findings);
        acceptance.compare_ways(&made, &mut findings);
        runs.extend(acceptance.measure(&made, &ceilings, &mut findings));
    }
    let training = match arguments.no_training || acceptance.is_stopped() {
        true => None,
        false => acceptance.train(&mut findings),
    };
    if acceptance.is_stopped() {
        print_stderr("stopped by a signal before all was tried, so there is no verdict");
        return Ok(CommandOutcome::ExitCode(signals.status()));
    }
    let report = AcceptanceReport {
        version: 1,
        program: format!("protoseg {}", env!("CARGO_PKG_VERSION")),
        device,
        brief: arguments.brief,
        passed: findings.passed(),
        seconds: start.elapsed().as_secs_f64(),
        machine: MachineInfo::now(),
        findings: findings.all(),
        ceilings,
        runs,
        training,
    };
    report.tell(arguments)?;
    Ok(if report.passed { CommandOutcome::Success } else { CommandOutcome::Failed })
}

impl AcceptArgs {
    fn device(&self) -> anyhow::Result<Device> {
        let [device] = self.device.all() else {
            anyhow::bail!("--device names one device at a time here")
        };
        if let Some(report) = &self.report {
            output_file::check(report)?;
        }
        Ok(*device)
    }
}

impl Acceptance<'_> {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn networks(&self) -> Vec<&'static str> {
        if self.arguments.all {
            [LARGEST, SMALLEST].into_iter().chain(OTHERS).collect()
        } else if self.device.is_gpu() && !self.arguments.brief {
            vec![LARGEST, SMALLEST]
        } else {
            // The largest would take a processor hours.
            vec![SMALLEST]
        }
    }

    /// What the device reaches at best.
    fn ceilings(&self, findings: &mut CheckResults) -> Vec<Ceiling> {
        let mut ways = vec![(Precision::Fp32, false), (Precision::Fp16, false)];
        if matches!(self.device, Device::Cuda(_)) {
            ways.insert(1, (Precision::Fp32, true));
        }
        let measured = ways.into_iter().map(|(precision, tf32)| {
            let mut options = self.options();
            options.tf32 = tf32;
            DevicePeak::measure(&options, precision).map(|reached| Ceiling {
                precision: precision.name(),
                tf32,
                reached,
            })
        });
        match measured.collect() {
            Ok(ceilings) => ceilings,
            Err(error) => {
                findings.failed("the device's ceilings are measured".to_owned(), &error.into());
                Vec::new()
            }
        }
    }
}

impl AcceptanceReport {
    fn tell(&self, arguments: &AcceptArgs) -> anyhow::Result<()> {
        if let Some(path) = &arguments.report {
            let text = serde_json::to_vec_pretty(self).context("the report")?;
            output_file::write(path, &text)?;
        }
        if arguments.json {
            return print_json(self);
        }
        let verdict = if self.passed { "passed" } else { "FAILED" };
        print(format!("{verdict} on {} in {:.0} s", self.device, self.seconds))
    }
}
