//! Batches made ahead of the trainer by threads of their own.
//!
//! What a batch holds depends on its step alone, never on which thread made it or how far ahead.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result};
use protoseg_images::labeled::LabeledDataset;
use protoseg_models::random::Stream;
use rayon::prelude::*;

use crate::config::Config;
use crate::config::options::PadLabel;
use crate::data::augment::{Crop, CroppedImage};
use crate::data::cache::ImageCache;
use crate::data::photometric::PhotometricView;
use crate::streams::{AUGMENT, ORDER, PHOTOMETRIC, PRECISE_BN, UNLABELED_AUGMENT, UNLABELED_ORDER};

/// Steps whose batches wait for the trainer.
const AHEAD: usize = 3;

/// Labelled crops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabeledBatch {
    /// RGB, `[batch, side, side, 3]`.
    pub pixels: Vec<u8>,
    /// Train ids, `[batch, side, side]`.
    pub labels: Vec<u8>,
    /// Positions in the list.
    pub indices: Vec<usize>,
}

/// Crops without labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnlabeledBatch {
    /// RGB as the teacher sees it, `[batch, side, side, 3]`.
    pub weak: Vec<u8>,
    /// RGB as the student sees it, where that is not the same.
    pub strong: Option<Vec<u8>>,
    /// 1 where a picture is, 0 in the padding, `[batch, side, side]`.
    pub valid: Vec<u8>,
    /// Train ids where the truth is known, 255 elsewhere: for the log alone.
    pub truth: Vec<u8>,
    /// Positions in the list.
    pub indices: Vec<usize>,
}

/// What goes through the networks at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicroBatch {
    /// Crops with labels.
    pub labeled: LabeledBatch,
    /// Crops without, after the warm-up of a semi-supervised run.
    pub unlabeled: Option<UnlabeledBatch>,
}

/// How batches are made.
#[derive(Debug, Clone, Copy)]
pub struct BatchBuilder {
    /// Every draw follows from it.
    pub seed: u64,
    /// Crops of each kind in a micro-batch.
    pub batch: usize,
    /// Micro-batches a step.
    pub accumulate: usize,
    /// Height and width of a crop.
    pub side: usize,
    /// Colour of padding: the network's mean.
    pub padding: [u8; 3],
    /// Label of padding.
    pub pad_label: PadLabel,
    /// Whether the student sees other colours than the teacher.
    pub photometric: bool,
    /// First step with unlabelled crops, if there is one.
    pub unlabeled_from: Option<u64>,
}

/// Where crops come from.
#[derive(Clone)]
pub struct ImageCaches {
    /// Pictures with labels.
    pub labeled: Arc<ImageCache>,
    /// Pictures without.
    pub unlabeled: Option<Arc<ImageCache>>,
}

impl ImageCaches {
    /// Shelves for two lists.
    pub fn new(labeled: Arc<LabeledDataset>, unlabeled: Option<Arc<LabeledDataset>>) -> Self {
        let shelf = |samples| Arc::new(ImageCache::new(samples));
        Self { labeled: shelf(labeled), unlabeled: unlabeled.map(shelf) }
    }
}

impl BatchBuilder {
    /// Batches of a run, with unlabeled crops from a step on.
    pub fn new(config: &Config, unlabeled_from: Option<u64>, padding: [u8; 3]) -> Self {
        Self {
            seed: config.seed,
            batch: config.batch,
            accumulate: config.accumulate,
            side: config.crop,
            padding,
            pad_label: config.pad_label,
            photometric: config.photometric,
            unlabeled_from,
        }
    }

    /// The list positions of a micro-batch's crops, micro-batches being counted through from the first of step 0: each
    /// pass over the list is in an order of its own, and passes follow each other without a gap.
    pub fn indices(&self, purpose: u64, micro_batch: u64, count: usize) -> Vec<usize> {
        let position = |offset: usize| {
            let draw = micro_batch * self.batch as u64 + offset as u64;
            let (pass, place) = (draw / count as u64, (draw % count as u64) as usize);
            Stream::keyed(&[self.seed, purpose, pass]).permutation(count)[place]
        };
        (0..self.batch).map(position).collect()
    }

    /// Makes the micro-batches of a step.
    pub fn make(&self, shelves: &ImageCaches, step: u64) -> Result<Vec<MicroBatch>> {
        let unlabeled = shelves
            .unlabeled
            .as_ref()
            .filter(|_| self.unlabeled_from.is_some_and(|from| step >= from));
        let first = step * self.accumulate as u64;
        let make = |micro_batch: u64| -> Result<MicroBatch> {
            Ok(MicroBatch {
                labeled: self.labeled(&shelves.labeled, ORDER, AUGMENT, micro_batch)?,
                unlabeled: unlabeled.map(|shelf| self.unlabeled(shelf, micro_batch)).transpose()?,
            })
        };
        (first..first + self.accumulate as u64).map(make).collect()
    }

    /// Makes labelled crops that no step learns from.
    pub fn statistics_batch(&self, shelf: &ImageCache, number: u64) -> Result<LabeledBatch> {
        self.labeled(shelf, PRECISE_BN, PRECISE_BN, number)
    }

    fn labeled(
        &self,
        shelf: &ImageCache,
        order: u64,
        augment: u64,
        micro_batch: u64,
    ) -> Result<LabeledBatch> {
        let indices = self.indices(order, micro_batch, shelf.count());
        let pieces = self.cut(shelf, augment, micro_batch, &indices)?;
        let mut labels = joined(&pieces, |piece| &piece.labels);
        if self.pad_label == PadLabel::Zero {
            let inside = pieces.iter().flat_map(|piece| &piece.inside);
            for (label, _) in labels.iter_mut().zip(inside).filter(|(_, inside)| **inside == 0) {
                *label = 0;
            }
        }
        Ok(LabeledBatch { labels, pixels: joined(&pieces, |piece| &piece.pixels), indices })
    }

    fn unlabeled(&self, shelf: &ImageCache, micro_batch: u64) -> Result<UnlabeledBatch> {
        let indices = self.indices(UNLABELED_ORDER, micro_batch, shelf.count());
        let pieces = self.cut(shelf, UNLABELED_AUGMENT, micro_batch, &indices)?;
        let weak = joined(&pieces, |piece| &piece.pixels);
        let recolored = |(pixels, offset): (&[u8], u64)| {
            let mut pixels = pixels.to_vec();
            let stream = Stream::keyed(&[self.seed, PHOTOMETRIC, micro_batch, offset]);
            PhotometricView::sample(stream).apply(&mut pixels, [self.side, self.side]);
            pixels
        };
        let strong = self.photometric.then(|| {
            let crops: Vec<(&[u8], u64)> =
                weak.chunks(self.side * self.side * 3).zip(0..).collect();
            crops.into_par_iter().map(recolored).collect::<Vec<_>>().concat()
        });
        // The reference keeps no account of the padding of unlabelled pictures.
        let valid = match self.pad_label {
            PadLabel::Ignore => joined(&pieces, |piece| &piece.inside),
            PadLabel::Zero => vec![1; self.batch * self.side * self.side],
        };
        Ok(UnlabeledBatch {
            strong,
            valid,
            truth: joined(&pieces, |piece| &piece.labels),
            weak,
            indices,
        })
    }

    fn cut(
        &self,
        shelf: &ImageCache,
        augment: u64,
        micro_batch: u64,
        indices: &[usize],
    ) -> Result<Vec<CroppedImage>> {
        let cut = |(offset, &index): (usize, &usize)| {
            let sample = shelf.read(index)?;
            let stream = Stream::keyed(&[self.seed, augment, micro_batch, offset as u64]);
            Ok(Crop::sample(stream, sample.size(), self.side).apply(&sample, self.padding))
        };
        indices.par_iter().enumerate().map(cut).collect()
    }
}

fn joined(pieces: &[CroppedImage], part: impl Fn(&CroppedImage) -> &[u8]) -> Vec<u8> {
    pieces.iter().map(part).collect::<Vec<_>>().concat()
}

/// Starts to make the batches of steps from `first` on, on `threads` threads; the receiver yields them in order.
pub fn start(
    shelves: ImageCaches,
    recipe: BatchBuilder,
    first: u64,
    threads: usize,
) -> Result<Receiver<Result<Vec<MicroBatch>>>> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("loader {index}"))
        .build()
        .context("cannot start the loader's threads")?;
    let (sender, receiver) = sync_channel(AHEAD);
    std::thread::Builder::new()
        .name("loader".to_owned())
        .spawn(move || {
            for step in first.. {
                let batches = pool.install(|| recipe.make(&shelves, step));
                let failed = batches.is_err();
                // The trainer has left, or will leave for the error.
                if sender.send(batches).is_err() || failed {
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
    use protoseg_models::classes::IGNORE_INDEX;

    const RECIPE: BatchBuilder = BatchBuilder {
        seed: 3,
        batch: 4,
        accumulate: 2,
        side: 32,
        padding: [9; 3],
        pad_label: PadLabel::Ignore,
        photometric: false,
        unlabeled_from: Some(1),
    };

    fn shelves() -> ImageCaches {
        let scenes = |first, count| {
            Arc::new(LabeledDataset::Synthetic { seed: 0, first, count, size: [24, 64] })
        };
        ImageCaches::new(scenes(0, 5), Some(scenes(5, 6)))
    }

    #[test]
    fn every_pass_shows_every_picture_once() {
        let shown: Vec<usize> =
            (0..5).flat_map(|micro_batch| RECIPE.indices(ORDER, micro_batch, 10)).collect();
        for pass in shown.chunks(10) {
            let mut pass = pass.to_vec();
            pass.sort_unstable();
            assert_eq!(pass, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(shown[..10], shown[10..]);
    }

    #[test]
    fn batches_do_not_depend_on_how_they_are_made() {
        let direct = RECIPE.make(&shelves(), 2).unwrap();
        assert_eq!(direct.len(), 2);
        let receiver = start(shelves(), RECIPE, 1, 2).unwrap();
        receiver.recv().unwrap().unwrap();
        assert_eq!(receiver.recv().unwrap().unwrap(), direct);
        let warmup = RECIPE.make(&shelves(), 0).unwrap();
        assert!(warmup.iter().all(|batch| batch.unlabeled.is_none()));
    }

    #[test]
    fn padding_is_marked_or_passed_off_as_the_first_class() {
        let ours = RECIPE.make(&shelves(), 1).unwrap();
        let zero = BatchBuilder { pad_label: PadLabel::Zero, ..RECIPE };
        let theirs = zero.make(&shelves(), 1).unwrap();
        let mut padding = 0;
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let (unlabeled, filled) =
                (ours.unlabeled.as_ref().unwrap(), theirs.unlabeled.as_ref().unwrap());
            padding += unlabeled.valid.iter().filter(|&&valid| valid == 0).count();
            assert!(filled.valid.iter().all(|&valid| valid == 1));
            for (ours, theirs) in ours.labeled.labels.iter().zip(&theirs.labeled.labels) {
                assert!(ours == theirs || (*ours, *theirs) == (IGNORE_INDEX, 0));
            }
        }
        assert!(padding > 0, "no crop was larger than its picture");
    }

    #[test]
    fn the_strong_view_has_other_colours_and_the_same_shape() {
        let strong = BatchBuilder { photometric: true, ..RECIPE };
        let (plain, colored) =
            (RECIPE.make(&shelves(), 1).unwrap(), strong.make(&shelves(), 1).unwrap());
        for (plain, colored) in plain.iter().zip(&colored) {
            let (plain, colored) =
                (plain.unlabeled.as_ref().unwrap(), colored.unlabeled.as_ref().unwrap());
            let strong = colored.strong.as_ref().unwrap();
            assert_eq!(
                (plain.weak.as_slice(), strong.len()),
                (colored.weak.as_slice(), colored.weak.len())
            );
            assert!(strong != &colored.weak && plain.strong.is_none());
        }
    }
}
