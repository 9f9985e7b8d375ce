//! Label maps that are larger than memory: PNG and GeoTIFF files written from the top.

use std::io::{self, Seek, SeekFrom, Write};

use png::{ColorType, EncodingError};
use protoseg_models::classes::ClassTable;

use crate::geo::GeoReference;
use crate::geo_tiff::{self, GeoTiffError};
use crate::label_map::{png_encoder, train_ids_text};

/// Bytes of a compressed part of a PNG.
const PNG_PART: usize = 1 << 16;

/// A file of one byte per pixel.
#[derive(Debug, Clone)]
pub enum RowEncoding {
    /// A gray PNG, with a text that its ids are train ids where classes have others.
    Gray {
        /// Names of the classes.
        train_ids_of: Option<String>,
    },
    /// A palette PNG of train ids.
    Palette {
        /// Names of the classes.
        train_ids_of: Option<String>,
        /// The color of each id.
        palette: Vec<u8>,
    },
    /// A GeoTIFF of train ids.
    GeoTiff(GeoReference),
}

/// The reason why rows cannot be written.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum RowFileError {
    /// An I/O error.
    #[error("writing failed: {0}")]
    Write(#[from] io::Error),
    /// An error of the PNG encoder.
    #[error("the labels cannot be encoded as PNG: {0}")]
    Png(#[source] EncodingError),
    /// An error of the TIFF encoder.
    #[error(transparent)]
    Tiff(#[from] GeoTiffError),
    /// Rows that end before or after the image.
    #[error("{found} of {expected} pixels were given")]
    Pixels { found: u64, expected: u64 },
}

impl From<EncodingError> for RowFileError {
    fn from(error: EncodingError) -> Self {
        match error {
            EncodingError::IoError(source) => Self::Write(source),
            other => Self::Png(other),
        }
    }
}

impl RowEncoding {
    /// Train ids as [`LabelMap::train_ids_png`](crate::label_map::LabelMap::train_ids_png) encodes
    /// them.
    pub fn train_ids(classes: &ClassTable) -> Self {
        Self::Gray { train_ids_of: train_ids_text(classes) }
    }

    /// Bytes of another meaning.
    pub fn gray() -> Self {
        Self::Gray { train_ids_of: None }
    }

    /// Train ids in the colors of the classes.
    pub fn color(classes: &ClassTable) -> Self {
        let palette = classes.palette().as_flattened().to_vec();
        Self::Palette { train_ids_of: train_ids_text(classes), palette }
    }

    /// Writes a file of `[height, width]` pixels from blocks of whole rows. Where these end early,
    /// as after an error of whoever makes them, this is an error, and the file is not whole.
    pub fn write<B: AsRef<[u8]>>(
        &self,
        out: impl Write + Seek,
        size: [usize; 2],
        blocks: impl IntoIterator<Item = B>,
    ) -> Result<(), RowFileError> {
        let expected = size[0] as u64 * size[1] as u64;
        let mut counted = Counted { blocks: blocks.into_iter(), found: 0, expected };
        let mut out = Recorded { inner: out, failed: None };
        let written = match self {
            Self::Gray { train_ids_of } => {
                write_png(&mut out, size, None, train_ids_of.clone(), &mut counted)
            }
            Self::Palette { train_ids_of, palette } => {
                write_png(&mut out, size, Some(palette), train_ids_of.clone(), &mut counted)
            }
            Self::GeoTiff(geo) => {
                geo_tiff::write_rows(&mut out, size, geo, &mut counted).map_err(Into::into)
            }
        };
        // An error of the disk is the cause of what the encoder says, which may say nothing.
        if let Some(error) = out.failed {
            return Err(error.into());
        }
        if counted.found != expected {
            return Err(RowFileError::Pixels { found: counted.found, expected });
        }
        written
    }
}

fn write_png<B: AsRef<[u8]>>(
    out: impl Write,
    size: [usize; 2],
    palette: Option<&Vec<u8>>,
    train_ids_of: Option<String>,
    blocks: &mut impl Iterator<Item = B>,
) -> Result<(), RowFileError> {
    let color = if palette.is_some() { ColorType::Indexed } else { ColorType::Grayscale };
    let palette = palette.map(Vec::as_slice);
    let encoder = png_encoder(out, size, color, palette, train_ids_of)?;
    let mut writer = encoder.write_header()?;
    let mut rows = writer.stream_writer_with_size(PNG_PART)?;
    for block in blocks {
        rows.write_all(block.as_ref())?;
    }
    rows.finish()?;
    Ok(writer.finish()?)
}

/// Counts the bytes of blocks, and ends before one that is too much.
struct Counted<I> {
    blocks: I,
    found: u64,
    expected: u64,
}

impl<B: AsRef<[u8]>, I: Iterator<Item = B>> Iterator for Counted<I> {
    type Item = B;

    fn next(&mut self) -> Option<B> {
        let block = self.blocks.next()?;
        self.found += block.as_ref().len() as u64;
        Some(block).filter(|_| self.found <= self.expected)
    }
}

/// Keeps the first error of a writer, as encoders lose those of their last bytes.
struct Recorded<W> {
    inner: W,
    failed: Option<io::Error>,
}

impl<W> Recorded<W> {
    fn keep<R>(&mut self, result: io::Result<R>) -> io::Result<R> {
        result.map_err(|error| {
            let kind = error.kind();
            self.failed.get_or_insert(error);
            kind.into()
        })
    }
}

impl<W: Write> Write for Recorded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes);
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
            return written;
        }
        self.keep(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        self.keep(flushed)
    }
}

impl<W: Seek> Seek for Recorded<W> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let place = self.inner.seek(position);
        self.keep(place)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::label_map::LabelMap;

    fn map() -> LabelMap {
        let (height, width) = (700, 3000);
        let label = |index: usize| ((index % width / 37) ^ (index / width / 5)) % 11;
        LabelMap {
            height,
            width,
            labels: (0..height * width).map(|index| label(index) as u8).collect(),
        }
    }

    fn written(encoding: &RowEncoding, map: &LabelMap, rows: usize) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let blocks = map.labels.chunks(rows * map.width);
        encoding.write(&mut bytes, [map.height, map.width], blocks).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn files_in_blocks_are_those_of_whole_maps() {
        let (map, classes) = (map(), ClassTable::cityscapes());
        let geo = GeoReference {
            pixel_scale: vec![0.5, 0.5, 0.0],
            tie_points: vec![0.0, 0.0, 0.0, 500_000.0, 5_400_000.0, 0.0],
            key_directory: vec![1, 1, 0, 1, 3072, 0, 1, 32_632],
            ascii_params: "UTM zone 32N|".to_owned(),
            ..GeoReference::default()
        };
        for rows in [1, 7, 333, 334, 335, 700] {
            let found = written(&RowEncoding::GeoTiff(geo.clone()), &map, rows);
            assert!(found == geo_tiff::encode(&map, &geo).unwrap(), "{rows} rows of a GeoTIFF");
            let pixels = |bytes: &[u8]| {
                let mut decoder = png::Decoder::new(Cursor::new(bytes));
                decoder.set_transformations(png::Transformations::IDENTITY);
                let mut reader = decoder.read_info().unwrap();
                let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
                reader.next_frame(&mut pixels).unwrap();
                reader.finish().unwrap();
                let info = reader.info();
                (pixels, info.palette.clone(), info.utf8_text.clone())
            };
            for (encoding, whole) in [
                (RowEncoding::train_ids(&classes), map.train_ids_png(&classes).unwrap()),
                (RowEncoding::color(&classes), map.color_png(&classes).unwrap()),
                (RowEncoding::gray(), map.ids_png().unwrap()),
            ] {
                let found = written(&encoding, &map, rows);
                assert!(pixels(&found) == pixels(&whole), "{rows} rows, {encoding:?}");
            }
        }
    }

    #[test]
    fn rows_that_end_early_or_late_are_errors() {
        let map = map();
        for encoding in [RowEncoding::gray(), RowEncoding::GeoTiff(GeoReference::default())] {
            for count in [0, 1, 699, 701] {
                let rows = map.labels.chunks(map.width).cycle().take(count);
                let error = encoding.write(Cursor::new(Vec::new()), [700, 3000], rows);
                assert!(matches!(error, Err(RowFileError::Pixels { .. })), "{count} rows");
            }
        }
    }

    /// A disk with room for some bytes.
    struct Disk(Cursor<Vec<u8>>, usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.position() as usize + bytes.len() > self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Disk {
        fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
            self.0.seek(position)
        }
    }

    #[test]
    fn a_full_disk_is_an_error_at_every_byte() {
        let map = LabelMap { height: 9, width: 7, labels: (0..63).collect() };
        for encoding in [RowEncoding::gray(), RowEncoding::GeoTiff(GeoReference::default())] {
            let whole = written(&encoding, &map, 2).len();
            for room in 0..=whole {
                let rows = map.labels.chunks(map.width);
                let result = encoding.write(Disk(Cursor::default(), room), [9, 7], rows);
                match result {
                    Ok(()) => assert_eq!(room, whole),
                    Err(error) => {
                        assert!(room < whole, "{error}");
                        assert!(matches!(error, RowFileError::Write(_)), "{room}: {error}");
                    }
                }
            }
        }
    }
}
