//! Data sets on disk: which pictures belong to a split, where their labels lie, and what the ids in them mean.
//!
//! Only paths and bytes: decoding is for those who hold an image library.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use protoseg_models::classes::{ClassError, ClassTable, IGNORE_INDEX};

/// How a data set lies in its root folder, and what the ids of its label files mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dataset {
    /// `train.txt` and `val.txt`: picture and label; 11 is void.
    Camvid,
    /// The official tree: `leftImg8bit/SPLIT/CITY/…_leftImg8bit.png`, `gtFine/SPLIT/CITY/…_gtFine_labelIds.png`; every id
    /// that is no class is void.
    Cityscapes,
    /// `JPEGImages/ID.jpg` with `SegmentationClass/ID.png` or else `SegmentationClassAug/ID.png`; 255 is void.
    Voc,
    /// Anybody's: `images/NAME.{png,jpg,…}`, `labels/NAME.png` and `classes.txt`; 255 is void.
    Folder,
}

/// A picture, and where its label is if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The picture.
    pub image: PathBuf,
    /// The label file: ids of the data set, not train ids.
    pub label: Option<PathBuf>,
}

/// Why a data set could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No picture at all.
    #[error("{} names no picture", .0.display())]
    Empty(PathBuf),
    /// A line of a list that is not understood.
    #[error("{}, line {line}: `{text}` {reason}", list.display())]
    Line {
        /// The list.
        list: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A picture or label that is not there.
    #[error("{} is missing, though {} calls for it", path.display(), list.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The list or folder that it follows from.
        list: PathBuf,
    },
    /// A class file that is not understood.
    #[error("{}: {source}", path.display())]
    Classes {
        /// The class file.
        path: PathBuf,
        /// Why.
        source: ClassError,
    },
    /// An id in a label file that means nothing.
    #[error("{}: the id {id} at row {row}, column {column} is neither a class of this data set nor its void id", path.display())]
    Id {
        /// The label file.
        path: PathBuf,
        /// What stands there.
        id: u8,
        /// Counted from 0.
        row: usize,
        /// Counted from 0.
        column: usize,
    },
    /// A label that does not cover its picture. Sizes are `[height, width]`.
    #[error(
        "{} has {}x{} pixels, but its label {} has {}x{}",
        image.display(), image_size[1], image_size[0], label.display(), label_size[1], label_size[0]
    )]
    Size {
        /// The picture.
        image: PathBuf,
        /// Its height and width.
        image_size: [usize; 2],
        /// The label file.
        label: PathBuf,
        /// Its height and width.
        label_size: [usize; 2],
    },
}

/// The train id of every id that a data set's label files may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMapping {
    train_ids: Box<[Option<u8>; 256]>,
}

impl LabelMapping {
    /// Turns a label file's ids, row by row in rows of `width`, into train ids; void becomes [`IGNORE_INDEX`]. `path` is for the
    /// message about an id that means nothing; the ids are left half mapped then.
    pub fn map(&self, ids: &mut [u8], width: usize, path: &Path) -> Result<(), DatasetError> {
        for (index, id) in ids.iter_mut().enumerate() {
            *id = self.train_ids[usize::from(*id)].ok_or_else(|| DatasetError::Id {
                path: path.into(),
                id: *id,
                row: index / width,
                column: index % width,
            })?;
        }
        Ok(())
    }
}

impl Dataset {
    /// Its classes; those of a [`Folder`](Self::Folder) stand in its `classes.txt`.
    pub fn classes(self, root: &Path) -> Result<ClassTable, DatasetError> {
        match self {
            Self::Camvid => Ok(ClassTable::camvid()),
            Self::Cityscapes => Ok(ClassTable::cityscapes()),
            Self::Voc => Ok(ClassTable::voc()),
            Self::Folder => {
                let path = root.join("classes.txt");
                ClassTable::parse(&read(&path)?)
                    .map_err(|source| DatasetError::Classes { path, source })
            }
        }
    }

    /// What the ids in its label files mean, given the source ids of its classes.
    pub fn label_mapping(self, classes: &ClassTable) -> LabelMapping {
        let known = classes.train_ids();
        let void = |id: u8| match self {
            Self::Camvid => id == 11 || id == IGNORE_INDEX,
            Self::Cityscapes => true,
            Self::Voc | Self::Folder => id == IGNORE_INDEX,
        };
        let train_id = |id: u8| match known[usize::from(id)] {
            IGNORE_INDEX => void(id).then_some(IGNORE_INDEX),
            train_id => Some(train_id),
        };
        LabelMapping { train_ids: Box::new(std::array::from_fn(|id| train_id(id as u8))) }
    }

    /// The labelled pictures of a split by its usual name, such as `val`: a list in the root, ids in
    /// `ImageSets/Segmentation` (VOC), or a folder of cities in order of their names (Cityscapes). `all` names every
    /// picture of a [`Folder`](Self::Folder).
    pub fn split(self, root: &Path, split: &str) -> Result<Vec<Sample>, DatasetError> {
        match self {
            Self::Voc => self
                .labeled(root, &root.join("ImageSets/Segmentation").join(format!("{split}.txt"))),
            Self::Cityscapes => {
                let folder = root.join("leftImg8bit").join(split);
                let cities = entries(&folder)?.into_iter().filter(|path| path.is_dir());
                let files: Vec<PathBuf> = cities
                    .map(|city| entries(&city))
                    .collect::<Result<Vec<_>, _>>()?
                    .into_iter()
                    .flatten()
                    .collect();
                let pictures = files
                    .into_iter()
                    .filter(|path| path.to_string_lossy().ends_with("_leftImg8bit.png"));
                self.every(root, &folder, pictures)
            }
            Self::Folder if split == "all" => {
                let folder = root.join("images");
                let pictures = entries(&folder)?.into_iter().filter(|path| is_image_path(path));
                self.every(root, &folder, pictures)
            }
            Self::Camvid | Self::Folder => self.labeled(root, &root.join(format!("{split}.txt"))),
        }
    }

    fn every(
        self,
        root: &Path,
        folder: &Path,
        pictures: impl Iterator<Item = PathBuf>,
    ) -> Result<Vec<Sample>, DatasetError> {
        let labelled = |image: PathBuf| {
            let label =
                image.strip_prefix(root).ok().and_then(|relative| self.label(root, relative));
            let label = label.map(|label| present(label, folder)).transpose()?;
            Ok(Sample { image, label })
        };
        let samples: Vec<Sample> = pictures.map(labelled).collect::<Result<_, _>>()?;
        if samples.is_empty() { Err(DatasetError::Empty(folder.into())) } else { Ok(samples) }
    }

    /// The pictures of a list file with their labels, each of which must be there.
    ///
    /// A line is `picture label`, or only `picture` where the label's place follows from it (a bare id for VOC), relative
    /// to the root; where names hold spaces, with a tab between the two. Blank lines count nothing. `…_labelTrainIds.png` of Cityscapes stands for `…_labelIds.png` beside it.
    pub fn labeled(self, root: &Path, list: &Path) -> Result<Vec<Sample>, DatasetError> {
        self.listed(root, list, true)
    }

    /// The pictures of a list file without labels; a second column counts nothing.
    pub fn unlabeled(self, root: &Path, list: &Path) -> Result<Vec<Sample>, DatasetError> {
        self.listed(root, list, false)
    }

    fn listed(self, root: &Path, list: &Path, labelled: bool) -> Result<Vec<Sample>, DatasetError> {
        let text = read(list)?;
        let mut samples = Vec::new();
        for (index, text) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let refused = |reason| DatasetError::Line {
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
                    return Err(refused(
                        "has more than two columns; put a tab between them where names hold spaces",
                    ));
                }
            };
            let picture = self.picture(first);
            let label = match second {
                _ if !labelled => None,
                Some(label) => {
                    Some(root.join(label.replace("_gtFine_labelTrainIds.", "_gtFine_labelIds.")))
                }
                None => Some(self.label(root, &picture).ok_or_else(|| refused("names no label"))?),
            };
            let label = label.map(|label| present(label, list)).transpose()?;
            samples.push(Sample { image: present(root.join(picture), list)?, label });
        }
        if samples.is_empty() { Err(DatasetError::Empty(list.into())) } else { Ok(samples) }
    }

    /// The columns of a line: tabs divide it, or else spaces, unless it is the name of a picture as it stands.
    fn columns<'a>(self, root: &Path, line: &'a str) -> Vec<&'a str> {
        let line = line.trim();
        if line.contains('\t') {
            line.split('\t').map(str::trim).filter(|column| !column.is_empty()).collect()
        } else if line.contains(' ') && root.join(self.picture(line)).is_file() {
            vec![line]
        } else {
            line.split_whitespace().collect()
        }
    }

    /// Place of a picture below the root, by what a list calls it.
    fn picture(self, name: &str) -> PathBuf {
        match self {
            Self::Voc if !name.contains('/') => Path::new("JPEGImages").join(format!("{name}.jpg")),
            _ => name.into(),
        }
    }

    /// Where the label of a picture (relative to the root) lies, if that follows from the picture's place.
    fn label(self, root: &Path, picture: &Path) -> Option<PathBuf> {
        match self {
            Self::Camvid => None,
            Self::Cityscapes => {
                let below = picture.strip_prefix("leftImg8bit").ok()?;
                let stem = below.file_name()?.to_str()?.strip_suffix("_leftImg8bit.png")?;
                Some(
                    root.join("gtFine")
                        .join(below)
                        .with_file_name(format!("{stem}_gtFine_labelIds.png")),
                )
            }
            Self::Voc => {
                let name = Path::new(picture.file_name()?).with_extension("png");
                let official = root.join("SegmentationClass").join(&name);
                let augmented = root.join("SegmentationClassAug").join(&name);
                Some(if !official.is_file() && augmented.is_file() { augmented } else { official })
            }
            Self::Folder => Some(
                root.join("labels")
                    .join(picture.strip_prefix("images").ok()?)
                    .with_extension("png"),
            ),
        }
    }
}

/// Whether a file's name says that it is a picture of a format that protoseg reads.
pub fn is_image_path(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    ["png", "jpg", "jpeg", "webp", "tif", "tiff"].iter().any(|known| extension == *known)
}

fn present(path: PathBuf, list: &Path) -> Result<PathBuf, DatasetError> {
    if path.is_file() { Ok(path) } else { Err(DatasetError::Missing { path, list: list.into() }) }
}

fn read(path: &Path) -> Result<String, DatasetError> {
    std::fs::read_to_string(path).map_err(|source| DatasetError::Io { path: path.into(), source })
}

/// What a folder holds, by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let failed = |source| DatasetError::Io { path: folder.into(), source };
    let entry =
        |entry: std::io::Result<std::fs::DirEntry>| entry.map(|entry| entry.path()).map_err(failed);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).map_err(failed)?.map(entry).collect::<Result<_, _>>()?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests;
