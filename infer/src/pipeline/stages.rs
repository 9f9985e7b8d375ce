//! What the threads of a run share: which item is next, what failed, how much time each stage took.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::report::{Seconds, StageReport, Threads};
use super::{PipelineEvent, PipelineReport, RunControl};
use crate::segmenter::SegmentError;
use crate::stage::{Stage, StageTimes};

pub(super) struct RunState<'a, E> {
    control: &'a RunControl<'a, E>,
    count: usize,
    next: AtomicUsize,
    interrupted: AtomicBool,
    done: AtomicUsize,
    seconds: Mutex<Seconds>,
    failed: Mutex<Vec<(usize, E)>>,
    error: Mutex<Option<E>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stopped: AtomicBool,
    /// Whether that error came of `encode`, so that no more results can be kept.
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
            seconds: Mutex::default(),
            failed: Mutex::default(),
            error: Mutex::new(None),
            panic: Mutex::new(None),
            stopped: AtomicBool::new(false),
            unwritable: AtomicBool::new(false),
        }
    }

    /// The item to begin next; none where there is no more, or none shall be begun.
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

    /// Whether an item that waited for room shall still be begun.
    pub(super) fn may_start(&self) -> bool {
        let stop = self.control.stop.load(Ordering::Relaxed);
        self.interrupted.fetch_or(stop, Ordering::Relaxed);
        !stop && !self.is_stopped()
    }

    /// Whether an error ended the run: nothing more is read or run.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Whether results can no longer be kept. After other errors, what models have made already is.
    pub(super) fn is_unwritable(&self) -> bool {
        self.unwritable.load(Ordering::Relaxed)
    }

    /// Does some work of a stage.
    pub(super) fn timed<R>(
        &self,
        stage: impl Fn(&mut Seconds) -> &mut f64,
        work: impl FnOnce() -> R,
    ) -> R {
        let start = Instant::now();
        let result = work();
        *stage(&mut self.seconds.lock().unwrap_or_else(PoisonError::into_inner)) +=
            start.elapsed().as_secs_f64();
        result
    }

    /// Does what a thread does with one item. A panic ends the run, while the thread lives on: others may wait for it to take
    /// what they hand over.
    pub(super) fn catch_panic<R>(&self, work: impl FnOnce() -> Option<R>) -> Option<R> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            self.stopped.store(true, Ordering::Relaxed);
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
            None
        })
    }

    /// The value, or none with its error reported and counted.
    pub(super) fn keep<R>(&self, index: usize, result: Result<R, E>) -> Option<R> {
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        (self.control.observe)(PipelineEvent::Failed(index, &error));
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).push((index, error));
        None
    }

    /// The same of what a model made; an error that the next item would meet too ends the run.
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

    /// An item at its end.
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
        // Of several, the first is the one to report.
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// What came of it all; where a thread panicked, the same panic.
    pub(super) fn report(
        self,
        times: impl Iterator<Item = StageTimes>,
        threads: Threads,
        elapsed: Duration,
    ) -> PipelineReport<E> {
        if let Some(panic) = self.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
        let mut seconds = self.seconds.into_inner().unwrap_or_else(PoisonError::into_inner);
        for times in times {
            seconds.run += times.run().as_secs_f64();
            seconds.stitch += times[Stage::Stitch].as_secs_f64();
        }
        let mut failed = self.failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.sort_by_key(|(index, _)| *index);
        PipelineReport {
            done: self.done.into_inner(),
            failed,
            stopped: self.error.into_inner().unwrap_or_else(PoisonError::into_inner),
            interrupted: self.interrupted.into_inner(),
            stages: StageReport::new(seconds, threads, elapsed),
            elapsed,
        }
    }
}

/// The next of a queue with several readers.
pub(super) fn take<T>(queue: &Mutex<Receiver<T>>) -> Option<T> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}
