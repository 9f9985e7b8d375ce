//! Load and its latencies: a simulated queue against its recurrence and mean, stalls against their
//! frequency, and a real target against the clock.

use std::time::{Duration, Instant};

use protoseg_bench::arrivals;
use protoseg_bench::load::{
    LoadGenerator, LoadResult, QuerySample, RequestError, RequestStages, Scenario, StopAfter,
    Target,
};
use protoseg_bench::measure::{Measurement, WarmUpPolicy};
use protoseg_bench::stability::StabilityRule;
use protoseg_bench::statistics;

use super::simulated::{Clock, MILLISECOND, Server};

/// Service time of an image.
const SERVICE: Duration = Duration::from_millis(2);

const SEED: u64 = 5;

fn load(scenario: Scenario, until: StopAfter) -> LoadGenerator {
    LoadGenerator { scenario, until, first: 0, seed: SEED }
}

fn due(rate: f64, count: usize) -> Vec<Duration> {
    arrivals::schedule(rate, SEED).take(count).collect()
}

fn milliseconds(result: &LoadResult) -> Vec<f64> {
    result.samples.iter().map(|sample| 1e3 * sample.latency.as_secs_f64()).collect()
}

fn percentile(result: &LoadResult, percent: f64) -> f64 {
    let latency = statistics::latency(&milliseconds(result)).unwrap();
    latency.percentiles.iter().find(|percentile| percentile.percent == percent).unwrap().ms
}

/// One image in `every` stalls.
fn stalls(every: usize, stall: Duration) -> impl Fn(usize, Duration) -> Result<Duration, Duration> {
    move |image, _| Ok(if image % every == every - 1 { stall } else { SERVICE })
}

/// Latencies in milliseconds of a queue with one server (Lindley's recurrence).
fn queued(rate: f64, count: usize, service: impl Fn(usize) -> f64) -> Vec<f64> {
    let mut free = 0.0_f64;
    let latency = |(image, due): (usize, Duration)| {
        let due = 1e3 * due.as_secs_f64();
        free = free.max(due) + service(image);
        free - due
    };
    due(rate, count).into_iter().enumerate().map(latency).collect()
}

#[test]
fn open_loop_latencies_are_those_of_the_queue() {
    let (rate, count) = (50.0, 5000);
    let clock = Clock::new();
    let server = Server::new(&clock, stalls(50, 20 * MILLISECOND));
    let result = clock.run(load(Scenario::Server { rate }, StopAfter::Queries(count)).run(&server));
    let expected = queued(rate, count, |image| if image % 50 == 49 { 20.0 } else { 2.0 });
    for (sample, expected) in milliseconds(&result).into_iter().zip(&expected) {
        // Times are whole nanoseconds.
        assert!((sample - expected).abs() < 2e-6, "{sample} {expected}");
    }
    assert_eq!(result.samples.len(), count);
    // One image in 50 stalls, and one more arrives meanwhile: fewer than 5 of 100, and more than 1.
    let [median, most, rare] = [50.0, 95.0, 99.0].map(|percent| percentile(&result, percent));
    assert!(median < 2.5 && most < 6.0 && rare >= 18.0, "{median} {most} {rare}");
}

#[test]
fn the_mean_wait_follows_pollaczek_and_khinchine() {
    let (rate, count) = (300.0, 100_000);
    let clock = Clock::new();
    let server = Server::new(&clock, |_, _| Ok(SERVICE));
    let result = clock.run(load(Scenario::Server { rate }, StopAfter::Queries(count)).run(&server));
    let mean = milliseconds(&result).iter().sum::<f64>() / count as f64;
    // The server is busy 0.6 of the time; waits are correlated, and their mean is known to about 1
    // %.
    let busy = 0.6;
    let expected = 2.0 + busy * 2.0 / (2.0 * (1.0 - busy));
    assert!((mean / expected - 1.0).abs() < 0.04, "{mean} {expected}");
}

#[test]
fn a_closed_loop_hides_stalls_and_an_open_loop_does_not() {
    let (count, stall) = (8000, 200 * MILLISECOND);
    let measured = |scenario: Scenario| {
        let clock = Clock::new();
        let server = Server::new(&clock, stalls(400, stall));
        clock.run(load(scenario, StopAfter::Queries(count)).run(&server))
    };
    let [open_loop, closed_loop] = [Scenario::Server { rate: 100.0 }, Scenario::SingleStream]
        .map(|scenario| percentile(&measured(scenario), 99.0));
    // One in 400 stalls, and twenty more arrive meanwhile.
    assert!(open_loop > 100.0 && closed_loop == 2.0, "{open_loop} {closed_loop}");
}

#[test]
fn queries_that_a_blocked_generator_sends_late_count_from_when_they_were_due() {
    let (rate, count, stalled) = (100.0, 400, 100);
    let clock = Clock::new();
    let blocking = &clock;
    let server = Server::new(&clock, move |image, _| {
        if image == stalled {
            blocking.block(200 * MILLISECOND);
        }
        Ok(SERVICE)
    });
    let result = clock.run(load(Scenario::Server { rate }, StopAfter::Queries(count)).run(&server));
    let due = due(rate, count);
    let (begin, end) = (due[stalled], due[stalled] + 200 * MILLISECOND);
    assert_eq!(result.samples.iter().map(|sample| sample.due).collect::<Vec<_>>(), due);
    assert_eq!(server.requested(), (0..count).collect::<Vec<_>>());
    let is_meanwhile = |sample: &&QuerySample| sample.due > begin && sample.due <= end;
    assert!(result.samples.iter().filter(is_meanwhile).count() > 10);
    for sample in &result.samples {
        let late = if is_meanwhile(&sample) { end - sample.due } else { Duration::ZERO };
        assert_eq!(sample.late, late, "{sample:?}");
        assert!(sample.latency >= late + SERVICE, "{sample:?}");
    }
}

#[test]
fn failures_are_counted_and_not_retried() {
    let fails = |image: usize, _: Duration| {
        if image % 10 == 9 { Err(MILLISECOND) } else { Ok(SERVICE) }
    };
    let clock = Clock::new();
    let server = Server::new(&clock, fails);
    let result =
        clock.run(load(Scenario::Server { rate: 900.0 }, StopAfter::Queries(300)).run(&server));
    assert_eq!((result.samples.len(), result.failed), (270, 30));
    assert_eq!(result.first_error, Some(RequestError("image 9 failed".to_owned())));
    assert_eq!(server.requested(), (0..300).collect::<Vec<_>>());
    // Clients stop after a failure, and pending requests are finished.
    let clock = Clock::new();
    let server = Server::new(&clock, fails);
    let clients = LoadGenerator {
        first: 2,
        ..load(Scenario::Clients { clients: 4 }, StopAfter::Queries(300))
    };
    let result = clock.run(clients.run(&server));
    assert_eq!(
        (result.samples.len(), result.failed, server.requested()),
        (10, 1, (2..13).collect())
    );
}

#[test]
fn load_ends_after_its_time_or_queries() {
    let until = |scenario: Scenario, until: StopAfter| {
        let clock = Clock::new();
        let server = Server::new(&clock, |_, _| Ok(SERVICE));
        let result = clock.run(load(scenario, until).run(&server));
        assert_eq!(server.requested(), (0..result.samples.len()).collect::<Vec<_>>());
        (result.samples.len(), result.elapsed)
    };
    for clients in [1, 4, 7] {
        let clients = Scenario::Clients { clients };
        assert_eq!(until(clients, StopAfter::Queries(23)), (23, 46 * MILLISECOND));
    }
    let alone = Scenario::SingleStream;
    assert_eq!(until(alone, StopAfter::Time(20 * MILLISECOND, 1)), (10, 20 * MILLISECOND));
    assert_eq!(until(alone, StopAfter::Time(19 * MILLISECOND, 1)), (10, 20 * MILLISECOND));
    assert_eq!(until(alone, StopAfter::Time(MILLISECOND, 5)), (5, 10 * MILLISECOND));
    let rate = 80.0;
    let second = Duration::from_secs(1);
    let count = arrivals::schedule(rate, SEED).take_while(|due| *due < second).count();
    assert_eq!(until(Scenario::Server { rate }, StopAfter::Time(second, 1)).0, count);
    assert_eq!(until(Scenario::Server { rate }, StopAfter::Queries(17)).0, 17);
    // A pause in arrivals at the end counts, or the rate would be too high.
    let rate = 2.0;
    let few = arrivals::schedule(rate, SEED).take_while(|due| *due < second).count();
    assert_eq!(until(Scenario::Server { rate }, StopAfter::Time(second, 1)), (few, second));
    // Images that never arrive are not waited for.
    assert_eq!(until(Scenario::Server { rate: 1e-300 }, StopAfter::Queries(17)).0, 0);
}

#[test]
fn a_query_of_several_images_ends_with_its_last() {
    let clock = Clock::new();
    let server = Server::new(&clock, |image, _| Ok(if image == 4 { 5 * SERVICE } else { SERVICE }));
    let result =
        clock.run(load(Scenario::MultiStream { samples: 3 }, StopAfter::Queries(3)).run(&server));
    let found: Vec<_> = result.samples.iter().map(|sample| (sample.due, sample.latency)).collect();
    let ms = |number: u32| number * MILLISECOND;
    assert_eq!(found, [(ms(0), ms(6)), (ms(6), ms(14)), (ms(20), ms(6))]);
    assert!(result.samples.iter().all(|sample| sample.stages == [("compute", sample.latency)]));
    assert_eq!(server.requested(), (0..9).collect::<Vec<_>>());
    // A failure does not abandon the other images.
    let server =
        Server::new(&clock, |image, _| if image == 3 { Err(MILLISECOND) } else { Ok(SERVICE) });
    let result =
        clock.run(load(Scenario::MultiStream { samples: 3 }, StopAfter::Queries(3)).run(&server));
    assert_eq!((result.samples.len(), result.failed, server.requested()), (1, 1, (0..6).collect()));
    assert_eq!(result.elapsed, ms(11));
}

#[test]
fn offline_images_are_each_requested_once() {
    let clock = Clock::new();
    let server = Server::new(&clock, |_, _| Ok(SERVICE));
    let all = LoadGenerator { first: 7, ..load(Scenario::Offline, StopAfter::Queries(100)) };
    let result = clock.run(all.run(&server));
    assert_eq!((result.samples.len(), result.failed, result.elapsed), (100, 0, 200 * MILLISECOND));
    assert_eq!(server.requested(), (7..107).collect::<Vec<_>>());
}

#[test]
fn results_are_those_of_the_simulated_target() {
    let clock = Clock::new();
    let server = Server::new(&clock, |_, _| Ok(SERVICE));
    let warm_up = WarmUpPolicy::Stable(StabilityRule::default());
    let until = StopAfter::Time(Duration::from_secs(3), 3);
    let of = |scenario: Scenario| {
        let measurement = Measurement { scenario, warm_up, until, seed: SEED, pixels: 5e5 };
        clock.run(measurement.run(&server)).unwrap()
    };
    let scenarios = [
        (Scenario::SingleStream, Some(2.0), 500.0),
        (Scenario::Clients { clients: 4 }, Some(8.0), 500.0),
        (Scenario::MultiStream { samples: 5 }, Some(10.0), 500.0),
        (Scenario::Offline, None, 500.0),
    ];
    for (scenario, median, rate) in scenarios {
        let point = of(scenario);
        assert_eq!((point.failed, point.unstable), (0, None), "{scenario}");
        assert_eq!(point.latency.map(|latency| latency.percentiles[0].ms), median, "{scenario}");
        assert!(
            (point.images_per_second / rate - 1.0).abs() < 0.01,
            "{scenario}: {}",
            point.images_per_second
        );
        assert!((point.megapixels_per_second / (rate / 2.0) - 1.0).abs() < 0.01, "{scenario}");
        assert!((point.seconds - 3.0).abs() < 0.03, "{scenario}: {}", point.seconds);
    }
    let rate = 100.0;
    let count = arrivals::schedule(rate, SEED).take_while(|due| due.as_secs() < 3).count();
    let point = of(Scenario::Server { rate });
    assert_eq!((point.samples.due_ms.len(), point.failed), (count, 0));
}

/// Blocks its thread for 2 ms, and once for 200 ms.
struct Real;

impl Target for Real {
    async fn request(&self, image: usize) -> Result<RequestStages, RequestError> {
        std::thread::sleep(if image == 20 { 100 * SERVICE } else { SERVICE });
        Ok(Vec::new())
    }
}

#[test]
fn the_real_clock_agrees() {
    let (rate, count) = (100.0, 60);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let start = Instant::now();
    let result =
        runtime.block_on(load(Scenario::Server { rate }, StopAfter::Queries(count)).run(&Real));
    let due = due(rate, count);
    // No answer is early; other load on the machine may make it late.
    let expected = queued(rate, count, |image| if image == 20 { 200.0 } else { 2.0 });
    assert_eq!(result.samples.iter().map(|sample| sample.due).collect::<Vec<_>>(), due);
    let found = milliseconds(&result);
    assert!(
        found.iter().zip(&expected).all(|(found, expected)| found + 1e-6 >= *expected),
        "{found:?} {expected:?}"
    );
    let is_meanwhile =
        |sample: &&QuerySample| sample.due > due[20] && sample.due < due[20] + 190 * MILLISECOND;
    let waited: Vec<&QuerySample> = result.samples.iter().filter(is_meanwhile).collect();
    assert!(
        waited.len() > 5 && waited.iter().all(|sample| sample.late >= 10 * MILLISECOND),
        "{waited:?}"
    );
    assert!(result.elapsed >= due[count - 1] && result.elapsed <= start.elapsed());
}
