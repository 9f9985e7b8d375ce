//! Images below some folders, found by the names that annotations give them.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use protoseg_models::errors::FileError;

use super::ConvertError;
use crate::dataset::is_image_path;

/// Folders that hold masks, not images.
const MASK_FOLDERS: [&str; 7] = [
    "labels",
    "masks",
    "SegmentationClass",
    "SegmentationClassAug",
    "SegmentationObject",
    "annotations",
    "panoptic",
];

/// Paths of images by the last part of their names without the extension.
#[derive(Debug)]
pub(super) struct ImageIndex {
    by_stem: HashMap<String, Vec<PathBuf>>,
    root: PathBuf,
}

impl ImageIndex {
    /// Lists the images below `images`, or else below the annotations.
    pub(super) fn new(input: &Path, images: Option<&Path>) -> Result<Self, ConvertError> {
        let root = images.unwrap_or(super::folder_of(input));
        let mut by_stem: HashMap<String, Vec<PathBuf>> = HashMap::new();
        let skip: &[&str] = if images.is_some() { &[] } else { &MASK_FOLDERS };
        for path in files(root, skip)? {
            if is_image_path(&path) {
                by_stem.entry(stem(&path)).or_default().push(path);
            }
        }
        Ok(Self { by_stem, root: root.into() })
    }

    /// Returns all images in order of their paths.
    pub(super) fn all(&self) -> Vec<&Path> {
        let mut all: Vec<&Path> = self.by_stem.values().flatten().map(PathBuf::as_path).collect();
        all.sort();
        all
    }

    /// Path of an image below its folder: below `images/` where there is one, or else below the root.
    pub(super) fn name(&self, image: &Path) -> String {
        let below = image.strip_prefix(&self.root).unwrap_or(image);
        let below = ["images", "JPEGImages"]
            .iter()
            .find_map(|folder| below.strip_prefix(folder).ok())
            .unwrap_or(below);
        below.to_string_lossy().replace('\\', "/")
    }

    /// Finds the image whose path ends with a name, with or without its extension; the folders of the
    /// name are left out one by one until an image matches.
    pub(super) fn find(&self, name: &str) -> Result<Option<&Path>, ConvertError> {
        let name = Path::new(name);
        let file = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // With the extension first: `a.b` may be a whole stem.
        let stems = [stem(name), file.clone()];
        for (stem, with_extension) in stems.iter().zip([true, false]) {
            let Some(found) = self.by_stem.get(stem) else { continue };
            let same: Vec<&PathBuf> = if with_extension {
                found
                    .iter()
                    .filter(|path| path.file_name().is_some_and(|own| *own == *file))
                    .collect()
            } else {
                Vec::new()
            };
            let candidates = if same.is_empty() { found.iter().collect() } else { same };
            return best(name, &candidates);
        }
        Ok(None)
    }
}

/// The candidate that shares the most folders with the name.
fn best<'a>(name: &Path, candidates: &[&'a PathBuf]) -> Result<Option<&'a Path>, ConvertError> {
    let folders: Vec<Component<'_>> =
        name.parent().map(|parent| parent.components().rev().collect()).unwrap_or_default();
    let shared = |path: &Path| {
        let own = path.parent().into_iter().flat_map(|parent| parent.components().rev());
        own.zip(&folders).take_while(|(own, wanted)| own == *wanted).count()
    };
    let most = candidates.iter().map(|path| shared(path)).max();
    let mut found = candidates.iter().filter(|path| Some(shared(path)) == most);
    match (found.next(), found.next()) {
        (Some(first), Some(second)) => Err(ConvertError::AmbiguousImage {
            name: name.display().to_string(),
            first: first.to_path_buf(),
            second: second.to_path_buf(),
        }),
        (first, _) => Ok(first.map(|path| path.as_path())),
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// All files below a folder, sorted, but those in folders of some names.
pub(super) fn files(root: &Path, skip: &[&str]) -> Result<Vec<PathBuf>, ConvertError> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let at_folder = FileError::at(&folder);
        for entry in std::fs::read_dir(&folder).map_err(&at_folder)? {
            let entry = entry.map_err(&at_folder)?;
            let name = entry.file_name();
            // Left by desktops and archivers.
            if name.as_encoded_bytes().starts_with(b".") || name == "__MACOSX" {
                continue;
            }
            // Links to folders are not followed, which might lead in circles.
            if entry.file_type().map_err(&at_folder)?.is_dir() {
                if !skip.iter().any(|skipped| name == *skipped) {
                    folders.push(entry.path());
                }
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}
