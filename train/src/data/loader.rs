//! Batches, prefetched by threads of their own.
//!
//! The contents of a batch depend on its step alone, never on the thread that made it or on the prefetch order.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result};
use image::RgbImage;
use protoseg_images::labeled::LabeledDataset;
use protoseg_models::random::Stream;
use rayon::prelude::*;

use crate::config::Config;
use crate::config::options::PadLabel;
use crate::data::augment::{Crop, CroppedImage, Geometry};
use crate::data::cache::ImageCache;
use crate::data::photometric::{ColorRanges, PhotometricView};
use crate::data::teacher_labels::{LabeledByTeacher, TeacherLabels};
use crate::streams::{
    AUGMENT, CROP_OF_IMAGE, LABELED_PHOTOMETRIC, ORDER, PHOTOMETRIC, PRECISE_BN, UNLABELED_AUGMENT,
    UNLABELED_ORDER,
};

/// Steps prefetched at most.
const AHEAD: usize = 3;

/// Crops of labeled images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabeledBatch {
    /// RGB `[batch, height, width, 3]`.
    pub pixels: Vec<u8>,
    /// Train ids `[batch, height, width]`.
    pub labels: Vec<u8>,
    /// Indices in the list.
    pub indices: Vec<usize>,
}

/// Crops of unlabeled images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnlabeledBatch {
    /// Weak view of the teacher, RGB `[batch, height, width, 3]`.
    pub weak: Vec<u8>,
    /// Strong view of the student, if it differs from the weak one.
    pub strong: Option<Vec<u8>>,
    /// 0 in the padding, else 1, `[batch, height, width]`.
    pub valid: Vec<u8>,
    /// Train ids where the truth is known, 255 elsewhere; used by the log only.
    pub truth: Vec<u8>,
    /// Labels of a finished teacher, `[batch, height, width]`; 0 without confidence in the padding.
    pub teacher: Option<LabeledByTeacher>,
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
    /// Height and width of a crop.
    pub size: [usize; 2],
    /// Different crops of each image; 0 for ever new ones.
    pub crops_per_image: u64,
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
    /// Labels for the unlabeled images, instead of those of the moving average.
    pub teacher: Option<TeacherSource>,
}

/// Origin of a finished teacher's labels.
#[derive(Debug, Clone)]
pub enum TeacherSource {
    /// Files of labels.
    Labels(Arc<TeacherLabels>),
    /// The first class everywhere, in place of labels that are yet to be made: for timing steps.
    Placeholder,
}

impl TeacherSource {
    fn read(&self, image: &RgbImage) -> Result<LabeledByTeacher> {
        match self {
            Self::Labels(labels) => labels.read(image),
            Self::Placeholder => {
                let pixels = (image.width() * image.height()) as usize;
                Ok(LabeledByTeacher { labels: vec![0; pixels], confidence: vec![255; pixels] })
            }
        }
    }
}

impl ImageCaches {
    pub fn new(labeled: Arc<LabeledDataset>, unlabeled: Option<Arc<LabeledDataset>>) -> Self {
        let cache = |samples| Arc::new(ImageCache::new(samples));
        Self { labeled: cache(labeled), unlabeled: unlabeled.map(cache), teacher: None }
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
            size: config.crop.sides(),
            crops_per_image: config.crops_per_image,
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
                unlabeled: unlabeled
                    .map(|cache| self.unlabeled(cache, caches.teacher.as_ref(), micro_batch))
                    .transpose()?,
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
        let crops = self.cut(cache, None, augment, micro_batch, &indices)?;
        let crops: Vec<CroppedImage> = crops.into_iter().map(|(crop, _)| crop).collect();
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
        let crops: Vec<(&[u8], u64)> = crops.chunks(self.pixels() * 3).zip(0..).collect();
        let recolored = |(pixels, offset): (&[u8], u64)| {
            let mut pixels = pixels.to_vec();
            let stream = Stream::keyed(&[self.seed, purpose, micro_batch, offset]);
            PhotometricView::sample(stream, self.colors).apply(&mut pixels, self.size);
            pixels
        };
        crops.into_par_iter().map(recolored).collect::<Vec<_>>().concat()
    }

    fn unlabeled(
        &self,
        cache: &ImageCache,
        teacher: Option<&TeacherSource>,
        micro_batch: u64,
    ) -> Result<UnlabeledBatch> {
        let indices = self.indices(UNLABELED_ORDER, micro_batch, cache.count());
        let crops = self.cut(cache, teacher, UNLABELED_AUGMENT, micro_batch, &indices)?;
        let (crops, found): (Vec<CroppedImage>, Vec<Option<LabeledByTeacher>>) =
            crops.into_iter().unzip();
        let found: Option<Vec<LabeledByTeacher>> = found.into_iter().collect();
        let teacher = found.map(|parts| LabeledByTeacher {
            labels: parts.iter().flat_map(|part| &part.labels).copied().collect(),
            confidence: parts.iter().flat_map(|part| &part.confidence).copied().collect(),
        });
        let weak = joined(&crops, |crop| &crop.pixels);
        let strong = self.photometric.then(|| self.recolored(&weak, PHOTOMETRIC, micro_batch));
        // U2PL trains on the padding of unlabeled images.
        let valid = match self.pad_label {
            PadLabel::Ignore => joined(&crops, |crop| &crop.inside),
            PadLabel::Zero => vec![1; self.batch * self.pixels()],
        };
        Ok(UnlabeledBatch {
            strong,
            valid,
            truth: joined(&crops, |crop| &crop.labels),
            weak,
            teacher,
            indices,
        })
    }

    /// Number of pixels of a crop.
    fn pixels(&self) -> usize {
        self.size[0] * self.size[1]
    }

    fn cut(
        &self,
        cache: &ImageCache,
        teacher: Option<&TeacherSource>,
        augment: u64,
        micro_batch: u64,
        indices: &[usize],
    ) -> Result<Vec<(CroppedImage, Option<LabeledByTeacher>)>> {
        let cut = |(offset, &index): (usize, &usize)| {
            let sample = cache.read(index)?;
            let stream = match self.crops_per_image {
                0 => Stream::keyed(&[self.seed, augment, micro_batch, offset as u64]),
                crops => {
                    let draw = micro_batch * self.batch as u64 + offset as u64;
                    let crop = draw / cache.count() as u64 % crops;
                    Stream::keyed(&[self.seed, CROP_OF_IMAGE, index as u64, crop])
                }
            };
            let crop = Crop::sample(stream, sample.size(), self.size, &self.geometry);
            let flipped_labels = &self.geometry.flipped_labels;
            let cut_labels = |source: &TeacherSource| -> Result<LabeledByTeacher> {
                let found = source.read(&sample.image)?;
                let [mut labels, confidence] = [&found.labels, &found.confidence]
                    .map(|map| crop.apply_to_map(map, sample.size(), 0));
                if crop.is_mirrored() {
                    labels
                        .iter_mut()
                        .for_each(|label| *label = flipped_labels[usize::from(*label)]);
                }
                Ok(LabeledByTeacher { labels, confidence })
            };
            let found = teacher.map(cut_labels).transpose()?;
            Ok((crop.apply(&sample, self.padding, flipped_labels), found))
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
            size: [32, 40],
            crops_per_image: 0,
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
    fn crops_of_an_image_come_again_after_so_many_passes() {
        let distinct = |crops_per_image| {
            let builder = BatchBuilder { crops_per_image, ..builder() };
            let caches = caches();
            let mut crops: [std::collections::HashSet<Vec<u8>>; 5] = Default::default();
            // 4 passes over 5 images.
            for step in 0..5 {
                for MicroBatch { labeled, .. } in builder.make(&caches, step).unwrap() {
                    let each = labeled.pixels.chunks(builder.pixels() * 3);
                    for (&index, pixels) in labeled.indices.iter().zip(each) {
                        crops[index].insert(pixels.to_vec());
                    }
                }
            }
            let statistics = builder.statistics_batch(&caches.labeled, 0).unwrap();
            let mut each = statistics.pixels.chunks(builder.pixels() * 3);
            let known =
                statistics.indices.iter().all(|&index| crops[index].contains(each.next().unwrap()));
            (crops.map(|crops| crops.len()), known)
        };
        let (fresh, known) = distinct(0);
        assert!(fresh.iter().all(|&crops| crops > 6) && !known, "{fresh:?}");
        assert_eq!(distinct(3), ([3; 5], true));
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
