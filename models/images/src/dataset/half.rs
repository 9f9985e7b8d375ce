//! Folders of which only some images have labels: what is said of them, and the splits `labeled` and
//! `unlabeled`, which take one half each.

use std::path::Path;

use super::derive::LabelFinder;
use super::layout::FolderLayout;
use super::{
    Dataset, DatasetError, Sample, SampleList, empty_folder, refuse_shared_labels, with_label,
};
use crate::scan::Scanner;

/// The images of a folder that have a label, or those that have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HalfSplit {
    Labeled,
    Unlabeled,
}

impl HalfSplit {
    /// The half that the name of a split means.
    pub(super) fn named(dataset: Dataset, root: &Path, list: &Path) -> Option<Self> {
        let name = list.strip_prefix(root).unwrap_or(list);
        match name.to_str()? {
            "labeled" | "labeled.txt" if dataset == Dataset::Folder => Some(Self::Labeled),
            "unlabeled" | "unlabeled.txt" if dataset == Dataset::Folder => Some(Self::Unlabeled),
            _ => None,
        }
    }

    /// Lists the images of the half; with labels if `labeled`, for which the unlabeled half is none.
    pub(super) fn samples(
        self,
        root: &Path,
        list: &Path,
        labeled: bool,
    ) -> Result<SampleList, DatasetError> {
        let folder = root.join(FolderLayout::find(root)?.images);
        let mut scanner = Scanner::new(false);
        let images = scanner.images(&folder);
        if images.is_empty() {
            return Err(empty_folder(&folder, &scanner));
        }
        let count = images.len();
        let mut labels = LabelFinder::new(Dataset::Folder, root, &folder);
        let mut samples = Vec::new();
        let mut missing = None;
        for image in images {
            match with_label(&mut labels, root, image.clone()) {
                Ok(sample) if self == Self::Labeled => {
                    let label = sample.label.filter(|_| labeled);
                    samples.push(Sample { image: sample.image, label });
                }
                Ok(_) => {}
                Err(error @ DatasetError::MissingLabel { .. }) => {
                    missing.get_or_insert(error);
                    if self == Self::Unlabeled {
                        samples.push(Sample { image, label: None });
                    }
                }
                Err(error) => return Err(error),
            }
        }
        match (self, missing) {
            (Self::Unlabeled, Some(missing)) if labeled => return Err(missing),
            (Self::Labeled, Some(missing)) if samples.is_empty() => return Err(missing),
            _ if samples.is_empty() => {
                let folder = folder.display();
                let hint = format!("; each of the {count} images in {folder} has a label map");
                return Err(DatasetError::EmptyFolder { folder: list.into(), hint });
            }
            _ => {}
        }
        let mut list = SampleList::new(samples);
        refuse_shared_labels(&list.samples)?;
        let half = if self == Self::Labeled { "with a label map" } else { "without a label map" };
        list.notes.push(format!(
            "{} of {count} images in {} are read, those {half}",
            list.samples.len(),
            folder.display()
        ));
        list.notes.extend(labels.remarks());
        Ok(list)
    }
}

/// Joins the errors of images without a label, where others have one, to one error.
pub(super) fn partly_labeled(
    found: Vec<Result<Sample, DatasetError>>,
    root: &Path,
    folder: &Path,
) -> Result<Vec<Result<Sample, DatasetError>>, DatasetError> {
    let is_missing = |found: &&Result<Sample, DatasetError>| {
        matches!(found, Err(DatasetError::MissingLabel { .. }))
    };
    let (images, missing) = (found.len(), found.iter().filter(is_missing).count());
    let example = found.iter().find_map(|found| found.as_ref().ok()).map(|sample| {
        let image = sample.image.strip_prefix(root).unwrap_or(&sample.image);
        image.display().to_string()
    });
    let Some(example) = example.filter(|_| missing > 0) else { return Ok(found) };
    if found.iter().any(|found| found.is_err() && !is_missing(&found)) {
        return Ok(found);
    }
    match found.into_iter().find_map(Result::err) {
        Some(DatasetError::MissingLabel { path: label, hint, .. }) => {
            // Files that may be meant, and not what else the folder holds.
            let hint = if hint.contains(" is there, ") { hint } else { String::new() };
            Err(DatasetError::Unlabeled {
                folder: folder.into(),
                missing,
                images,
                label,
                hint,
                example,
            })
        }
        other => other.map_or(Ok(Vec::new()), Err),
    }
}
