//! Annotations of other programs as label maps: the way back from [`formats`](crate::formats).
//!
//! [`Conversion::open`] reads the annotations and decides on the classes; label maps are drawn one by
//! one when they are written. Where shapes overlap, the later one counts; pixels that no shape covers
//! are background where there is such a class, or else count for nothing. Both are counted.

mod coco;
mod cvat_xml;
mod detect;
mod image_index;
mod label_studio;
mod labelme;
mod mask_files;
mod one_per_class;
mod output;
mod raster;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub use detect::SourceFormat;
pub use output::ConversionCounts;
use protoseg_models::classes::{Class, ClassError, ClassFile, ClassTable, IGNORE_INDEX, voc_color};
use protoseg_models::errors::FileError;

use crate::dataset::DatasetError;
use crate::formats::FormatError;
use crate::image_file::{self, EncodedImage, ImageFileError};
use crate::label_map::{LabelMap, LabelMapError};
use crate::label_mapping::{LabelMapping, MaskError};
use crate::mask::{Mask, MaskSamples};
use raster::{Area, Canvas};

/// The reason why annotations cannot be converted.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum ConvertError {
    /// An I/O error.
    #[error(transparent)]
    File(#[from] FileError),
    /// An I/O error of the output.
    #[error("writing failed: {0}")]
    Write(#[from] std::io::Error),
    /// A class file.
    #[error(transparent)]
    Classes(#[from] ClassError),
    /// A dataset of ours or of Pascal VOC.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A mask.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// A mask that cannot be read.
    #[error(transparent)]
    LabelMap(#[from] LabelMapError),
    /// An image.
    #[error(transparent)]
    Image(#[from] ImageFileError),
    /// Names of images that a format does not tell apart.
    #[error("{0}; rename them")]
    Names(String),
    /// An annotation file that cannot be written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Malformed JSON.
    #[error("{}: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    /// Malformed XML.
    #[error("{}: {source}", path.display())]
    Xml { path: PathBuf, source: roxmltree::Error },
    /// A broken archive.
    #[error("{}: {source}", path.display())]
    Zip { path: PathBuf, source: zip::result::ZipError },
    /// No format known here.
    #[error(
        "{} holds no annotations of a known format; --from names one (cvat, cvat-xml, coco, \
         label-studio, labelme, voc, masks, folder)",
        .0.display()
    )]
    Unknown(PathBuf),
    /// Content that the format does not allow, or that has no area.
    #[error("{}: {reason}", path.display())]
    Content { path: PathBuf, reason: String },
    /// An image that annotations name.
    #[error(
        "the image `{name}` of {} is not found; name its folder with --images", annotations.display()
    )]
    MissingImage { name: String, annotations: PathBuf },
    /// Several images of one name.
    #[error(
        "the image `{name}` may be {} or {}; name the right folder with --images",
        first.display(), second.display()
    )]
    AmbiguousImage { name: String, first: PathBuf, second: PathBuf },
    /// Annotations of another size; sizes are `[height, width]`.
    #[error(
        "{} has {}x{} pixels, but its annotations are for {}x{}",
        path.display(), image[1], image[0], annotations[1], annotations[0]
    )]
    Size { path: PathBuf, image: [usize; 2], annotations: [usize; 2] },
    /// Classes of the annotations that the class file lacks.
    #[error(
        "the class file lacks the classes {}; add them, or leave each out with --ignore NAME",
        .0.join(", ")
    )]
    MissingClasses(Vec<String>),
    /// A name that is no class.
    #[error("--{option} `{name}` is none of the classes {}", classes.join(", "))]
    NoSuchClass { option: &'static str, name: String, classes: Vec<String> },
    /// A single class.
    #[error(
        "the annotations have only the class {}; --background NAME makes what they do not cover \
         another one",
        .0.join(", ")
    )]
    TooFewClasses(Vec<String>),
    /// Several images whose annotations cannot be drawn.
    #[error("{first}; and so {more} more of {images} images")]
    Several { first: Box<Self>, more: usize, images: usize },
    /// Two images whose label maps would have one name.
    #[error("`{first}` and `{second}` would share a label map; rename one of them")]
    SameLabel { first: String, second: String },
}

/// Options of a conversion.
#[derive(Debug, Clone, Default)]
pub struct ConvertOptions {
    /// The format, if it is not to be found out.
    pub format: Option<SourceFormat>,
    /// Folder of the images, if they are not beside the annotations.
    pub images: Option<PathBuf>,
    /// Class file with the classes to have, in their order and with their ids.
    pub classes: Option<PathBuf>,
    /// Class of the pixels that no shape covers.
    pub background: Option<String>,
    /// Classes whose pixels count for nothing.
    pub ignore: Vec<String>,
    /// Least brightness, from 1 to 255, of pixels in a mask of two classes or of one.
    pub threshold: Option<u8>,
    /// Largest number of pixels of an image.
    pub max_pixels: u64,
}

/// A class of the annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SourceClass {
    name: String,
    color: Option<[u8; 3]>,
    id: Option<u8>,
}

impl SourceClass {
    fn named(name: &str) -> Self {
        Self { name: name.to_owned(), color: None, id: None }
    }
}

/// Annotations as they are in their files; classes are named by index.
#[derive(Debug, Default)]
struct Annotations {
    classes: Vec<SourceClass>,
    items: Vec<Item>,
    /// Names of lists, with indices of items.
    lists: Vec<(String, Vec<usize>)>,
    /// Parts that were left out or guessed.
    notes: Vec<String>,
}

impl Annotations {
    /// Returns the index of a class, which is added if it is new.
    fn class(&mut self, name: &str) -> u8 {
        let found = self.classes.iter().position(|class| class.name == name);
        let index = found.unwrap_or_else(|| {
            self.classes.push(SourceClass::named(name));
            self.classes.len() - 1
        });
        // Too many classes are refused when the table is made.
        u8::try_from(index).unwrap_or(IGNORE_INDEX)
    }
}

/// An image with its annotations.
#[derive(Debug)]
struct Item {
    /// Path below the folder of images, with slashes.
    name: String,
    image: Option<PathBuf>,
    truth: Truth,
}

/// The labels of an image.
#[derive(Debug)]
enum Truth {
    /// Areas on an image of a size `[height, width]`, in order.
    Shapes { size: [usize; 2], shapes: Vec<(u8, Area)> },
    /// A mask whose samples the mapping gives a meaning; train ids are indices of classes.
    Mask { path: PathBuf, mapping: std::sync::Arc<LabelMapping> },
    /// A mask of which pixels as bright as the threshold are class 1, others class 0.
    Threshold { path: PathBuf, least: u8 },
    /// COCO's panoptic PNG: the class of each segment.
    Panoptic { path: PathBuf, segments: HashMap<u32, u8> },
    /// A mask for each class.
    Layers { layers: Vec<(u8, PathBuf)>, least: Option<u8> },
}

/// Annotations with the classes that they are to have.
#[derive(Debug)]
pub struct Conversion {
    table: ClassTable,
    /// Train id of each class of the annotations.
    labels: Vec<u8>,
    /// Train id of pixels that no shape covers.
    uncovered: u8,
    annotations: Annotations,
    format: SourceFormat,
    max_pixels: u64,
    /// Holds the files of an archive.
    unpacked: Option<tempfile::TempDir>,
}

/// A label map that was drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Drawn {
    /// Train ids.
    map: LabelMap,
    uncovered: u64,
    overlapping: u64,
}

impl Conversion {
    /// Reads annotations: a file, a folder or a ZIP archive.
    pub fn open(input: &Path, options: &ConvertOptions) -> Result<Self, ConvertError> {
        let unpacked = detect::unpack(input)?;
        let input = unpacked.as_ref().map_or(input, tempfile::TempDir::path);
        let format = match options.format {
            _ if options.threshold.is_some() && options.format.is_none() => {
                detect::layout(input, SourceFormat::Folder)
            }
            Some(format) => format,
            None => detect::detect(input)?,
        };
        let index = image_index::ImageIndex::new(input, options.images.as_deref())?;
        let own_classes = options
            .classes
            .clone()
            .or_else(|| Some(folder_of(input).join("classes.txt")).filter(|path| path.is_file()));
        let file = own_classes.as_deref().map(ClassFile::load).transpose()?;
        let source =
            detect::AnnotationSource { input, options, index: &index, classes: file.as_ref() };
        let annotations = source.read(format)?;
        if annotations.items.is_empty() {
            return Err(ConvertError::Unknown(input.into()));
        }
        check_names(&annotations.items)?;
        let (table, labels, uncovered) = decide_classes(&annotations, file.as_ref(), options)?;
        let max_pixels = options.max_pixels;
        Ok(Self { table, labels, uncovered, annotations, format, max_pixels, unpacked })
    }

    /// Returns the format of the annotations.
    pub fn format(&self) -> SourceFormat {
        self.format
    }

    /// Returns the classes of the label maps.
    pub fn classes(&self) -> &ClassTable {
        &self.table
    }

    /// Returns the number of images.
    pub fn count(&self) -> usize {
        self.annotations.items.len()
    }

    /// Returns what was left out or guessed in reading.
    pub fn notes(&self) -> &[String] {
        &self.annotations.notes
    }

    /// Draws the label map of an image.
    fn draw(&self, item: &Item) -> Result<Drawn, ConvertError> {
        let (mut uncovered, mut overlapping) = (0, 0);
        let label =
            |class: u8| self.labels.get(usize::from(class)).copied().unwrap_or(IGNORE_INDEX);
        let ([height, width], labels) = match &item.truth {
            Truth::Mask { path, mapping } => {
                let (size, mapped) = mapping.read(path, self.max_pixels)?;
                (size, mapped.labels.into_iter().map(label).collect())
            }
            Truth::Threshold { path, least } => {
                let (size, bright) = bright_pixels(path, *least, self.max_pixels)?;
                (size, bright.into_iter().map(|bright| label(bright.into())).collect())
            }
            truth => {
                let canvas = match truth {
                    Truth::Shapes { size, shapes } => draw_shapes(*size, shapes),
                    Truth::Panoptic { path, segments } => self.draw_panoptic(path, segments)?,
                    Truth::Layers { layers, least } => self.draw_layers(layers, *least)?,
                    Truth::Mask { .. } | Truth::Threshold { .. } => Canvas::new([0, 0]),
                };
                overlapping = canvas.overlapping;
                uncovered =
                    canvas.classes.iter().filter(|class| **class == IGNORE_INDEX).count() as u64;
                let classes = canvas.classes.into_iter();
                let label =
                    |class| if class == IGNORE_INDEX { self.uncovered } else { label(class) };
                (canvas.size, classes.map(label).collect())
            }
        };
        if let Some(image) = &item.image {
            let found = image_size(image, self.max_pixels)?;
            if found != [height, width] {
                let annotations = [height, width];
                return Err(ConvertError::Size { path: image.clone(), image: found, annotations });
            }
        }
        Ok(Drawn { map: LabelMap { height, width, labels }, uncovered, overlapping })
    }

    fn draw_panoptic(
        &self,
        path: &Path,
        segments: &HashMap<u32, u8>,
    ) -> Result<Canvas, ConvertError> {
        let mask = Mask::read(path, self.max_pixels)?;
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
        &self,
        layers: &[(u8, PathBuf)],
        least: Option<u8>,
    ) -> Result<Canvas, ConvertError> {
        let mut canvas: Option<Canvas> = None;
        for (class, path) in layers {
            let (size, pixels) = match least {
                Some(least) => bright_pixels(path, least, self.max_pixels)?,
                None => one_per_class::set_pixels(path, self.max_pixels)?,
            };
            let canvas = canvas.get_or_insert_with(|| Canvas::new(size));
            if canvas.size != size {
                let [first, other] = [canvas.size, size];
                let reason = format!(
                    "has {}x{} pixels, and another mask of the image {}x{}",
                    other[1], other[0], first[1], first[0]
                );
                return Err(ConvertError::Content { path: path.clone(), reason });
            }
            for (pixel, _) in pixels.iter().enumerate().filter(|(_, set)| **set) {
                canvas.set(pixel, *class);
            }
        }
        Ok(canvas.unwrap_or_else(|| Canvas::new([0, 0])))
    }
}

fn draw_shapes(size: [usize; 2], shapes: &[(u8, Area)]) -> Canvas {
    let mut canvas = Canvas::new(size);
    for (class, area) in shapes {
        canvas.fill(area, *class);
    }
    canvas
}

/// The folder of the annotations: the input itself, or that of a file.
fn folder_of(input: &Path) -> &Path {
    let parent = input.parent().filter(|parent| !parent.as_os_str().is_empty());
    if input.is_dir() { input } else { parent.unwrap_or(Path::new(".")) }
}

/// Returns height and width of an image as it is seen, without decoding it.
fn image_size(path: &Path, max_pixels: u64) -> Result<[usize; 2], ConvertError> {
    let bytes = std::fs::read(path).map_err(FileError::at(path))?;
    let refused = |source| ImageFileError::Decode { path: path.into(), source };
    Ok(EncodedImage::new(bytes, max_pixels).map_err(refused)?.size())
}

/// Size of a mask, and true for its pixels that are at least so bright.
fn bright_pixels(
    path: &Path,
    least: u8,
    max_pixels: u64,
) -> Result<([usize; 2], Vec<bool>), ConvertError> {
    let image = image::DynamicImage::from(image_file::read(path, max_pixels)?).into_luma8();
    let size = [image.height() as usize, image.width() as usize];
    Ok((size, image.into_raw().into_iter().map(|sample| sample >= least).collect()))
}

/// Label maps are named by images without their extensions.
fn check_names(items: &[Item]) -> Result<(), ConvertError> {
    let mut names: HashMap<PathBuf, &str> = HashMap::new();
    for item in items {
        let label = crate::formats::png_name(Path::new(&item.name));
        if let Some(first) = names.insert(label, &item.name) {
            let (first, second) = (first.to_owned(), item.name.clone());
            return Err(ConvertError::SameLabel { first, second });
        }
    }
    Ok(())
}

/// Returns the classes to have, the train id of each class of the annotations, and that of pixels
/// that no shape covers.
fn decide_classes(
    annotations: &Annotations,
    file: Option<&ClassFile>,
    options: &ConvertOptions,
) -> Result<(ClassTable, Vec<u8>, u8), ConvertError> {
    let classes = &annotations.classes;
    let names = || classes.iter().map(|class| class.name.clone()).collect::<Vec<_>>();
    for name in &options.ignore {
        if !classes.iter().any(|class| class.name == *name) {
            let (option, name, classes) = ("ignore", name.clone(), names());
            return Err(ConvertError::NoSuchClass { option, name, classes });
        }
    }
    let is_ignored = |name: &str| options.ignore.iter().any(|ignored| ignored == name);
    let table = match file {
        Some(file) => file.table.clone(),
        None => make_table(classes, &is_ignored, options.background.as_deref())?,
    };
    let train_id = |name: &str| {
        let index = table.classes().iter().position(|class| class.name == name)?;
        u8::try_from(index).ok()
    };
    let means_nothing = |name: &str| {
        is_ignored(name) || ["background", "__ignore__"].contains(&name) || name.starts_with("void")
    };
    let known = |name: &str| train_id(name).is_some() || means_nothing(name);
    let missing: Vec<String> = names().into_iter().filter(|name| !known(name)).collect();
    if !missing.is_empty() {
        return Err(ConvertError::MissingClasses(missing));
    }
    let label = |name: &str| {
        if is_ignored(name) { IGNORE_INDEX } else { train_id(name).unwrap_or(IGNORE_INDEX) }
    };
    let labels = classes.iter().map(|class| label(&class.name)).collect();
    let uncovered = match &options.background {
        Some(name) => train_id(name).ok_or_else(|| {
            let classes = table.classes().iter().map(|class| class.name.clone()).collect();
            ConvertError::NoSuchClass { option: "background", name: name.clone(), classes }
        })?,
        None => {
            let background = table
                .classes()
                .iter()
                .position(|class| class.name.to_lowercase().trim_matches('_') == "background");
            let is_drawn = |index: usize| annotations.draws(&table.classes()[index].name);
            let free = background.filter(|&index| !is_drawn(index));
            free.and_then(|index| u8::try_from(index).ok()).unwrap_or(IGNORE_INDEX)
        }
    };
    Ok((table, labels, uncovered))
}

impl Annotations {
    /// Returns true if a shape or segment has the class.
    fn draws(&self, name: &str) -> bool {
        let Some(class) = self.classes.iter().position(|class| class.name == name) else {
            return false;
        };
        self.items.iter().any(|item| match &item.truth {
            Truth::Shapes { shapes, .. } => {
                shapes.iter().any(|(index, _)| usize::from(*index) == class)
            }
            Truth::Panoptic { segments, .. } => {
                segments.values().any(|index| usize::from(*index) == class)
            }
            Truth::Layers { layers, .. } => {
                layers.iter().any(|(index, _)| usize::from(*index) == class)
            }
            Truth::Mask { .. } | Truth::Threshold { .. } => true,
        })
    }
}

/// Makes the table of the classes that are not ignored, the background first.
fn make_table(
    classes: &[SourceClass],
    is_ignored: &dyn Fn(&str) -> bool,
    background: Option<&str>,
) -> Result<ClassTable, ConvertError> {
    let background = background.filter(|name| !classes.iter().any(|class| class.name == *name));
    let background = background.map(SourceClass::named);
    let kept =
        classes.iter().filter(|class| !is_ignored(&class.name) && class.name != "__ignore__");
    let all: Vec<SourceClass> = background.into_iter().chain(kept.cloned()).collect();
    if all.len() < 2 {
        let names = all.into_iter().map(|class| format!("`{}`", class.name)).collect();
        return Err(ConvertError::TooFewClasses(names));
    }
    let own_ids: Option<Vec<u8>> = all.iter().map(|class| class.id).collect();
    let class = |(index, class): (usize, &SourceClass)| Class {
        name: class.name.clone(),
        color: class.color.unwrap_or_else(|| voc_color(index)),
        source_id: match &own_ids {
            Some(ids) => ids[index],
            None => u8::try_from(index).unwrap_or(IGNORE_INDEX),
        },
    };
    if all.len() > 255 {
        return Err(ClassError::Count(all.len()).into());
    }
    Ok(ClassTable::try_from(all.iter().enumerate().map(class).collect::<Vec<_>>())?)
}

#[cfg(test)]
mod tests;
