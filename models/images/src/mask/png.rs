//! Masks in PNG: every color type and depth.

use std::io::Cursor;

use image::ImageFormat;
use image::metadata::Orientation;
use png::{BitDepth, ColorType, Transformations};

use super::{Mask, MaskFile, MaskSamples, TRAIN_IDS_KEYWORD, unpack};
use crate::label_map::LabelMapError;

pub(super) fn read(file: MaskFile<'_>, bytes: &[u8]) -> Result<Mask, LabelMapError> {
    file.check_frames(bytes, ImageFormat::Png)?;
    let broken = |source| LabelMapError::Broken { path: file.path.into(), source };
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(Transformations::IDENTITY);
    let header = decoder.read_header_info().map_err(broken)?;
    let (width, height) = header.size();
    let (color, depth) = (header.color_type, header.bit_depth);
    let size = file.check_size(width, height)?;
    let mut reader = decoder.read_info().map_err(broken)?;
    let channels = color.samples();
    let row = (width as usize * channels * depth as usize).div_ceil(8);
    let mut samples = vec![0; row * height as usize];
    reader.next_frame(&mut samples).map_err(broken)?;
    // Reads to the end mark, so that a file truncated behind the pixels is noticed too.
    reader.finish().map_err(broken)?;
    let samples = match depth {
        BitDepth::Eight => file.samples(samples, channels)?,
        BitDepth::Sixteen => {
            let wide = samples.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            file.deep_samples(wide.collect(), channels)?
        }
        _ => MaskSamples::Ids(unpack(&samples, width as usize, depth as usize)),
    };
    let info = reader.info();
    let samples = match (samples, color, &info.palette) {
        (MaskSamples::Ids(indices), ColorType::Indexed, Some(palette)) => {
            let palette = palette.as_chunks().0.to_vec();
            MaskSamples::Indexed { indices, palette }
        }
        (samples, ..) => samples,
    };
    let marked = info.utf8_text.iter().find(|text| text.keyword == TRAIN_IDS_KEYWORD);
    let names = marked.and_then(|text| text.get_text().ok());
    let train_ids_of = names.and_then(|names| serde_json::from_str(&names).ok());
    let orientation = info.exif_metadata.as_deref().and_then(Orientation::from_exif_chunk);
    let orientation = orientation.unwrap_or(Orientation::NoTransforms);
    Ok(Mask { train_ids_of, orientation, ..file.mask(size, samples) })
}
