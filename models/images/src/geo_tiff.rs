//! Label maps as GeoTIFF, with the place on Earth of their images.

use std::io::Cursor;

use tiff::encoder::{Compression, DeflateLevel, TiffEncoder, colortype};
use tiff::tags::Tag;

use crate::geo::GeoReference;
use crate::label_map::LabelMap;

/// A label map that cannot be written as GeoTIFF.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode a GeoTIFF")]
pub struct GeoTiffError(#[from] tiff::TiffError);

/// Encodes train ids as an 8-bit gray TIFF, compressed by Deflate, with the tags of the image that
/// say where it lies; `GDAL_NODATA` is 255, the label of ignored pixels.
pub fn encode(map: &LabelMap, geo: &GeoReference) -> Result<Vec<u8>, GeoTiffError> {
    let mut bytes = Cursor::new(Vec::new());
    let compression = Compression::Deflate(DeflateLevel::Balanced);
    let mut encoder = TiffEncoder::new(&mut bytes)?.with_compression(compression);
    let mut image = encoder.new_image::<colortype::Gray8>(map.width as u32, map.height as u32)?;
    let directory = image.encoder();
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
    directory.write_tag(Tag::GdalNodata, "255")?;
    image.write_data(&map.labels)?;
    Ok(bytes.into_inner())
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
