//! Annotations of other programs as label maps: the way back from [`formats`](crate::formats).
//!
//! [`Conversion::open`] reads the annotations and decides on the classes; label maps are drawn one by
//! one when they are written. Where shapes overlap, the later one counts; pixels that no shape covers
//! are background where there is such a class, or else count for nothing. Both are counted. An image
//! that is missing, ambiguous or of another size costs itself; ids without a meaning stop a
//! conversion.

mod classes;
mod coco;
mod coco_masks;
mod counts;
mod cvat_tracks;
mod cvat_xml;
mod detect;
mod draw;
mod error;
mod foreign;
mod image_index;
mod label_studio;
mod labelme;
mod mask_files;
mod mask_tree;
mod one_per_class;
mod output;
mod pairs;
mod raster;
mod supervisely;
mod unlabeled;

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

pub use counts::ConversionCounts;
pub use detect::SourceFormat;
pub use error::{ConvertError, OneSided};
pub use foreign::ForeignFormat;
use protoseg_models::classes::{Class, ClassFile, ClassTable, IGNORE_INDEX};
use protoseg_models::errors::FileError;

use crate::dataset::label_file::class_file;
use crate::id_map::IdMap;
use crate::label_mapping::LabelMapping;
use image_index::FoundImage;
use raster::Area;

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
    /// File of new ids for those of masks: see [`IdMap`].
    pub map: Option<PathBuf>,
    /// Writes images without annotations too, in a folder and a list of their own.
    pub unlabeled: bool,
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
    /// Images without annotations, by their names.
    unlabeled: Vec<(String, PathBuf)>,
    /// True if the reader has found these.
    knows_unlabeled: bool,
    /// True where masks have annotations of the background.
    has_drawn_background: bool,
    /// Images that were inside of annotations.
    embedded: Option<tempfile::TempDir>,
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

    /// Keeps an image that is inside of annotations; returns its path.
    fn embed(&mut self, number: usize, bytes: &[u8]) -> Result<PathBuf, ConvertError> {
        let folder = match self.embedded.take() {
            Some(folder) => folder,
            None => tempfile::tempdir().map_err(FileError::at(&std::env::temp_dir()))?,
        };
        let folder = self.embedded.insert(folder);
        let path = folder.path().join(number.to_string());
        std::fs::write(&path, bytes).map_err(FileError::at(&path))?;
        Ok(path)
    }

    /// Adds a note unless it is about nothing.
    fn note(&mut self, count: usize, text: impl FnOnce(usize) -> String) {
        if count > 0 {
            self.notes.push(text(count));
        }
    }
}

/// An image with its annotations.
#[derive(Debug)]
struct Item {
    /// Path below the folder of images, with slashes.
    name: String,
    image: FoundImage,
    /// File of the annotations.
    origin: PathBuf,
    truth: Truth,
}

impl Item {
    /// Annotations of an image that is looked for by its name.
    fn find(source: detect::AnnotationSource<'_>, name: &str, origin: &Path, truth: Truth) -> Self {
        let image = source.image(name, origin);
        let name = item_name(source, name, image.path());
        Self { name, image, origin: origin.into(), truth }
    }
}

/// The name of an item: the one in the annotations, if it is the path of a file below a folder.
fn item_name(source: detect::AnnotationSource<'_>, name: &str, image: Option<&Path>) -> String {
    let is_plain = !name.contains('\\')
        && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    match image {
        Some(image) if !is_plain => source.index.name(image),
        Some(image) if !crate::dataset::is_image_path(Path::new(name)) => {
            let ending = image.extension().unwrap_or_default().to_string_lossy();
            format!("{name}.{ending}")
        }
        _ => name.to_owned(),
    }
}

/// The labels of an image.
#[derive(Debug)]
enum Truth {
    /// Areas in order, on an image of a size `[height, width]`, or of the size of the file.
    Shapes { size: Option<[usize; 2]>, shapes: Vec<(u8, Area)> },
    /// Shapes that cannot be drawn, and why.
    Broken(String),
    /// A mask whose samples the mapping gives a meaning; train ids are indices of classes.
    Mask { path: PathBuf, mapping: Arc<LabelMapping>, outside: Option<Outside> },
    /// A mask of ids, which get new ones first.
    Renumbered { path: PathBuf, mapping: Arc<LabelMapping>, map: Arc<IdMap> },
    /// A mask of which pixels as bright as the threshold are class 1, others class 0.
    Threshold { path: PathBuf, least: u8 },
    /// COCO's panoptic PNG: the class of each segment.
    Panoptic { path: PathBuf, segments: HashMap<u32, u8> },
    /// A mask for each class.
    Layers { layers: Vec<(u8, PathBuf)>, least: Option<u8> },
}

/// Pixels of a mask that no annotation covers: those of a class, unless a mask of objects has an
/// object there.
#[derive(Debug, Clone)]
struct Outside {
    class: u8,
    objects: Option<PathBuf>,
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
    options: ConvertOptions,
    /// Holds the files of an archive.
    unpacked: Option<Unpacked>,
}

/// An archive and the folder of its files.
#[derive(Debug)]
struct Unpacked {
    folder: tempfile::TempDir,
    archive: PathBuf,
}

impl Unpacked {
    /// Names files by their archive.
    fn name_files(&self, error: ConvertError) -> ConvertError {
        let (folder, archive) = (self.folder.path().to_owned(), self.archive.clone());
        ConvertError::InArchive { folder, archive, fault: Box::new(error) }
    }
}

impl Conversion {
    /// Reads annotations: a file, a folder or a ZIP archive.
    pub fn open(input: &Path, options: &ConvertOptions) -> Result<Self, ConvertError> {
        let Some(folder) = detect::unpack(input)? else {
            return Self::open_files(input, options);
        };
        let unpacked = Unpacked { archive: input.into(), folder };
        let root = detect::unpacked_root(unpacked.folder.path());
        match Self::open_files(&root, options) {
            Ok(mut conversion) => {
                for note in &mut conversion.annotations.notes {
                    *note = error::named_by_archive(note, unpacked.folder.path(), input);
                }
                Ok(Self { unpacked: Some(unpacked), ..conversion })
            }
            Err(error) => Err(unpacked.name_files(error)),
        }
    }

    fn open_files(input: &Path, options: &ConvertOptions) -> Result<Self, ConvertError> {
        let index = image_index::ImageIndex::new(input, options.images.as_deref())?;
        let own_classes = options
            .classes
            .clone()
            .or_else(|| Some(class_file(folder_of(input))).filter(|path| path.is_file()));
        let file = own_classes.as_deref().map(ClassFile::load).transpose()?;
        let id_map = options.map.as_deref().map(IdMap::load).transpose()?;
        let source = detect::AnnotationSource {
            input,
            options,
            index: &index,
            classes: file.as_ref().zip(own_classes.as_deref()),
            id_map: id_map.as_ref(),
        };
        let format = match options.format {
            // What all masks add to the names of images is no class.
            Some(SourceFormat::Masks)
                if pairs::find(source)?.0.iter().any(|own| own.has_pattern) =>
            {
                SourceFormat::Folder
            }
            Some(format) => format,
            None if options.map.is_some() => SourceFormat::Folder,
            None if options.threshold.is_some() => detect::layout(source)?,
            None => detect::detect(source)?,
        };
        let mut annotations = source.read(format)?;
        annotations.find_unlabeled(&index);
        annotations.notes.extend(annotations.unlabeled_note(options.unlabeled));
        if annotations.items.is_empty() {
            let notes = annotations.notes;
            return Err(ConvertError::NoImage { path: input.into(), notes });
        }
        rename_twins(&mut annotations.items, &index);
        classes::check_names(&mut annotations, file.as_ref(), options);
        let (table, labels, uncovered) = classes::decide(&annotations, file.as_ref(), options)?;
        let options = options.clone();
        Ok(Self { table, labels, uncovered, annotations, format, options, unpacked: None })
    }

    /// Returns the format of the annotations.
    pub fn format(&self) -> SourceFormat {
        self.format
    }

    /// Returns the classes of the label maps.
    pub fn classes(&self) -> &ClassTable {
        &self.table
    }

    /// Returns the class of pixels that no shape covers; `None` if they count for nothing.
    pub fn uncovered_class(&self) -> Option<&Class> {
        self.table.classes().get(usize::from(self.uncovered))
    }

    /// Returns the number of images.
    pub fn count(&self) -> usize {
        self.annotations.items.len()
    }

    /// Returns what was left out or guessed in reading.
    pub fn notes(&self) -> &[String] {
        &self.annotations.notes
    }

    fn name_files(&self, error: ConvertError) -> ConvertError {
        match &self.unpacked {
            Some(unpacked) => unpacked.name_files(error),
            None => error,
        }
    }
}

/// The folder of the annotations: the input itself, or that of a file.
fn folder_of(input: &Path) -> &Path {
    let parent = input.parent().filter(|parent| !parent.as_os_str().is_empty());
    if input.is_dir() { input } else { parent.unwrap_or(Path::new(".")) }
}

/// Gives images that have one name in their annotations that of their path.
fn rename_twins(items: &mut [Item], index: &image_index::ImageIndex) {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for item in items.iter() {
        *counts.entry(item.name.clone()).or_default() += 1;
    }
    for item in
        items.iter_mut().filter(|item| counts.get(&item.name).is_some_and(|count| *count > 1))
    {
        if let FoundImage::At(path) = &item.image {
            item.name = index.name(path);
        }
    }
    // Names of which the annotations have two, and the folders too, do not tell which is which.
    let mut owners: HashMap<PathBuf, Vec<usize>> = HashMap::new();
    for (at, item) in items.iter().enumerate() {
        if let FoundImage::At(path) = &item.image {
            owners.entry(path.clone()).or_default().push(at);
        }
    }
    for (path, owners) in owners.into_iter().filter(|(_, owners)| owners.len() > 1) {
        let exact: Vec<usize> =
            owners.iter().copied().filter(|at| index.is_path_of(&items[*at].name, &path)).collect();
        if let [exact] = exact[..] {
            // The whole path of one; the others have another image, which is not there.
            let first = items[exact].name.clone();
            for at in owners.into_iter().filter(|at| *at != exact) {
                let (path, first, second) = (path.clone(), first.clone(), items[at].name.clone());
                items[at].image = FoundImage::Shared { path, first, second };
            }
            continue;
        }
        let [first, second] = [owners[0], owners[1]].map(|at| items[at].name.clone());
        let image = match index.twin(&path) {
            Some(other) => FoundImage::Ambiguous(path, other),
            None => FoundImage::Shared { path, first, second },
        };
        for at in owners {
            items[at].image = image.clone();
        }
    }
}

#[cfg(test)]
mod tests;
