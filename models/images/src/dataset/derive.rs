//! Labels that follow from images, and images that follow from labels.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::label_file::{self, is_mask_path};
use super::layout::{FolderLayout, OF_IMAGES, OF_LABELS, part_at};
use super::{Dataset, DatasetError, Sample};
use crate::list::{self, IMAGE_FOLDERS, ListResolver, folded};
use crate::pairing::{PairedMask, Pairing};
use crate::scan::Scanner;

/// Finds the labels of images below a root, and the images of labels.
pub(super) struct LabelFinder<'a> {
    dataset: Dataset,
    root: &'a Path,
    /// List or folder that names the images, for messages.
    list: &'a Path,
    pub(super) resolver: ListResolver<'a>,
    /// By the folder below the root in which they are.
    layouts: HashMap<PathBuf, FolderLayout>,
    pairings: HashMap<PathBuf, Pairing>,
    /// Images with a label in another folder than theirs.
    elsewhere: PairCount,
    /// Images with a label in other upper and lower case.
    other_case: PairCount,
    /// Lines that name a label alone.
    by_label: PairCount,
    /// What label maps add to the names of images.
    patterns: BTreeSet<String>,
}

/// Number of images that were paired in one way, with an example.
#[derive(Default)]
struct PairCount {
    count: usize,
    example: Option<[PathBuf; 2]>,
}

impl PairCount {
    fn add(&mut self, first: &Path, second: &Path) {
        self.count += 1;
        self.example.get_or_insert_with(|| [first.to_owned(), second.to_owned()]);
    }

    fn text(&self, text: impl Fn(usize, &Path, &Path) -> String) -> Option<String> {
        let [first, second] = self.example.as_ref()?;
        Some(text(self.count, first, second))
    }
}

impl<'a> LabelFinder<'a> {
    pub(super) fn new(dataset: Dataset, root: &'a Path, list: &'a Path) -> Self {
        Self {
            dataset,
            root,
            list,
            resolver: ListResolver::new(root, &IMAGE_FOLDERS),
            layouts: HashMap::new(),
            pairings: HashMap::new(),
            patterns: BTreeSet::new(),
            elsewhere: PairCount::default(),
            other_case: PairCount::default(),
            by_label: PairCount::default(),
        }
    }

    /// The folders of images and labels in a folder below the root.
    pub(super) fn layout(&mut self, folder: &Path) -> Result<FolderLayout, DatasetError> {
        if let Some(layout) = self.layouts.get(folder) {
            return Ok(layout.clone());
        }
        let layout = FolderLayout::find(&self.root.join(folder))?;
        self.layouts.insert(folder.to_owned(), layout.clone());
        Ok(layout)
    }

    /// Parts the path of an image below the root into the folder that has folders of images and labels,
    /// and the path below the former.
    pub(super) fn part_image(
        &mut self,
        image: &Path,
    ) -> Result<Option<(PathBuf, PathBuf)>, DatasetError> {
        let images = self.layout(Path::new(""))?.images;
        if let Ok(below) = image.strip_prefix(&images) {
            return Ok(Some((PathBuf::new(), below.to_owned())));
        }
        let Some((folder, name, below)) = part_at(image, &OF_IMAGES) else { return Ok(None) };
        let is_own = !folder.as_os_str().is_empty() && self.layout(&folder)?.images == name;
        Ok(is_own.then_some((folder, below)))
    }

    /// Path of the label of an image, which is relative to the root; `None` if none follows from it.
    pub(super) fn label(&mut self, image: &Path) -> Result<Option<PathBuf>, DatasetError> {
        if self.dataset != Dataset::Folder {
            let Some(label) = self.dataset.label(self.root, image) else { return Ok(None) };
            return self.existing(label).map(Some);
        }
        let Some((folder, below)) = self.part_image(image)? else { return Ok(None) };
        let labels = folder.join(self.layout(&folder)?.labels);
        let usual = self.root.join(&labels).join(&below).with_extension("png");
        let missing = match self.existing(usual) {
            Err(error @ DatasetError::MissingLabel { .. }) => error,
            found => return found.map(Some),
        };
        let pairing = self.pairing(&folder)?;
        let (found, pattern) = (pairing.mask(&below), pairing.pattern().map(ToString::to_string));
        let label = match found {
            PairedMask::Several(first, second) => {
                let [first, second] =
                    [first, second].map(|label| self.root.join(&labels).join(label));
                return Err(DatasetError::SeveralLabels { first, second });
            }
            PairedMask::Missing => {
                let hint = pairing.hint(&below, &labels);
                return Err(with_hint(missing, hint));
            }
            PairedMask::InPlace(label) => labels.join(label),
            PairedMask::OtherCase(label) => {
                let label = labels.join(label);
                self.other_case.add(image, &label);
                label
            }
            PairedMask::Elsewhere(label) => {
                let label = labels.join(label);
                self.elsewhere.add(image, &label);
                label
            }
        };
        self.patterns.extend(pattern);
        Ok(Some(self.root.join(label)))
    }

    fn pairing(&mut self, folder: &Path) -> Result<&Pairing, DatasetError> {
        let layout = self.layout(folder)?;
        let (root, at) = (self.root, folder.to_owned());
        Ok(self.pairings.entry(at).or_insert_with_key(|folder| {
            let below = |name: &Path, is_wanted: fn(&Path) -> bool| {
                let place = root.join(folder).join(name);
                let found = Scanner::new(false).images(&place).into_iter();
                let found = found.filter(|path| is_wanted(path));
                found.map(|path| path.strip_prefix(&place).unwrap_or(&path).to_owned()).collect()
            };
            let images = below(&layout.images, |_| true);
            Pairing::new(images, below(&layout.labels, is_mask_path), &[])
        }))
    }

    /// The label at a path, also if its name on the disk has another Unicode form or ending. Fails where
    /// several files could be it.
    fn existing(&mut self, path: PathBuf) -> Result<PathBuf, DatasetError> {
        let mut masks = self.resolver.same_stem(&path);
        masks.retain(|mask| is_mask_path(mask) && mask.is_file());
        if let [first, second, ..] = &masks[..] {
            let (first, second) = (first.clone(), second.clone());
            return Err(DatasetError::SeveralLabels { first, second });
        }
        if path.is_file() {
            return Ok(path);
        }
        // Paths that begin with the root are looked for below it.
        let list = self.list;
        self.resolver.file_at(&path).map_or_else(|| label_file::find(path, list), Ok)
    }

    /// The label that a list names.
    pub(super) fn given(&mut self, text: &Path) -> Result<PathBuf, DatasetError> {
        let path = self.root.join(text);
        if path.is_file() {
            return Ok(path);
        }
        if let Some(found) = self.resolver.file_at(&path) {
            return Ok(found);
        }
        let missing = match label_file::find(path, self.list) {
            Err(error) => error,
            found => return found,
        };
        let labels = match self.dataset {
            Dataset::Folder => self.layout(Path::new(""))?.labels,
            Dataset::Voc => "SegmentationClass".into(),
            Dataset::Camvid | Dataset::Cityscapes => PathBuf::new(),
        };
        let found = self.resolver.guess_label(text.as_os_str(), &labels);
        found.map(|found| self.root.join(found)).ok_or(missing)
    }

    /// The image of a label that a list names in place of an image; both are relative to the root.
    /// `None` for paths that are not those of labels.
    pub(super) fn image_of_label(
        &mut self,
        label: &Path,
    ) -> Result<Option<Result<PathBuf, String>>, DatasetError> {
        let Some(place) = self.place_of_image(label)? else { return Ok(None) };
        let mut found = self.resolver.with_stem(&place);
        if found.is_empty() && self.dataset == Dataset::Folder {
            found.extend(self.image_by_stem(label)?);
        }
        Ok(Some(match &found[..] {
            [image] => {
                self.by_label.add(label, image);
                Ok(image.clone())
            }
            [] => Err(format!(
                "is a label map, and no image {} with one of the usual endings is there; a line names \
                 an image, or an image and its label map",
                place.with_extension("").display()
            )),
            [first, second, ..] => Err(format!(
                "is a label map, and its image could be {} or {}; write the image",
                first.display(),
                second.display()
            )),
        }))
    }

    /// True if a bare name, of which an image with another ending is there, is that of its label.
    pub(super) fn is_name_of_label(
        &mut self,
        name: &Path,
        image: &Path,
    ) -> Result<bool, DatasetError> {
        let place = match self.dataset {
            Dataset::Voc => Some(PathBuf::from("SegmentationClass")),
            Dataset::Folder => match self.part_image(image)? {
                Some((folder, _)) => Some(folder.join(self.layout(&folder)?.labels)),
                None => None,
            },
            Dataset::Camvid | Dataset::Cityscapes => None,
        };
        let label = place.map(|place| place.join(name));
        let label = label.filter(|label| is_mask_path(label) && self.root.join(label).is_file());
        if let Some(label) = &label {
            self.by_label.add(label, image);
        }
        Ok(label.is_some())
    }

    /// Names an image that has the name of a missing one.
    pub(super) fn alike_image(&mut self, text: &Path) -> Result<Option<String>, DatasetError> {
        if self.dataset != Dataset::Folder {
            return Ok(None);
        }
        let images = self.layout(Path::new(""))?.images;
        // Back slashes part folders on other machines.
        let text = text.to_string_lossy().replace('\\', "/");
        let Some(stem) = Path::new(&text).file_stem().and_then(folded) else { return Ok(None) };
        let found = self.pairing(Path::new(""))?.image_named(&stem);
        Ok(found.map(|image| {
            format!(
                "; {} has this name, in another folder or with another ending: write its path",
                images.join(image).display()
            )
        }))
    }

    fn image_by_stem(&mut self, label: &Path) -> Result<Option<PathBuf>, DatasetError> {
        let Some((folder, below)) = self.part_label(label)? else { return Ok(None) };
        let images = folder.join(self.layout(&folder)?.images);
        Ok(self.pairing(&folder)?.image(&below).map(|image| images.join(image)))
    }

    fn part_label(&mut self, label: &Path) -> Result<Option<(PathBuf, PathBuf)>, DatasetError> {
        let labels = self.layout(Path::new(""))?.labels;
        if let Ok(below) = label.strip_prefix(&labels) {
            return Ok(Some((PathBuf::new(), below.to_owned())));
        }
        let Some((folder, name, below)) = part_at(label, &OF_LABELS) else { return Ok(None) };
        let is_own = !folder.as_os_str().is_empty() && self.layout(&folder)?.labels == name;
        Ok(is_own.then_some((folder, below)))
    }

    /// Where the image of a label is looked for, under any ending.
    fn place_of_image(&mut self, label: &Path) -> Result<Option<PathBuf>, DatasetError> {
        Ok(match self.dataset {
            Dataset::Camvid => None,
            Dataset::Voc => {
                let folders = ["SegmentationClass", "SegmentationClassAug"];
                let below = folders.iter().find_map(|folder| label.strip_prefix(folder).ok());
                below.map(|below| Path::new("JPEGImages").join(below).with_extension("jpg"))
            }
            Dataset::Cityscapes => label.strip_prefix("gtFine").ok().and_then(|below| {
                let (stem, _) = below.file_name()?.to_str()?.split_once("_gtFine_")?;
                let name = format!("{stem}_leftImg8bit.png");
                Some(Path::new("leftImg8bit").join(below).with_file_name(name))
            }),
            Dataset::Folder => match (self.part_image(label)?, self.part_label(label)?) {
                (None, Some((folder, below))) => {
                    let images = self.layout(&folder)?.images;
                    Some(folder.join(images).join(below))
                }
                _ => None,
            },
        })
    }

    /// Counts the label maps beside a folder of images that are those of no sample.
    pub(super) fn orphans(
        &mut self,
        folder: &Path,
        samples: &[Sample],
    ) -> Result<Option<String>, DatasetError> {
        let Some(below) = list::below(self.root, folder) else { return Ok(None) };
        // With a name, so that the folder of images itself is parted too.
        let Some((at, below)) = self.part_image(&below.join("x"))? else { return Ok(None) };
        let below = below.parent().unwrap_or(Path::new("")).to_owned();
        let layout = self.layout(&at)?;
        let labels = self.root.join(&at).join(&layout.labels).join(&below);
        if !labels.is_dir() {
            return Ok(None);
        }
        let used: HashSet<&Path> =
            samples.iter().filter_map(|sample| sample.label.as_deref()).collect();
        let mut masks = Scanner::new(false).images(&labels);
        masks.retain(|path| is_mask_path(path));
        let orphans: Vec<&PathBuf> =
            masks.iter().filter(|path| !used.contains(path.as_path())).collect();
        let Some(first) = orphans.first() else { return Ok(None) };
        let place = at.join(&layout.images).join(&below);
        let place = place.join(first.strip_prefix(&labels).unwrap_or(first)).with_extension("");
        let (are, have) = if orphans.len() == 1 { ("map", "has") } else { ("maps", "have") };
        Ok(Some(format!(
            "{} of {} label {are} {have} no image and are left out, such as {}: its image is looked for \
             as {} with .png, .jpg and the like",
            orphans.len(),
            masks.len(),
            first.strip_prefix(self.root).unwrap_or(first).display(),
            place.display()
        )))
    }

    /// Remarks on what was found under other names or in other places.
    pub(super) fn remarks(&mut self) -> Vec<String> {
        let elsewhere = self.elsewhere.text(|count, image, label| {
            let (image, label) = (image.display(), label.display());
            let images = if count == 1 { "image has its label map" } else { "images have their label maps" };
            format!(
                "{count} {images} in another folder, such as {image} with {label}: each is the only one \
                 of its name"
            )
        });
        let other_case = self.other_case.text(|count, image, label| {
            let (image, label) = (image.display(), label.display());
            let maps = if count == 1 { "label map has" } else { "label maps have" };
            format!(
                "{count} {maps} other upper and lower case than the image, such as {label} of {image}"
            )
        });
        let by_label = self.by_label.text(|count, label, image| {
            let (image, label) = (image.display(), label.display());
            let lines = if count == 1 { "line names a label map" } else { "lines name label maps" };
            format!(
                "{count} {lines} and no image, such as {label}: the image of the same name is read, \
                 {image}"
            )
        });
        let root = self.layouts.get(Path::new("")).and_then(FolderLayout::remark);
        let layouts = root.filter(|_| self.dataset == Dataset::Folder);
        layouts
            .into_iter()
            .chain(self.patterns.iter().cloned())
            .chain(self.resolver.remarks())
            .chain(elsewhere)
            .chain(other_case)
            .chain(by_label)
            .collect()
    }
}

fn with_hint(error: DatasetError, hint: Option<String>) -> DatasetError {
    match (error, hint) {
        (DatasetError::MissingLabel { path, list, .. }, Some(hint)) => {
            DatasetError::MissingLabel { path, list, hint }
        }
        (error, _) => error,
    }
}
