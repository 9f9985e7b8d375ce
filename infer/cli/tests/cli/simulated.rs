//! A target that keeps time of its own: what a benchmark finds of it is exact, the same every time, and takes no time.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use protoseg_bench::target::{RequestError, RequestStages, Target};

pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);

/// Time that passes when everybody waits.
pub(crate) struct Clock {
    base: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    now: Duration,
    /// Who waits until when, and as which one.
    waiting: BTreeMap<(Duration, usize), Waker>,
    count: usize,
}

impl Clock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { base: Instant::now(), state: Mutex::default() })
    }

    /// Since the beginning.
    pub(crate) fn now(&self) -> Duration {
        self.state.lock().unwrap().now
    }

    /// Lets time pass in which nobody gets a turn, as work that blocks its thread does.
    pub(crate) fn block(&self, time: Duration) {
        self.state.lock().unwrap().now += time;
    }

    async fn until(&self, moment: Duration) {
        let mut place = None;
        std::future::poll_fn(|context: &mut Context<'_>| {
            let mut state = self.state.lock().unwrap();
            if state.now >= moment {
                return Poll::Ready(());
            }
            let place = *place.get_or_insert((moment, state.count));
            state.count += 1;
            state.waiting.insert(place, context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Runs to its end what waits for this clock and nothing else.
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
                state.waiting.pop_first().expect("somebody waits for the clock");
            state.now = state.now.max(moment);
            drop(state);
            waker.wake();
        }
    }
}

/// Something that answers pictures one after the other, in the order in which they are asked.
pub(crate) struct Server<S> {
    clock: Arc<Clock>,
    /// How long a picture of this number takes when its turn comes at this time, or that it fails then.
    service: S,
    free: Mutex<Duration>,
    asked: Mutex<Vec<usize>>,
}

impl<S: Fn(usize, Duration) -> Result<Duration, Duration> + Sync> Server<S> {
    pub(crate) fn new(clock: &Arc<Clock>, service: S) -> Self {
        Self { clock: Arc::clone(clock), service, free: Mutex::default(), asked: Mutex::default() }
    }

    /// The numbers of all pictures that were asked, in order.
    pub(crate) fn asked(&self) -> Vec<usize> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort_unstable();
        asked
    }
}

impl<S: Fn(usize, Duration) -> Result<Duration, Duration> + Sync> Target for Server<S> {
    async fn request(&self, picture: usize) -> Result<RequestStages, RequestError> {
        self.asked.lock().unwrap().push(picture);
        let (outcome, done) = {
            let mut free = self.free.lock().unwrap();
            let begins = free.max(self.clock.now());
            let outcome = (self.service)(picture, begins);
            // Work that blocks the thread may have let time pass.
            *free = begins.max(self.clock.now()) + outcome.unwrap_or_else(|failed| failed);
            (outcome, *free)
        };
        self.clock.until(done).await;
        outcome
            .map(|took| vec![("compute", took)])
            .map_err(|_| RequestError(format!("picture {picture} failed")))
    }

    fn now(&self) -> Instant {
        self.clock.base + self.clock.now()
    }

    async fn sleep_until(&self, moment: Instant) {
        self.clock.until(moment - self.clock.base).await;
    }
}
