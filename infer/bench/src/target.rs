//! What is measured: something that answers, one picture at a time.

use std::time::{Duration, Instant};

use super::load::{LoadGenerator, LoadResult, StopAfter};
use super::scenario::Scenario;

/// Parts of the way of one picture by their names, in the order in which they happen.
pub type RequestStages = Vec<(&'static str, Duration)>;

/// Why there was no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RequestError(pub String);

impl RequestError {
    /// Of an error with its causes, as one sentence.
    pub fn from_error(error: &(dyn std::error::Error + 'static)) -> Self {
        Self(protoseg_models::errors::error_chain(error))
    }
}

/// Something that labels pictures.
///
/// ```
/// use std::time::Duration;
///
/// use protoseg_bench::load::{LoadGenerator, StopAfter};
/// use protoseg_bench::scenario::Scenario;
/// use protoseg_bench::target::{RequestError, RequestStages, Target};
///
/// /// Takes a millisecond for each picture.
/// struct Sleeper;
///
/// impl Target for Sleeper {
///     async fn request(&self, _picture: usize) -> Result<RequestStages, RequestError> {
///         tokio::time::sleep(Duration::from_millis(1)).await;
///         Ok(Vec::new())
///     }
/// }
///
/// let load = LoadGenerator { scenario: Scenario::Clients { clients: 4 }, until: StopAfter::Queries(20), first: 0, seed: 0 };
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
/// let taken = runtime.block_on(load.run(&Sleeper));
/// assert!(taken.samples.len() == 20 && taken.samples.iter().all(|sample| sample.latency >= Duration::from_millis(1)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Target: Sync {
    /// Asks for the labels of a picture, which are there when the future is done. Pictures are named by a number that grows
    /// with every question.
    fn request(
        &self,
        picture: usize,
    ) -> impl Future<Output = Result<RequestStages, RequestError>> + Send;

    /// Asks for the labels of many pictures that are all there from the start.
    fn request_all(&self, first: usize, count: usize) -> impl Future<Output = LoadResult> {
        request_concurrently(self, first, count)
    }

    /// Whether it answers no more, so that nothing need be asked.
    fn is_stopped(&self) -> bool {
        false
    }

    /// What time it is. A simulated target has its own time, by which everything about it is measured.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Waits for a moment, on the tokio runtime of the caller.
    fn sleep_until(&self, moment: Instant) -> impl Future<Output = ()> + Send {
        sleep_until(moment)
    }
}

/// Timers of the runtime are a millisecond off; a thread that sleeps wakes within some fifty microseconds.
async fn sleep_until(moment: Instant) {
    let remaining = moment.saturating_duration_since(Instant::now());
    if !remaining.is_zero() {
        // It cannot fail but by the end of the runtime, and then nobody waits.
        drop(tokio::task::spawn_blocking(move || std::thread::sleep(remaining)).await);
    }
}

/// Asks for many pictures by a crowd of clients.
pub async fn request_concurrently<T: Target + ?Sized>(
    target: &T,
    first: usize,
    count: usize,
) -> LoadResult {
    let scenario = Scenario::Clients { clients: CROWD };
    LoadGenerator { scenario, until: StopAfter::Queries(count), first, seed: 0 }
        .run_closed_loop(target, CROWD)
        .await
}

/// Clients that ask for pictures which are all there from the start: more than any target runs at once.
const CROWD: usize = 32;
