//! Label maps in files: folders of images and labels.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protoseg_models::classes::{ClassFile, ClassTable};
use protoseg_models::errors::FileError;

use super::detect::{AnnotationSource, has_extension};
use super::image_index::FoundImage;
use super::pairs::{self, MaskPair, PairedFolder};
use super::{Annotations, ConvertError, Item, SourceClass, Truth};
use crate::dataset::Dataset;
use crate::dataset::label_file::class_file;
use crate::dataset::layout::is_image_folder;
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
        Some((file, path)) if !class_file(source.input).is_file() => {
            let (file, origin) = (ClassFile::clone(file), ClassOrigin::File(path.into()));
            LabelMapping::new(file, origin, |_| false, &[])
        }
        _ => Dataset::Folder.label_mapping(source.input)?,
    });
    let id_map: Option<Arc<IdMap>> = source.id_map.cloned().map(Arc::new);
    let mut annotations =
        Annotations { classes: classes(&mapping.class_file().table), ..Annotations::default() };
    let (folders, _) = pairs::find(source)?;
    add_folders(&mut annotations, folders, |path| {
        let mapping = Arc::clone(&mapping);
        match &id_map {
            Some(map) => Truth::Renumbered { path, mapping, map: Arc::clone(map) },
            None => Truth::Mask { path, mapping, outside: None },
        }
    });
    add_lists(source.input, &mut annotations)?;
    Ok(annotations)
}

/// Reads the masks of Roboflow in the classes of the tables beside them.
pub(super) fn read_roboflow(source: AnnotationSource<'_>) -> Result<Annotations, ConvertError> {
    let found = pairs::roboflow(source.input)?;
    let Some((first, _)) = found.first() else {
        let reason = format!("holds no {}, which lists the classes", pairs::ROBOFLOW_CLASSES);
        return Err(ConvertError::Content { path: source.input.into(), reason });
    };
    let file = ClassFile::load(first)?;
    for (path, _) in &found[1..] {
        if ClassFile::load(path)? != file {
            let reason = format!(
                "has other classes than {}: convert the folders one by one, or give all the same ids",
                first.display()
            );
            return Err(ConvertError::Content { path: path.clone(), reason });
        }
    }
    let mapping = LabelMapping::new(file, ClassOrigin::File(first.clone()), |_| false, &[]);
    let mapping = Arc::new(mapping);
    let mut annotations =
        Annotations { classes: classes(&mapping.class_file().table), ..Annotations::default() };
    let folders = found.into_iter().map(|(_, folder)| folder).collect();
    add_folders(&mut annotations, folders, |path| Truth::Mask {
        path,
        mapping: Arc::clone(&mapping),
        outside: None,
    });
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
    let (folders, _) = pairs::find(source)?;
    add_folders(&mut annotations, folders, |path| Truth::Threshold { path, least });
    add_lists(source.input, &mut annotations)?;
    Ok(annotations)
}

/// Adds the images of folders with their masks, those without one, and a list for each split.
fn add_folders(
    annotations: &mut Annotations,
    folders: Vec<PairedFolder>,
    truth: impl Fn(PathBuf) -> Truth,
) {
    annotations.knows_unlabeled = true;
    for folder in folders {
        let first = annotations.items.len();
        for note in folder.notes {
            if !annotations.notes.contains(&note) {
                annotations.notes.push(note);
            }
        }
        annotations.unlabeled.extend(folder.bare);
        for MaskPair { name, image, mask } in folder.pairs {
            let (origin, truth) = match mask {
                Ok(mask) => (mask.clone(), truth(mask)),
                Err([first, second]) => {
                    let second = second.display();
                    let reason = format!(
                        "is a label map of `{name}`, and so is {second}: take one of them away"
                    );
                    (first, Truth::Broken(reason))
                }
            };
            annotations.items.push(Item { name, image: FoundImage::At(image), origin, truth });
        }
        if let Some(list) = folder.list {
            annotations.lists.push((list, (first..annotations.items.len()).collect()));
        }
    }
}

/// Takes over the lists of images beside the folders.
fn add_lists(input: &Path, annotations: &mut Annotations) -> Result<(), ConvertError> {
    let Annotations { items, lists, .. } = annotations;
    let places: HashMap<&str, usize> =
        items.iter().map(|item| item.name.as_str()).zip(0..).collect();
    let stems: HashMap<&str, usize> = items
        .iter()
        .zip(0..)
        .filter_map(|(item, at)| Some((item.name.rsplit_once('.')?.0, at)))
        .collect();
    for entry in std::fs::read_dir(input).map_err(FileError::at(input))? {
        let path = entry.map_err(FileError::at(input))?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !has_extension(&path, "txt") || ["classes", "labelmap"].contains(&&*name) {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(FileError::at(&path))?;
        let place = |line: &str| {
            let line = line.trim();
            let below = line.split_once('/').filter(|(folder, _)| is_image_folder(folder));
            let image = below.map_or(line, |(_, below)| below);
            let first = image.split(['\t', ' ']).next()?;
            [image, first].iter().find_map(|name| places.get(name).or(stems.get(name))).copied()
        };
        let list: Vec<usize> = text.lines().filter_map(place).collect();
        if !list.is_empty() && name != "all" {
            lists.push((name, list));
        }
    }
    lists.sort();
    Ok(())
}
