//! Batches, prefetched by threads of their own.
//!
//! The contents of a batch depend on its step alone, never on the thread that made it or on the prefetch order.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result};
use protoseg_images::labeled::LabeledDataset;
use protoseg_models::random::Stream;
use rayon::prelude::*;

use crate::config::Config;
use crate::config::options::PadLabel;
use crate::data::augment::{Crop, CroppedImage, Geometry};
use crate::data::cache::ImageCache;
use crate::data::photometric::{ColorRanges, PhotometricView};
use crate::streams::{
    AUGMENT, LABELED_PHOTOMETRIC, ORDER, PHOTOMETRIC, PRECISE_BN, UNLABELED_AUGMENT,
    UNLABELED_ORDER,
};

/// Steps prefetched at most.
const AHEAD: usize = 3;

/// Crops of labeled images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabeledBatch {
    /// RGB `[batch, side, side, 3]`.
    pub pixels: Vec<u8>,
    /// Train ids `[batch, side, side]`.
    pub labels: Vec<u8>,
    /// Indices in the list.
    pub indices: Vec<usize>,
}

/// Crops of unlabeled images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnlabeledBatch {
    /// Weak view of the teacher, RGB `[batch, side, side, 3]`.
    pub weak: Vec<u8>,
    /// Strong view of the student, if it differs from the weak one.
    pub strong: Option<Vec<u8>>,
    /// 0 in the padding, else 1, `[batch, side, side]`.
    pub valid: Vec<u8>,
    /// Train ids where the truth is known, 255 elsewhere; used by the log only.
    pub truth: Vec<u8>,
    /// Indices in the list.
    pub indices: Vec<usize>,
}

/// Crops of one forward pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicroBatch {
    pub labeled: LabeledBatch,
    /// None in the warm-up and in supervised runs.
    pub unlabeled: Option<UnlabeledBatch>,
}

/// Maker of batches.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    pub seed: u64,
    /// Labeled crops of a micro-batch, and as many unlabeled ones.
    pub batch: usize,
    /// Micro-batches per step.
    pub accumulate: usize,
    pub side: usize,
    /// Color of padding.
    pub padding: [u8; 3],
    pub pad_label: PadLabel,
    pub geometry: Geometry,
    /// Makes a strong view with other colors for the student.
    pub photometric: bool,
    /// Changes the colors of labeled crops too.
    pub labeled_photometric: bool,
    pub colors: ColorRanges,
    /// First step with unlabeled crops.
    pub unlabeled_from: Option<u64>,
}

/// Image caches of a run.
#[derive(Clone)]
pub struct ImageCaches {
    pub labeled: Arc<ImageCache>,
    pub unlabeled: Option<Arc<ImageCache>>,
}

impl ImageCaches {
    pub fn new(labeled: Arc<LabeledDataset>, unlabeled: Option<Arc<LabeledDataset>>) -> Self {
        let cache = |samples| Arc::new(ImageCache::new(samples));
        Self { labeled: cache(labeled), unlabeled: unlabeled.map(cache) }
    }
}

impl BatchBuilder {
    /// Batches of a run, with unlabeled crops from a step on.
    pub fn new(
        config: &Config,
        geometry: Geometry,
        unlabeled_from: Option<u64>,
        padding: [u8; 3],
    ) -> Self {
        Self {
            seed: config.seed,
            batch: config.batch,
            accumulate: config.accumulate,
            side: config.crop,
            padding,
            pad_label: config.pad_label,
            geometry,
            photometric: config.photometric,
            labeled_photometric: config.labeled_photometric,
            colors: ColorRanges::from_config(config),
            unlabeled_from,
        }
    }

    /// Returns the list indices of the crops of a micro-batch, counted from the first of step 0. Each pass over the list has
    /// its own permutation, and passes follow each other without a gap.
    pub fn indices(&self, purpose: u64, micro_batch: u64, count: usize) -> Vec<usize> {
        let position = |offset: usize| {
            let draw = micro_batch * self.batch as u64 + offset as u64;
            let order = Stream::keyed(&[self.seed, purpose, draw / count as u64]);
            order.permutation(count)[(draw % count as u64) as usize]
        };
        (0..self.batch).map(position).collect()
    }

    /// Makes the micro-batches of a step.
    pub fn make(&self, caches: &ImageCaches, step: u64) -> Result<Vec<MicroBatch>> {
        let unlabeled = caches
            .unlabeled
            .as_ref()
            .filter(|_| self.unlabeled_from.is_some_and(|from| step >= from));
        let first = step * self.accumulate as u64;
        let make = |micro_batch: u64| -> Result<MicroBatch> {
            Ok(MicroBatch {
                labeled: self.colored(
                    self.labeled(&caches.labeled, ORDER, AUGMENT, micro_batch)?,
                    micro_batch,
                ),
                unlabeled: unlabeled.map(|cache| self.unlabeled(cache, micro_batch)).transpose()?,
            })
        };
        (first..first + self.accumulate as u64).map(make).collect()
    }

    /// Makes labeled crops for precise BatchNorm.
    pub fn statistics_batch(&self, cache: &ImageCache, number: u64) -> Result<LabeledBatch> {
        self.labeled(cache, PRECISE_BN, PRECISE_BN, number)
    }

    fn labeled(
        &self,
        cache: &ImageCache,
        order: u64,
        augment: u64,
        micro_batch: u64,
    ) -> Result<LabeledBatch> {
        let indices = self.indices(order, micro_batch, cache.count());
        let crops = self.cut(cache, augment, micro_batch, &indices)?;
        let mut labels = joined(&crops, |crop| &crop.labels);
        if self.pad_label == PadLabel::Zero {
            let inside = crops.iter().flat_map(|crop| &crop.inside);
            for (label, _) in labels.iter_mut().zip(inside).filter(|(_, inside)| **inside == 0) {
                *label = 0;
            }
        }
        Ok(LabeledBatch { labels, pixels: joined(&crops, |crop| &crop.pixels), indices })
    }

    /// Changes the colors of labeled crops, if so configured.
    fn colored(&self, batch: LabeledBatch, micro_batch: u64) -> LabeledBatch {
        if !self.labeled_photometric {
            return batch;
        }
        let pixels = self.recolored(&batch.pixels, LABELED_PHOTOMETRIC, micro_batch);
        LabeledBatch { pixels, ..batch }
    }

    /// Returns crops in other colors.
    fn recolored(&self, crops: &[u8], purpose: u64, micro_batch: u64) -> Vec<u8> {
        let crops: Vec<(&[u8], u64)> = crops.chunks(self.side * self.side * 3).zip(0..).collect();
        let recolored = |(pixels, offset): (&[u8], u64)| {
            let mut pixels = pixels.to_vec();
            let stream = Stream::keyed(&[self.seed, purpose, micro_batch, offset]);
            PhotometricView::sample(stream, self.colors).apply(&mut pixels, [self.side, self.side]);
            pixels
        };
        crops.into_par_iter().map(recolored).collect::<Vec<_>>().concat()
    }

    fn unlabeled(&self, cache: &ImageCache, micro_batch: u64) -> Result<UnlabeledBatch> {
        let indices = self.indices(UNLABELED_ORDER, micro_batch, cache.count());
        let crops = self.cut(cache, UNLABELED_AUGMENT, micro_batch, &indices)?;
        let weak = joined(&crops, |crop| &crop.pixels);
        let strong = self.photometric.then(|| self.recolored(&weak, PHOTOMETRIC, micro_batch));
        // U2PL trains on the padding of unlabeled images.
        let valid = match self.pad_label {
            PadLabel::Ignore => joined(&crops, |crop| &crop.inside),
            PadLabel::Zero => vec![1; self.batch * self.side * self.side],
        };
        Ok(UnlabeledBatch {
            strong,
            valid,
            truth: joined(&crops, |crop| &crop.labels),
            weak,
            indices,
        })
    }

    fn cut(
        &self,
        cache: &ImageCache,
        augment: u64,
        micro_batch: u64,
        indices: &[usize],
    ) -> Result<Vec<CroppedImage>> {
        let cut = |(offset, &index): (usize, &usize)| {
            let sample = cache.read(index)?;
            let stream = Stream::keyed(&[self.seed, augment, micro_batch, offset as u64]);
            let crop = Crop::sample(stream, sample.size(), self.side, &self.geometry);
            Ok(crop.apply(&sample, self.padding, &self.geometry.flipped_labels))
        };
        indices.par_iter().enumerate().map(cut).collect()
    }
}

fn joined(crops: &[CroppedImage], part: impl Fn(&CroppedImage) -> &[u8]) -> Vec<u8> {
    crops.iter().map(part).collect::<Vec<_>>().concat()
}

/// Starts prefetching the batches of the steps from `first` on; the receiver yields them in order.
pub fn start(
    caches: ImageCaches,
    builder: BatchBuilder,
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
                let batches = pool.install(|| builder.make(&caches, step));
                let failed = batches.is_err();
                // The run has ended, or will end with the error.
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

    fn builder() -> BatchBuilder {
        BatchBuilder {
            seed: 3,
            batch: 4,
            accumulate: 2,
            side: 32,
            padding: [9; 3],
            pad_label: PadLabel::Ignore,
            geometry: Geometry::default(),
            photometric: false,
            labeled_photometric: false,
            colors: ColorRanges::default(),
            unlabeled_from: Some(1),
        }
    }

    fn caches() -> ImageCaches {
        let scenes = |first, count| {
            Arc::new(LabeledDataset::Synthetic { seed: 0, first, count, size: [24, 64] })
        };
        ImageCaches::new(scenes(0, 5), Some(scenes(5, 6)))
    }

    #[test]
    fn every_pass_contains_every_image_once() {
        let shown: Vec<usize> =
            (0..5).flat_map(|micro_batch| builder().indices(ORDER, micro_batch, 10)).collect();
        for pass in shown.chunks(10) {
            let mut pass = pass.to_vec();
            pass.sort_unstable();
            assert_eq!(pass, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(shown[..10], shown[10..]);
    }

    #[test]
    fn prefetched_batches_equal_direct_ones() {
        let direct = builder().make(&caches(), 2).unwrap();
        assert_eq!(direct.len(), 2);
        let receiver = start(caches(), builder(), 1, 2).unwrap();
        receiver.recv().unwrap().unwrap();
        assert_eq!(receiver.recv().unwrap().unwrap(), direct);
        let warmup = builder().make(&caches(), 0).unwrap();
        assert!(warmup.iter().all(|batch| batch.unlabeled.is_none()));
    }

    #[test]
    fn padding_is_ignored_or_labeled_as_the_first_class() {
        let ours = builder().make(&caches(), 1).unwrap();
        let zero = BatchBuilder { pad_label: PadLabel::Zero, ..builder() };
        let theirs = zero.make(&caches(), 1).unwrap();
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
        assert!(padding > 0, "no crop has padding");
    }

    #[test]
    fn the_strong_view_has_other_colors_and_the_same_shape() {
        let strong = BatchBuilder { photometric: true, ..builder() };
        let (plain, colored) =
            (builder().make(&caches(), 1).unwrap(), strong.make(&caches(), 1).unwrap());
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

    #[test]
    fn colors_of_labeled_crops_change_where_that_is_asked_for() {
        let colored = BatchBuilder { labeled_photometric: true, ..builder() };
        let (plain, colored) =
            (builder().make(&caches(), 0).unwrap(), colored.make(&caches(), 0).unwrap());
        for (plain, colored) in plain.iter().zip(&colored) {
            assert_eq!(plain.labeled.labels, colored.labeled.labels);
            assert_ne!(plain.labeled.pixels, colored.labeled.pixels);
        }
    }

    #[test]
    fn labels_and_truth_of_mirrored_crops_are_swapped_alike() {
        // Cityscapes' road and sidewalk, for the sake of the scenes.
        let mut labels: [u8; 256] = std::array::from_fn(|label| label as u8);
        labels.swap(0, 1);
        let geometry =
            Geometry { flipped_labels: std::sync::Arc::new(labels), ..Geometry::default() };
        let swapped = BatchBuilder { geometry, ..builder() };
        let (plain, swapped) =
            (builder().make(&caches(), 1).unwrap(), swapped.make(&caches(), 1).unwrap());
        let mut changed = [0, 0];
        for (plain, swapped) in plain.iter().zip(&swapped) {
            let (unlabeled, other) =
                (plain.unlabeled.as_ref().unwrap(), swapped.unlabeled.as_ref().unwrap());
            assert_eq!(
                (&plain.labeled.pixels, &unlabeled.weak),
                (&swapped.labeled.pixels, &other.weak)
            );
            for (list, (left, right)) in
                [(&plain.labeled.labels, &swapped.labeled.labels), (&unlabeled.truth, &other.truth)]
                    .into_iter()
                    .enumerate()
            {
                for (&left, &right) in left.iter().zip(right) {
                    assert!(left == right || labels[usize::from(left)] == right);
                    changed[list] += usize::from(left != right);
                }
            }
        }
        assert!(changed.iter().all(|&changed| changed > 0), "{changed:?}");
    }
}
