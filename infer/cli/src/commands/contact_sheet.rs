//! Contact sheet: images, ground truth and the predictions of models, side by side.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use font8x8::{BASIC_FONTS, UnicodeFonts};
use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};
use protoseg_models::atomic;
use protoseg_models::classes::{ClassTable, IGNORE_INDEX};

/// Rows of a sheet, one image each.
const ROWS: usize = 6;
/// Width of a column in pixels; the largest height of a row is twice that.
const COLUMN: u32 = 480;
/// Pixels between columns and between rows.
const GAP: u32 = 4;
/// Side of a letter in pixels, twice that of the font.
const LETTER: u32 = 16;
/// Name of pixels without a class.
const IGNORED: &str = "ignored";
/// Their color where a class is black: Pascal VOC's.
const CREAM: [u8; 3] = [224, 224, 192];
/// Height of the headings.
const HEADING: u32 = LETTER + 2 * GAP;

/// Contact sheet in progress; rows may come in any order from any thread.
pub(crate) struct ContactSheet {
    palette: [[u8; 3]; 256],
    /// Names of the classes by train id.
    classes: Vec<String>,
    /// One a column.
    headings: Vec<String>,
    /// True where a pixel without a class is shown.
    shows_ignored: AtomicBool,
    rows: Mutex<BTreeMap<usize, RgbImage>>,
}

impl ContactSheet {
    /// An empty sheet with columns for image, ground truth and each bundle.
    pub(crate) fn new(classes: &ClassTable, bundles: &[&PathBuf]) -> Self {
        let bundles = bundles.iter().map(|bundle| bundle.display().to_string());
        let headings = ["image", "ground truth"].map(str::to_owned).into_iter().chain(bundles);
        let mut palette = classes.palette();
        if classes.classes().iter().any(|class| class.color == [0; 3]) {
            palette[classes.count()..].fill(CREAM);
        }
        Self {
            palette,
            classes: classes.classes().iter().map(|class| class.name.clone()).collect(),
            headings: headings.collect(),
            shows_ignored: AtomicBool::default(),
            rows: Mutex::default(),
        }
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
        let is_ignored = |label: &u8| usize::from(*label) >= self.classes.len();
        if truth.iter().chain(labels).any(is_ignored) {
            self.shows_ignored.store(true, Ordering::Relaxed);
        }
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
        let columns = self.headings.len() as u32;
        columns * COLUMN + (columns - 1) * GAP
    }

    /// Writes the sheet as a PNG file, atomically.
    pub(crate) fn write(self, path: &Path) -> Result<()> {
        let width = self.width();
        let mut entries: Vec<(&str, [u8; 3])> =
            self.classes.iter().map(String::as_str).zip(self.palette).collect();
        if self.shows_ignored.into_inner() {
            entries.push((IGNORED, self.palette[usize::from(IGNORE_INDEX)]));
        }
        let legend = legend(&entries, width);
        let headings = self.headings;
        let rows = self.rows.into_inner().unwrap_or_else(PoisonError::into_inner);
        let height =
            HEADING + rows.values().map(|row| row.height() + GAP).sum::<u32>() + legend.height();
        let mut sheet = RgbImage::from_pixel(width, height, Rgb([255; 3]));
        for (column, heading) in headings.iter().enumerate() {
            // Of a long path, the end tells more.
            let letters: Vec<char> = heading.chars().collect();
            let start = letters.len().saturating_sub((COLUMN / LETTER) as usize);
            write_text(&mut sheet, [left(column) as u32, GAP], &letters[start..]);
        }
        let mut top = i64::from(HEADING);
        for row in rows.values() {
            imageops::replace(&mut sheet, row, 0, top);
            top += i64::from(row.height() + GAP);
        }
        imageops::replace(&mut sheet, &legend, 0, top);
        let mut bytes = std::io::Cursor::new(Vec::new());
        sheet
            .write_to(&mut bytes, ImageFormat::Png)
            .context("the contact sheet cannot be encoded")?;
        atomic::write(path, bytes.get_ref()).with_context(|| path.display().to_string())
    }
}

/// The colors of the classes with their names, in lines of a width.
fn legend(entries: &[(&str, [u8; 3])], width: u32) -> RgbImage {
    let longest = width.saturating_sub(LETTER + 2 * GAP) / LETTER;
    let mut places = Vec::with_capacity(entries.len());
    let (mut left, mut line) = (0, 0);
    for (name, color) in entries {
        let letters: Vec<char> = name.chars().take(longest as usize).collect();
        // The swatch, the name, and space before the next one.
        let entry = LETTER + GAP + letters.len() as u32 * LETTER;
        if left > 0 && left + entry > width {
            (left, line) = (0, line + 1);
        }
        places.push((left, line, letters, *color));
        left += entry + LETTER;
    }
    let mut legend = RgbImage::from_pixel(width, (line + 1) * HEADING, Rgb([255; 3]));
    for (left, line, letters, color) in &places {
        let top = line * HEADING + GAP;
        for (x, y) in (0..LETTER * LETTER).map(|index| (index % LETTER, index / LETTER)) {
            legend.put_pixel(left + x, top + y, Rgb(*color));
        }
        write_text(&mut legend, [left + LETTER + GAP, top], letters);
    }
    legend
}

/// Writes letters in black from a left and upper edge on.
fn write_text(sheet: &mut RgbImage, [left, top]: [u32; 2], letters: &[char]) {
    for (index, &letter) in letters.iter().enumerate() {
        let rows = BASIC_FONTS.get(letter).or(BASIC_FONTS.get('?')).unwrap_or_default();
        let left = left + index as u32 * LETTER;
        for (x, y) in (0..LETTER * LETTER).map(|index| (index % LETTER, index / LETTER)) {
            if rows[(y / 2) as usize] >> (x / 2) & 1 == 1 {
                sheet.put_pixel(left + x, top + y, Rgb([0; 3]));
            }
        }
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
    fn pixels_without_a_class_are_in_the_legend() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("sheet.png");
        for (classes, color) in
            [("0 a 200 0 0\n1 b 0 200 0\n", [0; 3]), ("0 a 0 0 0\n1 b 0 200 0\n", CREAM)]
        {
            let classes = ClassTable::parse(classes).unwrap();
            for (void, is_shown) in [(1, false), (255, true)] {
                let sheet = ContactSheet::new(&classes, &[&PathBuf::from("m")]);
                sheet.add(0, 0, &RgbImage::new(2, 1), &[0, void], &[0, 1]);
                sheet.write(&path).unwrap();
                let sheet = image::open(&path).unwrap().into_rgb8();
                let legend = HEADING + COLUMN / 2 + GAP;
                // After `a` and `b`.
                let swatch = sheet.get_pixel(2 * (3 * LETTER + GAP) + 5, legend + GAP + 5).0;
                assert_eq!(swatch, if is_shown { color } else { [255; 3] });
                let truth = sheet.get_pixel(left(1) as u32 + COLUMN - 5, HEADING + 5).0;
                assert_eq!(truth == color, is_shown);
            }
        }
    }

    #[test]
    fn every_image_fits_its_column() {
        assert_eq!(scaled(2048, 1024), [480, 240]);
        assert_eq!(scaled(100, 200), [480, 960]);
        assert_eq!(scaled(200, 1000), [192, 960]);
        assert_eq!(scaled(2, 40_000), [1, 960]);
        assert_eq!(scaled(40_000, 2), [480, 1]);
        assert_eq!(scaled(1, u32::MAX), [1, 960]);
        assert_eq!(scaled(u32::MAX, 1), [480, 1]);
        let long = PathBuf::from(format!("{}I", "a".repeat(40)));
        let sheet = ContactSheet::new(&ClassTable::cityscapes(), &[&long, &PathBuf::from("I")]);
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
        // The classes and their colors take two lines.
        let legend = HEADING + 2 * COLUMN + GAP;
        assert_eq!(sheet.dimensions(), (4 * COLUMN + 3 * GAP, legend + 2 * HEADING));
        // The last letter of both bundles, at the right end of the first one's column.
        let [last, only] = [left(2) as u32 + COLUMN - LETTER, left(3) as u32];
        let letter = |x| image::imageops::crop_imm(&sheet, x, 0, LETTER, HEADING).to_image();
        assert!(
            letter(last) == letter(only) && letter(only).pixels().any(|pixel| pixel.0 == [0; 3])
        );
        let palette = ClassTable::cityscapes().palette();
        let swatch = |x, line| sheet.get_pixel(x + 5, legend + line * HEADING + GAP + 5).0;
        // After `road` and the space behind it, `sidewalk`.
        let second = LETTER + GAP + 4 * LETTER + LETTER;
        assert_eq!([swatch(0, 0), swatch(second, 0)], [palette[0], palette[1]]);
        assert!(palette[2..19].contains(&swatch(0, 1)));
        for column in 1..4 {
            assert_eq!(
                sheet.get_pixel(left(column) as u32, HEADING + 5).0,
                palette[column - 1],
                "{column}"
            );
        }
    }
}
