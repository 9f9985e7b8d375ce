//! Batches made ahead of the trainer by threads of their own.
//!
//! What a batch holds depends on its step alone, never on which thread made it or how far ahead.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use protoseg_models::random::Stream;
use protoseg_pictures::labelled::{Labelled, LabelledSet};
use protoseg_pictures::picture::MAX_PIXELS;
use rayon::prelude::*;

use crate::augment::Crop;

/// Purposes of random draws, so that no two share a stream.
const ORDER: u64 = 1;
const AUGMENT: u64 = 2;

/// Bytes of decoded pictures and labels that are kept for the next pass; what does not fit is read again.
const KEPT_BYTES: usize = 1 << 29;

/// Batches that wait for the trainer.
const AHEAD: usize = 3;

/// Crops of one optimiser step.
pub struct Batch {
    /// RGB, `[batch, side, side, 3]`.
    pub pixels: Vec<u8>,
    /// Train ids, `[batch, side, side]`.
    pub labels: Vec<u8>,
    /// Positions in the list.
    pub indices: Vec<usize>,
}

/// Labelled pictures, some of which are kept once they have been read.
pub struct Shelf {
    samples: Arc<LabelledSet>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    samples: HashMap<usize, Arc<Labelled>>,
    bytes: usize,
}

impl Shelf {
    /// An empty shelf for a list.
    pub fn new(samples: Arc<LabelledSet>) -> Self {
        Self { samples, kept: Mutex::default() }
    }

    fn read(&self, index: usize) -> Result<Arc<Labelled>> {
        if let Some(sample) = self.kept().samples.get(&index) {
            return Ok(Arc::clone(sample));
        }
        let sample = Arc::new(self.samples.read(index, MAX_PIXELS)?);
        let bytes = sample.image.as_raw().len() + sample.truth.len();
        let mut kept = self.kept();
        if kept.bytes + bytes <= KEPT_BYTES && kept.samples.insert(index, Arc::clone(&sample)).is_none() {
            kept.bytes += bytes;
        }
        Ok(sample)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A thread that failed left nothing half done: entries are whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How batches are made.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// Every draw follows from it.
    pub seed: u64,
    /// Crops a batch.
    pub batch: usize,
    /// Height and width of a crop.
    pub side: usize,
    /// Colour of padding: the network's mean.
    pub padding: [u8; 3],
}

impl Recipe {
    /// The list positions of a step's crops: each pass over the list is in an order of its own, and passes follow each
    /// other without a gap.
    pub fn indices(&self, step: u64, count: usize) -> Vec<usize> {
        let position = |offset: usize| {
            let draw = step * self.batch as u64 + offset as u64;
            let (pass, place) = (draw / count as u64, (draw % count as u64) as usize);
            Stream::keyed(&[self.seed, ORDER, pass]).permutation(count)[place]
        };
        (0..self.batch).map(position).collect()
    }

    /// Makes the batch of a step.
    pub fn make(&self, shelf: &Shelf, step: u64) -> Result<Batch> {
        let indices = self.indices(step, shelf.samples.count());
        let crops: Result<Vec<_>> = (0_u64..)
            .zip(indices.clone())
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(|(offset, index)| {
                let sample = shelf.read(index)?;
                let stream = Stream::keyed(&[self.seed, AUGMENT, step, offset]);
                let crop = Crop::draw(stream, sample.size(), self.side);
                Ok(crop.cut(&sample, self.padding))
            })
            .collect();
        let (pixels, labels): (Vec<_>, Vec<_>) = crops?.into_iter().unzip();
        Ok(Batch { pixels: pixels.concat(), labels: labels.concat(), indices })
    }
}

/// Starts to make batches from step `first` on, on `threads` threads; the receiver yields them in order.
pub fn start(samples: Arc<LabelledSet>, recipe: Recipe, first: u64, threads: usize) -> Result<Receiver<Result<Batch>>> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("loader {index}"))
        .build()
        .context("cannot start the loader's threads")?;
    let shelf = Shelf::new(samples);
    let (sender, receiver) = sync_channel(AHEAD);
    std::thread::Builder::new()
        .name("loader".to_owned())
        .spawn(move || {
            for step in first.. {
                let batch = pool.install(|| recipe.make(&shelf, step));
                let failed = batch.is_err();
                // The trainer has left, or will leave for the error.
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        })
        .context("cannot start the loader")?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: Recipe = Recipe { seed: 3, batch: 4, side: 32, padding: [9; 3] };

    #[test]
    fn every_pass_shows_every_picture_once() {
        let shown: Vec<usize> = (0..5).flat_map(|step| RECIPE.indices(step, 10)).collect();
        for pass in shown.chunks(10) {
            let mut pass = pass.to_vec();
            pass.sort_unstable();
            assert_eq!(pass, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(shown[..10], shown[10..]);
    }

    #[test]
    fn batches_do_not_depend_on_how_they_are_made() {
        let samples = || Arc::new(LabelledSet::Scenes { seed: 0, first: 0, count: 5, size: [48, 64] });
        let direct = RECIPE.make(&Shelf::new(samples()), 2).unwrap();
        let receiver = start(samples(), RECIPE, 1, 2).unwrap();
        receiver.recv().unwrap().unwrap();
        let loaded = receiver.recv().unwrap().unwrap();
        assert_eq!((loaded.pixels, loaded.labels, loaded.indices), (direct.pixels, direct.labels, direct.indices));
    }
}
