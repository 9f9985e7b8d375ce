//! Names of splits: the list or the folder of images that a name means where no file has it.

use std::path::{Path, PathBuf};

use super::layout::{self, FolderLayout};
use super::{Dataset, DatasetError};
use crate::list::folded;

/// Names of one split.
const ALIKE: [&[&str]; 3] =
    [&["train", "training"], &["val", "valid", "validation"], &["test", "testing"]];
/// Endings of lists, the usual one first.
const ENDINGS: [&str; 4] = ["txt", "csv", "tsv", "jsonl"];

/// Returns the list or folder that is read for a name, which is not there as it stands, with a remark.
pub(super) fn find(
    dataset: Dataset,
    root: &Path,
    named: &Path,
) -> Result<(PathBuf, String), DatasetError> {
    let missing = || {
        let way = match dataset {
            Dataset::Folder => {
                "; name one of them, or a folder of images such as images/train, or write a list with \
                 an image a line"
            }
            _ => "",
        };
        let place = named.parent().filter(|place| place.starts_with(root) && place.is_dir());
        let place = place.unwrap_or(root);
        let seen = format!("{}{way}", layout::seen(place));
        DatasetError::NoList { path: named.into(), root: place.into(), seen }
    };
    let below = named.strip_prefix(root).unwrap_or(named);
    let name = below.file_name().and_then(folded).ok_or_else(missing)?;
    if below.is_absolute() {
        return Err(missing());
    }
    let is_list = |ending: &std::ffi::OsStr| ENDINGS.iter().any(|known| ending == *known);
    let stem = match below.extension() {
        Some(ending) if is_list(ending) => below.file_stem().and_then(folded),
        _ => Some(name.clone()),
    };
    let stem = stem.ok_or_else(missing)?;
    let alike = ALIKE.into_iter().find(|names| names.contains(&stem.as_str()));
    // Its own name comes first.
    let stems: Vec<&str> = std::iter::once(stem.as_str())
        .chain(alike.into_iter().flatten().copied().filter(|other| *other != stem))
        .collect();
    let folder = below.parent().unwrap_or(Path::new(""));
    for place in places(dataset, root, folder)? {
        let Some(found) = in_folder(&root.join(&place), &name, &stems) else { continue };
        let remark = format!("{} is not there, and {} is read", named.display(), found.display());
        return Ok((found, remark));
    }
    Err(missing())
}

/// Folders below the root in which a split is looked for.
fn places(dataset: Dataset, root: &Path, folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let mut places = vec![folder.to_owned()];
    if folder.as_os_str().is_empty() {
        match dataset {
            Dataset::Folder => {
                places.push(FolderLayout::find(root)?.images);
                places.extend(["splits", "lists"].map(PathBuf::from));
            }
            Dataset::Voc => places.push("ImageSets/Segmentation".into()),
            Dataset::Cityscapes => places.push("leftImg8bit".into()),
            Dataset::Camvid => {}
        }
    }
    Ok(places)
}

/// The entry of a name, or the list or folder of a stem, in any case; a list before a folder.
fn in_folder(folder: &Path, name: &str, stems: &[&str]) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let mut entries: Vec<(String, PathBuf)> =
        entries.filter_map(|entry| Some((folded(&entry.file_name())?, entry.path()))).collect();
    entries.sort();
    let named = |wanted: &str, is_kind: fn(&Path) -> bool| {
        let mut found = entries.iter().filter(|(name, path)| name == wanted && is_kind(path));
        // Of names that differ in their case alone, none is meant.
        found.next().filter(|_| found.next().is_none()).map(|(_, path)| path.clone())
    };
    let own = named(name, Path::is_file);
    own.or_else(|| {
        stems.iter().find_map(|stem| {
            let list =
                ENDINGS.iter().find_map(|ending| named(&format!("{stem}.{ending}"), Path::is_file));
            list.or_else(|| named(stem, Path::is_dir))
        })
    })
}
