//! The look before training: every listed file is read once, and all that are broken are named together.
//!
//! The result is kept in `census.jsonl` in the run's folder, by path, size and modification time: a second start reads only
//! the files that have changed, and a resumed run notices that its data has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Error, Result};
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::labeled::{LabeledDataset, LabeledImage, LabeledImageError};
use protoseg_models::{atomic, digest};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::lists::Lists;
use crate::data::read;
use crate::interrupt::Interrupt;
use crate::progress::Progress;

/// File of the good images in the run's folder.
pub const FILE: &str = "census.jsonl";
/// File of the broken ones.
pub const BAD: &str = "bad.jsonl";
/// Broken files named on the terminal.
const NAMED: usize = 20;

/// Size in bytes and modification time in nanoseconds of a file.
pub type FileStat = (u64, u64);

/// A good image, as a line of `census.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    image: PathBuf,
    image_stat: FileStat,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label_stat: Option<FileStat>,
    /// Height and width.
    size: [usize; 2],
    /// Pixels of each class.
    pixels: Vec<u64>,
}

/// First line of `census.jsonl`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CensusHeader {
    version: u32,
    /// Digest of everything that the pixels of a file depend on beside the file.
    meaning: String,
    /// Remarks on how the images were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// A file that cannot be used, as a line of `bad.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BrokenFile {
    /// `labeled`, `unlabeled` or `validation`.
    pub list: &'static str,
    pub image: PathBuf,
    pub error: String,
}

/// Sizes of a list's images, and the pixels of each class in all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListFacts {
    /// Height and width by index.
    pub sizes: Vec<[usize; 2]>,
    pub pixels: Vec<u64>,
}

impl ListFacts {
    /// Returns the index of the largest image.
    pub fn largest(&self) -> Option<usize> {
        (0..self.sizes.len()).max_by_key(|&index| self.sizes[index].iter().product::<usize>())
    }

    /// Returns the number of images with a side below a length, and the smallest image's index.
    pub fn below(&self, side: usize) -> Option<(usize, usize)> {
        let small = |index: &usize| self.sizes[*index].iter().any(|&length| length < side);
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
    /// Folder of the run, or of a grid of runs.
    pub out: &'a Path,
    /// Takes broken unlabeled images off the list.
    pub skip_broken: bool,
    /// Reads the labeled images alone, as the others were read before.
    pub labeled_only: bool,
    pub interrupt: Interrupt,
}

impl Census {
    /// Reads every image of the lists that `census.jsonl` does not have already. `progress` starts the progress of a number
    /// of images.
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
        let mut reader = Reader { remembered, options, entries: Vec::new(), broken: Vec::new() };
        let found = reader.read_all(lists, progress);
        let mut warnings = lists.warnings();
        if warnings.is_empty() {
            warnings.clone_from(&reader.remembered.warnings);
        }
        // Whatever was read is kept, also if the rest was interrupted.
        let broken = reader.write(&lists.labeled, &warnings)?;
        let mut census = Self { warnings, ..found? };
        if options.labeled_only && broken.is_empty() {
            return Ok(census);
        }
        write_broken(options.out, &broken)?;
        let skipping = |file: &&BrokenFile| options.skip_broken && file.list == "unlabeled";
        census.skipped = broken.iter().filter(skipping).map(|file| file.image.clone()).collect();
        let faults: Vec<&BrokenFile> = broken.iter().filter(|file| !skipping(file)).collect();
        if faults.is_empty() {
            lists.skip_unlabeled(&census.skipped)?;
            return Ok(census);
        }
        Err(refusal(&faults, options.out, say))
    }
}

/// Reads lists one after the other.
struct Reader<'a> {
    remembered: Remembered,
    options: &'a CensusOptions<'a>,
    entries: Vec<Entry>,
    broken: Vec<BrokenFile>,
}

impl Reader<'_> {
    fn read_all(&mut self, lists: &Lists, progress: impl Fn(usize) -> Progress) -> Result<Census> {
        let others = !self.options.labeled_only;
        let unlabeled = lists.unlabeled.as_deref().filter(|_| others);
        let validation = lists.validation.as_ref().filter(|_| others);
        let count = |set: Option<&LabeledDataset>| set.map_or(0, LabeledDataset::count);
        let progress = progress(lists.labeled.count() + count(unlabeled) + count(validation));
        let labeled = self.read_list("labeled", &lists.labeled, &progress)?;
        let mut optional = |list, set: Option<&LabeledDataset>| {
            set.map(|set| self.read_list(list, set, &progress)).transpose()
        };
        let unlabeled = optional("unlabeled", unlabeled)?;
        let validation = optional("validation", validation)?;
        Ok(Census { labeled, unlabeled, validation, ..Census::default() })
    }

    fn read_list(
        &mut self,
        list: &'static str,
        set: &LabeledDataset,
        progress: &Progress,
    ) -> Result<ListFacts> {
        let classes = set.classes().count();
        let synthetic = matches!(set, LabeledDataset::Synthetic { .. });
        if let (LabeledDataset::Synthetic { size, count, .. }, true) = (set, list != "labeled") {
            // Scenes cannot be broken.
            return Ok(ListFacts { sizes: vec![*size; *count], pixels: Vec::new() });
        }
        let (remembered, interrupt) = (&self.remembered, &self.options.interrupt);
        let ended = AtomicBool::new(false);
        let look = |index: usize| -> Result<Option<Looked>> {
            if ended.load(Ordering::Relaxed) || interrupt.check().is_err() {
                ended.store(true, Ordering::Relaxed);
                return Ok(None);
            }
            let looked = remembered.look(set, index, classes)?;
            progress.done();
            Ok(Some(looked))
        };
        let looked: Vec<Result<Option<Looked>>> =
            (0..set.count()).into_par_iter().map(look).collect();
        let mut facts = ListFacts { sizes: Vec::new(), pixels: vec![0; classes] };
        for (index, looked) in looked.into_iter().enumerate() {
            match looked? {
                None => {}
                Some(Looked::Good(entry)) => {
                    facts.sizes.push(entry.size);
                    facts.pixels.iter_mut().zip(&entry.pixels).for_each(|(sum, own)| *sum += own);
                    if !synthetic {
                        self.entries.push(entry);
                    }
                }
                Some(Looked::Broken(errors)) => {
                    let image = PathBuf::from(set.name(index));
                    self.broken.extend(errors.into_iter().map(|error| BrokenFile {
                        list,
                        image: image.clone(),
                        error,
                    }));
                }
            }
        }
        interrupt.check()?;
        Ok(facts)
    }

    /// Writes the good images of this census and of those before it; nothing if all were known, or for synthetic scenes.
    fn write(self, labeled: &LabeledDataset, warnings: &[String]) -> Result<Vec<BrokenFile>> {
        let Self { remembered: Remembered { mut entries, read, .. }, options, .. } = self;
        if read.load(Ordering::Relaxed) == 0 || self.entries.is_empty() {
            return Ok(self.broken);
        }
        entries.extend(self.entries.into_iter().map(|entry| (entry.key(), entry)));
        let header =
            CensusHeader { version: 1, meaning: meaning(labeled), warnings: warnings.to_vec() };
        let mut text = serde_json::to_string(&header)?;
        for entry in entries.values() {
            write!(text, "\n{}", serde_json::to_string(entry)?)?;
        }
        text.push('\n');
        write_file(options.out, FILE, &text)?;
        Ok(self.broken)
    }
}

enum Looked {
    Good(Entry),
    Broken(Vec<String>),
}

/// Images of an earlier census by their paths.
struct Remembered {
    entries: BTreeMap<EntryKey, Entry>,
    /// Images that were read as they were not known.
    read: AtomicUsize,
    warnings: Vec<String>,
}

/// Paths of an image and of its label.
type EntryKey = (PathBuf, Option<PathBuf>);

impl Entry {
    fn key(&self) -> EntryKey {
        (self.image.clone(), self.label.clone())
    }
}

impl Remembered {
    /// Reads the census of a run's folder; nothing if there is none, or if pixels had another meaning.
    fn read(out: &Path, labeled: &LabeledDataset) -> Self {
        let mut entries = BTreeMap::new();
        let text = std::fs::read_to_string(out.join(FILE)).unwrap_or_default();
        let mut lines = text.lines();
        let header = lines.next().and_then(|line| serde_json::from_str::<CensusHeader>(line).ok());
        let header =
            header.filter(|header| header.version == 1 && header.meaning == meaning(labeled));
        if header.is_some() {
            let parsed = lines.filter_map(|line| serde_json::from_str::<Entry>(line).ok());
            entries.extend(parsed.map(|entry| (entry.key(), entry)));
        }
        let warnings = header.map(|header| header.warnings).unwrap_or_default();
        Self { entries, read: AtomicUsize::new(0), warnings }
    }

    fn look(&self, set: &LabeledDataset, index: usize, classes: usize) -> Result<Looked> {
        let LabeledDataset::Files { samples, .. } = set else {
            let sample = read::read(set, index)?;
            return Ok(Looked::Good(entry(PathBuf::new(), None, &sample, classes)));
        };
        let sample = &samples[index];
        let stats = (stat(&sample.image), sample.label.as_deref().map(stat));
        if let Some(entry) = self.entries.get(&(sample.image.clone(), sample.label.clone()))
            && (Some(entry.image_stat), entry.label_stat.map(Some)) == stats
        {
            return Ok(Looked::Good(entry.clone()));
        }
        self.read.fetch_add(1, Ordering::Relaxed);
        match read::read(set, index) {
            Ok(read) => {
                let entry = entry(sample.image.clone(), sample.label.clone(), &read, classes);
                let (image_stat, label_stat) = (stats.0.unwrap_or_default(), stats.1.flatten());
                Ok(Looked::Good(Entry { image_stat, label_stat, ..entry }))
            }
            Err(error) if error.is::<LabeledImageError>() => {
                let mut errors = vec![error.to_string()];
                errors.extend(label_error(&error, set, index));
                Ok(Looked::Broken(errors))
            }
            Err(error) => Err(error),
        }
    }
}

fn entry(image: PathBuf, label: Option<PathBuf>, sample: &LabeledImage, classes: usize) -> Entry {
    let mut pixels = vec![0; 256];
    for &label in &sample.truth {
        pixels[usize::from(label)] += 1;
    }
    pixels.truncate(classes);
    let size = sample.size();
    Entry { image, image_stat: (0, 0), label, label_stat: None, size, pixels }
}

/// Returns the error of the label of an image that is broken itself, so that both are mended at once.
fn label_error(error: &Error, set: &LabeledDataset, index: usize) -> Option<String> {
    let LabeledDataset::Files { samples, ids, .. } = set else { return None };
    let Some(LabeledImageError::Image(_)) = error.downcast_ref() else { return None };
    let path = samples[index].label.as_deref()?;
    ids.read(path, MAX_PIXELS).err().map(|error| error.to_string())
}

/// Returns size and modification time of a file; None if it cannot be asked.
pub fn stat(path: &Path) -> Option<FileStat> {
    let metadata = path.metadata().ok()?;
    let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some((metadata.len(), u64::try_from(modified.as_nanos()).ok()?))
}

/// Names the listed files whose size or modification time differs from those in the census of a run's folder.
pub fn changed_files(out: &Path, lists: &Lists) -> Vec<PathBuf> {
    let remembered = Remembered::read(out, &lists.labeled);
    let mut changed = Vec::new();
    for set in [Some(lists.labeled.as_ref()), lists.unlabeled.as_deref()].into_iter().flatten() {
        let LabeledDataset::Files { samples, .. } = set else { continue };
        for sample in samples {
            let key = (sample.image.clone(), sample.label.clone());
            let Some(entry) = remembered.entries.get(&key) else { continue };
            if stat(&sample.image) != Some(entry.image_stat) {
                changed.push(sample.image.clone());
            }
            if let Some(label) =
                sample.label.as_deref().filter(|&label| stat(label) != entry.label_stat)
            {
                changed.push(label.to_owned());
            }
        }
    }
    changed
}

/// Digest of the classes and of how files become labels and pixels.
fn meaning(labeled: &LabeledDataset) -> String {
    let text = match labeled {
        LabeledDataset::Files { ids, classes, reading, .. } => {
            format!("{ids:?} {classes:?} {:?}", reading.choices())
        }
        LabeledDataset::Synthetic { .. } => "synthetic".to_owned(),
    };
    digest::sha256_bytes(text.as_bytes())
}

fn write_file(out: &Path, name: &str, text: &str) -> Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let path = out.join(name);
    atomic::write(&path, text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Writes the broken files, or removes the file of an earlier census.
fn write_broken(out: &Path, broken: &[BrokenFile]) -> Result<()> {
    if broken.is_empty() {
        let path = out.join(BAD);
        return match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        };
    }
    let lines = broken.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    write_file(out, BAD, &(lines.join("\n") + "\n"))
}

/// Prints the first broken files and returns the error that ends the run; of a single file, its own.
fn refusal(faults: &[&BrokenFile], out: &Path, say: impl Fn(&str)) -> Error {
    if let [single] = faults {
        let way_out =
            if single.list == "unlabeled" { "; `skip_broken = true` goes without it" } else { "" };
        return anyhow::anyhow!("{}{way_out}", single.error);
    }
    let width = faults.iter().map(|fault| fault.list.len()).max().unwrap_or(0);
    for fault in faults.iter().take(NAMED) {
        say(&format!("  {:width$}  {}", fault.list, fault.error));
    }
    if faults.len() > NAMED {
        say(&format!("  and {} more", faults.len() - NAMED));
    }
    let count = |list: &str| faults.iter().filter(|fault| fault.list == list).count();
    let counts: Vec<String> = ["labeled", "unlabeled", "validation"]
        .into_iter()
        .filter(|list| count(list) > 0)
        .map(|list| format!("{} {list}", count(list)))
        .collect();
    let way_out = if count("unlabeled") > 0 {
        "; `skip_broken = true` goes without the unlabeled ones"
    } else {
        ""
    };
    anyhow::anyhow!(
        "{} files cannot be used ({}), all of them are in {}: mend them, or take them off the lists{way_out}",
        faults.len(),
        counts.join(", "),
        out.join(BAD).display()
    )
}
