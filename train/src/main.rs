//! `protoseg-train`: trains a segmentor and leaves a checkpoint folder.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use protoseg_models::arch::{ArchError, Preset};
use protoseg_models::{atomic, errors::error_chain, weights};
use protoseg_train::config::Config;
use protoseg_train::cuda_backend::DeviceName;
use protoseg_train::run::ablate::{self, AblationAxis};
use protoseg_train::run::fit::fit;
use protoseg_train::run::init::init;
use protoseg_train::run::stop::StopMonitor;
use protoseg_train::run::{RunOptions, RunOutcome, Score, environment, openmp};
use protoseg_train::{accept, pretrained};
use tch::Device;

/// Trains a segmentor as a configuration file says.
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
    /// The configuration, such as train/configs/camvid.toml
    #[arg(required = true)]
    config: Option<PathBuf>,
    /// Folder for checkpoint, log and what resuming needs
    #[arg(long, required = true)]
    out: Option<PathBuf>,
    /// Sets a key of the configuration, such as steps=200; may be given often
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Goes on from where the run in --out was saved
    #[arg(long)]
    resume: bool,
    /// Stops after a step of the schedule, with everything saved that --resume needs
    #[arg(long, value_name = "STEP")]
    stop_after: Option<u64>,
    /// Stops after so many minutes, with everything saved that --resume needs; exit status 3
    #[arg(long, value_name = "MINUTES")]
    max_minutes: Option<f64>,
    /// Checkpoint folder whose weights to start from, and nothing else of it
    #[arg(long, value_name = "CHECKPOINT", conflicts_with = "resume")]
    init_from: Option<PathBuf>,
    /// Reads every listed file, says the plan, and ends before the first step
    #[arg(long)]
    dry_run: bool,
    /// Trains once for each value of a key, such as mode=supervised,mean-teacher; given often, for every combination
    #[arg(long, value_name = "KEY=VALUE,…", conflicts_with_all = ["stop_after", "init_from", "dry_run"])]
    ablate: Vec<String>,
    /// Where to train: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: DeviceName,
    /// Threads for libtorch; all cores where none are named. One more makes batches
    #[arg(long)]
    threads: Option<usize>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Writes a checkpoint of a network with random weights
    Init {
        /// The network, such as deeplabv3plus-efficientnet-lite0
        #[arg(value_parser = |name: &str| name.parse::<Preset>())]
        preset: Preset,
        /// The weights follow from it
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Folder for the checkpoint
        #[arg(long)]
        out: PathBuf,
    },
    /// Writes the weights of a PyTorch file as .safetensors; nothing in the file is executed
    Convert {
        /// The file, .pth or .pt
        weights: PathBuf,
        /// The file to write
        #[arg(long)]
        out: PathBuf,
    },
    /// Takes a few steps on drawn scenes and says whether training works on a device, and how fast; exit status 1 where it
    /// does not work
    Accept(AcceptArgs),
}

#[derive(Debug, Args)]
struct AcceptArgs {
    /// Where to train: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: DeviceName,
    /// A JSON file to write what was measured to
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Small crops and few steps, as on the CPU
    #[arg(long)]
    brief: bool,
    /// Tries every network; without it, EfficientNet-Lite0 and ResNet-101
    #[arg(long)]
    all: bool,
    /// Threads for libtorch; all cores where none are named
    #[arg(long)]
    threads: Option<usize>,
}

/// What the caller got wrong; exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{}", error_chain(.0.as_ref()))]
struct Usage(anyhow::Error);

fn main() -> ExitCode {
    openmp::set_passive_waiting();
    match run(Cli::parse()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {}", error_chain(error.as_ref()).lines().next().unwrap_or_default());
            ExitCode::from(if error.is::<Usage>() || error.is::<ArchError>() { 2 } else { 1 })
        }
    }
}

/// Results go to the standard output.
fn print(text: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("the standard output")
}

fn run(cli: Cli) -> Result<u8> {
    match cli.command {
        Some(Command::Init { preset, seed, out }) => init(preset, seed, &out)?,
        Some(Command::Convert { weights, out }) => {
            weights::write(&out, &pretrained::read(&weights)?, &BTreeMap::new())?;
        }
        Some(Command::Accept(arguments)) => return accept(&arguments),
        None => return train(&cli.train),
    }
    Ok(0)
}

fn accept(arguments: &AcceptArgs) -> Result<u8> {
    let AcceptArgs { device, report, brief, all, threads } = arguments;
    if device.is_cuda() {
        environment::reexec_with_env(accept::TF32, "0");
    }
    let device = open(*device, *threads)?;
    let options = accept::AcceptOptions { device, all: *all, brief: *brief };
    let found = accept::run(options, |line| eprintln!("{line}"))?;
    if let Some(path) = report {
        let text = serde_json::to_vec_pretty(&found)?;
        atomic::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    print(&found.to_string())?;
    Ok(u8::from(!found.passed))
}

/// Makes a device usable, and libtorch use so many threads, or as many as there are cores.
fn open(device: DeviceName, threads: Option<usize>) -> Result<Device> {
    let threads = match threads {
        Some(threads) if !(1..=1024).contains(&threads) => {
            return Err(Usage(anyhow::anyhow!(
                "--threads is {threads}; between 1 and 1024 are possible"
            ))
            .into());
        }
        Some(threads) => threads,
        None => std::thread::available_parallelism().context("cannot count the cores")?.get(),
    };
    let device = device.open().map_err(Usage)?;
    // Before libtorch's first operation, or it has no effect.
    tch::set_num_threads(i32::try_from(threads).context("--threads is too large")?);
    Ok(device)
}

fn train(arguments: &TrainArgs) -> Result<u8> {
    let (Some(path), Some(out)) = (&arguments.config, &arguments.out) else {
        bail!("name a configuration and --out")
    };
    let axes = arguments.ablate.iter().map(|axis| axis.parse::<AblationAxis>());
    let axes = axes.collect::<Result<Vec<AblationAxis>>>().map_err(Usage)?;
    let config = Config::read(path, &arguments.settings).map_err(Usage)?;
    let limit = arguments
        .max_minutes
        .map(|minutes| Duration::try_from_secs_f64(60.0 * minutes))
        .transpose();
    let limit = limit.map_err(|error| Usage(anyhow::anyhow!("--max-minutes: {error}")))?;
    let device = open(arguments.device, arguments.threads)?;
    let run = RunOptions {
        out: out.clone(),
        resume: arguments.resume,
        stop_after: arguments.stop_after,
        init_from: arguments.init_from.clone(),
        dry_run: arguments.dry_run,
        device,
        loader_threads: 1,
        monitor: StopMonitor::start(limit)?,
    };
    if !axes.is_empty() {
        return match ablate::run(path, &arguments.settings, &axes, &run)? {
            Ok(table) => print(&table).map(|()| 0),
            Err(stop) => Ok(stop.exit_status()),
        };
    }
    match fit(&config, &run)? {
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
