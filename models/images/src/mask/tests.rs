//! Masks of every encoding with the same ids or colors.

use ::tiff::encoder::TiffEncoder;
use ::tiff::encoder::colortype::{Gray8, GrayI32};
use ::tiff::tags::Tag;
use image::{
    DynamicImage, GrayAlphaImage, GrayImage, ImageBuffer, ImageFormat, Luma, RgbImage, RgbaImage,
};

use super::*;

fn read(image: impl Into<DynamicImage>, format: ImageFormat) -> Result<MaskSamples, LabelMapError> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    read_bytes(&bytes.into_inner())
}

fn read_bytes(bytes: &[u8]) -> Result<MaskSamples, LabelMapError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.any");
    std::fs::write(&path, bytes).unwrap();
    let mask = Mask::read(&path, 100)?;
    assert_eq!(mask.size(), [1, 3]);
    Ok(mask.samples)
}

#[test]
fn ids_and_colors_come_out_as_they_went_in() {
    let ids = MaskSamples::Ids(vec![0, 7, 255]);
    let colors = MaskSamples::Colors(vec![[1, 2, 3], [4, 5, 6], [255, 0, 9]]);
    let gray = GrayImage::from_raw(3, 1, vec![0, 7, 255]).unwrap();
    let rgb = RgbImage::from_raw(3, 1, vec![1, 2, 3, 4, 5, 6, 255, 0, 9]).unwrap();
    let rgba: RgbaImage = DynamicImage::from(rgb.clone()).to_rgba8();
    let deep: ImageBuffer<Luma<u16>, Vec<u16>> =
        ImageBuffer::from_raw(3, 1, vec![0, 7, 255]).unwrap();
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        assert_eq!(read(gray.clone(), format).unwrap(), ids);
        assert_eq!(read(deep.clone(), format).unwrap(), ids);
        assert_eq!(read(rgb.clone(), format).unwrap(), colors);
        assert_eq!(read(rgba.clone(), format).unwrap(), colors);
        let deep_colors = DynamicImage::from(rgb.clone()).to_rgb16();
        assert_eq!(read(deep_colors, format).unwrap(), colors);
    }
    assert_eq!(read(rgba.clone(), ImageFormat::WebP).unwrap(), colors);
    let gray_alpha = GrayAlphaImage::from_raw(3, 1, vec![0, 255, 7, 255, 255, 255]).unwrap();
    assert_eq!(read(gray_alpha, ImageFormat::Png).unwrap(), ids);
    let wide: ImageBuffer<Luma<u16>, Vec<u16>> =
        ImageBuffer::from_raw(3, 1, vec![0, 7, 256]).unwrap();
    assert_eq!(read(wide, ImageFormat::Png).unwrap(), MaskSamples::WideIds(vec![0, 7, 256]));
}

/// A TIFF of one row of floating-point samples.
fn float_tiff(samples: [f32; 3]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = ::tiff::encoder::TiffEncoder::new(&mut bytes).unwrap();
    encoder.write_image::<::tiff::encoder::colortype::Gray32Float>(3, 1, &samples).unwrap();
    bytes.into_inner()
}

#[test]
fn floats_without_fractions_are_ids() {
    let read = |samples| read_bytes(&float_tiff(samples)).unwrap();
    assert_eq!(read([0.0, 1.0, 255.0]), MaskSamples::Ids(vec![0, 1, 255]));
    assert_eq!(read([-0.0, 1.0, 26_001.0]), MaskSamples::WideIds(vec![0, 1, 26_001]));
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = ::tiff::encoder::TiffEncoder::new(&mut bytes).unwrap();
    encoder.write_image::<::tiff::encoder::colortype::Gray32>(3, 1, &[0, 7, 70_000]).unwrap();
    assert_eq!(read_bytes(&bytes.into_inner()).unwrap(), MaskSamples::WideIds(vec![0, 7, 70_000]));
}

#[test]
fn what_changes_samples_is_refused_with_the_reason() {
    let message = |result: Result<MaskSamples, LabelMapError>| result.unwrap_err().to_string();
    let gray = GrayImage::new(3, 1);
    let jpeg = message(read(gray, ImageFormat::Jpeg));
    assert!(
        jpeg.contains("is JPEG, which cannot hold ids") && jpeg.contains("--threshold"),
        "{jpeg}"
    );
    let mut clear = RgbaImage::from_pixel(3, 1, image::Rgba([9, 9, 9, 255]));
    clear.get_pixel_mut(1, 0).0[3] = 0;
    let clear = message(read(clear, ImageFormat::Png));
    assert!(clear.contains("1 pixels are transparent"), "{clear}");
    for (samples, parts) in [
        ([0.5, 1.0, 0.0], ["from 0 to 1, of which 1 of 3 are no ids", "--threshold"]),
        ([0.0, -1.0, 2.0], ["from -1 to 2", "of which 1 of 3"]),
        ([0.0, f32::NAN, 2.0], ["from 0 to 2, of which 1 are no number (NaN)", "such as 255"]),
        ([0.0, f32::INFINITY, 2.0], ["from 0 to inf", "of which 1 of 3"]),
    ] {
        let error = message(read_bytes(&float_tiff(samples)));
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    let float = image::Rgb32FImage::new(3, 1);
    let float = message(read(float, ImageFormat::Tiff));
    assert!(float.contains("not one 8-bit id per pixel"), "{float}");
    let odd: ImageBuffer<image::Rgb<u16>, Vec<u16>> =
        ImageBuffer::from_raw(3, 1, vec![1000; 9]).unwrap();
    assert!(message(read(odd, ImageFormat::Png)).contains("16-bit colors"));
    assert!(message(read_bytes(b"GIF89a")).contains("GIF"));
    assert!(matches!(read_bytes(b""), Err(LabelMapError::Broken { .. })));
    assert!(matches!(read_bytes(b"II*\0"), Err(LabelMapError::Tiff { .. })));
    assert!(matches!(Mask::read(Path::new("/dev/zero"), 10), Err(LabelMapError::NotAFile(_))));
}

#[test]
fn bits_of_a_tiff_are_ids() {
    // Little-endian, 1 bit, 3x1 pixels, black is zero, uncompressed: 101.
    let mut bytes = b"II*\0\x08\0\0\0\x08\0".to_vec();
    let entries: [(u16, u32); 8] =
        [(256, 3), (257, 1), (258, 1), (259, 1), (262, 1), (273, 110), (278, 1), (279, 1)];
    for (tag, value) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(4_u16.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    assert_eq!(bytes.len(), 110);
    bytes.push(0b1010_0000);
    assert_eq!(read_bytes(&bytes).unwrap(), MaskSamples::Ids(vec![1, 0, 1]));
}

/// A TIFF of gray pages: width, height, whether it says that it is a reduced one, and its samples.
fn pages(pages: &[(u32, u32, bool, &[u8])]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes).unwrap();
    for &(width, height, is_reduced, samples) in pages {
        let mut page = encoder.new_image::<Gray8>(width, height).unwrap();
        page.encoder().write_tag(Tag::NewSubfileType, u32::from(is_reduced)).unwrap();
        page.write_data(samples).unwrap();
    }
    bytes.into_inner()
}

#[test]
fn pages_and_frames_that_could_each_be_the_mask_are_refused_with_their_number() {
    let (whole, other) = (&[0, 7, 255][..], &[1, 1, 1][..]);
    let two = read_bytes(&pages(&[(3, 1, false, whole), (3, 1, false, other)]));
    let two = two.unwrap_err().to_string();
    for part in ["a.any holds 2 pages of full size", "save the right one alone", "convert"] {
        assert!(two.contains(part), "{part}: {two}");
    }
    let sizes = pages(&[(3, 1, false, whole), (1, 3, false, other), (1, 1, true, &[0])]);
    assert!(read_bytes(&sizes).unwrap_err().to_string().contains("2 pages"));
    // Reduced pages beside the only full one, in either order.
    let ids = MaskSamples::Ids(whole.to_vec());
    assert_eq!(read_bytes(&pages(&[(3, 1, false, whole), (2, 1, true, &[5, 5])])).unwrap(), ids);
    assert_eq!(read_bytes(&pages(&[(2, 1, true, &[5, 5]), (3, 1, false, whole)])).unwrap(), ids);
    let mut animated = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut animated, 3, 1);
    encoder.set_animated(2, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    [whole, other].iter().for_each(|frame| writer.write_image_data(frame).unwrap());
    writer.finish().unwrap();
    assert!(read_bytes(&animated).unwrap_err().to_string().contains("holds 2 frames"));
}

#[test]
fn samples_below_0_are_named_as_they_are() {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes).unwrap();
    encoder.write_image::<GrayI32>(3, 1, &[0, -1, 2]).unwrap();
    let error = read_bytes(&bytes.into_inner()).unwrap_err().to_string();
    assert!(
        error.contains("from -1 to 2") && error.contains("1 of 3 are none, such as -1"),
        "{error}"
    );
}
