//! Masks in TIFF: gray of 1 to 32 bits, RGB and RGBA.

use std::io::Cursor;

use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;

use super::{Mask, MaskFile, MaskSamples, ids, unpack};
use crate::label_map::LabelMapError;

/// Values of the tag `Compression` whose samples are those of JPEG.
const JPEG: [u16; 2] = [6, 7];

pub(super) fn read(file: MaskFile<'_>, bytes: &[u8]) -> Result<Mask, LabelMapError> {
    let broken = |source| LabelMapError::Tiff { path: file.path.into(), source };
    let mut limits = Limits::default();
    // Four samples of 16 bits a pixel.
    limits.decoding_buffer_size =
        usize::try_from(file.max_pixels.saturating_mul(8)).unwrap_or(usize::MAX);
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(broken)?.with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(broken)?;
    let size = file.check_size(width, height)?;
    let compression: Option<u16> = decoder.find_tag_unsigned(Tag::Compression).map_err(broken)?;
    if compression.is_some_and(|compression| JPEG.contains(&compression)) {
        return Err(LabelMapError::Lossy { path: file.path.into(), format: "JPEG inside a TIFF" });
    }
    let color = decoder.colortype().map_err(broken)?;
    let kind = || file.kind(format!("{color:?} TIFF"));
    let channels = match color {
        ColorType::Gray(_) => 1,
        ColorType::GrayA(_) | ColorType::Multiband { num_samples: 2, .. } => 2,
        ColorType::RGB(_) => 3,
        ColorType::RGBA(_) => 4,
        _ => return Err(kind()),
    };
    let samples = match (decoder.read_image().map_err(broken)?, color) {
        (DecodingResult::U8(packed), ColorType::Gray(bits @ (1 | 2 | 4))) => {
            MaskSamples::Ids(unpack(&packed, width as usize, bits.into()))
        }
        (DecodingResult::U8(samples), _) => file.samples(samples, channels)?,
        (DecodingResult::U16(samples), _) => file.deep_samples(samples, channels)?,
        (DecodingResult::U32(samples), _) if channels == 1 => {
            ids(narrow(samples).ok_or_else(kind)?)
        }
        (DecodingResult::I8(samples), _) if channels == 1 => ids(narrow(samples).ok_or_else(kind)?),
        (DecodingResult::I16(samples), _) if channels == 1 => {
            ids(narrow(samples).ok_or_else(kind)?)
        }
        (DecodingResult::I32(samples), _) if channels == 1 => {
            ids(narrow(samples).ok_or_else(kind)?)
        }
        _ => return Err(kind()),
    };
    let [height, width] = size;
    let count = match &samples {
        MaskSamples::Ids(ids) => ids.len(),
        MaskSamples::WideIds(ids) => ids.len(),
        MaskSamples::Indexed { indices, .. } => indices.len(),
        MaskSamples::Colors(colors) => colors.len(),
    };
    // Planes in places of their own come without all their samples.
    if count == height * width { Ok(file.mask(size, samples)) } else { Err(kind()) }
}

/// Ids of another type; `None` if one is negative or above 65535.
fn narrow<T: TryInto<u16>>(samples: Vec<T>) -> Option<Vec<u16>> {
    samples.into_iter().map(|sample| sample.try_into().ok()).collect()
}
