//! Reading of one listed image, where memory that is short is an error.

use std::cell::Cell;
use std::hint::black_box;

use anyhow::{Context, Result};
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::labeled::{LabeledDataset, LabeledImage};

/// Bytes a pixel that decoding an image and its label map may take at a time.
const DECODED_BYTES: u64 = 16;

thread_local! {
    static ASKS: Cell<bool> = const { Cell::new(false) };
}

/// Returns true while this thread asks for memory that it can go on without.
pub fn asks_for_memory() -> bool {
    ASKS.get()
}

/// Reads an image and its ground truth. Memory for them is asked for beforehand: a decoder that finds none would abort the
/// program.
pub fn read(images: &LabeledDataset, index: usize) -> Result<LabeledImage> {
    let (pixels, decode) = images.open(index, MAX_PIXELS)?;
    let bytes = usize::try_from(pixels.saturating_mul(DECODED_BYTES)).unwrap_or(usize::MAX);
    let mut memory: Vec<u8> = Vec::new();
    ASKS.set(true);
    let reserved = memory.try_reserve_exact(bytes);
    ASKS.set(false);
    reserved.with_context(|| {
        format!("{} needs {} MB to be read", images.name(index), bytes.div_ceil(1_000_000))
    })?;
    drop(black_box(memory));
    Ok(decode()?)
}
