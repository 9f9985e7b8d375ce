//! The lists of a run before its first step: classes without a pixel, images that stand there several
//! times or that training and validation share.

use anyhow::{Result, ensure};
use protoseg_images::label_census::LabelCensus;
use protoseg_images::labeled::LabeledDataset;
use protoseg_images::overlap::{self, ListedPixels};

use crate::config::Config;
use crate::config::options::DataSource;
use crate::data::census::{Census, ListFacts, ListKind};
use crate::data::lists::Lists;

/// Remarks on the masks of a run for its plan.
#[derive(Debug, Default)]
pub struct LabelCheck {
    /// Share of the labeled pixels that count for nothing, and the ids of the class file that do.
    pub notes: Vec<String>,
    pub warnings: Vec<String>,
}

/// Checks what a census found in the masks of all lists. Fails where a class of a folder has no
/// labeled pixel, unless `allow_absent_classes` is set, and where a list has none at all.
pub fn check_labels(config: &Config, lists: &Lists, census: &Census) -> Result<LabelCheck> {
    let mut check = LabelCheck::default();
    let truth = census.unlabeled.as_ref().filter(|_| lists.unlabeled_truth.is_some());
    let read = [
        (ListKind::Labeled, Some(lists.labeled.as_ref()), Some(&census.labeled)),
        (ListKind::Validation, lists.validation.as_ref(), census.validation.as_ref()),
        (ListKind::Unlabeled, lists.unlabeled.as_deref(), truth),
    ];
    for (kind, set, facts) in read {
        let labels = facts.and_then(|facts| facts.labels.as_ref());
        let (Some(set), Some(labels)) = (set, labels) else { continue };
        let list = kind.masks(config);
        ensure!(
            labels.labeled() > 0,
            "{list}: no pixel of the labeled images has a class: all are ignored"
        );
        check.add(config, set, &list, labels, kind == ListKind::Labeled)?;
    }
    check.warnings.extend(lists.remarks());
    check.warnings.extend(partial_truth(lists));
    check.compare_lists(lists, census);
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
            self.warnings
                .push(format!("{absent}; its mIoU leaves out each of them that is not predicted"));
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

    /// Warns of validation images that are trained on, and of images that stand several times in a
    /// list under different names.
    fn compare_lists(&mut self, lists: &Lists, census: &Census) {
        let labeled = listed(&lists.labeled, &census.labeled);
        let unlabeled = lists.unlabeled.as_deref().zip(census.unlabeled.as_ref());
        let unlabeled = unlabeled.map(|(set, facts)| listed(set, facts));
        let validation = lists.validation.as_ref().zip(census.validation.as_ref());
        let validation = validation.map(|(set, facts)| listed(set, facts));
        let sets =
            [("labeled", Some(labeled)), ("validation", validation), ("unlabeled", unlabeled)];
        for (name, set) in sets {
            let copies = set.and_then(overlap::copies);
            self.warnings.extend(
                copies.map(|copies| format!("of the {name} images, {copies}; each of them counts")),
            );
        }
        let Some(validation) = validation else { return };
        for (name, set) in [("labeled", Some(labeled)), ("unlabeled", unlabeled)] {
            let overlap = set.and_then(|set| overlap::find(set, validation));
            self.warnings.extend(overlap.map(|overlap| {
                format!(
                    "of the validation images, {overlap}, are {name} training images too: their \
                     score says nothing about new images"
                )
            }));
            let alike = set.and_then(|set| overlap::find_alike(set, validation));
            self.warnings.extend(alike.map(|alike| {
                format!(
                    "of the validation images, {alike}, look like {name} training images: copies that \
                     were saved again, or frames of one video; their score says little about new images"
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

/// Says of how many unlabeled images the truth is known, if not of all.
fn partial_truth(lists: &Lists) -> Option<String> {
    let (known, all) = (lists.unlabeled_truth.as_ref()?.count(), lists.unlabeled.as_ref()?.count());
    (known < all).then(|| {
        format!(
            "`unlabeled_truth` has the labels of {known} of {all} unlabeled images: scores on them \
             are of these {known}"
        )
    })
}

fn listed<'a>(set: &'a LabeledDataset, facts: &'a ListFacts) -> ListedPixels<'a> {
    ListedPixels { set, digests: &facts.digests, thumbnails: &facts.thumbnails }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image::{GrayImage, Luma, RgbImage};
    use protoseg_images::testing::tree;

    use super::*;
    use crate::data::census::CensusOptions;
    use crate::interrupt::Interrupt;
    use crate::progress::Progress;

    #[test]
    fn masks_are_read_by_the_census_alone() {
        let root = tree(&[
            ("classes.txt", "0 sea\n1 land\n2 ice"),
            ("train.txt", "images/a.png\nimages/b.png"),
            ("val.txt", "images/b.png"),
            ("images/x", ""),
            ("labels/x", ""),
        ])
        .unwrap();
        let at = |name: &str| root.path().join(name);
        for (name, id) in [("a", 0), ("b", 1)] {
            RgbImage::new(8, 4).save(at(&format!("images/{name}.png"))).unwrap();
            let mask = GrayImage::from_fn(8, 4, |x, _| Luma([if x < 2 { 255 } else { id }]));
            mask.save(at(&format!("labels/{name}.png"))).unwrap();
        }
        let config = Config {
            data: DataSource::Folder,
            root: Some(root.path().into()),
            labeled: Some("train.txt".into()),
            validation: Some("val.txt".into()),
            allow_absent_classes: true,
            ..Config::default()
        };
        let mut lists = Lists::open(&config).unwrap();
        let options = CensusOptions {
            config: &config,
            out: &at("run"),
            labeled_only: false,
            interrupt: Interrupt::never(),
        };
        let mut take = || Census::take(&mut lists, &options, |_| Progress::hidden(), |_| ());
        let first = take().unwrap();
        fs::remove_dir_all(at("labels")).unwrap();
        fs::remove_dir_all(at("images")).unwrap();
        let check = check_labels(&config, &lists, &first).unwrap();
        assert_eq!(check.notes, ["25.0 % of the pixels are ignored (id 255)"]);
        let warnings = check.warnings.join("\n");
        for part in [
            "the class `ice` (id 2) has no labeled pixel in the 2 masks of train.txt",
            "the classes `sea` (id 0), `ice` (id 2) have no labeled pixel in the 1 mask of val.txt",
            "of the labeled images, 1 of 2 has the pixels of another one",
            "of the validation images, 1 of 1, such as ",
        ] {
            assert!(warnings.contains(part), "{part}: {warnings}");
        }
    }
}
