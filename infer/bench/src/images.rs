//! Images of a benchmark, in memory so that no disk is measured.

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use image::{ImageFormat, RgbImage};
use protoseg_images::image_file::{DecodeError, EncodedImage};
use protoseg_models::errors::FileError;
use protoseg_models::reading::ImageReading;

use super::report::ImageSummary;

/// Images as pixels and as files.
#[derive(Debug, Clone)]
pub struct BenchImages {
    images: Vec<BenchImage>,
    source: String,
}

#[derive(Debug, Clone)]
pub struct BenchImage {
    pub image: Arc<RgbImage>,
    /// The encoded file.
    pub file: Bytes,
    /// How the file is read.
    reading: ImageReading,
}

impl BenchImage {
    /// Decodes the file.
    pub fn decode(&self, max_pixels: u64) -> Result<RgbImage, DecodeError> {
        Ok(EncodedImage::new(self.file.as_ref(), max_pixels)?.decode_as(self.reading)?.image)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BenchImagesError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}", path.display())]
    Decode { path: PathBuf, source: DecodeError },
    #[error("a synthetic image of {width}x{height} pixels cannot be encoded")]
    Encode { height: usize, width: usize, source: image::ImageError },
    #[error("there are no images to measure with")]
    None,
}

impl BenchImages {
    /// Synthetic street scenes as PNG files.
    pub fn synthetic(
        count: usize,
        [height, width]: [usize; 2],
        seed: u64,
    ) -> Result<Self, BenchImagesError> {
        let render = |index: u64| {
            let scene = protoseg_synthetic::render_scene(seed, index, height, width);
            let image = RgbImage::from_raw(width as u32, height as u32, scene.image)
                .ok_or(BenchImagesError::None)?;
            let mut file = Cursor::new(Vec::new());
            image
                .write_to(&mut file, ImageFormat::Png)
                .map_err(|source| BenchImagesError::Encode { height, width, source })?;
            let (file, reading) = (file.into_inner().into(), ImageReading::default());
            Ok(BenchImage { image: Arc::new(image), file, reading })
        };
        Self::new((0..count as u64).map(render), format!("synthetic images, seed {seed}"))
    }

    /// Reads files as a model does.
    pub fn from_files(
        paths: &[PathBuf],
        reading: ImageReading,
        max_pixels: u64,
        source: String,
    ) -> Result<Self, BenchImagesError> {
        let read = |path: &PathBuf| {
            let file = std::fs::read(path).map_err(FileError::at(path))?;
            let mut image = BenchImage { image: Arc::default(), file: file.into(), reading };
            let decoded = image.decode(max_pixels);
            let failed = |source| BenchImagesError::Decode { path: path.clone(), source };
            image.image = Arc::new(decoded.map_err(failed)?);
            Ok(image)
        };
        Self::new(paths.iter().map(read), source)
    }

    fn new(
        images: impl Iterator<Item = Result<BenchImage, BenchImagesError>>,
        source: String,
    ) -> Result<Self, BenchImagesError> {
        let images = images.collect::<Result<Vec<_>, _>>()?;
        if images.is_empty() { Err(BenchImagesError::None) } else { Ok(Self { images, source }) }
    }

    /// The image of a number, modulo their count.
    pub fn get(&self, number: usize) -> &BenchImage {
        &self.images[number % self.images.len()]
    }

    pub fn all(&self) -> &[BenchImage] {
        &self.images
    }

    /// Mean pixels of an image.
    pub fn mean_pixels(&self) -> f64 {
        let pixels =
            |image: &BenchImage| f64::from(image.image.width()) * f64::from(image.image.height());
        self.images.iter().map(pixels).sum::<f64>() / self.images.len() as f64
    }

    pub fn summary(&self) -> ImageSummary {
        let (width, height) = self.images[0].image.dimensions();
        let is_uniform =
            self.images.iter().all(|image| image.image.dimensions() == (width, height));
        let source = if is_uniform {
            self.source.clone()
        } else {
            format!("{}, of other sizes too", self.source)
        };
        ImageSummary {
            height: height as usize,
            width: width as usize,
            count: self.images.len(),
            source,
        }
    }
}
