//! Runs pictures of many requests on the segmenters of one model: windows of pictures that wait fill runs together, formed
//! when a segmenter is free.

mod job;
mod owner;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use image::RgbImage;
use tokio::sync::oneshot;

use self::job::Job;
use super::meter::Meter;
use super::metrics::ModelMetrics;
use super::queue::{BatchLimit, Queue, Shape};
use protoseg_infer::segmenter::{Cost, Cutter, SegmentError, Segmenter};
use protoseg_infer::stitch::LogitMap;
use protoseg_infer::upsample::{Decided, Wanted};

/// What is asked of a model about one picture.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The picture.
    pub picture: Arc<RgbImage>,
    /// What is wanted beside labels.
    pub wanted: Wanted,
    /// Whether scores before upsampling are wanted too.
    pub scores: bool,
}

/// What a model made of a picture.
#[derive(Debug)]
pub struct Made {
    /// A decision for every pixel.
    pub decided: Decided,
    /// Scores before upsampling, where they were asked for.
    pub scores: Option<LogitMap>,
    /// How long it took.
    pub times: Times,
}

/// Where the time of one picture went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// Until its first piece ran.
    pub queue: Duration,
    /// Its share of the runs of the network.
    pub run: Duration,
    /// Putting pieces together and upsampling.
    pub stitch: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The picture, or the model.
    #[error(transparent)]
    Segment(#[from] Arc<SegmentError>),
    /// The model was closed before its turn came.
    #[error("the model was closed while the picture waited")]
    Closed,
    /// A defect of the program.
    #[error("the program failed at this picture")]
    Panicked,
}

impl From<SegmentError> for EngineError {
    fn from(error: SegmentError) -> Self {
        Self::Segment(Arc::new(error))
    }
}

type Reply = Result<Made, EngineError>;

/// The way to an answer. Who drops it is not waited for: a picture whose turn has not come is then never run.
pub type Ticket = oneshot::Receiver<Reply>;

/// Segmenters of one model, each owned by a thread, and the pictures that wait for them.
///
/// When it is dropped, pictures that wait are still run, and then the threads end.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    cutter: Cutter,
    limit: BatchLimit,
    delay: Duration,
    state: Mutex<State>,
    wake: Condvar,
    meter: Meter,
    lost: AtomicBool,
    metrics: ModelMetrics,
}

#[derive(Debug)]
struct State {
    queue: Queue<Arc<Job>>,
    closed: bool,
}

/// How an [`Engine`] forms runs.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// What one run takes at most.
    pub limit: BatchLimit,
    /// How long a run that is not full waits for more, from when its first picture came.
    pub delay: Duration,
    /// Threads of what happens beside the network, for each segmenter.
    pub threads: usize,
}

impl Engine {
    /// Starts a thread for each segmenter; there is at least one, and all are of one model.
    pub fn start(segmenters: Vec<Segmenter>, options: EngineOptions, metrics: ModelMetrics) -> std::io::Result<Self> {
        let Some(first) = segmenters.first() else {
            return Err(std::io::Error::other("an engine needs a segmenter"));
        };
        let shared = Arc::new(Shared {
            cutter: first.cutter(),
            limit: options.limit,
            delay: options.delay,
            state: Mutex::new(State { queue: Queue::new(), closed: false }),
            wake: Condvar::new(),
            meter: Meter::new(segmenters.len()),
            lost: AtomicBool::new(false),
            metrics,
        });
        let engine = Self { shared };
        for (index, segmenter) in segmenters.into_iter().enumerate() {
            let shared = Arc::clone(&engine.shared);
            let owner = move || owner::own(&shared, segmenter, options.threads);
            std::thread::Builder::new().name(format!("segmenter {index}")).spawn(owner)?;
        }
        Ok(engine)
    }

    /// Puts a picture into the queue. Fails at once where the model cannot take such pictures.
    pub fn submit(&self, ask: Ask) -> Result<Ticket, EngineError> {
        let (reply, ticket) = oneshot::channel();
        let size = [ask.picture.height() as usize, ask.picture.width() as usize];
        let cut = if self.shared.cutter.is_at_once(size, ask.wanted, ask.scores) {
            None
        } else {
            Some(self.shared.cutter.cut(size)?)
        };
        let shape = match &cut {
            None => Shape { count: 1, piece: size, alone: true },
            Some(cut) => Shape { count: cut.count(), piece: cut.piece_size(), alone: false },
        };
        let job =
            Job { ask, cut, submitted: Instant::now(), reply: Mutex::new(Some(reply)), progress: Mutex::default() };
        let mut state = self.shared.state();
        if state.closed {
            return Err(EngineError::Closed);
        }
        // Nobody's pictures would lie there until their turn came.
        state.queue.forget(|job| job.is_gone());
        state.queue.push(Arc::new(job), shape);
        self.shared.note(&state);
        drop(state);
        // Several may be free, and a picture have pieces for all of them.
        self.shared.wake.notify_all();
        Ok(ticket)
    }

    /// Whether its device is there.
    pub fn is_well(&self) -> bool {
        !self.shared.lost.load(Ordering::Relaxed)
    }

    /// What pictures `[height, width]` cost.
    pub fn cost(&self, size: [usize; 2], wanted: Wanted, scores: bool) -> Result<Cost, EngineError> {
        let cutter = &self.shared.cutter;
        Ok(cutter.cost(size, cutter.is_at_once(size, wanted, scores), scores)?)
    }

    /// How long the network needs for so many pixels, and how long until a picture of so many that came now would be done,
    /// both as measured so far; none before anything was run.
    pub fn time(&self, pixels: u64) -> Option<[Duration; 2]> {
        let rate = self.shared.meter.pixels_a_second()?;
        let mut state = self.shared.state();
        state.queue.forget(|job| job.is_gone());
        let time = |pixels: u64| Duration::try_from_secs_f64(pixels as f64 / rate).unwrap_or(Duration::MAX);
        Some([time(pixels), time(state.queue.until(pixels))])
    }

    /// Takes note of a run of so many pixels that was made before anybody asked.
    pub fn prime(&self, pixels: u64, took: Duration) {
        self.shared.meter.add(pixels, took);
    }

    /// Pixels of pieces that it runs in a second, as measured so far.
    pub fn pixels_a_second(&self) -> Option<f64> {
        self.shared.meter.pixels_a_second()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, state: &State) {
        self.metrics.waiting(state.queue.waiting().0);
    }

    /// The pieces to run next; none once the engine is closed and all is done.
    fn next(&self) -> Option<Vec<(Arc<Job>, usize)>> {
        let mut state = self.state();
        loop {
            state.queue.forget(|job| job.is_gone());
            let (pieces, pixels) = state.queue.waiting();
            let full = pieces >= self.limit.pieces || pixels >= self.limit.pixels;
            let patience = state.queue.first().map(|job| self.delay.saturating_sub(job.submitted.elapsed()));
            match patience {
                None if state.closed => return None,
                None => state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(patience) if !full && !patience.is_zero() && !state.closed => {
                    let waited = self.wake.wait_timeout(state, patience);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Some(_) => {
                    let batch = state.queue.take(self.limit);
                    self.note(&state);
                    if !batch.is_empty() {
                        return Some(batch);
                    }
                }
            }
        }
    }
}
