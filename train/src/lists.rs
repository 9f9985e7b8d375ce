//! The lists of labelled pictures that a run learns from and is scored on.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use protoseg_models::classes::ClassTable;
use protoseg_models::dataset::Dataset;
use protoseg_pictures::labelled::LabelledSet;

use crate::config::{Config, Data};

/// Drawn scenes come from this series in training and scoring, at numbers that do not meet.
const SCENES: u64 = 1;
/// Number of the first scene to score on.
const FIRST_VALIDATION_SCENE: u64 = 1 << 32;

/// The lists of a run.
pub struct Lists {
    /// Class names, colours and ids.
    pub classes: ClassTable,
    /// To learn from; the loader's threads read it too.
    pub labeled: Arc<LabelledSet>,
    /// To score on.
    pub validation: Option<LabelledSet>,
}

impl Lists {
    /// Reads the lists that a configuration names; every file of them is there, though none has been decoded yet.
    pub fn open(config: &Config) -> Result<Self> {
        let Some(dataset) = dataset(config.data) else {
            let scenes = |first, count| LabelledSet::Scenes { seed: SCENES, first, count, size: config.synthetic_size };
            let validation = config.synthetic_validation;
            return Ok(Self {
                classes: ClassTable::cityscapes(),
                labeled: Arc::new(scenes(0, config.synthetic_labeled)),
                validation: (validation > 0).then(|| scenes(FIRST_VALIDATION_SCENE, validation)),
            });
        };
        let root: &Path = config.root.as_deref().context("`root` names no folder")?;
        let read = |list: &Path| LabelledSet::files(dataset, root, Some(&root.join(list)), "");
        let labeled = read(config.labeled.as_deref().context("`labeled` names no list")?)?;
        let validation = config.validation.as_deref().map(read).transpose()?;
        Ok(Self { classes: labeled.classes(), labeled: Arc::new(labeled), validation })
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
