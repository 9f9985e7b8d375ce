//! LoadGenerator is what it says to be, and latency counts from when a query was due: a target with time of its own is held against the
//! recurrence of its queue, a stall against how often it happens, and one real target against the clock.

use std::time::{Duration, Instant};

use protoseg_bench::arrivals;
use protoseg_bench::load::{LoadGenerator, LoadResult, QuerySample, StopAfter};
use protoseg_bench::measure::{Measurement, WarmUpPolicy};
use protoseg_bench::scenario::Scenario;
use protoseg_bench::stability::StabilityRule;
use protoseg_bench::statistics;
use protoseg_bench::target::{RequestError, RequestStages, Target};

use super::simulated::{Clock, MILLISECOND, Server};

/// What a picture takes the simulated server.
const SERVICE: Duration = Duration::from_millis(2);

const SEED: u64 = 5;

fn load(scenario: Scenario, until: StopAfter) -> LoadGenerator {
    LoadGenerator { scenario, until, first: 0, seed: SEED }
}

fn due(rate: f64, count: usize) -> Vec<Duration> {
    arrivals::schedule(rate, SEED).take(count).collect()
}

fn milliseconds(taken: &LoadResult) -> Vec<f64> {
    taken.samples.iter().map(|sample| 1e3 * sample.latency.as_secs_f64()).collect()
}

fn percentile(taken: &LoadResult, percent: f64) -> f64 {
    let latency = statistics::latency(&milliseconds(taken)).unwrap();
    latency.percentiles.iter().find(|told| told.percent == percent).unwrap().ms
}

/// Every so many pictures one stalls for so long.
fn stalls(every: usize, stall: Duration) -> impl Fn(usize, Duration) -> Result<Duration, Duration> {
    move |picture, _| Ok(if picture % every == every - 1 { stall } else { SERVICE })
}

/// What a queue of one server makes of pictures in milliseconds (Lindley's recurrence).
fn queued(rate: f64, count: usize, service: impl Fn(usize) -> f64) -> Vec<f64> {
    let mut free = 0.0_f64;
    let latency = |(picture, due): (usize, Duration)| {
        let due = 1e3 * due.as_secs_f64();
        free = free.max(due) + service(picture);
        free - due
    };
    due(rate, count).into_iter().enumerate().map(latency).collect()
}

#[test]
fn latency_of_pictures_that_come_by_themselves_is_that_of_the_queue() {
    let (rate, count) = (50.0, 5000);
    let clock = Clock::new();
    let server = Server::new(&clock, stalls(50, 20 * MILLISECOND));
    let taken = clock.run(load(Scenario::Server { rate }, StopAfter::Queries(count)).run(&server));
    let expected = queued(rate, count, |picture| if picture % 50 == 49 { 20.0 } else { 2.0 });
    for (sample, expected) in milliseconds(&taken).into_iter().zip(&expected) {
        // Times are whole nanoseconds.
        assert!((sample - expected).abs() < 2e-6, "{sample} {expected}");
    }
    assert_eq!(taken.samples.len(), count);
    // A picture of 50 stalls, and one more comes meanwhile: fewer than 5 of 100, and more than 1.
    let [median, most, rare] = [50.0, 95.0, 99.0].map(|percent| percentile(&taken, percent));
    assert!(median < 2.5 && most < 6.0 && rare >= 18.0, "{median} {most} {rare}");
}

#[test]
fn the_mean_wait_is_that_of_pollaczek_and_khinchine() {
    let (rate, count) = (300.0, 100_000);
    let clock = Clock::new();
    let server = Server::new(&clock, |_, _| Ok(SERVICE));
    let taken = clock.run(load(Scenario::Server { rate }, StopAfter::Queries(count)).run(&server));
    let mean = milliseconds(&taken).iter().sum::<f64>() / count as f64;
    // Of 0.6 of the time it is busy; waits of neighbours are alike, and their mean is known to about 1 %.
    let busy = 0.6;
    let expected = 2.0 + busy * 2.0 / (2.0 * (1.0 - busy));
    assert!((mean / expected - 1.0).abs() < 0.04, "{mean} {expected}");
}

#[test]
fn clients_that_wait_hide_what_a_stall_does_to_those_who_come_meanwhile() {
    let (count, stall) = (8000, 200 * MILLISECOND);
    let measured = |scenario: Scenario| {
        let clock = Clock::new();
        let server = Server::new(&clock, stalls(400, stall));
        clock.run(load(scenario, StopAfter::Queries(count)).run(&server))
    };
    let [by_themselves, waiting] = [Scenario::Server { rate: 100.0 }, Scenario::SingleStream]
        .map(|scenario| percentile(&measured(scenario), 99.0));
    // One of 400 stalls, and twenty more come while it does.
    assert!(by_themselves > 100.0 && waiting == 2.0, "{by_themselves} {waiting}");
}

#[test]
fn what_was_due_while_the_generator_could_not_run_counts_from_then() {
    let (rate, count, stalled) = (100.0, 400, 100);
    let clock = Clock::new();
    let blocking = &clock;
    let server = Server::new(&clock, move |picture, _| {
        if picture == stalled {
            blocking.block(200 * MILLISECOND);
        }
        Ok(SERVICE)
    });
    let taken = clock.run(load(Scenario::Server { rate }, StopAfter::Queries(count)).run(&server));
    let due = due(rate, count);
    let (begin, end) = (due[stalled], due[stalled] + 200 * MILLISECOND);
    assert_eq!(taken.samples.iter().map(|sample| sample.due).collect::<Vec<_>>(), due);
    assert_eq!(server.asked(), (0..count).collect::<Vec<_>>());
    let meanwhile = |sample: &&QuerySample| sample.due > begin && sample.due <= end;
    assert!(taken.samples.iter().filter(meanwhile).count() > 10);
    for sample in &taken.samples {
        let late = if meanwhile(&sample) { end - sample.due } else { Duration::ZERO };
        assert_eq!(sample.late, late, "{sample:?}");
        assert!(sample.latency >= late + SERVICE, "{sample:?}");
    }
}

#[test]
fn failures_are_counted_and_nothing_is_asked_twice() {
    let fails = |picture: usize, _: Duration| {
        if picture % 10 == 9 { Err(MILLISECOND) } else { Ok(SERVICE) }
    };
    let clock = Clock::new();
    let server = Server::new(&clock, fails);
    let taken =
        clock.run(load(Scenario::Server { rate: 900.0 }, StopAfter::Queries(300)).run(&server));
    assert_eq!((taken.samples.len(), taken.failed), (270, 30));
    assert_eq!(taken.first_error, Some(RequestError("picture 9 failed".to_owned())));
    assert_eq!(server.asked(), (0..300).collect::<Vec<_>>());
    // Clients stop, and those that are on their way come home.
    let clock = Clock::new();
    let server = Server::new(&clock, fails);
    let clients = LoadGenerator {
        first: 2,
        ..load(Scenario::Clients { clients: 4 }, StopAfter::Queries(300))
    };
    let taken = clock.run(clients.run(&server));
    assert_eq!((taken.samples.len(), taken.failed, server.asked()), (10, 1, (2..13).collect()));
}

#[test]
fn load_ends_when_it_was_to_end() {
    let until = |scenario: Scenario, until: StopAfter| {
        let clock = Clock::new();
        let server = Server::new(&clock, |_, _| Ok(SERVICE));
        let taken = clock.run(load(scenario, until).run(&server));
        assert_eq!(server.asked(), (0..taken.samples.len()).collect::<Vec<_>>());
        (taken.samples.len(), taken.elapsed)
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
    // A while in which nothing came counts, or a rate would come out that was not put on.
    let rate = 2.0;
    let few = arrivals::schedule(rate, SEED).take_while(|due| *due < second).count();
    assert_eq!(until(Scenario::Server { rate }, StopAfter::Time(second, 1)), (few, second));
    // Pictures that never come are not waited for.
    assert_eq!(until(Scenario::Server { rate: 1e-300 }, StopAfter::Queries(17)).0, 0);
}

#[test]
fn a_query_of_several_pictures_waits_for_its_last() {
    let clock = Clock::new();
    let server =
        Server::new(&clock, |picture, _| Ok(if picture == 4 { 5 * SERVICE } else { SERVICE }));
    let taken =
        clock.run(load(Scenario::MultiStream { samples: 3 }, StopAfter::Queries(3)).run(&server));
    let found: Vec<_> = taken.samples.iter().map(|sample| (sample.due, sample.latency)).collect();
    let ms = |number: u32| number * MILLISECOND;
    assert_eq!(found, [(ms(0), ms(6)), (ms(6), ms(14)), (ms(20), ms(6))]);
    assert!(taken.samples.iter().all(|sample| sample.parts == [("compute", sample.latency)]));
    assert_eq!(server.asked(), (0..9).collect::<Vec<_>>());
    // One that fails does not leave the others behind.
    let server =
        Server::new(&clock, |picture, _| if picture == 3 { Err(MILLISECOND) } else { Ok(SERVICE) });
    let taken =
        clock.run(load(Scenario::MultiStream { samples: 3 }, StopAfter::Queries(3)).run(&server));
    assert_eq!((taken.samples.len(), taken.failed, server.asked()), (1, 1, (0..6).collect()));
    assert_eq!(taken.elapsed, ms(11));
}

#[test]
fn pictures_that_are_all_there_are_each_asked_once() {
    let clock = Clock::new();
    let server = Server::new(&clock, |_, _| Ok(SERVICE));
    let all = LoadGenerator { first: 7, ..load(Scenario::Offline, StopAfter::Queries(100)) };
    let taken = clock.run(all.run(&server));
    assert_eq!((taken.samples.len(), taken.failed, taken.elapsed), (100, 0, 200 * MILLISECOND));
    assert_eq!(server.asked(), (7..107).collect::<Vec<_>>());
}

#[test]
fn figures_of_a_known_target_are_its_own() {
    let clock = Clock::new();
    let server = Server::new(&clock, |_, _| Ok(SERVICE));
    let warm_up = WarmUpPolicy::Stable(StabilityRule::default());
    let until = StopAfter::Time(Duration::from_secs(3), 3);
    let of = |scenario: Scenario| {
        let measure = Measurement { scenario, warm_up, until, seed: SEED, pixels: 5e5 };
        clock.run(measure.run(&server)).unwrap()
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

/// Blocks its thread for two milliseconds, and once for a fifth of a second.
struct Real;

impl Target for Real {
    async fn request(&self, picture: usize) -> Result<RequestStages, RequestError> {
        std::thread::sleep(if picture == 20 { 100 * SERVICE } else { SERVICE });
        Ok(Vec::new())
    }
}

#[test]
fn the_machines_own_clock_tells_the_same() {
    let (rate, count) = (100.0, 60);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let start = Instant::now();
    let taken =
        runtime.block_on(load(Scenario::Server { rate }, StopAfter::Queries(count)).run(&Real));
    let due = due(rate, count);
    // Nothing is earlier than it can be; how much later, other load on the machine decides.
    let expected = queued(rate, count, |picture| if picture == 20 { 200.0 } else { 2.0 });
    assert_eq!(taken.samples.iter().map(|sample| sample.due).collect::<Vec<_>>(), due);
    let found = milliseconds(&taken);
    assert!(
        found.iter().zip(&expected).all(|(found, expected)| found + 1e-6 >= *expected),
        "{found:?} {expected:?}"
    );
    let meanwhile =
        |sample: &&QuerySample| sample.due > due[20] && sample.due < due[20] + 190 * MILLISECOND;
    let waited: Vec<&QuerySample> = taken.samples.iter().filter(meanwhile).collect();
    assert!(
        waited.len() > 5 && waited.iter().all(|sample| sample.late >= 10 * MILLISECOND),
        "{waited:?}"
    );
    assert!(taken.elapsed >= due[count - 1] && taken.elapsed <= start.elapsed());
}
