//! Label maps: one id per pixel, read from 8-bit gray or palette PNG, written as ids, as colors, or
//! blended over the image.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use image::RgbImage;
use png::{BitDepth, ColorType, Transformations};
use protoseg_models::classes::ClassTable;
use protoseg_models::errors::FileError;

/// One id for every pixel of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMap {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// `[height, width]`: train ids, or the ids of a dataset's label file.
    pub labels: Vec<u8>,
}

/// The reason why a label file cannot be read, or a label map not be encoded.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum LabelMapError {
    /// An I/O error.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not a PNG, or a broken one.
    #[error("{} cannot be read as a PNG of labels: {source}", path.display())]
    Broken { path: PathBuf, source: png::DecodingError },
    /// A PNG that holds no ids.
    #[error(
        "{} holds {found} samples, not one 8-bit id per pixel (gray or palette PNG)",
        path.display()
    )]
    Kind { path: PathBuf, found: String },
    /// More pixels than allowed.
    #[error("{} has {width}x{height} pixels, more than the limit of {limit}", path.display())]
    TooLarge { path: PathBuf, width: u32, height: u32, limit: u64 },
    /// A map and an image of different sizes, `[width, height]`.
    #[error(
        "{}x{} labels do not cover an image of {}x{} pixels", map[0], map[1], image[0], image[1]
    )]
    Size { map: [usize; 2], image: [usize; 2] },
    /// An error of the encoder.
    #[error("the labels cannot be encoded as PNG: {0}")]
    Encode(#[from] png::EncodingError),
}

/// Reads a label file of at most `max_pixels` pixels: the bytes of a gray PNG, or the palette
/// *indices* of a palette PNG, of 1, 2, 4 or 8 bits.
pub fn read(path: &Path, max_pixels: u64) -> Result<LabelMap, LabelMapError> {
    let broken = |source| LabelMapError::Broken { path: path.into(), source };
    let file = File::open(path).map_err(FileError::at(path))?;
    let mut decoder = png::Decoder::new(BufReader::new(file));
    decoder.set_transformations(Transformations::IDENTITY);
    let header = decoder.read_header_info().map_err(broken)?;
    let (width, height) = header.size();
    let (color, depth) = (header.color_type, header.bit_depth);
    if u64::from(width) * u64::from(height) > max_pixels {
        let path = path.into();
        return Err(LabelMapError::TooLarge { path, width, height, limit: max_pixels });
    }
    if !matches!(color, ColorType::Grayscale | ColorType::Indexed) || depth == BitDepth::Sixteen {
        let found = format!("{}-bit {color:?}", depth as u8);
        return Err(LabelMapError::Kind { path: path.into(), found });
    }
    let mut reader = decoder.read_info().map_err(broken)?;
    let (width, height, bits) = (width as usize, height as usize, depth as usize);
    let stride = (width * bits).div_ceil(8);
    let mut packed = vec![0; stride * height];
    reader.next_frame(&mut packed).map_err(broken)?;
    // Reads to the end mark, so that a file truncated behind the pixels is noticed too.
    reader.finish().map_err(broken)?;
    let labels = if bits == 8 { packed } else { unpack(&packed, stride, width, bits) };
    Ok(LabelMap { height, width, labels })
}

/// Unpacks samples of 1, 2 or 4 bits, the first in the highest bits; rows start on whole bytes.
fn unpack(packed: &[u8], stride: usize, width: usize, bits: usize) -> Vec<u8> {
    let mask = (1_u8 << bits) - 1;
    let sample = |row: &[u8], column: usize| {
        let bit = column * bits;
        row[bit / 8] >> (8 - bits - bit % 8) & mask
    };
    let samples = |row| (0..width).map(move |column| sample(row, column));
    packed.chunks_exact(stride.max(1)).flat_map(samples).collect()
}

impl LabelMap {
    /// Encodes an 8-bit gray PNG whose bytes are the labels.
    ///
    /// ```
    /// use protoseg_images::label_map::{self, LabelMap};
    ///
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("street.png");
    /// let map = LabelMap { height: 1, width: 3, labels: vec![0, 18, 255] };
    /// std::fs::write(&path, map.ids_png()?)?;
    /// assert_eq!(label_map::read(&path, 100)?, map);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ids_png(&self) -> Result<Vec<u8>, LabelMapError> {
        self.gray_png(&self.labels)
    }

    /// Encodes an 8-bit palette PNG in the colors of the classes, whose indices are the labels.
    pub fn color_png(&self, classes: &ClassTable) -> Result<Vec<u8>, LabelMapError> {
        self.encode(&self.labels, ColorType::Indexed, Some(classes.palette().as_flattened()))
    }

    /// Encodes an RGB PNG of the image, blended half and half with the colors of the classes.
    pub fn overlay_png(
        &self,
        image: &RgbImage,
        classes: &ClassTable,
    ) -> Result<Vec<u8>, LabelMapError> {
        let map_size = [self.width, self.height];
        let image_size = [image.width() as usize, image.height() as usize];
        if map_size != image_size {
            return Err(LabelMapError::Size { map: map_size, image: image_size });
        }
        let palette = classes.palette();
        let blend = |(&label, pixel): (&u8, &[u8])| {
            let color = palette[usize::from(label)];
            std::array::from_fn::<u8, 3, _>(|channel| pixel[channel].midpoint(color[channel]))
        };
        let pixels: Vec<u8> =
            self.labels.iter().zip(image.chunks_exact(3)).flat_map(blend).collect();
        self.encode(&pixels, ColorType::Rgb, None)
    }

    /// Encodes an RGB PNG in a color for each label.
    pub fn rgb_png(&self, colors: &[[u8; 3]; 256]) -> Result<Vec<u8>, LabelMapError> {
        let pixels: Vec<u8> =
            self.labels.iter().flat_map(|&label| colors[usize::from(label)]).collect();
        self.encode(&pixels, ColorType::Rgb, None)
    }

    /// Encodes an 8-bit gray PNG of other bytes of the same size, such as the confidence.
    pub fn gray_png(&self, samples: &[u8]) -> Result<Vec<u8>, LabelMapError> {
        self.encode(samples, ColorType::Grayscale, None)
    }

    fn encode(
        &self,
        samples: &[u8],
        color: ColorType,
        palette: Option<&[u8]>,
    ) -> Result<Vec<u8>, LabelMapError> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(color);
        encoder.set_depth(BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        if let Some(palette) = palette {
            encoder.set_palette(palette);
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(samples)?;
        writer.finish()?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> LabelMap {
        LabelMap { height: 3, width: 5, labels: (0..15).map(|index| index % 11).collect() }
    }

    fn read_bytes(bytes: &[u8]) -> Result<LabelMap, LabelMapError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.png");
        std::fs::write(&path, bytes).unwrap();
        read(&path, 1000)
    }

    #[test]
    fn ids_and_palette_indices_are_read_as_they_were_written() {
        let classes = ClassTable::camvid();
        assert_eq!(read_bytes(&map().ids_png().unwrap()).unwrap(), map());
        let color = map().color_png(&classes).unwrap();
        assert_eq!(read_bytes(&color).unwrap(), map());
        let seen = image::load_from_memory(&color).unwrap().into_rgb8();
        assert_eq!(seen.get_pixel(3, 0).0, [128, 64, 128]);
        let image = RgbImage::from_pixel(5, 3, image::Rgb([10, 20, 255]));
        let overlay = image::load_from_memory(&map().overlay_png(&image, &classes).unwrap())
            .unwrap()
            .into_rgb8();
        assert_eq!(overlay.get_pixel(3, 0).0, [69, 42, 191]);
        let other = RgbImage::new(5, 4);
        assert!(matches!(map().overlay_png(&other, &classes), Err(LabelMapError::Size { .. })));
    }

    #[test]
    fn packed_ids_are_unpacked_and_other_kinds_of_png_are_refused() {
        for (depth, row) in
            [(BitDepth::One, 0b1010_0000), (BitDepth::Two, 0b1001_1100), (BitDepth::Four, 0x7F)]
        {
            let mut bytes = Vec::new();
            let width = if depth == BitDepth::Four { 2 } else { 3 };
            let mut encoder = png::Encoder::new(&mut bytes, width, 1);
            encoder.set_color(ColorType::Indexed);
            encoder.set_depth(depth);
            encoder.set_palette([9_u8; 48].as_slice());
            encoder.write_header().unwrap().write_image_data(&[row]).unwrap();
            let expected: &[u8] = match depth {
                BitDepth::One => &[1, 0, 1],
                BitDepth::Two => &[2, 1, 3],
                _ => &[7, 15],
            };
            assert_eq!(read_bytes(&bytes).unwrap().labels, expected);
        }
        for image in [image::DynamicImage::new_rgb8(2, 2), image::DynamicImage::new_luma16(2, 2)] {
            let mut bytes = std::io::Cursor::new(Vec::new());
            image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
            assert!(matches!(read_bytes(&bytes.into_inner()), Err(LabelMapError::Kind { .. })));
        }
        let bytes = map().ids_png().unwrap();
        for length in 0..bytes.len() {
            assert!(
                matches!(read_bytes(&bytes[..length]), Err(LabelMapError::Broken { .. })),
                "cut to {length}"
            );
        }
        let wide = LabelMap { height: 1, width: 1001, labels: vec![0; 1001] };
        assert!(matches!(
            read_bytes(&wide.ids_png().unwrap()),
            Err(LabelMapError::TooLarge { .. })
        ));
    }
}
