//! Label maps in files: trees of Pascal VOC and CVAT, and folders of images and labels.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protoseg_models::classes::{ClassFile, ClassTable};
use protoseg_models::errors::FileError;

use super::classes::is_named_background;
use super::detect::{AnnotationSource, has_extension, mask_folder};
use super::draw::object_pixels;
use super::image_index::{FoundImage, files};
use super::{Annotations, ConvertError, Item, Outside, SourceClass, Truth, item_name};
use crate::dataset::{Dataset, is_image_path};
use crate::id_map::IdMap;
use crate::label_mapping::{ClassOrigin, LabelMapping};

/// Classes of a table with their ids and colors.
fn classes(table: &ClassTable) -> Vec<SourceClass> {
    let class = |class: &protoseg_models::classes::Class| SourceClass {
        name: class.name.clone(),
        color: Some(class.color),
        id: Some(class.source_id),
    };
    table.classes().iter().map(class).collect()
}

/// Reads `SegmentationClass`, in the classes of `labelmap.txt` or else of Pascal VOC.
pub(super) fn read_tree(source: AnnotationSource<'_>) -> Result<Annotations, ConvertError> {
    let mapping = Arc::new(Dataset::Voc.label_mapping(source.input)?);
    let mut annotations =
        Annotations { classes: classes(&mapping.class_file().table), ..Annotations::default() };
    // CVAT draws what has no annotation as background; in Pascal VOC that is a class.
    let is_cvat = matches!(mapping.origin(), ClassOrigin::File(_));
    let names = annotations.classes.iter().zip(0_u8..);
    let background = names.filter(|(class, _)| is_cvat && is_named_background(&class.name));
    let background: Option<u8> = background.map(|(_, index)| index).next();
    let root = source.input.join("SegmentationClass");
    let objects = source.input.join("SegmentationObject");
    for path in files(&root, &[])?.into_iter().filter(|path| is_image_path(path)) {
        let below = path.strip_prefix(&root).unwrap_or(&path).to_owned();
        let stem = below.with_extension("").to_string_lossy().into_owned();
        let outside = background.map(|class| {
            let objects = Some(objects.join(&below)).filter(|path| path.is_file());
            Outside { class, objects }
        });
        if !annotations.has_drawn_background
            && let Some(Outside { class, objects: Some(objects) }) = &outside
        {
            let max_pixels = source.options.max_pixels;
            // A mask that cannot be read is reported when it is drawn.
            annotations.has_drawn_background =
                draws_class(&mapping, &path, *class, objects, max_pixels).unwrap_or(false);
        }
        let image = source.index.find(&stem, None);
        let name = match &image {
            FoundImage::At(_) => item_name(source, &stem, image.path()),
            _ => format!("{stem}.png"),
        };
        let truth = Truth::Mask { path: path.clone(), mapping: Arc::clone(&mapping), outside };
        annotations.items.push(Item { name, image, origin: path, truth });
    }
    let lists = source.input.join("ImageSets/Segmentation");
    let lists = if lists.is_dir() { files(&lists, &[])? } else { Vec::new() };
    for list in lists.iter().filter(|list| list.file_stem().is_some_and(|stem| stem != "default")) {
        annotations.lists.push(read_list(list, &annotations.items)?);
    }
    Ok(annotations)
}

/// Returns true if a pixel of a class is in an object.
fn draws_class(
    mapping: &LabelMapping,
    path: &Path,
    class: u8,
    objects: &Path,
    max_pixels: u64,
) -> Result<bool, ConvertError> {
    let (size, mapped) = mapping.read(path, max_pixels)?;
    let objects = object_pixels(objects, size, max_pixels)?;
    Ok(mapped.labels.into_iter().zip(objects).any(|(label, in_object)| label == class && in_object))
}

/// A list of stems as indices of items; names of no item are left out.
fn read_list(path: &Path, items: &[Item]) -> Result<(String, Vec<usize>), ConvertError> {
    let text = std::fs::read_to_string(path).map_err(FileError::at(path))?;
    let stem = |item: &Item| Path::new(&item.name).with_extension("");
    let places: HashMap<PathBuf, usize> = items.iter().map(stem).zip(0..).collect();
    let place = |line: &str| places.get(Path::new(line.trim())).copied();
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok((name, text.lines().filter_map(place).collect()))
}

/// Reads `images` and `labels`, or masks of two classes by a threshold.
pub(super) fn read_folder(source: AnnotationSource<'_>) -> Result<Annotations, ConvertError> {
    if let Some(least) = source.options.threshold {
        return read_binary(source, least);
    }
    let mapping = Arc::new(match source.classes {
        // The masks are in the classes of the file beside them, whatever others they are to have.
        Some((file, path)) if !source.input.join("classes.txt").is_file() => {
            let (file, origin) = (ClassFile::clone(file), ClassOrigin::File(path.into()));
            LabelMapping::new(file, origin, |_| false, &[])
        }
        _ => Dataset::Folder.label_mapping(source.input)?,
    });
    let id_map: Option<Arc<IdMap>> = source.id_map.cloned().map(Arc::new);
    let mut annotations =
        Annotations { classes: classes(&mapping.class_file().table), ..Annotations::default() };
    add_pairs(source, &mut annotations, |path| {
        let mapping = Arc::clone(&mapping);
        match &id_map {
            Some(map) => Truth::Renumbered { path, mapping, map: Arc::clone(map) },
            None => Truth::Mask { path, mapping, outside: None },
        }
    })?;
    add_lists(source.input, &mut annotations)?;
    Ok(annotations)
}

fn read_binary(source: AnnotationSource<'_>, least: u8) -> Result<Annotations, ConvertError> {
    let mut annotations = Annotations::default();
    let table = source.classes.map(|(file, _)| &file.table);
    match table {
        Some(table) if table.count() == 2 => annotations.classes = classes(table),
        Some(table) => {
            return Err(ConvertError::Content {
                path: source.input.into(),
                reason: format!(
                    "--threshold makes masks of 2 classes, and the class file has {}",
                    table.count()
                ),
            });
        }
        None => {
            annotations.classes =
                ["background", "foreground"].into_iter().map(SourceClass::named).collect();
        }
    }
    add_pairs(source, &mut annotations, |path| Truth::Threshold { path, least })?;
    add_lists(source.input, &mut annotations)?;
    Ok(annotations)
}

/// Adds the images with the masks of the same names, whatever their endings.
fn add_pairs(
    source: AnnotationSource<'_>,
    annotations: &mut Annotations,
    truth: impl Fn(PathBuf) -> Truth,
) -> Result<(), ConvertError> {
    let folder = mask_folder(source.input);
    let below = |path: &Path| Some(path.strip_prefix(&folder).ok()?.with_extension(""));
    // Of masks of one name, the first counts.
    let masks = source.masks()?.into_iter().rev();
    let masks: HashMap<PathBuf, PathBuf> =
        masks.filter_map(|path| Some((below(&path)?, path))).collect();
    let mut bare: Vec<String> = Vec::new();
    for image in source.index.all() {
        let name = source.index.name(image);
        let Some(mask) = masks.get(&Path::new(&name).with_extension("")) else {
            bare.push(name);
            continue;
        };
        let (image, origin) = (FoundImage::At(image.into()), mask.clone());
        annotations.items.push(Item { name, image, origin, truth: truth(mask.clone()) });
    }
    annotations.note(bare.len(), |count| {
        let images = if count == 1 { "image has" } else { "images have" };
        let folder = folder.display();
        format!("{count} {images} no mask in {folder} and are left out, such as {}", bare[0])
    });
    Ok(())
}

/// Takes over the lists of images beside the folders.
fn add_lists(input: &Path, annotations: &mut Annotations) -> Result<(), ConvertError> {
    let Annotations { items, lists, .. } = annotations;
    let places: HashMap<&str, usize> =
        items.iter().map(|item| item.name.as_str()).zip(0..).collect();
    for entry in std::fs::read_dir(input).map_err(FileError::at(input))? {
        let path = entry.map_err(FileError::at(input))?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !has_extension(&path, "txt") || ["classes", "labelmap"].contains(&&*name) {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(FileError::at(&path))?;
        let place = |line: &str| {
            let image = line.trim().strip_prefix("images/")?;
            let first = image.split(['\t', ' ']).next()?;
            places.get(image).or_else(|| places.get(first)).copied()
        };
        let list: Vec<usize> = text.lines().filter_map(place).collect();
        if !list.is_empty() && name != "all" {
            lists.push((name, list));
        }
    }
    lists.sort();
    Ok(())
}
