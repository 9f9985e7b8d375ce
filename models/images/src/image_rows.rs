//! Images that are larger than memory: pixels of TIFF and PNG files from the top, read from disk as
//! they are needed. They are those that [`image_file`](crate::image_file) decodes, and so are the
//! remarks on them.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use image::error::{DecodingError, ImageFormatHint};
use image::metadata::Orientation;
use image::{ImageError, ImageFormat};
use png::{BitDepth, ColorType, Transformations};
use protoseg_models::errors::FileError;
use protoseg_models::reading::ImageReading;

use crate::channels::{ColorModel, PixelFormat, PixelReader};
use crate::geo::GeoReference;
use crate::image_file::{DecodeError, ImageFileError, png_size, seen_size};
use crate::notes::ImageNotes;
use crate::samples::{SampleKind, Samples};
use crate::tiff_file::{ByteSource, FileSource, Layout, TiffPage, TiffRows};

/// Most bytes that a row of tiles, or a strip, may take while it is decoded.
pub const MAX_BLOCK_BYTES: u64 = 256 << 20;

/// Bytes of PNG rows that are handed over at a time.
const PNG_BYTES: usize = 8 << 20;
/// First bytes of a file, which tell its format, and size and order of a PNG.
const HEAD: u64 = 29;

/// The reason why the pixels of an image cannot be read from the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum NotByRows {
    /// EXIF orientation turns or mirrors the image.
    #[error("its orientation turns it, which takes all of its pixels at once")]
    Turned,
    /// A PNG whose pixels come in several passes.
    #[error("it is an interlaced PNG, whose rows come in several passes")]
    Interlaced,
    /// Strips or tiles that are too high.
    #[error(
        "its strips or tiles are {rows} rows high and take {} MB at once, and {} MB is the limit",
        bytes.div_ceil(1_000_000), MAX_BLOCK_BYTES / 1_000_000
    )]
    Blocks { rows: u64, bytes: u64 },
    /// Too many strips or tiles.
    #[error("it has more strips or tiles than are read: those of 512 pixels a side are fewer")]
    Chunks,
}

/// A TIFF or PNG file on disk, of which the header is read.
#[derive(Debug)]
pub struct RowFile {
    path: PathBuf,
    source: FileSource,
    /// Height and width as the image is seen.
    size: [u32; 2],
    format: RowFormat,
}

#[derive(Debug)]
enum RowFormat {
    Tiff(Box<TiffPage>),
    Png { interlaced: bool },
}

impl RowFile {
    /// Reads the header of a file; None for files of other formats and what is not a file.
    pub fn open(path: &Path) -> Result<Option<Self>, ImageFileError> {
        let failed = FileError::at(path);
        let file = match path.metadata() {
            Ok(metadata) if metadata.is_file() => File::open(path).map_err(failed)?,
            _ => return Ok(None),
        };
        let source = FileSource::new(file).map_err(FileError::at(path))?;
        let Some(head) = source.bytes_at(0, HEAD.min(source.size())) else { return Ok(None) };
        if let Some(layout) = Layout::detect(&head) {
            let page = TiffPage::choose(&source, layout).map_err(refused(path))?;
            let [width, height] = page.size;
            let size = seen_size(width, height, page.orientation);
            let format = RowFormat::Tiff(Box::new(page));
            return Ok(Some(Self { path: path.into(), source, size, format }));
        }
        let is_png = image::guess_format(&head).is_ok_and(|format| format == ImageFormat::Png);
        let size = png_size(&head).filter(|_| is_png);
        Ok(size.map(|[width, height]| {
            let interlaced = head.last().is_some_and(|&passes| passes != 0);
            let (path, size) = (path.into(), [height, width]);
            Self { path, source, size, format: RowFormat::Png { interlaced } }
        }))
    }

    /// Returns height and width as the image is seen.
    pub fn size(&self) -> [usize; 2] {
        self.size.map(|side| side as usize)
    }

    /// Returns the number of pixels.
    pub fn pixels(&self) -> u64 {
        u64::from(self.size[0]) * u64::from(self.size[1])
    }

    /// Returns the reason why the pixels cannot be read from the top, if there is one.
    pub fn obstacle(&self) -> Result<Option<NotByRows>, ImageFileError> {
        Ok(match &self.format {
            RowFormat::Tiff(page) if page.orientation != Orientation::NoTransforms => {
                Some(NotByRows::Turned)
            }
            RowFormat::Tiff(page) if page.has_too_many_chunks() => Some(NotByRows::Chunks),
            RowFormat::Tiff(page) => {
                let (rows, bytes) = page.block(&self.source);
                (bytes > MAX_BLOCK_BYTES).then_some(NotByRows::Blocks { rows, bytes })
            }
            RowFormat::Png { interlaced: true } => Some(NotByRows::Interlaced),
            RowFormat::Png { .. } => {
                let reader = open_png(&self.path)?;
                let exif = reader.info().exif_metadata.as_deref();
                let orientation = exif.and_then(Orientation::from_exif_chunk);
                let is_turned =
                    orientation.is_some_and(|turned| turned != Orientation::NoTransforms);
                is_turned.then_some(NotByRows::Turned)
            }
        })
    }

    /// Opens the pixels, which has no [`obstacle`](Self::obstacle), to be read by a model's choices.
    /// Samples that have no range without these take a reading of the whole file, which tells theirs
    /// in the error.
    pub fn rows(self, reading: ImageReading) -> Result<ImageRows, ImageFileError> {
        let Self { path, source, format, .. } = self;
        let (rows, geo) = match format {
            RowFormat::Tiff(page) => {
                let open = |page: TiffPage| {
                    TiffRows::new(page, source.clone(), reading, MAX_BLOCK_BYTES)
                        .map_err(refused(&path))
                };
                if page.needs_range() && reading.range.is_none() {
                    survey(open((*page).clone())?).map_err(refused(&path))?;
                }
                let geo = page.place();
                (Rows::Tiff(Box::new(open(*page)?)), geo)
            }
            RowFormat::Png { .. } => (Rows::Png(Box::new(PngRows::open(&path, reading)?)), None),
        };
        Ok(ImageRows { path, rows, geo })
    }
}

/// Reads all samples for the error that they have no range.
fn survey(mut rows: TiffRows<FileSource>) -> Result<(), DecodeError> {
    let mut pixels = Vec::new();
    while rows.read(&mut pixels)? > 0 {
        pixels.clear();
    }
    rows.finish().map(drop)
}

/// Pixels of an image file that are read from the top.
pub struct ImageRows {
    path: PathBuf,
    rows: Rows,
    geo: Option<GeoReference>,
}

enum Rows {
    Tiff(Box<TiffRows<FileSource>>),
    Png(Box<PngRows>),
}

impl ImageRows {
    /// Returns the place on Earth, if the file gives one.
    pub fn geo_reference(&self) -> Option<&GeoReference> {
        self.geo.as_ref()
    }

    /// Appends the next rows of pixels, RGB `[rows, width, 3]`, and returns their number; 0 at the
    /// end.
    pub fn read(&mut self, pixels: &mut Vec<u8>) -> Result<usize, ImageFileError> {
        let read = match &mut self.rows {
            Rows::Tiff(rows) => rows.read(pixels),
            Rows::Png(rows) => rows.read(pixels),
        };
        read.map_err(refused(&self.path))
    }

    /// Returns, for each pixel of the rows that were read last, true where all colors have the value
    /// of missing data; empty where none has, and of images without a place on Earth.
    pub fn missing(&self) -> &[bool] {
        match &self.rows {
            Rows::Tiff(rows) if self.geo.is_some() => rows.missing(),
            _ => &[],
        }
    }

    /// Returns the remarks on an image whose rows were all read.
    pub fn finish(self) -> Result<ImageNotes, ImageFileError> {
        let notes = match self.rows {
            Rows::Tiff(rows) => rows.finish(),
            Rows::Png(rows) => rows.pixels.finish(),
        };
        notes.map_err(refused(&self.path))
    }
}

impl std::fmt::Debug for ImageRows {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ImageRows").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Rows of a PNG.
struct PngRows {
    reader: png::Reader<BufReader<File>>,
    pixels: PixelReader,
    depth: BitDepth,
    /// Samples of 16 bits of a row.
    words: Vec<u16>,
    /// Rows that are left.
    left: usize,
    block: usize,
}

impl PngRows {
    fn open(path: &Path, reading: ImageReading) -> Result<Self, ImageFileError> {
        let reader = open_png(path)?;
        let (color, depth) = reader.output_color_type();
        let gray = ColorModel::Gray { inverted: false };
        let (model, bands) = match color {
            ColorType::Grayscale | ColorType::Indexed => (gray, 1),
            ColorType::GrayscaleAlpha => (gray, 2),
            ColorType::Rgb => (ColorModel::Rgb, 3),
            ColorType::Rgba => (ColorModel::Rgb, 4),
        };
        let kind = if depth == BitDepth::Sixteen { SampleKind::Word } else { SampleKind::Byte };
        let has_opacity = matches!(bands, 2 | 4);
        let format =
            PixelFormat { model, bands, has_opacity, premultiplied: false, kind, nodata: None };
        let pixels = PixelReader::new(format, reading).map_err(refused(path))?;
        let (left, width) = (reader.info().height as usize, reader.info().width as usize);
        let block = (PNG_BYTES / (width * 3).max(1)).max(1);
        Ok(Self { reader, pixels, depth, words: Vec::new(), left, block })
    }

    fn read(&mut self, rgb: &mut Vec<u8>) -> Result<usize, DecodeError> {
        let rows = self.left.min(self.block);
        for _ in 0..rows {
            let row = self.reader.next_row().map_err(png_error)?;
            let row =
                row.ok_or(png::DecodingError::IoError(std::io::ErrorKind::UnexpectedEof.into()));
            let row = row.map_err(png_error)?;
            if self.depth == BitDepth::Sixteen {
                self.words.clear();
                let words = row.data().as_chunks::<2>().0.iter();
                self.words.extend(words.map(|bytes| u16::from_be_bytes(*bytes)));
                self.pixels.read(&Samples::Interleaved(&self.words), rgb);
            } else {
                self.pixels.read(&Samples::Interleaved(row.data()), rgb);
            }
        }
        self.left -= rows;
        Ok(rows)
    }
}

/// Opens a PNG whose samples of less than 8 bits, palettes and transparent colors are expanded.
fn open_png(path: &Path) -> Result<png::Reader<BufReader<File>>, ImageFileError> {
    let file = File::open(path).map_err(FileError::at(path))?;
    let mut decoder = png::Decoder::new(BufReader::new(file));
    decoder.set_ignore_text_chunk(true);
    decoder.set_transformations(Transformations::EXPAND);
    decoder.read_info().map_err(|error| refused(path)(png_error(error)))
}

fn png_error(error: png::DecodingError) -> DecodeError {
    let error = DecodingError::new(ImageFormatHint::Exact(ImageFormat::Png), error);
    DecodeError::Broken(ImageError::Decoding(error))
}

fn refused(path: &Path) -> impl Fn(DecodeError) -> ImageFileError {
    let path = path.to_owned();
    move |source| ImageFileError::Decode { path: path.clone(), source }
}

#[cfg(test)]
mod tests;
