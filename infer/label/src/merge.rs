//! Shards joined: whether together they are all pictures, each labelled once by the same model and options.

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

/// Why shards cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A folder without a journal.
    #[error("{} holds no results of `protoseg label`", .0.display())]
    NoJournal(PathBuf),
    /// Two runs that would not have made the same of a picture, or were given other pictures.
    #[error("{} and {} are not of one labelling: their {what} differ; label the one again as the other", one.display(), other.display())]
    Mismatch {
        /// A journal.
        one: PathBuf,
        /// Another.
        other: PathBuf,
        /// In what they differ.
        what: &'static str,
    },
    /// One shard in two places.
    #[error("shard {shard} is there twice, in {} and {}", one.display(), other.display())]
    DuplicateShard {
        /// The shard.
        shard: Shard,
        /// A journal.
        one: PathBuf,
        /// Another.
        other: PathBuf,
    },
    /// Shards of several divisions, of which none is whole, or several that differ are.
    #[error(
        "the pictures were divided in several ways, into {} shards, and {whole} of these are whole; label the missing shards of one way, or remove {}* of the others",
        counts.iter().map(u64::to_string).collect::<Vec<_>>().join(" and into "), Path::new(STATE_DIR).join("journal").display()
    )]
    AmbiguousSharding {
        /// How many shards each way has.
        counts: Vec<u64>,
        /// How many ways are whole.
        whole: usize,
    },
    /// Shards that are not there.
    #[error("of {count} shards these are missing: {}", missing.iter().map(u64::to_string).collect::<Vec<_>>().join(", "))]
    Missing {
        /// How many there must be.
        count: u64,
        /// Numbers of those that are not there.
        missing: Vec<u64>,
    },
    /// A result that is not what the journal says.
    #[error("{place} of {} is gone or of another size: label that shard again with --resume", out.display())]
    MissingOutput {
        /// The output folder.
        out: PathBuf,
        /// The result's place.
        place: String,
    },
    /// A picture in a shard that is not its own, as no run writes it.
    #[error("{picture} lies in shard {shard}, which is not its own")]
    Misplaced {
        /// The picture.
        picture: String,
        /// Where it was found.
        shard: Shard,
    },
}

/// A picture of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedImage {
    /// The output folder that its results lie in.
    pub out: PathBuf,
    /// Its line in the journal.
    pub entry: JournalEntry,
}

/// All shards of a labelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedShards {
    /// What was made of the pictures.
    pub recipe: Recipe,
    /// The formats that hold all pictures in one file.
    pub combined_formats: BTreeSet<String>,
    /// How many pictures there must be.
    pub input_set: InputSetDigest,
    /// The pictures that were labelled, by name.
    pub parts: BTreeMap<PathBuf, MergedImage>,
    /// Names of the pictures that could not be labelled, spelled as text.
    pub failed: BTreeSet<String>,
    /// The shards, and the output folders that their results lie in.
    pub shards: BTreeMap<Shard, PathBuf>,
    /// What was passed over, as sentences: damaged lines, and journals of shards that are not whole.
    pub warnings: Vec<String>,
}

/// A journal that was read.
struct Found {
    out: PathBuf,
    path: PathBuf,
    run: RunHeader,
    contents: JournalContents,
}

#[derive(Deserialize)]
struct FailedLine {
    picture: String,
}

impl MergedShards {
    /// Reads every journal of the output folders and holds them against each other and against the results.
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
                found.extend(run.map(|run| Found { out: out.clone(), path, run, contents }));
            }
        }
        let (found, mut warnings) = whole(found)?;
        let mut shards: BTreeMap<Shard, Found> = BTreeMap::new();
        for other in found {
            if let Some(one) = shards.values().next() {
                let what = "model, windows, device, ONNX Runtime or formats";
                let same = one.run.recipe == other.run.recipe
                    && one.run.combined_formats == other.run.combined_formats;
                let facts = [(what, same), ("pictures", one.run.input_set == other.run.input_set)];
                if let Some((what, _)) = facts.into_iter().find(|(_, equal)| !equal) {
                    return Err(MergeError::Mismatch {
                        one: one.path.clone(),
                        other: other.path,
                        what,
                    });
                }
            }
            if let Some(one) = shards.get(&other.run.shard) {
                // What was gathered in a folder may be named beside it.
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
        let (parts, failed) = Default::default();
        let places = shards.iter().map(|(&shard, found)| (shard, found.out.clone())).collect();
        let mut joined =
            Self { recipe, combined_formats, input_set, parts, failed, shards: places, warnings };
        for (shard, found) in shards {
            joined.add(shard, &found.out, found.contents)?;
        }
        Ok(joined)
    }

    fn add(
        &mut self,
        shard: Shard,
        out: &Path,
        contents: JournalContents,
    ) -> Result<(), MergeError> {
        let key = self.recipe.key();
        // Lines of earlier runs with other options, or of pictures that are no longer asked for, may stand in a journal.
        for entry in contents.entries.into_values().filter(|entry| entry.recipe == key) {
            let name = unescape_name(&entry.image);
            if !shard.contains(&name) {
                return Err(MergeError::Misplaced { picture: entry.image, shard });
            }
            if let Some(place) = entry.missing_output(out) {
                return Err(MergeError::MissingOutput { out: out.into(), place: place.to_owned() });
            }
            self.parts.insert(name, MergedImage { out: out.into(), entry });
        }
        let path = out.join(STATE_DIR).join(format!("failed{}.jsonl", shard.suffix()));
        let text = fs::read_to_string(path).unwrap_or_default();
        let failed = text.lines().filter_map(|line| serde_json::from_str::<FailedLine>(line).ok());
        self.failed.extend(failed.map(|line| line.picture));
        Ok(())
    }

    /// Whether the pictures that were labelled and those that failed are all that there must be.
    pub fn is_complete(&self) -> bool {
        let labelled = self.parts.values().map(|part| part.entry.image.clone());
        let failed = self.failed.iter().cloned();
        let names: BTreeSet<String> = labelled.chain(failed).collect();
        InputSetDigest::from_escaped_names(names.into_iter().collect()) == self.input_set
    }

    /// How many pixels each class has in all pictures.
    pub fn pixels(&self) -> Vec<u64> {
        let mut sum: Vec<u64> = Vec::new();
        for part in self.parts.values() {
            sum.resize(sum.len().max(part.entry.pixels.len()), 0);
            sum.iter_mut().zip(&part.entry.pixels).for_each(|(sum, pixels)| *sum += pixels);
        }
        sum
    }
}

/// Of shards of several divisions those of one that is whole, and what was passed over.
fn whole(found: Vec<Found>) -> Result<(Vec<Found>, Vec<String>), MergeError> {
    let mut divisions: BTreeMap<u64, BTreeSet<Shard>> = BTreeMap::new();
    for RunHeader { shard, .. } in found.iter().map(|found| &found.run) {
        divisions.entry(shard.count()).or_default().insert(*shard);
    }
    if divisions.len() < 2 {
        return Ok((found, Vec::new()));
    }
    let is_whole =
        |count: u64| divisions.get(&count).is_some_and(|shards| missing(shards, count).is_empty());
    let whole: Vec<u64> = divisions.keys().copied().filter(|&count| is_whole(count)).collect();
    let of =
        |run: &RunHeader| (run.recipe.key(), run.combined_formats.clone(), run.input_set.clone());
    let alike: BTreeSet<_> = found
        .iter()
        .map(|found| &found.run)
        .filter(|run| is_whole(run.shard.count()))
        .map(of)
        .collect();
    // Of several that are whole and of one labelling, any will do.
    let Some(&count) = whole.first().filter(|_| alike.len() == 1) else {
        return Err(MergeError::AmbiguousSharding {
            counts: divisions.into_keys().collect(),
            whole: whole.len(),
        });
    };
    let (used, others): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|found| found.run.shard.count() == count);
    let over = |found: &Found| {
        format!(
            "{} is passed over: all {count} shards of another division are there",
            found.path.display()
        )
    };
    let warnings = others.iter().map(over).collect();
    Ok((used, warnings))
}

/// Numbers of the shards that are not there.
fn missing(there: &BTreeSet<Shard>, count: u64) -> Vec<u64> {
    let there: BTreeSet<u64> = there.iter().map(|shard| shard.number()).collect();
    (1..=count).filter(|number| !there.contains(number)).collect()
}
