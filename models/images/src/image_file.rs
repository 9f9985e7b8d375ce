//! Picture files to 8-bit RGB: PNG, JPEG, WebP and TIFF, told apart by content.
//!
//! 16-bit samples are scaled to 8, grey is replicated, palettes are looked up, EXIF orientation is applied, transparent
//! pixels lie over black. What would come out wrong is refused: files cut short, floating-point samples, CMYK without
//! Adobe's marker, pictures larger than the limit.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{
    ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage,
    Rgba,
};

use crate::jpeg;

/// Pixels of the largest picture that is read where nobody says otherwise.
pub const MAX_PIXELS: u64 = 200_000_000;

/// Why the bytes of a file are no picture that can be used.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// None of the formats.
    #[error("no picture of a known format (PNG, JPEG, WebP, TIFF)")]
    Format,
    /// Bytes that break the format.
    #[error("broken or cut short: {0}")]
    Broken(#[source] ImageError),
    /// A kind of picture, within a known format, that is not read.
    #[error("a kind of picture that is not read: {0}; convert it to RGB PNG")]
    Unsupported(#[source] ImageError),
    /// A JPEG without its end, or with less data than so many pixels can have.
    #[error("cut short: the JPEG data ends before the end of the picture")]
    CutShort,
    /// More pixels than allowed.
    #[error(
        "{width}x{height} pixels are more than the limit of {limit}; scale it down, or raise --max-pixels where there is \
         that option"
    )]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Pixels allowed.
        limit: u64,
    },
    /// More bytes than the pixels allowed can have.
    #[error(
        "{bytes} bytes are more than a picture of {limit} pixels can have; scale it down, or raise --max-pixels where there \
         is that option"
    )]
    TooLong {
        /// Size of the file.
        bytes: u64,
        /// Pixels allowed.
        limit: u64,
    },
    /// Samples without a known range.
    #[error("floating-point samples have no known range; convert the picture to 8 or 16 bits")]
    Float,
    /// Four inks of unknown polarity.
    #[error(
        "a CMYK JPEG without Adobe's marker does not tell how its inks are stored; convert the picture to RGB"
    )]
    Inks,
}

/// A picture file that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ImageFileError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder, a pipe or a device.
    #[error("{} is no file", .0.display())]
    NoFile(PathBuf),
    /// The content cannot be used.
    #[error("{}: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DecodeError,
    },
}

/// A picture as its file holds it, of which the size is known.
pub struct EncodedImage<'a> {
    decoder: Box<dyn ImageDecoder + 'a>,
    size: [u32; 2],
    orientation: Orientation,
}

/// A picture file that was read and not decoded.
#[derive(Debug)]
pub struct ImageFile {
    path: PathBuf,
    encoded: EncodedImage<'static>,
}

/// Reads a picture file of at most `max_pixels` pixels.
pub fn read(path: &Path, max_pixels: u64) -> Result<RgbImage, ImageFileError> {
    ImageFile::read(path, max_pixels)?.decode()
}

/// The same from the bytes of a file.
pub fn decode(bytes: &[u8], max_pixels: u64) -> Result<RgbImage, DecodeError> {
    EncodedImage::new(bytes, max_pixels)?.decode()
}

impl ImageFile {
    /// Reads a file of at most `max_pixels` pixels, and its header.
    pub fn read(path: &Path, max_pixels: u64) -> Result<Self, ImageFileError> {
        let io = |source| ImageFileError::Io { path: path.into(), source };
        let metadata = path.metadata().map_err(io)?;
        if !metadata.is_file() {
            // Reading a pipe or a device might never end.
            return Err(ImageFileError::NoFile(path.into()));
        }
        let bytes = metadata.len();
        if bytes > memory(max_pixels) {
            let source = DecodeError::TooLong { bytes, limit: max_pixels };
            return Err(ImageFileError::Content { path: path.into(), source });
        }
        let bytes = std::fs::read(path).map_err(io)?;
        match EncodedImage::new(bytes, max_pixels) {
            Ok(encoded) => Ok(Self { path: path.into(), encoded }),
            Err(source) => Err(ImageFileError::Content { path: path.into(), source }),
        }
    }

    /// How many pixels the picture has.
    pub fn pixels(&self) -> u64 {
        self.encoded.pixels()
    }

    /// The picture.
    pub fn decode(self) -> Result<RgbImage, ImageFileError> {
        let Self { path, encoded } = self;
        encoded.decode().map_err(|source| ImageFileError::Content { path, source })
    }
}

impl<'a> EncodedImage<'a> {
    /// From the bytes of a file of at most `max_pixels` pixels, of which the header is read.
    pub fn new(bytes: impl AsRef<[u8]> + 'a, max_pixels: u64) -> Result<Self, DecodeError> {
        let format = image::guess_format(bytes.as_ref()).ok().filter(ImageFormat::reading_enabled);
        let format = format.ok_or(DecodeError::Format)?;
        if format == ImageFormat::Jpeg {
            let markers = jpeg::markers(bytes.as_ref());
            if !markers.complete {
                return Err(DecodeError::CutShort);
            }
            if markers.components == 4 && !markers.adobe {
                return Err(DecodeError::Inks);
            }
        }
        // Its decoder takes what is far too large for broken.
        if let Some([width, height]) =
            png_size(bytes.as_ref()).filter(|_| format == ImageFormat::Png)
        {
            within(width, height, max_pixels)?;
        }
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(memory(0));
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        reader.limits(limits.clone());
        let mut decoder = reader.into_decoder().map_err(refused)?;
        let (width, height) = decoder.dimensions();
        let pixels = within(width, height, max_pixels)?;
        // What a header claims is held against the limit above; this holds the decoder's own buffers against what it claims.
        limits.max_alloc = Some(memory(pixels));
        decoder.set_limits(limits).map_err(refused)?;
        if matches!(decoder.color_type(), ColorType::Rgb32F | ColorType::Rgba32F) {
            return Err(DecodeError::Float);
        }
        let orientation = decoder.orientation().map_err(refused)?;
        let lies = matches!(
            orientation,
            Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH
        );
        let size = if lies { [width, height] } else { [height, width] };
        Ok(Self { decoder: Box::new(decoder), size, orientation })
    }

    /// How many pixels the picture has.
    pub fn pixels(&self) -> u64 {
        u64::from(self.size[0]) * u64::from(self.size[1])
    }

    /// Its height and width, once it is turned as it should be.
    pub fn size(&self) -> [usize; 2] {
        self.size.map(|side| side as usize)
    }

    /// The picture.
    pub fn decode(self) -> Result<RgbImage, DecodeError> {
        let Self { decoder, orientation, .. } = self;
        let color = decoder.color_type();
        let mut picture = DynamicImage::from_decoder(decoder).map_err(refused)?;
        picture.apply_orientation(orientation);
        Ok(if color.has_alpha() { over_black(&picture) } else { picture.into_rgb8() })
    }
}

impl std::fmt::Debug for EncodedImage<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EncodedImage").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Bytes that a picture may need: four samples of 16 bits a pixel, twice, and what its file says besides.
fn memory(pixels: u64) -> u64 {
    pixels.saturating_mul(16).saturating_add(1 << 26)
}

/// The pixels of a picture, if they are not too many.
fn within(width: u32, height: u32, limit: u64) -> Result<u64, DecodeError> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limit { Err(DecodeError::TooLarge { width, height, limit }) } else { Ok(pixels) }
}

/// Width and height, which stand in the first chunk of a PNG.
fn png_size(bytes: &[u8]) -> Option<[u32; 2]> {
    let side = |place: usize| Some(u32::from_be_bytes(*bytes.get(place..)?.first_chunk()?));
    if bytes.get(12..16)? == b"IHDR" { Some([side(16)?, side(20)?]) } else { None }
}

fn refused(error: ImageError) -> DecodeError {
    match error {
        ImageError::Unsupported(_) => DecodeError::Unsupported(error),
        _ => DecodeError::Broken(error),
    }
}

fn over_black(picture: &DynamicImage) -> RgbImage {
    let picture = picture.to_rgba8();
    let over = |&Rgba([red, green, blue, alpha]): &Rgba<u8>| {
        [red, green, blue].map(|color| ((u16::from(color) * u16::from(alpha) + 127) / 255) as u8)
    };
    let (width, height) = picture.dimensions();
    RgbImage::from_fn(width, height, |x, y| over(picture.get_pixel(x, y)).into())
}

#[cfg(test)]
mod tests {
    use image::codecs::jpeg::JpegEncoder;
    use image::{GrayAlphaImage, GrayImage, ImageBuffer, ImageEncoder, Rgb, RgbaImage};

    use super::*;

    fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn colors() -> RgbImage {
        RgbImage::from_fn(9, 7, |x, y| Rgb([x as u8 * 25, y as u8 * 30, 200]))
    }

    #[test]
    fn every_sample_format_comes_out_as_rgb() {
        let png = |picture: DynamicImage| {
            decode(&encoded(&picture, ImageFormat::Png), MAX_PIXELS).unwrap()
        };
        for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Tiff] {
            assert_eq!(decode(&encoded(&colors().into(), format), MAX_PIXELS).unwrap(), colors());
        }
        let deep = ImageBuffer::from_fn(3, 1, |x, _| Rgb([[0_u16, 32_896, 65_535][x as usize]; 3]));
        assert_eq!(png(deep.into()).as_raw(), &[0, 0, 0, 128, 128, 128, 255, 255, 255]);
        let deep_grey: ImageBuffer<image::Luma<u16>, Vec<u16>> =
            ImageBuffer::from_raw(1, 1, vec![514]).unwrap();
        assert_eq!(png(deep_grey.into()).as_raw(), &[2, 2, 2]);
        assert_eq!(
            png(GrayImage::from_raw(2, 1, vec![0, 77]).unwrap().into()).as_raw(),
            &[0, 0, 0, 77, 77, 77]
        );
        let grey_alpha = GrayAlphaImage::from_raw(2, 1, vec![100, 255, 100, 51]).unwrap();
        assert_eq!(png(grey_alpha.into()).as_raw(), &[100, 100, 100, 20, 20, 20]);
        let alpha =
            RgbaImage::from_raw(3, 1, vec![1, 2, 3, 255, 10, 20, 30, 0, 255, 0, 100, 128]).unwrap();
        assert_eq!(png(alpha.into()).as_raw(), &[1, 2, 3, 0, 0, 0, 128, 0, 50]);
    }

    #[test]
    fn files_cut_short_are_errors_in_every_format() {
        let picture: DynamicImage =
            RgbImage::from_fn(64, 48, |x, y| Rgb([(x * y) as u8, (x ^ y) as u8, x as u8])).into();
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Tiff] {
            let bytes = encoded(&picture, format);
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
            assert!(matches!(decode(bytes, MAX_PIXELS), Err(DecodeError::Format)));
        }
    }

    #[test]
    fn what_is_no_file_or_longer_than_its_pixels_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.png");
        std::fs::File::create(&path).unwrap().set_len(1 << 27).unwrap();
        let message = read(&path, 100).unwrap_err().to_string();
        assert!(
            message.contains("long.png: 134217728 bytes are more than a picture of 100 pixels"),
            "{message}"
        );
        assert!(matches!(read(folder.path(), 100), Err(ImageFileError::NoFile(_))));
        assert!(matches!(read("/dev/zero".as_ref(), 100), Err(ImageFileError::NoFile(_))));
    }

    #[test]
    fn limits_float_samples_and_orientation() {
        let bytes = encoded(&colors().into(), ImageFormat::Png);
        let message = decode(&bytes, 62).unwrap_err().to_string();
        assert!(message.starts_with("9x7 pixels are more than the limit of 62"), "{message}");
        decode(&bytes, 63).unwrap();
        let float: image::Rgb32FImage = ImageBuffer::from_pixel(2, 2, Rgb([0.5, 0.5, 0.5]));
        let bytes = encoded(&float.into(), ImageFormat::Tiff);
        assert!(matches!(decode(&bytes, MAX_PIXELS), Err(DecodeError::Float)));
        // TIFF header, one entry: tag 0x0112 (orientation), short, 6 = turn by 90 degrees clockwise to view.
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
