//! Datasets on disk: the images of a split, the paths of their labels, and the meaning of the ids
//! in them. Nothing is decoded here.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use protoseg_models::classes::{ClassError, ClassTable, IGNORE_INDEX};
use protoseg_models::errors::FileError;

use crate::label_mapping::{ClassOrigin, LabelMapping};

mod label_file;

/// Color of void pixels in the masks of Pascal VOC.
const VOC_BORDER: [u8; 3] = [224, 224, 192];

/// A layout of files below a root folder, and the ids of its label files.
///
/// ```
/// use protoseg_images::dataset::Dataset;
///
/// let root = tempfile::tempdir()?;
/// for name in ["images/a.png", "labels/a.png", "classes.txt"] {
///     std::fs::create_dir_all(root.path().join(name).parent().unwrap())?;
///     std::fs::write(root.path().join(name), "0 road\n1 sky\n")?;
/// }
/// let samples = Dataset::Folder.split(root.path(), "all")?;
/// assert_eq!(samples[0].label, Some(root.path().join("labels/a.png")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dataset {
    /// `train.txt` and `val.txt` list images and labels; 11 is void.
    Camvid,
    /// The official tree: `leftImg8bit/SPLIT/CITY/…_leftImg8bit.png` and
    /// `gtFine/SPLIT/CITY/…_gtFine_labelIds.png`; every other id is void.
    Cityscapes,
    /// `JPEGImages/ID.jpg` with `SegmentationClass/ID.png` or else `SegmentationClassAug/ID.png`;
    /// 255 is void.
    Voc,
    /// One's own: `images/NAME.{png,jpg,…}`, `labels/NAME.png` (or `.tif`, `.webp`) and
    /// `classes.txt`; 255 is void unless it is a class.
    Folder,
}

/// Paths of an image and its label, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The image.
    pub image: PathBuf,
    /// The label file, with the ids or colors of the dataset, not train ids.
    pub label: Option<PathBuf>,
}

/// The reason why a dataset cannot be read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum DatasetError {
    /// An I/O error.
    #[error(transparent)]
    File(#[from] FileError),
    /// A list or folder without images.
    #[error("{} names no image", .0.display())]
    Empty(PathBuf),
    /// A line of a list, counted from 1, that cannot be parsed.
    #[error("{}, line {line}: `{text}` {reason}", list.display())]
    Line { list: PathBuf, line: usize, text: String, reason: &'static str },
    /// A missing image or label, and the list or folder that it follows from.
    #[error("{} is missing, though {} refers to it", path.display(), list.display())]
    Missing { path: PathBuf, list: PathBuf },
    /// A missing label, and what lies in its place.
    #[error("{} is missing, though {} refers to it{hint}", path.display(), list.display())]
    MissingLabel { path: PathBuf, list: PathBuf, hint: String },
    /// A missing class file.
    #[error("{} is missing: write a line `id name` for each class{hint}", path.display())]
    NoClasses { path: PathBuf, hint: String },
    /// A class file that cannot be parsed.
    #[error("{}: {source}", path.display())]
    Classes { path: PathBuf, source: ClassError },
    /// A label of another size than its image; sizes are `[height, width]`.
    #[error(
        "{} has {}x{} pixels, but its label {} has {}x{}{}",
        image.display(), image_size[1], image_size[0], label.display(), label_size[1],
        label_size[0], label_file::turned_hint(*image_size, *label_size)
    )]
    Size { image: PathBuf, image_size: [usize; 2], label: PathBuf, label_size: [usize; 2] },
}

impl Dataset {
    /// Returns the classes; those of a [`Folder`](Self::Folder) are in its `classes.txt`, those of a
    /// [`Voc`](Self::Voc) tree with CVAT's `labelmap.txt` in that.
    pub fn classes(self, root: &Path) -> Result<ClassTable, DatasetError> {
        Ok(self.label_mapping(root)?.class_file().table.clone())
    }

    /// Returns the meaning of the ids and colors in the label files.
    pub fn label_mapping(self, root: &Path) -> Result<LabelMapping, DatasetError> {
        let built_in = |table: ClassTable, name, is_void: fn(u8) -> bool, colors: &[[u8; 3]]| {
            Ok(LabelMapping::new(table.into(), ClassOrigin::BuiltIn(name), is_void, colors))
        };
        match self {
            Self::Camvid => {
                let table = ClassTable::camvid();
                built_in(table, "CamVid", |id| id == 11 || id == IGNORE_INDEX, &[[0; 3]])
            }
            Self::Cityscapes => built_in(ClassTable::cityscapes(), "Cityscapes", |_| true, &[]),
            Self::Voc if root.join(label_file::CVAT_LEGEND).is_file() => {
                label_file::cvat_mapping(&root.join(label_file::CVAT_LEGEND))
            }
            Self::Voc => built_in(ClassTable::voc(), "Pascal VOC", |_| false, &[VOC_BORDER]),
            Self::Folder => {
                let path = root.join("classes.txt");
                let classes = label_file::read_classes(&path)?;
                Ok(LabelMapping::new(classes, ClassOrigin::File(path), |_| false, &[]))
            }
        }
    }

    /// Lists the labeled images of a split by its usual name, such as `val`: a list in the root,
    /// ids in `ImageSets/Segmentation` (VOC), or a folder of cities in order of their names
    /// (Cityscapes). `all` is every image of a [`Folder`](Self::Folder).
    pub fn split(self, root: &Path, split: &str) -> Result<Vec<Sample>, DatasetError> {
        match self {
            Self::Voc => {
                self.labeled(root, &root.join(format!("ImageSets/Segmentation/{split}.txt")))
            }
            Self::Cityscapes => {
                let folder = root.join("leftImg8bit").join(split);
                let mut images = Vec::new();
                for city in entries(&folder)?.into_iter().filter(|path| path.is_dir()) {
                    images.extend(entries(&city)?);
                }
                images.retain(|path| path.to_string_lossy().ends_with("_leftImg8bit.png"));
                self.with_labels(root, &folder, images)
            }
            Self::Folder if split == "all" => {
                let folder = root.join("images");
                let mut images = entries(&folder)?;
                images.retain(|path| is_image_path(path));
                self.with_labels(root, &folder, images)
            }
            Self::Camvid | Self::Folder => self.labeled(root, &root.join(format!("{split}.txt"))),
        }
    }

    fn with_labels(
        self,
        root: &Path,
        folder: &Path,
        images: Vec<PathBuf>,
    ) -> Result<Vec<Sample>, DatasetError> {
        if images.is_empty() {
            return Err(DatasetError::Empty(folder.into()));
        }
        let with_label = |image: PathBuf| {
            let relative = image.strip_prefix(root).ok();
            let label = relative.and_then(|relative| self.label(root, relative));
            let label = label.map(|label| label_file::find(label, folder)).transpose()?;
            Ok(Sample { image, label })
        };
        images.into_iter().map(with_label).collect()
    }

    /// Lists the images of a list file with their labels, all of which must exist.
    ///
    /// A line is `image label`, or only `image` where the path of the label follows from it (a bare
    /// id for VOC), relative to the root; with a tab between the two if names hold spaces. Blank
    /// lines are skipped. `…_labelTrainIds.png` of Cityscapes stands for `…_labelIds.png` beside
    /// it.
    pub fn labeled(self, root: &Path, list: &Path) -> Result<Vec<Sample>, DatasetError> {
        self.listed(root, list, true)
    }

    /// Lists the images of a list file without labels; a second column is ignored.
    pub fn unlabeled(self, root: &Path, list: &Path) -> Result<Vec<Sample>, DatasetError> {
        self.listed(root, list, false)
    }

    fn listed(self, root: &Path, list: &Path, labeled: bool) -> Result<Vec<Sample>, DatasetError> {
        let text = read(list)?;
        let mut samples = Vec::new();
        for (index, text) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let malformed = |reason| DatasetError::Line {
                list: list.into(),
                line: index + 1,
                text: text.into(),
                reason,
            };
            let (first, second) = match self.columns(root, text)[..] {
                [] => continue,
                [first] => (first, None),
                [first, second] => (first, Some(second)),
                _ => {
                    return Err(malformed(
                        "has more than two columns; put a tab between them if names hold spaces",
                    ));
                }
            };
            let image = self.image(first);
            let label = match second {
                _ if !labeled => None,
                Some(label) => {
                    Some(root.join(label.replace("_gtFine_labelTrainIds.", "_gtFine_labelIds.")))
                }
                None => {
                    Some(self.label(root, &image).ok_or_else(|| malformed("has no label column"))?)
                }
            };
            let label = label.map(|label| label_file::find(label, list)).transpose()?;
            samples.push(Sample { image: existing(root.join(image), list)?, label });
        }
        if samples.is_empty() { Err(DatasetError::Empty(list.into())) } else { Ok(samples) }
    }

    /// Splits a line at tabs, or else at spaces, unless the whole line is the name of an existing
    /// image.
    fn columns<'a>(self, root: &Path, line: &'a str) -> Vec<&'a str> {
        let line = line.trim();
        if line.contains('\t') {
            line.split('\t').map(str::trim).filter(|column| !column.is_empty()).collect()
        } else if line.contains(' ') && root.join(self.image(line)).is_file() {
            vec![line]
        } else {
            line.split_whitespace().collect()
        }
    }

    /// Path of an image below the root, from its name in a list.
    fn image(self, name: &str) -> PathBuf {
        match self {
            Self::Voc if !name.contains('/') => Path::new("JPEGImages").join(format!("{name}.jpg")),
            _ => name.into(),
        }
    }

    /// Path of the label of an image (relative to the root), if it follows from the image's.
    fn label(self, root: &Path, image: &Path) -> Option<PathBuf> {
        match self {
            Self::Camvid => None,
            Self::Cityscapes => {
                let below = image.strip_prefix("leftImg8bit").ok()?;
                let stem = below.file_name()?.to_str()?.strip_suffix("_leftImg8bit.png")?;
                let name = format!("{stem}_gtFine_labelIds.png");
                Some(root.join("gtFine").join(below).with_file_name(name))
            }
            Self::Voc => {
                let name = Path::new(image.file_name()?).with_extension("png");
                let official = root.join("SegmentationClass").join(&name);
                let augmented = root.join("SegmentationClassAug").join(&name);
                Some(if !official.is_file() && augmented.is_file() { augmented } else { official })
            }
            Self::Folder => {
                let below = image.strip_prefix("images").ok()?;
                Some(root.join("labels").join(below).with_extension("png"))
            }
        }
    }
}

/// Returns true for the extensions of the image formats that protoseg reads.
pub fn is_image_path(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    ["png", "jpg", "jpeg", "webp", "tif", "tiff"].iter().any(|known| extension == *known)
}

fn existing(path: PathBuf, list: &Path) -> Result<PathBuf, DatasetError> {
    if path.is_file() { Ok(path) } else { Err(DatasetError::Missing { path, list: list.into() }) }
}

fn read(path: &Path) -> Result<String, DatasetError> {
    Ok(std::fs::read_to_string(path).map_err(FileError::at(path))?)
}

/// Paths of the entries of a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let at_folder = FileError::at(folder);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(&at_folder)? {
        paths.push(entry.map_err(&at_folder)?.path());
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests;
