//! Merging shards: proves that together they hold every image once, labeled by one model and one set of options.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::STATE_DIR;
use super::journal::{
    InputSetDigest, Journal, JournalContents, JournalEntry, JournalError, Recipe, RunHeader,
    unescape_name,
};
use super::shard::Shard;

/// Errors of merging shards.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{} holds no results of `protoseg label`", .0.display())]
    NoJournal(PathBuf),
    /// Two runs with different models, options or images.
    #[error("{} and {} belong to different labelings: their {what} differ; label one of them again", one.display(), other.display())]
    Mismatch { one: PathBuf, other: PathBuf, what: &'static str },
    /// One shard in two folders.
    #[error("shard {shard} exists twice: in {} and {}", one.display(), other.display())]
    DuplicateShard { shard: Shard, one: PathBuf, other: PathBuf },
    /// Shards of several divisions, none of which is complete, or several that differ.
    #[error(
        "the images were divided into {} shards, and {whole} of these divisions are complete; label the missing shards of one division, or remove {}* of the others",
        counts.iter().map(u64::to_string).collect::<Vec<_>>().join(" and into "), Path::new(STATE_DIR).join("journal").display()
    )]
    AmbiguousSharding {
        /// Number of shards of each division.
        counts: Vec<u64>,
        /// Number of complete divisions.
        whole: usize,
    },
    #[error("shards missing of {count}: {}", missing.iter().map(u64::to_string).collect::<Vec<_>>().join(", "))]
    Missing { count: u64, missing: Vec<u64> },
    /// A result that is absent or has another size than the journal says.
    #[error("{place} in {} is missing or has another size; label that shard again with --resume", out.display())]
    MissingOutput { out: PathBuf, place: String },
    /// An image in a shard to which it does not belong.
    #[error("{image} is in shard {shard}, to which it does not belong")]
    Misplaced { image: String, shard: Shard },
}

/// An image of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedImage {
    /// Output folder of its results.
    pub out: PathBuf,
    pub entry: JournalEntry,
}

/// All shards of one labeling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedShards {
    pub recipe: Recipe,
    /// Formats with one file for all images.
    pub combined_formats: BTreeSet<String>,
    /// The images that must be there.
    pub input_set: InputSetDigest,
    /// Labeled images by name.
    pub parts: BTreeMap<PathBuf, MergedImage>,
    /// Escaped names of images that could not be labeled.
    pub failed: BTreeSet<String>,
    /// Escaped paths of folders whose images are in no shard, as they could not be read.
    pub folders: BTreeSet<String>,
    /// Output folder of each shard.
    pub shards: BTreeMap<Shard, PathBuf>,
    /// Sentences about what was ignored: damaged lines, journals of incomplete divisions.
    pub warnings: Vec<String>,
}

/// A journal that was read, with its run.
struct RunJournal {
    out: PathBuf,
    path: PathBuf,
    run: RunHeader,
    contents: JournalContents,
}

#[derive(Deserialize)]
struct FailedLine {
    #[serde(rename = "picture")]
    image: Option<String>,
    folder: Option<String>,
}

impl MergedShards {
    /// Reads every journal of the output folders and checks them against each other and against the results.
    pub fn read(folders: &[PathBuf]) -> Result<Self, MergeError> {
        let mut found = Vec::new();
        for out in folders {
            let journals = Journal::list(out);
            if journals.is_empty() {
                return Err(MergeError::NoJournal(out.into()));
            }
            for path in journals {
                let contents = JournalContents::read(&path)?;
                let run = contents.run.clone();
                found.extend(run.map(|run| RunJournal { out: out.clone(), path, run, contents }));
            }
        }
        let (found, mut warnings) = choose_division(found)?;
        let mut shards: BTreeMap<Shard, RunJournal> = BTreeMap::new();
        for other in found {
            if let Some(one) = shards.values().next() {
                let what = "model, windows, device, ONNX Runtime or formats";
                let same = one.run.recipe == other.run.recipe
                    && one.run.combined_formats == other.run.combined_formats;
                let facts = [(what, same), ("images", one.run.input_set == other.run.input_set)];
                if let Some((what, _)) = facts.into_iter().find(|(_, equal)| !equal) {
                    return Err(MergeError::Mismatch {
                        one: one.path.clone(),
                        other: other.path,
                        what,
                    });
                }
            }
            if let Some(one) = shards.get(&other.run.shard) {
                // A folder into which shards were gathered may be named beside them.
                if one.out != other.out && one.contents.entries == other.contents.entries {
                    continue;
                }
                let shard = other.run.shard;
                return Err(MergeError::DuplicateShard {
                    shard,
                    one: one.path.clone(),
                    other: other.path,
                });
            }
            shards.insert(other.run.shard, other);
        }
        let none = || MergeError::NoJournal(folders.first().cloned().unwrap_or_default());
        let RunHeader { recipe, shard, input_set, combined_formats, .. } =
            shards.values().next().ok_or_else(none)?.run.clone();
        let missing: Vec<u64> = missing(&shards.keys().copied().collect(), shard.count());
        if !missing.is_empty() {
            return Err(MergeError::Missing { count: shard.count(), missing });
        }
        warnings
            .extend(shards.values().filter_map(|found| found.contents.damage_warning(&found.path)));
        let folders = shards.iter().map(|(&shard, found)| (shard, found.out.clone())).collect();
        let mut merged = Self {
            recipe,
            combined_formats,
            input_set,
            parts: BTreeMap::new(),
            failed: BTreeSet::new(),
            folders: BTreeSet::new(),
            shards: folders,
            warnings,
        };
        for (shard, found) in shards {
            merged.add(shard, &found.out, found.contents)?;
        }
        Ok(merged)
    }

    fn add(
        &mut self,
        shard: Shard,
        out: &Path,
        contents: JournalContents,
    ) -> Result<(), MergeError> {
        let key = self.recipe.key();
        // A journal may hold lines of earlier runs with other options.
        for entry in contents.entries.into_values().filter(|entry| entry.recipe == key) {
            let name = unescape_name(&entry.image);
            if !shard.contains(&name) {
                return Err(MergeError::Misplaced { image: entry.image, shard });
            }
            if let Some(place) = entry.missing_output(out) {
                return Err(MergeError::MissingOutput { out: out.into(), place: place.to_owned() });
            }
            self.parts.insert(name, MergedImage { out: out.into(), entry });
        }
        let path = out.join(STATE_DIR).join(format!("failed{}.jsonl", shard.suffix()));
        let text = fs::read_to_string(path).unwrap_or_default();
        let failed = text.lines().filter_map(|line| serde_json::from_str::<FailedLine>(line).ok());
        for FailedLine { image, folder } in failed {
            self.failed.extend(image);
            self.folders.extend(folder);
        }
        Ok(())
    }

    /// True if labeled and failed images together are the input set.
    pub fn is_complete(&self) -> bool {
        let labeled = self.parts.values().map(|part| part.entry.image.clone());
        let failed = self.failed.iter().cloned();
        let names: BTreeSet<String> = labeled.chain(failed).collect();
        InputSetDigest::from_escaped_names(names.into_iter().collect()) == self.input_set
    }

    /// Pixels of each class over all images.
    pub fn pixels(&self) -> Vec<u64> {
        let mut sum: Vec<u64> = Vec::new();
        for part in self.parts.values() {
            sum.resize(sum.len().max(part.entry.pixels.len()), 0);
            sum.iter_mut().zip(&part.entry.pixels).for_each(|(sum, pixels)| *sum += pixels);
        }
        sum
    }
}

/// Chooses a complete division where there are several, and says which journals are ignored.
fn choose_division(found: Vec<RunJournal>) -> Result<(Vec<RunJournal>, Vec<String>), MergeError> {
    let mut divisions: BTreeMap<u64, BTreeSet<Shard>> = BTreeMap::new();
    for RunHeader { shard, .. } in found.iter().map(|found| &found.run) {
        divisions.entry(shard.count()).or_default().insert(*shard);
    }
    if divisions.len() < 2 {
        return Ok((found, Vec::new()));
    }
    let is_complete =
        |count: u64| divisions.get(&count).is_some_and(|shards| missing(shards, count).is_empty());
    let complete: Vec<u64> =
        divisions.keys().copied().filter(|&count| is_complete(count)).collect();
    let labeling =
        |run: &RunHeader| (run.recipe.key(), run.combined_formats.clone(), run.input_set.clone());
    let labelings: BTreeSet<_> = found
        .iter()
        .map(|found| &found.run)
        .filter(|run| is_complete(run.shard.count()))
        .map(labeling)
        .collect();
    // Of several complete divisions of one labeling, any will do.
    let Some(&count) = complete.first().filter(|_| labelings.len() == 1) else {
        return Err(MergeError::AmbiguousSharding {
            counts: divisions.into_keys().collect(),
            whole: complete.len(),
        });
    };
    let (used, others): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|found| found.run.shard.count() == count);
    let warning = |found: &RunJournal| {
        format!(
            "{} is ignored: all {count} shards of another division are there",
            found.path.display()
        )
    };
    let warnings = others.iter().map(warning).collect();
    Ok((used, warnings))
}

/// Numbers of missing shards.
fn missing(there: &BTreeSet<Shard>, count: u64) -> Vec<u64> {
    let there: BTreeSet<u64> = there.iter().map(|shard| shard.number()).collect();
    (1..=count).filter(|number| !there.contains(number)).collect()
}
