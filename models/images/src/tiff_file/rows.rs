//! Pixels of a page from the top: a row of tiles at a time, a strip, or part of an uncompressed
//! strip.

use std::io::BufReader;

use protoseg_models::reading::ImageReading;
use tiff::decoder::{ChunkType, Decoder, DecodingResult, Limits};

use super::bytes::{ByteSource, Overlaid};
use super::{TiffPage, directory, tiff_error, unsupported};
use crate::channels::{ColorModel, PixelReader};
use crate::image_file::DecodeError;
use crate::notes::ImageNotes;
use crate::samples::{SampleKind, widen, with_samples};

/// Bytes of an uncompressed strip from which on it is read in parts.
const PART_BYTES: u64 = 16 << 20;
/// Bytes that are read from a file at a time, unless more are needed at once.
const BUFFER: usize = 16 << 10;

/// Reads the pixels of a page from the top.
pub(crate) struct TiffRows<S: ByteSource> {
    page: TiffPage,
    source: S,
    decoder: Decoder<BufReader<Overlaid<S>>>,
    pixels: PixelReader,
    /// Offset and length of each strip or tile.
    chunks: Vec<(u64, u64)>,
    /// Width and height of a strip or tile.
    chunk_size: [usize; 2],
    is_tiled: bool,
    /// Rows of a part of an uncompressed strip, where these are read in parts.
    part_rows: Option<usize>,
    /// Rows that were read.
    done: usize,
    /// Pixels without data among the rows that were read last.
    missing: Vec<bool>,
}

impl<S: ByteSource + Clone> TiffRows<S> {
    /// `memory` bounds the decoder's buffers in bytes.
    pub(crate) fn new(
        page: TiffPage,
        source: S,
        reading: ImageReading,
        memory: u64,
    ) -> Result<Self, DecodeError> {
        let pixels = PixelReader::new(page.format.clone(), reading)?;
        let chunks = page.check_chunks(&source, memory)?;
        let mut decoder = Decoder::new(page.open(source.clone())).map_err(tiff_error)?;
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        let mut limits = Limits::default();
        limits.decoding_buffer_size = memory;
        limits.intermediate_buffer_size = memory;
        decoder = decoder.with_limits(limits);
        let (width, height) = decoder.chunk_dimensions();
        let is_tiled = decoder.get_chunk_type() == ChunkType::Tile;
        Ok(Self {
            part_rows: page.part_rows(&source).filter(|_| !is_tiled),
            page,
            source,
            decoder,
            pixels,
            chunks,
            chunk_size: [width, height].map(|side| side.max(1) as usize),
            is_tiled,
            done: 0,
            missing: Vec::new(),
        })
    }

    /// Appends the next rows of pixels as red, green and blue, and returns their number; 0 at the
    /// end.
    pub(crate) fn read(&mut self, rgb: &mut Vec<u8>) -> Result<usize, DecodeError> {
        self.missing.clear();
        let [width, height] = self.page.size.map(|side| side as usize);
        let [chunk_width, chunk_height] = self.chunk_size;
        // Up to the end of the row of tiles, or of the strip.
        let mut rows = (height - self.done).min(chunk_height - self.done % chunk_height);
        rows = rows.min(self.part_rows.unwrap_or(rows));
        let first = rgb.len();
        rgb.resize(first + rows * width * 3, 0);
        let across = width.div_ceil(chunk_width);
        let mut part = Vec::new();
        for column in 0..across {
            if rows == 0 {
                break;
            }
            let index = self.done / chunk_height * across + column;
            let left = column * chunk_width;
            let part_width = chunk_width.min(width - left);
            let chunks = self.decode(index, [rows, part_width])?;
            part.clear();
            let (pixels, is_planar) = (&mut self.pixels, self.page.is_planar);
            with_samples!(chunks, is_planar, samples => pixels.read(&samples, &mut part));
            if part.len() != part_width * rows * 3 {
                return Err(DecodeError::NoTiffPage);
            }
            if self.pixels.missing().contains(&true) {
                self.missing.resize(rows * width, false);
                let from = self.pixels.missing().chunks_exact(part_width);
                for (to, from) in self.missing.chunks_exact_mut(width).zip(from) {
                    to[left..left + part_width].copy_from_slice(from);
                }
            }
            let to = rgb[first..].chunks_exact_mut(width * 3);
            for (to, from) in to.zip(part.chunks_exact(part_width * 3)) {
                to[left * 3..(left + part_width) * 3].copy_from_slice(from);
            }
        }
        self.done += rows;
        Ok(rows)
    }

    /// For each pixel of the rows that were read last, true where it has no data; empty where all
    /// have.
    pub(crate) fn missing(&self) -> &[bool] {
        &self.missing
    }

    /// Returns the remarks on a page whose rows were all read.
    pub(crate) fn finish(self) -> Result<ImageNotes, DecodeError> {
        Ok(ImageNotes { other_pages: self.page.other_pages, ..self.pixels.finish()? })
    }

    /// Samples of a strip or tile, or of the next rows of it: all bands, or one result for each
    /// needed band.
    fn decode(
        &mut self,
        index: usize,
        [rows, width]: [usize; 2],
    ) -> Result<Vec<DecodingResult>, DecodeError> {
        if !self.page.is_planar {
            return Ok(vec![self.decode_plane(index, 0, [rows, width])?]);
        }
        let needed = self.pixels.needed().to_vec();
        needed.into_iter().map(|plane| self.decode_plane(index, plane, [rows, width])).collect()
    }

    fn decode_plane(
        &mut self,
        index: usize,
        plane: usize,
        [rows, width]: [usize; 2],
    ) -> Result<DecodingResult, DecodeError> {
        let [chunk_width, chunk_height] = self.chunk_size;
        let [across, down] = [
            (self.page.size[0] as usize).div_ceil(chunk_width),
            (self.page.size[1] as usize).div_ceil(chunk_height),
        ];
        let chunk = index + plane * across * down;
        let place = self.chunks.get(chunk).copied();
        if self.is_tiled && place.is_some_and(|(_, length)| length == 0) {
            return Ok(self.page.missing(rows * width));
        }
        let decoded = match (self.part_rows, place) {
            (Some(_), Some((offset, length))) => {
                let row_bytes = self.page.plane_row_bytes();
                let skipped = (self.done % chunk_height) as u64 * row_bytes;
                let bytes = rows as u64 * row_bytes;
                if skipped + bytes > length {
                    return Err(DecodeError::TiffShort { bytes: length, needed: skipped + bytes });
                }
                let samples = self.source.bytes_at(offset + skipped, bytes);
                self.page.samples(samples.ok_or(DecodeError::NoTiffPage)?)
            }
            _ => self.decoder.read_chunk(chunk as u32).map_err(tiff_error)?,
        };
        Ok(self.page.unpacked(widen(decoded), width))
    }
}

impl TiffPage {
    /// True where the file has more strips or tiles than the decoder takes.
    pub(crate) fn has_too_many_chunks(&self) -> bool {
        let most = Limits::default().ifd_value_size as u64;
        let tags = [directory::TILE_OFFSETS, directory::STRIP_OFFSETS];
        tags.iter().any(|&tag| self.directory.length(tag).is_some_and(|bytes| bytes > most))
    }

    /// Returns the number of rows that are decoded at once, and the bytes that they take.
    pub(crate) fn block(&self, file: &dyn ByteSource) -> (u64, u64) {
        let number = |tag| self.directory.number(file, tag);
        let [width, height] = self.size.map(u64::from);
        let sample_bytes = self.bits.div_ceil(8).saturating_mul(self.format.bands as u64);
        // As red, green and blue: of all columns, and twice on the way there.
        let (all, way) = (3 * width, 6 + sample_bytes);
        let tile = [directory::TILE_WIDTH, directory::TILE_HEIGHT].map(number);
        let (rows, columns) = match (tile, self.part_rows(file)) {
            ([Some(tile_width), Some(tile_height)], _) => (tile_height, tile_width),
            (_, Some(rows)) => (rows as u64, width),
            _ => (number(directory::STRIP_ROWS).unwrap_or(height).min(height), width),
        };
        let bytes = columns.saturating_mul(way).saturating_add(all).saturating_mul(rows);
        (rows, bytes)
    }

    /// Rows of a part of an uncompressed strip, where strips are so large that they are read in
    /// parts.
    fn part_rows(&self, file: &dyn ByteSource) -> Option<usize> {
        let number = |tag, default| self.directory.number(file, tag).unwrap_or(default);
        let is_plain = number(directory::COMPRESSION, 1) <= 1
            && number(directory::PREDICTOR, 1) <= 1
            && self.directory.place(directory::TILE_BYTES).is_none()
            && self.has_plain_samples();
        let height = u64::from(self.size[1]);
        let rows = number(directory::STRIP_ROWS, height).min(height);
        let row_bytes = self.plane_row_bytes().max(1);
        (is_plain && rows.saturating_mul(row_bytes) > PART_BYTES)
            .then(|| (PART_BYTES / row_bytes).max(1) as usize)
    }

    /// True where [`samples`](Self::samples) knows the type of the samples.
    fn has_plain_samples(&self) -> bool {
        match self.format.kind {
            SampleKind::Byte | SampleKind::Word | SampleKind::ScaledWord => true,
            SampleKind::Unbounded("floating-point") => matches!(self.bits, 32 | 64),
            SampleKind::Unbounded(_) => self.bits >= 8,
        }
    }

    /// Bytes of a row of all bands, or of a band that is stored apart.
    fn plane_row_bytes(&self) -> u64 {
        let bands = if self.is_planar { 1 } else { self.format.bands as u64 };
        (u64::from(self.size[0]) * bands * self.bits).div_ceil(8)
    }

    /// Uncompressed samples as the decoder would give them.
    fn samples(&self, bytes: Vec<u8>) -> DecodingResult {
        let big_endian = self.layout.is_big_endian();
        macro_rules! numbers {
            ($variant:ident, $kind:ty) => {{
                let numbers = bytes.as_chunks::<{ size_of::<$kind>() }>().0.iter();
                let number = |bytes: &[u8; size_of::<$kind>()]| {
                    if big_endian {
                        <$kind>::from_be_bytes(*bytes)
                    } else {
                        <$kind>::from_le_bytes(*bytes)
                    }
                };
                DecodingResult::$variant(numbers.map(number).collect())
            }};
        }
        match (self.format.kind, self.bits) {
            (SampleKind::Unbounded("signed"), 8) => numbers!(I8, i8),
            (SampleKind::Unbounded("signed"), 16) => numbers!(I16, i16),
            (SampleKind::Unbounded("signed"), 32) => numbers!(I32, i32),
            (SampleKind::Unbounded("signed"), _) => numbers!(I64, i64),
            (SampleKind::Unbounded("floating-point"), 32) => numbers!(F32, f32),
            (SampleKind::Unbounded("floating-point"), _) => numbers!(F64, f64),
            (SampleKind::Unbounded(_), 32) => numbers!(U32, u32),
            (SampleKind::Unbounded(_), _) => numbers!(U64, u64),
            (SampleKind::Word | SampleKind::ScaledWord, _) => numbers!(U16, u16),
            (SampleKind::Byte, _) => DecodingResult::U8(bytes),
        }
    }

    /// Checks that all strips or tiles lie in the file and are of a sane size, and returns their
    /// offsets and lengths.
    fn check_chunks(
        &self,
        file: &dyn ByteSource,
        memory: u64,
    ) -> Result<Vec<(u64, u64)>, DecodeError> {
        let numbers = |tag| self.directory.numbers(file, tag);
        let number = |tag| self.directory.number(file, tag).unwrap_or(0);
        let offsets =
            numbers(directory::TILE_OFFSETS).or_else(|| numbers(directory::STRIP_OFFSETS));
        let lengths = numbers(directory::TILE_BYTES).or_else(|| numbers(directory::STRIP_BYTES));
        let (offsets, lengths) = offsets.zip(lengths).ok_or(DecodeError::NoTiffPage)?;
        let chunks = offsets.iter().zip(&lengths);
        let end = file.size() as f64;
        let cut = chunks.filter(|(offset, length)| *offset + *length > end).count();
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
        let chunks = offsets.into_iter().zip(lengths);
        Ok(chunks.map(|(offset, length)| (offset as u64, length as u64)).collect())
    }

    /// Shows the file to the decoder so that the page is the first, and made of plain bands.
    fn open<S: ByteSource>(&self, source: S) -> BufReader<Overlaid<S>> {
        let (position, length) = self.layout.first_directory();
        let first = (position, self.layout.bytes(self.directory.position, length));
        let photometric = self.directory.place(directory::PHOTOMETRIC);
        let plain = photometric.map(|(place, length)| (place, self.layout.bytes(1, length)));
        BufReader::with_capacity(BUFFER, Overlaid::new(source, [Some(first), plain]))
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
