//! One scenario from warm-up to figures.

use std::time::Duration;

use super::load::{LoadGenerator, LoadResult, QuerySample, StopAfter};
use super::report::{SampleColumns, ScenarioResult, StageColumn, WarmUp};
use super::scenario::Scenario;
use super::stability::{self, StabilityDetector, StabilityRule};
use super::statistics;
use super::target::{RequestError, Target};

/// How a scenario is measured.
#[derive(Debug, Clone, Copy)]
pub struct Measurement {
    /// The scenario.
    pub scenario: Scenario,
    /// What goes before.
    pub warm_up: WarmUpPolicy,
    /// How long it is measured; of the offline scenario, how long all pictures together are to take.
    pub until: StopAfter,
    /// Where queries come by chance, their moments follow from it.
    pub seed: u64,
    /// Pixels of a picture, on average.
    pub pixels: f64,
}

/// How much goes before the samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WarmUpPolicy {
    /// Until three windows in a row are alike, or there were as many as the rule allows.
    Stable(StabilityRule),
    /// So many queries, and nobody looks whether they were alike.
    Queries(usize),
}

/// Pictures of the first round where all are there from the start.
const LEAST_ROUND: usize = 4;

/// Seconds that a round takes at least, if there are pictures enough.
const ROUND_SECONDS: f64 = 0.5;

/// Most pictures of the offline scenario.
const MOST: usize = 1_000_000;

/// A target that is warm.
#[derive(Debug, Clone)]
pub struct WarmedUp {
    /// What it took.
    pub up: WarmUp,
    /// Whether the last windows were alike, as far as that was looked at.
    pub settled: bool,
    /// How many pictures were asked for.
    pub pictures: usize,
}

/// Why there are no figures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeasurementError {
    /// Nothing was answered.
    #[error("no query was answered: {0}")]
    NoAnswer(RequestError),
    /// Nothing was asked.
    #[error("no query was sent")]
    NoQuery,
}

impl Measurement {
    /// Warms up, measures, and says what came.
    pub async fn run(&self, target: &impl Target) -> Result<ScenarioResult, MeasurementError> {
        let warm = self.warm_up(target).await?;
        let load = LoadGenerator {
            scenario: self.scenario,
            until: self.sized(&warm),
            first: warm.pictures,
            seed: self.seed,
        };
        self.point(&warm, &load.run(target).await)
    }

    /// What goes before.
    pub async fn warm_up(&self, target: &impl Target) -> Result<WarmedUp, MeasurementError> {
        // Who is to be asked at random moments is warmed up by two who ask in turns, whose windows can be alike.
        let scenario = match self.scenario {
            Scenario::Server { .. } => Scenario::Clients { clients: 2 },
            other => other,
        };
        let load =
            LoadGenerator { scenario, until: StopAfter::Queries(0), first: 0, seed: self.seed };
        let (rule, most) = match self.warm_up {
            WarmUpPolicy::Stable(rule) => (rule, usize::MAX),
            WarmUpPolicy::Queries(queries) => {
                (StabilityRule { trials: usize::MAX, ..StabilityRule::default() }, queries)
            }
        };
        let mut watch = StabilityDetector::new(scenario, rule);
        let taken = match scenario {
            Scenario::Offline => in_rounds(target, most, &mut watch).await,
            _ => {
                let clients =
                    if let Scenario::Clients { clients } = scenario { clients } else { 1 };
                let mut see = |sent: usize, _, sample: Option<&QuerySample>| {
                    if let Some(sample) = sample {
                        watch.push(sample.answered().as_secs_f64(), milliseconds(sample.latency));
                    }
                    sent < most && (most < usize::MAX || !watch.is_done())
                };
                load.run_while(target, clients, &mut see).await
            }
        };
        if most > 0 && taken.samples.is_empty() {
            return Err(nothing(&taken));
        }
        let pictures = (taken.samples.len() + taken.failed) * scenario.images_per_query();
        Ok(WarmedUp {
            up: watch.warm_up().clone(),
            settled: most < usize::MAX || watch.is_stable(),
            pictures,
        })
    }

    /// How long it is measured, with as many pictures as fill the time where all are there from the start.
    pub fn sized(&self, warm: &WarmedUp) -> StopAfter {
        let warm_up = &warm.up;
        match (self.scenario, self.until) {
            (Scenario::Offline, StopAfter::Time(time, least)) => {
                let rate = match warm_up.windows.last() {
                    Some(stretch) => stretch.queries_per_second,
                    None => warm_up.queries as f64 / warm_up.seconds.max(f64::MIN_POSITIVE),
                };
                StopAfter::Queries(((time.as_secs_f64() * rate).ceil() as usize).clamp(least, MOST))
            }
            (_, until) => until,
        }
    }

    /// What follows from what was taken.
    pub fn point(
        &self,
        warm: &WarmedUp,
        taken: &LoadResult,
    ) -> Result<ScenarioResult, MeasurementError> {
        if taken.samples.is_empty() {
            return Err(nothing(taken));
        }
        let samples = columns(&taken.samples);
        let seconds = taken.elapsed.as_secs_f64();
        let pictures = (taken.samples.len() * self.scenario.images_per_query()) as f64;
        let latency = if self.scenario == Scenario::Offline {
            None
        } else {
            statistics::latency(&samples.latency_ms)
        };
        let windows = warm.up.windows.len();
        let unsettled = (!warm.settled)
            .then(|| format!("the last three of {windows} windows of the warm-up were not within 10 % of each other"));
        let failed = (taken.failed > 0).then(|| {
            let all = taken.failed + taken.samples.len();
            format!(
                "{} of {all} queries were not answered, and the figures are those of the others",
                taken.failed
            )
        });
        let doubts: Vec<String> = failed
            .into_iter()
            .chain(unsettled)
            .chain(stability::drift(&samples, self.scenario))
            .collect();
        Ok(ScenarioResult {
            scenario: self.scenario,
            sessions: None,
            threads: None,
            warm_up: warm.up.clone(),
            unstable: (!doubts.is_empty()).then(|| doubts.join("; ")),
            samples,
            failed: taken.failed,
            first_error: taken.first_error.as_ref().map(ToString::to_string),
            seconds,
            latency,
            images_per_second: pictures / seconds,
            megapixels_per_second: pictures * self.pixels / seconds / 1e6,
            energy: None,
            peak_device_bytes: None,
        })
    }
}

/// Pictures that are all there from the start, in rounds that become larger until one fills a stretch.
async fn in_rounds(target: &impl Target, most: usize, watch: &mut StabilityDetector) -> LoadResult {
    let (start, mut all, mut round) = (target.now(), LoadResult::default(), LEAST_ROUND);
    while all.failed == 0 && all.samples.len() < most && (most < usize::MAX || !watch.is_done()) {
        let began = target.now() - start;
        let mut taken =
            target.request_all(all.samples.len(), round.min(most - all.samples.len())).await;
        taken.samples.sort_by_key(QuerySample::answered);
        for sample in &taken.samples {
            watch.push((began + sample.answered()).as_secs_f64(), milliseconds(sample.latency));
        }
        if taken.elapsed.as_secs_f64() < ROUND_SECONDS {
            round *= 2;
        }
        all.samples.append(&mut taken.samples);
        all.failed += taken.failed;
        all.first_error = all.first_error.or(taken.first_error);
    }
    all
}

fn nothing(taken: &LoadResult) -> MeasurementError {
    taken.first_error.clone().map_or(MeasurementError::NoQuery, MeasurementError::NoAnswer)
}

/// Samples by column. Stages that a query does not have took it no time.
fn columns(samples: &[QuerySample]) -> SampleColumns {
    let mut columns = SampleColumns::default();
    for (index, sample) in samples.iter().enumerate() {
        columns.due_ms.push(milliseconds(sample.due));
        columns.late_ms.push(milliseconds(sample.late));
        columns.latency_ms.push(milliseconds(sample.latency));
        for (name, took) in &sample.parts {
            let place =
                columns.stages.iter().position(|stage| stage.name == *name).unwrap_or_else(|| {
                    columns.stages.push(StageColumn {
                        name: (*name).to_owned(),
                        ms: vec![0.0; samples.len()],
                    });
                    columns.stages.len() - 1
                });
            columns.stages[place].ms[index] = milliseconds(*took);
        }
    }
    columns
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
