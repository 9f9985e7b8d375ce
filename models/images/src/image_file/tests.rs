use image::codecs::jpeg::JpegEncoder;
use image::{GrayAlphaImage, GrayImage, ImageBuffer, ImageEncoder, Rgb, RgbaImage};

use super::*;

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn colors() -> RgbImage {
    RgbImage::from_fn(9, 7, |x, y| Rgb([x as u8 * 25, y as u8 * 30, 200]))
}

#[test]
fn every_sample_format_comes_out_as_rgb() {
    let png = |image: DynamicImage| decode(&encoded(&image, ImageFormat::Png), MAX_PIXELS).unwrap();
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Tiff, ImageFormat::Bmp] {
        assert_eq!(decode(&encoded(&colors().into(), format), MAX_PIXELS).unwrap(), colors());
    }
    let deep = ImageBuffer::from_fn(3, 1, |x, _| Rgb([[0_u16, 32_896, 65_535][x as usize]; 3]));
    assert_eq!(png(deep.into()).as_raw(), &[0, 0, 0, 128, 128, 128, 255, 255, 255]);
    let deep_gray: ImageBuffer<image::Luma<u16>, Vec<u16>> =
        ImageBuffer::from_raw(1, 1, vec![514]).unwrap();
    assert_eq!(png(deep_gray.into()).as_raw(), &[2, 2, 2]);
    assert_eq!(
        png(GrayImage::from_raw(2, 1, vec![0, 77]).unwrap().into()).as_raw(),
        &[0, 0, 0, 77, 77, 77]
    );
    let gray_alpha = GrayAlphaImage::from_raw(2, 1, vec![100, 255, 100, 51]).unwrap();
    assert_eq!(png(gray_alpha.into()).as_raw(), &[100; 6]);
    let alpha =
        RgbaImage::from_raw(3, 1, vec![1, 2, 3, 255, 10, 20, 30, 0, 255, 0, 100, 128]).unwrap();
    assert_eq!(png(alpha.into()).as_raw(), &[1, 2, 3, 10, 20, 30, 255, 0, 100]);
}

#[test]
fn files_cut_short_are_errors_in_every_format() {
    let image: DynamicImage =
        RgbImage::from_fn(64, 48, |x, y| Rgb([(x * y) as u8, (x ^ y) as u8, x as u8])).into();
    for format in [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
        ImageFormat::Tiff,
        ImageFormat::Gif,
    ] {
        let bytes = encoded(&image, format);
        decode(&bytes, MAX_PIXELS).unwrap();
        for length in [bytes.len() / 4, bytes.len() / 2, bytes.len() * 9 / 10] {
            assert!(
                decode(&bytes[..length], MAX_PIXELS).is_err(),
                "{format:?} cut to {length} of {}",
                bytes.len()
            );
        }
    }
    for bytes in [&b""[..], b"hello", b"GIF90a\x01\x00\x01\x00\x00\x00\x00"] {
        assert!(matches!(decode(bytes, MAX_PIXELS), Err(DecodeError::UnknownFormat)));
    }
}

#[test]
fn only_files_that_may_hold_the_pixels_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.png");
    std::fs::File::create(&path).unwrap().set_len(1 << 27).unwrap();
    let message = read(&path, 100).unwrap_err().to_string();
    assert!(
        message.contains("long.png: 134217728 bytes are more than an image of 100 pixels"),
        "{message}"
    );
    assert!(matches!(read(folder.path(), 100), Err(ImageFileError::NotAFile(_))));
    assert!(matches!(read("/dev/zero".as_ref(), 100), Err(ImageFileError::NotAFile(_))));
}

#[test]
fn sixteen_bits_are_scaled_by_the_chosen_range_and_eight_stay() {
    let reading = ImageReading { channels: None, range: "0:4080".parse().ok() };
    let deep = ImageBuffer::from_fn(3, 1, |x, _| Rgb([[0_u16, 2032, 4080][x as usize]; 3]));
    let bytes = encoded(&deep.into(), ImageFormat::Png);
    let read = |bytes: &[u8], reading| {
        EncodedImage::new(bytes, MAX_PIXELS).unwrap().decode_as(reading).unwrap()
    };
    let default = read(&bytes, ImageReading::default());
    assert_eq!(default.image.as_raw(), &[0, 0, 0, 8, 8, 8, 16, 16, 16]);
    assert_eq!(default.notes.unused_range.unwrap().largest, 4080);
    let scaled = read(&bytes, reading);
    assert_eq!(scaled.image.as_raw(), &[0, 0, 0, 127, 127, 127, 255, 255, 255]);
    assert_eq!(scaled.notes, ImageNotes::default());
    let bytes = encoded(&colors().into(), ImageFormat::Png);
    assert_eq!(read(&bytes, reading).image, colors());
    // PNM says which value is white.
    let pgm = b"P5 2 1 4095\n\x00\x00\x0F\xFF";
    assert_eq!(read(pgm, reading).image.as_raw(), &[0, 0, 0, 255, 255, 255]);
}

#[test]
fn jpegs_without_end_are_taken_where_all_blocks_are_there() {
    let image = RgbImage::from_fn(97, 60, |x, y| {
        Rgb([(x * 5) as u8, (y * 4) as u8, (x * y) as u8 ^ (x / 3) as u8])
    });
    for quality in [40, 97] {
        let mut whole = Vec::new();
        JpegEncoder::new_with_quality(&mut whole, quality).encode_image(&image).unwrap();
        let expected = decode(&whole, MAX_PIXELS).unwrap();
        let body = &whole[..whole.len() - 2];
        let zeros = vec![0; 512 - body.len() % 512];
        for end in [&[][..], &[0, 0], &[0xFF], &[0xFF, 0xFF], &zeros] {
            let bytes = [body, end].concat();
            let noted = EncodedImage::new(bytes.as_slice(), MAX_PIXELS).unwrap();
            let noted = noted.decode_as(ImageReading::default()).unwrap();
            assert!(noted.image == expected && noted.notes.no_end_marker, "{end:?}");
        }
        for bytes in [&whole[..], &[&whole, &whole[..]].concat(), &[body, b"\0\xFF\xD9"].concat()] {
            let noted = EncodedImage::new(bytes, MAX_PIXELS).unwrap();
            let noted = noted.decode_as(ImageReading::default()).unwrap();
            assert!(noted.image == expected && !noted.notes.no_end_marker);
        }
        for cut in [4, 8, body.len() / 3] {
            let zeros = [&body[..body.len() - cut], &[0; 300]].concat();
            for bytes in [&body[..body.len() - cut], &zeros] {
                let message = decode(bytes, MAX_PIXELS).unwrap_err().to_string();
                assert!(message.contains("of 60 rows of the JPEG are complete"), "{message}");
            }
        }
    }
}

#[test]
fn limits_float_samples_and_orientation() {
    let bytes = encoded(&colors().into(), ImageFormat::Png);
    let message = decode(&bytes, 62).unwrap_err().to_string();
    assert!(message.starts_with("9x7 pixels are more than the limit of 62"), "{message}");
    decode(&bytes, 63).unwrap();
    let float: image::Rgb32FImage = ImageBuffer::from_pixel(2, 2, Rgb([0.5, 0.5, 0.5]));
    let bytes = encoded(&float.into(), ImageFormat::Tiff);
    assert!(matches!(decode(&bytes, MAX_PIXELS), Err(DecodeError::UnknownRange { .. })));
    // TIFF header, one entry: tag 0x0112 (orientation), short, 6 = rotate by 90 degrees
    // clockwise to view.
    let exif = b"MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 100);
    encoder.set_exif_metadata(exif).unwrap();
    let stored = RgbImage::from_fn(32, 16, |x, _| Rgb([if x < 16 { 250 } else { 5 }; 3]));
    encoder.encode_image(&stored).unwrap();
    let seen = decode(&bytes, MAX_PIXELS).unwrap();
    assert_eq!(seen.dimensions(), (16, 32));
    assert!(seen.get_pixel(8, 2)[0] > 240 && seen.get_pixel(8, 29)[0] < 15);
}
