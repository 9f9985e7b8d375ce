//! Cross-request batching: a free segmenter takes the next tiles of the queue, of one image or
//! several, as one batch.

mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use image::RgbImage;
use protoseg_infer::segmenter::{SegmentError, Segmenter, TileCost, TileGrid, TileMerger, Tiler};
use protoseg_infer::{Outputs, Prediction, Stage, StageTimes};
use tokio::sync::oneshot;

use self::worker::ThroughputMeter;
use super::metrics::ModelMetrics;
use super::queue::{BatchLimit, FairQueue, JobShape};

#[derive(Debug, Clone)]
pub struct PredictRequest {
    pub image: Arc<RgbImage>,
    pub outputs: Outputs,
}

#[derive(Debug)]
pub struct PredictResponse {
    pub prediction: Prediction,
    /// Compute is the image's part of its batches, and stitching includes upsampling.
    pub times: StageTimes,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum SchedulerError {
    #[error(transparent)]
    Segment(#[from] Arc<SegmentError>),
    #[error("the model was closed while the image was in its queue")]
    Closed,
    #[error("internal error: this image made the program panic")]
    Panicked,
}

impl From<SegmentError> for SchedulerError {
    fn from(error: SegmentError) -> Self {
        Self::Segment(Arc::new(error))
    }
}

type JobResult = Result<PredictResponse, SchedulerError>;

/// Receiver of a result. Dropping it cancels a job that has not run.
pub type JobHandle = oneshot::Receiver<JobResult>;

/// Segmenters of one model, each on its own thread, and the queue in front of them.
///
/// On drop, images in the queue are still run, then the threads end.
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
    device_lost: AtomicBool,
    metrics: ModelMetrics,
}

#[derive(Debug)]
struct State {
    queue: FairQueue<Arc<Job>>,
    closed: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct SchedulerOptions {
    pub limit: BatchLimit,
    /// Time that a batch that is not full waits for more tiles, from the arrival of its first
    /// image.
    pub delay: Duration,
    /// Threads of each segmenter for work beside the network.
    pub threads: usize,
}

/// Estimated times of an image, from the throughput so far.
#[derive(Debug, Clone, Copy)]
pub struct Estimate {
    /// On its own.
    pub run: Duration,
    /// Until it is done if it arrived now.
    pub done: Duration,
}

impl Scheduler {
    /// Starts a thread for each segmenter; at least one, all of one model.
    pub fn start(
        segmenters: Vec<Segmenter>,
        options: SchedulerOptions,
        metrics: ModelMetrics,
    ) -> std::io::Result<Self> {
        let Some(first) = segmenters.first() else {
            return Err(std::io::Error::other("a scheduler needs a segmenter"));
        };
        let shared = Arc::new(Shared {
            tiler: first.tiler(),
            limit: options.limit,
            delay: options.delay,
            state: Mutex::new(State { queue: FairQueue::new(), closed: false }),
            wake: Condvar::new(),
            meter: ThroughputMeter::new(segmenters.len()),
            device_lost: AtomicBool::new(false),
            metrics,
        });
        let scheduler = Self { shared };
        for (index, segmenter) in segmenters.into_iter().enumerate() {
            let shared = Arc::clone(&scheduler.shared);
            let work = move || worker::run(&shared, segmenter, options.threads);
            std::thread::Builder::new().name(format!("segmenter {index}")).spawn(work)?;
        }
        Ok(scheduler)
    }

    /// Queues an image, or fails at once where the model cannot take it.
    pub fn submit(&self, request: PredictRequest) -> Result<JobHandle, SchedulerError> {
        let (sender, handle) = oneshot::channel();
        let size = [request.image.height() as usize, request.image.width() as usize];
        let tiles = if self.shared.tiler.runs_whole(size, request.outputs) {
            None
        } else {
            Some(self.shared.tiler.tiles(size)?)
        };
        let shape = match &tiles {
            None => JobShape { count: 1, tile: size, alone: true },
            Some(tiles) => JobShape { count: tiles.count(), tile: tiles.tile_size(), alone: false },
        };
        let job = Job {
            request,
            tiles,
            submitted: Instant::now(),
            sender: Mutex::new(Some(sender)),
            progress: Mutex::default(),
        };
        let mut state = self.shared.state();
        if state.closed {
            return Err(SchedulerError::Closed);
        }
        // Else the images of canceled jobs would stay until their turn.
        state.queue.remove_if(|job| job.is_canceled());
        state.queue.push(Arc::new(job), shape);
        self.shared.metrics.record_queue(state.queue.waiting().0);
        drop(state);
        // Several segmenters may be free, and the image have tiles for all of them.
        self.shared.wake.notify_all();
        Ok(handle)
    }

    /// Returns true unless the device is lost.
    pub fn is_healthy(&self) -> bool {
        !self.shared.device_lost.load(Ordering::Relaxed)
    }

    /// Returns the cost of an image `[height, width]`.
    pub fn cost(&self, size: [usize; 2], outputs: Outputs) -> Result<TileCost, SchedulerError> {
        Ok(self.shared.tiler.cost(size, outputs)?)
    }

    /// Estimates the times of an image whose tiles have so many pixels; none before the first
    /// batch.
    pub fn estimate(&self, pixels: u64) -> Option<Estimate> {
        let rate = self.pixels_per_second()?;
        let mut state = self.shared.state();
        state.queue.remove_if(|job| job.is_canceled());
        let time = |pixels: u64| {
            Duration::try_from_secs_f64(pixels as f64 / rate).unwrap_or(Duration::MAX)
        };
        Some(Estimate { run: time(pixels), done: time(state.queue.pixels_until(pixels)) })
    }

    /// Seeds the throughput with a run before the first request.
    pub fn seed_throughput(&self, pixels: u64, elapsed: Duration) {
        self.shared.meter.record(pixels, elapsed);
    }

    /// Returns the throughput in pixels of tiles; none before the first batch.
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

    /// Waits for the next batch of tiles; none once the scheduler is closed and its queue is empty.
    fn next_batch(&self) -> Option<Vec<(Arc<Job>, usize)>> {
        let mut state = self.state();
        loop {
            state.queue.remove_if(|job| job.is_canceled());
            let (tiles, pixels) = state.queue.waiting();
            let is_full = tiles >= self.limit.windows || pixels >= self.limit.pixels;
            let delay_left =
                state.queue.first().map(|job| self.delay.saturating_sub(job.submitted.elapsed()));
            match delay_left {
                None if state.closed => return None,
                None => state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(delay) if !is_full && !delay.is_zero() && !state.closed => {
                    let waited = self.wake.wait_timeout(state, delay);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Some(_) => {
                    let batch = state.queue.take_batch(self.limit);
                    self.metrics.record_queue(state.queue.waiting().0);
                    if !batch.is_empty() {
                        return Some(batch);
                    }
                }
            }
        }
    }
}

/// An image on its way through the scheduler.
#[derive(Debug)]
struct Job {
    request: PredictRequest,
    /// None where the model takes the image whole.
    tiles: Option<TileGrid>,
    submitted: Instant,
    sender: Mutex<Option<oneshot::Sender<JobResult>>>,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    merger: Option<TileMerger>,
    times: StageTimes,
    has_begun: bool,
}

impl Job {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sender(&self) -> MutexGuard<'_, Option<oneshot::Sender<JobResult>>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if nobody waits for the result, or it was sent.
    fn is_canceled(&self) -> bool {
        self.sender().as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn begin(&self, now: Instant) {
        let mut progress = self.progress();
        if !progress.has_begun {
            progress.has_begun = true;
            progress.times[Stage::Queue] = now.saturating_duration_since(self.submitted);
        }
    }

    fn pixels(&self) -> u64 {
        u64::from(self.request.image.width()) * u64::from(self.request.image.height())
    }

    /// Sends the result, once.
    fn finish(&self, result: Result<Prediction, SchedulerError>) {
        let times = self.progress().times;
        let result = result.map(|prediction| PredictResponse { prediction, times });
        if let Some(sender) = self.sender().take() {
            // Fails where nobody waits any more.
            drop(sender.send(result));
        }
    }
}
