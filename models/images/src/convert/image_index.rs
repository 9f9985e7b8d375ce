//! Images below some folders, found by the names that annotations give them.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use protoseg_models::errors::FileError;
use unicode_normalization::UnicodeNormalization;

use super::ConvertError;
use super::detect::mask_folder;
use crate::dataset::is_image_path;
use crate::dataset::layout::FolderLayout;
use crate::scan::is_by_product;

/// Folders that hold masks, not images.
const MASK_FOLDERS: [&str; 14] = [
    "labels",
    "masks",
    "masks_human",
    "masks_instances",
    "masks_machine",
    "SegmentationClass",
    "SegmentationClassAug",
    "SegmentationClassPNG",
    "SegmentationClassVisualization",
    "SegmentationObject",
    "SegmentationObjectPNG",
    "SegmentationObjectVisualization",
    "annotations",
    "panoptic",
];
/// Folders of nothing but images.
pub(super) const IMAGE_FOLDERS: [&str; 2] = ["images", "JPEGImages"];

/// The image of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FoundImage {
    At(PathBuf),
    Missing,
    /// Several that the name does not tell apart.
    Ambiguous(PathBuf, PathBuf),
    /// One that two names mean.
    Shared {
        path: PathBuf,
        first: String,
        second: String,
    },
}

impl FoundImage {
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::At(path) => Some(path),
            Self::Missing | Self::Ambiguous(..) | Self::Shared { .. } => None,
        }
    }
}

/// Paths of images by their names.
#[derive(Debug)]
pub(super) struct ImageIndex {
    root: PathBuf,
    /// The folder of images below the root, if there is one.
    folder: Option<PathBuf>,
    /// By path below the root, and below the folder of images, with and without the extension.
    by_name: HashMap<String, Vec<PathBuf>>,
    /// By the last part of the name without the extension.
    by_stem: HashMap<String, Vec<PathBuf>>,
}

impl ImageIndex {
    /// Lists the images below `images`, or else below the annotations.
    pub(super) fn new(input: &Path, images: Option<&Path>) -> Result<Self, ConvertError> {
        let root = images.unwrap_or(super::folder_of(input)).to_owned();
        let usual = IMAGE_FOLDERS.map(|name| root.join(name));
        let usual = usual.into_iter().find(|folder| folder.is_dir());
        let other = || {
            let layout = FolderLayout::find(&root).ok().filter(|_| images.is_none())?;
            Some(root.join(layout.images)).filter(|folder| folder.is_dir())
        };
        let folder = usual.or_else(other);
        let mut index = Self { root, folder, by_name: HashMap::new(), by_stem: HashMap::new() };
        let skip: &[&str] = if images.is_some() { &[] } else { &MASK_FOLDERS };
        let masks = mask_folder(&index.root);
        let masks = (images.is_none() && masks != index.root).then_some(masks);
        let is_mask = |path: &Path| masks.as_ref().is_some_and(|masks| path.starts_with(masks));
        for path in files(&index.root, skip)? {
            if is_image_path(&path) && !is_mask(&path) {
                index.add(path);
            }
        }
        Ok(index)
    }

    /// Returns true if the images lie in a folder of nothing but images.
    pub(super) fn has_folder(&self) -> bool {
        self.folder.is_some()
    }

    fn add(&mut self, path: PathBuf) {
        let below = path.strip_prefix(&self.root).unwrap_or(&path).to_owned();
        let name = PathBuf::from(self.name(&path));
        let mut keys = HashSet::new();
        for name in [&below, &name] {
            keys.extend([key(name), key(&name.with_extension(""))]);
        }
        for key in keys {
            self.by_name.entry(key).or_default().push(path.clone());
        }
        self.by_stem.entry(stem(&path)).or_default().push(path);
    }

    /// Returns all images in order of their paths: those in the folder of images, if there is one.
    pub(super) fn all(&self) -> Vec<&Path> {
        let mut all: Vec<&Path> = self.by_stem.values().flatten().map(PathBuf::as_path).collect();
        all.sort();
        if let Some(folder) = &self.folder {
            all.retain(|path| path.starts_with(folder));
        }
        all
    }

    /// Path of an image below its folder: below that of images where there is one, or else the root.
    pub(super) fn name(&self, image: &Path) -> String {
        let below = image.strip_prefix(&self.root).unwrap_or(image);
        let below = IMAGE_FOLDERS
            .iter()
            .find_map(|folder| below.strip_prefix(folder).ok())
            .or_else(|| image.strip_prefix(self.folder.as_ref()?).ok())
            .unwrap_or(below);
        below.to_string_lossy().into_owned()
    }

    /// Finds the image of a name, with or without its extension. `beside` is the folder of the
    /// annotations: a path below that comes first, then one below the root or the folder of images,
    /// then the image whose path ends with most of the name.
    pub(super) fn find(&self, name: &str, beside: Option<&Path>) -> FoundImage {
        let found = self.find_path(Path::new(name), beside);
        if found == FoundImage::Missing && name.contains('\\') {
            // Written on Windows.
            return self.find_path(Path::new(&name.replace('\\', "/")), beside);
        }
        found
    }

    fn find_path(&self, name: &Path, beside: Option<&Path>) -> FoundImage {
        let plain: PathBuf =
            name.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        let below = beside.and_then(|beside| beside.strip_prefix(&self.root).ok());
        for name in below.map(|below| below.join(&plain)).iter().chain([&plain]) {
            let Some(found) = self.by_name.get(&key(name)) else { continue };
            if let Some(found) = self.exact(name, found) {
                return FoundImage::At(found.to_owned());
            }
        }
        let file = plain.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // With the extension first: `a.b` may be a whole stem.
        for (stem, with_extension) in [(stem(&plain), true), (nfc(&file), false)] {
            let Some(found) = self.by_stem.get(&stem) else { continue };
            let is_same = |path: &&PathBuf| {
                with_extension
                    && path.file_name().is_some_and(|own| nfc(&own.to_string_lossy()) == nfc(&file))
            };
            let same: Vec<&PathBuf> = found.iter().filter(is_same).collect();
            let candidates = if same.is_empty() { found.iter().collect() } else { same };
            return best(&plain, &candidates);
        }
        FoundImage::Missing
    }

    /// Returns true if a name is the whole path of an image, below the root or the folder of images.
    pub(super) fn is_path_of(&self, name: &str, image: &Path) -> bool {
        let below = image.strip_prefix(&self.root).unwrap_or(image);
        nfc(name) == nfc(&self.name(image)) || nfc(name) == key(below)
    }

    /// Another image with the file name of one.
    pub(super) fn twin(&self, image: &Path) -> Option<PathBuf> {
        let same = self.by_stem.get(&stem(image))?;
        let is_twin = |path: &&PathBuf| *path != image && path.file_name() == image.file_name();
        same.iter().find(is_twin).cloned()
    }

    /// The one of some images whose whole path a name gives.
    fn exact<'a>(&self, name: &Path, found: &'a [PathBuf]) -> Option<&'a Path> {
        if let [only] = found {
            return Some(only);
        }
        // The name of `a.png` is that of `images/a.png` too.
        let mut whole = found.iter().filter(|path| {
            path.strip_prefix(&self.root).is_ok_and(|below| key(below) == key(name))
        });
        match (whole.next(), whole.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        }
    }
}

/// The candidate that shares the most folders with the name.
fn best(name: &Path, candidates: &[&PathBuf]) -> FoundImage {
    let folders: Vec<Component<'_>> =
        name.parent().map(|parent| parent.components().rev().collect()).unwrap_or_default();
    let shared = |path: &Path| {
        let own = path.parent().into_iter().flat_map(|parent| parent.components().rev());
        own.zip(&folders).take_while(|(own, wanted)| own == *wanted).count()
    };
    let most = candidates.iter().map(|path| shared(path)).max();
    let mut found = candidates.iter().filter(|path| Some(shared(path)) == most);
    match (found.next(), found.next()) {
        (Some(first), Some(second)) => {
            FoundImage::Ambiguous(first.to_path_buf(), second.to_path_buf())
        }
        (Some(only), None) => FoundImage::At(only.to_path_buf()),
        (None, _) => FoundImage::Missing,
    }
}

/// Names are the same in either Unicode form.
fn nfc(text: &str) -> String {
    text.nfc().collect()
}

fn key(name: &Path) -> String {
    nfc(&name.to_string_lossy())
}

fn stem(path: &Path) -> String {
    nfc(&path.file_stem().unwrap_or_default().to_string_lossy())
}

/// All files below a folder, sorted, but those in folders of some names, hidden ones, and what systems
/// leave behind. Links are followed, each folder is entered once.
pub(super) fn files(root: &Path, skip: &[&str]) -> Result<Vec<PathBuf>, ConvertError> {
    let mut found = Vec::new();
    let mut entered: HashSet<PathBuf> = root.canonicalize().into_iter().collect();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let at_folder = FileError::at(&folder);
        for entry in std::fs::read_dir(&folder).map_err(&at_folder)? {
            let entry = entry.map_err(&at_folder)?;
            let (name, path) = (entry.file_name(), entry.path());
            if is_by_product(&name) {
                continue;
            }
            let kind = entry.file_type().map_err(&at_folder)?;
            let is_folder = kind.is_dir() || kind.is_symlink() && path.is_dir();
            if !is_folder {
                found.push(path);
                continue;
            }
            let is_new = path.canonicalize().is_ok_and(|canonical| entered.insert(canonical));
            if is_new && !skip.iter().any(|skipped| name == *skipped) {
                folders.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
