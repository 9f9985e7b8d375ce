//! Image files to 8-bit RGB: PNG, JPEG, WebP, TIFF, BMP and PNM, told apart by content.
//!
//! Gray is replicated, palettes are looked up and EXIF orientation is applied. Colors are taken as
//! they are stored, without regard to opacity and further channels, and 16 bits are scaled to 8,
//! unless an [`ImageReading`] says otherwise; [`ImageNotes`] tell where that may not be meant.
//! Refused, as the pixels would come out wrong: files without all of their pixels, samples of a
//! type that has no range, CMYK without Adobe's marker, images larger than the limit.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};
use protoseg_models::errors::FileError;
use protoseg_models::reading::{Channels, ImageReading};

use crate::channels::{ColorModel, PixelFormat, PixelReader};
use crate::geo::GeoReference;
use crate::jpeg;
use crate::notes::ImageNotes;
use crate::samples::{SampleKind, SampleValue, Samples};
use crate::tiff_file::{Layout, TiffPage};

/// Default limit of pixels in an image.
pub const MAX_PIXELS: u64 = 200_000_000;

/// The reason why bytes cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum DecodeError {
    /// None of the formats.
    #[error("not an image of a known format (PNG, JPEG, WebP, TIFF, BMP, PNM)")]
    UnknownFormat,
    /// Bytes that break the format.
    #[error("broken or cut short: {0}")]
    Broken(#[source] ImageError),
    /// An unsupported kind of image within a known format.
    #[error("unsupported kind of image: {0}; convert it to an RGB PNG")]
    Unsupported(#[source] ImageError),
    /// Bytes that break TIFF.
    #[error("broken or cut short: {0}")]
    BrokenTiff(#[source] tiff::TiffError),
    /// A TIFF without a page that has all it needs.
    #[error("broken or cut short: no page of the TIFF file has a size and all of its pixels")]
    NoTiffPage,
    /// A TIFF that ends before its last strips or tiles.
    #[error("cut short: {chunks} of {of} strips or tiles of the TIFF file lie behind its end")]
    TiffTruncated { chunks: usize, of: usize },
    /// A TIFF with strips that are too short for its pixels.
    #[error("cut short: the pixels of the TIFF file need {needed} bytes, and it has {bytes}")]
    TiffShort { bytes: u64, needed: u64 },
    /// A kind of TIFF that is not read.
    #[error(
        "unsupported kind of TIFF: {what}; convert it, for example with `gdal_translate -ot Byte \
         -co COMPRESS=DEFLATE in.tif out.tif`"
    )]
    UnsupportedTiff { what: String },
    /// A JPEG with less data than its pixels need.
    #[error("cut short: the JPEG data ends before the end of the image")]
    Truncated,
    /// A JPEG whose data ends among its blocks.
    #[error("cut short: only {rows} of {height} rows of the JPEG are complete")]
    MissingRows { rows: usize, height: u32 },
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
    /// Samples of a type that has no range.
    #[error(
        "{kind} samples from {low} to {high} do not tell which values are black and white; choose \
         --range LOW:HIGH, or convert the image to 8 or 16 bits"
    )]
    UnknownRange { kind: &'static str, low: f64, high: f64 },
    /// A chosen channel that the image does not have.
    #[error("channel {channel} is chosen, and it has {channels}; choose others by --channels")]
    NoSuchChannel { channel: usize, channels: usize },
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

/// A decoded image with the remarks on it.
#[derive(Debug, Clone, PartialEq)]
pub struct NotedImage {
    /// The image.
    pub image: RgbImage,
    /// Remarks on the way that it was read.
    pub notes: ImageNotes,
}

/// An encoded image of known size.
pub struct EncodedImage<'a> {
    source: Source<'a>,
    size: [u32; 2],
    orientation: Orientation,
}

/// Decoders of a format.
enum Source<'a> {
    /// `kind` is that of 16-bit samples.
    Decoder {
        decoder: Box<dyn ImageDecoder + 'a>,
        kind: SampleKind,
    },
    /// A JPEG without end marker.
    Unended(Box<dyn AsRef<[u8]> + 'a>),
    Tiff(Box<dyn AsRef<[u8]> + 'a>, Box<TiffPage>),
}

/// An image file that is in memory, but not decoded.
#[derive(Debug)]
pub struct ImageFile {
    path: PathBuf,
    encoded: EncodedImage<'static>,
}

/// Reads and decodes an image file of at most `max_pixels` pixels by what it says.
pub fn read(path: &Path, max_pixels: u64) -> Result<RgbImage, ImageFileError> {
    ImageFile::read(path, max_pixels)?.decode()
}

/// Decodes the bytes of an image file of at most `max_pixels` pixels by what they say.
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

    /// Returns the place on Earth, if the file gives one.
    pub fn geo_reference(&self) -> Option<&GeoReference> {
        self.encoded.geo_reference()
    }

    /// Returns the EXIF orientation, which is applied in decoding.
    pub fn orientation(&self) -> Orientation {
        self.encoded.orientation
    }

    /// Decodes the image by what the file says.
    pub fn decode(self) -> Result<RgbImage, ImageFileError> {
        Ok(self.decode_as(ImageReading::default())?.image)
    }

    /// Decodes the image by a model's choices.
    pub fn decode_as(self, reading: ImageReading) -> Result<NotedImage, ImageFileError> {
        let Self { path, encoded } = self;
        encoded.decode_as(reading).map_err(|source| ImageFileError::Decode { path, source })
    }
}

impl<'a> EncodedImage<'a> {
    /// Parses the header of an image file of at most `max_pixels` pixels.
    pub fn new(bytes: impl AsRef<[u8]> + 'a, max_pixels: u64) -> Result<Self, DecodeError> {
        if let Some(layout) = Layout::detect(bytes.as_ref()) {
            let page = TiffPage::choose(bytes.as_ref(), layout)?;
            let ([width, height], orientation) = (page.size, page.orientation);
            check_size(width, height, max_pixels)?;
            let source = Source::Tiff(Box::new(bytes), Box::new(page));
            return Ok(Self { source, size: seen_size(width, height, orientation), orientation });
        }
        let format = image::guess_format(bytes.as_ref()).ok().filter(ImageFormat::reading_enabled);
        let format = format.ok_or(DecodeError::UnknownFormat)?;
        let mut ended = true;
        if format == ImageFormat::Jpeg {
            let markers = jpeg::markers(bytes.as_ref());
            if !markers.enough {
                return Err(DecodeError::Truncated);
            }
            if markers.components == 4 && !markers.adobe {
                return Err(DecodeError::Cmyk);
            }
            ended = markers.ended;
        }
        // The PNG decoder reports sizes that are far too large as broken.
        if format == ImageFormat::Png
            && let Some([width, height]) = png_size(bytes.as_ref())
        {
            check_size(width, height, max_pixels)?;
        }
        if !ended {
            let mut decoder = open(bytes.as_ref(), format)?;
            let (width, height) = decoder.dimensions();
            check_size(width, height, max_pixels)?;
            let orientation = decoder.orientation().map_err(decode_error)?;
            drop(decoder);
            let source = Source::Unended(Box::new(bytes));
            return Ok(Self { source, size: seen_size(width, height, orientation), orientation });
        }
        let mut decoder = open(bytes, format)?;
        let (width, height) = decoder.dimensions();
        let pixels = check_size(width, height, max_pixels)?;
        // The size in the header is within the limit; this bounds the decoder's own buffers.
        decoder.set_limits(limits(pixels)).map_err(decode_error)?;
        let orientation = decoder.orientation().map_err(decode_error)?;
        // PNM gives its largest value, to which the decoder scales.
        let is_scaled = format == ImageFormat::Pnm;
        let kind = if is_scaled { SampleKind::ScaledWord } else { SampleKind::Word };
        let source = Source::Decoder { decoder: Box::new(decoder), kind };
        Ok(Self { source, size: seen_size(width, height, orientation), orientation })
    }

    /// Returns the number of pixels.
    pub fn pixels(&self) -> u64 {
        u64::from(self.size[0]) * u64::from(self.size[1])
    }

    /// Returns height and width after EXIF orientation.
    pub fn size(&self) -> [usize; 2] {
        self.size.map(|side| side as usize)
    }

    /// Returns the place on Earth, if the file gives one.
    pub fn geo_reference(&self) -> Option<&GeoReference> {
        match &self.source {
            Source::Tiff(_, page) => Some(&page.geo).filter(|geo| !geo.is_empty()),
            _ => None,
        }
    }

    /// Decodes the image by what the file says.
    pub fn decode(self) -> Result<RgbImage, DecodeError> {
        Ok(self.decode_as(ImageReading::default())?.image)
    }

    /// Decodes the image by a model's choices.
    pub fn decode_as(self, reading: ImageReading) -> Result<NotedImage, DecodeError> {
        let Self { source, orientation, .. } = self;
        let pixels = u64::from(self.size[0]) * u64::from(self.size[1]);
        let (image, mut notes) = match source {
            Source::Decoder { decoder, kind } => {
                let image = DynamicImage::from_decoder(decoder).map_err(decode_error)?;
                convert(image, kind, reading)?
            }
            Source::Unended(bytes) => {
                let decode = |bytes: Vec<u8>| {
                    let mut decoder = open(bytes, ImageFormat::Jpeg)?;
                    decoder.set_limits(limits(pixels)).map_err(decode_error)?;
                    DynamicImage::from_decoder(decoder).map_err(decode_error)
                };
                let image = jpeg::decode_unended((*bytes).as_ref(), decode)?;
                let (image, notes) = convert(image, SampleKind::Word, reading)?;
                (image, ImageNotes { no_end_marker: true, ..notes })
            }
            Source::Tiff(bytes, page) => page.decode((*bytes).as_ref(), reading, memory(pixels))?,
        };
        notes.is_turned = orientation != Orientation::NoTransforms;
        let mut image = DynamicImage::ImageRgb8(image);
        image.apply_orientation(orientation);
        Ok(NotedImage { image: image.into_rgb8(), notes })
    }
}

impl std::fmt::Debug for EncodedImage<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EncodedImage").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Opens the decoder of a format.
fn open<'a>(
    bytes: impl AsRef<[u8]> + 'a,
    format: ImageFormat,
) -> Result<impl ImageDecoder + 'a, DecodeError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits(0));
    reader.into_decoder().map_err(decode_error)
}

/// Limits of a decoder's buffers for so many pixels.
fn limits(pixels: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(memory(pixels));
    limits
}

/// Height and width after an orientation is applied.
fn seen_size(width: u32, height: u32, orientation: Orientation) -> [u32; 2] {
    if swaps_sides(orientation) { [width, height] } else { [height, width] }
}

/// True where an orientation exchanges width and height.
pub(crate) fn swaps_sides(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

/// Converts a decoded image of any kind; `kind` is that of its 16-bit samples.
fn convert(
    image: DynamicImage,
    kind: SampleKind,
    reading: ImageReading,
) -> Result<(RgbImage, ImageNotes), DecodeError> {
    let picks = matches!(reading.channels, Some(Channels::Picked(_)));
    let size = (image.width(), image.height());
    let gray = ColorModel::Gray { inverted: false };
    match image {
        DynamicImage::ImageRgb8(image) if !picks => Ok((image, ImageNotes::default())),
        DynamicImage::ImageLuma8(image) => bands(size, &image, gray, 1, SampleKind::Byte, reading),
        DynamicImage::ImageLumaA8(image) => bands(size, &image, gray, 2, SampleKind::Byte, reading),
        DynamicImage::ImageRgb8(image) => {
            bands(size, &image, ColorModel::Rgb, 3, SampleKind::Byte, reading)
        }
        DynamicImage::ImageRgba8(image) => {
            bands(size, &image, ColorModel::Rgb, 4, SampleKind::Byte, reading)
        }
        DynamicImage::ImageLuma16(image) => bands(size, &image, gray, 1, kind, reading),
        DynamicImage::ImageLumaA16(image) => bands(size, &image, gray, 2, kind, reading),
        DynamicImage::ImageRgb16(image) => bands(size, &image, ColorModel::Rgb, 3, kind, reading),
        DynamicImage::ImageRgba16(image) => bands(size, &image, ColorModel::Rgb, 4, kind, reading),
        // The formats that are enabled give none.
        _ => Err(DecodeError::UnknownRange { kind: "floating-point", low: 0.0, high: 1.0 }),
    }
}

/// Converts interleaved channels, of which one beside the colors is opacity.
fn bands<T: SampleValue>(
    (width, height): (u32, u32),
    samples: &[T],
    model: ColorModel,
    bands: usize,
    kind: SampleKind,
    reading: ImageReading,
) -> Result<(RgbImage, ImageNotes), DecodeError> {
    let has_opacity = matches!(bands, 2 | 4);
    let format =
        PixelFormat { model, bands, has_opacity, premultiplied: false, kind, nodata: None };
    let mut reader = PixelReader::new(format, reading)?;
    let mut rgb = Vec::with_capacity(samples.len() / bands * 3);
    reader.read(&Samples::Interleaved(samples), &mut rgb);
    let notes = reader.finish()?;
    let image = RgbImage::from_raw(width, height, rgb).ok_or(DecodeError::UnknownFormat)?;
    Ok((image, notes))
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
            for bytes in
                [&whole[..], &[&whole, &whole[..]].concat(), &[body, b"\0\xFF\xD9"].concat()]
            {
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
}
