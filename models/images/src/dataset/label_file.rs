//! Label and class files under other names and endings than the usual ones.

use std::path::{Path, PathBuf};

use protoseg_models::classes::ClassFile;

use super::{DatasetError, read};
use crate::label_mapping::CVAT_LEGEND;

/// Endings of masks that can be read.
const READ: [&str; 4] = ["png", "tif", "tiff", "webp"];
/// Endings of files that are masks, but cannot be read.
const REFUSED: [(&str, &str); 5] = [
    ("jpg", "JPEG cannot hold ids: it changes the samples"),
    ("jpeg", "JPEG cannot hold ids: it changes the samples"),
    ("bmp", "BMP is not read"),
    ("gif", "GIF is not read"),
    ("npy", "arrays of numpy are not read"),
];

/// True for the endings of masks that can be read.
pub(super) fn is_mask_path(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
    READ.iter().any(|known| ending == *known)
}

/// Returns the path of a label, under its own or another ending; fails with what lies in its place.
pub(super) fn find(path: PathBuf, list: &Path) -> Result<PathBuf, DatasetError> {
    if path.is_file() {
        return Ok(path);
    }
    // Folders are listed for messages and for endings in capitals only.
    let other = READ.iter().map(|ending| path.with_extension(ending)).find(|path| path.is_file());
    if let Some(other) = other {
        return Ok(other);
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    names.sort();
    let same: Vec<&PathBuf> =
        names.iter().filter(|name| name.file_stem() == path.file_stem()).collect();
    let ending = |name: &Path| name.extension().unwrap_or_default().to_ascii_lowercase();
    for known in READ {
        if let Some(name) = same.iter().find(|name| ending(name) == *known && name.is_file()) {
            return Ok(name.to_path_buf());
        }
    }
    let refused = same.iter().find_map(|name| {
        let (_, reason) = REFUSED.iter().find(|(known, _)| ending(name) == *known)?;
        let way = if reason.starts_with("JPEG") {
            "save the masks as PNG, or make masks of two classes again with `protoseg convert \
             --threshold`"
        } else {
            "save the masks as PNG"
        };
        Some(format!("; {} is there, but {reason}; {way}", name.display()))
    });
    let hint = refused.or_else(|| alike(&path, &names)).or_else(|| elsewhere(&path));
    let hint = hint.unwrap_or_default();
    Err(DatasetError::MissingLabel { path, list: list.into(), hint })
}

/// Names a folder of labels of another name beside a missing `labels`.
fn elsewhere(path: &Path) -> Option<String> {
    let labels = path.ancestors().find(|folder| folder.file_name() == Some("labels".as_ref()))?;
    if labels.exists() {
        return None;
    }
    let entries = labels.parent()?.read_dir().ok()?.filter_map(Result::ok);
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    entries.sort();
    let is_alike = |entry: &&PathBuf| {
        let lower = entry.file_name().unwrap_or_default().to_ascii_lowercase();
        super::listed::OF_LABELS.iter().any(|known| lower == *known) && entry.is_dir()
    };
    let found = entries.iter().find(is_alike)?;
    Some(format!(
        "; {} is there: rename it to labels, or name the labels in the second column of a list",
        found.display()
    ))
}

/// Names files in the folder of a missing label.
fn alike(path: &Path, names: &[PathBuf]) -> Option<String> {
    let stem = path.file_stem()?.to_string_lossy();
    let text = |name: &Path| name.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let holds = |name: &&PathBuf| text(name).contains(&*stem) && stem.chars().count() > 1;
    if let Some(found) = names.iter().find(holds) {
        return Some(format!(
            "; {} is there: a label has the name of its image, with the ending .png, or is named in \
             the second column of a list; masks of one class each are joined by `protoseg convert`",
            found.display()
        ));
    }
    let first = names.iter().find(|name| name.is_file())?;
    let count = names.len() - 1;
    Some(format!(
        "; its folder holds {} and {count} more: a label has the name of its image, with the ending \
         .png; masks of one class each, and those of annotation tools, are joined by `protoseg \
         convert`",
        text(first)
    ))
}

/// Reads `classes.txt`.
pub(super) fn read_classes(path: &Path) -> Result<ClassFile, DatasetError> {
    let hint = || {
        let root = path.parent().unwrap_or(Path::new("."));
        let legend = root.join(CVAT_LEGEND);
        if legend.is_file() {
            return format!(
                "; {} is there, as in CVAT's exports: use the dataset kind `voc`, or `protoseg \
                 convert`",
                legend.display()
            );
        }
        String::new()
    };
    if !path.exists() {
        return Err(DatasetError::NoClasses { path: path.into(), hint: hint() });
    }
    ClassFile::parse(&read(path)?)
        .map_err(|source| DatasetError::Classes { path: path.into(), source })
}

/// Says what may be the reason where image and label have their sides the other way round.
pub(super) fn turned_hint(image: [usize; 2], label: [usize; 2]) -> &'static str {
    let [height, width] = label;
    if image == [width, height] && width != height {
        "; one of them is turned, and the image has no EXIF orientation that says how (some programs \
         remove it): turn the label or the image, or make the label again"
    } else {
        ""
    }
}
