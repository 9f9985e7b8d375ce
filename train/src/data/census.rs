//! The look before training: every listed file is read once, and all that are broken are named together.
//!
//! The result is kept in `census.jsonl` in the run's folder, by path, size and modification time: a second start reads only
//! the files that have changed, and a resumed run notices that its data has.

mod broken;
mod memory;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use protoseg_images::label_census::LabelCensus;
use protoseg_images::labeled::LabeledDataset;
use protoseg_images::palettes::PaletteCensus;
use protoseg_images::thumbnail::Thumbnail;
use protoseg_models::atomic;
use rayon::prelude::*;

use self::broken::BrokenFile;
pub use self::memory::changed_files;
use self::memory::{Entry, Looked, Remembered};
use crate::config::Config;
use crate::data::lists::Lists;
use crate::interrupt::Interrupt;
use crate::progress::Progress;

/// File of the good images in the run's folder.
pub const FILE: &str = "census.jsonl";
/// File of the broken ones.
pub const BAD: &str = "bad.jsonl";

/// A list of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListKind {
    Labeled,
    Unlabeled,
    Validation,
}

impl ListKind {
    const ALL: [Self; 3] = [Self::Labeled, Self::Unlabeled, Self::Validation];

    pub fn name(self) -> &'static str {
        match self {
            Self::Labeled => "labeled",
            Self::Unlabeled => "unlabeled",
            Self::Validation => "validation",
        }
    }

    /// Name of the list file that gives the list its masks.
    pub fn masks(self, config: &Config) -> String {
        let list = match self {
            Self::Labeled => &config.labeled,
            Self::Unlabeled => &config.unlabeled_truth,
            Self::Validation => &config.validation,
        };
        list.as_ref().map_or_else(String::new, |list| list.display().to_string())
    }
}

/// Facts of the images of a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListFacts {
    /// Height and width by index.
    pub sizes: Vec<[usize; 2]>,
    /// Pixels of each class in all of them.
    pub pixels: Vec<u64>,
    /// Digests of their pixels by index; empty for scenes that were not rendered.
    pub digests: Vec<String>,
    /// Their thumbnails.
    pub thumbnails: Vec<Thumbnail>,
    /// Pixels of the label files by their meaning; None for synthetic scenes.
    pub labels: Option<LabelCensus>,
}

impl ListFacts {
    /// Returns the index of the largest image.
    pub fn largest(&self) -> Option<usize> {
        (0..self.sizes.len()).max_by_key(|&index| self.sizes[index].iter().product::<usize>())
    }

    /// Returns the number of images below a height or width, and the smallest one's index.
    pub fn below(&self, limits: [usize; 2]) -> Option<(usize, usize)> {
        let small = |index: &usize| {
            self.sizes[*index].iter().zip(limits).any(|(&length, limit)| length < limit)
        };
        let smallest = (0..self.sizes.len())
            .filter(small)
            .min_by_key(|&index| self.sizes[index].iter().product::<usize>())?;
        Some(((0..self.sizes.len()).filter(small).count(), smallest))
    }
}

/// Facts of the lists that were read.
#[derive(Debug, Clone, Default)]
pub struct Census {
    pub labeled: ListFacts,
    pub unlabeled: Option<ListFacts>,
    pub validation: Option<ListFacts>,
    /// Unlabeled images that were left out as they are broken.
    pub skipped: BTreeSet<PathBuf>,
    /// Remarks on how the images were read, also in an earlier census.
    pub warnings: Vec<String>,
}

/// Choices of a census.
pub struct CensusOptions<'a> {
    pub config: &'a Config,
    /// Folder of the run, or of a grid of runs.
    pub out: &'a Path,
    /// Reads the labeled images alone, as the others were read before.
    pub labeled_only: bool,
    pub interrupt: Interrupt,
}

impl Census {
    /// Reads every image of the lists that `census.jsonl` does not have already; broken unlabeled ones are taken off the list
    /// with `skip_broken`. `progress` starts the progress of a number of images.
    ///
    /// # Errors
    /// If files are broken, after all of them were read and `bad.jsonl` was written; the first are printed by `say`.
    pub fn take(
        lists: &mut Lists,
        options: &CensusOptions,
        progress: impl Fn(usize) -> Progress,
        say: impl Fn(&str),
    ) -> Result<Self> {
        let remembered = Remembered::read(options.out, &lists.labeled);
        let mut reader = Reader {
            remembered,
            options,
            entries: Vec::new(),
            broken: Vec::new(),
            palettes: PaletteCensus::default(),
        };
        let found = reader.read_all(lists, progress);
        let mut warnings = lists.warnings();
        let Reader { remembered, entries, broken, .. } = reader;
        if warnings.is_empty() {
            warnings.clone_from(&remembered.warnings);
        }
        // Whatever was read is kept, also if the rest was interrupted.
        remembered.write(options.out, entries, &lists.labeled, &warnings)?;
        let mut census = Self { warnings, ..found? };
        if options.labeled_only && broken.is_empty() {
            return Ok(census);
        }
        broken::write(options.out, &broken)?;
        let config = options.config;
        let (skipped, faults): (Vec<_>, Vec<_>) = broken
            .into_iter()
            .partition(|file| config.skip_broken && file.list == ListKind::Unlabeled);
        census.skipped = skipped.into_iter().map(|file| file.image).collect();
        if faults.is_empty() {
            lists.skip_unlabeled(&census.skipped)?;
            return Ok(census);
        }
        let optional = [
            (ListKind::Unlabeled, lists.unlabeled.as_deref()),
            (ListKind::Validation, lists.validation.as_ref()),
        ];
        let optional = optional.into_iter().filter_map(|(list, set)| Some((list, set?)));
        let sets: Vec<(ListKind, &LabeledDataset)> =
            std::iter::once((ListKind::Labeled, lists.labeled.as_ref())).chain(optional).collect();
        Err(broken::refusal(faults, &sets, config, options.out, say))
    }
}

/// Reads lists one after the other.
struct Reader<'a> {
    remembered: Remembered,
    options: &'a CensusOptions<'a>,
    entries: Vec<Entry>,
    broken: Vec<BrokenFile>,
    /// Palettes of the masks of all lists: those of validation must not differ from those of training.
    palettes: PaletteCensus,
}

impl Reader<'_> {
    fn read_all(&mut self, lists: &Lists, progress: impl Fn(usize) -> Progress) -> Result<Census> {
        let others = !self.options.labeled_only;
        let unlabeled = lists.unlabeled.as_deref().filter(|_| others);
        let validation = lists.validation.as_ref().filter(|_| others);
        let count = |set: Option<&LabeledDataset>| set.map_or(0, LabeledDataset::count);
        let progress = progress(lists.labeled.count() + count(unlabeled) + count(validation));
        let labeled = self.read_list(ListKind::Labeled, &lists.labeled, &progress)?;
        let mut optional = |list, set: Option<&LabeledDataset>| {
            set.map(|set| self.read_list(list, set, &progress)).transpose()
        };
        let unlabeled = optional(ListKind::Unlabeled, unlabeled)?;
        let validation = optional(ListKind::Validation, validation)?;
        Ok(Census { labeled, unlabeled, validation, ..Census::default() })
    }

    fn read_list(
        &mut self,
        list: ListKind,
        set: &LabeledDataset,
        progress: &Progress,
    ) -> Result<ListFacts> {
        let synthetic = matches!(set, LabeledDataset::Synthetic { .. });
        if let (LabeledDataset::Synthetic { size, count, .. }, true) =
            (set, list != ListKind::Labeled)
        {
            // Scenes cannot be broken.
            return Ok(ListFacts { sizes: vec![*size; *count], ..ListFacts::default() });
        }
        let (remembered, interrupt) = (&self.remembered, &self.options.interrupt);
        let ended = AtomicBool::new(false);
        let look = |index: usize| -> Result<Option<Looked>> {
            if ended.load(Ordering::Relaxed) || interrupt.check().is_err() {
                ended.store(true, Ordering::Relaxed);
                return Ok(None);
            }
            let looked = remembered.look(set, index)?;
            progress.done();
            Ok(Some(looked))
        };
        let looked: Vec<Result<Option<Looked>>> =
            (0..set.count()).into_par_iter().map(look).collect();
        let mut facts =
            ListFacts { pixels: vec![0; set.classes().count()], ..ListFacts::default() };
        let mut labels = LabelCensus::new(set);
        for (index, looked) in looked.into_iter().enumerate() {
            match looked? {
                None => {}
                Some(Looked::Good(entry)) => {
                    facts.sizes.push(entry.size);
                    facts.pixels.iter_mut().zip(&entry.pixels).for_each(|(sum, own)| *sum += own);
                    facts.digests.extend(entry.digest.clone());
                    facts.thumbnails.extend(entry.thumbnail.clone());
                    if let Some(counts) = entry.counts() {
                        labels.add(&counts);
                    }
                    if let Some(label) = &entry.label {
                        self.palettes.add(&entry.palette, &label.0);
                    }
                    if !synthetic {
                        self.entries.push(entry);
                    }
                }
                Some(Looked::Broken(errors)) => {
                    let image = image_path(set, index);
                    self.broken.extend(errors.into_iter().map(|error| BrokenFile {
                        list,
                        index,
                        image: image.clone(),
                        error,
                    }));
                }
            }
        }
        interrupt.check()?;
        if let Some((index, error)) = set.palette_fault(&self.palettes) {
            // Said once.
            self.palettes = PaletteCensus::default();
            let image = image_path(set, index);
            self.broken.push(BrokenFile { list, index, image, error });
        }
        facts.labels = (!synthetic).then_some(labels);
        Ok(facts)
    }
}

fn image_path(set: &LabeledDataset, index: usize) -> PathBuf {
    match set {
        LabeledDataset::Files { samples, .. } => samples[index].image.clone(),
        LabeledDataset::Synthetic { .. } => set.name(index).into(),
    }
}

fn write_file(out: &Path, name: &str, text: &str) -> Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let path = out.join(name);
    atomic::write(&path, text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}
