//! Runs everything that one call of `protoseg bench` asks for.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use protoseg_infer::machine;

use super::ab::AbComparison;
use super::latency_bound;
use super::load::{Scenario, StopAfter};
use super::machine::MachineInfo;
use super::measure::{Measurement, WarmUpPolicy};
use super::report::{BenchReport, BenchRun, ScenarioResult};
use super::session::{BenchSession, OpenTarget, TargetLocation, TargetSpec};

/// Clients per session for measuring the capacity: one runs, and one waits.
const CLIENTS_PER_SESSION: usize = 2;

/// Clients for measuring the capacity of a server, whose number of sessions is unknown.
const CLIENTS_OF_SERVER: usize = 16;

/// A scenario whose rate may not be known yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PlannedScenario {
    Known(Scenario),
    /// The server scenario at a share of the model's capacity.
    Share(f64),
}

impl PlannedScenario {
    /// The scenario, with an arbitrary rate where it is not known.
    fn shape(self) -> Scenario {
        match self {
            Self::Known(scenario) => scenario,
            Self::Share(rate) => Scenario::Server { rate },
        }
    }
}

/// Targets, scenarios, and how they are measured.
#[derive(Debug)]
pub struct BenchRequest {
    /// At least one.
    pub targets: Vec<TargetSpec>,
    /// Interleaved with the first target in this number of pairs of blocks.
    pub against: Option<(TargetSpec, usize)>,
    pub scenarios: Vec<PlannedScenario>,
    pub until: StopAfter,
    pub warm_up: WarmUpPolicy,
    /// Seed of the arrivals.
    pub seed: u64,
    /// 99th percentile of latency in milliseconds, for which the largest rate is searched.
    pub latency_bound: Option<f64>,
    pub check_accuracy: bool,
}

/// A benchmark without results.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Nothing could be begun.
    #[error(transparent)]
    Unusable(anyhow::Error),
    /// A measurement failed.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl BenchError {
    pub fn into_inner(self) -> anyhow::Error {
        match self {
            Self::Unusable(error) | Self::Failed(error) => error,
        }
    }
}

impl BenchRequest {
    /// Measures everything; `observe` is called before each measurement with its description. A
    /// failure after the first results is returned beside the report of those.
    pub fn run(
        &self,
        session: &BenchSession,
        observe: &dyn Fn(&str),
    ) -> Result<(BenchReport, Option<anyhow::Error>), BenchError> {
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let machine = MachineInfo::now();
        for target in self.targets.iter().chain(self.against.iter().map(|(target, _)| target)) {
            if let TargetLocation::InProcess(_, config) = &target.location {
                config.check().map_err(|error| BenchError::Unusable(error.into()))?;
            }
        }
        let bench = Bench { request: self, session, observe };
        let mut runs = Vec::new();
        let mut against = Vec::new();
        let mut failure = None;
        match &self.against {
            Some((other, pairs)) => {
                let first = self.targets.first().context("no model was named")?;
                (runs, against) = bench.interleaved([first, other], *pairs)?;
            }
            None => {
                for target in &self.targets {
                    let (run, ended) = bench.measure(target);
                    runs.extend(run);
                    if let Err(error) = ended {
                        failure = Some(error);
                        break;
                    }
                }
            }
        }
        match failure {
            Some(failure) if runs.is_empty() => Err(failure),
            failure => {
                let program = format!("protoseg {}", env!("CARGO_PKG_VERSION"));
                let version = BenchReport::VERSION;
                let report = BenchReport { version, program, began, machine, runs, against };
                Ok((report, failure.map(BenchError::into_inner)))
            }
        }
    }
}

struct Bench<'a> {
    request: &'a BenchRequest,
    session: &'a BenchSession,
    observe: &'a dyn Fn(&str),
}

impl Bench<'_> {
    /// Measures a model under every scenario; where one fails, those before it.
    fn measure(&self, spec: &TargetSpec) -> (Option<BenchRun>, Result<(), BenchError>) {
        let mut points = Vec::new();
        let mut within_bound = None;
        let mut first = None;
        let has_own_peak = machine::reset_peak();
        let mut measure_all = || {
            for planned in &self.request.scenarios {
                self.session.ensure_running()?;
                let target = self.open(spec, planned.shape())?;
                let scenario = match *planned {
                    PlannedScenario::Known(scenario) => scenario,
                    PlannedScenario::Share(share) => {
                        Scenario::Server { rate: share * self.capacity(&target)? }
                    }
                };
                points.push(self.point(spec, &target, scenario)?);
                first.get_or_insert(target);
            }
            if let Some(bound_ms) = self.request.latency_bound {
                self.session.ensure_running()?;
                let target = self.open(spec, Scenario::Server { rate: 1.0 })?;
                let most = self.capacity(&target)?;
                let mut at = |rate| self.point(spec, &target, Scenario::Server { rate });
                let (found, searched) = latency_bound::search(bound_ms, most, &mut at)?;
                points.extend(searched);
                within_bound = Some(found);
                first.get_or_insert(target);
            }
            Ok(())
        };
        let ended = measure_all();
        let peak_host_bytes = machine::peak_resident().filter(|_| has_own_peak);
        let run = first.map(|target| {
            let mut subject = self.session.subject(spec, &target, self.request.check_accuracy);
            // With a server it is this program's own memory.
            subject.peak_host_bytes = peak_host_bytes.filter(|_| subject.url.is_none());
            BenchRun { subject, points, within_bound }
        });
        (run, ended)
    }

    fn open(&self, spec: &TargetSpec, scenario: Scenario) -> Result<OpenTarget, BenchError> {
        self.session.open(spec, scenario).map_err(BenchError::Unusable)
    }

    fn point(
        &self,
        spec: &TargetSpec,
        target: &OpenTarget,
        scenario: Scenario,
    ) -> anyhow::Result<ScenarioResult> {
        (self.observe)(&format!("{}: {scenario}", spec.name));
        let measured = self.session.measure(target, &self.measurement(scenario));
        measured.with_context(|| format!("{}, {scenario}", spec.name))
    }

    /// Measures two models in interleaved blocks, under every scenario.
    fn interleaved(
        &self,
        specs: [&TargetSpec; 2],
        pairs: usize,
    ) -> Result<(Vec<BenchRun>, Vec<AbComparison>), BenchError> {
        let names = specs.map(|spec| spec.name.as_str());
        let mut points = [Vec::new(), Vec::new()];
        let mut comparisons = Vec::new();
        let mut first = None;
        for planned in &self.request.scenarios {
            let scenario = planned.shape();
            if matches!(scenario, Scenario::Server { .. }) {
                return Err(BenchError::Unusable(anyhow!(
                    "--against does not support the server scenario: blocks would interrupt its arrivals"
                )));
            }
            (self.observe)(&format!("{} against {}: {scenario}", names[0], names[1]));
            let targets = [self.open(specs[0], scenario)?, self.open(specs[1], scenario)?];
            let sides = [(names[0], &targets[0]), (names[1], &targets[1])];
            let ([a, b], comparison) =
                self.session.interleaved(&self.measurement(scenario), sides, pairs)?;
            points[0].push(a);
            points[1].push(b);
            comparisons.push(comparison);
            first.get_or_insert(targets);
        }
        let targets = first.context("no scenario was named")?;
        let mut runs = Vec::new();
        for ((spec, target), points) in specs.into_iter().zip(&targets).zip(points) {
            let subject = self.session.subject(spec, target, self.request.check_accuracy);
            runs.push(BenchRun { subject, points, within_bound: None });
        }
        Ok((runs, comparisons))
    }

    fn measurement(&self, scenario: Scenario) -> Measurement {
        let &BenchRequest { until, warm_up, seed, .. } = self.request;
        Measurement { scenario, warm_up, until, seed, pixels: self.session.images.mean_pixels() }
    }

    /// Images per second of a model that is always busy.
    fn capacity(&self, target: &OpenTarget) -> anyhow::Result<f64> {
        let clients = target
            .setup()
            .map_or(CLIENTS_OF_SERVER, |[sessions, _]| CLIENTS_PER_SESSION * sessions);
        let until = match self.request.until {
            StopAfter::Queries(_) => StopAfter::Queries(2 * clients),
            StopAfter::Time(time, _) => StopAfter::Time(time / 2, 2 * clients),
        };
        let warm_up = WarmUpPolicy::Queries(clients);
        let measurement =
            Measurement { warm_up, until, ..self.measurement(Scenario::Clients { clients }) };
        Ok(self.session.measure(target, &measurement)?.images_per_second)
    }
}
