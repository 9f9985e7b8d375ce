//! Label maps: one id per pixel, read from gray or palette PNG, written as ids, as colors, or
//! blended over the image. The masks of annotation tools are read by [`mask`](crate::mask).

use std::io::Write;
use std::path::{Path, PathBuf};

use image::RgbImage;
use png::{BitDepth, ColorType};
use protoseg_models::classes::{Class, ClassTable};
use protoseg_models::errors::FileError;

use crate::mask::{Mask, MaskSamples, TRAIN_IDS_KEYWORD};

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
    /// A file that holds no ids.
    #[error("{} holds {found}, not one 8-bit id per pixel (gray or palette PNG)", path.display())]
    Kind { path: PathBuf, found: String },
    /// Samples that are no ids.
    #[error("{}: the samples run {found}", path.display())]
    NoIds { path: PathBuf, found: String },
    /// A file of a format that changes samples.
    #[error(
        "{} is {format}, which cannot hold ids: it changes the samples; save the masks as PNG, or \
         make masks of two classes again with `protoseg convert --threshold`",
        path.display()
    )]
    Lossy { path: PathBuf, format: &'static str },
    /// A file of a format that is not read.
    #[error("{} is a {format} file, which is not read; save the mask as PNG", path.display())]
    Format { path: PathBuf, format: &'static str },
    /// A broken TIFF, or one of an unsupported kind.
    #[error("{} cannot be read as a TIFF of labels: {source}; save it as PNG", path.display())]
    Tiff { path: PathBuf, source: tiff::TiffError },
    /// A broken file of another format.
    #[error("{} cannot be read as labels: {source}", path.display())]
    Image { path: PathBuf, source: image::ImageError },
    /// Transparent pixels, whose color is not what is seen.
    #[error(
        "{}: {pixels} pixels are transparent; save the mask without transparency, void in a color \
         or id of its own",
        path.display()
    )]
    Transparent { path: PathBuf, pixels: usize },
    /// Several pages or frames, of which each could be the mask.
    #[error(
        "{} holds {count} {unit} of full size, and a mask is one: save the right one alone, or, where \
         each is one class, each in a file of its own for `protoseg convert`",
        path.display()
    )]
    Several { path: PathBuf, count: usize, unit: &'static str },
    /// A folder, a pipe or a device.
    #[error("{} is not a file", .0.display())]
    NotAFile(PathBuf),
    /// More bytes than the allowed number of pixels can have.
    #[error("{} has {bytes} bytes, more than labels of {limit} pixels can have", path.display())]
    TooLong { path: PathBuf, bytes: u64, limit: u64 },
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

/// Reads a file of ids of at most `max_pixels` pixels: the samples of a gray PNG, or the palette
/// *indices* of a palette PNG.
pub fn read(path: &Path, max_pixels: u64) -> Result<LabelMap, LabelMapError> {
    let Mask { height, width, samples, .. } = Mask::read(path, max_pixels)?;
    let kind = |found: &str| Err(LabelMapError::Kind { path: path.into(), found: found.into() });
    match samples {
        MaskSamples::Ids(labels) | MaskSamples::Indexed { indices: labels, .. } => {
            Ok(LabelMap { height, width, labels })
        }
        MaskSamples::WideIds(_) => kind("samples above 255"),
        MaskSamples::Colors(_) => kind("colors"),
    }
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

    /// Encodes an 8-bit gray PNG whose bytes are the labels, which are train ids. Where the classes
    /// have other ids in label files, a text in the PNG says so, so that the file is never mistaken
    /// for one of these.
    pub fn train_ids_png(&self, classes: &ClassTable) -> Result<Vec<u8>, LabelMapError> {
        self.encode(&self.labels, ColorType::Grayscale, None, train_ids_text(classes))
    }

    /// Encodes an 8-bit palette PNG in the colors of the classes, whose indices are the labels; marked
    /// as by [`train_ids_png`](Self::train_ids_png).
    pub fn color_png(&self, classes: &ClassTable) -> Result<Vec<u8>, LabelMapError> {
        let palette = classes.palette();
        let text = train_ids_text(classes);
        self.encode(&self.labels, ColorType::Indexed, Some(palette.as_flattened()), text)
    }

    /// Encodes an RGB PNG of the image, blended half and half with the colors of the classes. Pixels
    /// without a class keep the image's, and so do those of the background
    /// ([`Class::is_background`](protoseg_models::classes::Class::is_background)), unless it is to
    /// be painted.
    pub fn overlay_png(
        &self,
        image: &RgbImage,
        classes: &ClassTable,
        paint_background: bool,
    ) -> Result<Vec<u8>, LabelMapError> {
        let map_size = [self.width, self.height];
        let image_size = [image.width() as usize, image.height() as usize];
        if map_size != image_size {
            return Err(LabelMapError::Size { map: map_size, image: image_size });
        }
        let painted = |class: &&Class| paint_background || !class.is_background();
        let mut colors = [None; 256];
        for (color, class) in colors.iter_mut().zip(classes.classes()) {
            *color = Some(class).filter(painted).map(|class| class.color);
        }
        let blend = |(&label, pixel): (&u8, &[u8])| {
            let color = colors[usize::from(label)];
            std::array::from_fn::<u8, 3, _>(|channel| {
                color.map_or(pixel[channel], |color| pixel[channel].midpoint(color[channel]))
            })
        };
        let pixels: Vec<u8> =
            self.labels.iter().zip(image.chunks_exact(3)).flat_map(blend).collect();
        self.encode(&pixels, ColorType::Rgb, None, None)
    }

    /// Encodes an RGB PNG in a color for each label.
    pub fn rgb_png(&self, colors: &[[u8; 3]; 256]) -> Result<Vec<u8>, LabelMapError> {
        let pixels: Vec<u8> =
            self.labels.iter().flat_map(|&label| colors[usize::from(label)]).collect();
        self.encode(&pixels, ColorType::Rgb, None, None)
    }

    /// Encodes an 8-bit gray PNG of other bytes of the same size, such as the confidence.
    pub fn gray_png(&self, samples: &[u8]) -> Result<Vec<u8>, LabelMapError> {
        self.encode(samples, ColorType::Grayscale, None, None)
    }

    fn encode(
        &self,
        samples: &[u8],
        color: ColorType,
        palette: Option<&[u8]>,
        train_ids_text: Option<String>,
    ) -> Result<Vec<u8>, LabelMapError> {
        let mut bytes = Vec::new();
        let size = [self.height, self.width];
        let encoder = png_encoder(&mut bytes, size, color, palette, train_ids_text)?;
        let mut writer = encoder.write_header()?;
        writer.write_image_data(samples)?;
        writer.finish()?;
        Ok(bytes)
    }
}

/// Prepares a PNG of 8 bits, `[height, width]`.
pub(crate) fn png_encoder<W: Write>(
    out: W,
    [height, width]: [usize; 2],
    color: ColorType,
    palette: Option<&[u8]>,
    train_ids_text: Option<String>,
) -> Result<png::Encoder<'static, W>, png::EncodingError> {
    let mut encoder = png::Encoder::new(out, width as u32, height as u32);
    encoder.set_color(color);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    if let Some(palette) = palette {
        encoder.set_palette(palette.to_vec());
    }
    if let Some(text) = train_ids_text {
        encoder.add_itxt_chunk(TRAIN_IDS_KEYWORD.to_owned(), text)?;
    }
    Ok(encoder)
}

/// The names of the classes as JSON where their ids are not train ids.
pub(crate) fn train_ids_text(classes: &ClassTable) -> Option<String> {
    let names: Vec<&str> = classes.classes().iter().map(|class| class.name.as_str()).collect();
    (!classes.has_train_ids()).then(|| serde_json::json!(names).to_string())
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
    fn overlays_keep_the_image_where_nothing_is() {
        let image = RgbImage::from_pixel(5, 3, image::Rgb([10, 20, 255]));
        for (name, is_something) in [
            ("background", false),
            ("BackGround", false),
            ("_background_", false),
            ("void", false),
            ("unlabeled", false),
            ("backgrounds", true),
            ("sky", true),
        ] {
            let text = format!("0 {name} 100 100 100\n1 crack 200 0 0\n");
            let classes = ClassTable::parse(&text).unwrap();
            let labels = (0..15).map(|index| [0, 1, 255][index % 3]).collect();
            let map = LabelMap { height: 3, width: 5, labels };
            for paint in [false, true] {
                let overlay = map.overlay_png(&image, &classes, paint).unwrap();
                let overlay = image::load_from_memory(&overlay).unwrap().into_rgb8();
                let found = [0, 1, 2].map(|x| overlay.get_pixel(x, 0).0);
                let ground = if is_something || paint { [55, 60, 177] } else { [10, 20, 255] };
                assert_eq!(found, [ground, [105, 10, 127], [10, 20, 255]], "{name} {paint}");
            }
        }
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
        let overlay = image::load_from_memory(&map().overlay_png(&image, &classes, false).unwrap())
            .unwrap()
            .into_rgb8();
        assert_eq!(overlay.get_pixel(3, 0).0, [69, 42, 191]);
        let other = RgbImage::new(5, 4);
        assert!(matches!(
            map().overlay_png(&other, &classes, false),
            Err(LabelMapError::Size { .. })
        ));
    }

    #[test]
    fn train_ids_are_marked_where_the_ids_of_the_classes_are_others() {
        let same = ClassTable::parse("0 a\n1 b").unwrap();
        assert_eq!(map().train_ids_png(&same).unwrap(), map().ids_png().unwrap());
        let other = ClassTable::parse("1 a\n2 é").unwrap();
        let (folder, names) = (tempfile::tempdir().unwrap(), vec!["a".to_owned(), "é".into()]);
        for png in [map().train_ids_png(&other).unwrap(), map().color_png(&other).unwrap()] {
            let path = folder.path().join("x.png");
            std::fs::write(&path, png).unwrap();
            assert_eq!(Mask::read(&path, 1000).unwrap().train_ids_of.as_ref(), Some(&names));
            assert_eq!(read(&path, 1000).unwrap(), map());
        }
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
        let deep = image::ImageBuffer::from_pixel(2, 2, image::Luma([300_u16]));
        for image in [image::DynamicImage::new_rgb8(2, 2), deep.into()] {
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
