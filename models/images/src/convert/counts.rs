//! Pixels of converted label maps, and what is to be said of the images.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::draw::Drawn;
use super::{Conversion, ConvertError, Item, OneSided, Truth};
use crate::mask::Mask;
use crate::turning::LabelTurn;

/// Pixels of converted label maps.
#[derive(Debug, Default)]
pub struct ConversionCounts {
    /// Number of images.
    pub images: usize,
    /// Pixels of each class, by train id.
    pub classes: Vec<u64>,
    /// Pixels without a class.
    pub ignored: u64,
    /// Pixels that no shape covers.
    pub uncovered: u64,
    /// Pixels where a shape hides one of another class.
    pub overlapping: u64,
    /// Images that are left out, and why.
    pub failed: Vec<ConvertError>,
    /// Shapes without a pixel.
    empty_shapes: ExampleCount,
    /// Images without a shape.
    bare: ExampleCount,
    /// Images whose EXIF orientation was applied to the labels.
    turned: ExampleCount,
    /// Images whose size does not tell whether the labels are for the image as stored or as seen.
    unclear: ExampleCount,
    /// Images whose masks have an EXIF orientation of their own, which was applied.
    oriented: ExampleCount,
    /// The same, where sizes do not tell whether that is right.
    unconfirmed: ExampleCount,
    /// The same, where it was not applied.
    unoriented: ExampleCount,
    /// Masks with several values, all on one side of the threshold.
    one_sided: ExampleCount,
    /// Brightness of the masks of each class, by its index in the annotations.
    brightness: BTreeMap<u8, BrightnessCounts>,
}

/// A number of things with the name of one.
#[derive(Debug, Default)]
struct ExampleCount {
    count: u64,
    example: String,
}

impl ExampleCount {
    fn add(&mut self, count: u64, example: &str) {
        if self.count == 0 && count > 0 {
            example.clone_into(&mut self.example);
        }
        self.count += count;
    }

    /// A text of the count and the example, unless there is none.
    fn text(&self, text: impl FnOnce(&str) -> String) -> Option<String> {
        let number = match self.count {
            0 => return None,
            1 => self.example.clone(),
            count => format!("{count}, such as {}", self.example),
        };
        Some(text(&number))
    }
}

/// Pixels by brightness.
#[derive(Debug)]
struct BrightnessCounts {
    pixels: Box<[u64; 256]>,
    masks: usize,
    example: PathBuf,
}

/// Values of a mask that looks as if it were none of shades.
const FEW: usize = 4;

impl ConversionCounts {
    pub(super) fn new(classes: usize) -> Self {
        Self { classes: vec![0; classes], ..Self::default() }
    }

    /// Returns the number of pixels.
    pub fn pixels(&self) -> u64 {
        self.classes.iter().sum::<u64>() + self.ignored
    }

    /// Returns a line about each kind of image or shape that may not be meant.
    pub fn notes(&self) -> Vec<String> {
        let lines = [
            self.turned.text(|images| {
                format!(
                    "annotations for the pixels as they are stored were turned like their images by \
                     EXIF orientation: {images}"
                )
            }),
            self.unclear.text(|images| {
                format!(
                    "images are turned by EXIF orientation, and their size does not tell whether the \
                     annotations are for them as they are seen, as is assumed: {images}; if they are \
                     for the stored pixels, take the orientation out, as `exiftool -Orientation=` \
                     does, and convert again"
                )
            }),
            self.oriented.text(|images| {
                format!("masks were turned by the EXIF orientation of their own files: {images}")
            }),
            self.unconfirmed.text(|images| {
                format!(
                    "masks were turned by the EXIF orientation of their own files, and sizes do not tell \
                     whether that is right: {images}; if the pixels as stored are, take the orientation \
                     out, as `exiftool -Orientation=` does, and convert again"
                )
            }),
            self.unoriented.text(|images| {
                format!(
                    "masks have an EXIF orientation that was not applied, as only the pixels as stored have \
                     the size of their images: {images}"
                )
            }),
            self.bare.text(|images| format!("images without a shape: {images}")),
            self.empty_shapes.text(|images| {
                format!("shapes outside of their image, or too small for a pixel: {images}")
            }),
            self.one_sided.text(|masks| {
                format!(
                    "masks with a few values, of which the threshold parts none: {masks}; were they \
                     saved otherwise than the rest?"
                )
            }),
        ];
        lines.into_iter().flatten().collect()
    }

    pub(super) fn add(&mut self, item: &Item, drawn: &Drawn) {
        self.images += 1;
        for &label in &drawn.map.labels {
            match self.classes.get_mut(usize::from(label)) {
                Some(count) => *count += 1,
                None => self.ignored += 1,
            }
        }
        self.uncovered += drawn.uncovered;
        self.overlapping += drawn.overlapping;
        self.empty_shapes.add(drawn.empty_shapes, &item.name);
        let is_bare = matches!(&item.truth, Truth::Shapes { shapes, .. } if shapes.is_empty());
        self.bare.add(is_bare.into(), &item.name);
        let turned = match drawn.turn {
            LabelTurn::Seen => None,
            LabelTurn::WithImage => Some(&mut self.turned),
            LabelTurn::Unclear => Some(&mut self.unclear),
            LabelTurn::Own => Some(&mut self.oriented),
            LabelTurn::OwnUnclear => Some(&mut self.unconfirmed),
            LabelTurn::OwnIgnored => Some(&mut self.unoriented),
        };
        if let Some(count) = turned {
            count.add(1, &item.name);
        }
        for (class, path, histogram) in &drawn.brightness {
            let counts = self.brightness.entry(*class).or_insert_with(|| BrightnessCounts {
                pixels: Box::new([0; 256]),
                masks: 0,
                example: path.clone(),
            });
            counts.masks += 1;
            for (sum, count) in counts.pixels.iter_mut().zip(histogram.iter()) {
                *sum += count;
            }
            self.one_sided.add(
                drawn
                    .threshold
                    .is_some_and(|least| {
                        let values = histogram.iter().filter(|count| **count > 0).count();
                        (2..=FEW).contains(&values) && is_one_sided(histogram, least).is_some()
                    // The noise of a JPEG is of few values too.
                    && Mask::read(path, u64::MAX).is_ok()
                    })
                    .into(),
                &path.display().to_string(),
            );
        }
    }
}

/// True if all pixels are darker than a threshold, false if none is; `None` if it parts them.
fn is_one_sided(histogram: &[u64; 256], least: u8) -> Option<bool> {
    let (dark, bright) = histogram.split_at(usize::from(least));
    match (dark.iter().any(|count| *count > 0), bright.iter().any(|count| *count > 0)) {
        (true, true) => None,
        (dark, _) => Some(dark),
    }
}

impl Conversion {
    /// Fails if a threshold parts no pixel of a class from the others.
    pub(super) fn check_threshold(&self, counts: &ConversionCounts) -> Result<(), ConvertError> {
        let Some(threshold) = self.options.threshold else { return Ok(()) };
        for (class, found) in &counts.brightness {
            let Some(are_dark) = is_one_sided(&found.pixels, threshold) else { continue };
            let values: Vec<u8> =
                (0..=255).filter(|&value: &u8| found.pixels[usize::from(value)] > 0).collect();
            let [Some(&low), Some(&high)] = [values.first(), values.last()] else { continue };
            let first = self.annotations.items.first();
            let is_layer = first.is_some_and(|item| matches!(item.truth, Truth::Layers { .. }));
            // A class that no image shows has empty masks.
            if is_layer && high == 0 {
                continue;
            }
            let class = self.annotations.classes.get(usize::from(*class));
            return Err(ConvertError::Threshold(Box::new(OneSided {
                threshold,
                class: class.map_or_else(String::new, |class| class.name.clone()),
                masks: found.masks,
                pixels: found.pixels.iter().sum(),
                range: [low, high],
                are_dark,
                others: match values[..] {
                    [_, second] => Some([second, second]),
                    [_, second, .., last] => Some([second, last]),
                    _ => None,
                },
                ids: ids_besides_brightness(&found.example, [low, high]),
                example: found.example.clone(),
            })));
        }
        Ok(())
    }
}

/// Least and largest sample of a mask of ids, if they are not its brightness: 16 bits of which few are
/// used.
fn ids_besides_brightness(path: &Path, [low, high]: [u8; 2]) -> Option<[u32; 2]> {
    let ids = Mask::read(path, u64::MAX).ok()?.samples.into_ids()?;
    let found = [*ids.iter().min()?, *ids.iter().max()?];
    let is_brighter = found[1] > u32::from(high) && high < u8::MAX;
    (is_brighter || found[0] < u32::from(low)).then_some(found)
}
