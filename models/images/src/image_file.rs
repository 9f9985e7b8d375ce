//! Image files to 8-bit RGB: PNG, JPEG, WebP and TIFF, told apart by content.
//!
//! 16-bit samples are scaled to 8, gray is replicated, palettes are looked up, EXIF orientation is
//! applied, transparent pixels lie over black. Refused, as the pixels would come out wrong:
//! truncated files, floating-point samples, CMYK without Adobe's marker, images larger than the
//! limit.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{
    ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage,
    Rgba,
};
use protoseg_models::errors::FileError;

use crate::jpeg;

/// Default limit of pixels in an image.
pub const MAX_PIXELS: u64 = 200_000_000;

/// The reason why bytes cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum DecodeError {
    /// None of the formats.
    #[error("not an image of a known format (PNG, JPEG, WebP, TIFF)")]
    UnknownFormat,
    /// Bytes that break the format.
    #[error("broken or cut short: {0}")]
    Broken(#[source] ImageError),
    /// An unsupported kind of image within a known format.
    #[error("unsupported kind of image: {0}; convert it to an RGB PNG")]
    Unsupported(#[source] ImageError),
    /// A JPEG without its end, or with less data than its pixels need.
    #[error("cut short: the JPEG data ends before the end of the image")]
    Truncated,
    /// More pixels than allowed.
    #[error(
        "{width}x{height} pixels are more than the limit of {limit}; scale it down, or raise \
         --max-pixels where there is that option"
    )]
    TooLarge { width: u32, height: u32, limit: u64 },
    /// More bytes than `limit` pixels can have.
    #[error(
        "{bytes} bytes are more than an image of {limit} pixels can have; scale it down, or raise \
         --max-pixels where there is that option"
    )]
    TooLong { bytes: u64, limit: u64 },
    /// Samples of unknown range.
    #[error("floating-point samples have no known range; convert the image to 8 or 16 bits")]
    FloatSamples,
    /// Four inks of unknown polarity.
    #[error(
        "a CMYK JPEG without Adobe's marker does not tell how its inks are stored; convert the \
         image to RGB"
    )]
    Cmyk,
}

/// The reason why an image file cannot be read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum ImageFileError {
    /// An I/O error.
    #[error(transparent)]
    File(#[from] FileError),
    /// A folder, a pipe or a device.
    #[error("{} is not a file", .0.display())]
    NotAFile(PathBuf),
    /// Content that cannot be decoded.
    #[error("{}: {source}", path.display())]
    Decode { path: PathBuf, source: DecodeError },
}

/// An encoded image of known size.
pub struct EncodedImage<'a> {
    decoder: Box<dyn ImageDecoder + 'a>,
    size: [u32; 2],
    orientation: Orientation,
}

/// An image file that is in memory, but not decoded.
#[derive(Debug)]
pub struct ImageFile {
    path: PathBuf,
    encoded: EncodedImage<'static>,
}

/// Reads and decodes an image file of at most `max_pixels` pixels.
pub fn read(path: &Path, max_pixels: u64) -> Result<RgbImage, ImageFileError> {
    ImageFile::read(path, max_pixels)?.decode()
}

/// Decodes the bytes of an image file of at most `max_pixels` pixels.
pub fn decode(bytes: &[u8], max_pixels: u64) -> Result<RgbImage, DecodeError> {
    EncodedImage::new(bytes, max_pixels)?.decode()
}

impl ImageFile {
    /// Reads a file of at most `max_pixels` pixels and parses its header.
    pub fn read(path: &Path, max_pixels: u64) -> Result<Self, ImageFileError> {
        let metadata = path.metadata().map_err(FileError::at(path))?;
        if !metadata.is_file() {
            // Reading a pipe or a device might never end.
            return Err(ImageFileError::NotAFile(path.into()));
        }
        let refused = |source| ImageFileError::Decode { path: path.into(), source };
        let bytes = metadata.len();
        if bytes > memory(max_pixels) {
            return Err(refused(DecodeError::TooLong { bytes, limit: max_pixels }));
        }
        let bytes = std::fs::read(path).map_err(FileError::at(path))?;
        let encoded = EncodedImage::new(bytes, max_pixels).map_err(refused)?;
        Ok(Self { path: path.into(), encoded })
    }

    /// Returns the number of pixels.
    pub fn pixels(&self) -> u64 {
        self.encoded.pixels()
    }

    /// Decodes the image.
    pub fn decode(self) -> Result<RgbImage, ImageFileError> {
        let Self { path, encoded } = self;
        encoded.decode().map_err(|source| ImageFileError::Decode { path, source })
    }
}

impl<'a> EncodedImage<'a> {
    /// Parses the header of an image file of at most `max_pixels` pixels.
    pub fn new(bytes: impl AsRef<[u8]> + 'a, max_pixels: u64) -> Result<Self, DecodeError> {
        let format = image::guess_format(bytes.as_ref()).ok().filter(ImageFormat::reading_enabled);
        let format = format.ok_or(DecodeError::UnknownFormat)?;
        if format == ImageFormat::Jpeg {
            let markers = jpeg::markers(bytes.as_ref());
            if !markers.complete {
                return Err(DecodeError::Truncated);
            }
            if markers.components == 4 && !markers.adobe {
                return Err(DecodeError::Cmyk);
            }
        }
        // The PNG decoder reports sizes that are far too large as broken.
        if format == ImageFormat::Png
            && let Some([width, height]) = png_size(bytes.as_ref())
        {
            check_size(width, height, max_pixels)?;
        }
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(memory(0));
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        reader.limits(limits.clone());
        let mut decoder = reader.into_decoder().map_err(decode_error)?;
        let (width, height) = decoder.dimensions();
        let pixels = check_size(width, height, max_pixels)?;
        // The size in the header is within the limit; this bounds the decoder's own buffers.
        limits.max_alloc = Some(memory(pixels));
        decoder.set_limits(limits).map_err(decode_error)?;
        if matches!(decoder.color_type(), ColorType::Rgb32F | ColorType::Rgba32F) {
            return Err(DecodeError::FloatSamples);
        }
        let orientation = decoder.orientation().map_err(decode_error)?;
        let rotated = matches!(
            orientation,
            Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH
        );
        let size = if rotated { [width, height] } else { [height, width] };
        Ok(Self { decoder: Box::new(decoder), size, orientation })
    }

    /// Returns the number of pixels.
    pub fn pixels(&self) -> u64 {
        u64::from(self.size[0]) * u64::from(self.size[1])
    }

    /// Returns height and width after EXIF orientation.
    pub fn size(&self) -> [usize; 2] {
        self.size.map(|side| side as usize)
    }

    /// Decodes the image.
    pub fn decode(self) -> Result<RgbImage, DecodeError> {
        let Self { decoder, orientation, .. } = self;
        let color = decoder.color_type();
        let mut image = DynamicImage::from_decoder(decoder).map_err(decode_error)?;
        image.apply_orientation(orientation);
        Ok(if color.has_alpha() { over_black(&image) } else { image.into_rgb8() })
    }
}

impl std::fmt::Debug for EncodedImage<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EncodedImage").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Bytes that an image may need: four samples of 16 bits per pixel, twice, and 64 MiB of metadata.
fn memory(pixels: u64) -> u64 {
    pixels.saturating_mul(16).saturating_add(1 << 26)
}

fn check_size(width: u32, height: u32, limit: u64) -> Result<u64, DecodeError> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limit { Err(DecodeError::TooLarge { width, height, limit }) } else { Ok(pixels) }
}

/// Width and height from the first chunk of a PNG.
fn png_size(bytes: &[u8]) -> Option<[u32; 2]> {
    let side = |offset: usize| Some(u32::from_be_bytes(*bytes.get(offset..)?.first_chunk()?));
    if bytes.get(12..16)? == b"IHDR" { Some([side(16)?, side(20)?]) } else { None }
}

fn decode_error(error: ImageError) -> DecodeError {
    match error {
        ImageError::Unsupported(_) => DecodeError::Unsupported(error),
        _ => DecodeError::Broken(error),
    }
}

fn over_black(image: &DynamicImage) -> RgbImage {
    let image = image.to_rgba8();
    let over = |&Rgba([red, green, blue, alpha]): &Rgba<u8>| {
        [red, green, blue].map(|color| ((u16::from(color) * u16::from(alpha) + 127) / 255) as u8)
    };
    let (width, height) = image.dimensions();
    RgbImage::from_fn(width, height, |x, y| over(image.get_pixel(x, y)).into())
}

#[cfg(test)]
mod tests {
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
        let png =
            |image: DynamicImage| decode(&encoded(&image, ImageFormat::Png), MAX_PIXELS).unwrap();
        for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Tiff] {
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
        assert_eq!(png(gray_alpha.into()).as_raw(), &[100, 100, 100, 20, 20, 20]);
        let alpha =
            RgbaImage::from_raw(3, 1, vec![1, 2, 3, 255, 10, 20, 30, 0, 255, 0, 100, 128]).unwrap();
        assert_eq!(png(alpha.into()).as_raw(), &[1, 2, 3, 0, 0, 0, 128, 0, 50]);
    }

    #[test]
    fn files_cut_short_are_errors_in_every_format() {
        let image: DynamicImage =
            RgbImage::from_fn(64, 48, |x, y| Rgb([(x * y) as u8, (x ^ y) as u8, x as u8])).into();
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Tiff] {
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
        for bytes in [&b""[..], b"hello", b"GIF89a\x01\x00\x01\x00\x00\x00\x00"] {
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
    fn limits_float_samples_and_orientation() {
        let bytes = encoded(&colors().into(), ImageFormat::Png);
        let message = decode(&bytes, 62).unwrap_err().to_string();
        assert!(message.starts_with("9x7 pixels are more than the limit of 62"), "{message}");
        decode(&bytes, 63).unwrap();
        let float: image::Rgb32FImage = ImageBuffer::from_pixel(2, 2, Rgb([0.5, 0.5, 0.5]));
        let bytes = encoded(&float.into(), ImageFormat::Tiff);
        assert!(matches!(decode(&bytes, MAX_PIXELS), Err(DecodeError::FloatSamples)));
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
}
