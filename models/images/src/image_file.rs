//! Image files to 8-bit RGB: PNG, JPEG, WebP, TIFF, BMP, GIF and PNM, told apart by content.
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

use crate::animation;
use crate::channels::{ColorModel, PixelFormat, PixelReader};
use crate::geo::{GeoReference, Place};
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
    #[error("not an image of a known format (PNG, JPEG, WebP, TIFF, BMP, GIF, PNM)")]
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
    /// Place on Earth, of a GeoTIFF that is not turned.
    pub place: Option<Place>,
}

/// An encoded image of known size.
pub struct EncodedImage<'a> {
    source: EncodedSource<'a>,
    size: [u32; 2],
    orientation: Orientation,
    /// Number of frames, of which the first is read.
    frames: usize,
}

/// Decoders of a format.
enum EncodedSource<'a> {
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

    /// Returns height and width after EXIF orientation.
    pub fn size(&self) -> [usize; 2] {
        self.encoded.size()
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
            let page = TiffPage::choose(&bytes.as_ref(), layout)?;
            let ([width, height], orientation) = (page.size, page.orientation);
            check_size(width, height, max_pixels)?;
            let source = EncodedSource::Tiff(Box::new(bytes), Box::new(page));
            let size = seen_size(width, height, orientation);
            return Ok(Self { source, size, orientation, frames: 1 });
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
            let source = EncodedSource::Unended(Box::new(bytes));
            let size = seen_size(width, height, orientation);
            return Ok(Self { source, size, orientation, frames: 1 });
        }
        let frames = animation::frames(bytes.as_ref(), format);
        let mut decoder = open(bytes, format)?;
        let (width, height) = decoder.dimensions();
        let pixels = check_size(width, height, max_pixels)?;
        // The size in the header is within the limit; this bounds the decoder's own buffers.
        decoder.set_limits(limits(pixels)).map_err(decode_error)?;
        let orientation = decoder.orientation().map_err(decode_error)?;
        // PNM gives its largest value, to which the decoder scales.
        let is_scaled = format == ImageFormat::Pnm;
        let kind = if is_scaled { SampleKind::ScaledWord } else { SampleKind::Word };
        let source = EncodedSource::Decoder { decoder: Box::new(decoder), kind };
        Ok(Self { source, size: seen_size(width, height, orientation), orientation, frames })
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
            EncodedSource::Tiff(_, page) => Some(&page.geo).filter(|geo| !geo.is_empty()),
            _ => None,
        }
    }

    /// Decodes the image by what the file says.
    pub fn decode(self) -> Result<RgbImage, DecodeError> {
        Ok(self.decode_as(ImageReading::default())?.image)
    }

    /// Decodes the image by a model's choices.
    pub fn decode_as(self, reading: ImageReading) -> Result<NotedImage, DecodeError> {
        let Self { source, orientation, frames, .. } = self;
        let pixels = u64::from(self.size[0]) * u64::from(self.size[1]);
        let mut place = None;
        let (image, mut notes) = match source {
            EncodedSource::Decoder { decoder, kind } => {
                let image = DynamicImage::from_decoder(decoder).map_err(decode_error)?;
                convert(image, kind, reading)?
            }
            EncodedSource::Unended(bytes) => {
                let decode = |bytes: Vec<u8>| {
                    let mut decoder = open(bytes, ImageFormat::Jpeg)?;
                    decoder.set_limits(limits(pixels)).map_err(decode_error)?;
                    DynamicImage::from_decoder(decoder).map_err(decode_error)
                };
                let image = jpeg::decode_unended((*bytes).as_ref(), decode)?;
                let (image, notes) = convert(image, SampleKind::Word, reading)?;
                (image, ImageNotes { no_end_marker: true, ..notes })
            }
            EncodedSource::Tiff(bytes, page) => {
                let decoded = page.decode((*bytes).as_ref(), reading, memory(pixels))?;
                place = decoded.place;
                (decoded.image, decoded.notes)
            }
        };
        notes.other_frames = frames - 1;
        notes.is_turned = orientation != Orientation::NoTransforms;
        let mut image = DynamicImage::ImageRgb8(image);
        image.apply_orientation(orientation);
        Ok(NotedImage { image: image.into_rgb8(), notes, place })
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
pub(crate) fn seen_size(width: u32, height: u32, orientation: Orientation) -> [u32; 2] {
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
pub(crate) fn png_size(bytes: &[u8]) -> Option<[u32; 2]> {
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
mod tests;
