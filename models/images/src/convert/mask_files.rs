//! Label maps in files: folders of images and labels.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protoseg_models::classes::{ClassFile, ClassTable};
use protoseg_models::errors::FileError;

use super::affix::Affix;
use super::detect::{AnnotationSource, has_extension, mask_folder};
use super::image_index::FoundImage;
use super::{Annotations, ConvertError, Item, SourceClass, Truth};
use crate::dataset::Dataset;
use crate::id_map::IdMap;
use crate::label_mapping::{ClassOrigin, LabelMapping};

/// Classes of a table with their ids and colors.
pub(super) fn classes(table: &ClassTable) -> Vec<SourceClass> {
    let class = |class: &protoseg_models::classes::Class| SourceClass {
        name: class.name.clone(),
        color: Some(class.color),
        id: Some(class.source_id),
    };
    table.classes().iter().map(class).collect()
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
    let (affix, paths) = masks_by_affix(source)?;
    let name = |path: &Path| {
        let stem =
            path.strip_prefix(&folder).ok()?.with_extension("").to_string_lossy().into_owned();
        affix.as_ref().map_or(Some(stem.clone()), |affix| affix.strip(&stem)).map(PathBuf::from)
    };
    // Of masks of one name, the first counts.
    let taken: HashSet<&PathBuf> = paths.iter().filter(|_| affix.is_some()).collect();
    let masks: HashMap<PathBuf, &PathBuf> =
        paths.iter().rev().filter_map(|path| Some((name(path)?, path))).collect();
    annotations.notes.extend(
        affix
            .as_ref()
            .map(|affix| format!("the masks are named {affix}, where NAME is that of the image")),
    );
    let mut bare: Vec<String> = Vec::new();
    for image in source.index.all() {
        if taken.contains(&image.to_owned()) {
            continue;
        }
        let name = source.index.name(image);
        let Some(mask) = masks.get(&Path::new(&name).with_extension("")) else {
            bare.push(name);
            continue;
        };
        let (image, origin) = (FoundImage::At(image.into()), mask.to_path_buf());
        annotations.items.push(Item { name, image, origin, truth: truth(mask.to_path_buf()) });
    }
    annotations.note(bare.len(), |count| {
        let images = if count == 1 { "image has" } else { "images have" };
        let folder = folder.display();
        format!("{count} {images} no mask in {folder} and are left out, such as {}", bare[0])
    });
    Ok(())
}

/// The masks, and what all their names have besides those of the images, if there is such a thing.
pub(super) fn masks_by_affix(
    source: AnnotationSource<'_>,
) -> Result<(Option<Affix>, Vec<PathBuf>), ConvertError> {
    let folder = mask_folder(source.input);
    let stem = |name: &Path| name.with_extension("").to_string_lossy().into_owned();
    let images = source.index.all();
    let names: HashSet<String> =
        images.iter().map(|image| stem(Path::new(&source.index.name(image)))).collect();
    let below = |path: &Path| stem(path.strip_prefix(&folder).unwrap_or(path));
    if images.iter().all(|image| image.starts_with(&folder))
        && let Some(affix) = Affix::beside(&names)
    {
        let is_mask =
            |image: &&&Path| affix.strip(&below(image)).is_some_and(|name| names.contains(&name));
        let masks = images.iter().filter(is_mask).map(|mask| mask.to_path_buf()).collect();
        return Ok((Some(affix), masks));
    }
    let masks = source.masks()?;
    let mask_names: Vec<String> = masks.iter().map(|path| below(path)).collect();
    let classes: Vec<&str> = source.class_names().collect();
    Ok((Affix::find(&names, &mask_names, &classes), masks))
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
