//! `protoseg bench`: latency and throughput of a model, in this process or behind an address.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::ValueEnum;
use protoseg_bench::load::{Scenario, StopAfter};
use protoseg_bench::measure::WarmUpPolicy;
use protoseg_bench::report::BenchReport;
use protoseg_bench::run::{BenchError, BenchRequest, PlannedScenario};
use protoseg_bench::session::{BenchSession, ServerOptions, TargetLocation, TargetSpec};
use protoseg_bench::stability::StabilityRule;
use protoseg_bench::sweep::{self, Sweep};
use protoseg_bench::{page, perf_analyzer, terminal};
use protoseg_infer::check::LabeledImages;
use protoseg_infer::{EngineConfig, evaluate, session};
use protoseg_models::bundle::Manifest;
use protoseg_program::signals::StopSignals;

use super::bench_compare::CompareArgs;
use super::data::DataArgs;
use super::engine_args::EngineArgs;
use super::image_args::ImageArgs;
use super::serve::KEY_VARIABLE;
use super::{
    CommandError, CommandOutcome, OrUsage, bench_compare, output_file, print, print_json,
    print_stderr,
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

/// Defaults of `--samples`, `--clients` and `--rate`.
const SAMPLES: NonZeroUsize = NonZeroUsize::new(8).unwrap();
const CLIENTS: NonZeroUsize = NonZeroUsize::new(4).unwrap();
const RATE: ArrivalRate = ArrivalRate::Share(0.7);

/// Bounds of `--rate`, in images per second or percent.
const LEAST_RATE: f64 = 1e-3;
const LARGEST_RATE: f64 = 1e6;

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

#[derive(Debug, clap::Args)]
struct LoadArgs {
    /// Scenarios to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["single-stream", "offline"])]
    scenario: Vec<ScenarioKind>,
    /// Images of a query in the multi-stream scenario [default: 8]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = super::parse_count)]
    samples: Vec<NonZeroUsize>,
    /// Clients in the clients scenario [default: 4]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = super::parse_count)]
    clients: Vec<NonZeroUsize>,
    /// Images per second in the server scenario: numbers, or shares such as 70% of the capacity,
    /// which is measured first; `bench compare` matches only numbers [default: 70%]
    #[arg(long, value_name = "N|P%,…", value_delimiter = ',')]
    rate: Vec<ArrivalRate>,
    /// Search for the largest rate of random arrivals whose 99th percentile of latency is at most
    /// this many milliseconds
    #[arg(long, value_name = "MS", conflicts_with = "against")]
    latency_bound: Option<f64>,
    /// Seconds for each scenario
    #[arg(long, value_name = "S", default_value_t = 10.0, conflicts_with = "queries")]
    time: f64,
    /// Queries of each scenario, instead of a time
    #[arg(long, value_name = "N", value_parser = super::image_count())]
    queries: Option<usize>,
    /// Queries of the warm-up, instead of as many as it takes until three windows in a row are
    /// alike
    #[arg(long, value_name = "N")]
    warm_up: Option<usize>,
    /// Seed of the random arrivals
    #[arg(long, value_name = "N", default_value_t = 0)]
    arrival_seed: u64,
    /// Include decoding image files and encoding label files in every query
    #[arg(long)]
    end_to_end: bool,
}

#[derive(Debug, clap::Args)]
struct OutputArgs {
    /// Write the report with every sample as JSON, for `protoseg bench compare`
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write a page for a browser, with latency distributions and stage times
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write a table in perf_analyzer's columns and more; one per kind of load, with its name
    /// before the extension, where there are several
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Print the report with every sample as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Compare(CompareArgs),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScenarioKind {
    /// One image at a time
    SingleStream,
    /// Queries of several images
    MultiStream,
    /// Concurrent clients
    Clients,
    /// All images are there from the start
    Offline,
    /// Random arrivals
    Server,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum ArrivalRate {
    /// Images per second.
    Absolute(f64),
    /// Share of the model's capacity.
    Share(f64),
}

impl FromStr for ArrivalRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, is_share) = match text.strip_suffix('%') {
            Some(number) => (number, true),
            None => (text, false),
        };
        match number.parse() {
            Ok(number) if (LEAST_RATE..=LARGEST_RATE).contains(&number) => {
                Ok(if is_share { Self::Share(number / 100.0) } else { Self::Absolute(number) })
            }
            _ => {
                Err("write images per second such as 12.5, or a share of the capacity such as 70%"
                    .to_owned())
            }
        }
    }
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
        let mut session = BenchSession::new(self.images.open()?)?;
        if self.data.data.is_some() {
            let labeled = LabeledImages { set: self.data.open()?, name: self.data.describe() };
            if let Some(bundle) = self.target.bundle.as_ref().filter(|bundle| bundle.is_dir()) {
                let model = Manifest::read(bundle)?.value.model;
                evaluate::ensure_same_classes(&model, &labeled.set.classes())?;
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

impl LoadArgs {
    fn check(&self) -> anyhow::Result<()> {
        let of_one_scenario = [
            ("--samples", !self.samples.is_empty(), ScenarioKind::MultiStream, "multi-stream"),
            ("--clients", !self.clients.is_empty(), ScenarioKind::Clients, "clients"),
            ("--rate", !self.rate.is_empty(), ScenarioKind::Server, "server"),
        ];
        for (option, is_given, kind, name) in of_one_scenario {
            ensure!(
                !is_given || self.scenario.contains(&kind),
                "{option} is for the {name} scenario; add it to --scenario"
            );
        }
        ensure!(
            self.latency_bound.is_none_or(|bound| (1e-3..=1e9).contains(&bound)),
            "--latency-bound is a number of milliseconds from 0.001 to 1e9"
        );
        ensure!(
            A_DAY.contains(&self.time),
            "--time: {} s is not between 0.1 s and a day; use --queries for a single one",
            self.time
        );
        Ok(())
    }

    /// The scenarios in the given order, without duplicates.
    fn scenarios(&self) -> Vec<PlannedScenario> {
        fn or_default<T: Copy>(given: &[T], default: T) -> Vec<T> {
            if given.is_empty() { vec![default] } else { given.to_vec() }
        }
        let mut planned = Vec::new();
        let mut add = |scenario: PlannedScenario| {
            if !planned.contains(&scenario) {
                planned.push(scenario);
            }
        };
        for kind in &self.scenario {
            match kind {
                ScenarioKind::SingleStream => add(PlannedScenario::Known(Scenario::SingleStream)),
                ScenarioKind::Offline => add(PlannedScenario::Known(Scenario::Offline)),
                ScenarioKind::MultiStream => {
                    for samples in or_default(&self.samples, SAMPLES) {
                        let samples = samples.get();
                        add(PlannedScenario::Known(Scenario::MultiStream { samples }));
                    }
                }
                ScenarioKind::Clients => {
                    for clients in or_default(&self.clients, CLIENTS) {
                        let clients = clients.get();
                        add(PlannedScenario::Known(Scenario::Clients { clients }));
                    }
                }
                ScenarioKind::Server => {
                    for rate in or_default(&self.rate, RATE) {
                        add(match rate {
                            ArrivalRate::Absolute(rate) => {
                                PlannedScenario::Known(Scenario::Server { rate })
                            }
                            ArrivalRate::Share(share) => PlannedScenario::Share(share),
                        });
                    }
                }
            }
        }
        planned
    }
}

impl OutputArgs {
    /// Refuses files that cannot be written or lie in what is measured, before the measurement.
    fn check<'a>(&self, bundles: impl Iterator<Item = &'a PathBuf>) -> anyhow::Result<()> {
        let files: Vec<&PathBuf> =
            [&self.report, &self.html, &self.csv].into_iter().flatten().collect();
        files.iter().try_for_each(|path| output_file::check(path))?;
        for bundle in bundles.filter_map(|bundle| bundle.canonicalize().ok()) {
            for path in &files {
                // A file that does not exist yet counts too: the next run would measure another
                // bundle.
                let folder = path.parent().map(|folder| Path::new(".").join(folder));
                let place = path.canonicalize().ok().or_else(|| folder?.canonicalize().ok());
                ensure!(
                    place.is_none_or(|place| !place.starts_with(&bundle)),
                    "{} lies in what is measured, which must not change; name another file",
                    path.display()
                );
            }
        }
        let is_duplicate = |(index, path): (usize, &&PathBuf)| files[..index].contains(path);
        ensure!(
            !files.iter().enumerate().any(is_duplicate),
            "two of --report, --html and --csv name the same file"
        );
        Ok(())
    }

    /// Writes all files that can be written, and returns the first failure.
    fn write(&self, report: &BenchReport) -> anyhow::Result<()> {
        let mut written = Vec::new();
        if let Some(path) = &self.report {
            written.push(output_file::resolve(path).and_then(|place| Ok(report.write(&place)?)));
        }
        if let Some(path) = &self.html {
            written.push(output_file::write(path, page::html(report).as_bytes()));
        }
        if let Some(path) = &self.csv {
            let tables = perf_analyzer::csv(report)?;
            for (load, text) in &tables {
                let file =
                    if tables.len() == 1 { path.clone() } else { with_suffix(path, load.name()) };
                written.push(output_file::write(&file, text.as_bytes()));
            }
        }
        written.into_iter().collect()
    }
}

/// `a/b.csv` with the suffix `offline` is `a/b-offline.csv`.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path.file_stem().unwrap_or_default());
    name.push(format!("-{suffix}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_stand_before_the_extension() {
        let name = |path: &str| with_suffix(Path::new(path), "offline");
        assert_eq!(name("a/b.csv"), Path::new("a/b-offline.csv"));
        assert_eq!(name("table"), Path::new("table-offline"));
        assert_eq!(name("x.y.csv"), Path::new("x.y-offline.csv"));
    }
}
