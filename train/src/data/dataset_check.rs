//! Check of every listed image before the first step, so that a broken one does not end a run halfway.

use anyhow::Result;
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::labeled::LabeledDataset;
use rayon::prelude::*;

use crate::data::lists::Lists;

/// Reads every image that [`count_labeled_pixels`] does not read.
pub fn check_readable(lists: &Lists) -> Result<()> {
    for set in [lists.unlabeled.as_deref(), lists.validation.as_ref()].into_iter().flatten() {
        check_set_readable(set)?;
    }
    Ok(())
}

/// Reads every labeled image and counts the pixels of each class.
pub fn count_labeled_pixels(lists: &Lists) -> Result<Vec<u64>> {
    let classes = lists.classes.count();
    let labeled = &lists.labeled;
    let count = |index| -> Result<Vec<u64>> {
        let mut counts = vec![0; 256];
        for label in labeled.read(index, MAX_PIXELS)?.truth {
            counts[usize::from(label)] += 1;
        }
        counts.truncate(classes);
        Ok(counts)
    };
    let sum = |left: Vec<u64>, right: Vec<u64>| {
        Ok(left.iter().zip(&right).map(|(left, right)| left + right).collect())
    };
    (0..labeled.count()).into_par_iter().map(count).try_reduce(|| vec![0; classes], sum)
}

fn check_set_readable(set: &LabeledDataset) -> Result<()> {
    // Synthetic scenes cannot be broken.
    if let LabeledDataset::Files { .. } = set {
        let read = |index| -> Result<()> { Ok(set.read(index, MAX_PIXELS).map(drop)?) };
        (0..set.count()).into_par_iter().try_for_each(read)?;
    }
    Ok(())
}
