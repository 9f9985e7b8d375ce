//! Label maps in files: trees of Pascal VOC and CVAT, and folders of images and labels.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protoseg_models::classes::ClassTable;
use protoseg_models::errors::FileError;

use super::detect::AnnotationSource;
use super::image_index::files;
use super::{Annotations, ConvertError, Item, SourceClass, Truth};
use crate::dataset::{Dataset, is_image_path};
use crate::label_mapping::LabelMapping;

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
    let root = source.input.join("SegmentationClass");
    for path in files(&root, &[])?.into_iter().filter(|path| is_image_path(path)) {
        let below = path.strip_prefix(&root).unwrap_or(&path).with_extension("");
        let stem = below.to_string_lossy().into_owned();
        annotations.items.push(item(source, &stem, path, &mapping)?);
    }
    let lists = source.input.join("ImageSets/Segmentation");
    let lists = if lists.is_dir() { files(&lists, &[])? } else { Vec::new() };
    for list in lists.iter().filter(|list| list.file_stem().is_some_and(|stem| stem != "default")) {
        annotations.lists.push(read_list(list, &annotations.items)?);
    }
    Ok(annotations)
}

fn item(
    source: AnnotationSource<'_>,
    stem: &str,
    path: PathBuf,
    mapping: &Arc<LabelMapping>,
) -> Result<Item, ConvertError> {
    let image = source.image(stem)?;
    let extension = image.as_deref().and_then(Path::extension).unwrap_or("png".as_ref());
    let name = format!("{stem}.{}", extension.to_string_lossy());
    Ok(Item { name, image, truth: Truth::Mask { path, mapping: Arc::clone(mapping) } })
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
    let mapping = Arc::new(Dataset::Folder.label_mapping(source.input)?);
    let mut annotations =
        Annotations { classes: classes(&mapping.class_file().table), ..Annotations::default() };
    for (image, path) in pairs(source)? {
        let truth = Truth::Mask { path, mapping: Arc::clone(&mapping) };
        annotations.items.push(Item { name: source.index.name(&image), image: Some(image), truth });
    }
    add_lists(source.input, &mut annotations)?;
    Ok(annotations)
}

fn read_binary(source: AnnotationSource<'_>, least: u8) -> Result<Annotations, ConvertError> {
    let mut annotations = Annotations::default();
    let table = source.classes.map(|file| &file.table);
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
    for (image, path) in pairs(source)? {
        let truth = Truth::Threshold { path, least };
        annotations.items.push(Item { name: source.index.name(&image), image: Some(image), truth });
    }
    add_lists(source.input, &mut annotations)?;
    Ok(annotations)
}

/// Images with the files of the same names in `labels` or `masks`, whatever their endings.
fn pairs(source: AnnotationSource<'_>) -> Result<Vec<(PathBuf, PathBuf)>, ConvertError> {
    let folder = ["labels", "masks"].map(|name| source.input.join(name));
    let folder = folder.iter().find(|folder| folder.is_dir()).unwrap_or(&folder[0]);
    let below = |path: &Path| Some(path.strip_prefix(folder).ok()?.with_extension(""));
    let labels = files(folder, &[])?.into_iter().rev();
    let labels: HashMap<PathBuf, PathBuf> =
        labels.filter_map(|path| Some((below(&path)?, path))).collect();
    let mut pairs = Vec::new();
    for image in source.index.all() {
        let name = Path::new(&source.index.name(image)).with_extension("");
        let label = labels.get(&name);
        let label = label.ok_or_else(|| ConvertError::Content {
            path: image.into(),
            reason: format!("has no label `{}` in {}", name.display(), folder.display()),
        })?;
        pairs.push((image.to_owned(), label.clone()));
    }
    Ok(pairs)
}

/// Takes over the lists of images beside the folders.
fn add_lists(input: &Path, annotations: &mut Annotations) -> Result<(), ConvertError> {
    let Annotations { items, lists, .. } = annotations;
    let places: HashMap<&str, usize> =
        items.iter().map(|item| item.name.as_str()).zip(0..).collect();
    for entry in std::fs::read_dir(input).map_err(FileError::at(input))? {
        let path = entry.map_err(FileError::at(input))?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !super::detect::has_extension(&path, "txt") || ["classes", "labelmap"].contains(&&*name)
        {
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
