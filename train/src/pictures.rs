//! Pictures and label maps from files.

use std::path::Path;

use anyhow::{Context, Result};

/// RGB pixels.
pub struct Picture {
    pub height: usize,
    pub width: usize,
    pub pixels: Vec<u8>,
}

/// Ids as they stand in the file.
pub struct LabelMap {
    pub height: usize,
    pub width: usize,
    pub ids: Vec<u8>,
}

pub fn read(path: &Path) -> Result<Picture> {
    let image = image::open(path).with_context(|| format!("cannot read {}", path.display()))?.to_rgb8();
    Ok(Picture { height: image.height() as usize, width: image.width() as usize, pixels: image.into_raw() })
}

pub fn read_label(path: &Path) -> Result<LabelMap> {
    let image = image::open(path).with_context(|| format!("cannot read {}", path.display()))?.to_luma8();
    Ok(LabelMap { height: image.height() as usize, width: image.width() as usize, ids: image.into_raw() })
}
