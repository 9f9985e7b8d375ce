//! What the thread of one segmenter does: it takes pieces from the queue, runs them, and puts scores into their pictures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use ndarray::{Axis, CowArray, Ix3};

use super::job::Job;
use super::{PredictResponse, SchedulerError, Shared};
use protoseg_infer::pipeline::{install, thread_pool};
use protoseg_infer::segmenter::{SegmentError, Segmenter, TileMerger};
use protoseg_infer::{Prediction, Stage};

/// Serves pictures until the engine is closed and all is done.
pub(super) fn run(shared: &Shared, mut segmenter: Segmenter, threads: usize) {
    let team = thread_pool(threads);
    let mut pixels = Vec::new();
    while let Some(batch) = shared.next() {
        install(team.as_ref(), || shared.run(&mut segmenter, &batch, &mut pixels));
    }
}

/// The result, where a defect of the program is an error too: the other pictures go on.
fn guarded<R>(work: impl FnOnce() -> Result<R, SegmentError>) -> Result<R, SchedulerError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(SchedulerError::from),
        Err(_) => Err(SchedulerError::Panicked),
    }
}

impl Shared {
    /// Runs pieces, and hands their scores on.
    fn run(&self, segmenter: &mut Segmenter, batch: &[(Arc<Job>, usize)], pixels: &mut Vec<u8>) {
        let start = Instant::now();
        batch.iter().for_each(|(job, _)| job.begin(start));
        if let [(job, _)] = batch
            && job.cut.is_none()
        {
            let ran = guarded(|| segmenter.predict(&*job.request.image, job.request.outputs));
            let elapsed = start.elapsed();
            if ran.is_ok() {
                self.meter.add(job.pixels(), elapsed);
                self.metrics.record_batch(1);
            }
            job.progress().times[Stage::Compute] += elapsed;
            return self.finish(job, ran);
        }
        pixels.clear();
        let mut shape = [batch.len(), 0, 0];
        for (job, index) in batch {
            if let Some(cut) = &job.cut {
                [shape[1], shape[2]] = cut.tile_size();
                cut.append(&*job.request.image, *index, pixels);
            }
        }
        let ran = guarded(|| segmenter.run_tiles(pixels, shape));
        let elapsed = start.elapsed();
        match ran {
            Ok(logits) => {
                self.metrics.record_batch(batch.len());
                for (job, _) in batch {
                    job.progress().times[Stage::Compute] += elapsed / batch.len() as u32;
                }
                if let [(job, index)] = batch {
                    self.put(job, *index, logits.index_axis_move(Axis(0), 0).into());
                } else {
                    for ((job, index), logits) in batch.iter().zip(logits.outer_iter()) {
                        self.put(job, *index, logits.into());
                    }
                }
                self.meter.add((shape[0] * shape[1] * shape[2]) as u64, start.elapsed());
            }
            // Whose fault it is shows when each runs by itself.
            Err(SchedulerError::Segment(error)) if batch.len() > 1 && !error.is_lasting() => {
                batch.chunks(1).for_each(|one| self.run(segmenter, one, pixels));
            }
            Err(error) => batch.iter().for_each(|(job, _)| self.finish(job, Err(error.clone()))),
        }
    }

    /// Puts logits into their image, which may then be done.
    fn put(&self, job: &Job, index: usize, logits: CowArray<'_, f32, Ix3>) {
        let start = Instant::now();
        let mut progress = job.progress();
        let put = guarded(|| {
            let mosaic = match (progress.mosaic.take(), &job.cut) {
                (Some(mosaic), _) => mosaic,
                (None, Some(cut)) => TileMerger::new(cut, job.request.outputs)?,
                (None, None) => return Ok(None),
            };
            progress.mosaic.insert(mosaic).put(index, logits)
        });
        progress.times[Stage::Stitch] += start.elapsed();
        drop(progress);
        if let Some(made) = put.transpose() {
            self.finish(job, made);
        }
    }

    /// Answers, unless that has happened.
    fn finish(&self, job: &Job, made: Result<Prediction, SchedulerError>) {
        if let Err(SchedulerError::Segment(error)) = &made
            && error.is_lasting()
        {
            self.lost.store(true, Ordering::Relaxed);
        }
        let times = job.progress().times;
        let reply = job.reply.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reply) = reply {
            // Nobody may be waiting any more.
            drop(reply.send(made.map(|prediction| PredictResponse { prediction, times })));
        }
    }
}
