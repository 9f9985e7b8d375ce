//! Small gray versions of images, by which copies are known that were saved again: at another quality, in
//! another format, or scaled.

use image::RgbImage;
use serde::{Deserialize, Serialize};

/// Rows and columns of a thumbnail.
const SIDE: usize = 16;
/// Largest difference of two shades of copies. JPEG at a quality of 30 changes the mean of a block of
/// 8x8 pixels by 2, and cells of small images are smaller.
const LARGEST: u8 = 8;
/// Largest sum of differences, 1.5 a cell.
const LARGEST_SUM: u32 = (SIDE * SIDE) as u32 * 3 / 2;
/// Least difference between the darkest and the brightest cell: below it, all images look alike.
const LEAST_CONTRAST: u8 = 24;
/// Largest relative difference of two proportions.
const PROPORTION: f64 = 0.02;

/// Mean brightness of 16x16 cells of an image, and the proportion of its sides.
///
/// ```
/// use image::RgbImage;
/// use protoseg_images::thumbnail::Thumbnail;
///
/// let image = RgbImage::from_fn(64, 48, |x, y| [4 * x as u8, 2 * y as u8, 9].into());
/// let brighter = RgbImage::from_fn(64, 48, |x, y| [4 * x as u8 / 2 + 90, 2 * y as u8, 9].into());
/// let [one, other] = [&image, &brighter].map(Thumbnail::new);
/// assert!(one.is_like(&one) && !one.is_like(&other));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Thumbnail {
    cells: Box<[u8; SIDE * SIDE]>,
    /// Width by height.
    proportion: f64,
}

/// A text that is no thumbnail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a thumbnail")]
pub struct ThumbnailError;

impl Thumbnail {
    /// Averages the pixels of an image; one with a side of less than 16 pixels is like no other.
    pub fn new(image: &RgbImage) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let proportion = width as f64 / height.max(1) as f64;
        if width.min(height) < SIDE {
            return Self { cells: Box::new([0; SIDE * SIDE]), proportion };
        }
        let mut sums = [0_u64; SIDE * SIDE];
        let mut counts = [0_u64; SIDE * SIDE];
        let columns: Vec<usize> = (0..width).map(|x| x * SIDE / width).collect();
        for (y, row) in image.as_raw().chunks_exact(3 * width).enumerate() {
            let first = y * SIDE / height * SIDE;
            for (pixel, column) in row.chunks_exact(3).zip(&columns) {
                // Rec. 601, as JPEG has it, in 1/256.
                let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u64::from);
                sums[first + column] += 77 * red + 150 * green + 29 * blue;
                counts[first + column] += 1;
            }
        }
        let mut cells = Box::new([0; SIDE * SIDE]);
        for ((cell, sum), count) in cells.iter_mut().zip(sums).zip(counts) {
            *cell = (sum / 256 / count.max(1)) as u8;
        }
        Self { cells, proportion }
    }

    /// True if both seem to be of one image. Images without contrast are like no other.
    pub fn is_like(&self, other: &Self) -> bool {
        self.has_contrast()
            && (self.proportion / other.proportion - 1.0).abs() <= PROPORTION
            && self.is_near(other)
    }

    fn is_near(&self, other: &Self) -> bool {
        let mut sum = 0;
        self.cells.iter().zip(other.cells.iter()).all(|(one, other)| {
            let difference = one.abs_diff(*other);
            sum += u32::from(difference);
            difference <= LARGEST && sum <= LARGEST_SUM
        })
    }

    fn has_contrast(&self) -> bool {
        let (least, most) = (self.cells.iter().min(), self.cells.iter().max());
        least.zip(most).is_some_and(|(least, most)| most - least >= LEAST_CONTRAST)
    }

    /// The sum of the cells; those of two like thumbnails differ by [`LARGEST_SUM`] at most.
    fn sum(&self) -> u32 {
        self.cells.iter().map(|cell| u32::from(*cell)).sum()
    }
}

impl From<Thumbnail> for String {
    fn from(Thumbnail { cells, proportion }: Thumbnail) -> Self {
        let cells: String = cells.iter().map(|cell| format!("{cell:02x}")).collect();
        format!("{cells} {proportion}")
    }
}

impl TryFrom<String> for Thumbnail {
    type Error = ThumbnailError;

    fn try_from(text: String) -> Result<Self, ThumbnailError> {
        let (digits, proportion) = text.split_once(' ').ok_or(ThumbnailError)?;
        let mut cells = Box::new([0; SIDE * SIDE]);
        if digits.len() != 2 * cells.len() {
            return Err(ThumbnailError);
        }
        for (index, cell) in cells.iter_mut().enumerate() {
            let pair = digits.get(2 * index..2 * index + 2).ok_or(ThumbnailError)?;
            *cell = u8::from_str_radix(pair, 16).map_err(|_| ThumbnailError)?;
        }
        Ok(Self { cells, proportion: proportion.parse().map_err(|_| ThumbnailError)? })
    }
}

/// Thumbnails that are looked up by those that are like them.
#[derive(Debug)]
pub struct ThumbnailIndex<'a> {
    /// With their sums, in order of these.
    sorted: Vec<(u32, usize, &'a Thumbnail)>,
}

impl<'a> ThumbnailIndex<'a> {
    /// Sorts thumbnails.
    pub fn new(thumbnails: impl Iterator<Item = &'a Thumbnail>) -> Self {
        let mut sorted: Vec<(u32, usize, &Thumbnail)> = thumbnails
            .enumerate()
            .filter(|(_, thumbnail)| thumbnail.has_contrast())
            .map(|(index, thumbnail)| (thumbnail.sum(), index, thumbnail))
            .collect();
        sorted.sort_by_key(|&(sum, index, _)| (sum, index));
        Self { sorted }
    }

    /// Returns the place of the first thumbnail that is like one.
    pub fn find(&self, thumbnail: &Thumbnail) -> Option<usize> {
        let sum = thumbnail.sum();
        let least = sum.saturating_sub(LARGEST_SUM);
        let start = self.sorted.partition_point(|(sum, ..)| *sum < least);
        let near =
            self.sorted[start..].iter().take_while(|(other, ..)| *other <= sum + LARGEST_SUM);
        near.filter(|(.., other)| other.is_like(thumbnail)).map(|(_, index, _)| *index).min()
    }
}

#[cfg(test)]
mod tests {
    use image::codecs::jpeg::JpegEncoder;
    use image::imageops::{self, FilterType};
    use protoseg_synthetic::render_scene;

    use super::*;

    fn scene(number: u64, height: usize, width: usize) -> RgbImage {
        let pixels = render_scene(7, number, height, width).image;
        RgbImage::from_raw(width as u32, height as u32, pixels).unwrap()
    }

    fn saved_again(image: &RgbImage, quality: u8) -> RgbImage {
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(image).unwrap();
        image::load_from_memory(&bytes).unwrap().into_rgb8()
    }

    #[test]
    fn copies_are_found_at_other_qualities_and_sizes_and_other_images_are_not() {
        let scenes: Vec<RgbImage> = (0..40).map(|number| scene(number, 96, 128)).collect();
        let thumbnails: Vec<Thumbnail> = scenes.iter().map(Thumbnail::new).collect();
        let index = ThumbnailIndex::new(thumbnails.iter());
        for (number, image) in scenes.iter().enumerate().take(12) {
            for quality in [30, 60, 90] {
                let copy = Thumbnail::new(&saved_again(image, quality));
                assert_eq!(index.find(&copy), Some(number), "{quality}");
            }
            let half = imageops::resize(image, 64, 48, FilterType::Triangle);
            assert_eq!(index.find(&Thumbnail::new(&half)), Some(number));
            let wide = imageops::resize(image, 128, 64, FilterType::Triangle);
            assert_eq!(index.find(&Thumbnail::new(&wide)), None);
        }
        for number in 100..160 {
            assert_eq!(index.find(&Thumbnail::new(&scene(number, 96, 128))), None, "{number}");
        }
        let flat = Thumbnail::new(&RgbImage::from_pixel(90, 70, [50; 3].into()));
        assert!(!flat.is_like(&flat));
    }

    #[test]
    fn thumbnails_are_texts_in_files() {
        for image in [scene(3, 48, 80), RgbImage::new(3, 5)] {
            let thumbnail = Thumbnail::new(&image);
            let text = serde_json::to_string(&thumbnail).unwrap();
            assert_eq!(serde_json::from_str::<Thumbnail>(&text).unwrap(), thumbnail);
        }
        assert!(serde_json::from_str::<Thumbnail>("\"0011 1.5\"").is_err());
    }
}
