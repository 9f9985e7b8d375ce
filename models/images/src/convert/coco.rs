//! COCO: instances and stuff as polygons or run lengths, and panoptic PNGs.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::coco_masks::{MaskKind, are_shares, area, kind_without_area, number};
use super::detect::{AnnotationSource, read_json};
use super::image_index::files;
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
    id: CocoId,
    file_name: String,
    #[serde(default)]
    width: Value,
    #[serde(default)]
    height: Value,
}

impl CocoImage {
    /// Height and width, if the file gives them.
    fn size(&self) -> Option<[usize; 2]> {
        let side = |side: &Value| {
            number(side)
                .filter(|side| *side >= 1.0 && side.fract() == 0.0)
                .map(|side| side as usize)
        };
        Some([side(&self.height)?, side(&self.width)?])
    }
}

#[derive(Deserialize)]
struct SourceCategory {
    id: CocoId,
    name: String,
    supercategory: Option<String>,
    color: Option<[u8; 3]>,
}

#[derive(Deserialize)]
pub(super) struct CocoAnnotation {
    id: Option<CocoId>,
    image_id: CocoId,
    category_id: Option<CocoId>,
    pub(super) segmentation: Option<Value>,
    pub(super) keypoints: Option<Value>,
    #[serde(default)]
    iscrowd: Value,
    /// Of panoptic files, with the next one.
    segments_info: Option<Vec<Segment>>,
    file_name: Option<String>,
}

#[derive(Deserialize)]
struct Segment {
    id: u32,
    category_id: CocoId,
}

/// An id: a number, or a text in the files of some programs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "Value")]
struct CocoId(String);

impl From<Value> for CocoId {
    fn from(value: Value) -> Self {
        let whole = value.as_f64().filter(|number| number.fract() == 0.0);
        Self(match (value.as_str(), value.as_i64(), whole) {
            (Some(text), ..) => text.trim().to_owned(),
            (_, Some(number), _) => number.to_string(),
            (_, _, Some(number)) => format!("{number:.0}"),
            _ => value.to_string(),
        })
    }
}

/// Files with their paths, and paths of files that are left out.
type ParsedFiles = (Vec<(PathBuf, CocoFile)>, Vec<PathBuf>);

/// Annotations of all files that are special, or not drawn.
#[derive(Default)]
struct Tally {
    shapes: usize,
    boxes: usize,
    keypoints: usize,
    empty: usize,
    short_polygons: usize,
    crowds: usize,
    /// Of images that are not in the file.
    strangers: usize,
    supercategories: Vec<String>,
    shared_names: Vec<String>,
}

pub(super) fn read(source: AnnotationSource<'_>) -> Result<Annotations, ConvertError> {
    let mut annotations = Annotations::default();
    let mut tally = Tally::default();
    let (parsed, others) = parse_files(source)?;
    annotations.note(others.len(), |_| {
        let names: Vec<String> = others.iter().map(|path| path.display().to_string()).collect();
        format!("files without masks are left out: {}", names.join(", "))
    });
    let parsed = one_file_per_image(source, parsed, &mut annotations)?;
    let used = used_categories(&parsed);
    let names = list_names(parsed.iter().map(|(path, _)| path));
    let mut first_file = None;
    for ((path, file), name) in parsed.into_iter().zip(names) {
        let first = annotations.items.len();
        add_file(source, &path, file, &used, &mut annotations, &mut tally);
        // Files such as instances_train.json are lists of their own.
        annotations.lists.push((name, (first..annotations.items.len()).collect()));
        first_file.get_or_insert(path);
    }
    if annotations.lists.len() < 2 {
        annotations.lists.clear();
    }
    let left_out = tally.boxes + tally.keypoints + tally.empty;
    if let Some(path) = first_file
        && tally.shapes == 0
        && left_out > 0
    {
        let reason = format!(
            "its {left_out} annotations have no mask: {}; annotate masks, or have them made of boxes, \
             as by Segment Anything",
            tally.kinds()
        );
        return Err(ConvertError::Content { path, reason });
    }
    tally.write_notes(&mut annotations);
    Ok(annotations)
}

impl Tally {
    /// Numbers of annotations without a mask.
    fn kinds(&self) -> String {
        let kinds = [
            (self.boxes, "boxes"),
            (self.keypoints, "keypoints"),
            (self.empty, "empty segmentations"),
        ];
        let kinds = kinds.iter().filter(|(count, _)| *count > 0);
        kinds.map(|(count, kind)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
    }

    fn write_notes(&self, annotations: &mut Annotations) {
        let kinds = self.kinds();
        annotations.note(self.boxes + self.keypoints + self.empty, |count| {
            format!("{count} annotations without a mask are left out: {kinds}")
        });
        annotations.note(self.short_polygons, |count| {
            format!("{count} polygons of fewer than three points are left out")
        });
        annotations.note(self.crowds, |count| {
            format!("{count} annotations of crowds (iscrowd) are drawn in their class like others")
        });
        annotations.note(self.strangers, |count| {
            format!("{count} annotations of images that their file does not list are left out")
        });
        annotations.note(self.supercategories.len(), |_| {
            format!(
                "{} has no annotation and is the supercategory of others, and left out",
                self.supercategories.join(", ")
            )
        });
        annotations.note(self.shared_names.len(), |_| {
            format!("categories of one name are one class: {}", self.shared_names.join(", "))
        });
    }
}

/// The files with masks, or else those with images, and the names of the others.
fn parse_files(source: AnnotationSource<'_>) -> Result<ParsedFiles, ConvertError> {
    let mut values = Vec::new();
    for path in source.files("json")? {
        let value: Value = read_json(&path)?;
        if value.get("images").is_some() {
            values.push((path, value));
        }
    }
    // Captions, keypoints and boxes lie in files beside the masks.
    let (with_masks, others): (Vec<_>, Vec<_>) =
        values.into_iter().partition(|(_, value)| holds_masks(value));
    let (taken, others) =
        if with_masks.is_empty() { (others, Vec::new()) } else { (with_masks, others) };
    let mut parsed = Vec::new();
    for (path, value) in taken {
        let file = parse_file(value, &path)?;
        check_coordinates(&file, &path)?;
        parsed.push((path, file));
    }
    Ok((parsed, others.into_iter().map(|(path, _)| path).collect()))
}

/// Fails with the entry that is at fault.
fn parse_file(value: Value, path: &Path) -> Result<CocoFile, ConvertError> {
    let fault = entry_fault::<CocoImage>(&value, "images")
        .or_else(|| entry_fault::<SourceCategory>(&value, "categories"))
        .or_else(|| entry_fault::<CocoAnnotation>(&value, "annotations"));
    match fault {
        Some(reason) => Err(ConvertError::Content { path: path.into(), reason }),
        None => serde_json::from_value(value)
            .map_err(|source| ConvertError::Json { path: path.into(), source }),
    }
}

fn entry_fault<'a, T: Deserialize<'a>>(file: &'a Value, list: &str) -> Option<String> {
    let entries = file.get(list).and_then(Value::as_array)?;
    let (index, entry, error) = entries
        .iter()
        .enumerate()
        .find_map(|(index, entry)| Some((index, entry, T::deserialize(entry).err()?)))?;
    let id = entry.get("id").map_or_else(String::new, |id| format!(" (id {id})"));
    Some(format!("entry {} of `{list}`{id} cannot be read: {error}", index + 1))
}

/// Refuses polygons in shares of the sides, which would be drawn on the first pixel.
fn check_coordinates(file: &CocoFile, path: &Path) -> Result<(), ConvertError> {
    let segmentations = file.annotations.iter().filter_map(|one| one.segmentation.as_ref());
    let are_small = file.images.iter().all(|image| image.size() == Some([1, 1]));
    if are_shares(segmentations) != Some(true) || are_small {
        return Ok(());
    }
    let reason = "all coordinates of its polygons are from 0 to 1, which are shares of the sides, where \
                  COCO has pixels; multiply them by the width and the height of their images, or export \
                  them in pixels"
        .to_owned();
    Err(ConvertError::Content { path: path.into(), reason })
}

/// Leaves out the files of which a panoptic one has the images too, as in the official annotations,
/// where it holds things and stuff. Others that share images are refused.
fn one_file_per_image(
    source: AnnotationSource<'_>,
    files: Vec<(PathBuf, CocoFile)>,
    annotations: &mut Annotations,
) -> Result<Vec<(PathBuf, CocoFile)>, ConvertError> {
    let images = |(path, file): &(PathBuf, CocoFile)| -> HashMap<PathBuf, String> {
        let image = |image: &CocoImage| {
            let found = source.image(&image.file_name, path);
            let place =
                found.path().map_or_else(|| PathBuf::from(&image.file_name), Path::to_owned);
            (place, image.file_name.clone())
        };
        file.images.iter().map(image).collect()
    };
    let is_panoptic = |(_, file): &(PathBuf, CocoFile)| {
        file.annotations.iter().any(|annotation| annotation.segments_info.is_some())
    };
    let (mut kept, others): (Vec<_>, Vec<_>) = files.into_iter().partition(is_panoptic);
    let mut owners: HashMap<PathBuf, PathBuf> = HashMap::new();
    let panoptic: HashSet<PathBuf> =
        kept.iter().flat_map(&images).map(|(place, _)| place).collect();
    let mut left_out = Vec::new();
    for file in others {
        if images(&file).keys().any(|place| panoptic.contains(place)) {
            left_out.push(file.0.display().to_string());
        } else {
            kept.push(file);
        }
    }
    for file in &kept {
        for (place, name) in images(file) {
            if let Some(other) = owners.insert(place, file.0.clone()) {
                let reason = format!(
                    "the image `{name}` has annotations in {} too; convert one of the files",
                    other.display()
                );
                return Err(ConvertError::Content { path: file.0.clone(), reason });
            }
        }
    }
    kept.sort_by(|one, other| one.0.cmp(&other.0));
    annotations.note(left_out.len(), |_| {
        format!("panoptic masks have the same images as, and count before, {}", left_out.join(", "))
    });
    Ok(kept)
}

fn holds_masks(file: &Value) -> bool {
    let annotations = file.get("annotations").and_then(Value::as_array);
    annotations.into_iter().flatten().any(|annotation| {
        annotation.get("segments_info").is_some()
            || match annotation.get("segmentation") {
                Some(Value::Array(polygons)) => !polygons.is_empty(),
                other => other.is_some_and(Value::is_object),
            }
    })
}

/// Names of the categories with an annotation in any file.
fn used_categories(files: &[(PathBuf, CocoFile)]) -> HashSet<String> {
    let mut used = HashSet::new();
    for (_, file) in files {
        let names: HashMap<&CocoId, &String> =
            file.categories.iter().map(|category| (&category.id, &category.name)).collect();
        for annotation in &file.annotations {
            let segments = annotation.segments_info.iter().flatten();
            let ids = segments.map(|segment| &segment.category_id).chain(&annotation.category_id);
            used.extend(ids.filter_map(|id| names.get(id)).map(|name| (*name).clone()));
        }
    }
    used
}

/// Names of the files' lists: those of the files, or else of their folders, as Roboflow's
/// `train/_annotations.coco.json`.
fn list_names<'a>(paths: impl Iterator<Item = &'a PathBuf> + Clone) -> Vec<String> {
    let stem = |path: &PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for path in paths.clone() {
        *counts.entry(stem(path)).or_default() += 1;
    }
    let name = |path: &PathBuf| {
        let folder = path.parent().and_then(Path::file_name);
        match folder {
            Some(folder) if counts[&stem(path)] > 1 => folder.to_string_lossy().into_owned(),
            _ => stem(path),
        }
    };
    paths.map(name).collect()
}

fn add_file(
    source: AnnotationSource<'_>,
    path: &Path,
    file: CocoFile,
    used: &HashSet<String>,
    annotations: &mut Annotations,
    tally: &mut Tally,
) {
    let categories = add_categories(file.categories, used, annotations, tally);
    let mut by_id: HashMap<CocoId, usize> = HashMap::new();
    for image in file.images {
        let truth = Truth::Shapes { size: image.size(), shapes: Vec::new() };
        let CocoImage { id, file_name, .. } = image;
        by_id.insert(id, annotations.items.len());
        annotations.items.push(Item::find(source, &file_name, path, truth));
    }
    let panoptic = PanopticMasks::new(path);
    for annotation in file.annotations {
        let item = by_id.get(&annotation.image_id);
        let Some(item) = item.and_then(|&item| annotations.items.get_mut(item)) else {
            tally.strangers += 1;
            continue;
        };
        if let Err(reason) = add_annotation(item, &annotation, &categories, &panoptic, tally) {
            tally.shapes += 1;
            item.truth = Truth::Broken(reason);
        }
    }
}

/// Adds an annotation to its image; fails with the reason why that cannot be drawn.
fn add_annotation(
    item: &mut Item,
    annotation: &CocoAnnotation,
    categories: &HashMap<CocoId, u8>,
    panoptic: &PanopticMasks<'_>,
    tally: &mut Tally,
) -> Result<(), String> {
    let own_id = annotation.id.as_ref().map_or_else(String::new, |id| format!(" {}", id.0));
    let class = |id: &CocoId| {
        let class = categories.get(id).copied();
        class.ok_or_else(|| {
            let mut known: Vec<&str> = categories.keys().map(|id| id.0.as_str()).collect();
            known.sort_unstable_by_key(|id| (id.len(), *id));
            format!(
                "there is no category with the id {} of the annotation{own_id} of `{}`; the file has {}: \
                 correct its `category_id`, or add the category",
                id.0,
                item.name,
                known.join(", ")
            )
        })
    };
    if let (Some(segments), Some(name)) = (&annotation.segments_info, &annotation.file_name) {
        let mut known = HashMap::new();
        for Segment { id, category_id } in segments {
            known.insert(*id, class(category_id)?);
        }
        let path = panoptic.find(name).ok_or_else(|| {
            format!("the mask `{name}` is not beside the file or in a folder there")
        })?;
        tally.shapes += known.len();
        item.truth = Truth::Panoptic { path, segments: known };
        return Ok(());
    }
    let Truth::Shapes { size, shapes } = &mut item.truth else { return Ok(()) };
    let (area, short) = match &annotation.segmentation {
        Some(segmentation) => area(segmentation, size)
            .map_err(|reason| format!("the mask{own_id} of `{}` {reason}", item.name))?,
        None => (None, 0),
    };
    tally.short_polygons += short;
    match area {
        Some(area) => {
            let category = annotation.category_id.as_ref().ok_or_else(|| {
                format!("the annotation{own_id} of `{}` has no `category_id`", item.name)
            })?;
            shapes.push((class(category)?, area));
            tally.shapes += 1;
            tally.crowds += usize::from(is_true(&annotation.iscrowd));
        }
        None => match kind_without_area(annotation) {
            MaskKind::Box => tally.boxes += 1,
            MaskKind::Keypoints => tally.keypoints += 1,
            MaskKind::Empty => tally.empty += 1,
        },
    }
    Ok(())
}

/// Adds the categories; returns the class of each id.
fn add_categories(
    categories: Vec<SourceCategory>,
    used: &HashSet<String>,
    annotations: &mut Annotations,
    tally: &mut Tally,
) -> HashMap<CocoId, u8> {
    let parents: HashSet<String> = categories
        .iter()
        .filter(|category| category.supercategory.as_ref() != Some(&category.name))
        .filter_map(|category| category.supercategory.clone())
        .collect();
    let mut names = HashSet::new();
    let mut by_id = HashMap::new();
    for SourceCategory { id, name, color, .. } in categories {
        let quoted = format!("`{name}`");
        if parents.contains(&name) && !used.contains(&name) {
            if !tally.supercategories.contains(&quoted) {
                tally.supercategories.push(quoted);
            }
            continue;
        }
        if !names.insert(name.clone()) && !tally.shared_names.contains(&quoted) {
            tally.shared_names.push(quoted);
        }
        let class = annotations.class(&name);
        if let Some(known) = annotations.classes.get_mut(usize::from(class)) {
            *known = SourceClass { color: color.or(known.color), ..known.clone() };
        }
        by_id.insert(id, class);
    }
    by_id
}

fn is_true(value: &Value) -> bool {
    value.as_bool().unwrap_or(number(value).is_some_and(|number| number != 0.0))
}

/// Files of the masks of a panoptic JSON: anywhere beside it.
struct PanopticMasks<'a> {
    folder: &'a Path,
    /// Files in folders there, by their names.
    others: OnceCell<HashMap<OsString, Vec<PathBuf>>>,
}

impl<'a> PanopticMasks<'a> {
    fn new(json: &'a Path) -> Self {
        let folder = json.parent().filter(|folder| !folder.as_os_str().is_empty());
        Self { folder: folder.unwrap_or(Path::new(".")), others: OnceCell::new() }
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let beside = self.folder.join(name);
        if beside.is_file() {
            return Some(beside);
        }
        let others = self.others.get_or_init(|| {
            let mut others: HashMap<OsString, Vec<PathBuf>> = HashMap::new();
            for path in files(self.folder, &["images"]).unwrap_or_default() {
                let name = path.file_name().unwrap_or_default().to_owned();
                others.entry(name).or_default().push(path);
            }
            others
        });
        let same = others.get(Path::new(name).file_name()?)?;
        same.iter().find(|path| path.ends_with(name)).cloned()
    }
}
