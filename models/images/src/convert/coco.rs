//! COCO: instances and stuff as polygons or run lengths, and panoptic PNGs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::detect::{AnnotationSource, read_json};
use super::image_index::files;
use super::raster::Area;
use super::{Annotations, ConvertError, Item, SourceClass, Truth};

#[derive(Deserialize)]
struct CocoFile {
    images: Vec<CocoImage>,
    annotations: Vec<CocoAnnotation>,
    #[serde(default)]
    categories: Vec<SourceCategory>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: u64,
    file_name: String,
    width: usize,
    height: usize,
}

#[derive(Deserialize)]
struct SourceCategory {
    id: i64,
    name: String,
    color: Option<[u8; 3]>,
}

#[derive(Deserialize)]
struct CocoAnnotation {
    image_id: u64,
    category_id: Option<i64>,
    segmentation: Option<SourceSegmentation>,
    /// Of panoptic files, with the next one.
    segments_info: Option<Vec<Segment>>,
    file_name: Option<String>,
}

#[derive(Deserialize)]
struct Segment {
    id: u32,
    category_id: i64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SourceSegmentation {
    Polygons(Vec<Vec<f64>>),
    RunLengths { size: [usize; 2], counts: Counts },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counts {
    Letters(String),
    Numbers(Vec<usize>),
}

pub(super) fn read(source: AnnotationSource<'_>) -> Result<Annotations, ConvertError> {
    let mut annotations = Annotations::default();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut boxes = 0;
    let files = source.files("json")?;
    let only = files.len() == 1;
    for path in files {
        let value: serde_json::Value = read_json(&path)?;
        // Captions, keypoints and boxes lie in files beside the masks.
        if value.get("images").is_none() || !only && !holds_masks(&value) {
            continue;
        }
        let file: CocoFile = serde_json::from_value(value)
            .map_err(|source| ConvertError::Json { path: path.clone(), source })?;
        let first = annotations.items.len();
        boxes += add_file(source, &path, file, &mut annotations, &mut places)?;
        // Files such as instances_train.json are lists of their own.
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        annotations.lists.push((stem, (first..annotations.items.len()).collect()));
    }
    if annotations.lists.len() < 2 {
        annotations.lists.clear();
    }
    if boxes > 0 {
        annotations.notes.push(format!("{boxes} annotations without a mask (boxes) are left out"));
    }
    Ok(annotations)
}

fn holds_masks(file: &serde_json::Value) -> bool {
    let annotations = file.get("annotations").and_then(serde_json::Value::as_array);
    annotations.into_iter().flatten().any(|annotation| {
        annotation.get("segments_info").is_some()
            || match annotation.get("segmentation") {
                Some(serde_json::Value::Array(polygons)) => !polygons.is_empty(),
                other => other.is_some_and(serde_json::Value::is_object),
            }
    })
}

/// Adds a file; returns the number of annotations without a mask.
fn add_file(
    source: AnnotationSource<'_>,
    path: &Path,
    file: CocoFile,
    annotations: &mut Annotations,
    places: &mut HashMap<String, usize>,
) -> Result<usize, ConvertError> {
    let content = |reason| ConvertError::Content { path: path.into(), reason };
    let mut categories: HashMap<i64, u8> = HashMap::new();
    for SourceCategory { id, name, color } in file.categories {
        let class = annotations.class(&name);
        if let Some(known) = annotations.classes.get_mut(usize::from(class)) {
            *known = SourceClass { color: color.or(known.color), ..known.clone() };
        }
        categories.insert(id, class);
    }
    let mut by_id: HashMap<u64, usize> = HashMap::new();
    for CocoImage { id, file_name, width, height } in file.images {
        if places.contains_key(&file_name) {
            let reason = "has annotations in another file too; convert one of the files";
            return Err(content(format!("the image `{file_name}` {reason}")));
        }
        let image = source.image(&file_name)?;
        let truth = Truth::Shapes { size: [height, width], shapes: Vec::new() };
        places.insert(file_name.clone(), annotations.items.len());
        by_id.insert(id, annotations.items.len());
        annotations.items.push(Item { name: file_name, image, truth });
    }
    let panoptic = Panoptic::new(path);
    let mut boxes = 0;
    for annotation in file.annotations {
        let id = annotation.image_id;
        let item = by_id.get(&id).and_then(|&item| annotations.items.get_mut(item));
        let item = item.ok_or_else(|| content(format!("there is no image with the id {id}")))?;
        let class = |id: i64| {
            let class = categories.get(&id).copied();
            class.ok_or_else(|| content(format!("there is no category with the id {id}")))
        };
        if let (Some(segments), Some(name)) = (annotation.segments_info, &annotation.file_name) {
            let mut known = HashMap::new();
            for Segment { id, category_id } in segments {
                known.insert(id, class(category_id)?);
            }
            let path = panoptic.find(name)?.ok_or_else(|| {
                content(format!("the mask `{name}` is not beside the file or in a folder there"))
            })?;
            item.truth = Truth::Panoptic { path, segments: known };
            continue;
        }
        let Truth::Shapes { size, shapes } = &mut item.truth else { continue };
        match annotation.segmentation.map(|segmentation| area(segmentation, *size)) {
            None | Some(Ok(None)) => boxes += 1,
            Some(Ok(Some(area))) => {
                let category = annotation.category_id;
                let category =
                    category.ok_or_else(|| content("an annotation has no category".to_owned()))?;
                shapes.push((class(category)?, area));
            }
            Some(Err(reason)) => {
                return Err(content(format!("a mask of `{}` {reason}", item.name)));
            }
        }
    }
    Ok(boxes)
}

/// Files of the masks of a panoptic JSON: anywhere beside it.
struct Panoptic<'a> {
    folder: &'a Path,
}

impl<'a> Panoptic<'a> {
    fn new(json: &'a Path) -> Self {
        Self { folder: json.parent().unwrap_or(Path::new(".")) }
    }

    fn find(&self, name: &str) -> Result<Option<PathBuf>, ConvertError> {
        let folder = if self.folder.as_os_str().is_empty() { Path::new(".") } else { self.folder };
        if folder.join(name).is_file() {
            return Ok(Some(folder.join(name)));
        }
        Ok(files(folder, &["images"])?.into_iter().find(|path| path.ends_with(name)))
    }
}

/// The area of a mask; `None` for an empty list.
fn area(segmentation: SourceSegmentation, image: [usize; 2]) -> Result<Option<Area>, String> {
    match segmentation {
        SourceSegmentation::Polygons(polygons) if polygons.is_empty() => Ok(None),
        SourceSegmentation::Polygons(polygons) => {
            if polygons.iter().any(|polygon| !polygon.len().is_multiple_of(2)) {
                return Err("has a polygon with an odd number of coordinates".to_owned());
            }
            let points = |polygon: &Vec<f64>| polygon.as_chunks().0.to_vec();
            Ok(Some(Area::Polygons(polygons.iter().map(points).collect())))
        }
        SourceSegmentation::RunLengths { size, counts } => {
            if size != image {
                return Err(format!(
                    "has {}x{} pixels, and the image another size",
                    size[1], size[0]
                ));
            }
            let counts = match counts {
                Counts::Numbers(numbers) => numbers,
                Counts::Letters(letters) => {
                    decode_letters(&letters).ok_or("has broken run lengths")?
                }
            };
            let all = counts.iter().try_fold(0_usize, |sum, &count| sum.checked_add(count));
            if all.is_none_or(|all| all != size[0] * size[1]) {
                return Err("has run lengths of another size".to_owned());
            }
            Ok(Some(Area::Columns(counts)))
        }
    }
}

/// Decodes COCO's letters: five bits each, the lowest first; a sixth says that more follow. From the
/// fourth on, a count is the difference from the last but one.
fn decode_letters(letters: &str) -> Option<Vec<usize>> {
    let mut counts: Vec<i64> = Vec::new();
    let (mut value, mut shift) = (0_i64, 0_u32);
    for letter in letters.bytes() {
        let bits = i64::from(letter.checked_sub(48).filter(|bits| *bits < 64)?);
        value |= (bits & 0x1f).checked_shl(shift).filter(|_| shift < 55)?;
        shift += 5;
        if bits & 0x20 == 0 {
            if bits & 0x10 != 0 {
                value |= -1 << shift;
            }
            if counts.len() > 2 {
                value += counts[counts.len() - 2];
            }
            counts.push(value);
            (value, shift) = (0, 0);
        }
    }
    let whole = shift == 0;
    counts
        .into_iter()
        .map(|count| usize::try_from(count).ok())
        .collect::<Option<_>>()
        .filter(|_| whole)
}
