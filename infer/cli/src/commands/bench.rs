//! `protoseg bench`: how long a model takes, on this machine or behind an address, and how sure that is.

mod accuracy;
mod asked;
mod bound;
mod compare;
mod files;
mod plan;
mod run;
mod session;
mod subject;
mod sweep;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::{anyhow, bail, ensure};
use protoseg_bench::measure::WarmUpPolicy;
use protoseg_bench::stability::StabilityRule;
use protoseg_bench::terminal;
use protoseg_infer::session::load_runtime;

use super::data::DataArgs;
use super::engine_args::EngineArgs;
use super::image_args::ImageArgs;
use super::signals::StopSignals;
use super::{CommandError, CommandOutcome, print, print_json, print_stderr};

pub(crate) use self::asked::TargetSpec;
use self::files::ReportFiles;
use self::plan::{ArrivalRate, ScenarioKind};
use self::run::BenchCommand;
pub(crate) use self::session::BenchSession;
use self::sweep::Sweep;

/// Pairs of blocks from which on an interval of 99 % has ends: the least and the largest of eight.
const LEAST_PAIRS: usize = 8;

/// Seconds for which a server's answer is waited for where nobody says.
const PATIENCE: f64 = 60.0;

/// Measure how long a model takes
///
/// Asks a model for labels as the scenarios say: single-stream (one picture at a time), multi-stream (a query of several
/// pictures), clients (several who ask in turns), offline (all pictures are there), server (pictures come at random moments;
/// latency counts from when each was due). Latency goes from pixels in memory to labels in memory, or with --end-to-end from
/// picture files to label files. Figures that did not settle, or that drifted, are marked UNSTABLE. The same run checks what the
/// model answers, as a fast wrong model is worth nothing. The model is run as the options say; what `protoseg tune` found is not
/// looked at. Exit status 1 says that something failed on the way, 2 that nothing could be begun, 3 that some queries were not
/// answered.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: Option<Command>,
    /// Bundle folder, or an ONNX file that `protoseg export` wrote
    #[arg(required_unless_present = "url")]
    bundle: Option<PathBuf>,
    /// Ask a running server instead, such as http://127.0.0.1:8000: with pixels by the Open Inference Protocol, or with
    /// --end-to-end with picture files as `protoseg serve` takes them; a key for it may stand in PROTOSEG_API_KEY
    #[arg(long, value_name = "URL", conflicts_with = "bundle")]
    url: Option<String>,
    /// The server's model [default: its first]
    #[arg(long, value_name = "NAME", requires = "url")]
    model: Option<String>,
    /// Seconds after which a server's answer is not waited for any longer
    #[arg(long, value_name = "S", default_value_t = PATIENCE, requires = "url")]
    patience: f64,
    /// Measure in turns with this bundle, block by block, and say which is faster
    #[arg(long, value_name = "BUNDLE", conflicts_with_all = ["url", "sweep"])]
    against: Option<PathBuf>,
    /// An option of the engine for the other bundle alone, such as threads=1
    #[arg(long, value_name = "OPTION=VALUE", requires = "against")]
    against_set: Vec<Sweep>,
    /// Pairs of blocks; from 8 on there is an interval
    #[arg(long, value_name = "N", default_value = "20", value_parser = super::parse_count, requires = "against")]
    pairs: NonZeroUsize,
    #[command(flatten)]
    engine: EngineArgs,
    /// What to measure, any of these
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["single-stream", "offline"])]
    scenario: Vec<ScenarioKind>,
    /// Pictures of a query in the multi-stream scenario [default: 8]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = super::parse_count)]
    samples: Vec<NonZeroUsize>,
    /// Clients of the clients scenario [default: 4]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = super::parse_count)]
    clients: Vec<NonZeroUsize>,
    /// Pictures in a second that come in the server scenario: numbers, or shares such as 70% of what the model can
    /// do, which is found out first; `bench compare` holds only numbers against each other [default: 70%]
    #[arg(long, value_name = "N|P%,…", value_delimiter = ',')]
    rate: Vec<ArrivalRate>,
    /// Look for the most pictures in a second that come at random moments and of whose latencies the 99th percentile is no
    /// more than so many milliseconds
    #[arg(long, value_name = "MS", conflicts_with = "against")]
    latency_bound: Option<f64>,
    /// Measure for each value of an option of the engine, such as precision=fp32,int8 or threads=1,2; several make every
    /// combination
    #[arg(long, value_name = "OPTION=VALUE,…")]
    sweep: Vec<Sweep>,
    #[command(flatten)]
    pictures: ImageArgs,
    /// Decode picture files and encode label files as part of every query
    #[arg(long)]
    end_to_end: bool,
    /// Seconds for which each scenario is measured
    #[arg(long, value_name = "S", default_value_t = 10.0, conflicts_with = "queries")]
    time: f64,
    /// Queries of each scenario, instead of a time
    #[arg(long, value_name = "N", value_parser = super::image_count())]
    queries: Option<usize>,
    /// Queries before those that count, instead of as many as it takes until three stretches in a row are alike
    #[arg(long, value_name = "N")]
    warm_up: Option<usize>,
    /// Seed of the moments at which pictures come
    #[arg(long, value_name = "N", default_value_t = 0)]
    arrival_seed: u64,
    #[command(flatten)]
    data: DataArgs,
    /// Do not check what the model answers
    #[arg(long, conflicts_with = "data")]
    no_accuracy: bool,
    #[command(flatten)]
    files: ReportFiles,
    /// Print the report with every sample as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Compare(compare::CompareArgs),
}

pub(crate) fn run(arguments: &BenchArgs) -> Result<CommandOutcome, CommandError> {
    if let Some(Command::Compare(arguments)) = &arguments.command {
        return compare::run(arguments);
    }
    arguments.check().map_err(CommandError::Usage)?;
    load_runtime().map_err(CommandError::usage)?;
    let signals = StopSignals::catch().map_err(CommandError::Usage)?;
    let ran = BenchCommand::new(arguments, &signals.stop).map_err(CommandError::Usage)?.run();
    let stopped = || signals.stop.load(Ordering::Relaxed);
    let (report, failure) = match ran {
        Err(_) if stopped() => {
            print_stderr("stopped by a signal before anything was measured");
            return Ok(CommandOutcome::ExitCode(signals.status()));
        }
        ran => ran?,
    };
    // First to the terminal: what took long to find is not lost where a file cannot be written.
    if arguments.json {
        print_json(&report)?;
    } else {
        print(terminal::text(&report).trim_end())?;
    }
    arguments.files.write(&report)?;
    if stopped() {
        print_stderr("stopped by a signal: the report holds what was measured until then");
        return Ok(CommandOutcome::ExitCode(signals.status()));
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    let complete = report.runs.iter().flat_map(|run| &run.points).all(|point| point.failed == 0);
    Ok(if complete { CommandOutcome::Success } else { CommandOutcome::SomeInputsFailed })
}

impl BenchArgs {
    fn check(&self) -> anyhow::Result<()> {
        self.files.check([&self.bundle, &self.against].into_iter().flatten())?;
        let idle = [
            ("--samples", !self.samples.is_empty(), ScenarioKind::MultiStream, "multi-stream"),
            ("--clients", !self.clients.is_empty(), ScenarioKind::Clients, "clients"),
            ("--rate", !self.rate.is_empty(), ScenarioKind::Server, "server"),
        ];
        if let Some((option, _, _, name)) =
            idle.iter().find(|(_, given, kind, _)| *given && !self.scenario.contains(kind))
        {
            bail!("{option} is for the {name} scenario; add it to --scenario");
        }
        if let Some(name) = sweep::twice(&self.sweep).or_else(|| sweep::twice(&self.against_set)) {
            bail!(
                "{name} stands there twice; write all its values behind one option, as {name}=VALUE,VALUE"
            );
        }
        self.check_companions()?;
        ensure!(
            self.url.is_none() || self.data.data.is_none(),
            "--data scores a bundle; a server's model is not checked"
        );
        ensure!(
            self.against.is_none() || self.pairs.get() >= LEAST_PAIRS,
            "--pairs {}: from {LEAST_PAIRS} pairs on there is an interval, and below nothing could be said",
            self.pairs
        );
        ensure!(
            self.latency_bound.is_none_or(|bound| (1e-3..=1e9).contains(&bound)),
            "--latency-bound is a number of milliseconds from 0.001 to a billion"
        );
        ensure!(
            (0.1..=86_400.0).contains(&self.time),
            "--time: {} s is no time from 0.1 s to a day; name a number of --queries for a single one",
            self.time
        );
        ensure!(
            (0.1..=86_400.0).contains(&self.patience),
            "--patience: {} s is no time from 0.1 s to a day",
            self.patience
        );
        Ok(())
    }

    /// Refuses options that change nothing without another. The parser does not see it where a bundle stands there.
    fn check_companions(&self) -> anyhow::Result<()> {
        let usual =
            |name: &str| format!("{name} is for a server; name one with --url, or leave it out");
        ensure!(self.url.is_some() || self.model.is_none(), usual("--model"));
        ensure!(self.url.is_some() || self.patience == PATIENCE, usual("--patience"));
        ensure!(
            self.data.data.is_some() || !self.data.is_narrowed(),
            "--root, --split, --list, --limit, --seed and --size say which labelled pictures are scored; name their kind with \
             --data"
        );
        Ok(())
    }

    /// The other of two that are measured in turns.
    fn against(&self) -> Result<Option<TargetSpec>, CommandError> {
        let Some(other) = &self.against else { return Ok(None) };
        let mut all = sweep::combinations(&self.engine.config(), &self.against_set)
            .map_err(CommandError::usage)?;
        match (all.pop(), all.is_empty()) {
            (Some((options, name)), true) => {
                let mut wanted = TargetSpec::bundle(other, options, &name);
                if self.bundle.as_ref() == Some(other) && name.is_empty() {
                    wanted.name.push_str(" again");
                }
                Ok(Some(wanted))
            }
            _ => Err(CommandError::Usage(anyhow!(
                "--against-set gives an option one value; repeat it for other options"
            ))),
        }
    }

    fn warm_up(&self) -> WarmUpPolicy {
        match self.warm_up {
            Some(queries) => WarmUpPolicy::Queries(queries),
            None => WarmUpPolicy::Stable(StabilityRule {
                seconds: (self.time / 5.0).clamp(0.1, 2.0),
                queries: 3,
                ..StabilityRule::default()
            }),
        }
    }
}
