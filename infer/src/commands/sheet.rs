//! A contact sheet: pictures, their truth and what a model made of them, side by side.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};
use protoseg_models::atomic;
use protoseg_models::classes::ClassTable;

/// Pictures on a sheet.
const ROWS: usize = 6;
/// Width of each of a row's three parts in pixels.
const PART: u32 = 480;
/// Pixels between parts and between rows.
const GAP: u32 = 4;

/// Rows as they come, from any thread.
pub(crate) struct Sheet {
    palette: [[u8; 3]; 256],
    rows: Mutex<BTreeMap<usize, RgbImage>>,
}

impl Sheet {
    /// An empty sheet in the colours of some classes.
    pub(crate) fn new(classes: &ClassTable) -> Self {
        Self { palette: classes.palette(), rows: Mutex::default() }
    }

    /// Draws one row, if it is among the first. Truth and labels are train ids of all the picture's pixels.
    pub(crate) fn add(&self, index: usize, picture: &RgbImage, truth: &[u8], labels: &[u8]) {
        if index >= ROWS || picture.is_empty() {
            return;
        }
        let (width, height) = picture.dimensions();
        let color = |ids: &[u8]| {
            RgbImage::from_fn(width, height, |x, y| {
                Rgb(self.palette[usize::from(ids[y as usize * width as usize + x as usize])])
            })
        };
        let scaled = (height * PART).div_ceil(width).max(1);
        let mut row = RgbImage::from_pixel(3 * PART + 2 * GAP, scaled, Rgb([255; 3]));
        let parts = [
            imageops::resize(picture, PART, scaled, FilterType::Triangle),
            imageops::resize(&color(truth), PART, scaled, FilterType::Nearest),
            imageops::resize(&color(labels), PART, scaled, FilterType::Nearest),
        ];
        for (part, left) in parts.iter().zip((0_i64..).step_by((PART + GAP) as usize)) {
            imageops::replace(&mut row, part, left, 0);
        }
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).insert(index, row);
    }

    /// Writes the rows one below the other as a PNG file, whole or not at all.
    pub(crate) fn write(self, path: &Path) -> Result<()> {
        let rows = self.rows.into_inner().unwrap_or_else(PoisonError::into_inner);
        let height = rows.values().map(|row| row.height() + GAP).sum::<u32>().saturating_sub(GAP).max(1);
        let mut sheet = RgbImage::from_pixel(3 * PART + 2 * GAP, height, Rgb([255; 3]));
        let mut top = 0;
        for row in rows.values() {
            imageops::replace(&mut sheet, row, 0, top);
            top += i64::from(row.height() + GAP);
        }
        let mut bytes = std::io::Cursor::new(Vec::new());
        sheet.write_to(&mut bytes, ImageFormat::Png).context("the contact sheet cannot be encoded")?;
        atomic::write(path, bytes.get_ref()).with_context(|| path.display().to_string())
    }
}
