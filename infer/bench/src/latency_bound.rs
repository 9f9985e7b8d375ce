//! Binary search for the largest rate whose latency keeps to a bound, as in MLPerf's server
//! scenario.

use super::report::{RateWithinBound, ScenarioResult};
use super::stability;

/// Measured rates: the largest is found to a hundredth of the capacity.
const TRIES: usize = 7;

/// Percentile that the bound is for.
const PERCENT: f64 = 99.0;

/// Halves the range from 0 to `most`, where `measure` measures a rate. Returns the result and every
/// point in the order of measurement.
pub(super) fn search(
    bound_ms: f64,
    most: f64,
    measure: &mut impl FnMut(f64) -> anyhow::Result<ScenarioResult>,
) -> anyhow::Result<(RateWithinBound, Vec<ScenarioResult>)> {
    let mut found = RateWithinBound { bound_ms, rate: None, beyond: None, sure: true };
    let mut points = Vec::new();
    for _ in 0..TRIES {
        let rate = (found.rate.unwrap_or(0.0) + found.beyond.unwrap_or(most)) / 2.0;
        let point = measure(rate)?;
        let (ms, sure) = judged_latency(&point);
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

/// The latency that is compared with the bound, and whether it holds with 99 % confidence. It is
/// infinite where a query was not answered or the queue grows.
fn judged_latency(point: &ScenarioResult) -> (f64, bool) {
    if point.failed > 0 || stability::queue_grows(&point.samples) {
        return (f64::INFINITY, false);
    }
    match point.percentile(PERCENT) {
        None => (f64::INFINITY, false),
        Some(percentile) => {
            (percentile.bound_ms.unwrap_or(percentile.ms), percentile.bound_ms.is_some())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Scenario;
    use crate::report::{Latency, Percentile, SampleColumns, WarmUp};

    /// A point of a queue with one server that takes 10 ms, by formula: latency grows without bound
    /// at 100/s.
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
        // A growing queue, measured so briefly that all latencies keep to the bound.
        let (due_ms, latency_ms) =
            (0..90).map(|at| (f64::from(at), 1.0 + f64::from(at) / 9.0)).unzip();
        let samples = SampleColumns { due_ms, latency_ms, ..SampleColumns::default() };
        let growing = |rate| Ok(ScenarioResult { samples: samples.clone(), ..queue(rate, true) });
        assert_eq!(search(20.0, 40.0, &mut { growing }).unwrap().0.rate, None);
    }
}
