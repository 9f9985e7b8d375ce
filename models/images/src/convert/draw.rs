//! Label maps of single images: shapes drawn, masks mapped, and turned like their images.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::metadata::Orientation;
use protoseg_models::classes::IGNORE_INDEX;

use super::image_index::FoundImage;
use super::raster::Canvas;
use super::{Conversion, ConvertError, Item, Outside, Truth, one_per_class};
use crate::id_map::IdMap;
use crate::image_file::{self, DecodeError, ImageFile, ImageFileError};
use crate::label_map::LabelMap;
use crate::label_mapping::{ClassOrigin, LabelMapping, MappedLabels, MaskError};
use crate::mask::{Mask, MaskSamples};
use crate::palettes::DrawnIndex;
use crate::turning::{LabelTurn, turn_to_image};

/// A label map that was drawn.
#[derive(Debug)]
pub(super) struct Drawn {
    /// Train ids.
    pub(super) map: LabelMap,
    pub(super) uncovered: u64,
    pub(super) overlapping: u64,
    /// Shapes without a pixel.
    pub(super) empty_shapes: u64,
    pub(super) turn: LabelTurn,
    /// Colors that the palettes of masks draw ids in, where nobody has said what they mean, with the
    /// mask and the place of its classes.
    pub(super) palette: Option<(PathBuf, ClassOrigin, Vec<DrawnIndex>)>,
    /// The threshold, and brightness of each mask: class, file and pixels by value.
    pub(super) threshold: Option<u8>,
    pub(super) brightness: Vec<(u8, PathBuf, Box<[u64; 256]>)>,
}

/// Pixels of a mask that are as bright as a threshold.
pub(super) struct BrightPixels {
    pub(super) size: [usize; 2],
    pub(super) are_bright: Vec<bool>,
    /// Pixels by brightness.
    pub(super) histogram: Box<[u64; 256]>,
}

/// Classes of the annotations `[height, width]`, before the image turns them.
struct Drawing {
    canvas: Canvas,
    /// EXIF orientation of the mask's file.
    orientation: Orientation,
    empty_shapes: u64,
    palette: Option<(PathBuf, ClassOrigin, Vec<DrawnIndex>)>,
    brightness: Vec<(u8, PathBuf, Box<[u64; 256]>)>,
}

impl Drawing {
    fn new(canvas: Canvas) -> Self {
        let orientation = Orientation::NoTransforms;
        Self { canvas, orientation, empty_shapes: 0, palette: None, brightness: Vec::new() }
    }

    fn with_palette(self, path: &Path, mapping: &LabelMapping, drawn: Vec<DrawnIndex>) -> Self {
        let palette = (path.to_owned(), mapping.origin().clone(), drawn);
        Self { palette: Some(palette), ..self }
    }
}

impl Conversion {
    /// Draws the label map of an image.
    pub(super) fn draw(&self, item: &Item) -> Result<Drawn, ConvertError> {
        let image = match &item.image {
            FoundImage::At(path) => Some(ImageFile::read(path, self.options.max_pixels)?),
            FoundImage::Missing => None,
            FoundImage::Ambiguous(first, second) => {
                return Err(ConvertError::AmbiguousImage {
                    name: item.name.clone(),
                    annotations: item.origin.clone(),
                    first: first.clone(),
                    second: second.clone(),
                });
            }
            FoundImage::Shared { path, first, second } => {
                let (image, first, second) = (path.clone(), first.clone(), second.clone());
                return Err(ConvertError::SameImage { image, first, second });
            }
        };
        let Drawing { canvas, orientation, empty_shapes, palette, brightness } =
            self.drawing(item, image.as_ref())?;
        let uncovered =
            canvas.classes.iter().filter(|class| **class == IGNORE_INDEX).count() as u64;
        let label = |class: u8| match class {
            IGNORE_INDEX => self.uncovered,
            class => self.labels.get(usize::from(class)).copied().unwrap_or(IGNORE_INDEX),
        };
        let [height, width] = canvas.size;
        let map =
            LabelMap { height, width, labels: canvas.classes.into_iter().map(label).collect() };
        let (map, turn) = match (&image, item.image.path()) {
            (Some(image), Some(path)) => turn_like(image, path, map, orientation)?,
            _ => (map, LabelTurn::Seen),
        };
        Ok(Drawn {
            map,
            uncovered,
            overlapping: canvas.overlapping,
            empty_shapes,
            turn,
            palette,
            threshold: self.options.threshold,
            brightness,
        })
    }

    fn drawing(&self, item: &Item, image: Option<&ImageFile>) -> Result<Drawing, ConvertError> {
        let max_pixels = self.options.max_pixels;
        match &item.truth {
            Truth::Broken(reason) => {
                let (path, reason) = (item.origin.clone(), reason.clone());
                Err(ConvertError::Content { path, reason })
            }
            Truth::Shapes { size, shapes } => {
                let size = size.or(image.map(ImageFile::size));
                let size = size.ok_or_else(|| item.missing_image())?;
                check_size(size, max_pixels, item)?;
                let mut drawing = Drawing::new(Canvas::new(size));
                for (class, area) in shapes {
                    let has_pixels = drawing.canvas.fill(area, *class);
                    drawing.empty_shapes += u64::from(!has_pixels);
                }
                Ok(drawing)
            }
            Truth::Mask { path, mapping, outside } => {
                let (size, mapped, orientation) = mapping.read_oriented(path, max_pixels)?;
                let mut classes = mapped.labels;
                self.keep_ignored(&mut classes);
                if let Some(outside) = outside {
                    self.clear_outside(&mut classes, size, outside)?;
                }
                let drawing = Drawing::new(Canvas::with_classes(size, classes));
                let drawing = Drawing { orientation, ..drawing };
                Ok(drawing.with_palette(path, mapping, mapped.palette))
            }
            Truth::Renumbered { path, mapping, map } => {
                let (size, mapped, orientation) = renumbered(path, mapping, map, max_pixels)?;
                let mut classes = mapped.labels;
                self.keep_ignored(&mut classes);
                let drawing = Drawing::new(Canvas::with_classes(size, classes));
                let drawing = Drawing { orientation, ..drawing };
                Ok(drawing.with_palette(path, mapping, mapped.palette))
            }
            Truth::Threshold { path, least } => {
                let BrightPixels { size, are_bright, histogram } =
                    bright_pixels(path, *least, max_pixels)?;
                let classes = are_bright.into_iter().map(u8::from).collect();
                let canvas = Canvas::with_classes(size, classes);
                let brightness = vec![(1, path.clone(), histogram)];
                Ok(Drawing { brightness, ..Drawing::new(canvas) })
            }
            Truth::Panoptic { path, segments } => {
                Ok(Drawing::new(draw_panoptic(path, segments, max_pixels)?))
            }
            Truth::Layers { layers, least } => draw_layers(layers, *least, max_pixels),
        }
    }

    /// Gives pixels that a mask ignores a class that there is not, as no class means that no shape
    /// covers them. Of 255 classes there is none left, and they count as uncovered.
    fn keep_ignored(&self, classes: &mut [u8]) {
        let ignored = u8::try_from(self.labels.len()).unwrap_or(IGNORE_INDEX);
        classes
            .iter_mut()
            .filter(|class| **class == IGNORE_INDEX)
            .for_each(|class| *class = ignored);
    }

    /// Takes the class from pixels that no annotation covers.
    fn clear_outside(
        &self,
        classes: &mut [u8],
        size: [usize; 2],
        Outside { class, objects }: &Outside,
    ) -> Result<(), ConvertError> {
        let objects = match objects {
            Some(path) => Some(object_pixels(path, size, self.options.max_pixels)?),
            None => None,
        };
        for (index, pixel) in classes.iter_mut().enumerate() {
            let in_object = objects.as_ref().is_some_and(|objects| objects[index]);
            if *pixel == *class && !in_object {
                *pixel = IGNORE_INDEX;
            }
        }
        Ok(())
    }
}

impl Item {
    pub(super) fn missing_image(&self) -> ConvertError {
        let annotations = self.origin.clone();
        ConvertError::MissingImage { name: self.name.clone(), annotations }
    }
}

/// Sizes in annotations are no more to be trusted than those in images.
fn check_size([height, width]: [usize; 2], limit: u64, item: &Item) -> Result<(), ConvertError> {
    let pixels = (height as u64).checked_mul(width as u64);
    if pixels.is_some_and(|pixels| pixels <= limit) {
        return Ok(());
    }
    let reason = format!(
        "the annotations of `{}` are for {width}x{height} pixels, more than the limit of {limit}; \
         --max-pixels raises it",
        item.name
    );
    Err(ConvertError::Content { path: item.origin.clone(), reason })
}

/// Turns a label map to the orientation of its image; `own` is that of the mask's file.
fn turn_like(
    image: &ImageFile,
    path: &Path,
    map: LabelMap,
    own: Orientation,
) -> Result<(LabelMap, LabelTurn), ConvertError> {
    let seen = image.size();
    let stored = [map.height, map.width];
    let (map, turn) = turn_to_image(map, own, image.orientation(), seen);
    if [map.height, map.width] != seen {
        let (path, annotations) = (path.to_owned(), stored);
        return Err(ConvertError::Size { path, image: seen, annotations });
    }
    Ok((map, turn))
}

/// Height and width, train ids and palette of a mask whose ids get new ones, and its orientation; no
/// counts of ids.
fn renumbered(
    path: &Path,
    mapping: &Arc<LabelMapping>,
    map: &IdMap,
    max_pixels: u64,
) -> Result<([usize; 2], MappedLabels, Orientation), ConvertError> {
    let mask = Mask::read(path, max_pixels)?;
    let (size, orientation) = (mask.size(), mask.orientation);
    let palette = match &mask.samples {
        MaskSamples::Indexed { indices, palette } => mapping.open_palette(indices, palette),
        _ => Vec::new(),
    };
    let ids = mask.samples.into_ids().ok_or_else(|| {
        let reason = "holds colors, and --map is for ids; classes.txt may give colors".to_owned();
        ConvertError::Content { path: path.into(), reason }
    })?;
    let new_ids = map.new_ids(&ids)?;
    let has_no_class = |id: &u8| mapping.train_id(*id).is_none();
    if new_ids.iter().flatten().any(has_no_class) {
        // Names the new ids without a class.
        let ids: Vec<u32> = new_ids.iter().flatten().map(|id| u32::from(*id)).collect();
        return Err(mapping.unknown_ids(&ids, size[1], path).into());
    }
    let label = |id: Option<u8>| id.and_then(|id| mapping.train_id(id)).unwrap_or(IGNORE_INDEX);
    let labels = new_ids.into_iter().map(label).collect();
    Ok((size, MappedLabels { labels, ids: Box::new([0; 256]), palette }, orientation))
}

/// True for the pixels of a mask of objects that are in one.
pub(super) fn object_pixels(
    path: &Path,
    size: [usize; 2],
    max_pixels: u64,
) -> Result<Vec<bool>, ConvertError> {
    let mask = Mask::read(path, max_pixels)?;
    if mask.size() != size {
        let reason = format!(
            "has {}x{} pixels, and the mask of classes {}x{}",
            mask.width, mask.height, size[1], size[0]
        );
        return Err(ConvertError::Content { path: path.into(), reason });
    }
    Ok(match mask.samples {
        MaskSamples::Colors(colors) => colors.into_iter().map(|color| color != [0; 3]).collect(),
        other => other.into_ids().into_iter().flatten().map(|id| id != 0).collect(),
    })
}

fn draw_panoptic(
    path: &Path,
    segments: &HashMap<u32, u8>,
    max_pixels: u64,
) -> Result<Canvas, ConvertError> {
    let mask = Mask::read(path, max_pixels)?;
    let MaskSamples::Colors(colors) = &mask.samples else {
        let reason = "is no RGB mask of segments".to_owned();
        return Err(ConvertError::Content { path: path.into(), reason });
    };
    let mut canvas = Canvas::new(mask.size());
    for (pixel, &[red, green, blue]) in canvas.classes.iter_mut().zip(colors) {
        let segment = u32::from_le_bytes([red, green, blue, 0]);
        if segment == 0 {
            continue;
        }
        *pixel = *segments.get(&segment).ok_or_else(|| ConvertError::Content {
            path: path.into(),
            reason: format!("the segment {segment} is not in the JSON file"),
        })?;
    }
    Ok(canvas)
}

fn draw_layers(
    layers: &[(u8, PathBuf)],
    least: Option<u8>,
    max_pixels: u64,
) -> Result<Drawing, ConvertError> {
    let mut drawing: Option<Drawing> = None;
    for (class, path) in layers {
        let mut histogram = None;
        let (size, pixels, orientation) = match least {
            Some(least) => {
                let bright = bright_pixels(path, least, max_pixels)?;
                histogram = Some(bright.histogram);
                (bright.size, bright.are_bright, Orientation::NoTransforms)
            }
            None => one_per_class::set_pixels(path, max_pixels)?,
        };
        let drawing = drawing
            .get_or_insert_with(|| Drawing { orientation, ..Drawing::new(Canvas::new(size)) });
        if drawing.orientation != orientation {
            let reason = "has another EXIF orientation than another mask of the image; remove it \
                          (`exiftool -Orientation= FILE`)";
            return Err(ConvertError::Content { path: path.clone(), reason: reason.to_owned() });
        }
        drawing.brightness.extend(histogram.map(|histogram| (*class, path.clone(), histogram)));
        if drawing.canvas.size != size {
            let [first, other] = [drawing.canvas.size, size];
            let reason = format!(
                "has {}x{} pixels, and another mask of the image {}x{}",
                other[1], other[0], first[1], first[0]
            );
            return Err(ConvertError::Content { path: path.clone(), reason });
        }
        for (pixel, _) in pixels.iter().enumerate().filter(|(_, set)| **set) {
            drawing.canvas.set(pixel, *class);
        }
    }
    Ok(drawing.unwrap_or_else(|| Drawing::new(Canvas::new([0, 0]))))
}

/// Compares the brightness of a mask with a threshold. Floats have no white, and are ids where they
/// have no fraction.
pub(super) fn bright_pixels(
    path: &Path,
    least: u8,
    max_pixels: u64,
) -> Result<BrightPixels, ConvertError> {
    let (size, brightness) = match image_file::read(path, max_pixels) {
        Ok(image) => {
            let image = image::DynamicImage::from(image).into_luma8();
            ([image.height() as usize, image.width() as usize], image.into_raw())
        }
        Err(ImageFileError::Decode { source: DecodeError::UnknownRange { .. }, .. }) => {
            let mask = Mask::read(path, max_pixels)?;
            let size = mask.size();
            let ids = mask.samples.into_ids().into_iter().flatten();
            (size, ids.map(|id| u8::try_from(id).unwrap_or(u8::MAX)).collect())
        }
        Err(error) => return Err(error.into()),
    };
    let mut histogram = Box::new([0; 256]);
    for &value in &brightness {
        histogram[usize::from(value)] += 1;
    }
    let are_bright = brightness.into_iter().map(|value| value >= least).collect();
    Ok(BrightPixels { size, are_bright, histogram })
}

/// The reason of an error about the meaning of masks, which concerns them all.
pub(super) fn mask_fault(error: ConvertError) -> Result<MaskError, ConvertError> {
    match error {
        ConvertError::Mask(MaskError::File(error)) => Err(error.into()),
        ConvertError::Mask(error) => Ok(error),
        other => Err(other),
    }
}
