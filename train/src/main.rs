//! `protoseg-train`: trains a segmentor and leaves a checkpoint folder.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use protoseg_models::arch::{ArchError, Preset};
use protoseg_models::{errors::sentence, weights};
use protoseg_train::config::Config;
use protoseg_train::fit::{Run, fit};
use protoseg_train::init::init;
use protoseg_train::{openmp, pretrained};

/// Trains a segmentor as a configuration file says.
#[derive(Debug, Parser)]
#[command(name = "protoseg-train", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
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
    /// Threads for libtorch; all cores where none are named
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
}

/// What the caller got wrong; exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{}", sentence(.0.as_ref()))]
struct Usage(anyhow::Error);

fn main() -> ExitCode {
    openmp::wait_passively();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", sentence(error.as_ref()).lines().next().unwrap_or_default());
            ExitCode::from(if error.is::<Usage>() || error.is::<ArchError>() { 2 } else { 1 })
        }
    }
}

/// Results go to the standard output.
fn print(text: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("the standard output")
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Some(Command::Init { preset, seed, out }) => init(preset, seed, &out),
        Some(Command::Convert { weights, out }) => {
            Ok(weights::write(&out, &pretrained::read(&weights)?, &BTreeMap::new())?)
        }
        None => train(cli.train),
    }
}

fn train(arguments: TrainArgs) -> Result<()> {
    let TrainArgs { config, out, settings, resume, stop_after, threads } = arguments;
    let (Some(config), Some(out)) = (config, out) else { bail!("name a configuration and --out") };
    let config = Config::read(&config, &settings).map_err(Usage)?;
    let threads = match threads {
        Some(threads) if !(1..=1024).contains(&threads) => {
            return Err(Usage(anyhow::anyhow!("--threads is {threads}; between 1 and 1024 are possible")).into());
        }
        Some(threads) => threads,
        None => std::thread::available_parallelism().context("cannot count the cores")?.get(),
    };
    // Before libtorch's first operation, or it has no effect.
    tch::set_num_threads(i32::try_from(threads).context("--threads is too large")?);
    let metrics = fit(&config, &Run { out: out.clone(), resume, stop_after, loader_threads: 1 })?;
    for metrics in metrics {
        print(&format!("{}, {}:\n{}", metrics.data, metrics.protocol, metrics.scores))?;
    }
    Ok(())
}
