//! Puts load on a target as a scenario says, and takes the time of every query.
//!
//! Where clients wait for their answers, the next query is sent when the last is answered. Where queries come by themselves,
//! they are sent when they are due, whatever became of those before: a target that stalls is asked all the same, and what waits
//! meanwhile counts from when it was due. A generator that is late itself so makes latency longer, never shorter, and says how
//! late it was.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};

use super::arrivals;
use super::scenario::Scenario;
use super::target::{RequestError, RequestStages, Target};

/// LoadGenerator on a target.
#[derive(Debug, Clone, Copy)]
pub struct LoadGenerator {
    /// How queries come.
    pub scenario: Scenario,
    /// When it ends; of [`Scenario::Offline`] it says how many pictures there are from the start, by its least number.
    pub until: StopAfter,
    /// The number of the first picture.
    pub first: usize,
    /// Where queries come by chance, their moments follow from it.
    pub seed: u64,
}

/// When load ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopAfter {
    /// After so many queries.
    Queries(usize),
    /// When so much time has passed and so many queries were sent.
    Time(Duration, usize),
}

impl StopAfter {
    /// The number of queries that there are in any case.
    fn queries(self) -> usize {
        match self {
            Self::Queries(queries) | Self::Time(_, queries) => queries,
        }
    }

    /// Whether another query is sent, after so many and so long.
    fn continues(self, sent: usize, passed: Duration) -> bool {
        match self {
            Self::Queries(queries) => sent < queries,
            Self::Time(time, least) => sent < least || passed < time,
        }
    }
}

/// What a query took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuerySample {
    /// When it was due, since the load began.
    pub due: Duration,
    /// How much later it was sent.
    pub late: Duration,
    /// From when it was due to its answer.
    pub latency: Duration,
    /// Parts of that; of several pictures, sums.
    pub parts: RequestStages,
}

impl QuerySample {
    /// When it was answered, since the load began.
    pub fn answered(&self) -> Duration {
        self.due + self.latency
    }
}

/// What came of load.
#[derive(Debug, Clone, Default)]
pub struct LoadResult {
    /// Queries that were answered, by when they were due.
    pub samples: Vec<QuerySample>,
    /// Queries that were not answered.
    pub failed: usize,
    /// What the first of them met.
    pub first_error: Option<RequestError>,
    /// Until the last answer; where queries come by themselves for a time, at least that time.
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

    fn end(mut self, elapsed: Duration) -> Self {
        self.elapsed = elapsed;
        self.samples.sort_by_key(|sample| sample.due);
        self
    }
}

impl LoadGenerator {
    /// Puts it on a target, on the tokio runtime of the caller.
    pub async fn run(&self, target: &(impl Target + ?Sized)) -> LoadResult {
        match self.scenario {
            Scenario::Server { rate } => self.run_open_loop(target, rate).await,
            Scenario::Clients { clients } => self.run_closed_loop(target, clients.max(1)).await,
            Scenario::SingleStream | Scenario::MultiStream { .. } => {
                self.run_closed_loop(target, 1).await
            }
            Scenario::Offline => target.request_all(self.first, self.until.queries()).await,
        }
    }

    /// Clients that wait for their answers.
    pub(super) async fn run_closed_loop(
        &self,
        target: &(impl Target + ?Sized),
        clients: usize,
    ) -> LoadResult {
        self.run_while(target, clients, |sent, passed, _| self.until.continues(sent, passed)).await
    }

    /// The same for as long as somebody wants, who is asked before every query, and shown every answer with the time that had
    /// passed then. After a query that failed, all stop: more would meet the same.
    pub(super) async fn run_while(
        &self,
        target: &(impl Target + ?Sized),
        clients: usize,
        mut wanted: impl FnMut(usize, Duration, Option<&QuerySample>) -> bool,
    ) -> LoadResult {
        let start = target.now();
        let passed = || target.now() - start;
        let (mut sent, mut taken) = (0, LoadResult::default());
        let mut running = FuturesUnordered::new();
        let mut goes_on = wanted(sent, Duration::ZERO, None);
        loop {
            while running.len() < clients && goes_on && taken.failed == 0 {
                running.push(self.query(target, sent, start, passed()));
                sent += 1;
                goes_on = wanted(sent, passed(), None);
            }
            match running.next().await {
                Some(outcome) => {
                    goes_on &= wanted(sent, passed(), outcome.as_ref().ok());
                    taken.add(outcome);
                }
                None => return taken.end(passed()),
            }
        }
    }

    /// Queries that come by themselves.
    async fn run_open_loop(&self, target: &(impl Target + ?Sized), rate: f64) -> LoadResult {
        let start = target.now();
        let moments =
            arrivals::schedule(rate, self.seed).enumerate().map_while(|(sent, moment)| {
                let goes_on = self.until.continues(sent, moment) && !target.is_stopped();
                let at = start.checked_add(moment).filter(|_| goes_on)?;
                Some((sent, moment, at))
            });
        let due = stream::iter(moments).then(|(sent, moment, at)| async move {
            target.sleep_until(at).await;
            (sent, moment)
        });
        let mut due = pin!(due.fuse());
        let mut taken = LoadResult::default();
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                // What has become due is sent before anything else becomes due.
                biased;
                Some(outcome) = running.next(), if !running.is_empty() => taken.add(outcome),
                Some((sent, moment)) = due.next() => running.push(self.query(target, sent, start, moment)),
                else => {
                    let passed = target.now() - start;
                    // Where nothing came for a while before the time was up, that while counts too.
                    let wanted = match self.until {
                        StopAfter::Time(time, _) if !target.is_stopped() => time,
                        _ => Duration::ZERO,
                    };
                    return taken.end(passed.max(wanted));
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
        let parts = if count == 1 {
            target.request(first).await?
        } else {
            together(target, first, count).await?
        };
        Ok(QuerySample { due, late, latency: passed(), parts })
    }
}

/// Asks for several pictures at once; parts of one name are added up.
async fn together(
    target: &(impl Target + ?Sized),
    first: usize,
    count: usize,
) -> Result<RequestStages, RequestError> {
    let mut running: FuturesUnordered<_> =
        (first..first + count).map(|picture| target.request(picture)).collect();
    let mut sums: RequestStages = Vec::new();
    let mut error = None;
    // All are waited for, so that none is still at work when the next query begins.
    while let Some(outcome) = running.next().await {
        match outcome {
            Ok(parts) => {
                for (name, took) in parts {
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
