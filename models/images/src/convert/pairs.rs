//! Folders of images and of label maps: where either lies, and which belong together.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::ConvertError;
use super::detect::{AnnotationSource, mask_folder};
use super::image_index::files;
use crate::dataset::is_image_path;
use crate::dataset::label_file::is_mask_path;
use crate::dataset::layout::{FolderLayout, folders};
use crate::pairing::{NamePattern, PairedMask, Pairing, stem};

/// Roboflow's list of classes, in each folder of a split.
pub(super) const ROBOFLOW_CLASSES: &str = "_classes.csv";
/// Names of folders that tell splits apart, and no classes.
const SPLITS: [&str; 9] =
    ["train", "training", "val", "valid", "validation", "test", "testing", "eval", "all"];
/// Words behind the name of a split for its folder of masks, such as `train_labels`.
const MASK_FOLDERS: [&str; 6] = ["labels", "label", "masks", "mask", "annotations", "gt"];
/// Masks that a note names.
const NAMED: usize = 3;

/// Images and masks of one folder.
#[derive(Debug, Default)]
pub(super) struct PairedFolder {
    /// The name of the split, where there are several.
    pub(super) list: Option<String>,
    pub(super) pairs: Vec<MaskPair>,
    /// Images without a mask, by their names.
    pub(super) bare: Vec<(String, PathBuf)>,
    pub(super) notes: Vec<String>,
    /// True if all masks add one part to the names of images.
    pub(super) has_pattern: bool,
    /// True if masks are those of images by their places, and not by classes.
    is_sure: bool,
}

/// An image with its mask, or the two that could be it.
#[derive(Debug)]
pub(super) struct MaskPair {
    pub(super) name: String,
    pub(super) image: PathBuf,
    pub(super) mask: Result<PathBuf, [PathBuf; 2]>,
}

/// A folder before its files are paired.
struct UnpairedFolder {
    list: Option<String>,
    /// Images by their names in the data set.
    images: Vec<(String, PathBuf)>,
    masks: Vec<PathBuf>,
    /// Folder of the masks.
    root: PathBuf,
    /// What masks add to names, where it is known.
    pattern: Option<NamePattern>,
}

/// Pairs the images of a folder with label maps; true where these are not a mask for each class.
pub(super) fn find(
    source: AnnotationSource<'_>,
) -> Result<(Vec<PairedFolder>, bool), ConvertError> {
    let classes: Vec<&str> = source.class_names().collect();
    let found = unpaired(source)?.into_iter().map(|folder| folder.pair(&classes));
    let found: Vec<PairedFolder> = found.collect();
    let is_sure = found.iter().any(|folder| folder.is_sure);
    Ok((found, is_sure))
}

/// Pairs the images and masks beside each list of classes of Roboflow.
pub(super) fn roboflow(input: &Path) -> Result<Vec<(PathBuf, PairedFolder)>, ConvertError> {
    let lists = files(input, &[])?;
    let lists = lists
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name == ROBOFLOW_CLASSES));
    let mut found = Vec::new();
    for list in lists {
        let root = list.parent().unwrap_or(input).to_owned();
        let below = root.strip_prefix(input).unwrap_or(&root);
        let name = |path: &Path| path.strip_prefix(input).unwrap_or(path).display().to_string();
        let all = files(&root, &[])?.into_iter().filter(|path| is_image_path(path));
        let is_mask = |path: &PathBuf| stem(path).ends_with("_mask") && is_mask_path(path);
        let (masks, images): (Vec<PathBuf>, Vec<PathBuf>) = all.partition(is_mask);
        let images = images.into_iter().map(|path| (name(&path), path)).collect();
        let split = (!below.as_os_str().is_empty()).then(|| name(&root).replace('/', "-"));
        let pattern = Some(NamePattern::with_suffix("_mask"));
        let folder = UnpairedFolder { list: split, images, masks, root, pattern };
        found.push((list, folder.pair(&[])));
    }
    Ok(found)
}

fn unpaired(source: AnnotationSource<'_>) -> Result<Vec<UnpairedFolder>, ConvertError> {
    let AnnotationSource { input, options, index, .. } = source;
    let root = mask_folder(input);
    let all = || index.all().into_iter().map(|image| (index.name(image), image.to_owned()));
    let is_apart = options.images.is_some() || index.has_folder() || root != input;
    if is_apart {
        let (images, masks) = (all().collect(), source.masks()?);
        return Ok(vec![UnpairedFolder { list: None, images, masks, root, pattern: None }]);
    }
    let splits = splits(input)?;
    if !splits.is_empty() {
        return Ok(splits);
    }
    let names = |name: &str| Path::new(name).with_extension("").to_string_lossy().into_owned();
    let all: Vec<(String, PathBuf)> = all().collect();
    let stems: Vec<String> = all.iter().map(|(name, _)| names(name)).collect();
    let known: HashSet<&str> = stems.iter().map(String::as_str).collect();
    let Some(pattern) = NamePattern::beside(&known) else { return Ok(same_stems(all, root)) };
    let (mut images, mut masks) = (Vec::new(), Vec::new());
    for ((name, path), stem) in all.into_iter().zip(&stems) {
        if pattern.of_mask(stem).is_some_and(|shared| known.contains(&*pattern.image_name(shared)))
        {
            masks.push(path);
        } else {
            images.push((name, path));
        }
    }
    Ok(vec![UnpairedFolder { list: None, images, masks, root, pattern: Some(pattern) }])
}

/// Folders of splits, each with folders of images and label maps in it, or with one of label maps
/// beside it.
fn splits(input: &Path) -> Result<Vec<UnpairedFolder>, ConvertError> {
    let mut found = Vec::new();
    for folder in folders(input) {
        let split = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let beside = || {
            let masks = MASK_FOLDERS.map(|word| folder.with_file_name(format!("{split}_{word}")));
            Some((folder.clone(), masks.into_iter().find(|masks| masks.is_dir())?))
        };
        let inside = FolderLayout::both(&folder)
            .map(|layout| (folder.join(&layout.images), folder.join(&layout.labels)));
        let Some((place, root)) = inside.or_else(beside) else { continue };
        let images = files(&place, &[])?.into_iter().filter(|path| is_image_path(path));
        let name = |path: PathBuf| {
            let below = path.strip_prefix(&place).unwrap_or(&path);
            (format!("{split}/{}", below.display()), path)
        };
        let images = images.map(name).collect();
        let masks = files(&root, &[])?.into_iter().filter(|path| is_image_path(path)).collect();
        found.push(UnpairedFolder { list: Some(split), images, masks, root, pattern: None });
    }
    Ok(found)
}

/// Images and masks of the same names in one folder, which their endings tell apart: masks have one
/// that holds ids, and images one that does not.
fn same_stems(all: Vec<(String, PathBuf)>, root: PathBuf) -> Vec<UnpairedFolder> {
    let mut by_stem: BTreeMap<PathBuf, [usize; 2]> = BTreeMap::new();
    for (name, path) in &all {
        let count = by_stem.entry(Path::new(name).with_extension("")).or_default();
        count[usize::from(is_mask_path(path))] += 1;
    }
    let pairs = by_stem.values().filter(|count| **count == [1, 1]).count();
    if pairs == 0 || by_stem.values().any(|[_, masks]| *masks > 1) {
        return Vec::new();
    }
    let (masks, images): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(_, path)| is_mask_path(path));
    let masks = masks.into_iter().map(|(_, path)| path).collect();
    vec![UnpairedFolder { list: None, images, masks, root, pattern: None }]
}

impl UnpairedFolder {
    fn pair(self, classes: &[&str]) -> PairedFolder {
        let Self { list, images, masks, root, pattern } = self;
        // Images of a split have its name before theirs.
        let split = list.as_ref().map(|list| format!("{list}/"));
        let below_split = |name: &str| {
            let below = split.as_deref().and_then(|split| name.strip_prefix(split));
            PathBuf::from(below.unwrap_or(name))
        };
        let names: Vec<PathBuf> = images.iter().map(|(name, _)| below_split(name)).collect();
        let below = |path: &PathBuf| path.strip_prefix(&root).unwrap_or(path).to_owned();
        let below: Vec<PathBuf> = masks.iter().map(below).collect();
        let pairing = match pattern {
            Some(_) => Pairing::with_pattern(names.clone(), below, pattern),
            None => Pairing::new(names.clone(), below, classes),
        };
        let mut found = PairedFolder { list, ..PairedFolder::default() };
        found.has_pattern = pairing.pattern().is_some();
        found.notes.extend(pairing.pattern().map(ToString::to_string));
        let mut used: HashSet<PathBuf> = HashSet::new();
        let (mut elsewhere, mut other_case) = (Vec::new(), Vec::new());
        for ((name, image), below) in images.into_iter().zip(names) {
            let mask = match pairing.mask(&below) {
                PairedMask::Missing => {
                    found.bare.push((name, image));
                    continue;
                }
                PairedMask::Several(first, second) => Err([first, second]),
                PairedMask::InPlace(mask) => {
                    found.is_sure = true;
                    Ok(mask)
                }
                PairedMask::OtherCase(mask) => {
                    found.is_sure = true;
                    other_case.push((name.clone(), mask.clone()));
                    Ok(mask)
                }
                PairedMask::Elsewhere(mask) => {
                    found.is_sure |= is_in_split(&mask);
                    elsewhere.push((name.clone(), mask.clone()));
                    Ok(mask)
                }
            };
            let mask = match mask {
                Ok(mask) => Ok(root.join(mask)),
                Err(both) => Err(both.map(|mask| root.join(mask))),
            };
            match &mask {
                Ok(mask) => drop(used.insert(mask.clone())),
                Err(both) => used.extend(both.iter().cloned()),
            }
            found.pairs.push(MaskPair { name, image, mask });
        }
        found.note(&elsewhere, |count, image, mask| {
            format!(
                "{count} have their label maps in another folder, such as {image} with {mask}: each is the \
                 only one of its name"
            )
        });
        found.note(&other_case, |count, image, mask| {
            format!(
                "{count} have label maps in other upper and lower case, such as {image} with {mask}"
            )
        });
        let strays: Vec<&PathBuf> = masks.iter().filter(|mask| !used.contains(*mask)).collect();
        found.notes.extend(strays_note(&strays, masks.len()));
        found
    }
}

impl PairedFolder {
    fn note(
        &mut self,
        pairs: &[(String, PathBuf)],
        text: impl FnOnce(String, &str, std::path::Display<'_>) -> String,
    ) {
        let Some((image, mask)) = pairs.first() else { return };
        let count = match pairs.len() {
            1 => "1 image".to_owned(),
            count => format!("{count} images"),
        };
        self.notes.push(text(count, image, mask.display()).replacen(
            "1 image have",
            "1 image has",
            1,
        ));
    }
}

fn strays_note(strays: &[&PathBuf], masks: usize) -> Option<String> {
    let named: Vec<String> =
        strays.iter().take(NAMED).map(|path| path.display().to_string()).collect();
    let (have, are) = if strays.len() == 1 { ("has", "is") } else { ("have", "are") };
    (!strays.is_empty()).then(|| {
        format!(
            "{} of {masks} files among the masks {have} no image and {are} left out, such as {}",
            strays.len(),
            named.join(", ")
        )
    })
}

/// True for a mask in no folder, or in those of splits.
fn is_in_split(mask: &Path) -> bool {
    let folder = mask.parent().unwrap_or(Path::new(""));
    folder.components().all(|part| {
        let name = part.as_os_str().to_string_lossy().to_lowercase();
        SPLITS.contains(&name.as_str())
    })
}
