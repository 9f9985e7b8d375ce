//! The pictures that a benchmark asks about, in memory, so that no disk is measured.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use image::{ImageFormat, RgbImage};

use super::report::Pictures;
use protoseg_images::picture::{self, PictureError, PictureFileError};

/// Pictures, each as pixels and as a file.
#[derive(Debug, Clone)]
pub struct Material {
    pictures: Vec<Sheet>,
    source: String,
}

/// A picture.
#[derive(Debug, Clone)]
pub struct Sheet {
    /// Its pixels.
    pub image: Arc<RgbImage>,
    /// The file that it is decoded from.
    pub file: Bytes,
}

/// Why there are no pictures.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// A file cannot be read or decoded.
    #[error(transparent)]
    File(#[from] PictureFileError),
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
        source: PictureError,
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

impl Material {
    /// Street scenes drawn by rule, as PNG files.
    pub fn scenes(count: usize, [height, width]: [usize; 2], seed: u64) -> Result<Self, MaterialError> {
        let sheet = |index: u64| {
            let scene = protoseg_synthetic::render(seed, index, height, width);
            let image = RgbImage::from_raw(width as u32, height as u32, scene.image).ok_or(MaterialError::None)?;
            let mut file = Cursor::new(Vec::new());
            let encoded = image.write_to(&mut file, ImageFormat::Png);
            encoded.map_err(|source| MaterialError::Encode { height, width, source })?;
            Ok(Sheet { image: Arc::new(image), file: file.into_inner().into() })
        };
        let pictures = (0..count as u64).map(sheet).collect::<Result<Vec<_>, MaterialError>>()?;
        Self::of(pictures, format!("drawn scenes, seed {seed}"))
    }

    /// Files of pictures.
    pub fn files(paths: &[PathBuf], max_pixels: u64, source: String) -> Result<Self, MaterialError> {
        let sheet = |path: &PathBuf| {
            let read = |path: &Path| std::fs::read(path);
            let file = read(path).map_err(|source| MaterialError::Read { path: path.clone(), source })?;
            let image = picture::decode(&file, max_pixels);
            let image = image.map_err(|source| MaterialError::Decode { path: path.clone(), source })?;
            Ok(Sheet { image: Arc::new(image), file: file.into() })
        };
        Self::of(paths.iter().map(sheet).collect::<Result<Vec<_>, MaterialError>>()?, source)
    }

    fn of(pictures: Vec<Sheet>, source: String) -> Result<Self, MaterialError> {
        if pictures.is_empty() { Err(MaterialError::None) } else { Ok(Self { pictures, source }) }
    }

    /// The picture of a number; after the last comes the first again.
    pub fn get(&self, number: usize) -> &Sheet {
        &self.pictures[number % self.pictures.len()]
    }

    /// All of them, once.
    pub fn all(&self) -> &[Sheet] {
        &self.pictures
    }

    /// Pixels of a picture, on average.
    pub fn mean_pixels(&self) -> f64 {
        let pixels = |sheet: &Sheet| f64::from(sheet.image.width()) * f64::from(sheet.image.height());
        self.pictures.iter().map(pixels).sum::<f64>() / self.pictures.len() as f64
    }

    /// What a report says of them.
    pub fn describe(&self) -> Pictures {
        let (width, height) = self.pictures[0].image.dimensions();
        let alike = self.pictures.iter().all(|sheet| sheet.image.dimensions() == (width, height));
        let source = if alike { self.source.clone() } else { format!("{}, of other sizes too", self.source) };
        Pictures { height: height as usize, width: width as usize, count: self.pictures.len(), source }
    }
}
