//! `protoseg bench`: latency and throughput of a model, in this process or behind an address.

mod load;
mod output;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{bail, ensure};
use protoseg_bench::load::StopAfter;
use protoseg_bench::measure::WarmUpPolicy;
use protoseg_bench::run::{BenchError, BenchRequest};
use protoseg_bench::session::{BenchSession, ServerOptions, TargetLocation, TargetSpec};
use protoseg_bench::stability::StabilityRule;
use protoseg_bench::sweep::{self, Sweep};
use protoseg_bench::terminal;
use protoseg_infer::check::LabeledImages;
use protoseg_infer::{EngineConfig, evaluate, session};
use protoseg_models::bundle::Manifest;
use protoseg_program::signals::StopSignals;

use self::load::LoadArgs;
use self::output::OutputArgs;
use super::bench_compare::CompareArgs;
use super::data::DataArgs;
use super::engine_args::EngineArgs;
use super::image_args::ImageArgs;
use super::serve::KEY_VARIABLE;
use super::{
    CommandError, CommandOutcome, OrUsage, bench_compare, print, print_json, print_stderr,
};

/// Default of `--pairs`, and the least with an interval of 99 %.
const PAIRS: NonZeroUsize = NonZeroUsize::new(20).unwrap();
const LEAST_PAIRS: usize = 8;

/// Default timeout of a server's responses, in seconds.
const TIMEOUT: f64 = 60.0;

/// Bounds of times in seconds.
const A_DAY: std::ops::RangeInclusive<f64> = 0.1..=86_400.0;

/// Least queries of a scenario that is measured for a time.
const LEAST_QUERIES: usize = 3;

/// Measure latency and throughput of a model
///
/// Scenarios: single-stream (one image at a time), multi-stream (queries of several images),
/// clients (concurrent clients), offline (all images are there), server (random arrivals; latency
/// counts from when each was due). Latency goes from pixels to labels in memory, or with
/// --end-to-end from image files to label files. Results that did not reach a steady state, or that
/// drifted, are marked UNSTABLE. The labels are checked in the same run, as a fast wrong model is
/// worth nothing. The model runs with the given options; results of `protoseg tune` are not used.
/// Exit status 1 means that something failed on the way, 2 that nothing could be begun, 3 that some
/// queries were not answered.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten, next_help_heading = "Target")]
    target: TargetArgs,
    #[command(flatten, next_help_heading = "Load")]
    load: LoadArgs,
    #[command(flatten, next_help_heading = "Engine")]
    engine: EngineArgs,
    #[command(flatten, next_help_heading = "Images")]
    images: ImageArgs,
    #[command(flatten, next_help_heading = "Accuracy")]
    data: DataArgs,
    /// Do not check the labels
    #[arg(long, conflicts_with = "data", help_heading = "Accuracy")]
    no_accuracy: bool,
    #[command(flatten, next_help_heading = "Output")]
    output: OutputArgs,
}

#[derive(Debug, clap::Args)]
struct TargetArgs {
    /// Bundle folder, or an ONNX file that `protoseg export` wrote
    #[arg(required_unless_present = "url")]
    bundle: Option<PathBuf>,
    /// Measure a running server, such as http://127.0.0.1:8000: with pixels by the Open Inference
    /// Protocol, or with --end-to-end with image files as `protoseg serve` takes them;
    /// PROTOSEG_API_KEY may hold its key
    #[arg(long, value_name = "URL", conflicts_with = "bundle")]
    url: Option<String>,
    /// The server's model [default: its first]
    #[arg(long, value_name = "NAME", requires = "url")]
    model: Option<String>,
    /// Seconds to wait for a server's response
    #[arg(long, alias = "patience", value_name = "S", default_value_t = TIMEOUT, requires = "url")]
    timeout: f64,
    /// Interleave blocks of queries with this bundle, and say which is faster
    #[arg(long, value_name = "BUNDLE", conflicts_with_all = ["url", "sweep"])]
    against: Option<PathBuf>,
    /// An engine option of the other bundle alone, such as threads=1
    #[arg(long, value_name = "OPTION=VALUE", requires = "against")]
    against_set: Vec<Sweep>,
    /// Pairs of blocks [default: 20]
    #[arg(long, value_name = "N", value_parser = super::parse_count, requires = "against")]
    pairs: Option<NonZeroUsize>,
    /// Measure each value of an engine option, such as precision=fp32,int8 or threads=1,2; several
    /// make every combination
    #[arg(long, value_name = "OPTION=VALUE,…")]
    sweep: Vec<Sweep>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Compare(CompareArgs),
}

pub(crate) fn run(arguments: &BenchArgs) -> Result<CommandOutcome, CommandError> {
    if let Some(Command::Compare(arguments)) = &arguments.command {
        return bench_compare::run(arguments);
    }
    arguments.check().map_err(CommandError::Usage)?;
    session::load_runtime().map_err(CommandError::usage)?;
    let signals = StopSignals::catch().or_usage()?;
    let request = arguments.request().map_err(CommandError::Usage)?;
    let session = arguments.session(&signals).map_err(CommandError::Usage)?;
    let is_stopped = || signals.stop.load(Ordering::Relaxed);
    let (report, failure) = match request.run(&session, &|text| print_stderr(text)) {
        Ok(measured) => measured,
        Err(_) if is_stopped() => {
            print_stderr("stopped by a signal before anything was measured");
            return Ok(CommandOutcome::ExitCode(signals.status()));
        }
        Err(BenchError::Unusable(error)) => return Err(CommandError::Usage(error)),
        Err(BenchError::Failed(error)) => return Err(CommandError::Runtime(error)),
    };
    // First to the terminal, so that results are not lost where a file cannot be written.
    if arguments.output.json {
        print_json(&report)?;
    } else {
        print(terminal::text(&report).trim_end())?;
    }
    arguments.output.write(&report)?;
    if is_stopped() {
        print_stderr("stopped by a signal: the report holds what was measured until then");
        return Ok(CommandOutcome::ExitCode(signals.status()));
    }
    if let Some(failure) = failure {
        return Err(CommandError::Runtime(failure));
    }
    let is_complete = report.runs.iter().flat_map(|run| &run.points).all(|point| point.failed == 0);
    Ok(if is_complete { CommandOutcome::Success } else { CommandOutcome::SomeInputsFailed })
}

impl BenchArgs {
    fn check(&self) -> anyhow::Result<()> {
        let target = &self.target;
        self.output.check([&target.bundle, &target.against].into_iter().flatten())?;
        self.load.check()?;
        target.check()?;
        ensure!(
            self.data.data.is_some() || !self.data.is_narrowed(),
            "--root, --split, --list, --limit, --seed and --size select labeled images; name their kind with --data"
        );
        ensure!(
            target.url.is_none() || self.data.data.is_none(),
            "--data scores a bundle; a server's model is not checked"
        );
        Ok(())
    }

    fn session(&self, signals: &StopSignals) -> anyhow::Result<BenchSession> {
        let mut session = BenchSession::new(self.images.open(self.target.bundle.as_deref())?)?;
        if self.data.data.is_some() {
            let labeled = LabeledImages { set: self.data.open()?, name: self.data.describe() };
            if let Some(bundle) = self.target.bundle.as_ref().filter(|bundle| bundle.is_dir()) {
                let model = Manifest::read(bundle)?.value.model;
                evaluate::ensure_same_classes(&model, &labeled.set)?;
            }
            session.labeled = Some(labeled);
        }
        session.stop = Arc::clone(&signals.stop);
        session.end_to_end = self.load.end_to_end;
        session.server = ServerOptions {
            model: self.target.model.clone(),
            key: std::env::var(KEY_VARIABLE).ok(),
            timeout: Duration::from_secs_f64(self.target.timeout),
        };
        Ok(session)
    }

    fn request(&self) -> anyhow::Result<BenchRequest> {
        let config = self.engine.config();
        let load = &self.load;
        Ok(BenchRequest {
            targets: self.target.specs(&config)?,
            against: self.target.against(&config)?,
            scenarios: load.scenarios(),
            until: match load.queries {
                Some(queries) => StopAfter::Queries(queries),
                None => StopAfter::Time(Duration::from_secs_f64(load.time), LEAST_QUERIES),
            },
            warm_up: match load.warm_up {
                Some(queries) => WarmUpPolicy::Queries(queries),
                None => WarmUpPolicy::Stable(StabilityRule {
                    seconds: (load.time / 5.0).clamp(0.1, 2.0),
                    queries: 3,
                    ..StabilityRule::default()
                }),
            },
            seed: load.arrival_seed,
            latency_bound: load.latency_bound,
            check_accuracy: !self.no_accuracy,
        })
    }
}

impl TargetArgs {
    fn check(&self) -> anyhow::Result<()> {
        for sweeps in [&self.sweep, &self.against_set] {
            if let Some(name) = sweep::duplicate(sweeps) {
                bail!("{name} is given twice; list all values in one option: {name}=VALUE,VALUE");
            }
        }
        // clap does not check `requires` where a bundle is named.
        let is_server = self.url.is_some();
        let for_servers = "is for a server; name one with --url, or leave it out";
        ensure!(is_server || self.model.is_none(), "--model {for_servers}");
        ensure!(is_server || self.timeout == TIMEOUT, "--timeout {for_servers}");
        ensure!(
            A_DAY.contains(&self.timeout),
            "--timeout: {} s is not between 0.1 s and a day",
            self.timeout
        );
        let pairs = self.pairs.unwrap_or(PAIRS);
        ensure!(
            pairs.get() >= LEAST_PAIRS,
            "--pairs {pairs}: an interval needs at least {LEAST_PAIRS} pairs"
        );
        Ok(())
    }

    /// The server, or the bundle with every combination of options.
    fn specs(&self, config: &EngineConfig) -> anyhow::Result<Vec<TargetSpec>> {
        if let Some(url) = &self.url {
            ensure!(
                *config == EngineConfig::default() && self.sweep.is_empty(),
                "a server has its own options; leave out those of the engine and --sweep, or name a bundle"
            );
            let location = TargetLocation::Http(url.clone());
            return Ok(vec![TargetSpec { name: url.clone(), location }]);
        }
        let Some(bundle) = &self.bundle else { bail!("name a bundle, or a server with --url") };
        let combinations = sweep::combinations(config, &self.sweep)?.into_iter();
        Ok(combinations.map(|(config, name)| TargetSpec::bundle(bundle, config, &name)).collect())
    }

    /// The bundle of `--against`, and the number of pairs.
    fn against(&self, config: &EngineConfig) -> anyhow::Result<Option<(TargetSpec, usize)>> {
        let Some(bundle) = &self.against else { return Ok(None) };
        let mut combinations = sweep::combinations(config, &self.against_set)?;
        let (Some((config, name)), true) = (combinations.pop(), combinations.is_empty()) else {
            bail!("--against-set gives an option one value; repeat it for other options");
        };
        let mut target = TargetSpec::bundle(bundle, config, &name);
        if self.bundle.as_ref() == Some(bundle) && name.is_empty() {
            target.name.push_str(" again");
        }
        Ok(Some((target, self.pairs.unwrap_or(PAIRS).get())))
    }
}
