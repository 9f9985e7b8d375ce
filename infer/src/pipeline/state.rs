//! State that the threads of a run share: the pixel budget, the next image, failures and times; and
//! the report of the run.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use protoseg_images::image_file::MAX_PIXELS;
use serde::Serialize;

use super::{PipelineEvent, RunControl};
use crate::segmenter::SegmentError;
use crate::stage::{Stage, StageTimes};

/// Bytes per pixel in flight: three of the image and up to three of the prediction; in the end also
/// the files made of these.
pub const BYTES_PER_PIXEL: u64 = 8;

/// Images get a quarter of the available memory: up to a half is for sessions, and the rest for
/// what runs need.
const MEMORY_DIVISOR: u64 = 4;

/// Default pixel budget for the available memory; where that is not known, the largest image that
/// is read.
pub(super) fn default_pixels(available: Option<u64>) -> u64 {
    available.map_or(MAX_PIXELS, |bytes| bytes / MEMORY_DIVISOR / BYTES_PER_PIXEL)
}

/// Semaphore over the pixels of images in flight: many small images or few large ones.
#[derive(Debug)]
pub(super) struct PixelBudget {
    limit: u64,
    held: Mutex<u64>,
    released: Condvar,
    /// Held by the first that waits, so that small images do not overtake a large one for ever.
    first: Mutex<()>,
}

/// Pixels of an image, held until this is dropped.
#[derive(Debug)]
pub(super) struct PixelPermit<'a> {
    budget: &'a PixelBudget,
    pixels: u64,
}

impl PixelBudget {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, held: Mutex::new(0), released: Condvar::new(), first: Mutex::new(()) }
    }

    /// Waits until an image fits. Where nothing else is held, any image does.
    pub(super) fn acquire(&self, pixels: u64) -> PixelPermit<'_> {
        let _first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while *held > 0 && held.saturating_add(pixels) > self.limit {
            held = self.released.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        *held = held.saturating_add(pixels);
        PixelPermit { budget: self, pixels }
    }
}

impl Drop for PixelPermit<'_> {
    fn drop(&mut self) {
        let mut held = self.budget.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = held.saturating_sub(self.pixels);
        self.budget.released.notify_one();
    }
}

pub(super) struct RunState<'a, E> {
    control: &'a RunControl<'a, E>,
    count: usize,
    next: AtomicUsize,
    interrupted: AtomicBool,
    done: AtomicUsize,
    times: Mutex<StageTimes>,
    failed: Mutex<Vec<(usize, E)>>,
    error: Mutex<Option<E>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stopped: AtomicBool,
    /// True where that error came from `encode`, so that no more results can be kept.
    unwritable: AtomicBool,
}

impl<'a, E: From<SegmentError>> RunState<'a, E> {
    pub(super) fn new(count: usize, control: &'a RunControl<'a, E>) -> Self {
        Self {
            control,
            count,
            next: AtomicUsize::new(0),
            interrupted: AtomicBool::new(false),
            done: AtomicUsize::new(0),
            times: Mutex::default(),
            failed: Mutex::default(),
            error: Mutex::new(None),
            panic: Mutex::new(None),
            stopped: AtomicBool::new(false),
            unwritable: AtomicBool::new(false),
        }
    }

    /// Returns the next image to start; None where there are no more, or the run stops.
    pub(super) fn next(&self) -> Option<usize> {
        if self.is_stopped() {
            return None;
        }
        if self.control.stop.load(Ordering::Relaxed) {
            let left = self.next.load(Ordering::Relaxed) < self.count;
            self.interrupted.fetch_or(left, Ordering::Relaxed);
            return None;
        }
        Some(self.next.fetch_add(1, Ordering::Relaxed)).filter(|&index| index < self.count)
    }

    /// True where an image that waited for its permit is still to be started.
    pub(super) fn may_start(&self) -> bool {
        let stop = self.control.stop.load(Ordering::Relaxed);
        self.interrupted.fetch_or(stop, Ordering::Relaxed);
        !stop && !self.is_stopped()
    }

    /// True where an error ended the run: nothing more is read or run.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// True where results can no longer be kept. After other errors, finished predictions still
    /// are.
    pub(super) fn is_unwritable(&self) -> bool {
        self.unwritable.load(Ordering::Relaxed)
    }

    /// Does some work of a stage.
    pub(super) fn timed<R>(&self, stage: Stage, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = work();
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times[stage] += start.elapsed();
        result
    }

    /// Does a thread's work on one image. A panic ends the run, while the thread lives on: others
    /// may wait for it to receive.
    pub(super) fn catch_panic<R>(&self, work: impl FnOnce() -> Option<R>) -> Option<R> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            self.stopped.store(true, Ordering::Relaxed);
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
            None
        })
    }

    /// Returns the value, or None with its error reported and counted.
    pub(super) fn keep<R>(&self, index: usize, result: Result<R, E>) -> Option<R> {
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        (self.control.observe)(PipelineEvent::Failed(index, &error));
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).push((index, error));
        None
    }

    /// The same for a prediction; an error that the next image would meet too ends the run.
    pub(super) fn record_prediction<R>(
        &self,
        index: usize,
        result: Result<R, SegmentError>,
    ) -> Option<R> {
        match result {
            Err(error) if error.is_lasting() => {
                self.stop(error.into());
                None
            }
            result => self.keep(index, result.map_err(E::from)),
        }
    }

    /// Counts an image that was encoded.
    pub(super) fn finish(&self, index: usize, result: Result<(), E>) {
        match result {
            Ok(()) => {
                self.done.fetch_add(1, Ordering::Relaxed);
                (self.control.observe)(PipelineEvent::Done(index));
            }
            Err(error) => {
                self.unwritable.store(true, Ordering::Relaxed);
                self.stop(error);
            }
        }
    }

    fn stop(&self, error: E) {
        self.stopped.store(true, Ordering::Relaxed);
        // The first of several is reported.
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// Returns the report; where a thread panicked, panics the same way.
    pub(super) fn report(
        self,
        times: impl Iterator<Item = StageTimes>,
        threads: Threads,
        elapsed: Duration,
    ) -> PipelineReport<E> {
        if let Some(panic) = self.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
        let own = self.times.into_inner().unwrap_or_else(PoisonError::into_inner);
        let all = times.fold(own, |sum, times| sum + times);
        let mut failed = self.failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.sort_by_key(|(index, _)| *index);
        PipelineReport {
            done: self.done.into_inner(),
            failed,
            stopped: self.error.into_inner().unwrap_or_else(PoisonError::into_inner),
            interrupted: self.interrupted.into_inner(),
            stages: StageReport::new(&all, threads, elapsed),
            elapsed,
            times: all,
            threads,
        }
    }
}

/// Receives from a queue with several readers.
pub(super) fn take<T>(queue: &Mutex<Receiver<T>>) -> Option<T> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// Report of a run.
#[derive(Debug)]
pub struct PipelineReport<E> {
    /// Images that went through all stages.
    pub done: usize,
    /// Images that failed, by index, and their errors.
    pub failed: Vec<(usize, E)>,
    /// The error that ended the run early, if one did.
    pub stopped: Option<E>,
    /// True where the stop signal came before every image was started.
    pub interrupted: bool,
    /// Work by stage.
    pub stages: StageReport,
    /// Wall-clock time.
    pub elapsed: Duration,
    times: StageTimes,
    threads: Threads,
}

impl<E> PipelineReport<E> {
    /// Adds the work on images that were run in another way after the others.
    pub fn add_work(&mut self, times: StageTimes, elapsed: Duration) {
        self.times += times;
        self.elapsed += elapsed;
        self.stages = StageReport::new(&self.times, self.threads, self.elapsed);
    }
}

/// Work in one stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct StageWork {
    /// Seconds of all threads together.
    pub seconds: f64,
    /// Threads that do it, among other work.
    pub threads: usize,
    /// Share of these threads' time, from 0 to 1.
    pub busy: f64,
}

/// Work in each stage. Stages overlap, so that their seconds may exceed the wall-clock time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StageReport {
    /// Reading and decoding images, by the readers.
    pub decode: StageWork,
    /// The network with its transfers, by the threads of the sessions.
    pub run: StageWork,
    /// Merging windows, by the threads of the sessions.
    pub stitch: StageWork,
    /// Upsampling and choosing labels, by the writers.
    pub decide: StageWork,
    /// Encoding results, by the writers.
    pub encode: StageWork,
    /// The bottleneck, as a sentence.
    pub bottleneck: String,
}

/// Number of threads by their work.
#[derive(Debug, Clone, Copy)]
pub(super) struct Threads {
    pub(super) readers: usize,
    pub(super) workers: usize,
    pub(super) writers: usize,
}

/// Share of their time from which on threads count as a bottleneck.
const BUSY: f64 = 0.5;

impl StageReport {
    fn new(times: &StageTimes, threads: Threads, elapsed: Duration) -> Self {
        let stage = |time: Duration, threads: usize| {
            let seconds = time.as_secs_f64();
            let available = elapsed.as_secs_f64() * threads as f64;
            let busy = if available > 0.0 { (seconds / available).min(1.0) } else { 0.0 };
            StageWork { seconds, threads, busy }
        };
        let mut stages = Self {
            decode: stage(times[Stage::Decode], threads.readers),
            run: stage(times.run(), threads.workers),
            stitch: stage(times[Stage::Stitch], threads.workers),
            decide: stage(times[Stage::Upsample], threads.writers),
            encode: stage(times[Stage::Encode], threads.writers),
            bottleneck: String::new(),
        };
        stages.bottleneck = stages.find_bottleneck();
        stages
    }

    /// Names the busiest threads by the stage that takes most of their time, and a remedy.
    fn find_bottleneck(&self) -> String {
        let decode = (
            self.decode.busy,
            "reading images",
            "a faster disk, more cores or smaller files would help",
        );
        let run = (
            self.run.busy,
            "the network",
            "more cores, a faster device or fewer windows would help",
        );
        let stitch =
            (self.stitch.busy, "merging windows", "more cores or fewer windows would help");
        let upsample = (self.decide.busy, "upsampling", "more cores or smaller images would help");
        let encode = (
            self.encode.busy,
            "writing results",
            "a faster disk, more cores or fewer formats would help",
        );
        let groups = [vec![decode], vec![run, stitch], vec![upsample, encode]];
        let busy = |group: &[(f64, &str, &str)]| group.iter().map(|(busy, ..)| busy).sum::<f64>();
        let busiest = groups.iter().max_by(|one, other| busy(one).total_cmp(&busy(other)));
        let most = busiest
            .filter(|group| busy(group) >= BUSY)
            .and_then(|group| group.iter().max_by(|(one, ..), (other, ..)| one.total_cmp(other)));
        match most {
            Some((busy, stage, help)) => {
                format!("{stage} is busy {:.0} % of the time: {help}", 100.0 * busy)
            }
            None => "nothing is busy half of the time: too few images to keep all stages busy"
                .to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn pixels_in_flight_stay_within_the_budget_but_for_one_image() {
        let (budget, held) = (PixelBudget::new(100), AtomicU64::new(0));
        let peak = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (budget, held, peak) = (&budget, &held, &peak);
                scope.spawn(move || {
                    for round in 0..100_u64 {
                        let pixels = [7, 40, 0, 100, 250][((thread + round) % 5) as usize];
                        let _held = budget.acquire(pixels);
                        let now = held.fetch_add(pixels, Ordering::SeqCst) + pixels;
                        // The largest is admitted alone; an image of no pixels takes nothing.
                        assert!(now <= 100 || now == 250, "{now} pixels");
                        peak.fetch_max(now, Ordering::SeqCst);
                        std::thread::yield_now();
                        held.fetch_sub(pixels, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!((*budget.held.lock().unwrap(), peak.into_inner()), (0, 250));
    }

    #[test]
    fn small_images_wait_behind_a_large_one() {
        let budget = PixelBudget::new(100);
        let (first, second) = (budget.acquire(60), budget.acquire(30));
        let (entered, order) = channel();
        std::thread::scope(|scope| {
            for pixels in [100, 5] {
                let (budget, entered) = (&budget, entered.clone());
                scope.spawn(move || {
                    let _held = budget.acquire(pixels);
                    entered.send(pixels).unwrap();
                });
                // The large one waits before the small one comes.
                while budget.first.try_lock().is_ok() {
                    std::thread::yield_now();
                }
            }
            assert!(order.recv_timeout(Duration::from_millis(20)).is_err(), "nobody fits");
            drop((first, second));
            assert_eq!([order.recv().unwrap(), order.recv().unwrap()], [100, 5]);
        });
    }

    #[test]
    fn the_budget_depends_on_memory() {
        assert_eq!(
            (default_pixels(Some(32 << 30)), default_pixels(Some(0)), default_pixels(None)),
            (1 << 30, 0, MAX_PIXELS)
        );
    }

    fn times(stages: &[(Stage, u64)]) -> StageTimes {
        let mut times = StageTimes::default();
        stages.iter().for_each(|&(stage, ms)| times[stage] = Duration::from_millis(ms));
        times
    }

    #[test]
    fn the_busiest_threads_are_the_bottleneck() {
        use Stage::{Compute, Decode, Download, Encode, Stitch, Upload, Upsample};

        let threads = Threads { readers: 2, workers: 1, writers: 4 };
        let ten = Duration::from_secs(10);
        let network = [
            (Decode, 4_000),
            (Upload, 200),
            (Compute, 9_000),
            (Download, 500),
            (Stitch, 200),
            (Upsample, 3_000),
            (Encode, 6_000),
        ];
        let stages = StageReport::new(&times(&network), threads, ten);
        assert_eq!((stages.decode.busy, stages.run.busy, stages.encode.busy), (0.2, 0.97, 0.15));
        assert!(
            stages.bottleneck.starts_with("the network is busy 97 % of the time: more cores"),
            "{stages:?}"
        );
        // Together the writers' two stages outweigh the network; of the two, encoding is more.
        let writers = [(Decode, 4_000), (Compute, 6_000), (Upsample, 12_000), (Encode, 20_000)];
        let stages = StageReport::new(&times(&writers), threads, ten);
        assert!(stages.bottleneck.starts_with("writing results is busy 50 % "), "{stages:?}");
        let stages = StageReport::new(&times(&[(Compute, 3_000)]), threads, ten);
        assert!(stages.bottleneck.starts_with("nothing is busy"), "{stages:?}");
        assert_eq!(StageReport::new(&times(&network), threads, Duration::ZERO).run.busy, 0.0);
    }
}
