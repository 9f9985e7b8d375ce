//! Pictures that are kept decoded once they have been read, as far as memory allows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::labeled::{LabeledDataset, LabeledImage};

/// Bytes of decoded pictures and labels that a shelf keeps; what does not fit is read again.
const KEPT_BYTES: usize = 1 << 29;

/// A list of pictures, some of which are kept.
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
    /// An empty shelf for a list.
    pub fn new(samples: Arc<LabeledDataset>) -> Self {
        Self { samples, kept: Mutex::default() }
    }

    /// How many pictures the list has.
    pub fn count(&self) -> usize {
        self.samples.count()
    }

    /// A picture with its truth, from memory or from its file.
    pub fn read(&self, index: usize) -> Result<Arc<LabeledImage>> {
        if let Some(sample) = self.kept().samples.get(&index) {
            return Ok(Arc::clone(sample));
        }
        let sample = Arc::new(self.samples.read(index, MAX_PIXELS)?);
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
        // A thread that failed left nothing half done: entries are whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
