//! Measurement of one scenario: warm-up, load, result.

use std::time::Duration;

use super::load::{
    LoadGenerator, LoadResult, QuerySample, RequestError, Scenario, StopAfter, Target,
};
use super::report::{SampleColumns, ScenarioResult, StageColumn, WarmUp};
use super::stability::{self, StabilityDetector, StabilityRule};
use super::statistics;

/// Images of the first round of the offline warm-up.
const FIRST_ROUND: usize = 4;

/// Seconds below which the next round of the offline warm-up is twice as large.
const ROUND_SECONDS: f64 = 0.5;

/// Most images of the offline scenario.
const MAX_IMAGES: usize = 1_000_000;

/// How a scenario is measured.
#[derive(Debug, Clone, Copy)]
pub struct Measurement {
    pub scenario: Scenario,
    pub warm_up: WarmUpPolicy,
    /// Offline the number of images is chosen so that they fill the time.
    pub until: StopAfter,
    /// Seed of the arrivals of the server scenario.
    pub seed: u64,
    /// Mean pixels of an image.
    pub pixels: f64,
}

/// End of a warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WarmUpPolicy {
    /// Steady state, or the rule's number of trials.
    Stable(StabilityRule),
    /// A fixed number of queries, without a stability check.
    Queries(usize),
}

/// State of a target after its warm-up.
#[derive(Debug, Clone)]
pub struct WarmedUp {
    pub warm_up: WarmUp,
    /// True too where the policy has no stability check.
    pub is_stable: bool,
    /// Number of images requested.
    pub images: usize,
}

/// A measurement without samples.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeasurementError {
    #[error("no query was answered: {0}")]
    NoAnswer(RequestError),
    #[error("no query was sent")]
    NoQuery,
}

impl Measurement {
    /// Warms the target up and measures it.
    pub async fn run(&self, target: &impl Target) -> Result<ScenarioResult, MeasurementError> {
        let warm = self.warm_up(target).await?;
        let load = LoadGenerator {
            scenario: self.scenario,
            until: self.sized(&warm),
            first: warm.images,
            seed: self.seed,
        };
        self.result(&warm, &load.run(target).await)
    }

    pub async fn warm_up(&self, target: &impl Target) -> Result<WarmedUp, MeasurementError> {
        // Windows of random arrivals need not be alike, so the server scenario warms up in a closed
        // loop.
        let scenario = match self.scenario {
            Scenario::Server { .. } => Scenario::Clients { clients: 2 },
            other => other,
        };
        let (rule, max_queries) = match self.warm_up {
            WarmUpPolicy::Stable(rule) => (rule, None),
            WarmUpPolicy::Queries(queries) => {
                (StabilityRule { trials: usize::MAX, ..StabilityRule::default() }, Some(queries))
            }
        };
        let mut detector = StabilityDetector::new(scenario, rule);
        let result = match scenario {
            Scenario::Offline => warm_up_offline(target, max_queries, &mut detector).await,
            _ => {
                let clients =
                    if let Scenario::Clients { clients } = scenario { clients } else { 1 };
                let load = LoadGenerator {
                    scenario,
                    until: StopAfter::Queries(0),
                    first: 0,
                    seed: self.seed,
                };
                let continues = |sent: usize, _, sample: Option<&QuerySample>| {
                    if let Some(sample) = sample {
                        detector
                            .push(sample.answered().as_secs_f64(), milliseconds(sample.latency));
                    }
                    max_queries.map_or_else(|| !detector.is_done(), |most| sent < most)
                };
                load.run_while(target, clients, continues).await
            }
        };
        if max_queries != Some(0) && result.samples.is_empty() {
            return Err(no_samples(&result));
        }
        Ok(WarmedUp {
            warm_up: detector.warm_up().clone(),
            is_stable: max_queries.is_some() || detector.is_stable(),
            images: (result.samples.len() + result.failed) * scenario.images_per_query(),
        })
    }

    /// End of the load; offline a number of images that fills the time at the rate of the warm-up.
    pub fn sized(&self, warm: &WarmedUp) -> StopAfter {
        let warm_up = &warm.warm_up;
        match (self.scenario, self.until) {
            (Scenario::Offline, StopAfter::Time(time, least)) => {
                let rate = match warm_up.windows.last() {
                    Some(window) => window.queries_per_second,
                    None => warm_up.queries as f64 / warm_up.seconds.max(f64::MIN_POSITIVE),
                };
                let images = (time.as_secs_f64() * rate).ceil() as usize;
                StopAfter::Queries(images.clamp(least, MAX_IMAGES))
            }
            (_, until) => until,
        }
    }

    /// Statistics of a load.
    pub fn result(
        &self,
        warm: &WarmedUp,
        load: &LoadResult,
    ) -> Result<ScenarioResult, MeasurementError> {
        if load.samples.is_empty() {
            return Err(no_samples(load));
        }
        let samples = columns(&load.samples);
        let seconds = load.elapsed.as_secs_f64();
        let images = (load.samples.len() * self.scenario.images_per_query()) as f64;
        let latency = if self.scenario == Scenario::Offline {
            None
        } else {
            statistics::latency(&samples.latency_ms)
        };
        let mut doubts = Vec::new();
        if load.failed > 0 {
            let all = load.failed + load.samples.len();
            doubts.push(format!(
                "{} of {all} queries were not answered, and the figures are those of the others",
                load.failed
            ));
        }
        if !warm.is_stable {
            let windows = warm.warm_up.windows.len();
            doubts.push(format!(
                "the last three of {windows} windows of the warm-up were not within 10 % of each other"
            ));
        }
        doubts.extend(stability::drift(&samples, self.scenario));
        Ok(ScenarioResult {
            scenario: self.scenario,
            sessions: None,
            threads: None,
            warm_up: warm.warm_up.clone(),
            unstable: (!doubts.is_empty()).then(|| doubts.join("; ")),
            samples,
            failed: load.failed,
            first_error: load.first_error.as_ref().map(ToString::to_string),
            seconds,
            latency,
            images_per_second: images / seconds,
            megapixels_per_second: images * self.pixels / seconds / 1e6,
            energy: None,
            peak_device_bytes: None,
        })
    }
}

/// Offline warm-up in rounds that grow until one fills a window.
async fn warm_up_offline(
    target: &impl Target,
    max_queries: Option<usize>,
    detector: &mut StabilityDetector,
) -> LoadResult {
    let start = target.now();
    let mut all = LoadResult::default();
    let mut round = FIRST_ROUND;
    loop {
        let sent = all.samples.len();
        let left = max_queries.map_or(usize::MAX, |most| most.saturating_sub(sent));
        let is_done = left == 0 || (max_queries.is_none() && detector.is_done());
        if is_done || all.failed > 0 {
            return all;
        }
        let began = target.now() - start;
        let mut result = target.request_all(sent, round.min(left)).await;
        result.samples.sort_by_key(QuerySample::answered);
        for sample in &result.samples {
            let at = (began + sample.answered()).as_secs_f64();
            detector.push(at, milliseconds(sample.latency));
        }
        if result.elapsed.as_secs_f64() < ROUND_SECONDS {
            round *= 2;
        }
        all.samples.append(&mut result.samples);
        all.failed += result.failed;
        all.first_error = all.first_error.or(result.first_error);
    }
}

fn no_samples(load: &LoadResult) -> MeasurementError {
    load.first_error.clone().map_or(MeasurementError::NoQuery, MeasurementError::NoAnswer)
}

/// Samples by column; stages that a query does not have are 0.
fn columns(samples: &[QuerySample]) -> SampleColumns {
    let mut columns = SampleColumns::default();
    for (index, sample) in samples.iter().enumerate() {
        columns.due_ms.push(milliseconds(sample.due));
        columns.late_ms.push(milliseconds(sample.late));
        columns.latency_ms.push(milliseconds(sample.latency));
        for (name, took) in &sample.stages {
            let known = columns.stages.iter().position(|stage| stage.name == *name);
            let column = known.unwrap_or_else(|| {
                let ms = vec![0.0; samples.len()];
                columns.stages.push(StageColumn { name: (*name).to_owned(), ms });
                columns.stages.len() - 1
            });
            columns.stages[column].ms[index] = milliseconds(*took);
        }
    }
    columns
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
