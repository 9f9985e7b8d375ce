//! Looks for the largest rate whose latency keeps to a bound, as MLPerf's server scenario asks for it.

use protoseg_bench::report::{RateWithinBound, ScenarioResult};
use protoseg_bench::stability;

/// Rates that are tried: between the last that held and the first that did not lies then a hundredth of what the model can do.
const TRIES: usize = 7;

/// The percentile that is to keep to the bound.
const PERCENT: f64 = 99.0;

/// Halves the range from nothing to the most that a model can do, where `at` measures a rate. Returns what was found, and every
/// point in the order in which it was measured.
pub(super) fn search(
    bound_ms: f64,
    most: f64,
    at: &mut impl FnMut(f64) -> anyhow::Result<ScenarioResult>,
) -> anyhow::Result<(RateWithinBound, Vec<ScenarioResult>)> {
    let mut found = RateWithinBound { bound_ms, rate: None, beyond: None, sure: true };
    let mut points = Vec::new();
    for _ in 0..TRIES {
        let rate = (found.rate.unwrap_or(0.0) + found.beyond.unwrap_or(most)) / 2.0;
        let point = at(rate)?;
        let (ms, sure) = judged(&point);
        if ms <= bound_ms {
            found.rate = Some(rate);
            found.sure = sure;
        } else {
            found.beyond = Some(rate);
        }
        points.push(point);
    }
    Ok((found, points))
}

/// What is held against the bound, and whether that is sure. Where a query was not answered, or latency grows with the queue,
/// nothing keeps to any bound.
fn judged(point: &ScenarioResult) -> (f64, bool) {
    let Some(percentile) = point.percentile(PERCENT).filter(|_| keeps_up(point)) else {
        return (f64::INFINITY, false);
    };
    match percentile.bound_ms {
        Some(bound) => (bound, true),
        None => (percentile.ms, false),
    }
}

/// Whether every query was answered, and the queue did not grow.
fn keeps_up(point: &ScenarioResult) -> bool {
    point.failed == 0 && !stability::queue_grows(&point.samples)
}

#[cfg(test)]
mod tests {
    use protoseg_bench::load::Scenario;
    use protoseg_bench::report::{Latency, Percentile, SampleColumns, WarmUp};

    use super::*;

    /// A point of a queue with one server that takes 10 ms, as formulas have its latency: it grows without end at 100/s.
    fn queue(rate: f64, sure: bool) -> ScenarioResult {
        let ms = if rate < 100.0 { 10.0 / (1.0 - rate / 100.0) } else { f64::INFINITY };
        let percentile = Percentile {
            percent: 99.0,
            ms,
            low_ms: None,
            high_ms: None,
            bound_ms: sure.then_some(ms),
        };
        ScenarioResult {
            scenario: Scenario::Server { rate },
            sessions: None,
            threads: None,
            warm_up: WarmUp::default(),
            unstable: None,
            samples: SampleColumns::default(),
            failed: 0,
            first_error: None,
            seconds: 1.0,
            latency: Some(Latency {
                mean_ms: ms,
                min_ms: ms,
                max_ms: ms,
                percentiles: vec![percentile],
            }),
            images_per_second: rate,
            megapixels_per_second: rate,
            energy: None,
            peak_device_bytes: None,
        }
    }

    #[test]
    fn the_largest_rate_is_found_to_a_hundredth() {
        for (bound_ms, rate) in [(20.0, 50.0), (40.0, 75.0), (1000.0, 99.0)] {
            let (found, points) =
                search(bound_ms, 110.0, &mut |rate| Ok(queue(rate, true))).unwrap();
            assert_eq!(points.len(), TRIES);
            assert!(found.rate.unwrap() <= rate && rate <= found.beyond.unwrap(), "{found:?}");
            assert!(
                found.beyond.unwrap() - found.rate.unwrap() < 0.01 * 110.0 && found.sure,
                "{found:?}"
            );
        }
        let (found, _) = search(5.0, 110.0, &mut |rate| Ok(queue(rate, false))).unwrap();
        assert_eq!(found.rate, None);
        let (found, _) = search(20.0, 40.0, &mut |rate| Ok(queue(rate, false))).unwrap();
        assert!(found.rate.unwrap() > 39.0 && found.beyond.is_none() && !found.sure, "{found:?}");
        let (found, _) =
            search(20.0, 40.0, &mut |rate| Ok(ScenarioResult { failed: 1, ..queue(rate, true) }))
                .unwrap();
        assert_eq!(found.rate, None);
        // A queue that grows, though it was looked at for so short that all were answered in time.
        let (due_ms, latency_ms) =
            (0..90).map(|at| (f64::from(at), 1.0 + f64::from(at) / 9.0)).unzip();
        let samples = SampleColumns { due_ms, latency_ms, ..SampleColumns::default() };
        let growing = |rate| Ok(ScenarioResult { samples: samples.clone(), ..queue(rate, true) });
        assert_eq!(search(20.0, 40.0, &mut { growing }).unwrap().0.rate, None);
    }
}
