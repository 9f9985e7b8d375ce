//! Contact sheet: images, ground truth and the predictions of models, side by side.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};
use protoseg_models::atomic;
use protoseg_models::classes::ClassTable;

/// Rows of a sheet, one image each.
const ROWS: usize = 6;
/// Width of a column in pixels; the largest height of a row is twice that.
const COLUMN: u32 = 480;
/// Pixels between columns and between rows.
const GAP: u32 = 4;

/// Contact sheet in progress; rows may come in any order from any thread.
pub(crate) struct ContactSheet {
    palette: [[u8; 3]; 256],
    models: usize,
    rows: Mutex<BTreeMap<usize, RgbImage>>,
}

impl ContactSheet {
    /// An empty sheet with columns for image, ground truth and each model.
    pub(crate) fn new(classes: &ClassTable, models: usize) -> Self {
        Self { palette: classes.palette(), models, rows: Mutex::default() }
    }

    /// Adds a model's prediction for image `index`; ignores all but the first images. `truth` and
    /// `labels` are train ids, `[height, width]`.
    pub(crate) fn add(
        &self,
        model: usize,
        index: usize,
        image: &RgbImage,
        truth: &[u8],
        labels: &[u8],
    ) {
        if index >= ROWS || image.is_empty() {
            return;
        }
        let (width, height) = image.dimensions();
        let [across, down] = scaled(width, height);
        let color = |ids: &[u8]| {
            let ids = RgbImage::from_fn(width, height, |x, y| {
                Rgb(self.palette[usize::from(ids[y as usize * width as usize + x as usize])])
            });
            imageops::resize(&ids, across, down, FilterType::Nearest)
        };
        let prediction = color(labels);
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let row = rows.entry(index).or_insert_with(|| {
            let mut row = RgbImage::from_pixel(self.width(), down, Rgb([255; 3]));
            imageops::replace(
                &mut row,
                &imageops::resize(image, across, down, FilterType::Triangle),
                left(0),
                0,
            );
            imageops::replace(&mut row, &color(truth), left(1), 0);
            row
        });
        imageops::replace(row, &prediction, left(2 + model), 0);
    }

    fn width(&self) -> u32 {
        let columns = 2 + self.models as u32;
        columns * COLUMN + (columns - 1) * GAP
    }

    /// Writes the sheet as a PNG file, atomically.
    pub(crate) fn write(self, path: &Path) -> Result<()> {
        let width = self.width();
        let rows = self.rows.into_inner().unwrap_or_else(PoisonError::into_inner);
        let height =
            rows.values().map(|row| row.height() + GAP).sum::<u32>().saturating_sub(GAP).max(1);
        let mut sheet = RgbImage::from_pixel(width, height, Rgb([255; 3]));
        let mut top = 0;
        for row in rows.values() {
            imageops::replace(&mut sheet, row, 0, top);
            top += i64::from(row.height() + GAP);
        }
        let mut bytes = std::io::Cursor::new(Vec::new());
        sheet
            .write_to(&mut bytes, ImageFormat::Png)
            .context("the contact sheet cannot be encoded")?;
        atomic::write(path, bytes.get_ref()).with_context(|| path.display().to_string())
    }
}

/// Left edge of a column in pixels.
fn left(column: usize) -> i64 {
    column as i64 * i64::from(COLUMN + GAP)
}

/// Refuses a path that cannot be written, before the work begins.
pub(crate) fn check_path(path: &Path) -> Result<()> {
    let png = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"));
    ensure!(
        png && !path.is_dir(),
        "{} is not a PNG file name for the contact sheet; write a name that ends in .png",
        path.display()
    );
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ensure!(
        folder.is_dir(),
        "the folder {} for the contact sheet does not exist; create it first",
        folder.display()
    );
    Ok(())
}

/// Width and height of an image on the sheet: as wide as a column, unless that is too high.
fn scaled(width: u32, height: u32) -> [u32; 2] {
    let (most, width, height) = (u64::from(2 * COLUMN), u64::from(width), u64::from(height));
    let down = (height * u64::from(COLUMN)).div_ceil(width);
    let size = if down <= most { [u64::from(COLUMN), down] } else { [width * most / height, most] };
    size.map(|side| u32::try_from(side).unwrap_or(COLUMN).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_fits_its_column() {
        assert_eq!(scaled(2048, 1024), [480, 240]);
        assert_eq!(scaled(100, 200), [480, 960]);
        assert_eq!(scaled(200, 1000), [192, 960]);
        assert_eq!(scaled(2, 40_000), [1, 960]);
        assert_eq!(scaled(40_000, 2), [480, 1]);
        assert_eq!(scaled(1, u32::MAX), [1, 960]);
        assert_eq!(scaled(u32::MAX, 1), [480, 1]);
        let sheet = ContactSheet::new(&ClassTable::cityscapes(), 2);
        for model in [1, 0] {
            sheet.add(
                model,
                0,
                &RgbImage::new(2, 40_000),
                &[0; 80_000],
                &[model as u8 + 1; 80_000],
            );
        }
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("sheet.png");
        check_path(&path).unwrap();
        sheet.write(&path).unwrap();
        let sheet = image::open(&path).unwrap().into_rgb8();
        assert_eq!(sheet.dimensions(), (4 * COLUMN + 3 * GAP, 2 * COLUMN));
        let palette = ClassTable::cityscapes().palette();
        for column in 1..4 {
            assert_eq!(sheet.get_pixel(left(column) as u32, 5).0, palette[column - 1], "{column}");
        }
    }
}
