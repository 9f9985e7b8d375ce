//! Masks of a run's lists before its first step: values without a meaning, classes without a pixel,
//! images that training and validation share.

use anyhow::{Result, bail, ensure};
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::label_census::LabelCensus;
use protoseg_images::labeled::LabeledDataset;
use protoseg_images::overlap;

use crate::config::Config;
use crate::config::options::DataSource;
use crate::data::lists::Lists;

/// Remarks on the masks of a run for its plan.
#[derive(Debug, Default)]
pub struct LabelCheck {
    /// Share of the labeled pixels that count for nothing, and the ids of the class file that do.
    pub notes: Vec<String>,
    pub warnings: Vec<String>,
}

/// Reads the masks of all lists. Fails with every value that has no meaning, where a class of a
/// folder has no labeled pixel, unless `allow_absent_classes` is set, and where a list has none at
/// all.
pub fn check_labels(config: &Config, lists: &Lists) -> Result<LabelCheck> {
    let mut check = LabelCheck::default();
    if let LabeledDataset::Synthetic { .. } = lists.labeled.as_ref() {
        return Ok(check);
    }
    let named = |list: &Option<std::path::PathBuf>| {
        list.as_ref().map_or_else(String::new, |list| list.display().to_string())
    };
    let sets = [
        (Some(lists.labeled.as_ref()), named(&config.labeled)),
        (lists.validation.as_ref(), named(&config.validation)),
        (lists.unlabeled_truth.as_ref(), named(&config.unlabeled_truth)),
    ];
    let mut faults = Vec::new();
    let mut read = Vec::new();
    for (set, list) in sets.into_iter().filter_map(|(set, list)| Some((set?, list))) {
        match set.label_census(MAX_PIXELS) {
            Ok(census) => read.push((set, list, census)),
            Err(error) => faults.push(format!("{list}: {error}")),
        }
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    for (index, (set, list, census)) in read.iter().enumerate() {
        ensure!(
            census.labeled() > 0,
            "{list}: no pixel of the labeled images has a class: all are ignored"
        );
        check.add(config, set, list, census, index == 0)?;
    }
    check.compare_lists(lists);
    Ok(check)
}

impl LabelCheck {
    fn add(
        &mut self,
        config: &Config,
        set: &LabeledDataset,
        list: &str,
        census: &LabelCensus,
        is_training: bool,
    ) -> Result<()> {
        if is_training {
            self.notes.extend(census.ignored_text());
            self.notes.extend(LabelCensus::ignored_by_file(set));
            self.warnings.extend(census.void_classes());
        }
        let Some(absent) = census.absent_text(list) else { return Ok(()) };
        if !is_training {
            self.warnings.push(format!("{absent}; its mIoU leaves them out"));
            return Ok(());
        }
        // In a published dataset, a short list without a rare class is no mistake.
        ensure!(
            config.data != DataSource::Folder || config.allow_absent_classes,
            "{absent}; if it is meant, set allow_absent_classes=true"
        );
        self.warnings.push(absent);
        Ok(())
    }

    /// Warns of validation images that are trained on.
    fn compare_lists(&mut self, lists: &Lists) {
        let Some(validation) = &lists.validation else { return };
        let shared = [("labeled", Some(&lists.labeled)), ("unlabeled", lists.unlabeled.as_ref())];
        for (name, set) in shared {
            let overlap = set.and_then(|set| overlap::find(set, validation));
            self.warnings.extend(overlap.map(|overlap| {
                format!(
                    "of the validation images, {overlap}, are {name} training images too: their \
                     score says nothing about new images"
                )
            }));
        }
    }

    /// The remarks as lines of the plan.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let warnings = self.warnings.iter().map(|warning| format!("warning: {warning}"));
        self.notes.iter().cloned().chain(warnings)
    }
}
