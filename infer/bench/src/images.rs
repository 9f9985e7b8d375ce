//! The pictures that a benchmark asks about, in memory, so that no disk is measured.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use image::{ImageFormat, RgbImage};

use super::report::ImageSummary;
use protoseg_images::image_file::{self, DecodeError, ImageFileError};

/// ImageSummary, each as pixels and as a file.
#[derive(Debug, Clone)]
pub struct BenchImages {
    pictures: Vec<BenchImage>,
    source: String,
}

/// A picture.
#[derive(Debug, Clone)]
pub struct BenchImage {
    /// Its pixels.
    pub image: Arc<RgbImage>,
    /// The file that it is decoded from.
    pub file: Bytes,
}

/// Why there are no pictures.
#[derive(Debug, thiserror::Error)]
pub enum BenchImagesError {
    /// A file cannot be read or decoded.
    #[error(transparent)]
    File(#[from] ImageFileError),
    /// A file cannot be read.
    #[error("{}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file's bytes are no picture.
    #[error("{}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: DecodeError,
    },
    /// A drawn scene cannot be encoded.
    #[error("a drawn scene of {width}x{height} pixels cannot be encoded")]
    Encode {
        /// Its height.
        height: usize,
        /// Its width.
        width: usize,
        /// Why.
        source: image::ImageError,
    },
    /// Nothing was named.
    #[error("there are no pictures to ask about")]
    None,
}

impl BenchImages {
    /// Street scenes drawn by rule, as PNG files.
    pub fn synthetic(
        count: usize,
        [height, width]: [usize; 2],
        seed: u64,
    ) -> Result<Self, BenchImagesError> {
        let sheet = |index: u64| {
            let scene = protoseg_synthetic::render_scene(seed, index, height, width);
            let image = RgbImage::from_raw(width as u32, height as u32, scene.image)
                .ok_or(BenchImagesError::None)?;
            let mut file = Cursor::new(Vec::new());
            let encoded = image.write_to(&mut file, ImageFormat::Png);
            encoded.map_err(|source| BenchImagesError::Encode { height, width, source })?;
            Ok(BenchImage { image: Arc::new(image), file: file.into_inner().into() })
        };
        let pictures =
            (0..count as u64).map(sheet).collect::<Result<Vec<_>, BenchImagesError>>()?;
        Self::new(pictures, format!("drawn scenes, seed {seed}"))
    }

    /// Files of pictures.
    pub fn from_files(
        paths: &[PathBuf],
        max_pixels: u64,
        source: String,
    ) -> Result<Self, BenchImagesError> {
        let sheet = |path: &PathBuf| {
            let read = |path: &Path| std::fs::read(path);
            let file = read(path)
                .map_err(|source| BenchImagesError::Read { path: path.clone(), source })?;
            let image = image_file::decode(&file, max_pixels);
            let image =
                image.map_err(|source| BenchImagesError::Decode { path: path.clone(), source })?;
            Ok(BenchImage { image: Arc::new(image), file: file.into() })
        };
        Self::new(paths.iter().map(sheet).collect::<Result<Vec<_>, BenchImagesError>>()?, source)
    }

    fn new(pictures: Vec<BenchImage>, source: String) -> Result<Self, BenchImagesError> {
        if pictures.is_empty() {
            Err(BenchImagesError::None)
        } else {
            Ok(Self { pictures, source })
        }
    }

    /// The picture of a number; after the last comes the first again.
    pub fn get(&self, number: usize) -> &BenchImage {
        &self.pictures[number % self.pictures.len()]
    }

    /// All of them, once.
    pub fn all(&self) -> &[BenchImage] {
        &self.pictures
    }

    /// Pixels of a picture, on average.
    pub fn mean_pixels(&self) -> f64 {
        let pixels =
            |sheet: &BenchImage| f64::from(sheet.image.width()) * f64::from(sheet.image.height());
        self.pictures.iter().map(pixels).sum::<f64>() / self.pictures.len() as f64
    }

    /// What a report says of them.
    pub fn describe(&self) -> ImageSummary {
        let (width, height) = self.pictures[0].image.dimensions();
        let alike = self.pictures.iter().all(|sheet| sheet.image.dimensions() == (width, height));
        let source = if alike {
            self.source.clone()
        } else {
            format!("{}, of other sizes too", self.source)
        };
        ImageSummary {
            height: height as usize,
            width: width as usize,
            count: self.pictures.len(),
            source,
        }
    }
}
