//! Load on a target: open loop (a Poisson process) for the server scenario, closed loop for all
//! others.
//!
//! In the open loop a query is sent when it is due, whether or not earlier ones were answered, and
//! its latency counts from when it was due. So a target that stalls, or a generator that is late,
//! makes latency longer, never shorter (no coordinated omission).

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use serde::{Deserialize, Serialize};

use super::arrivals;

/// Clients of the offline scenario: more than any target runs at once.
const OFFLINE_CLIENTS: usize = 32;

/// MLPerf's scenarios, and the concurrency of perf_analyzer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Scenario {
    /// One image at a time; the next is sent when the previous is answered.
    SingleStream,
    /// Queries of several images; a query ends with its last image, and the next is then sent.
    MultiStream {
        /// Images of a query.
        samples: usize,
    },
    /// Several clients, each of which sends its next image when its previous is answered.
    Clients { clients: usize },
    /// All images are there from the start, and only the time for all of them counts.
    Offline,
    /// Images arrive by a Poisson process. Latency counts from the scheduled arrival.
    Server {
        /// Images per second.
        rate: f64,
    },
}

impl Scenario {
    /// The name in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::SingleStream => "single-stream",
            Self::MultiStream { .. } => "multi-stream",
            Self::Clients { .. } => "clients",
            Self::Offline => "offline",
            Self::Server { .. } => "server",
        }
    }

    pub fn images_per_query(self) -> usize {
        match self {
            Self::MultiStream { samples } => samples,
            _ => 1,
        }
    }
}

impl std::fmt::Display for Scenario {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())?;
        match self {
            Self::MultiStream { samples } => write!(formatter, " of {samples}"),
            Self::Clients { clients } => write!(formatter, " {clients}"),
            Self::Server { rate } => write!(formatter, " at {rate:.2}/s"),
            Self::SingleStream | Self::Offline => Ok(()),
        }
    }
}

/// Times of a request's stages by name, in the order of execution.
pub type RequestStages = Vec<(&'static str, Duration)>;

/// A request that was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RequestError(pub String);

impl RequestError {
    /// An error with its causes, as one sentence.
    pub fn from_error(error: &(dyn std::error::Error + 'static)) -> Self {
        Self(protoseg_models::errors::error_chain(error))
    }
}

/// A model under load.
///
/// ```
/// use std::time::Duration;
///
/// use protoseg_bench::load::{LoadGenerator, RequestError, RequestStages, Scenario, StopAfter, Target};
///
/// /// Takes a millisecond for each image.
/// struct Sleeper;
///
/// impl Target for Sleeper {
///     async fn request(&self, _image: usize) -> Result<RequestStages, RequestError> {
///         tokio::time::sleep(Duration::from_millis(1)).await;
///         Ok(Vec::new())
///     }
/// }
///
/// let scenario = Scenario::Clients { clients: 4 };
/// let load = LoadGenerator { scenario, until: StopAfter::Queries(20), first: 0, seed: 0 };
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
/// let result = runtime.block_on(load.run(&Sleeper));
/// assert_eq!(result.samples.len(), 20);
/// assert!(result.samples.iter().all(|sample| sample.latency >= Duration::from_millis(1)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Target: Sync {
    /// Segments one image. Images are numbered, and the number grows with every request.
    fn request(
        &self,
        image: usize,
    ) -> impl Future<Output = Result<RequestStages, RequestError>> + Send;

    /// Segments many images that are all there from the start.
    fn request_all(&self, first: usize, count: usize) -> impl Future<Output = LoadResult> {
        request_concurrently(self, first, count)
    }

    /// Returns true once nothing more need be sent.
    fn is_stopped(&self) -> bool {
        false
    }

    /// The target's clock; a simulated target has its own.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Waits on the caller's tokio runtime.
    fn sleep_until(&self, moment: Instant) -> impl Future<Output = ()> + Send {
        sleep_until(moment)
    }
}

/// Sleeps on a blocking thread, which wakes within about 50 µs; tokio's timers are off by up to a
/// millisecond.
async fn sleep_until(moment: Instant) {
    let remaining = moment.saturating_duration_since(Instant::now());
    if !remaining.is_zero() {
        // Fails only when the runtime shuts down, and then nobody waits.
        drop(tokio::task::spawn_blocking(move || std::thread::sleep(remaining)).await);
    }
}

/// Segments many images by concurrent clients.
pub async fn request_concurrently<T: Target + ?Sized>(
    target: &T,
    first: usize,
    count: usize,
) -> LoadResult {
    let scenario = Scenario::Clients { clients: OFFLINE_CLIENTS };
    LoadGenerator { scenario, until: StopAfter::Queries(count), first, seed: 0 }
        .run_closed_loop(target, OFFLINE_CLIENTS)
        .await
}

/// Load of one scenario.
#[derive(Debug, Clone, Copy)]
pub struct LoadGenerator {
    pub scenario: Scenario,
    /// For [`Scenario::Offline`] its number of queries is the number of images.
    pub until: StopAfter,
    /// Number of the first image.
    pub first: usize,
    /// Seed of the arrivals of [`Scenario::Server`].
    pub seed: u64,
}

/// End of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopAfter {
    Queries(usize),
    /// A time, but not before this many queries were sent.
    Time(Duration, usize),
}

impl StopAfter {
    fn least_queries(self) -> usize {
        match self {
            Self::Queries(queries) | Self::Time(_, queries) => queries,
        }
    }

    fn continues(self, sent: usize, passed: Duration) -> bool {
        match self {
            Self::Queries(queries) => sent < queries,
            Self::Time(time, least) => sent < least || passed < time,
        }
    }
}

/// Times of one answered query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuerySample {
    /// Since the load began.
    pub due: Duration,
    /// From due to sent.
    pub late: Duration,
    /// From due to answered.
    pub latency: Duration,
    /// Summed over the images of the query.
    pub stages: RequestStages,
}

impl QuerySample {
    /// Since the load began.
    pub fn answered(&self) -> Duration {
        self.due + self.latency
    }
}

/// Samples and failures of a load.
#[derive(Debug, Clone, Default)]
pub struct LoadResult {
    /// Answered queries, by when they were due.
    pub samples: Vec<QuerySample>,
    /// Number of queries that were not answered.
    pub failed: usize,
    pub first_error: Option<RequestError>,
    /// Until the last answer; in the open loop at least the time of [`StopAfter::Time`].
    pub elapsed: Duration,
}

impl LoadResult {
    fn add(&mut self, outcome: Result<QuerySample, RequestError>) {
        match outcome {
            Ok(sample) => self.samples.push(sample),
            Err(error) => {
                self.failed += 1;
                self.first_error.get_or_insert(error);
            }
        }
    }

    fn finish(mut self, elapsed: Duration) -> Self {
        self.elapsed = elapsed;
        self.samples.sort_by_key(|sample| sample.due);
        self
    }
}

impl LoadGenerator {
    /// Runs the load on the caller's tokio runtime.
    pub async fn run(&self, target: &(impl Target + ?Sized)) -> LoadResult {
        match self.scenario {
            Scenario::Server { rate } => self.run_open_loop(target, rate).await,
            Scenario::Clients { clients } => self.run_closed_loop(target, clients.max(1)).await,
            Scenario::SingleStream | Scenario::MultiStream { .. } => {
                self.run_closed_loop(target, 1).await
            }
            Scenario::Offline => target.request_all(self.first, self.until.least_queries()).await,
        }
    }

    async fn run_closed_loop(&self, target: &(impl Target + ?Sized), clients: usize) -> LoadResult {
        self.run_while(target, clients, |sent, passed, _| self.until.continues(sent, passed)).await
    }

    /// Runs the closed loop while `continues` returns true. It is called before every query with
    /// the number sent and the time passed, and after every answer with its sample. The first
    /// failure stops all clients.
    pub(super) async fn run_while(
        &self,
        target: &(impl Target + ?Sized),
        clients: usize,
        mut continues: impl FnMut(usize, Duration, Option<&QuerySample>) -> bool,
    ) -> LoadResult {
        let start = target.now();
        let passed = || target.now() - start;
        let mut sent = 0;
        let mut result = LoadResult::default();
        let mut running = FuturesUnordered::new();
        let mut goes_on = continues(sent, Duration::ZERO, None);
        loop {
            while running.len() < clients && goes_on && result.failed == 0 {
                running.push(self.query(target, sent, start, passed()));
                sent += 1;
                goes_on = continues(sent, passed(), None);
            }
            match running.next().await {
                Some(outcome) => {
                    goes_on &= continues(sent, passed(), outcome.as_ref().ok());
                    result.add(outcome);
                }
                None => return result.finish(passed()),
            }
        }
    }

    async fn run_open_loop(&self, target: &(impl Target + ?Sized), rate: f64) -> LoadResult {
        let start = target.now();
        let schedule =
            arrivals::schedule(rate, self.seed).enumerate().map_while(|(sent, moment)| {
                let goes_on = self.until.continues(sent, moment) && !target.is_stopped();
                let at = start.checked_add(moment).filter(|_| goes_on)?;
                Some((sent, moment, at))
            });
        let due = stream::iter(schedule).then(|(sent, moment, at)| async move {
            target.sleep_until(at).await;
            (sent, moment)
        });
        let mut due = pin!(due.fuse());
        let mut result = LoadResult::default();
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                // Queries that are due are sent before the next becomes due.
                biased;
                Some(outcome) = running.next(), if !running.is_empty() => result.add(outcome),
                Some((sent, moment)) = due.next() => {
                    running.push(self.query(target, sent, start, moment));
                }
                else => {
                    let passed = target.now() - start;
                    // A pause in arrivals at the end of the time counts too.
                    let least = match self.until {
                        StopAfter::Time(time, _) if !target.is_stopped() => time,
                        _ => Duration::ZERO,
                    };
                    return result.finish(passed.max(least));
                }
            }
        }
    }

    async fn query(
        &self,
        target: &(impl Target + ?Sized),
        sent: usize,
        start: Instant,
        due: Duration,
    ) -> Result<QuerySample, RequestError> {
        let passed = || (target.now() - start).saturating_sub(due);
        let late = passed();
        let count = self.scenario.images_per_query();
        let first = self.first + sent * count;
        let stages = if count == 1 {
            target.request(first).await?
        } else {
            request_batch(target, first, count).await?
        };
        Ok(QuerySample { due, late, latency: passed(), stages })
    }
}

/// Requests several images at once, and sums the stages by name.
async fn request_batch(
    target: &(impl Target + ?Sized),
    first: usize,
    count: usize,
) -> Result<RequestStages, RequestError> {
    let mut running: FuturesUnordered<_> =
        (first..first + count).map(|image| target.request(image)).collect();
    let mut sums: RequestStages = Vec::new();
    let mut error = None;
    // Waits for all, so that none still runs when the next query begins.
    while let Some(outcome) = running.next().await {
        match outcome {
            Ok(stages) => {
                for (name, took) in stages {
                    match sums.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, sum)) => *sum += took,
                        None => sums.push((name, took)),
                    }
                }
            }
            Err(failure) => error = error.or(Some(failure)),
        }
    }
    error.map_or(Ok(sums), Err)
}
