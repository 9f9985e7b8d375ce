//! What the thread of one segmenter does: it takes pieces from the queue, runs them, and puts scores into their pictures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use protoseg_models::weights::Tensor;

use super::job::Job;
use super::{PredictResponse, SchedulerError, Shared};
use protoseg_infer::pipeline::{install, thread_pool};
use protoseg_infer::segmenter::{ImageLogits, RawPrediction, SegmentError, Segmenter, TileMerger};
use protoseg_infer::stitch::LogitMap;
use protoseg_infer::upsample::Prediction;

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
            let ran = guarded(|| segmenter.predict(&job.request.image, job.request.outputs));
            let elapsed = start.elapsed();
            if ran.is_ok() {
                self.meter.add(job.pixels(), elapsed);
                self.metrics.record_batch(1);
            }
            job.progress().times.run += elapsed;
            let ran = ran.map(|decided| (decided, None));
            return self.finish(job, ran);
        }
        pixels.clear();
        let mut shape = [batch.len(), 0, 0];
        for (job, index) in batch {
            if let Some(cut) = &job.cut {
                [shape[1], shape[2]] = cut.tile_size();
                cut.append(&job.request.image, *index, pixels);
            }
        }
        let ran = guarded(|| segmenter.run_tiles(pixels, shape));
        let elapsed = start.elapsed();
        match ran {
            Ok(scores) => {
                self.metrics.record_batch(batch.len());
                for ((job, index), scores) in batch.iter().zip(scores) {
                    job.progress().times.run += elapsed / batch.len() as u32;
                    self.put(job, *index, scores);
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

    /// Puts scores into their picture, which may then be done.
    fn put(&self, job: &Job, index: usize, scores: Tensor) {
        let start = Instant::now();
        let mut progress = job.progress();
        let put = guarded(|| {
            let mosaic = match (progress.mosaic.take(), &job.cut) {
                (Some(mosaic), _) => mosaic,
                (None, Some(cut)) => TileMerger::new(cut, job.request.outputs, job.request.logits)?,
                (None, None) => return Ok(None),
            };
            progress.mosaic.insert(mosaic).put(index, scores)
        });
        let made = match put {
            Ok(None) => {
                progress.times.stitch += start.elapsed();
                return;
            }
            Ok(Some(RawPrediction::Final(decided))) => Ok((decided, None)),
            Ok(Some(RawPrediction::Logits(logits))) => {
                let decided = guarded(|| Ok(logits.predict(job.request.outputs)));
                let ImageLogits { map, .. } = logits;
                decided.map(|decided| (decided, Some(map)))
            }
            Err(error) => Err(error),
        };
        progress.times.stitch += start.elapsed();
        drop(progress);
        self.finish(job, made);
    }

    /// Answers, unless that has happened.
    fn finish(&self, job: &Job, made: Result<(Prediction, Option<LogitMap>), SchedulerError>) {
        if let Err(SchedulerError::Segment(error)) = &made
            && error.is_lasting()
        {
            self.lost.store(true, Ordering::Relaxed);
        }
        let times = job.progress().times;
        let reply = job.reply.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reply) = reply {
            // Nobody may be waiting any more.
            drop(reply.send(made.map(|(decided, scores)| PredictResponse {
                prediction: decided,
                logits: scores,
                times,
            })));
        }
    }
}
