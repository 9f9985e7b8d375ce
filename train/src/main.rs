//! `protoseg-train`: trains a segmentor and writes a checkpoint folder.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, CommandFactory, Parser, Subcommand};
use protoseg_models::arch::{ArchError, Preset};
use protoseg_models::{atomic, errors::error_chain, weights};
use protoseg_train::config::{Config, reference};
use protoseg_train::cuda_backend::DeviceName;
use protoseg_train::run::ablate::{self, AblationAxis};
use protoseg_train::run::fit::fit;
use protoseg_train::run::init::init;
use protoseg_train::run::stop::{StopMonitor, StopReason};
use protoseg_train::run::{NothingBegun, RunOptions, RunOutcome, Score, environment, recalibrate};
use protoseg_train::{accept, pretrained};
use tch::Device;

mod allocator;

#[global_allocator]
static ALLOCATOR: allocator::SentenceAllocator = allocator::SentenceAllocator;

/// Trains a segmentor as configured by a file.
#[derive(Debug, Parser)]
#[command(
    name = "protoseg-train",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    train: TrainArgs,
}

#[derive(Debug, Args)]
struct TrainArgs {
    /// Configuration file, such as train/configs/camvid.toml
    #[arg(required = true)]
    config: Option<PathBuf>,
    /// Folder of checkpoint, log and state
    #[arg(long, required = true)]
    out: Option<PathBuf>,
    /// Overrides a key of the configuration, such as steps=200; KEY= takes one away; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Continues the run in --out from its saved state
    #[arg(long)]
    resume: bool,
    /// Continues though images or label maps have changed since the run began
    #[arg(long, requires = "resume")]
    accept_changes: bool,
    /// Saves the state and stops after a step of the schedule
    #[arg(long, value_name = "STEP")]
    stop_after: Option<u64>,
    /// Saves the state and stops after so many minutes, with exit status 3
    #[arg(long, value_name = "MINUTES")]
    max_minutes: Option<f64>,
    /// Checkpoint folder of the initial weights; those of classes in the last layer are taken by name
    #[arg(long, value_name = "CHECKPOINT", conflicts_with = "resume")]
    init_from: Option<PathBuf>,
    /// Reads every listed file and prints the plan, without training
    #[arg(long)]
    dry_run: bool,
    /// Trains once for each value of a key, such as mode=supervised,mean-teacher; repeated, for every combination
    #[arg(long, value_name = "KEY=VALUE,…", conflicts_with_all = ["stop_after", "init_from", "dry_run"])]
    ablate: Vec<String>,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Debug, Args)]
struct DeviceArgs {
    /// Device: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: DeviceName,
    /// Threads of libtorch, all cores by default; training uses one more to make batches
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=1024))]
    threads: Option<i32>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Writes a checkpoint of a network with random weights
    Init {
        /// Network, such as deeplabv3plus-efficientnet-lite0
        #[arg(value_parser = |name: &str| name.parse::<Preset>())]
        preset: Preset,
        /// Seed of the weights
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Folder of the checkpoint
        #[arg(long)]
        out: PathBuf,
    },
    /// Converts the weights of a PyTorch file to .safetensors without executing anything in the file
    Convert {
        /// PyTorch file, .pth or .pt
        weights: PathBuf,
        /// File to write
        #[arg(long)]
        out: PathBuf,
    },
    /// Records the ranges for int8 export in a finished checkpoint again
    Calibrate(CalibrateArgs),
    /// Describes the keys of a configuration
    Config(ConfigArgs),
    /// Tests and times a few steps on synthetic scenes on a device; exit status 1 if a check fails
    Accept(AcceptArgs),
}

#[derive(Debug, Args)]
struct CalibrateArgs {
    /// Checkpoint folder, such as runs/x/checkpoint
    checkpoint: PathBuf,
    /// Configuration file of the images, instead of that in the checkpoint
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Overrides a key of the configuration, such as calibration_images=16; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ConfigArgs {
    /// Prints every key as a Markdown page: type, default, meaning
    #[arg(long)]
    reference: bool,
    /// Prints a JSON schema, for editors
    #[arg(long)]
    schema: bool,
}

#[derive(Debug, Args)]
struct AcceptArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// Writes the measurements to a JSON file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Uses small crops and few steps, as on the CPU
    #[arg(long)]
    brief: bool,
    /// Tests every network, not only EfficientNet-Lite0 and ResNet-101
    #[arg(long)]
    all: bool,
}

/// An error in the arguments; exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{}", error_chain(.0.as_ref()))]
struct Usage(anyhow::Error);

fn main() -> ExitCode {
    environment::set_passive_waiting();
    let outcome = match protoseg_program::manual::write_if_asked(Cli::command) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => run(Cli::parse()),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {}", error_chain(error.as_ref()).lines().next().unwrap_or_default());
            let is_begun = !error.is::<Usage>() && !error.is::<NothingBegun>();
            ExitCode::from(if is_begun && !error.is::<ArchError>() { 1 } else { 2 })
        }
    }
}

/// Prints a result to the standard output.
fn print(text: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("cannot write to the standard output")
}

fn run(cli: Cli) -> Result<u8> {
    match cli.command {
        Some(Command::Init { preset, seed, out }) => init(preset, seed, &out)?,
        Some(Command::Convert { weights, out }) => {
            weights::write(&out, &pretrained::read(&weights)?, &BTreeMap::new())?;
        }
        Some(Command::Calibrate(arguments)) => return calibrate(&arguments),
        Some(Command::Config(ConfigArgs { schema: true, .. })) => {
            print(&serde_json::to_string_pretty(&reference::schema())?)?;
        }
        Some(Command::Config(_)) => print(reference::markdown().trim_end())?,
        Some(Command::Accept(arguments)) => return accept(&arguments),
        None => return train(&cli.train),
    }
    Ok(0)
}

fn accept(arguments: &AcceptArgs) -> Result<u8> {
    let AcceptArgs { device, report, brief, all } = arguments;
    if device.device.is_cuda() {
        environment::reexec_with_env(accept::TF32, "0");
    }
    let device = device.open()?;
    let options = accept::AcceptOptions { device, all: *all, brief: *brief };
    let result = accept::run(options, |line| eprintln!("{line}"))?;
    if let Some(path) = report {
        let text = serde_json::to_vec_pretty(&result)?;
        atomic::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    print(&result.to_string())?;
    Ok(u8::from(!result.passed))
}

fn calibrate(arguments: &CalibrateArgs) -> Result<u8> {
    let CalibrateArgs { checkpoint, config, settings, device } = arguments;
    let config =
        recalibrate::configuration(checkpoint, config.as_deref(), settings).map_err(Usage)?;
    let device = device.open()?;
    let stopped =
        recalibrate::recalibrate(checkpoint, &config, device, &StopMonitor::start(None)?)?;
    Ok(stopped.map_or(0, StopReason::exit_status))
}

impl DeviceArgs {
    /// Opens the device and sets libtorch's threads.
    fn open(&self) -> Result<Device> {
        let device = self.device.open().map_err(Usage)?;
        let threads = match self.threads {
            Some(threads) => threads,
            None => {
                let cores =
                    std::thread::available_parallelism().context("cannot count the cores")?;
                i32::try_from(cores.get())?
            }
        };
        // Has no effect after libtorch's first operation.
        tch::set_num_threads(threads);
        Ok(device)
    }
}

fn train(arguments: &TrainArgs) -> Result<u8> {
    let (Some(path), Some(out)) = (&arguments.config, &arguments.out) else {
        bail!("a configuration file and --out are required")
    };
    let axes = arguments
        .ablate
        .iter()
        .map(|axis| axis.parse())
        .collect::<Result<Vec<AblationAxis>>>()
        .map_err(Usage)?;
    let limit = arguments
        .max_minutes
        .map(|minutes| Duration::try_from_secs_f64(60.0 * minutes))
        .transpose()
        .map_err(|error| Usage(anyhow::anyhow!("--max-minutes: {error}")))?;
    let device = arguments.device.open()?;
    let options = RunOptions {
        out: out.clone(),
        census: out.clone(),
        resume: arguments.resume,
        accept_changes: arguments.accept_changes,
        stop_after: arguments.stop_after,
        init_from: arguments.init_from.clone(),
        dry_run: arguments.dry_run,
        device,
        loader_threads: 1,
        monitor: StopMonitor::start(limit)?,
    };
    if !axes.is_empty() {
        return match ablate::run(path, &arguments.settings, &axes, &options)? {
            Ok(table) => print(&table).map(|()| 0),
            Err(stop) => Ok(stop.exit_status()),
        };
    }
    let config = Config::read(path, &arguments.settings).map_err(Usage)?;
    match fit(&config, &options)? {
        RunOutcome::Finished(scores) => {
            for Score { metrics, .. } in scores.into_iter().filter(|score| score.which == "teacher")
            {
                print(&format!("{}, {}:\n{}", metrics.data, metrics.protocol, metrics.scores))?;
            }
            Ok(0)
        }
        RunOutcome::Planned => Ok(0),
        RunOutcome::Stopped(stop) => Ok(stop.exit_status()),
    }
}
