//! TIFF and BigTIFF files: the page that is the image, its samples in all bands, and its place on
//! Earth.
//!
//! The `tiff` crate decodes strips and tiles. It leaves out bands beside the colors before it
//! undoes a predictor over all of them, knows neither palettes nor pages behind an unsupported one,
//! so it is shown every page as the first one, and as plain bands; their meaning is found here.

mod directory;

use std::io::{Cursor, Read, Seek, SeekFrom};

use image::RgbImage;
use image::metadata::Orientation;
use protoseg_models::reading::ImageReading;
use tiff::decoder::{ChunkType, Decoder, DecodingResult, Limits};
use tiff::{TiffError, TiffUnsupportedError};

use self::directory::Directory;
pub(crate) use self::directory::Layout;
use crate::channels::{ColorModel, PixelFormat, PixelReader};
use crate::geo::{GeoReference, Place};
use crate::image_file::DecodeError;
use crate::notes::ImageNotes;
use crate::samples::{SampleKind, widen, with_samples};

/// Compression of JPEG streams.
const JPEG: u64 = 7;
/// Bands of a pixel that are decoded; hyperspectral sensors have some hundred.
const MAX_BANDS: u64 = 4096;

/// The tags of the page that is read.
#[derive(Debug)]
pub(crate) struct TiffPage {
    layout: Layout,
    directory: Directory,
    /// Width and height.
    pub(crate) size: [u32; 2],
    pub(crate) orientation: Orientation,
    pub(crate) geo: GeoReference,
    other_pages: usize,
    format: PixelFormat,
    /// Bits of a sample.
    bits: u64,
    is_planar: bool,
}

/// A decoded page.
pub(crate) struct TiffPixels {
    pub(crate) image: RgbImage,
    pub(crate) notes: ImageNotes,
    pub(crate) place: Option<Place>,
}

impl TiffPage {
    /// Chooses a page of a file and reads its tags.
    pub(crate) fn choose(file: &[u8], layout: Layout) -> Result<Self, DecodeError> {
        let chosen = directory::choose(file, layout).ok_or(DecodeError::NoTiffPage)?;
        let directory::Choice { directory, size, others } = chosen;
        let number = |tag, default| directory.number(file, tag).unwrap_or(default);
        let geo = geo_reference(file, &directory);
        let bands = number(directory::SAMPLES, 1);
        let bits = number(directory::BITS, 1);
        if !(1..=MAX_BANDS).contains(&bands) {
            return Err(unsupported(format!("{bands} samples a pixel")));
        }
        if !matches!(bits, 1 | 2 | 4 | 8 | 16 | 32 | 64) {
            return Err(unsupported(format!("{bits} bits a sample")));
        }
        let kind = match (number(directory::SAMPLE_FORMAT, 1), bits) {
            (1 | 4, 1..=8) => SampleKind::Byte,
            (1 | 4, 16) => SampleKind::Word,
            (1 | 4, _) => SampleKind::Unbounded("unsigned"),
            (2, _) => SampleKind::Unbounded("signed"),
            (3, _) => SampleKind::Unbounded("floating-point"),
            (other, _) => return Err(unsupported(format!("sample format {other}"))),
        };
        let format = pixel_format(file, &directory, bands as usize, kind, geo.nodata_value())?;
        let orientation = directory.number(file, directory::ORIENTATION);
        let orientation =
            orientation.and_then(|value| Orientation::from_exif(value.min(255) as u8));
        Ok(Self {
            layout,
            size,
            orientation: orientation.unwrap_or(Orientation::NoTransforms),
            geo,
            other_pages: others,
            format,
            bits,
            is_planar: number(directory::PLANAR, 1) == 2 && bands > 1,
            directory,
        })
    }

    /// Decodes the page, before its orientation is applied. `memory` bounds the decoder's buffers
    /// in bytes.
    pub(crate) fn decode(
        self,
        file: &[u8],
        reading: ImageReading,
        memory: u64,
    ) -> Result<TiffPixels, DecodeError> {
        let [width, height] = self.size.map(|side| side as usize);
        let mut pixels = PixelReader::new(self.format.clone(), reading)?;
        let lengths = self.check_chunks(file, memory)?;
        let mut decoder = Decoder::new(self.open(file)).map_err(tiff_error)?;
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        let mut limits = Limits::default();
        limits.decoding_buffer_size = memory;
        limits.intermediate_buffer_size = memory;
        decoder = decoder.with_limits(limits);
        let (chunk_width, chunk_height) = decoder.chunk_dimensions();
        let across = width.div_ceil(chunk_width.max(1) as usize);
        let down = height.div_ceil(chunk_height.max(1) as usize);
        let mut image = vec![0; width * height * 3];
        let mut missing = Vec::new();
        let mut part = Vec::new();
        let is_tiled = decoder.get_chunk_type() == ChunkType::Tile;
        for index in 0..across * down {
            let left = index % across * chunk_width as usize;
            let top = index / across * chunk_height as usize;
            let (part_width, part_height) = decoder.chunk_data_dimensions(index as u32);
            let [part_width, part_height] = [part_width, part_height].map(|side| side as usize);
            let mut read = |plane: usize| {
                let chunk = index + plane * across * down;
                if lengths.get(chunk) == Some(&0) && is_tiled {
                    return Ok(self.missing(part_width * part_height));
                }
                let chunk = decoder.read_chunk(chunk as u32).map_err(tiff_error)?;
                Ok(self.unpacked(widen(chunk), part_width))
            };
            let chunks: Vec<DecodingResult> = if self.is_planar {
                let needed = pixels.needed().to_vec();
                needed.into_iter().map(read).collect::<Result<_, DecodeError>>()?
            } else {
                vec![read(0)?]
            };
            part.clear();
            with_samples!(chunks, self.is_planar, samples => pixels.read(&samples, &mut part));
            if part.len() != part_width * part_height * 3 {
                return Err(DecodeError::NoTiffPage);
            }
            if pixels.missing().contains(&true) {
                missing.resize(width * height, false);
                for (row, from) in pixels.missing().chunks_exact(part_width.max(1)).enumerate() {
                    let start = (top + row) * width + left;
                    if let Some(to) = missing.get_mut(start..start + from.len()) {
                        to.copy_from_slice(from);
                    }
                }
            }
            for (row, from) in part.chunks_exact((part_width * 3).max(1)).enumerate() {
                let start = ((top + row) * width + left) * 3;
                if let Some(to) = image.get_mut(start..start + from.len()) {
                    to.copy_from_slice(from);
                }
            }
        }
        let notes = ImageNotes { other_pages: self.other_pages, ..pixels.finish()? };
        let [width, height] = self.size;
        let image = RgbImage::from_raw(width, height, image).ok_or(DecodeError::NoTiffPage)?;
        let is_seen_as_stored = self.orientation == Orientation::NoTransforms;
        let place = Some(self.geo).filter(|geo| !geo.is_empty() && is_seen_as_stored);
        Ok(TiffPixels { image, notes, place: place.map(|geo| Place { geo, missing }) })
    }

    /// Checks that all strips or tiles lie in the file and are of a sane size, and returns their
    /// lengths.
    fn check_chunks(&self, file: &[u8], memory: u64) -> Result<Vec<u64>, DecodeError> {
        let numbers = |tag| self.directory.numbers(file, tag);
        let number = |tag| self.directory.number(file, tag).unwrap_or(0);
        let offsets =
            numbers(directory::TILE_OFFSETS).or_else(|| numbers(directory::STRIP_OFFSETS));
        let lengths = numbers(directory::TILE_BYTES).or_else(|| numbers(directory::STRIP_BYTES));
        let (offsets, lengths) = offsets.zip(lengths).ok_or(DecodeError::NoTiffPage)?;
        let chunks = offsets.iter().zip(&lengths);
        let cut = chunks.filter(|(offset, length)| *offset + *length > file.len() as f64).count();
        if cut > 0 {
            return Err(DecodeError::TiffTruncated { chunks: cut, of: offsets.len() });
        }
        let [width, height] = self.size.map(u64::from);
        if number(directory::COMPRESSION) <= 1
            && self.directory.place(directory::TILE_BYTES).is_none()
        {
            // The decoder would go on with whatever follows.
            let planes = if self.is_planar { self.format.bands as u64 } else { 1 };
            let row_samples = width * self.format.bands as u64 / planes;
            let needed = (row_samples * self.bits).div_ceil(8) * planes * height;
            let bytes = lengths.iter().sum::<f64>() as u64;
            if bytes < needed {
                return Err(DecodeError::TiffShort { bytes, needed });
            }
        }
        let tile = [directory::TILE_WIDTH, directory::TILE_HEIGHT].map(number);
        let bytes = (self.format.bands as u64).saturating_mul(self.bits.div_ceil(8));
        let tile = tile[0].saturating_mul(tile[1]).saturating_mul(bytes);
        if tile > memory.saturating_mul(4) {
            return Err(unsupported(format!("tiles of {tile} bytes for a smaller image")));
        }
        Ok(lengths.into_iter().map(|length| length as u64).collect())
    }

    /// Shows the file to the decoder so that the page is the first, and made of plain bands.
    fn open<'a>(&self, file: &'a [u8]) -> Overlaid<'a> {
        let (position, length) = self.layout.first_directory();
        let first = (position as u64, self.layout.bytes(self.directory.position, length));
        let photometric = self.directory.place(directory::PHOTOMETRIC);
        let plain = photometric.map(|(place, length)| (place, self.layout.bytes(1, length)));
        Overlaid { file: Cursor::new(file), patches: [Some(first), plain] }
    }

    /// A tile that was left out as it holds no data.
    fn missing(&self, pixels: usize) -> DecodingResult {
        let count = pixels * if self.is_planar { 1 } else { self.format.bands };
        let value = self.geo.nodata_value().unwrap_or(0.0);
        match self.format.kind {
            SampleKind::Byte => DecodingResult::U8(vec![value as u8; count]),
            SampleKind::Word | SampleKind::ScaledWord => {
                DecodingResult::U16(vec![value as u16; count])
            }
            SampleKind::Unbounded(_) => DecodingResult::F64(vec![value; count]),
        }
    }

    /// Unpacks samples of 1, 2 or 4 bits, the first in the highest bits, whose rows start on whole
    /// bytes; scales those that are not indices to 8 bits.
    fn unpacked(&self, chunk: DecodingResult, width: usize) -> DecodingResult {
        let (bits, DecodingResult::U8(packed)) = (self.bits as usize, &chunk) else { return chunk };
        if !matches!(bits, 1 | 2 | 4) {
            return chunk;
        }
        let row_samples = width * if self.is_planar { 1 } else { self.format.bands };
        let mask = (1_u8 << bits) - 1;
        let factor = match self.format.model {
            ColorModel::Palette(_) => 1,
            _ => 255 / mask,
        };
        let sample = |row: &[u8], column: usize| {
            let bit = column * bits;
            (row[bit / 8] >> (8 - bits - bit % 8) & mask) * factor
        };
        let rows = packed.chunks_exact((row_samples * bits).div_ceil(8).max(1));
        let samples = rows.flat_map(|row| (0..row_samples).map(move |column| sample(row, column)));
        DecodingResult::U8(samples.collect())
    }
}

/// Reads what the photometric interpretation and its companions say of the bands.
fn pixel_format(
    file: &[u8],
    directory: &Directory,
    bands: usize,
    kind: SampleKind,
    nodata: Option<f64>,
) -> Result<PixelFormat, DecodeError> {
    let number = |tag, default| directory.number(file, tag).unwrap_or(default);
    let extra = directory.numbers(file, directory::EXTRA_SAMPLES).unwrap_or_default();
    let compression = number(directory::COMPRESSION, 1);
    let photometric = number(directory::PHOTOMETRIC, u64::MAX);
    let model = match (photometric, bands) {
        (0, 1 | 2) => ColorModel::Gray { inverted: true },
        (1, 1 | 2) => ColorModel::Gray { inverted: false },
        // Several bands that are no colors to the writer; the first three are taken for them.
        (1, _) | (2, 3..) => ColorModel::Rgb,
        (3, 1..) => ColorModel::Palette(palette(file, directory)?),
        (5, 4..) => ColorModel::Cmyk,
        (6, 3..) => {
            let subsampling = directory.numbers(file, directory::SUBSAMPLING);
            if compression != JPEG && subsampling.unwrap_or_else(|| vec![2.0; 2]) != [1.0, 1.0] {
                let what = "YCbCr with subsampled chroma that is not compressed as JPEG";
                return Err(unsupported(what.to_owned()));
            }
            ColorModel::YCbCr
        }
        (4, _) => return Err(unsupported("a transparency mask alone".to_owned())),
        (8..=10, _) => return Err(unsupported("CIE L*a*b* colors".to_owned())),
        (32_803 | 34_892, _) => {
            return Err(unsupported("raw data of a camera's sensor".to_owned()));
        }
        (u64::MAX, _) => return Err(unsupported("no photometric interpretation".to_owned())),
        (other, _) => {
            let what = format!("photometric interpretation {other} with {bands} bands");
            return Err(unsupported(what));
        }
    };
    let colors = match model {
        ColorModel::Gray { .. } | ColorModel::Palette(_) => 1,
        ColorModel::Rgb | ColorModel::YCbCr => 3,
        ColorModel::Cmyk => 4,
    };
    // Four samples of RGB without a word on the fourth are read as opacity by libtiff too.
    let has_opacity = match extra.first() {
        Some(&meaning) => meaning == 1.0 || meaning == 2.0,
        None => photometric != 1 && bands == colors + 1,
    };
    let premultiplied = extra.first() == Some(&1.0);
    Ok(PixelFormat { model, bands, has_opacity, premultiplied, kind, nodata })
}

/// Colors of 16 bits, or of 8 where all are below 256, as some programs write them.
fn palette(file: &[u8], directory: &Directory) -> Result<Vec<[u8; 3]>, DecodeError> {
    let map = directory.numbers(file, directory::PALETTE).unwrap_or_default();
    let count = map.len() / 3;
    if count == 0 {
        return Err(unsupported("palette colors without a palette".to_owned()));
    }
    let shift = if map.iter().all(|&value| value < 256.0) { 0 } else { 8 };
    let color = |index: usize| {
        [index, count + index, 2 * count + index].map(|place| (map[place] as u16 >> shift) as u8)
    };
    Ok((0..count).map(color).collect())
}

fn geo_reference(file: &[u8], directory: &Directory) -> GeoReference {
    let numbers = |tag| directory.numbers(file, tag).unwrap_or_default();
    GeoReference {
        pixel_scale: numbers(33_550),
        tie_points: numbers(33_922),
        transformation: numbers(34_264),
        key_directory: numbers(34_735).into_iter().map(|key| key as u16).collect(),
        double_params: numbers(34_736),
        ascii_params: directory.text(file, 34_737).unwrap_or_default(),
        nodata: directory.text(file, 42_113),
    }
}

fn unsupported(what: String) -> DecodeError {
    DecodeError::UnsupportedTiff { what }
}

fn tiff_error(error: TiffError) -> DecodeError {
    match error {
        TiffError::UnsupportedError(TiffUnsupportedError::UnsupportedCompressionMethod(method)) => {
            unsupported(format!("{method:?} compression"))
        }
        TiffError::UnsupportedError(reason) => unsupported(reason.to_string()),
        other => DecodeError::BrokenTiff(other),
    }
}

/// A file of which a few bytes read differently.
#[derive(Debug)]
struct Overlaid<'a> {
    file: Cursor<&'a [u8]>,
    /// Positions and bytes.
    patches: [Option<(u64, Vec<u8>)>; 2],
}

impl Read for Overlaid<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let start = self.file.position();
        let count = self.file.read(buffer)?;
        for (position, bytes) in self.patches.iter().flatten() {
            for (place, &byte) in (*position..).zip(bytes) {
                let inside = place.checked_sub(start).and_then(|place| usize::try_from(place).ok());
                if let Some(target) = inside.and_then(|place| buffer[..count].get_mut(place)) {
                    *target = byte;
                }
            }
        }
        Ok(count)
    }
}

impl Seek for Overlaid<'_> {
    fn seek(&mut self, position: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(position)
    }
}

#[cfg(test)]
mod tests;
