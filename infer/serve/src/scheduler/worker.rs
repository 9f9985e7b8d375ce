//! Worker thread of one segmenter: runs batches of tiles, and merges their logits into the images.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ndarray::{Axis, CowArray, Ix3};
use protoseg_infer::pipeline::{install, thread_pool};
use protoseg_infer::segmenter::{SegmentError, Segmenter, TileMerger};
use protoseg_infer::{Prediction, Stage};

use super::{Job, SchedulerError, Shared};

type Outcome<T> = Result<T, SchedulerError>;

/// Runs batches until the scheduler is closed and its queue is empty.
pub(super) fn run(shared: &Shared, mut segmenter: Segmenter, threads: usize) {
    let pool = thread_pool(threads);
    let mut pixels = Vec::new();
    while let Some(batch) = shared.next_batch() {
        install(pool.as_ref(), || shared.run_batch(&mut segmenter, &batch, &mut pixels));
    }
}

/// Turns a panic into an error, so that other images go on.
fn catch_panic<R>(work: impl FnOnce() -> Result<R, SegmentError>) -> Outcome<R> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(SchedulerError::from),
        Err(_) => Err(SchedulerError::Panicked),
    }
}

impl Shared {
    fn run_batch(
        &self,
        segmenter: &mut Segmenter,
        batch: &[(Arc<Job>, usize)],
        pixels: &mut Vec<u8>,
    ) {
        let start = Instant::now();
        batch.iter().for_each(|(job, _)| job.begin(start));
        if let [(job, _)] = batch
            && job.tiles.is_none()
        {
            return self.run_whole(segmenter, job, start);
        }
        pixels.clear();
        let mut shape = [batch.len(), 0, 0];
        for (job, index) in batch {
            if let Some(tiles) = &job.tiles {
                [shape[1], shape[2]] = tiles.tile_size();
                tiles.append(&*job.request.image, *index, pixels);
            }
        }
        let result = catch_panic(|| segmenter.run_tiles(pixels, shape));
        let elapsed = start.elapsed();
        match result {
            Ok(logits) => {
                self.metrics.record_batch(batch.len());
                for (job, _) in batch {
                    job.progress().times[Stage::Compute] += elapsed / batch.len() as u32;
                }
                if let [(job, index)] = batch {
                    self.merge(job, *index, logits.index_axis_move(Axis(0), 0).into());
                } else {
                    for ((job, index), logits) in batch.iter().zip(logits.outer_iter()) {
                        self.merge(job, *index, logits.into());
                    }
                }
                self.meter.record((shape[0] * shape[1] * shape[2]) as u64, start.elapsed());
            }
            // Only the image at fault fails when each tile runs by itself.
            Err(SchedulerError::Segment(error)) if batch.len() > 1 && !error.is_lasting() => {
                batch.chunks(1).for_each(|tile| self.run_batch(segmenter, tile, pixels));
            }
            Err(error) => batch.iter().for_each(|(job, _)| self.finish(job, Err(error.clone()))),
        }
    }

    fn run_whole(&self, segmenter: &mut Segmenter, job: &Job, start: Instant) {
        let request = &job.request;
        let result = catch_panic(|| segmenter.predict(&*request.image, request.outputs));
        let elapsed = start.elapsed();
        if result.is_ok() {
            self.meter.record(job.pixels(), elapsed);
            self.metrics.record_batch(1);
        }
        job.progress().times[Stage::Compute] += elapsed;
        self.finish(job, result);
    }

    /// Merges the logits of a tile into its image, and finishes the job after the last.
    fn merge(&self, job: &Job, index: usize, logits: CowArray<'_, f32, Ix3>) {
        let start = Instant::now();
        let mut progress = job.progress();
        let merged = catch_panic(|| {
            let merger = match (progress.merger.take(), &job.tiles) {
                (Some(merger), _) => merger,
                (None, Some(tiles)) => TileMerger::new(tiles, job.request.outputs)?,
                (None, None) => return Ok(None),
            };
            progress.merger.insert(merger).put(index, logits)
        });
        progress.times[Stage::Stitch] += start.elapsed();
        drop(progress);
        if let Some(result) = merged.transpose() {
            self.finish(job, result);
        }
    }

    fn finish(&self, job: &Job, result: Outcome<Prediction>) {
        if let Err(SchedulerError::Segment(error)) = &result
            && error.is_lasting()
        {
            self.device_lost.store(true, Ordering::Relaxed);
        }
        job.finish(result);
    }
}

/// Weight of the newest batch: about the last twenty decide.
const NEWEST_WEIGHT: f64 = 0.05;

/// Throughput of a model's segmenters while they have work.
#[derive(Debug)]
pub(super) struct ThroughputMeter {
    segmenters: usize,
    /// Exponential means of the pixels and seconds of a batch.
    mean: Mutex<Option<(f64, f64)>>,
}

impl ThroughputMeter {
    pub(super) fn new(segmenters: usize) -> Self {
        Self { segmenters, mean: Mutex::new(None) }
    }

    pub(super) fn record(&self, pixels: u64, elapsed: Duration) {
        let mut mean = self.mean.lock().unwrap_or_else(PoisonError::into_inner);
        let new = (pixels as f64, elapsed.as_secs_f64());
        let blend = |old: f64, new: f64| old + NEWEST_WEIGHT * (new - old);
        *mean = Some(mean.map_or(new, |old| (blend(old.0, new.0), blend(old.1, new.1))));
    }

    /// Returns the throughput of all segmenters together; none before the first batch.
    pub(super) fn pixels_per_second(&self) -> Option<f64> {
        let (pixels, seconds) = (*self.mean.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(pixels / seconds.max(1e-9) * self.segmenters as f64).filter(|rate| *rate > 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_follows_the_last_batches() {
        let meter = ThroughputMeter::new(2);
        assert_eq!(meter.pixels_per_second(), None);
        meter.record(1000, Duration::from_secs(1));
        assert_eq!(meter.pixels_per_second(), Some(2000.0));
        for _ in 0..200 {
            meter.record(1000, Duration::from_secs(4));
        }
        let rate = meter.pixels_per_second().unwrap();
        assert!((rate - 500.0).abs() < 1.0, "{rate}");
    }
}
