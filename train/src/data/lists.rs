//! The lists of pictures that a run learns from and is scored on.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use protoseg_images::dataset::Dataset;
use protoseg_images::labeled::LabeledDataset;
use protoseg_models::classes::ClassTable;
use protoseg_models::digest;

use crate::config::Config;
use crate::config::options::DataSource;

/// Drawn scenes come from this series, at numbers that do not meet.
const SCENES: u64 = 1;
/// Number of the first scene without labels.
const FIRST_UNLABELED_SCENE: u64 = 1 << 31;
/// Number of the first scene to score on.
const FIRST_VALIDATION_SCENE: u64 = 1 << 32;

/// The lists of a run.
pub struct Lists {
    /// Class names, colours and ids.
    pub classes: ClassTable,
    /// To learn from; the loader's threads read it too.
    pub labeled: Arc<LabeledDataset>,
    /// To learn from without labels; supervised training passes them by.
    pub unlabeled: Option<Arc<LabeledDataset>>,
    /// Unlabelled pictures whose truth is known, to score on.
    pub unlabeled_truth: Option<LabeledDataset>,
    /// To score on.
    pub validation: Option<LabeledDataset>,
}

impl Lists {
    /// Reads the lists that a configuration names; every file of them is there, though none has been decoded yet.
    pub fn open(config: &Config) -> Result<Self> {
        let Some(dataset) = dataset(config.data) else {
            let scenes = |first, count: usize| {
                let set = LabeledDataset::Synthetic {
                    seed: SCENES,
                    first,
                    count,
                    size: config.synthetic_size,
                };
                (count > 0).then_some(set)
            };
            let labeled =
                scenes(0, config.synthetic_labeled).context("`synthetic_labeled` is 0")?;
            let unlabeled = scenes(FIRST_UNLABELED_SCENE, config.synthetic_unlabeled);
            return Ok(Self {
                classes: ClassTable::cityscapes(),
                labeled: Arc::new(labeled),
                unlabeled: unlabeled.clone().map(Arc::new),
                unlabeled_truth: unlabeled,
                validation: scenes(FIRST_VALIDATION_SCENE, config.synthetic_validation),
            });
        };
        let root: &Path = config.root.as_deref().context("`root` names no folder")?;
        let read =
            |list: &Path| LabeledDataset::from_files(dataset, root, Some(&root.join(list)), "");
        let labeled = read(config.labeled.as_deref().context("`labeled` names no list")?)?;
        let validation = config.validation.as_deref().map(read).transpose()?;
        let truth = config.unlabeled_truth.as_deref().map(|truth| root.join(truth));
        let read = |list: &Path| {
            LabeledDataset::unlabeled(dataset, root, &root.join(list), truth.as_deref())
        };
        let unlabeled = config.unlabeled.as_deref().map(read).transpose()?;
        let unlabeled_truth =
            unlabeled.as_ref().map(LabeledDataset::labeled_only).filter(|set| set.count() > 0);
        ensure!(
            unlabeled_truth.is_some() || config.unlabeled_truth.is_none(),
            "`unlabeled_truth` names none of the pictures of `unlabeled`"
        );
        Ok(Self {
            classes: labeled.classes(),
            labeled: Arc::new(labeled),
            unlabeled: unlabeled.map(Arc::new),
            unlabeled_truth,
            validation,
        })
    }
}

impl Lists {
    /// A digest of the classes and of what the pictures that are learnt from are called: what a run that goes on must find
    /// again. None for drawn scenes, which the configuration says.
    pub fn digest(&self) -> Option<String> {
        let LabeledDataset::Synthetic { .. } = self.labeled.as_ref() else {
            let sets = [Some(&self.labeled), self.unlabeled.as_ref()];
            let names = sets.into_iter().map(|set| {
                let names = set.map(|set| {
                    (0..set.count()).map(|index| set.name(index)).collect::<Vec<_>>().join("\n")
                });
                names.unwrap_or_default()
            });
            let parts: Vec<String> =
                std::iter::once(format!("{:?}", self.classes)).chain(names).collect();
            return Some(digest::sha256_bytes(parts.join("\n\n").as_bytes()));
        };
        None
    }
}

fn dataset(data: DataSource) -> Option<Dataset> {
    match data {
        DataSource::Camvid => Some(Dataset::Camvid),
        DataSource::Cityscapes => Some(Dataset::Cityscapes),
        DataSource::Voc => Some(Dataset::Voc),
        DataSource::Folder => Some(Dataset::Folder),
        DataSource::Synthetic => None,
    }
}
