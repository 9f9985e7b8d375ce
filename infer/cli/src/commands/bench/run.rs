//! Opens what is to be measured, and measures it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use protoseg_bench::ab::AbComparison;
use protoseg_bench::load::Scenario;
use protoseg_bench::load::StopAfter;
use protoseg_bench::machine::MachineInfo;
use protoseg_bench::measure::{Measurement, WarmUpPolicy};
use protoseg_bench::report::{BenchReport, BenchRun, ScenarioResult, Subject};
use protoseg_infer::EngineConfig;
use protoseg_infer::machine;
use protoseg_models::bundle::Manifest;

use super::BenchArgs;
use super::accuracy::LabeledData;
use super::asked::{OpenTarget, TargetLocation, TargetSpec};
use super::bound;
use super::plan::PlannedScenario;
use super::session::{BenchSession, ServerOptions};
use super::sweep::combinations;
use crate::commands::data::ensure_same_classes;
use crate::commands::{CommandError, print_stderr};

/// Fewest queries of a scenario that is measured for a time.
const LEAST_QUERIES: usize = 3;

/// Clients for finding out what a model can do, for each of its sessions: one that is run, and one that waits.
const CLIENTS_A_SESSION: usize = 2;

/// The same of a server, which does not tell how many sessions it has.
const CLIENTS_OF_SERVER: usize = 16;

/// What was asked for, and what all measurements share.
pub(super) struct BenchCommand<'a> {
    arguments: &'a BenchArgs,
    session: BenchSession,
}

impl<'a> BenchCommand<'a> {
    /// Reads or draws the pictures.
    pub(super) fn new(arguments: &'a BenchArgs, stop: &Arc<AtomicBool>) -> anyhow::Result<Self> {
        let mut session = BenchSession::new(arguments.pictures.open()?)?;
        session.labeled = match arguments.data.data {
            Some(_) => {
                Some(LabeledData { set: arguments.data.open()?, name: arguments.data.describe() })
            }
            None => None,
        };
        if let (Some(labeled), Some(bundle)) = (&session.labeled, &arguments.bundle)
            && bundle.is_dir()
        {
            ensure_same_classes(&Manifest::read(bundle)?.value.model, &labeled.set.classes())?;
        }
        session.stop = Arc::clone(stop);
        session.end_to_end = arguments.end_to_end;
        session.server = ServerOptions {
            model: arguments.model.clone(),
            patience: Duration::from_secs_f64(arguments.patience),
        };
        Ok(Self { arguments, session })
    }

    /// Measures everything that was asked for. What went wrong after the first figures comes beside the report of those.
    pub(super) fn run(&self) -> Result<(BenchReport, Option<CommandError>), CommandError> {
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let machine = MachineInfo::now();
        let wanted = self.wanted().map_err(CommandError::Usage)?;
        let other = self.arguments.against()?;
        // Before the first is measured: the last may be wrong.
        wanted.iter().chain(&other).try_for_each(TargetSpec::check).map_err(CommandError::Usage)?;
        let (mut runs, mut against, mut failure) = (Vec::new(), Vec::new(), None);
        match other {
            Some(other) => (runs, against) = self.interleaved(&wanted[0], &other)?,
            None => {
                for one in &wanted {
                    let (run, ended) = self.alone(one);
                    runs.extend(run);
                    if let Err(error) = ended {
                        failure = Some(error);
                        break;
                    }
                }
            }
        }
        if runs.is_empty()
            && let Some(failure) = failure
        {
            return Err(failure);
        }
        let program = format!("protoseg {}", env!("CARGO_PKG_VERSION"));
        let report =
            BenchReport { version: BenchReport::VERSION, program, began, machine, runs, against };
        // Something was begun, and so it is no matter of usage any more.
        let failure = failure.map(|failure| match failure {
            CommandError::Usage(error) | CommandError::Runtime(error) => {
                CommandError::Runtime(error)
            }
        });
        Ok((report, failure))
    }

    /// What was named, with every combination of options.
    fn wanted(&self) -> anyhow::Result<Vec<TargetSpec>> {
        let BenchArgs { bundle, url, engine, sweep, .. } = self.arguments;
        match (bundle, url) {
            (_, Some(url)) => {
                ensure!(
                    engine.config() == EngineConfig::default() && sweep.is_empty(),
                    "a server has its own options; leave out those of the engine, and --sweep, or name a bundle"
                );
                Ok(vec![TargetSpec { name: url.clone(), place: TargetLocation::Http(url.clone()) }])
            }
            (Some(bundle), None) => Ok(combinations(&engine.config(), sweep)?
                .into_iter()
                .map(|(options, name)| TargetSpec::bundle(bundle, options, &name))
                .collect()),
            (None, None) => bail!("name a bundle, or a server with --url"),
        }
    }

    /// One way to run one model, under every scenario; where one of them fails, those before it.
    fn alone(&self, wanted: &TargetSpec) -> (Option<BenchRun>, Result<(), CommandError>) {
        let (mut points, mut within_bound, mut first) = (Vec::new(), None, None);
        let own_peak = machine::reset_peak();
        let mut each = || {
            for planned in self.arguments.scenarios() {
                self.session.go_on()?;
                let asked =
                    self.session.open(wanted, planned.shape()).map_err(CommandError::Usage)?;
                let scenario = match planned {
                    PlannedScenario::Known(scenario) => scenario,
                    PlannedScenario::Share(share) => {
                        Scenario::Server { rate: share * self.capacity(&asked)? }
                    }
                };
                points.push(self.point(wanted, &asked, scenario)?);
                first.get_or_insert(asked);
            }
            if let Some(bound_ms) = self.arguments.latency_bound {
                self.session.go_on()?;
                let asked = self
                    .session
                    .open(wanted, Scenario::Server { rate: 1.0 })
                    .map_err(CommandError::Usage)?;
                let most = self.capacity(&asked)?;
                let mut at = |rate: f64| self.point(wanted, &asked, Scenario::Server { rate });
                let (found, searched) = bound::search(bound_ms, most, &mut at)?;
                points.extend(searched);
                within_bound = Some(found);
                first.get_or_insert(asked);
            }
            Ok(())
        };
        let ended = each();
        let peak_host_bytes = machine::peak_resident().filter(|_| own_peak);
        let run = first.map(|first| {
            let subject = self.subject(wanted, &first);
            // Of a server that is this program's own memory.
            let peak_host_bytes = peak_host_bytes.filter(|_| subject.url.is_none());
            BenchRun { subject: Subject { peak_host_bytes, ..subject }, points, within_bound }
        });
        (run, ended)
    }

    fn point(
        &self,
        wanted: &TargetSpec,
        asked: &OpenTarget,
        scenario: Scenario,
    ) -> anyhow::Result<ScenarioResult> {
        print_stderr(format_args!("{}: {scenario}", wanted.name));
        let measured = self.session.point(asked, &self.measure(scenario));
        measured.with_context(|| format!("{}, {scenario}", wanted.name))
    }

    /// Two of them in turns, under every scenario.
    fn interleaved(
        &self,
        one: &TargetSpec,
        other: &TargetSpec,
    ) -> Result<(Vec<BenchRun>, Vec<AbComparison>), CommandError> {
        let both = [one, other];
        let mut points = [Vec::new(), Vec::new()];
        let (mut against, mut first) = (Vec::new(), None);
        for planned in self.arguments.scenarios() {
            let Some(scenario) = planned.in_blocks() else {
                let why = "--against takes no server scenario: blocks in turns would cut its arrivals into pieces";
                return Err(CommandError::Usage(anyhow::anyhow!(why)));
            };
            print_stderr(format_args!("{} against {}: {scenario}", one.name, other.name));
            let open = |wanted| self.session.open(wanted, scenario).map_err(CommandError::Usage);
            let [a, b] = [open(one)?, open(other)?];
            let sides = [(one.name.as_str(), &a), (other.name.as_str(), &b)];
            let measure = self.measure(scenario);
            let ([of_a, of_b], compared) =
                self.session.interleaved(&measure, sides, self.arguments.pairs.get())?;
            points[0].push(of_a);
            points[1].push(of_b);
            against.push(compared);
            first.get_or_insert([a, b]);
        }
        let first = first.context("no scenario was asked for")?;
        let run = |(wanted, (asked, points)): (&TargetSpec, (&OpenTarget, Vec<ScenarioResult>))| {
            BenchRun { subject: self.subject(wanted, asked), points, within_bound: None }
        };
        Ok((both.into_iter().zip(first.iter().zip(points)).map(run).collect(), against))
    }

    fn measure(&self, scenario: Scenario) -> Measurement {
        let until = match self.arguments.queries {
            Some(queries) => StopAfter::Queries(queries),
            None => StopAfter::Time(Duration::from_secs_f64(self.arguments.time), LEAST_QUERIES),
        };
        let (seed, pixels) = (self.arguments.arrival_seed, self.session.images().mean_pixels());
        Measurement { scenario, warm_up: self.arguments.warm_up(), until, seed, pixels }
    }

    /// Pictures in a second that a target answers when it always has some to do.
    fn capacity(&self, asked: &OpenTarget) -> anyhow::Result<f64> {
        let clients =
            asked.setup().map_or(CLIENTS_OF_SERVER, |[sessions, _]| CLIENTS_A_SESSION * sessions);
        let until = match self.arguments.queries {
            Some(_) => StopAfter::Queries(2 * clients),
            None => {
                StopAfter::Time(Duration::from_secs_f64(self.arguments.time / 2.0), 2 * clients)
            }
        };
        let warm_up = WarmUpPolicy::Queries(clients);
        let measure = Measurement { warm_up, until, ..self.measure(Scenario::Clients { clients }) };
        Ok(self.session.point(asked, &measure)?.images_per_second)
    }

    fn subject(&self, wanted: &TargetSpec, asked: &OpenTarget) -> Subject {
        self.session.subject(wanted, asked, !self.arguments.no_accuracy)
    }
}
