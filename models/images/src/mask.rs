//! Masks as annotation tools save them: ids, palette indices or colors, in PNG, TIFF and lossless
//! WebP. What they mean is said by [`LabelMapping`](crate::label_mapping::LabelMapping).

mod png;
mod tiff;

use std::io::Cursor;
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat};
use protoseg_models::errors::FileError;

use crate::animation;
use crate::label_map::LabelMapError;

/// Name of the PNG text that lists the classes of a mask of train ids, as JSON.
pub(crate) const TRAIN_IDS_KEYWORD: &str = "protoseg train ids";

/// A mask before its samples are given a meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Samples `[height, width]`.
    pub samples: MaskSamples,
    /// EXIF orientation of the file, which is not applied to the samples.
    pub orientation: Orientation,
    /// Names of the classes by train id, in a mask of train ids that protoseg wrote for classes with
    /// other ids.
    pub train_ids_of: Option<Vec<String>>,
}

/// Samples of a mask, `[height, width]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MaskSamples {
    /// One id a pixel.
    Ids(Vec<u8>),
    /// One id a pixel, of which some are above 255.
    WideIds(Vec<u32>),
    /// Indices into a palette of RGB colors.
    Indexed {
        /// One index a pixel.
        indices: Vec<u8>,
        /// Colors of the first indices.
        palette: Vec<[u8; 3]>,
    },
    /// One RGB color a pixel.
    Colors(Vec<[u8; 3]>),
}

impl Mask {
    /// Reads a mask of at most `max_pixels` pixels; the format is told by content.
    ///
    /// Refused, as their samples do not come out as they went in: JPEG and lossy WebP, partly
    /// transparent pixels, 16-bit colors that are not 8-bit ones, floating-point samples that are no
    /// whole numbers.
    pub fn read(path: &Path, max_pixels: u64) -> Result<Self, LabelMapError> {
        let file = MaskFile { path, max_pixels };
        let metadata = path.metadata().map_err(FileError::at(path))?;
        if !metadata.is_file() {
            // Reading a pipe or a device might never end.
            return Err(LabelMapError::NotAFile(path.into()));
        }
        // Four samples of 32 bits a pixel, and 64 MiB of metadata.
        if metadata.len() > max_pixels.saturating_mul(16).saturating_add(1 << 26) {
            let bytes = metadata.len();
            return Err(LabelMapError::TooLong { path: path.into(), bytes, limit: max_pixels });
        }
        let bytes = std::fs::read(path).map_err(FileError::at(path))?;
        match &bytes[..] {
            [0xff, 0xd8, 0xff, ..] => {
                Err(LabelMapError::Lossy { path: path.into(), format: "JPEG" })
            }
            [b'I', b'I', ..] | [b'M', b'M', ..] => tiff::read(file, &bytes),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
                read_webp(file, &bytes)
            }
            [b'B', b'M', ..] | [b'G', b'I', b'F', ..] => {
                let format = if bytes[0] == b'B' { "BMP" } else { "GIF" };
                Err(LabelMapError::Format { path: path.into(), format })
            }
            // Anything else is a broken PNG, whose decoder says what is wrong.
            _ => png::read(file, &bytes),
        }
    }

    /// Returns height and width.
    pub fn size(&self) -> [usize; 2] {
        [self.height, self.width]
    }
}

impl MaskSamples {
    /// Returns the ids; `None` for colors.
    pub fn into_ids(self) -> Option<Vec<u32>> {
        match self {
            Self::Ids(ids) | Self::Indexed { indices: ids, .. } => {
                Some(ids.into_iter().map(u32::from).collect())
            }
            Self::WideIds(ids) => Some(ids),
            Self::Colors(_) => None,
        }
    }
}

/// A file that is being read.
#[derive(Debug, Clone, Copy)]
struct MaskFile<'a> {
    path: &'a Path,
    max_pixels: u64,
}

impl MaskFile<'_> {
    fn check_size(self, width: u32, height: u32) -> Result<[usize; 2], LabelMapError> {
        if u64::from(width) * u64::from(height) > self.max_pixels {
            let (path, limit) = (self.path.into(), self.max_pixels);
            return Err(LabelMapError::TooLarge { path, width, height, limit });
        }
        Ok([height as usize, width as usize])
    }

    fn kind(self, found: impl Into<String>) -> LabelMapError {
        LabelMapError::Kind { path: self.path.into(), found: found.into() }
    }

    fn pages(self, count: usize) -> LabelMapError {
        LabelMapError::Several { path: self.path.into(), count, unit: "pages" }
    }

    /// Refuses an animation, of which one frame alone would be read.
    fn check_frames(self, bytes: &[u8], format: ImageFormat) -> Result<(), LabelMapError> {
        match animation::frames(bytes, format) {
            0 | 1 => Ok(()),
            count => Err(LabelMapError::Several { path: self.path.into(), count, unit: "frames" }),
        }
    }

    fn mask(self, [height, width]: [usize; 2], samples: MaskSamples) -> Mask {
        let orientation = Orientation::NoTransforms;
        Mask { height, width, samples, orientation, train_ids_of: None }
    }

    /// Gives 8-bit samples of 1 to 4 channels their form: gray, gray and alpha, RGB, RGBA.
    fn samples(self, samples: Vec<u8>, channels: usize) -> Result<MaskSamples, LabelMapError> {
        if channels.is_multiple_of(2) {
            self.check_alpha(
                samples.chunks_exact(channels).map(|pixel| pixel[channels - 1] == 255),
            )?;
        }
        Ok(match channels {
            1 => MaskSamples::Ids(samples),
            2 => MaskSamples::Ids(samples.into_iter().step_by(2).collect()),
            _ => {
                let color = |pixel: &[u8]| [pixel[0], pixel[1], pixel[2]];
                MaskSamples::Colors(samples.chunks_exact(channels).map(color).collect())
            }
        })
    }

    /// The same for 16-bit samples. Colors must be 8-bit ones, repeated in both bytes.
    fn deep_samples(
        self,
        samples: Vec<u16>,
        channels: usize,
    ) -> Result<MaskSamples, LabelMapError> {
        if channels <= 2 {
            if channels == 2 {
                self.check_alpha(samples.chunks_exact(2).map(|pixel| pixel[1] == u16::MAX))?;
            }
            return Ok(ids(samples.into_iter().step_by(channels).collect::<Vec<u16>>()));
        }
        let byte = |sample: u16| {
            let [high, low] = sample.to_be_bytes();
            (high == low).then_some(high)
        };
        let bytes: Option<Vec<u8>> = samples.into_iter().map(byte).collect();
        let bytes = bytes.ok_or_else(|| self.kind("16-bit colors that no 8-bit color equals"))?;
        self.samples(bytes, channels)
    }

    fn check_alpha(self, opaque: impl Iterator<Item = bool>) -> Result<(), LabelMapError> {
        let pixels = opaque.filter(|opaque| !opaque).count();
        let path = self.path.into();
        if pixels == 0 { Ok(()) } else { Err(LabelMapError::Transparent { path, pixels }) }
    }
}

/// Ids as bytes where they fit.
fn ids<T: Copy + Into<u32>>(wide: Vec<T>) -> MaskSamples {
    let bytes: Option<Vec<u8>> = wide.iter().map(|&id| u8::try_from(id.into()).ok()).collect();
    let wide = || MaskSamples::WideIds(wide.into_iter().map(Into::into).collect());
    bytes.map_or_else(wide, MaskSamples::Ids)
}

/// Unpacks samples of 1, 2 or 4 bits, the first in the highest bits; rows start on whole bytes.
pub(crate) fn unpack(packed: &[u8], width: usize, bits: usize) -> Vec<u8> {
    let mask = (1_u8 << bits) - 1;
    let sample = |row: &[u8], column: usize| {
        let bit = column * bits;
        row[bit / 8] >> (8 - bits - bit % 8) & mask
    };
    let samples = |row| (0..width).map(move |column| sample(row, column));
    packed.chunks_exact((width * bits).div_ceil(8).max(1)).flat_map(samples).collect()
}

fn read_webp(file: MaskFile<'_>, bytes: &[u8]) -> Result<Mask, LabelMapError> {
    let path = file.path;
    file.check_frames(bytes, ImageFormat::WebP)?;
    if !webp_is_lossless(bytes) {
        return Err(LabelMapError::Lossy { path: path.into(), format: "lossy WebP" });
    }
    let broken = |source| LabelMapError::Image { path: path.into(), source };
    let mut decoder = image::codecs::webp::WebPDecoder::new(Cursor::new(bytes)).map_err(broken)?;
    let (width, height) = decoder.dimensions();
    let orientation = decoder.orientation().map_err(broken)?;
    let size = file.check_size(width, height)?;
    let channels = usize::from(decoder.color_type().channel_count());
    let image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    let samples = file.samples(image.into_bytes(), channels)?;
    // WebP has no gray: ids come as equal channels.
    Ok(Mask { orientation, ..file.mask(size, samples) })
}

/// Returns true if a chunk of the RIFF file holds a lossless image.
fn webp_is_lossless(bytes: &[u8]) -> bool {
    animation::chunks(bytes).any(|name| name == *b"VP8L")
}

#[cfg(test)]
mod tests;
