//! Whether a system has come to rest: perf_analyzer's rule. Three windows in a row are alike where the largest and the
//! least of both their latency and their rate are within 10 % of each other.
//!
//! The latency of a stretch is its median. Where each client asks when the answer before is there, the rate is the mean
//! latency's reciprocal, so the rule already judges the mean, and what a median adds is what the bulk of queries meets,
//! unmoved by one outlier of heavy tails. In the server scenario the rate is that of the arrivals, which scatter by
//! themselves and say nothing of the system: there only latency counts, and it also tells a queue that grows. Offline only
//! the rate counts, for what is asked for at once is answered later and later.

use super::report::{MeasurementWindow, SampleColumns, WarmUp};
use super::scenario::Scenario;
use super::statistics::median;
use super::words::figure;

/// How many times the least the largest may be.
pub const WITHIN: f64 = 1.1;

/// Stretches that are compared.
const COMPARED: usize = 3;

/// When a warm-up is through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StabilityRule {
    /// The least seconds of a stretch.
    pub seconds: f64,
    /// The least queries of a stretch.
    pub queries: usize,
    /// Stretches after which it ends, come to rest or not.
    pub trials: usize,
}

/// A stretch of half a second shows clocks that rise and caches that fill, and ten queries have a median.
impl Default for StabilityRule {
    fn default() -> Self {
        Self { seconds: 0.5, queries: 10, trials: 10 }
    }
}

/// A warm-up as its answers come in.
#[derive(Debug, Clone)]
pub struct StabilityDetector {
    scenario: Scenario,
    rule: StabilityRule,
    done: WarmUp,
    /// Latencies in milliseconds of the stretch that is not yet through.
    latencies: Vec<f64>,
    /// When it began, in seconds since the start.
    began: f64,
}

impl StabilityDetector {
    /// At the start of a warm-up.
    pub fn new(scenario: Scenario, rule: StabilityRule) -> Self {
        Self { scenario, rule, done: WarmUp::default(), latencies: Vec::new(), began: 0.0 }
    }

    /// Takes an answer in: when it came, in seconds since the start, and its latency in milliseconds. Answers come in the
    /// order of time.
    pub fn push(&mut self, at: f64, latency_ms: f64) {
        self.done.queries += 1;
        self.done.seconds = at;
        // What is still under way at the end meets fewer others.
        if self.is_done() {
            return;
        }
        self.latencies.push(latency_ms);
        let took = at - self.began;
        if self.latencies.len() < self.rule.queries || took < self.rule.seconds {
            return;
        }
        self.done.windows.extend(MeasurementWindow::new(&self.latencies, took));
        self.latencies.clear();
        self.began = at;
    }

    /// Whether the last three windows are alike.
    pub fn is_stable(&self) -> bool {
        let windows = &self.done.windows;
        windows.last_chunk().is_some_and(|last: &[MeasurementWindow; COMPARED]| {
            unlike(self.scenario, last).is_none()
        })
    }

    /// Whether it is to end: come to rest, or the most trials are made.
    pub fn is_done(&self) -> bool {
        self.done.windows.len() >= self.rule.trials || self.is_stable()
    }

    /// What the report says of it.
    pub fn warm_up(&self) -> &WarmUp {
        &self.done
    }
}

impl MeasurementWindow {
    /// Of latencies in milliseconds over so many seconds; none of no latencies.
    fn new(latencies: &[f64], seconds: f64) -> Option<Self> {
        Some(Self {
            latency_ms: median(latencies)?,
            queries_per_second: latencies.len() as f64 / seconds,
        })
    }
}

/// Why the figures of measured samples are not to be trusted, as a sentence; none where thirds of them, in the order of time,
/// are alike.
///
/// They may differ because the machine or a queue has not come to rest, or because samples scatter so widely that a third of
/// them does not tell the median within 10 %. Either way the figures are not known that well.
pub fn drift(samples: &SampleColumns, scenario: Scenario) -> Option<String> {
    let Some(thirds) = thirds(samples) else {
        let count = samples.latency_ms.len();
        return Some(format!(
            "{count} of at least {COMPARED} queries were answered, too few to compare; measure longer"
        ));
    };
    let (what, [first, second, third]) = unlike(scenario, &thirds)?;
    let [one, other, last] = [first, second, third].map(figure);
    let figures = format!("{one}, {other} and {last} {what} in thirds of the time");
    Some(match scenario {
        Scenario::Server { .. } if growing([first, second, third]) => format!(
            "latency grows, {figures}: pictures come faster than they are answered, or nearly; lower the rate or measure longer"
        ),
        _ => format!(
            "{figures} differ by more than {:.0} %: the machine has not come to rest, or samples scatter too widely; stop what \
             else runs, or measure longer",
            100.0 * (WITHIN - 1.0)
        ),
    })
}

/// Whether pictures that come by themselves wait longer and longer: their queue grows, and no figure of them is one.
pub fn queue_grows(samples: &SampleColumns) -> bool {
    thirds(samples).is_some_and(|thirds| growing(thirds.map(|third| third.latency_ms)))
}

fn growing([first, second, third]: [f64; COMPARED]) -> bool {
    WITHIN * first < third && first < second && second < third
}

/// Thirds of the samples in the order in which they were due; none of too few.
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
        let of = third * count / COMPARED..(third + 1) * count / COMPARED;
        let latencies: Vec<f64> = sent[of.clone()].iter().map(|(_, latency)| *latency).collect();
        let ended = answered[of.end - 1];
        let seconds = (ended - began) / 1000.0;
        began = ended;
        // No third of three samples or more is empty.
        MeasurementWindow::new(&latencies, seconds)
            .unwrap_or(MeasurementWindow { latency_ms: f64::NAN, queries_per_second: f64::NAN })
    }))
}

/// The figures that are not alike, and their unit.
fn unlike(
    scenario: Scenario,
    windows: &[MeasurementWindow; COMPARED],
) -> Option<(&'static str, [f64; COMPARED])> {
    let latency = (!matches!(scenario, Scenario::Offline))
        .then(|| ("ms", windows.map(|stretch| stretch.latency_ms)));
    let rate = (!matches!(scenario, Scenario::Server { .. }))
        .then(|| ("queries/s", windows.map(|stretch| stretch.queries_per_second)));
    latency.into_iter().chain(rate).find(|(_, figures)| !alike(figures))
}

/// What is no number is like nothing.
fn alike(figures: &[f64; COMPARED]) -> bool {
    figures.iter().all(|one| figures.iter().all(|other| *one <= WITHIN * other))
}

#[cfg(test)]
mod tests {
    use protoseg_models::random::Stream;

    use super::*;
    use crate::arrivals;

    /// Samples of one client, one after the other.
    fn in_turn(latencies: impl IntoIterator<Item = f64>) -> SampleColumns {
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

    /// Samples of a system that answers one picture after the other, each in 10 ms.
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
    fn a_warm_up_ends_when_three_stretches_are_alike() {
        let mut watch =
            StabilityDetector::new(ALONE, StabilityRule { seconds: 0.2, queries: 5, trials: 10 });
        let (mut at, mut latency) = (0.0, 100.0);
        while !watch.is_done() {
            // Faster with every query, down to 20 ms.
            latency = (0.9_f64 * latency).max(20.0);
            at += latency / 1000.0;
            watch.push(at, latency);
        }
        assert!(watch.is_stable());
        let WarmUp { queries, seconds, ref windows } = *watch.warm_up();
        // It takes 16 queries to come down to 20 ms, and then the rest of that stretch and two or three of ten.
        assert!((40..70).contains(&queries) && (seconds - at).abs() < 1e-12, "{queries}");
        let last = windows[windows.len() - 1];
        assert!(
            (last.latency_ms - 20.0).abs() < 1e-9 && (last.queries_per_second - 50.0).abs() < 1e-6,
            "{last:?}"
        );
    }

    #[test]
    fn a_warm_up_that_never_rests_ends_all_the_same() {
        let rule = StabilityRule { seconds: 0.0, queries: 2, trials: 7 };
        let mut watch = StabilityDetector::new(ALONE, rule);
        let mut at = 0.0;
        while !watch.is_done() {
            at += 1.2_f64.powi(watch.warm_up().queries as i32);
            watch.push(at, at);
        }
        assert_eq!(
            (watch.is_stable(), watch.warm_up().windows.len(), watch.warm_up().queries),
            (false, 7, 14)
        );
    }

    #[test]
    fn what_comes_after_the_end_of_a_warm_up_says_nothing_of_it() {
        let mut watch =
            StabilityDetector::new(ALONE, StabilityRule { seconds: 0.0, queries: 2, trials: 10 });
        for at in 0..8 {
            watch.push(f64::from(at + 1), if at < 6 { 20.0 } else { 5.0 });
        }
        assert!(watch.is_stable());
        assert_eq!(
            (watch.warm_up().windows.len(), watch.warm_up().queries, watch.warm_up().seconds),
            (3, 8, 8.0)
        );
    }

    #[test]
    fn steady_samples_are_trusted_and_drifting_ones_are_not() {
        assert_eq!(drift(&in_turn(noisy(300, 0.1)), ALONE), None);
        let slower =
            noisy(300, 0.1).enumerate().map(|(at, latency)| latency * (1.0 + 0.001 * at as f64));
        let said = drift(&in_turn(slower), ALONE).unwrap();
        assert!(said.contains("ms in thirds of the time differ by more than 10 %"), "{said}");
        // In the last third every third query takes twice the time: the median does not move, the rate does.
        let tail = (0..300).map(|at| if at > 200 && at % 3 == 0 { 40.0 } else { 20.0 });
        let said = drift(&in_turn(tail), ALONE).unwrap();
        assert!(said.contains("queries/s in thirds"), "{said}");
    }

    #[test]
    fn an_outlier_of_a_long_run_is_no_drift() {
        let outlier = (0..3000).map(|at| if at == 1700 { 400.0 } else { 20.0 });
        assert_eq!(drift(&in_turn(outlier), ALONE), None);
    }

    #[test]
    fn a_queue_that_grows_is_told_from_one_that_does_not() {
        for (rate, grows) in [(20.0, false), (50.0, false), (120.0, true), (300.0, true)] {
            let said = drift(&served(rate, 3000), Scenario::Server { rate });
            assert_eq!(queue_grows(&served(rate, 3000)), grows, "{rate}");
            assert_eq!(said.is_some_and(|said| said.starts_with("latency grows")), grows, "{rate}");
        }
        // Few arrivals scatter by more than 10 %, which is not the system's doing.
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
    fn too_few_samples_are_said_and_none_panic() {
        for count in 0..3 {
            assert!(
                drift(&in_turn(noisy(count, 0.0)), ALONE).unwrap().contains("too few"),
                "{count}"
            );
        }
        assert_eq!(drift(&in_turn(noisy(3, 0.0)), ALONE), None);
        assert!(drift(&in_turn([f64::NAN; 5]), ALONE).is_some());
    }
}
