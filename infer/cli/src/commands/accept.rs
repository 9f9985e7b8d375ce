//! `protoseg accept`: acceptance test of a machine with the three programs and the runtime
//! libraries alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, ensure};
use protoseg_bench::acceptance::{
    Acceptance, Ceiling, CheckResult, CheckResults, Outcome, TestBundle,
};
use protoseg_bench::machine::MachineInfo;
use protoseg_bench::report::BenchRun;
use protoseg_infer::config::{Device, Devices};
use protoseg_infer::session;
use protoseg_program::sibling;
use protoseg_program::signals::StopSignals;
use serde::Serialize;

use super::{CommandError, CommandOutcome, OrUsage, output_file, print, print_json, print_stderr};

const LARGEST: &str = "deeplabv3plus-resnet101";
const SMALLEST: &str = "deeplabv3plus-efficientnet-lite0";
const OTHERS: [&str; 6] = [
    "deeplabv3plus-resnet50",
    "deeplabv3plus-efficientnet-lite1",
    "deeplabv3plus-efficientnet-lite2",
    "vit-s14",
    "vit-b14",
    "vit-l14",
];

/// Seed of the random weights.
const SEED: &str = "3";

/// Check whether this machine runs everything correctly, and how fast
///
/// Makes bundles of random networks with protoseg-train and protoseg-export, without a compiler, a
/// network connection or files beside the programs and the runtime libraries. Compares the labels
/// of every file with libtorch's, checks where its nodes run, compares ways to run it, measures
/// every scenario at 1024x2048 as a share of the device's measured peak, and trains some steps.
/// Checks that this machine does not support are listed as skipped, with the reason. The exit
/// status is 1 where something failed.
#[derive(Debug, clap::Args)]
pub(crate) struct AcceptArgs {
    /// Device to test: cpu, openvino, cuda:N or tensorrt:N
    #[arg(long, default_value = "cpu")]
    device: Devices,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// All networks, not only the largest and the smallest, or on a CPU the smallest alone; there
    /// it takes hours
    #[arg(long, conflicts_with = "brief")]
    all: bool,
    /// The smallest network on small images, for a moment each: checks whether it works, not how
    /// fast
    #[arg(long)]
    brief: bool,
    /// Skip training
    #[arg(long)]
    no_training: bool,
    /// Folder for the bundles, which is kept [default: a temporary one, which is not]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

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
    /// Report of `protoseg-train accept`.
    training: Option<serde_json::Value>,
}

pub(crate) fn run(arguments: &AcceptArgs) -> Result<CommandOutcome, CommandError> {
    let start = Instant::now();
    let device = arguments.check().map_err(CommandError::Usage)?;
    session::load_runtime().map_err(CommandError::usage)?;
    device.check().map_err(CommandError::usage)?;
    for program in ["protoseg-train", "protoseg-export"] {
        sibling::command(program).or_usage()?;
    }
    let signals = StopSignals::catch().or_usage()?;
    let temporary =
        tempfile::tempdir().context("a folder for the bundles").map_err(CommandError::Usage)?;
    let work = arguments.work.clone().unwrap_or_else(|| temporary.path().to_owned());
    let is_stopped = || signals.stop.load(Ordering::Relaxed);
    let acceptance = Acceptance { device, brief: arguments.brief, stop: Arc::clone(&signals.stop) };
    let observe = |result: &CheckResult| {
        if !arguments.json {
            // Where the standard output is closed, the last line fails too, and then the command
            // says so.
            let _ = print(result);
        }
    };
    let mut results = CheckResults::new(&observe);
    let mut runs = Vec::new();
    let ceilings = acceptance.ceilings(&mut results);
    for network in arguments.networks(device) {
        if is_stopped() {
            break;
        }
        print_stderr(network);
        match make_bundle(network, &work, &acceptance) {
            Ok(bundle) => {
                acceptance.check_files(&bundle, &mut results);
                acceptance.check_gpu_modes(&bundle, &mut results);
                runs.extend(acceptance.measure(&bundle, &ceilings, &mut results));
            }
            Err(error) => results.add(format!("{network}: a bundle is made"), Err(error)),
        }
    }
    let mut training = None;
    if !arguments.no_training && !is_stopped() {
        training = arguments.train(device, &work, &mut results);
    }
    if is_stopped() {
        print_stderr("stopped by a signal before all checks were made, so there is no verdict");
        return Ok(CommandOutcome::ExitCode(signals.status()));
    }
    let report = AcceptanceReport {
        version: 1,
        program: format!("protoseg {}", env!("CARGO_PKG_VERSION")),
        device,
        brief: arguments.brief,
        passed: results.passed(),
        seconds: start.elapsed().as_secs_f64(),
        machine: MachineInfo::now(),
        findings: results.into_vec(),
        ceilings,
        runs,
        training,
    };
    if let Some(path) = &arguments.report {
        let text = serde_json::to_vec_pretty(&report).context("the report")?;
        output_file::write(path, &text)?;
    }
    if arguments.json {
        print_json(&report)?;
    } else {
        let verdict = if report.passed { "passed" } else { "FAILED" };
        print(format!("{verdict} on {device} in {:.0} s", report.seconds))?;
    }
    Ok(if report.passed { CommandOutcome::Success } else { CommandOutcome::Failed })
}

/// Makes a bundle of logits and frame files in fp32 and fp16, in the network's default windows.
fn make_bundle(
    network: &'static str,
    work: &Path,
    acceptance: &Acceptance,
) -> anyhow::Result<TestBundle> {
    let folder = work.join(network);
    let checkpoint = folder.join("checkpoint");
    let bundle = folder.join("bundle");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let mut init = sibling::command("protoseg-train")?;
    finish(init.args(["init", network, "--seed", SEED, "--out"]).arg(&checkpoint))?;
    let [height, width] = acceptance.image_size();
    let mut export = sibling::command("protoseg-export")?;
    export.arg(&checkpoint).arg("--no-check").arg("--out").arg(&bundle);
    export.args(["--precision", "fp32,fp16", "--frame", &format!("{height}x{width}")]);
    if acceptance.brief {
        // Default windows would pad a small image to the size of a large one.
        export.args(["--window", "128:96"]);
    }
    finish(&mut export)?;
    TestBundle::read(network, &bundle)
}

/// Runs a program without output, and fails with its error.
fn finish(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| name.clone())?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    // Usage advice follows the first line.
    let error = stderr.lines().next().unwrap_or_default().trim_start_matches("error: ");
    ensure!(output.status.success(), "{name} ended with {}: {error}", output.status);
    Ok(())
}

impl AcceptArgs {
    fn check(&self) -> anyhow::Result<Device> {
        let [device] = self.device.all() else {
            anyhow::bail!("--device takes a single device here")
        };
        if let Some(report) = &self.report {
            output_file::check(report)?;
        }
        Ok(*device)
    }

    fn networks(&self, device: Device) -> Vec<&'static str> {
        if self.all {
            [LARGEST, SMALLEST].into_iter().chain(OTHERS).collect()
        } else if device.is_gpu() && !self.brief {
            vec![LARGEST, SMALLEST]
        } else {
            // The largest takes a CPU hours.
            vec![SMALLEST]
        }
    }

    /// Runs `protoseg-train accept` and returns its report.
    fn train(
        &self,
        device: Device,
        work: &Path,
        results: &mut CheckResults,
    ) -> Option<serde_json::Value> {
        let device = match device {
            Device::Cpu | Device::OpenVino => "cpu".to_owned(),
            Device::Cuda(number) | Device::TensorRt(number) => format!("cuda:{number}"),
        };
        let report = work.join("train-accept.json");
        let trained = sibling::command("protoseg-train").map_err(anyhow::Error::from).and_then(
            |mut command| {
                command.args(["accept", "--device", &device, "--report"]).arg(&report);
                if self.brief {
                    command.arg("--brief");
                }
                if self.all {
                    command.arg("--all");
                }
                finish(&mut command)
            },
        );
        let outcome = trained
            .map(|()| Outcome::new(true, format!("protoseg-train accept on {device} passed"), []));
        results.add("training".to_owned(), outcome);
        let bytes = std::fs::read(&report).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}
