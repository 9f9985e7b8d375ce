//! Masks in TIFF: gray of 1 to 64 bits and floating-point numbers without fractions, RGB and RGBA.

use std::io::Cursor;

use image::metadata::Orientation;
use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;

use super::{Mask, MaskFile, MaskSamples, ids, unpack};
use crate::label_map::LabelMapError;
use crate::tiff_file::{self, Layout};

/// Values of the tag `Compression` whose samples are those of JPEG.
const JPEG: [u16; 2] = [6, 7];

pub(super) fn read(file: MaskFile<'_>, bytes: &[u8]) -> Result<Mask, LabelMapError> {
    let broken = |source| LabelMapError::Tiff { path: file.path.into(), source };
    let mut limits = Limits::default();
    // Four samples of 16 bits a pixel.
    limits.decoding_buffer_size =
        usize::try_from(file.max_pixels.saturating_mul(8)).unwrap_or(usize::MAX);
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(broken)?.with_limits(limits);
    if let Some(layout) = Layout::detect(bytes) {
        let page = tiff_file::only_page(bytes, layout).map_err(|pages| file.pages(pages))?;
        if page > 0 {
            decoder.seek_to_image(page).map_err(broken)?;
        }
    }
    let (width, height) = decoder.dimensions().map_err(broken)?;
    let size = file.check_size(width, height)?;
    let orientation: Option<u16> = decoder.find_tag_unsigned(Tag::Orientation).map_err(broken)?;
    let orientation = orientation.and_then(|value| Orientation::from_exif(value.min(255) as u8));
    let orientation = orientation.unwrap_or(Orientation::NoTransforms);
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
        (samples, _) if channels == 1 => ids(whole_numbers(samples)
            .map_err(|found| LabelMapError::NoIds { path: file.path.into(), found })?),
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
    if count != height * width {
        return Err(kind());
    }
    Ok(Mask { orientation, ..file.mask(size, samples) })
}

/// Ids of another type, or else what makes them none.
fn whole_numbers(samples: DecodingResult) -> Result<Vec<u32>, String> {
    match samples {
        DecodingResult::U8(samples) => integers(&samples),
        DecodingResult::U16(samples) => integers(&samples),
        DecodingResult::U32(samples) => integers(&samples),
        DecodingResult::U64(samples) => integers(&samples),
        DecodingResult::I8(samples) => integers(&samples),
        DecodingResult::I16(samples) => integers(&samples),
        DecodingResult::I32(samples) => integers(&samples),
        DecodingResult::I64(samples) => integers(&samples),
        DecodingResult::F16(samples) => floats(samples.into_iter().map(f64::from)),
        DecodingResult::F32(samples) => floats(samples.into_iter().map(f64::from)),
        DecodingResult::F64(samples) => floats(samples.into_iter()),
    }
}

fn integers<T>(samples: &[T]) -> Result<Vec<u32>, String>
where
    T: TryInto<u32> + Copy + Ord + std::fmt::Display,
{
    let is_id = |sample: &T| TryInto::<u32>::try_into(*sample).is_ok();
    let ids: Option<Vec<u32>> = samples.iter().map(|&sample| sample.try_into().ok()).collect();
    ids.ok_or_else(|| {
        let [low, high] = [samples.iter().min(), samples.iter().max()];
        let [low, high] = [low, high].map(|end| end.map_or_else(String::new, T::to_string));
        let faults = samples.iter().filter(|sample| !is_id(sample)).count();
        let first = samples.iter().find(|sample| !is_id(sample));
        let first = first.map_or_else(String::new, T::to_string);
        format!(
            "from {low} to {high}, and ids from 0 to {}: {faults} of {} are none, such as {first}; \
             give pixels without data an id of their own, such as 255",
            u32::MAX,
            samples.len()
        )
    })
}

/// Ids are floats without a fraction, as programs that calculate with masks save them.
fn floats(samples: impl Iterator<Item = f64>) -> Result<Vec<u32>, String> {
    let (mut ids, mut faults, mut missing) = (Vec::new(), 0_u64, 0_u64);
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for sample in samples {
        let is_id = sample >= 0.0 && sample <= f64::from(u32::MAX) && sample.fract() == 0.0;
        faults += u64::from(!is_id);
        missing += u64::from(sample.is_nan());
        (low, high) = (low.min(sample), high.max(sample));
        ids.push(if is_id { sample as u32 } else { 0 });
    }
    match (faults, missing) {
        (0, _) => Ok(ids),
        (faults, missing) if faults == missing => Err(format!(
            "from {low} to {high}, of which {missing} are no number (NaN); give these pixels an id of \
             their own, such as 255"
        )),
        (faults, _) => Err(format!(
            "from {low} to {high}, of which {faults} of {} are no ids; save ids as 8-bit integers, or \
             probabilities times 255, for `protoseg convert --threshold`",
            ids.len()
        )),
    }
}
