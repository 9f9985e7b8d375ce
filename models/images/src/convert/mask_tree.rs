//! Trees like that of Pascal VOC: CVAT's, LabelMe's and its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protoseg_models::classes::{ClassFile, ClassTable, is_named_background};
use protoseg_models::errors::FileError;

use super::detect::AnnotationSource;
use super::draw::object_pixels;
use super::image_index::{FoundImage, files};
use super::mask_files::classes;
use super::{Annotations, ConvertError, Item, Outside, SourceClass, Truth, item_name};
use crate::dataset::{Dataset, is_image_path, voc};
use crate::label_mapping::{ClassOrigin, LabelMapping};

/// Folders of masks; where there are both, LabelMe's first one holds arrays of NumPy.
pub(super) const FOLDERS: [&str; 2] = ["SegmentationClassPNG", "SegmentationClass"];
fn folder(input: &Path) -> PathBuf {
    let [png, plain] = FOLDERS.map(|name| input.join(name));
    if png.is_dir() { png } else { plain }
}

fn masks(input: &Path) -> Result<Vec<PathBuf>, ConvertError> {
    let mut masks = files(&folder(input), &[])?;
    masks.retain(|path| is_image_path(path));
    Ok(masks)
}

/// Reads the masks in the classes of the list beside them, of a class file or of Pascal VOC.
pub(super) fn read(source: AnnotationSource<'_>) -> Result<Annotations, ConvertError> {
    let masks = masks(source.input)?;
    let mut annotations = Annotations::default();
    let (mapping, has_legend) = mapping(source, &masks, &mut annotations)?;
    annotations.classes = classes(&mapping.class_file().table);
    for ignored in &mapping.class_file().ignored {
        if let Some(name) = &ignored.name
            && !annotations.classes.iter().any(|class| class.name == *name)
        {
            let (name, id) = (name.clone(), Some(ignored.ids.0));
            annotations.classes.push(SourceClass { name, color: ignored.color, id });
        }
    }
    // CVAT and LabelMe draw what has no annotation as background; in Pascal VOC that is a class.
    let names = annotations.classes.iter().zip(0_u8..);
    let background = names.filter(|(class, _)| has_legend && is_named_background(&class.name));
    let background: Option<u8> = background.map(|(_, index)| index).next();
    let root = folder(source.input);
    let objects = source.input.join("SegmentationObject");
    for path in masks {
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

/// The meaning of the masks, and true if it is from a list of the program that wrote them.
fn mapping(
    source: AnnotationSource<'_>,
    masks: &[PathBuf],
    annotations: &mut Annotations,
) -> Result<(Arc<LabelMapping>, bool), ConvertError> {
    let known = Dataset::Voc.label_mapping(source.input)?;
    if let ClassOrigin::File(path) = known.origin() {
        let background =
            known.class_file().table.classes().iter().find(|class| class.source_id == 0);
        let has_background = background.is_none_or(|class| is_named_background(&class.name));
        annotations.note(usize::from(!has_background), |_| {
            let name = background.map_or("", |class| class.name.as_str());
            format!(
                "{} has no background on its first line: the ids of the masks are the lines from 0, which \
                 is `{name}`",
                path.display()
            )
        });
        return Ok((Arc::new(known), true));
    }
    let Some((file, path)) = source.classes else {
        return match voc::difference(masks, source.options.max_pixels) {
            Some(reason) => Err(ConvertError::NoNames { path: source.input.into(), reason }),
            None => Ok((Arc::new(known), false)),
        };
    };
    let own = source.input.join("classes.txt");
    let (file, path) = if own.is_file() && own != path {
        (ClassFile::load(&own)?, own)
    } else {
        (ClassFile::clone(file), path.to_owned())
    };
    let voc = ClassTable::voc();
    if file.table == voc {
        return Ok((Arc::new(known), false));
    }
    // Some of the classes of Pascal VOC, under ids of their own, for the masks of Pascal VOC.
    let is_voc = |name: &str| voc.classes().iter().any(|class| class.name == name);
    if file.table.classes().iter().all(|class| is_voc(&class.name))
        && voc::difference(masks, source.options.max_pixels).is_none()
    {
        annotations.note(1, |_| {
            "the ids of the masks are those of Pascal VOC, by their names and palettes".to_owned()
        });
        return Ok((Arc::new(known), false));
    }
    annotations.note(1, |_| format!("the ids of the masks are those of {}", path.display()));
    Ok((Arc::new(LabelMapping::new(file, ClassOrigin::File(path), |_| false, &[])), false))
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
