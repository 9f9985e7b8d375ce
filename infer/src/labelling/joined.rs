//! Shards joined: whether together they are all pictures, each labelled once by the same model and options.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::OWN_FOLDER;
use super::journal::{Begun, Census, Contents, Entry, JournalError, Recipe, place_of};
use super::shard::Shard;

/// Why shards cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A folder without a journal.
    #[error("{} holds no results of `protoseg label`", .0.display())]
    NoJournal(PathBuf),
    /// Two runs that would not have made the same of a picture, or were given other pictures.
    #[error("{} and {} are not of one labelling: their {what} differ; label the one again as the other", one.display(), other.display())]
    Different {
        /// A journal.
        one: PathBuf,
        /// Another.
        other: PathBuf,
        /// In what they differ.
        what: &'static str,
    },
    /// One shard in two places.
    #[error("shard {shard} is there twice, in {} and {}", one.display(), other.display())]
    Twice {
        /// The shard.
        shard: Shard,
        /// A journal.
        one: PathBuf,
        /// Another.
        other: PathBuf,
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
    Result {
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
pub struct Part {
    /// The output folder that its results lie in.
    pub out: PathBuf,
    /// Its line in the journal.
    pub entry: Entry,
}

/// All shards of a labelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// What was made of the pictures.
    pub recipe: Recipe,
    /// The formats that hold all pictures in one file.
    pub joint: BTreeSet<String>,
    /// How many pictures there must be.
    pub census: Census,
    /// The pictures that were labelled, by name.
    pub parts: BTreeMap<PathBuf, Part>,
    /// Names of the pictures that could not be labelled, spelled as text.
    pub failed: BTreeSet<String>,
}

#[derive(Deserialize)]
struct FailedLine {
    picture: String,
}

impl Joined {
    /// Reads every journal of the output folders and holds them against each other and against the results.
    pub fn read(folders: &[PathBuf]) -> Result<Self, JoinError> {
        let mut shards: BTreeMap<Shard, (PathBuf, PathBuf, Contents)> = BTreeMap::new();
        let mut first: Option<(PathBuf, Begun)> = None;
        for out in folders {
            let journals = journals(out)?;
            for path in journals {
                let contents = Contents::read(&path)?;
                let Some(begun) = contents.begun.clone() else { continue };
                let (one, same) = first.get_or_insert_with(|| (path.clone(), begun.clone()));
                let facts = [
                    (
                        "model, windows, device, ONNX Runtime or formats",
                        same.recipe == begun.recipe && same.joint == begun.joint,
                    ),
                    ("pictures", same.census == begun.census),
                    ("numbers of shards", same.shard.count() == begun.shard.count()),
                ];
                if let Some((what, _)) = facts.into_iter().find(|(_, equal)| !equal) {
                    return Err(JoinError::Different { one: one.clone(), other: path, what });
                }
                if let Some((_, one, _)) = shards.get(&begun.shard) {
                    return Err(JoinError::Twice { shard: begun.shard, one: one.clone(), other: path });
                }
                shards.insert(begun.shard, (out.clone(), path, contents));
            }
        }
        let none = || JoinError::NoJournal(folders.first().cloned().unwrap_or_default());
        let (_, Begun { recipe, shard, census, joint, .. }) = first.ok_or_else(none)?;
        let there: BTreeSet<u64> = shards.keys().map(|shard| shard.number()).collect();
        let missing: Vec<u64> = (1..=shard.count()).filter(|number| !there.contains(number)).collect();
        if !missing.is_empty() {
            return Err(JoinError::Missing { count: shard.count(), missing });
        }
        let mut joined = Self { recipe, joint, census, parts: BTreeMap::new(), failed: BTreeSet::new() };
        for (shard, (out, _, contents)) in shards {
            joined.add(shard, &out, contents)?;
        }
        Ok(joined)
    }

    fn add(&mut self, shard: Shard, out: &Path, contents: Contents) -> Result<(), JoinError> {
        let key = self.recipe.key();
        // Lines of earlier runs with other options, or of pictures that are no longer asked for, may stand in a journal.
        for entry in contents.entries.into_values().filter(|entry| entry.recipe == key) {
            let name = place_of(&entry.picture);
            if !shard.has(&name) {
                return Err(JoinError::Misplaced { picture: entry.picture, shard });
            }
            if let Some(place) = entry.missing(out) {
                return Err(JoinError::Result { out: out.into(), place: place.to_owned() });
            }
            self.parts.insert(name, Part { out: out.into(), entry });
        }
        let path = out.join(OWN_FOLDER).join(format!("failed{}.jsonl", shard.suffix()));
        let text = fs::read_to_string(path).unwrap_or_default();
        let failed = text.lines().filter_map(|line| serde_json::from_str::<FailedLine>(line).ok());
        self.failed.extend(failed.map(|line| line.picture));
        Ok(())
    }

    /// Whether the pictures that were labelled and those that failed are all that there must be.
    pub fn is_complete(&self) -> bool {
        let labelled = self.parts.values().map(|part| part.entry.picture.clone());
        let failed = self.failed.iter().cloned();
        let names: BTreeSet<String> = labelled.chain(failed).collect();
        Census::of_spelled(names.into_iter().collect()) == self.census
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

/// The journals of an output folder.
fn journals(out: &Path) -> Result<Vec<PathBuf>, JoinError> {
    let none = || JoinError::NoJournal(out.into());
    let entries = fs::read_dir(out.join(OWN_FOLDER)).map_err(|_| none())?;
    let is_journal = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("journal") && name.ends_with(".jsonl")
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_journal).collect();
    paths.sort();
    if paths.is_empty() { Err(none()) } else { Ok(paths) }
}
