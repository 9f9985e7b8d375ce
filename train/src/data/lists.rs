//! Image lists of a run: labeled, unlabeled, validation.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use protoseg_images::dataset::{ALL, Dataset};
use protoseg_images::labeled::LabeledDataset;
use protoseg_images::scan::{Scanner, UnreadableFolder};
use protoseg_models::classes::ClassTable;
use protoseg_models::digest;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::config::options::DataSource;

/// Seed of the synthetic scenes; the lists take disjoint ranges of numbers.
const SCENES: u64 = 1;
const FIRST_UNLABELED_SCENE: u64 = 1 << 31;
const FIRST_VALIDATION_SCENE: u64 = 1 << 32;

/// The lists of a run.
pub struct Lists {
    pub classes: ClassTable,
    pub labeled: Arc<LabeledDataset>,
    /// Unused by supervised training.
    pub unlabeled: Option<Arc<LabeledDataset>>,
    /// The unlabeled images whose truth is known, to score on.
    pub unlabeled_truth: Option<LabeledDataset>,
    pub validation: Option<LabeledDataset>,
}

/// Digests of classes and of the names in lists, which must not change before a run is resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDigests {
    /// Ids, names and order of the classes; their colors change nothing.
    classes: String,
    labeled: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unlabeled: Option<String>,
}

impl Lists {
    /// Reads the lists of a configuration and checks that every file exists, without decoding any.
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
        ensure!(
            root.is_dir(),
            "the folder {} of the data set is not there; name its place with `--set root=DIR`",
            root.display()
        );
        let read = |list: &Path| -> Result<LabeledDataset> {
            if is_all(dataset, root, list) {
                return Ok(all_images(dataset, root)?.with_reading(config.reading()));
            }
            let list = find_list(root, list);
            let set = LabeledDataset::from_files(dataset, root, Some(&list), "")?;
            Ok(set.with_reading(config.reading()))
        };
        let labeled = read(config.labeled.as_deref().context("`labeled` names no list")?)?;
        let validation = config.validation.as_deref().map(read).transpose()?;
        let validation = validation.map(|set| set.with_notes_of(&labeled));
        let truth = config.unlabeled_truth.as_deref().map(|truth| find_list(root, truth));
        let read = |list: &Path| -> Result<LabeledDataset> {
            let list = find_list(root, list);
            let set = LabeledDataset::unlabeled(dataset, root, &list, truth.as_deref())?;
            Ok(set.with_reading(config.reading()).with_notes_of(&labeled))
        };
        let unlabeled = config.unlabeled.as_deref().map(read).transpose()?;
        let unlabeled_truth =
            unlabeled.as_ref().map(LabeledDataset::labeled_only).filter(|set| set.count() > 0);
        ensure!(
            unlabeled_truth.is_some() || config.unlabeled_truth.is_none(),
            "`unlabeled_truth` names no image of `unlabeled`"
        );
        Ok(Self {
            classes: labeled.classes(),
            labeled: Arc::new(labeled),
            unlabeled: unlabeled.map(Arc::new),
            unlabeled_truth,
            validation,
        })
    }

    /// Takes images off the unlabeled list.
    pub fn skip_unlabeled(&mut self, skipped: &BTreeSet<PathBuf>) -> Result<()> {
        let Some(unlabeled) = &self.unlabeled else { return Ok(()) };
        let mut kept = unlabeled.as_ref().clone();
        if let LabeledDataset::Files { samples, .. } = &mut kept {
            samples.retain(|sample| !skipped.contains(&sample.image));
        }
        ensure!(kept.count() > 0, "every unlabeled image is broken: none is left to train on");
        self.unlabeled_truth = Some(kept.labeled_only())
            .filter(|truth| self.unlabeled_truth.is_some() && truth.count() > 0);
        self.unlabeled = Some(Arc::new(kept));
        Ok(())
    }

    /// Returns warnings about the image files that were read by now, one of each kind.
    pub fn warnings(&self) -> Vec<String> {
        let further = [self.unlabeled.as_deref(), self.validation.as_ref()];
        let further = further.into_iter().flatten().map(LabeledDataset::count);
        let warnings = self.labeled.warnings(self.labeled.count() + further.sum::<usize>());
        // Options of `protoseg` are keys here.
        let as_key = |warning: String| {
            warning.replace("--range ", "--set range=").replace("--channels ", "--set channels=")
        };
        warnings.into_iter().map(as_key).collect()
    }

    /// Returns remarks on images that a list names several times.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        let sets =
            [Some(self.labeled.as_ref()), self.validation.as_ref(), self.unlabeled.as_deref()];
        sets.into_iter().flatten().flat_map(LabeledDataset::remarks).cloned()
    }

    /// Returns digests of what must not change before a resume; `root` is the folder of the data set. None for synthetic scenes, which follow from the
    /// configuration.
    pub fn digests(&self, root: Option<&Path>) -> Option<ListDigests> {
        if let LabeledDataset::Synthetic { .. } = self.labeled.as_ref() {
            return None;
        }
        // The folder of the data set may be moved.
        let name = |path: &Path| {
            let below = root.and_then(|root| path.strip_prefix(root).ok());
            below.unwrap_or(path).display().to_string()
        };
        let names = |set: &LabeledDataset| -> String {
            let names: Vec<String> = set.paths().map(name).collect();
            digest::sha256_bytes(names.join("\n").as_bytes())
        };
        let classes = self.classes.classes().iter();
        let classes: Vec<String> =
            classes.map(|class| format!("{} {}", class.source_id, class.name)).collect();
        Some(ListDigests {
            classes: digest::sha256_bytes(classes.join("\n").as_bytes()),
            labeled: names(&self.labeled),
            unlabeled: self.unlabeled.as_deref().map(names),
        })
    }
}

impl ListDigests {
    /// Names what differs from these digests, and where it stands.
    pub fn changes(&self, lists: &Lists, config: &Config) -> Vec<String> {
        let Some(Self { classes, labeled, unlabeled }) = lists.digests(config.root.as_deref())
        else {
            return Vec::new();
        };
        let list = |path: Option<&Path>| {
            path.map_or_else(String::new, |path| format!(" ({})", path.display()))
        };
        let mut changes = Vec::new();
        if classes != self.classes {
            changes.push("the ids, names or order of the classes".to_owned());
        }
        if labeled != self.labeled {
            changes.push(format!("the list of labeled images{}", list(config.labeled.as_deref())));
        }
        if unlabeled != self.unlabeled {
            let list = list(config.unlabeled.as_deref());
            changes.push(format!("the list of unlabeled images{list}"));
        }
        changes
    }
}

/// A list, or a folder of images, from the data set's folder or else from the current one, where `protoseg eval --list` has
/// it. Says which one is read where both are there.
fn find_list(root: &Path, list: &Path) -> PathBuf {
    let below = root.join(list);
    if !below.exists() && list.exists() {
        return list.to_owned();
    }
    if list.exists() && list.canonicalize().ok() != below.canonicalize().ok() {
        eprintln!(
            "warning: {} is read, not {}; name the other one to read it",
            below.display(),
            list.display()
        );
    }
    below
}

/// True for the word `all`, unless a list has that name.
fn is_all(dataset: Dataset, root: &Path, list: &Path) -> bool {
    dataset == Dataset::Folder && list == Path::new(ALL) && !root.join(list).exists()
}

/// Every image of a folder data set. Says what was passed over.
fn all_images(dataset: Dataset, root: &Path) -> Result<LabeledDataset> {
    let mut scanner = Scanner::new(false);
    let set = LabeledDataset::from_split(dataset, root, ALL, &mut scanner)?;
    for UnreadableFolder { path, error } in &scanner.report().unreadable {
        eprintln!("warning: {}: {error}; its images are not in the list", path.display());
    }
    for line in scanner.report().lines() {
        eprintln!("note: {}", line.split(';').next().unwrap_or(&line));
    }
    Ok(set)
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
