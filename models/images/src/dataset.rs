//! Datasets on disk: the images of a split, the paths of their labels, and the meaning of the ids
//! in them. Nothing is decoded here.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use protoseg_models::classes::{ClassError, ClassTable, IGNORE_INDEX};
use protoseg_models::errors::FileError;

use self::derive::LabelFinder;
use self::half::{HalfSplit, partly_labeled};
use self::layout::FolderLayout;
use self::listed::ListReader;
pub use self::repeats::SampleList;
pub(crate) use self::size_hint::size_hint;
use crate::label_mapping::{ClassOrigin, LabelMapping};
use crate::list::{self, ListTextError};
use crate::scan::Scanner;
use crate::scan::UnreadableFolder;
pub use crate::scan::is_image_path;

mod derive;
mod half;
pub(crate) mod label_file;
pub(crate) mod layout;
mod legend;
mod listed;
mod repeats;
mod size_hint;
mod splits;
pub(crate) mod voc;

/// Color of void pixels in the masks of Pascal VOC.
const VOC_BORDER: [u8; 3] = [224, 224, 192];

/// The way out where masks are not those of Pascal VOC.
pub(crate) const VOC_WAY_OUT: &str = "`protoseg convert TREE --classes FILE --out NEW` takes the classes of \
                                      a file of lines `id name`";

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
/// let list = Dataset::Folder.split(root.path(), "all")?;
/// assert_eq!(list.samples[0].label, Some(root.path().join("labels/a.png")));
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
    /// A list without images.
    #[error("{} names no image", .0.display())]
    Empty(PathBuf),
    /// A folder without images, and what it holds.
    #[error("{} names no image{hint}", folder.display())]
    EmptyFolder { folder: PathBuf, hint: String },
    /// A list or folder of images that is not there, and what is there.
    #[error("{} is missing; {} holds {seen}", path.display(), root.display())]
    NoList { path: PathBuf, root: PathBuf, seen: String },
    /// A tree of masks that nothing gives names, and that are not those of Pascal VOC.
    #[error("{}, and no list of classes lies beside it; {VOC_WAY_OUT}", .0)]
    NotVoc(String),
    /// Two folders of usual names.
    #[error(
        "{} and {} could each be the folder `{usual}`: rename the right one to that",
        first.display(), second.display()
    )]
    SeveralFolders { first: PathBuf, second: PathBuf, usual: String },
    /// A line of a list, counted from 1, that cannot be parsed.
    #[error("{}, line {line}: `{text}` {reason}", list.display())]
    Line { list: PathBuf, line: usize, text: String, reason: String },
    /// A list that is not a text.
    #[error("{}: {source}", list.display())]
    List { list: PathBuf, source: ListTextError },
    /// A missing image or label, and the list or folder that it follows from.
    #[error("{} is missing, though {} refers to it{hint}", path.display(), list.display())]
    Missing { path: PathBuf, list: PathBuf, hint: String },
    /// A missing label, and what lies in its place.
    #[error("{} is missing, though {} refers to it{hint}", path.display(), list.display())]
    MissingLabel { path: PathBuf, list: PathBuf, hint: String },
    /// Images of a folder of which some have no label, with the first that is missing.
    #[error(
        "{missing} of {images} images in {} have no label map: {} is missing{hint}; `labeled` in place \
         of `all` takes the others (`--split labeled`, `labeled = \"labeled\"`), and in \
         semi-supervised training `unlabeled = \"unlabeled\"` these; or a list does, with a line \
         such as `{example}` for each image (`--list FILE`, `labeled = \"FILE\"`)",
        folder.display(), label.display()
    )]
    Unlabeled {
        folder: PathBuf,
        missing: usize,
        images: usize,
        label: PathBuf,
        hint: String,
        example: String,
    },
    /// A missing data set.
    #[error("the folder {} of the data set is not there", .0.display())]
    NoFolder(PathBuf),
    /// A missing class file.
    #[error("{} is missing: write a line `id name` for each class{hint}", path.display())]
    NoClasses { path: PathBuf, hint: String },
    /// Several errors of the lines of a list, or of the images of a folder.
    #[error("{first}; and {more} more like it in {}", list.display())]
    Several { first: Box<Self>, more: usize, list: PathBuf },
    /// A label that would be taken for two images.
    #[error(
        "{} has the name of {} and of {}, and can be the label of one: rename the other image and \
         its label, or name both labels in the second column of a list",
        label.display(), first.display(), second.display()
    )]
    SharedLabel { label: PathBuf, first: PathBuf, second: PathBuf },
    /// An image in another folder than the dataset's.
    #[error(
        "the label of {} does not follow from its path, which is not that of an image of this kind of \
         dataset; name both in a list",
        .0.display()
    )]
    NoLabel(PathBuf),
    /// Several label files for one image.
    #[error(
        "{} and {} are both labels of one image: take one of them away, or name the right one in \
         the second column of a list",
        first.display(), second.display()
    )]
    SeveralLabels { first: PathBuf, second: PathBuf },
    /// A class file that cannot be parsed.
    #[error("{}: {source}", path.display())]
    Classes { path: PathBuf, source: ClassError },
    /// A label of another size than its image; sizes are `[height, width]`.
    #[error("{}; {}", self.fact(), size_hint(*image_size, *label_size))]
    Size { image: PathBuf, image_size: [usize; 2], label: PathBuf, label_size: [usize; 2] },
}

impl DatasetError {
    /// Returns what was found; for sizes without the way out.
    pub fn fact(&self) -> String {
        match self {
            Self::Size { image, image_size, label, label_size } => format!(
                "{} has {}x{} pixels, but its label {} has {}x{}",
                image.display(),
                image_size[1],
                image_size[0],
                label.display(),
                label_size[1],
                label_size[0]
            ),
            other => other.to_string(),
        }
    }

    /// Says what to do about an image of a list that has no label.
    fn with_way_out_of_list(self) -> Self {
        match self {
            Self::MissingLabel { path, list, hint } => {
                let hint = format!("{hint}; or take the lines of images without a label map out");
                Self::MissingLabel { path, list, hint }
            }
            Self::Several { first, more, list } => {
                Self::Several { first: Box::new(first.with_way_out_of_list()), more, list }
            }
            other => other,
        }
    }

    /// Returns what can be done about a label of another size; `None` where the fact says it.
    pub fn way_out(&self) -> Option<String> {
        match self {
            Self::Size { image_size, label_size, .. } => Some(size_hint(*image_size, *label_size)),
            _ => None,
        }
    }
}

impl Dataset {
    /// Returns the classes; those of a [`Folder`](Self::Folder) are in its `classes.txt`, those of a
    /// [`Voc`](Self::Voc) tree with CVAT's `labelmap.txt` or LabelMe's `class_names.txt` in that.
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
            Self::Voc => match legend::find(root)? {
                Some(path) => legend::mapping(&path),
                None => built_in(ClassTable::voc(), "Pascal VOC", |_| false, &[VOC_BORDER]),
            },
            Self::Folder => {
                let path = label_file::class_file(root);
                let classes = label_file::read_classes(&path)?;
                Ok(LabelMapping::new(classes, ClassOrigin::File(path), |_| false, &[]))
            }
        }
    }

    /// Lists the labeled images of a split by its usual name, such as `val`: a list in the root,
    /// ids in `ImageSets/Segmentation` (VOC), or a folder of cities in order of their names
    /// (Cityscapes). `all` is every image of a [`Folder`](Self::Folder), subfolders included.
    pub fn split(self, root: &Path, split: &str) -> Result<SampleList, DatasetError> {
        self.scan_split(root, split, &mut Scanner::new(false))
    }

    /// Like [`split`](Self::split), with an account of what was passed over in folders.
    pub fn scan_split(
        self,
        root: &Path,
        split: &str,
        scanner: &mut Scanner,
    ) -> Result<SampleList, DatasetError> {
        match self {
            Self::Voc => {
                self.labeled(root, &root.join(format!("ImageSets/Segmentation/{split}.txt")))
            }
            Self::Cityscapes => {
                let folder = root.join("leftImg8bit").join(split);
                std::fs::read_dir(&folder).map_err(FileError::at(&folder))?;
                let mut images = scanner.images(&folder);
                images.retain(|path| path.to_string_lossy().ends_with("_leftImg8bit.png"));
                self.with_labels(root, &folder, images)
            }
            Self::Folder if split == ALL => {
                let folder = root.join(FolderLayout::find(root)?.images);
                if !folder.exists() && root.is_dir() {
                    return Err(no_images(root, folder));
                }
                std::fs::read_dir(&folder).map_err(FileError::at(&folder))?;
                let images = scanner.images(&folder);
                if images.is_empty() {
                    return Err(empty_folder(&folder, scanner));
                }
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
    ) -> Result<SampleList, DatasetError> {
        if images.is_empty() {
            return Err(DatasetError::Empty(folder.into()));
        }
        let mut labels = LabelFinder::new(self, root, folder);
        let found = images.into_iter().map(|image| with_label(&mut labels, root, image));
        let found: Vec<Result<Sample, DatasetError>> = found.collect();
        let all = collect(partly_labeled(found, root, folder)?.into_iter(), folder)?;
        let mut list = SampleList::new(all);
        refuse_shared_labels(&list.samples)?;
        list.notes = labels.remarks();
        if self == Self::Folder {
            list.notes.extend(labels.orphans(folder, &list.samples)?);
        }
        Ok(list)
    }

    /// Lists the images of a list file, or below a folder, with their labels, all of which must exist.
    ///
    /// A line is `image label`, or only `image` where the path of the label follows from it (a bare
    /// id for VOC), relative to the root; with a tab between the two if names hold spaces. [`list`]
    /// says which spellings are read. `…_labelTrainIds.png` of Cityscapes stands for
    /// `…_labelIds.png` beside it. A first line such as `image,label` names the columns of a table.
    pub fn labeled(self, root: &Path, list: &Path) -> Result<SampleList, DatasetError> {
        self.listed(root, list, true)
    }

    /// Lists the images of a list file, or below a folder, without labels; a second column is ignored.
    pub fn unlabeled(self, root: &Path, list: &Path) -> Result<SampleList, DatasetError> {
        self.listed(root, list, false)
    }

    fn listed(self, root: &Path, list: &Path, labeled: bool) -> Result<SampleList, DatasetError> {
        if !list.exists() && root.is_dir() {
            let found = splits::find(self, root, list);
            if let (Err(_), Some(wanted)) = (&found, HalfSplit::named(self, root, list)) {
                return wanted.samples(root, list, labeled);
            }
            let (list, remark) = found?;
            let mut samples = self.listed(root, &list, labeled)?;
            samples.notes.insert(0, remark);
            return Ok(samples);
        }
        if list.is_dir() {
            return self.all_below(root, list, labeled);
        }
        let bytes = std::fs::read(list).map_err(FileError::at(list))?;
        let objects = list.extension() == Some(OsStr::new("jsonl"));
        let lines = list::parse(&bytes, objects, root)
            .map_err(|source| DatasetError::List { list: list.into(), source })?;
        let mut reader = ListReader::new(self, root, list)?;
        let all = collect(lines.iter().map(|line| reader.sample(line, labeled)), list);
        let all = all.map_err(DatasetError::with_way_out_of_list)?;
        if all.is_empty() {
            return Err(DatasetError::Empty(list.into()));
        }
        let mut samples = SampleList::new(all);
        refuse_shared_labels(&samples.samples)?;
        samples.notes = reader.remarks();
        Ok(samples)
    }

    /// Every image below a folder, which stands for a list.
    fn all_below(
        self,
        root: &Path,
        folder: &Path,
        labeled: bool,
    ) -> Result<SampleList, DatasetError> {
        let mut scanner = Scanner::new(false);
        // A split with folders of images and labels of its own.
        let own = FolderLayout::both(folder).filter(|_| self == Self::Folder);
        let own = own.map(|layout| folder.join(layout.images));
        let folder = own.as_deref().unwrap_or(folder);
        let images = scanner.images(folder);
        if let Some(UnreadableFolder { path, error }) = scanner.report().unreadable.first() {
            let source = std::io::Error::other(error.clone());
            return Err(FileError { path: path.clone(), source }.into());
        }
        if images.is_empty() {
            return Err(empty_folder(folder, &scanner));
        }
        let mut list = if labeled {
            self.with_labels(root, folder, images)?
        } else {
            SampleList::new(images.into_iter().map(|image| Sample { image, label: None }).collect())
        };
        let lines = scanner.report().lines();
        list.notes
            .extend(lines.iter().map(|line| line.split(';').next().unwrap_or(line).to_owned()));
        Ok(list)
    }

    /// Path of an image below the root, from its name in a list.
    fn image(self, name: &OsStr) -> PathBuf {
        match self {
            Self::Voc if !name.as_bytes().contains(&b'/') => {
                let mut file = name.to_owned();
                file.push(".jpg");
                Path::new("JPEGImages").join(file)
            }
            _ => name.into(),
        }
    }

    /// Path of the label of an image (relative to the root), if it follows from the image's; that of
    /// a [`Folder`](Self::Folder) follows from its layout.
    fn label(self, root: &Path, image: &Path) -> Option<PathBuf> {
        match self {
            Self::Camvid | Self::Folder => None,
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
        }
    }
}

/// Split of every image of a [`Dataset::Folder`].
pub const ALL: &str = "all";

/// An image with its label.
fn with_label(
    labels: &mut LabelFinder<'_>,
    root: &Path,
    image: PathBuf,
) -> Result<Sample, DatasetError> {
    let relative = match image.strip_prefix(root) {
        Ok(relative) => Some(relative.to_owned()),
        // Named from the current folder.
        Err(_) => std::path::absolute(&image).ok().and_then(|path| list::below(root, &path)),
    };
    let label = relative.map(|relative| labels.label(&relative)).transpose()?.flatten();
    let Some(label) = label else { return Err(DatasetError::NoLabel(image)) };
    Ok(Sample { image, label: Some(label) })
}

/// Collects samples; of several errors the first is told, and the number of the others.
fn collect(
    samples: impl Iterator<Item = Result<Sample, DatasetError>>,
    list: &Path,
) -> Result<Vec<Sample>, DatasetError> {
    let mut all = Vec::new();
    let mut failed = None;
    let mut more = 0;
    for sample in samples {
        match sample {
            Ok(sample) => all.push(sample),
            Err(error) if failed.is_none() => failed = Some(Box::new(error)),
            Err(_) => more += 1,
        }
    }
    match failed {
        None => Ok(all),
        Some(first) if more == 0 => Err(*first),
        Some(first) => Err(DatasetError::Several { first, more, list: list.into() }),
    }
}

/// Fails where a label has the name of two images, such as `a.jpg` and `a.png`: it is that of one.
fn refuse_shared_labels(samples: &[Sample]) -> Result<(), DatasetError> {
    let mut owners: HashMap<&Path, &Path> = HashMap::new();
    for Sample { image, label } in samples {
        let Some(label) = label.as_deref().filter(|label| label.file_stem() == image.file_stem())
        else {
            continue;
        };
        let beside = |first: &&Path| *first != image && first.parent() == image.parent();
        if let Some(first) = owners.insert(label, image).filter(beside) {
            let [first, second] = [first, image].map(Path::to_owned);
            return Err(DatasetError::SharedLabel { label: label.into(), first, second });
        }
    }
    Ok(())
}

/// The error of a folder that has no folder of images: with splits of its own, or other names.
fn no_images(root: &Path, path: PathBuf) -> DatasetError {
    let split = layout::folders(root).into_iter().find_map(|folder| {
        let images = FolderLayout::both(&folder)?.images;
        Some((folder.file_name()?.to_owned(), images))
    });
    let way = match split {
        Some((split, images)) => {
            let split = split.to_string_lossy();
            format!("; {split}/{} is a split: name `{split}` in place of `all`", images.display())
        }
        None => format!(
            "; name the folder of images `images`, and that of label maps `labels`, or have `protoseg \
             convert {} --out NEW` make both of label maps beside their images",
            root.display()
        ),
    };
    let seen = format!("{}{way}", layout::seen(root));
    DatasetError::NoList { path, root: root.into(), seen }
}

/// The error of a folder without images, with the endings that were passed over.
fn empty_folder(folder: &Path, scanner: &Scanner) -> DatasetError {
    let lines = scanner.report().lines();
    let hint = lines.iter().map(|line| format!("; {}", line.split(';').next().unwrap_or(line)));
    DatasetError::EmptyFolder { folder: folder.into(), hint: hint.collect() }
}

fn read(path: &Path) -> Result<String, DatasetError> {
    let bytes = std::fs::read(path).map_err(FileError::at(path))?;
    let in_file = |source| DatasetError::List { list: path.into(), source };
    let text = list::decode(&bytes).map_err(in_file)?;
    String::from_utf8(text).map_err(|_| in_file(ListTextError::Utf8))
}

#[cfg(test)]
mod tests;
