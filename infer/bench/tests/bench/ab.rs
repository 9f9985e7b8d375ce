//! Interleaved A/B of two simulated models on a simulated machine with drift and other load: a
//! model that is 10 % slower is detected, and an equal one is not.

use std::sync::Arc;
use std::time::Duration;

use protoseg_bench::ab::{self, AbComparison, AbMeasurementError, AbVerdict};
use protoseg_bench::load::{RequestError, Scenario, StopAfter};
use protoseg_bench::measure::{Measurement, MeasurementError, WarmUpPolicy};
use protoseg_bench::report::ScenarioResult;
use protoseg_bench::stability::StabilityRule;
use protoseg_models::random::Stream;

use super::simulated::{Clock, MILLISECOND, Server};

/// Sessions for each of slower and equal.
const SESSIONS: u64 = 20;

/// Milliseconds of an image on an idle machine.
const ALONE: f64 = 20.0;

fn measurement(scenario: Scenario) -> Measurement {
    let rule = StabilityRule { seconds: 0.5, queries: 3, ..StabilityRule::default() };
    let until = StopAfter::Time(Duration::from_secs(4), 3);
    Measurement { scenario, warm_up: WarmUpPolicy::Stable(rule), until, seed: 1, pixels: 1.0 }
}

/// Slowdown of an image at a time: linear drift, in one session of four by 5 % a second up to 50 %;
/// one quarter of a second in twenty with 10 to 80 % of other load; and jitter of each image,
/// skewed upwards.
fn machine(session: u64, side: u64) -> impl Fn(usize, Duration) -> f64 {
    let (shared, own) = (Stream::keyed(&[1, session]), Stream::keyed(&[2, session, side]));
    let steady = if session.is_multiple_of(4) { 0.05 } else { 0.005 };
    move |image, now| {
        let quarter = (4.0 * now.as_secs_f64()) as u64;
        let loaded = shared.unit(2 * quarter) < 0.05;
        let load = if loaded { shared.range(2 * quarter + 1, 1.1, 1.8) } else { 1.0 };
        let jitter =
            0.03 * own.normal(2 * image as u64) + 0.02 * own.normal(2 * image as u64 + 1).exp();
        (1.0 + (steady * now.as_secs_f64()).min(0.5)) * load * jitter.exp()
    }
}

/// One session of two models, the second slower by a factor.
fn session(scenario: Scenario, seed: u64, slower: f64) -> ([ScenarioResult; 2], AbComparison) {
    let clock = Clock::new();
    let model = |side: u64, slower: f64| {
        let machine = machine(seed, side);
        let took = move |image, now| {
            Ok(Duration::from_secs_f64(ALONE / 1e3 * slower * machine(image, now)))
        };
        Server::new(
            &clock,
            Box::new(took) as Box<dyn Fn(usize, Duration) -> Result<Duration, Duration> + Sync>,
        )
    };
    let (one, other) = (model(0, 1.0), model(1, slower));
    clock.run(ab::measure(&measurement(scenario), [("one", &one), ("other", &other)], 20)).unwrap()
}

#[test]
fn ten_percent_are_detected_and_equal_models_are_not() {
    for scenario in [Scenario::SingleStream, Scenario::Offline] {
        let found = |slower: f64, first: u64| {
            let verdicts =
                (first..first + SESSIONS).map(|seed| session(scenario, seed, slower).1.verdict);
            verdicts.filter(|verdict| *verdict != AbVerdict::NoDifference).count()
        };
        assert_eq!(found(1.1, 0), SESSIONS as usize, "{scenario}");
        assert!(found(1.0, SESSIONS) <= 1, "{scenario}");
    }
    let (points, against) = session(Scenario::SingleStream, 1, 1.1);
    assert_eq!((against.verdict, against.blocks.len()), (AbVerdict::Slower, 40));
    assert!((1.07..1.13).contains(&against.ratio.ratio), "{against}");
    let [one, other] = points.map(|point| point.latency.unwrap().percentiles[0].ms);
    assert!((1.03..1.17).contains(&(other / one)), "{one} {other}");
}

/// A model of constant service time, which fails from an image on.
fn steady(
    clock: &Arc<Clock>,
    fails_from: usize,
) -> Server<impl Fn(usize, Duration) -> Result<Duration, Duration> + Sync> {
    Server::new(
        clock,
        move |image, _| {
            if image < fails_from { Ok(20 * MILLISECOND) } else { Err(MILLISECOND) }
        },
    )
}

#[test]
fn blocks_of_the_other_side_are_no_drift() {
    for pairs in [1, 8, 12, 20] {
        let clock = Clock::new();
        let (one, other) = (steady(&clock, usize::MAX), steady(&clock, usize::MAX));
        let timed = measurement(Scenario::SingleStream);
        let measured = ab::measure(&timed, [("one", &one), ("other", &other)], pairs);
        let (points, against) = clock.run(measured).unwrap();
        for point in points {
            assert_eq!(point.unstable, None, "{pairs} pairs");
            assert!(
                (point.images_per_second - 50.0).abs() < 1e-6 && point.samples.due_ms.is_sorted(),
                "{pairs} pairs"
            );
        }
        assert_eq!((against.verdict, against.blocks.len()), (AbVerdict::NoDifference, 2 * pairs));
        // A number of queries is divided among the blocks of a side.
        let counted = Measurement { until: StopAfter::Queries(40), ..timed };
        let measured = ab::measure(&counted, [("one", &one), ("other", &other)], pairs);
        let (points, _) = clock.run(measured).unwrap();
        let each = 40_usize.div_ceil(pairs) * pairs;
        assert!(points.iter().all(|point| point.samples.due_ms.len() == each), "{pairs} pairs");
    }
}

#[test]
fn a_failure_ends_the_measurement_with_its_reason() {
    let fails = |from: [usize; 2]| {
        let clock = Clock::new();
        let (one, other) = (steady(&clock, from[0]), steady(&clock, from[1]));
        let counted = Measurement {
            warm_up: WarmUpPolicy::Queries(5),
            ..measurement(Scenario::SingleStream)
        };
        clock.run(ab::measure(&counted, [("one", &one), ("other", &other)], 8))
    };
    for from in [[0, 100], [5, 100], [8, 100], [100, 0], [100, 5]] {
        let Err(AbMeasurementError::Measurement(MeasurementError::NoAnswer(RequestError(why)))) =
            fails(from)
        else {
            panic!("{from:?}")
        };
        assert!(why.starts_with("image"), "{from:?}: {why}");
    }
    let ([one, other], against) = fails([usize::MAX, 40]).unwrap();
    assert_eq!(
        (one.failed, other.failed, other.first_error.as_deref()),
        (0, 1, Some("image 40 failed"))
    );
    assert!(against.blocks.len() < 16);
}
