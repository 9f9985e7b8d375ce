//! The pictures and labels of a run, from whatever data set they come.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use protoseg_models::classes::ClassTable;
use protoseg_models::dataset::{Dataset, DatasetError, LabelIds, Sample};
use protoseg_models::scenes;

use crate::config::{Config, Data};
use crate::pictures;

/// A picture with its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    /// In pixels.
    pub height: usize,
    /// In pixels.
    pub width: usize,
    /// RGB, `[height, width, 3]`.
    pub pixels: Vec<u8>,
    /// Train ids, `[height, width]`.
    pub labels: Vec<u8>,
}

/// A list of labelled pictures, read one at a time.
pub enum Samples {
    /// Files.
    Files {
        /// Pictures with their labels.
        files: Vec<Sample>,
        /// What the ids in the label files mean.
        ids: LabelIds,
    },
    /// Scenes that are drawn.
    Scenes {
        /// Of the endless set.
        seed: u64,
        /// Number of the first.
        first: u64,
        /// How many.
        count: usize,
        /// Height and width.
        size: [usize; 2],
    },
}

/// Drawn scenes come from this set in training and scoring, at numbers that do not meet.
const SCENES: u64 = 1;
/// Number of the first scene to score on.
const FIRST_VALIDATION_SCENE: u64 = 1 << 32;

/// The lists of a run.
pub struct Lists {
    /// Class names, colours and ids.
    pub classes: ClassTable,
    /// To train on; the loader's threads read it too.
    pub labeled: Arc<Samples>,
    /// To score on.
    pub validation: Option<Samples>,
}

impl Lists {
    /// Reads the lists that a configuration names; every file of them is there, though none has been decoded yet.
    pub fn open(config: &Config) -> Result<Self> {
        let Some(dataset) = dataset(config.data) else {
            let scenes = |first, count| Samples::Scenes { seed: SCENES, first, count, size: config.synthetic_size };
            let validation = config.synthetic_validation;
            return Ok(Self {
                classes: ClassTable::cityscapes(),
                labeled: Arc::new(scenes(0, config.synthetic_labeled)),
                validation: (validation > 0).then(|| scenes(FIRST_VALIDATION_SCENE, validation)),
            });
        };
        let root = config.root.as_deref().context("`root` names no folder")?;
        let classes = dataset.classes(root)?;
        let read = |list: &PathBuf| -> Result<Samples> {
            let files = dataset.labeled(root, &root.join(list))?;
            Ok(Samples::Files { files, ids: dataset.label_ids(&classes) })
        };
        let labeled = Arc::new(read(config.labeled.as_ref().context("`labeled` names no list")?)?);
        let validation = config.validation.as_ref().map(read).transpose()?;
        Ok(Self { classes, labeled, validation })
    }
}

fn dataset(data: Data) -> Option<Dataset> {
    match data {
        Data::Camvid => Some(Dataset::Camvid),
        Data::Cityscapes => Some(Dataset::Cityscapes),
        Data::Voc => Some(Dataset::Voc),
        Data::Folder => Some(Dataset::Folder),
        Data::Synthetic => None,
    }
}

impl Samples {
    /// How many there are; never none.
    pub fn count(&self) -> usize {
        match self {
            Self::Files { files, .. } => files.len(),
            Self::Scenes { count, .. } => *count,
        }
    }

    /// What a person calls one: its file, or its number.
    pub fn name(&self, index: usize) -> String {
        match self {
            Self::Files { files, .. } => files[index].image.display().to_string(),
            Self::Scenes { first, .. } => format!("scene {}", first + index as u64),
        }
    }

    /// Reads or draws one.
    pub fn read(&self, index: usize) -> Result<Labelled> {
        match self {
            Self::Files { files, ids } => read(&files[index], ids),
            Self::Scenes { seed, first, size, .. } => {
                let scene = scenes::render(*seed, first + index as u64, size[0], size[1]);
                let scenes::Scene { height, width, image, labels } = scene;
                Ok(Labelled { height, width, pixels: image, labels })
            }
        }
    }
}

fn read(sample: &Sample, ids: &LabelIds) -> Result<Labelled> {
    let path: &Path = sample.label.as_deref().with_context(|| format!("{} has no label", sample.image.display()))?;
    let picture = pictures::read(&sample.image)?;
    let mut label = pictures::read_label(path)?;
    if (label.height, label.width) != (picture.height, picture.width) {
        return Err(DatasetError::Size {
            image: sample.image.clone(),
            image_size: [picture.height, picture.width],
            label: path.into(),
            label_size: [label.height, label.width],
        }
        .into());
    }
    ids.map(&mut label.ids, label.width, path)?;
    Ok(Labelled { height: picture.height, width: picture.width, pixels: picture.pixels, labels: label.ids })
}
