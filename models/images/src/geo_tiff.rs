//! Label maps as GeoTIFF, with the place on Earth of their images.

use std::io::{Cursor, Seek, Write};

use flate2::write::ZlibEncoder;
use tiff::TiffError;
use tiff::encoder::{
    Compression, DeflateLevel, DirectoryEncoder, Rational, TiffEncoder, TiffKind, TiffKindBig,
    TiffKindStandard, colortype,
};
use tiff::tags::{CompressionMethod, PhotometricInterpretation, SampleFormat, Tag};

use crate::geo::GeoReference;
use crate::label_map::LabelMap;

/// Bytes of a strip, at least.
const STRIP_BYTES: usize = 1_000_000;
/// Largest size of a file whose offsets have 32 bits, with room for the tags.
const MAX_CLASSIC: u64 = u32::MAX as u64 - (64 << 20);

/// A label map that cannot be written as GeoTIFF.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode a GeoTIFF")]
pub struct GeoTiffError(#[from] TiffError);

/// Encodes train ids as an 8-bit gray TIFF, compressed by Deflate, with the tags of the image that
/// say where it lies; `GDAL_NODATA` is 255, the label of ignored pixels.
pub fn encode(map: &LabelMap, geo: &GeoReference) -> Result<Vec<u8>, GeoTiffError> {
    let mut bytes = Cursor::new(Vec::new());
    let compression = Compression::Deflate(DeflateLevel::Balanced);
    let mut encoder = TiffEncoder::new(&mut bytes)?.with_compression(compression);
    let mut image = encoder.new_image::<colortype::Gray8>(map.width as u32, map.height as u32)?;
    write_place(image.encoder(), geo)?;
    image.write_data(&map.labels)?;
    Ok(bytes.into_inner())
}

fn write_place<W: Write + Seek, K: TiffKind>(
    directory: &mut DirectoryEncoder<'_, W, K>,
    geo: &GeoReference,
) -> Result<(), TiffError> {
    for (tag, numbers) in [
        (Tag::ModelPixelScaleTag, &geo.pixel_scale),
        (Tag::ModelTiepointTag, &geo.tie_points),
        (Tag::ModelTransformationTag, &geo.transformation),
        (Tag::GeoDoubleParamsTag, &geo.double_params),
    ] {
        if !numbers.is_empty() {
            directory.write_tag(tag, numbers.as_slice())?;
        }
    }
    if !geo.key_directory.is_empty() {
        directory.write_tag(Tag::GeoKeyDirectoryTag, geo.key_directory.as_slice())?;
    }
    if !geo.ascii_params.is_empty() && geo.ascii_params.is_ascii() {
        directory.write_tag(Tag::GeoAsciiParamsTag, geo.ascii_params.as_str())?;
    }
    directory.write_tag(Tag::GdalNodata, "255")
}

/// Writes the file of [`encode`] from blocks of whole rows; a BigTIFF where it may be too large for
/// others.
pub(crate) fn write_rows<B: AsRef<[u8]>>(
    out: impl Write + Seek,
    size: [usize; 2],
    geo: &GeoReference,
    blocks: impl Iterator<Item = B>,
) -> Result<(), GeoTiffError> {
    // Deflate may not compress at all.
    if size[0] as u64 * size[1] as u64 > MAX_CLASSIC {
        write_kind::<_, TiffKindBig, _>(out, size, geo, blocks)?;
    } else {
        write_kind::<_, TiffKindStandard, _>(out, size, geo, blocks)?;
    }
    Ok(())
}

/// The encoder's own images compress only what is given at once.
fn write_kind<W: Write + Seek, K: TiffKind, B: AsRef<[u8]>>(
    out: W,
    [height, width]: [usize; 2],
    geo: &GeoReference,
    blocks: impl Iterator<Item = B>,
) -> Result<(), TiffError> {
    let mut encoder = TiffEncoder::<W, K>::new_generic(out)?;
    let mut directory = encoder.image_directory()?;
    let strip_rows = STRIP_BYTES.div_ceil(width.max(1));
    directory.write_tag(Tag::ImageWidth, width as u32)?;
    directory.write_tag(Tag::ImageLength, height as u32)?;
    directory.write_tag(Tag::Compression, CompressionMethod::Deflate.to_u16())?;
    directory.write_tag(Tag::Predictor, 1_u16)?;
    let gray = PhotometricInterpretation::BlackIsZero.to_u16();
    directory.write_tag(Tag::PhotometricInterpretation, gray)?;
    directory.write_tag(Tag::RowsPerStrip, strip_rows as u32)?;
    directory.write_tag(Tag::SamplesPerPixel, 1_u16)?;
    directory.write_tag(Tag::XResolution, Rational { n: 1, d: 1 })?;
    directory.write_tag(Tag::YResolution, Rational { n: 1, d: 1 })?;
    directory.write_tag(Tag::ResolutionUnit, 1_u16)?;
    write_place(&mut directory, geo)?;
    let mut offsets = Vec::new();
    let mut lengths = Vec::new();
    let mut write = |directory: &mut DirectoryEncoder<'_, W, K>, strip: &[u8]| {
        let mut compressed = ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
        compressed.write_all(strip)?;
        let bytes = compressed.finish()?;
        offsets.push(K::convert_offset(directory.write_data(bytes.as_slice())?)?);
        lengths.push(K::convert_offset(bytes.len() as u64)?);
        Ok::<(), TiffError>(())
    };
    let strip_bytes = strip_rows * width;
    let mut strip = Vec::with_capacity(strip_bytes);
    for block in blocks {
        let mut block = block.as_ref();
        while !block.is_empty() {
            let (part, rest) = block.split_at(block.len().min(strip_bytes - strip.len()));
            strip.extend_from_slice(part);
            block = rest;
            if strip.len() == strip_bytes {
                write(&mut directory, &strip)?;
                strip.clear();
            }
        }
    }
    if !strip.is_empty() {
        write(&mut directory, &strip)?;
    }
    directory.write_tag(Tag::BitsPerSample, [8_u16].as_slice())?;
    directory.write_tag(Tag::SampleFormat, [SampleFormat::Uint.to_u16()].as_slice())?;
    directory.write_tag(Tag::StripOffsets, K::convert_slice(&offsets))?;
    directory.write_tag(Tag::StripByteCounts, K::convert_slice(&lengths))?;
    directory.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image_file::EncodedImage;

    #[test]
    fn labels_and_tags_come_back() {
        let labels: Vec<u8> = (0..700).map(|index| (index % 20) as u8).collect();
        let map = LabelMap { height: 20, width: 35, labels };
        let geo = GeoReference {
            pixel_scale: vec![0.5, 0.5, 0.0],
            tie_points: vec![0.0, 0.0, 0.0, 500_000.0, 5_400_000.0, 0.0],
            key_directory: vec![1, 1, 0, 1, 3072, 0, 1, 32_632],
            ascii_params: "UTM zone 32N|".to_owned(),
            nodata: Some("0".to_owned()),
            ..GeoReference::default()
        };
        let bytes = encode(&map, &geo).unwrap();
        let read = EncodedImage::new(bytes, 10_000).unwrap();
        let expected = GeoReference { nodata: Some("255".to_owned()), ..geo };
        assert_eq!(read.geo_reference(), Some(&expected));
        let gray: Vec<u8> = read.decode().unwrap().pixels().map(|pixel| pixel[0]).collect();
        assert_eq!(gray, map.labels);
    }
}
