//! Runs pictures of many requests on the segmenters of one model: windows of pictures that wait fill runs together, formed
//! when a segmenter is free.

mod job;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use image::RgbImage;
use tokio::sync::oneshot;

use self::job::Job;
use super::metrics::ModelMetrics;
use super::queue::{BatchLimit, FairQueue, JobShape};
use super::throughput::ThroughputMeter;
use protoseg_infer::segmenter::{SegmentError, Segmenter, TileCost, Tiler};
use protoseg_infer::{Outputs, Prediction, StageTimes};

/// What is asked of a model about one picture.
#[derive(Debug, Clone)]
pub struct PredictRequest {
    /// The picture.
    pub image: Arc<RgbImage>,
    /// Outputs beside labels.
    pub outputs: Outputs,
}

/// What a model made of a picture.
#[derive(Debug)]
pub struct PredictResponse {
    /// A decision for every pixel.
    pub prediction: Prediction,
    /// Time by stage; compute is the image's share of runs.
    pub times: StageTimes,
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SchedulerError {
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

impl From<SegmentError> for SchedulerError {
    fn from(error: SegmentError) -> Self {
        Self::Segment(Arc::new(error))
    }
}

type JobResult = Result<PredictResponse, SchedulerError>;

/// The way to an answer. Who drops it is not waited for: a picture whose turn has not come is then never run.
pub type JobHandle = oneshot::Receiver<JobResult>;

/// Segmenters of one model, each owned by a thread, and the pictures that wait for them.
///
/// When it is dropped, pictures that wait are still run, and then the threads end.
#[derive(Debug)]
pub struct Scheduler {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tiler: Tiler,
    limit: BatchLimit,
    delay: Duration,
    state: Mutex<State>,
    wake: Condvar,
    meter: ThroughputMeter,
    lost: AtomicBool,
    metrics: ModelMetrics,
}

#[derive(Debug)]
struct State {
    queue: FairQueue<Arc<Job>>,
    closed: bool,
}

/// How an [`Scheduler`] forms runs.
#[derive(Debug, Clone, Copy)]
pub struct SchedulerOptions {
    /// What one run takes at most.
    pub limit: BatchLimit,
    /// How long a run that is not full waits for more, from when its first picture came.
    pub delay: Duration,
    /// Threads of what happens beside the network, for each segmenter.
    pub threads: usize,
}

impl Scheduler {
    /// Starts a thread for each segmenter; there is at least one, and all are of one model.
    pub fn start(
        segmenters: Vec<Segmenter>,
        options: SchedulerOptions,
        metrics: ModelMetrics,
    ) -> std::io::Result<Self> {
        let Some(first) = segmenters.first() else {
            return Err(std::io::Error::other("an engine needs a segmenter"));
        };
        let shared = Arc::new(Shared {
            tiler: first.tiler(),
            limit: options.limit,
            delay: options.delay,
            state: Mutex::new(State { queue: FairQueue::new(), closed: false }),
            wake: Condvar::new(),
            meter: ThroughputMeter::new(segmenters.len()),
            lost: AtomicBool::new(false),
            metrics,
        });
        let engine = Self { shared };
        for (index, segmenter) in segmenters.into_iter().enumerate() {
            let shared = Arc::clone(&engine.shared);
            let owner = move || worker::run(&shared, segmenter, options.threads);
            std::thread::Builder::new().name(format!("segmenter {index}")).spawn(owner)?;
        }
        Ok(engine)
    }

    /// Puts a picture into the queue. Fails at once where the model cannot take such pictures.
    pub fn submit(&self, request: PredictRequest) -> Result<JobHandle, SchedulerError> {
        let (reply, ticket) = oneshot::channel();
        let size = [request.image.height() as usize, request.image.width() as usize];
        let cut = if self.shared.tiler.runs_whole(size, request.outputs) {
            None
        } else {
            Some(self.shared.tiler.tiles(size)?)
        };
        let shape = match &cut {
            None => JobShape { count: 1, piece: size, alone: true },
            Some(cut) => JobShape { count: cut.count(), piece: cut.tile_size(), alone: false },
        };
        let job = Job {
            request,
            cut,
            submitted: Instant::now(),
            reply: Mutex::new(Some(reply)),
            progress: Mutex::default(),
        };
        let mut state = self.shared.state();
        if state.closed {
            return Err(SchedulerError::Closed);
        }
        // Nobody's pictures would lie there until their turn came.
        state.queue.remove_if(|job| job.is_gone());
        state.queue.push(Arc::new(job), shape);
        self.shared.note(&state);
        drop(state);
        // Several may be free, and a picture have pieces for all of them.
        self.shared.wake.notify_all();
        Ok(ticket)
    }

    /// Whether its device is there.
    pub fn is_healthy(&self) -> bool {
        !self.shared.lost.load(Ordering::Relaxed)
    }

    /// What pictures `[height, width]` cost.
    pub fn cost(&self, size: [usize; 2], outputs: Outputs) -> Result<TileCost, SchedulerError> {
        Ok(self.shared.tiler.cost(size, outputs)?)
    }

    /// How long the network needs for so many pixels, and how long until a picture of so many that came now would be done,
    /// both as measured so far; none before anything was run.
    pub fn estimate(&self, pixels: u64) -> Option<[Duration; 2]> {
        let rate = self.shared.meter.pixels_per_second()?;
        let mut state = self.shared.state();
        state.queue.remove_if(|job| job.is_gone());
        let time = |pixels: u64| {
            Duration::try_from_secs_f64(pixels as f64 / rate).unwrap_or(Duration::MAX)
        };
        Some([time(pixels), time(state.queue.pixels_until(pixels))])
    }

    /// Takes note of a run of so many pixels that was made before anybody asked.
    pub fn seed_throughput(&self, pixels: u64, took: Duration) {
        self.shared.meter.add(pixels, took);
    }

    /// Pixels of pieces that it runs in a second, as measured so far.
    pub fn pixels_per_second(&self) -> Option<f64> {
        self.shared.meter.pixels_per_second()
    }
}

impl Drop for Scheduler {
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
            state.queue.remove_if(|job| job.is_gone());
            let (pieces, pixels) = state.queue.waiting();
            let full = pieces >= self.limit.windows || pixels >= self.limit.pixels;
            let patience =
                state.queue.first().map(|job| self.delay.saturating_sub(job.submitted.elapsed()));
            match patience {
                None if state.closed => return None,
                None => state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(patience) if !full && !patience.is_zero() && !state.closed => {
                    let waited = self.wake.wait_timeout(state, patience);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Some(_) => {
                    let batch = state.queue.take_batch(self.limit);
                    self.note(&state);
                    if !batch.is_empty() {
                        return Some(batch);
                    }
                }
            }
        }
    }
}
