//! TIFF and BigTIFF files: the page that is the image, its samples in all bands, and its place on
//! Earth.
//!
//! The `tiff` crate decodes strips and tiles. It leaves out bands beside the colors before it
//! undoes a predictor over all of them, knows neither palettes nor pages behind an unsupported one,
//! so it is shown every page as the first one, and as plain bands; their meaning is found here.

mod bytes;
mod directory;
mod rows;

use image::RgbImage;
use image::metadata::Orientation;
use protoseg_models::reading::ImageReading;
use tiff::{TiffError, TiffUnsupportedError};

pub(crate) use self::bytes::{ByteSource, FileSource};
use self::directory::Directory;
pub(crate) use self::directory::Layout;
pub(crate) use self::rows::TiffRows;
use crate::channels::{ColorModel, PixelFormat};
use crate::geo::{GeoReference, Place};
use crate::image_file::DecodeError;
use crate::notes::ImageNotes;
use crate::samples::SampleKind;

/// Compression of JPEG streams.
const JPEG: u64 = 7;
/// Bands of a pixel that are decoded; hyperspectral sensors have some hundred.
const MAX_BANDS: u64 = 4096;

/// The tags of the page that is read.
#[derive(Debug, Clone)]
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
    pub(crate) fn choose(file: &dyn ByteSource, layout: Layout) -> Result<Self, DecodeError> {
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
        let [width, height] = self.size;
        let pixels = width as usize * height as usize;
        let geo = self.place();
        let mut rows = TiffRows::new(self, file, reading, memory)?;
        let mut image = Vec::with_capacity(pixels * 3);
        let mut missing = Vec::new();
        let mut before = 0;
        while rows.read(&mut image)? > 0 {
            if !rows.missing().is_empty() {
                missing.resize(before, false);
                missing.extend_from_slice(rows.missing());
            }
            before = image.len() / 3;
        }
        if !missing.is_empty() {
            missing.resize(pixels, false);
        }
        let notes = rows.finish()?;
        let image = RgbImage::from_raw(width, height, image).ok_or(DecodeError::NoTiffPage)?;
        Ok(TiffPixels { image, notes, place: geo.map(|geo| Place { geo, missing }) })
    }

    /// The place on Earth, unless the image is turned away from it.
    pub(crate) fn place(&self) -> Option<GeoReference> {
        let is_seen_as_stored = self.orientation == Orientation::NoTransforms;
        Some(&self.geo).filter(|geo| !geo.is_empty() && is_seen_as_stored).cloned()
    }

    /// The samples have no customary range, so that one must be given.
    pub(crate) fn needs_range(&self) -> bool {
        let is_indexed = matches!(self.format.model, ColorModel::Palette(_));
        !is_indexed && matches!(self.format.kind, SampleKind::Unbounded(_))
    }
}

/// Returns the place in the file, from 0, of the only page of full size, or else the number of pages
/// of which each could be meant.
pub(crate) fn only_page(file: &[u8], layout: Layout) -> Result<usize, usize> {
    directory::only_page(&file, layout)
}

/// Reads what the photometric interpretation and its companions say of the bands.
fn pixel_format(
    file: &dyn ByteSource,
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
fn palette(file: &dyn ByteSource, directory: &Directory) -> Result<Vec<[u8; 3]>, DecodeError> {
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

fn geo_reference(file: &dyn ByteSource, directory: &Directory) -> GeoReference {
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

#[cfg(test)]
pub(crate) mod tests;
