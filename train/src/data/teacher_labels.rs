//! Labels that a finished teacher gave to whole unlabeled images, with its confidence.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use image::{ImageFormat, LumaA, RgbImage};
use protoseg_models::atomic;
use sha2::{Digest, Sha256};

type LabelImage = image::ImageBuffer<LumaA<u8>, Vec<u8>>;

/// A folder with one PNG for each different image: train ids as gray, and the confidence in them in
/// steps of 1/255 as opacity.
#[derive(Debug, Clone)]
pub struct TeacherLabels {
    folder: PathBuf,
    /// Digest of the teacher's weights and of the way that it labels.
    teacher: Arc<str>,
}

/// Labels of an image, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabeledByTeacher {
    /// Train ids.
    pub labels: Vec<u8>,
    /// Confidence in steps of 1/255.
    pub confidence: Vec<u8>,
}

impl TeacherLabels {
    /// Labels of one teacher, known by a digest, in a folder that is made with the first of them.
    pub fn new(folder: &Path, teacher: &str) -> Self {
        Self { folder: folder.to_owned(), teacher: teacher.into() }
    }

    /// Says whether an image has been labeled.
    pub fn has(&self, image: &RgbImage) -> bool {
        self.path(image).is_file()
    }

    /// Reads the labels of an image.
    pub fn read(&self, image: &RgbImage) -> Result<LabeledByTeacher> {
        let path = self.path(image);
        let read = || -> Result<LabeledByTeacher> {
            let bytes = std::fs::read(&path)?;
            let maps = image::load_from_memory_with_format(&bytes, ImageFormat::Png)?;
            let maps = maps.into_luma_alpha8();
            ensure!(maps.dimensions() == image.dimensions(), "it has another size than its image");
            let part = |channel: usize| maps.pixels().map(|pixel| pixel.0[channel]).collect();
            Ok(LabeledByTeacher { labels: part(0), confidence: part(1) })
        };
        read().with_context(|| {
            format!(
                "{}: labels of the teacher; delete the file to have it made again",
                path.display()
            )
        })
    }

    /// Keeps the labels of an image.
    pub fn write(&self, image: &RgbImage, found: &LabeledByTeacher) -> Result<()> {
        let pairs = found.labels.iter().zip(&found.confidence);
        let bytes = pairs.flat_map(|(&label, &confidence)| [label, confidence]).collect();
        let (width, height) = image.dimensions();
        let maps = LabelImage::from_raw(width, height, bytes)
            .context("the teacher gave another number of labels than the image has pixels")?;
        std::fs::create_dir_all(&self.folder).with_context(|| self.folder.display().to_string())?;
        let mut png = Cursor::new(Vec::new());
        maps.write_to(&mut png, ImageFormat::Png)?;
        Ok(atomic::write(&self.path(image), png.get_ref())?)
    }

    /// File of an image: named after its pixels, so that another image never gets its labels.
    fn path(&self, image: &RgbImage) -> PathBuf {
        let mut digest = Sha256::new_with_prefix(self.teacher.as_bytes());
        digest.update(image.width().to_le_bytes());
        digest.update(image.as_raw());
        let name: String =
            digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(format!("{name}.png"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_back_for_the_same_pixels_and_teacher_alone() {
        let folder = tempfile::tempdir().unwrap();
        let labels = TeacherLabels::new(&folder.path().join("labels"), "a");
        let image = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let found = LabeledByTeacher {
            labels: (0..15).map(|index| if index == 4 { 255 } else { index }).collect(),
            confidence: (0..15).map(|index| index * 17).collect(),
        };
        assert!(!labels.has(&image));
        labels.write(&image, &found).unwrap();
        assert_eq!(labels.read(&image).unwrap(), found);
        let mut other = image.clone();
        other.get_pixel_mut(4, 2).0[1] ^= 1;
        assert!(!labels.has(&other));
        let turned = RgbImage::from_raw(3, 5, image.as_raw().clone()).unwrap();
        assert!(!labels.has(&turned));
        assert!(!TeacherLabels::new(&folder.path().join("labels"), "b").has(&image));
        let file = std::fs::read_dir(folder.path().join("labels"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        std::fs::write(&file, b"odd").unwrap();
        let error = labels.read(&image).unwrap_err().to_string();
        assert!(error.contains("delete the file") && error.contains(".png"), "{error}");
    }
}
