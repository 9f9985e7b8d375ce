//! The folders of images and of label maps of a data set of one's own, by their usual names in any case.

use std::fs::DirEntry;
use std::path::{Component, Path, PathBuf};

use super::DatasetError;
use super::label_file::is_mask_path;
use crate::list::folded;
use crate::scan::{is_by_product, is_image_path};

/// Usual folders of images.
pub(super) const OF_IMAGES: [&str; 8] =
    ["image", "images", "img", "imgs", "jpegimages", "leftimg8bit", "photo", "photos"];
/// Usual folders of labels.
pub(super) const OF_LABELS: [&str; 13] = [
    "annotation",
    "annotations",
    "ground_truth",
    "groundtruth",
    "gt",
    "gtfine",
    "label",
    "labels",
    "mask",
    "masks",
    "segmentation",
    "segmentationclass",
    "segmentationclassaug",
];
/// The names that are meant where there are several.
const IMAGES: &str = "images";
const LABELS: &str = "labels";
/// Folders below a folder of images or label maps that are looked into.
const DEPTH: usize = 4;
/// Names of folders and lists that a message shows.
const SHOWN: usize = 12;

/// Names of the folder of images and of that of label maps in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FolderLayout {
    pub(crate) images: PathBuf,
    pub(crate) labels: PathBuf,
}

impl FolderLayout {
    /// Finds both in a folder: `images` and `labels`, or else the only one of a usual name. Names
    /// that are not there stay the usual ones.
    pub(crate) fn find(folder: &Path) -> Result<Self, DatasetError> {
        let images = choose(folder, IMAGES, &OF_IMAGES, is_image_path)?;
        let labels = choose(folder, LABELS, &OF_LABELS, is_mask_path)?;
        Ok(Self { images, labels })
    }

    /// Finds both if both are there.
    pub(crate) fn both(folder: &Path) -> Option<Self> {
        let layout = Self::find(folder).ok()?;
        let is_there = |name: &Path| folder.join(name).is_dir();
        (is_there(&layout.images) && is_there(&layout.labels)).then_some(layout)
    }

    /// Says which folders are read under other names than the usual ones.
    pub(super) fn remark(&self) -> Option<String> {
        let other = |name: &Path, usual: &str| {
            (name != Path::new(usual))
                .then(|| format!("the folder {} as `{usual}`", name.display()))
        };
        let read: Vec<String> =
            other(&self.images, IMAGES).into_iter().chain(other(&self.labels, LABELS)).collect();
        (!read.is_empty()).then(|| format!("read are {}", read.join(" and ")))
    }
}

/// True for a usual name of a folder of images.
#[cfg(feature = "annotations")]
pub(crate) fn is_image_folder(name: &str) -> bool {
    OF_IMAGES.contains(&name.to_lowercase().as_str())
}

/// The folder of the usual name, or the only one of another usual name; of several the one that holds
/// wanted files.
fn choose(
    folder: &Path,
    usual: &str,
    known: &[&str],
    is_wanted: fn(&Path) -> bool,
) -> Result<PathBuf, DatasetError> {
    if folder.join(usual).is_dir() {
        return Ok(usual.into());
    }
    let is_known = |path: &PathBuf| {
        let name = path.file_name().and_then(folded);
        name.is_some_and(|name| known.contains(&name.as_str()))
    };
    let mut found = folders(folder);
    found.retain(is_known);
    let filled: Vec<PathBuf> =
        found.iter().filter(|path| holds(path, is_wanted, DEPTH)).cloned().collect();
    let found = if filled.is_empty() { found } else { filled };
    match &found[..] {
        [] => Ok(usual.into()),
        [only] => Ok(only.file_name().map_or_else(|| usual.into(), PathBuf::from)),
        [first, second, ..] => {
            let (first, second, usual) = (first.clone(), second.clone(), usual.to_owned());
            Err(DatasetError::SeveralFolders { first, second, usual })
        }
    }
}

/// Sorted paths of the folders in a folder, without those that systems leave behind.
pub(crate) fn folders(folder: &Path) -> Vec<PathBuf> {
    entries(folder).into_iter().filter(|(_, is_folder)| *is_folder).map(|(path, _)| path).collect()
}

/// Sorted paths of the entries, each with true for folders and links to such.
fn entries(folder: &Path) -> Vec<(PathBuf, bool)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    // The kind comes with the listing: large folders are not asked file by file.
    let is_folder = |entry: &DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_symlink() => entry.path().is_dir(),
        kind => kind.is_ok_and(|kind| kind.is_dir()),
    };
    let mut paths: Vec<(PathBuf, bool)> = entries
        .filter(|entry| !is_by_product(&entry.file_name()))
        .map(|entry| (entry.path(), is_folder(&entry)))
        .collect();
    paths.sort();
    paths
}

fn holds(folder: &Path, is_wanted: fn(&Path) -> bool, depth: usize) -> bool {
    let entries = entries(folder);
    entries.iter().any(|(path, is_folder)| !is_folder && is_wanted(path))
        || depth > 0
            && entries
                .iter()
                .any(|(path, is_folder)| *is_folder && holds(path, is_wanted, depth - 1))
}

/// Parts a path at the first folder of a usual name: what stands before it, its name, and the rest.
pub(super) fn part_at(path: &Path, known: &[&str]) -> Option<(PathBuf, PathBuf, PathBuf)> {
    let parts: Vec<Component<'_>> = path.components().collect();
    let is_known = |part: &Component<'_>| {
        folded(part.as_os_str()).is_some_and(|name| known.contains(&name.as_str()))
    };
    let at = parts.iter().take(parts.len().saturating_sub(1)).position(is_known)?;
    let name = PathBuf::from(parts[at].as_os_str());
    Some((parts[..at].iter().collect(), name, parts[at + 1..].iter().collect()))
}

/// Names the folders and lists in a folder, such as `the folders a, b and the list c.txt`.
pub(super) fn seen(folder: &Path) -> String {
    let entries = entries(folder);
    let is_list = |path: &Path| {
        let ending = path.extension().unwrap_or_default();
        ["txt", "csv", "tsv", "jsonl", "lst"].iter().any(|known| ending == *known)
    };
    let group = |word: &str, is_wanted: &dyn Fn(&Path, bool) -> bool| {
        let wanted = entries.iter().filter(|(path, is_folder)| is_wanted(path, *is_folder));
        let name =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let names: Vec<String> = wanted.map(|(path, _)| name(path)).collect();
        let more = names.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let plural = if names.len() == 1 { "" } else { "s" };
        let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        (!names.is_empty()).then(|| format!("the {word}{plural} {shown}{more}"))
    };
    let folders = group("folder", &|_, is_folder| is_folder);
    let lists = group("list", &|path, is_folder| !is_folder && is_list(path));
    let parts: Vec<String> = folders.into_iter().chain(lists).collect();
    if parts.is_empty() { "no folder and no list".to_owned() } else { parts.join(" and ") }
}
