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
pub(crate) fn is_mask_path(path: &Path) -> bool {
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
    let hint = refused
        .or_else(|| train_ids(&path))
        .or_else(|| alike(&path, &names))
        .or_else(|| without_folder(&path));
    let hint = hint.unwrap_or_default();
    Err(DatasetError::MissingLabel { path, list: list.into(), hint })
}

/// Says what to do with a tree of Cityscapes that holds train ids only.
fn train_ids(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let found = path.with_file_name(name.replace("_gtFine_labelIds.", "_gtFine_labelTrainIds."));
    (found != path && found.is_file()).then(|| {
        format!(
            "; {} is there, but this kind of data set is read by labelIds: put those of the data set \
             beside it, or read train ids as the kind `folder`, by a classes.txt of the classes 0 to \
             18 and a list of two columns, image and label",
            found.display()
        )
    })
}

/// Says that there is no folder for a label.
fn without_folder(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.exists())?;
    Some(format!(
        "; the folder {} is not there: label maps lie in folders as their images do, or are named in the \
         second column of a list",
        folder.display()
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

/// Tables of classes that other programs write, where there is no `classes.txt`.
const CLASS_TABLES: [&str; 2] = ["_classes.csv", "class_dict.csv"];

/// Returns the path of the class file of a folder: `classes.txt`, or else a table of classes.
pub(crate) fn class_file(root: &Path) -> PathBuf {
    let usual = root.join("classes.txt");
    let tables = CLASS_TABLES.map(|name| root.join(name));
    let other = tables.into_iter().find(|path| path.is_file() && !usual.exists());
    other.unwrap_or(usual)
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
        let above = root.canonicalize().ok().and_then(|root| Some(root.parent()?.to_owned()));
        if let Some(above) = above.filter(|above| above.join("classes.txt").is_file()) {
            return format!(
                "; {} has one: give that folder, and `{}` as the list or split",
                above.display(),
                root.file_name().unwrap_or_default().to_string_lossy()
            );
        }
        alike_classes(root).unwrap_or_default()
    };
    if let Some(root) = path.parent().filter(|root| *root != Path::new("") && !root.exists()) {
        return Err(DatasetError::NoFolder(root.into()));
    }
    if !path.exists() {
        return Err(DatasetError::NoClasses { path: path.into(), hint: hint() });
    }
    ClassFile::parse(&read(path)?)
        .map_err(|source| DatasetError::Classes { path: path.into(), source })
}

/// Names a class file of another name.
fn alike_classes(root: &Path) -> Option<String> {
    let entries = root.read_dir().ok()?.filter_map(Result::ok).map(|entry| entry.file_name());
    let mut names: Vec<String> = entries.filter_map(|name| name.into_string().ok()).collect();
    names.sort();
    let is_alike = |name: &&String| {
        let name = name.to_lowercase();
        let stem = name.split('.').next().unwrap_or_default();
        ["class", "classes", "class_names", "labels", "obj", "categories"].contains(&stem)
            && [".txt", ".names", ".csv"].iter().any(|ending| name.ends_with(ending))
    };
    let found = names.iter().find(is_alike)?;
    Some(format!("; {found} is there: if it names the classes, write them so"))
}
