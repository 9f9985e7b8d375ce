//! Steady-state detection by perf_analyzer's rule: three windows in a row whose latencies and rates
//! are each within 10 %.
//!
//! A window's latency is its median: in a closed loop the rate is the reciprocal of the mean
//! latency and already judges the mean, while the median follows the bulk of the queries and
//! ignores outliers. In the server scenario the rate is that of the arrivals, so only latency
//! counts. Offline only the rate counts, as latency there grows with the position.

use super::load::Scenario;
use super::report::{MeasurementWindow, SampleColumns, WarmUp};
use super::statistics::median;
use super::words::figure;

/// Largest ratio of two windows that count as alike.
pub const WITHIN: f64 = 1.1;

/// Windows that are compared.
const COMPARED: usize = 3;

/// When a warm-up ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StabilityRule {
    /// Least seconds of a window.
    pub seconds: f64,
    /// Least queries of a window.
    pub queries: usize,
    /// Windows after which it ends even if unstable.
    pub trials: usize,
}

/// Half a second shows rising clocks and filling caches, and ten queries have a median.
impl Default for StabilityRule {
    fn default() -> Self {
        Self { seconds: 0.5, queries: 10, trials: 10 }
    }
}

/// Groups the answers of a warm-up into windows and compares them.
#[derive(Debug, Clone)]
pub struct StabilityDetector {
    scenario: Scenario,
    rule: StabilityRule,
    warm_up: WarmUp,
    /// Latencies of the current window, in milliseconds.
    latencies: Vec<f64>,
    /// Start of the current window, in seconds since the start of the warm-up.
    began: f64,
}

impl StabilityDetector {
    pub fn new(scenario: Scenario, rule: StabilityRule) -> Self {
        Self { scenario, rule, warm_up: WarmUp::default(), latencies: Vec::new(), began: 0.0 }
    }

    /// Adds an answer, in order of time: `at` in seconds since the start, latency in milliseconds.
    pub fn push(&mut self, at: f64, latency_ms: f64) {
        self.warm_up.queries += 1;
        self.warm_up.seconds = at;
        // Queries that are still running at the end meet less load.
        if self.is_done() {
            return;
        }
        self.latencies.push(latency_ms);
        let took = at - self.began;
        if self.latencies.len() < self.rule.queries || took < self.rule.seconds {
            return;
        }
        self.warm_up.windows.extend(MeasurementWindow::new(&self.latencies, took));
        self.latencies.clear();
        self.began = at;
    }

    /// Returns true where the last three windows are alike.
    pub fn is_stable(&self) -> bool {
        let windows = &self.warm_up.windows;
        windows.last_chunk().is_some_and(|last: &[MeasurementWindow; COMPARED]| {
            find_difference(self.scenario, last).is_none()
        })
    }

    /// Returns true where it is stable or the number of trials is reached.
    pub fn is_done(&self) -> bool {
        self.warm_up.windows.len() >= self.rule.trials || self.is_stable()
    }

    pub fn warm_up(&self) -> &WarmUp {
        &self.warm_up
    }
}

impl MeasurementWindow {
    fn new(latencies: &[f64], seconds: f64) -> Option<Self> {
        Some(Self {
            latency_ms: median(latencies)?,
            queries_per_second: latencies.len() as f64 / seconds,
        })
    }
}

/// Reason why measured samples are unstable; `None` where their thirds, in order of time, are
/// alike.
///
/// They may differ because the machine or a queue is not in a steady state, or because a third of
/// the samples does not determine the median within 10 %.
pub fn drift(samples: &SampleColumns, scenario: Scenario) -> Option<String> {
    let Some(thirds) = thirds(samples) else {
        let count = samples.latency_ms.len();
        return Some(format!(
            "{count} of at least {COMPARED} queries were answered, too few to compare; measure longer"
        ));
    };
    let (unit, values) = find_difference(scenario, &thirds)?;
    let [first, second, third] = values.map(figure);
    let figures = format!("{first}, {second} and {third} {unit} in thirds of the time");
    Some(match scenario {
        Scenario::Server { .. } if is_growing(values) => format!(
            "latency grows, {figures}: images arrive about as fast as they are answered, or faster; lower the rate or \
             measure longer"
        ),
        _ => format!(
            "{figures} differ by more than {:.0} %: the machine is not in a steady state, or samples scatter too widely; \
             stop other programs, or measure longer",
            100.0 * (WITHIN - 1.0)
        ),
    })
}

/// Returns true where latency grows from third to third, as it does when the queue of the server
/// scenario grows.
pub fn queue_grows(samples: &SampleColumns) -> bool {
    thirds(samples).is_some_and(|thirds| is_growing(thirds.map(|third| third.latency_ms)))
}

fn is_growing([first, second, third]: [f64; COMPARED]) -> bool {
    WITHIN * first < third && first < second && second < third
}

/// Thirds of the samples by when they were due; `None` of fewer than three.
fn thirds(samples: &SampleColumns) -> Option<[MeasurementWindow; COMPARED]> {
    let count = samples.latency_ms.len().min(samples.due_ms.len());
    if count < COMPARED {
        return None;
    }
    let mut sent: Vec<(f64, f64)> =
        samples.due_ms.iter().copied().zip(samples.latency_ms.iter().copied()).collect();
    sent.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut answered: Vec<f64> = sent.iter().map(|(due, latency)| due + latency).collect();
    answered.sort_by(f64::total_cmp);
    let mut began = sent[0].0;
    Some([0, 1, 2].map(|third| {
        let range = third * count / COMPARED..(third + 1) * count / COMPARED;
        let ended = answered[range.end - 1];
        let latencies: Vec<f64> = sent[range].iter().map(|(_, latency)| *latency).collect();
        let seconds = (ended - began) / 1000.0;
        began = ended;
        // No third of three samples or more is empty.
        MeasurementWindow::new(&latencies, seconds)
            .unwrap_or(MeasurementWindow { latency_ms: f64::NAN, queries_per_second: f64::NAN })
    }))
}

/// The first figure by which windows differ, with its unit.
fn find_difference(
    scenario: Scenario,
    windows: &[MeasurementWindow; COMPARED],
) -> Option<(&'static str, [f64; COMPARED])> {
    let latency = (!matches!(scenario, Scenario::Offline))
        .then(|| ("ms", windows.map(|window| window.latency_ms)));
    let rate = (!matches!(scenario, Scenario::Server { .. }))
        .then(|| ("queries/s", windows.map(|window| window.queries_per_second)));
    latency.into_iter().chain(rate).find(|(_, figures)| !are_alike(figures))
}

/// Returns false where one is NaN.
fn are_alike(figures: &[f64; COMPARED]) -> bool {
    figures.iter().all(|one| figures.iter().all(|other| *one <= WITHIN * other))
}

#[cfg(test)]
mod tests {
    use protoseg_models::random::Stream;

    use super::*;
    use crate::arrivals;

    /// Samples of one client.
    fn sequential(latencies: impl IntoIterator<Item = f64>) -> SampleColumns {
        let mut samples = SampleColumns::default();
        let mut at = 0.0;
        for latency in latencies {
            samples.due_ms.push(at);
            samples.latency_ms.push(latency);
            at += latency;
        }
        samples
    }

    fn noisy(count: u64, spread: f64) -> impl Iterator<Item = f64> {
        (0..count).map(move |at| 20.0 * (spread * Stream::keyed(&[8]).normal(at)).exp())
    }

    /// Samples of a queue with one server that takes 10 ms an image.
    fn served(rate: f64, count: usize) -> SampleColumns {
        let mut free = 0.0_f64;
        let mut samples = SampleColumns::default();
        for moment in arrivals::schedule(rate, 3).take(count) {
            let due = 1000.0 * moment.as_secs_f64();
            free = due.max(free) + 10.0;
            samples.due_ms.push(due);
            samples.latency_ms.push(free - due);
        }
        samples
    }

    const ALONE: Scenario = Scenario::SingleStream;

    #[test]
    fn a_warm_up_ends_when_three_windows_are_alike() {
        let mut detector =
            StabilityDetector::new(ALONE, StabilityRule { seconds: 0.2, queries: 5, trials: 10 });
        let (mut at, mut latency) = (0.0, 100.0);
        while !detector.is_done() {
            // Faster with every query, down to 20 ms.
            latency = (0.9_f64 * latency).max(20.0);
            at += latency / 1000.0;
            detector.push(at, latency);
        }
        assert!(detector.is_stable());
        let WarmUp { queries, seconds, ref windows } = *detector.warm_up();
        // It takes 16 queries to reach 20 ms, then the rest of that window and two or three of ten.
        assert!((40..70).contains(&queries) && (seconds - at).abs() < 1e-12, "{queries}");
        let last = windows[windows.len() - 1];
        assert!(
            (last.latency_ms - 20.0).abs() < 1e-9 && (last.queries_per_second - 50.0).abs() < 1e-6,
            "{last:?}"
        );
    }

    #[test]
    fn an_unstable_warm_up_ends() {
        let rule = StabilityRule { seconds: 0.0, queries: 2, trials: 7 };
        let mut detector = StabilityDetector::new(ALONE, rule);
        let mut at = 0.0;
        while !detector.is_done() {
            at += 1.2_f64.powi(detector.warm_up().queries as i32);
            detector.push(at, at);
        }
        assert_eq!(
            (detector.is_stable(), detector.warm_up().windows.len(), detector.warm_up().queries),
            (false, 7, 14)
        );
    }

    #[test]
    fn answers_after_the_end_of_a_warm_up_do_not_count() {
        let mut detector =
            StabilityDetector::new(ALONE, StabilityRule { seconds: 0.0, queries: 2, trials: 10 });
        for at in 0..8 {
            detector.push(f64::from(at + 1), if at < 6 { 20.0 } else { 5.0 });
        }
        assert!(detector.is_stable());
        assert_eq!(
            (
                detector.warm_up().windows.len(),
                detector.warm_up().queries,
                detector.warm_up().seconds
            ),
            (3, 8, 8.0)
        );
    }

    #[test]
    fn drifting_samples_are_unstable() {
        assert_eq!(drift(&sequential(noisy(300, 0.1)), ALONE), None);
        let slower =
            noisy(300, 0.1).enumerate().map(|(at, latency)| latency * (1.0 + 0.001 * at as f64));
        let reason = drift(&sequential(slower), ALONE).unwrap();
        assert!(reason.contains("ms in thirds of the time differ by more than 10 %"), "{reason}");
        // In the last third every third query takes twice the time, which moves the rate but not
        // the median.
        let tail = (0..300).map(|at| if at > 200 && at % 3 == 0 { 40.0 } else { 20.0 });
        let reason = drift(&sequential(tail), ALONE).unwrap();
        assert!(reason.contains("queries/s in thirds"), "{reason}");
    }

    #[test]
    fn an_outlier_of_a_long_run_is_no_drift() {
        let outlier = (0..3000).map(|at| if at == 1700 { 400.0 } else { 20.0 });
        assert_eq!(drift(&sequential(outlier), ALONE), None);
    }

    #[test]
    fn growing_queues_are_detected() {
        for (rate, grows) in [(20.0, false), (50.0, false), (120.0, true), (300.0, true)] {
            let reason = drift(&served(rate, 3000), Scenario::Server { rate });
            assert_eq!(queue_grows(&served(rate, 3000)), grows, "{rate}");
            assert_eq!(
                reason.is_some_and(|reason| reason.starts_with("latency grows")),
                grows,
                "{rate}"
            );
        }
        // Few arrivals scatter by more than 10 %, which is no instability of the target.
        assert_eq!(drift(&served(20.0, 60), Scenario::Server { rate: 20.0 }), None);
    }

    #[test]
    fn offline_only_the_rate_counts() {
        let answered = |ms: &dyn Fn(f64) -> f64| SampleColumns {
            due_ms: vec![0.0; 90],
            latency_ms: (1..=90).map(|at| ms(f64::from(at))).collect(),
            ..SampleColumns::default()
        };
        assert_eq!(drift(&answered(&|at| 20.0 * at), Scenario::Offline), None);
        assert!(drift(&answered(&|at| at * at), Scenario::Offline).unwrap().contains("queries/s"));
    }

    #[test]
    fn too_few_samples_are_unstable() {
        for count in 0..3 {
            assert!(
                drift(&sequential(noisy(count, 0.0)), ALONE).unwrap().contains("too few"),
                "{count}"
            );
        }
        assert_eq!(drift(&sequential(noisy(3, 0.0)), ALONE), None);
        assert!(drift(&sequential([f64::NAN; 5]), ALONE).is_some());
    }
}
