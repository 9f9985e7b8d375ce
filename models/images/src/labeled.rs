//! Labelled pictures to learn from or to score on: those of a data set on disk, or drawn scenes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::dataset::{Dataset, DatasetError, LabelMapping, Sample};
use image::RgbImage;
use protoseg_models::classes::ClassTable;

use crate::image_file::{ImageFile, ImageFileError};
use crate::label_map::{self, LabelMapError};

/// A picture with its truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabeledImage {
    /// The picture.
    pub image: RgbImage,
    /// Train ids `[height, width]`, 255 where a pixel counts nowhere.
    pub truth: Vec<u8>,
}

impl LabeledImage {
    /// Height and width in pixels.
    pub fn size(&self) -> [usize; 2] {
        [self.image.height() as usize, self.image.width() as usize]
    }
}

/// Why a labelled picture could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LabeledImageError {
    /// The picture.
    #[error(transparent)]
    Picture(#[from] ImageFileError),
    /// The label file.
    #[error(transparent)]
    Label(#[from] LabelMapError),
    /// What the label file holds.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
}

/// The second step of [`LabeledDataset::open`].
pub type PendingDecode<'a> = Box<dyn FnOnce() -> Result<LabeledImage, LabeledImageError> + 'a>;

/// Labelled pictures, read one by one.
#[derive(Debug, Clone)]
pub enum LabeledDataset {
    /// Files of a data set.
    Files {
        /// The pictures; one without label counts nowhere.
        samples: Vec<Sample>,
        /// What the ids in the label files mean.
        ids: LabelMapping,
        /// Its classes.
        classes: ClassTable,
    },
    /// Street scenes drawn by rule, in the classes of Cityscapes.
    Synthetic {
        /// Seed of the series.
        seed: u64,
        /// Number of the first.
        first: u64,
        /// How many.
        count: usize,
        /// Height and width of each.
        size: [usize; 2],
    },
}

impl LabeledDataset {
    /// Pictures of a data set: those of a list file, or else of a split by name.
    pub fn from_files(
        dataset: Dataset,
        root: &Path,
        list: Option<&Path>,
        split: &str,
    ) -> Result<Self, DatasetError> {
        let classes = dataset.classes(root)?;
        let samples = match list {
            Some(list) => dataset.labeled(root, list)?,
            None => dataset.split(root, split)?,
        };
        Ok(Self::Files { samples, ids: dataset.label_mapping(&classes), classes })
    }

    /// Pictures of a list file without labels. For those that the list `truth` names too, the label there is known.
    pub fn unlabeled(
        dataset: Dataset,
        root: &Path,
        list: &Path,
        truth: Option<&Path>,
    ) -> Result<Self, DatasetError> {
        let classes = dataset.classes(root)?;
        let mut samples = dataset.unlabeled(root, list)?;
        let known =
            truth.map(|truth| dataset.labeled(root, truth)).transpose()?.unwrap_or_default();
        let known: HashMap<PathBuf, Option<PathBuf>> =
            known.into_iter().map(|sample| (sample.image, sample.label)).collect();
        for sample in &mut samples {
            sample.label = known.get(&sample.image).cloned().flatten();
        }
        Ok(Self::Files { samples, ids: dataset.label_mapping(&classes), classes })
    }

    /// The pictures whose truth is known.
    pub fn labeled_only(&self) -> Self {
        let mut known = self.clone();
        if let Self::Files { samples, .. } = &mut known {
            samples.retain(|sample| sample.label.is_some());
        }
        known
    }

    /// Keeps only the first `count`.
    pub fn truncate(&mut self, count: usize) {
        match self {
            Self::Files { samples, .. } => samples.truncate(count),
            Self::Synthetic { count: scenes, .. } => *scenes = count.min(*scenes),
        }
    }

    /// How many pictures.
    pub fn count(&self) -> usize {
        match self {
            Self::Files { samples, .. } => samples.len(),
            Self::Synthetic { count, .. } => *count,
        }
    }

    /// Its classes.
    pub fn classes(&self) -> ClassTable {
        match self {
            Self::Files { classes, .. } => classes.clone(),
            Self::Synthetic { .. } => ClassTable::cityscapes(),
        }
    }

    /// What a picture is called.
    pub fn name(&self, index: usize) -> String {
        match self {
            Self::Files { samples, .. } => samples[index].image.display().to_string(),
            Self::Synthetic { seed, first, .. } => {
                format!("scene {} of seed {seed}", first + index as u64)
            }
        }
    }

    /// Reads a picture and its truth, and checks that they fit.
    pub fn read(&self, index: usize, max_pixels: u64) -> Result<LabeledImage, LabeledImageError> {
        let (_, decode) = self.open(index, max_pixels)?;
        decode()
    }

    /// The same in two steps: how many pixels a picture has, and what decodes or draws it.
    pub fn open(
        &self,
        index: usize,
        max_pixels: u64,
    ) -> Result<(u64, PendingDecode<'_>), LabeledImageError> {
        match self {
            Self::Files { samples, ids, .. } => {
                let sample = &samples[index];
                let file = ImageFile::read(&sample.image, max_pixels)?;
                Ok((file.pixels(), Box::new(move || labelled(file, sample, ids, max_pixels))))
            }
            Self::Synthetic { seed, first, size: [height, width], .. } => {
                let draw = move || {
                    let scene = protoseg_synthetic::render_scene(
                        *seed,
                        first + index as u64,
                        *height,
                        *width,
                    );
                    let image = RgbImage::from_raw(*width as u32, *height as u32, scene.image)
                        .unwrap_or_default();
                    Ok(LabeledImage { image, truth: scene.labels })
                };
                Ok(((height * width) as u64, Box::new(draw)))
            }
        }
    }
}

fn labelled(
    file: ImageFile,
    sample: &Sample,
    ids: &LabelMapping,
    max_pixels: u64,
) -> Result<LabeledImage, LabeledImageError> {
    let image = file.decode()?;
    let Some(path) = &sample.label else {
        return Ok(LabeledImage { truth: vec![255; image.len() / 3], image });
    };
    let mut map = label_map::read(path, max_pixels)?;
    let image_size = [image.height() as usize, image.width() as usize];
    let label_size = [map.height, map.width];
    if image_size != label_size {
        let (image, label) = (sample.image.clone(), path.clone());
        return Err(DatasetError::Size { image, image_size, label, label_size }.into());
    }
    ids.map(&mut map.labels, map.width, path)?;
    Ok(LabeledImage { image, truth: map.labels })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label_map::LabelMap;

    fn folder(picture: (u32, u32), labels: &LabelMap) -> (tempfile::TempDir, LabeledDataset) {
        let root = tempfile::tempdir().unwrap();
        let place = |name: &str| -> PathBuf { root.path().join(name) };
        for name in ["images", "labels"] {
            std::fs::create_dir(place(name)).unwrap();
        }
        std::fs::write(place("classes.txt"), "3 land\n8 sea").unwrap();
        RgbImage::new(picture.0, picture.1).save(place("images/a.png")).unwrap();
        std::fs::write(place("labels/a.png"), labels.ids_png().unwrap()).unwrap();
        let set = LabeledDataset::from_files(Dataset::Folder, root.path(), None, "all").unwrap();
        (root, set)
    }

    #[test]
    fn labels_come_as_train_ids_and_misfits_are_named() {
        let map = |labels: &[u8]| LabelMap { height: 2, width: 2, labels: labels.to_vec() };
        let (_root, set) = folder((2, 2), &map(&[3, 8, 255, 3]));
        assert_eq!(set.read(0, 100).unwrap().truth, [0, 1, 255, 0]);
        let (_root, set) = folder((2, 2), &map(&[3, 8, 8, 4]));
        let message = set.read(0, 100).unwrap_err().to_string();
        assert!(message.contains("labels/a.png: the id 4 at row 1, column 1"), "{message}");
        let (_root, set) = folder((3, 2), &map(&[3; 4]));
        let message = set.read(0, 100).unwrap_err().to_string();
        assert!(
            message.contains("a.png has 3x2 pixels, but its label") && message.ends_with("has 2x2"),
            "{message}"
        );
    }

    #[test]
    fn unlabelled_pictures_may_have_a_known_truth() {
        let (root, _) = folder((2, 2), &LabelMap { height: 2, width: 2, labels: vec![3; 4] });
        RgbImage::new(3, 1).save(root.path().join("images/b.png")).unwrap();
        let list = |name: &str, lines: &str| -> PathBuf {
            std::fs::write(root.path().join(name), lines).unwrap();
            root.path().join(name)
        };
        let (pictures, truth) =
            (list("pictures.txt", "images/a.png\nimages/b.png"), list("truth.txt", "images/a.png"));
        let set = LabeledDataset::unlabeled(Dataset::Folder, root.path(), &pictures, Some(&truth))
            .unwrap();
        assert_eq!((set.count(), set.labeled_only().count()), (2, 1));
        assert_eq!(
            [set.read(0, 100).unwrap().truth, set.read(1, 100).unwrap().truth],
            [vec![0; 4], vec![255; 3]]
        );
        let set = LabeledDataset::unlabeled(Dataset::Folder, root.path(), &pictures, None).unwrap();
        assert_eq!(set.labeled_only().count(), 0);
    }

    #[test]
    fn scenes_are_sets_too() {
        let mut set = LabeledDataset::Synthetic { seed: 1, first: 3, count: 5, size: [48, 64] };
        set.truncate(2);
        let scene = set.read(1, 100).unwrap();
        assert_eq!(
            (set.count(), scene.image.dimensions(), scene.truth.len()),
            (2, (64, 48), 48 * 64)
        );
    }
}
