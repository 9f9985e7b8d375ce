//! A target with a simulated clock: its measurements are exact, deterministic and take no time.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use protoseg_bench::load::{RequestError, RequestStages, Target};

pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);

/// Simulated time, which passes when all futures wait.
pub(crate) struct Clock {
    base: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    now: Duration,
    /// By the time that they wait for, and their number.
    waiting: BTreeMap<(Duration, usize), Waker>,
    count: usize,
}

impl Clock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { base: Instant::now(), state: Mutex::default() })
    }

    /// Since the start.
    pub(crate) fn now(&self) -> Duration {
        self.state.lock().unwrap().now
    }

    /// Passes time without waking any future, as work that blocks its thread does.
    pub(crate) fn block(&self, time: Duration) {
        self.state.lock().unwrap().now += time;
    }

    async fn until(&self, moment: Duration) {
        let mut key = None;
        std::future::poll_fn(|context: &mut Context<'_>| {
            let mut state = self.state.lock().unwrap();
            if state.now >= moment {
                return Poll::Ready(());
            }
            let key = *key.get_or_insert((moment, state.count));
            state.count += 1;
            state.waiting.insert(key, context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Runs a future that waits for nothing but this clock.
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(result) =
                future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                return result;
            }
            let mut state = self.state.lock().unwrap();
            let ((moment, _), waker) =
                state.waiting.pop_first().expect("no future waits for the clock");
            state.now = state.now.max(moment);
            drop(state);
            waker.wake();
        }
    }
}

/// A queue with one server, first come, first served.
pub(crate) struct Server<S> {
    clock: Arc<Clock>,
    /// Service time of an image that begins at a time: `Ok` where it is answered, `Err` where it
    /// fails.
    service: S,
    free: Mutex<Duration>,
    requested: Mutex<Vec<usize>>,
}

impl<S: Fn(usize, Duration) -> Result<Duration, Duration> + Sync> Server<S> {
    pub(crate) fn new(clock: &Arc<Clock>, service: S) -> Self {
        Self {
            clock: Arc::clone(clock),
            service,
            free: Mutex::default(),
            requested: Mutex::default(),
        }
    }

    /// Sorted numbers of all requested images.
    pub(crate) fn requested(&self) -> Vec<usize> {
        let mut requested = self.requested.lock().unwrap().clone();
        requested.sort_unstable();
        requested
    }
}

impl<S: Fn(usize, Duration) -> Result<Duration, Duration> + Sync> Target for Server<S> {
    async fn request(&self, image: usize) -> Result<RequestStages, RequestError> {
        self.requested.lock().unwrap().push(image);
        let (outcome, done) = {
            let mut free = self.free.lock().unwrap();
            let begins = free.max(self.clock.now());
            let outcome = (self.service)(image, begins);
            // Work that blocks the thread passes time.
            *free = begins.max(self.clock.now()) + outcome.unwrap_or_else(|failed| failed);
            (outcome, *free)
        };
        self.clock.until(done).await;
        outcome
            .map(|took| vec![("compute", took)])
            .map_err(|_| RequestError(format!("image {image} failed")))
    }

    fn now(&self) -> Instant {
        self.clock.base + self.clock.now()
    }

    async fn sleep_until(&self, moment: Instant) {
        self.clock.until(moment - self.clock.base).await;
    }
}
