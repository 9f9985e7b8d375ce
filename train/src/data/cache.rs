//! Cache of decoded images.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use protoseg_images::labeled::{LabeledDataset, LabeledImage};

use crate::data::read;

/// Capacity in bytes; images beyond it are read again each time.
const KEPT_BYTES: usize = 1 << 29;

/// A list of images of which the first ones read stay decoded in memory.
pub struct ImageCache {
    samples: Arc<LabeledDataset>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    samples: HashMap<usize, Arc<LabeledImage>>,
    bytes: usize,
}

impl ImageCache {
    pub fn new(samples: Arc<LabeledDataset>) -> Self {
        Self { samples, kept: Mutex::default() }
    }

    pub fn count(&self) -> usize {
        self.samples.count()
    }

    /// Returns the bytes of memory that images of these sizes will take beyond those that are kept already.
    pub fn growth(&self, sizes: &[[usize; 2]]) -> usize {
        let all: usize = sizes.iter().map(|[height, width]| height * width * 4).sum();
        all.min(KEPT_BYTES).saturating_sub(self.kept().bytes)
    }

    /// Returns an image with its truth, from memory or from its file.
    pub fn read(&self, index: usize) -> Result<Arc<LabeledImage>> {
        if let Some(sample) = self.kept().samples.get(&index) {
            return Ok(Arc::clone(sample));
        }
        let sample = Arc::new(read::read(&self.samples, index)?);
        let bytes = sample.image.as_raw().len() + sample.truth.len();
        let mut kept = self.kept();
        if kept.bytes + bytes <= KEPT_BYTES
            && kept.samples.insert(index, Arc::clone(&sample)).is_none()
        {
            kept.bytes += bytes;
        }
        Ok(sample)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A thread that panicked left no entry half-written.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
