//! Other journals in the same output folder: of other shards, other divisions into shards, other labelings.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Journal, JournalContents, JournalEntry, JournalError, RunHeader, unescape_name};
use crate::STATE_DIR;
use crate::shard::Shard;

impl Journal {
    /// Journals of an output folder in order of their names; none where it is not one.
    pub fn list(out: &Path) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(out.join(STATE_DIR)) else { return Vec::new() };
        let is_journal = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("journal") && name.ends_with(".jsonl")
        };
        let mut paths: Vec<PathBuf> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_journal).collect();
        paths.sort();
        paths
    }

    /// Refuses an output folder that holds another labeling. Other shards of the same one may lie there: with the same recipe,
    /// images and number of shards.
    pub fn refuse_other_runs(out: &Path, run: &RunHeader) -> Result<(), JournalError> {
        let own = Self::path(out, run.shard);
        let mut count = 0;
        for path in Self::list(out).into_iter().filter(|path| *path != own) {
            let contents = JournalContents::read(&path)?;
            let same = contents.run.as_ref().is_some_and(|other| {
                let shards = [run, other].map(|run| run.shard.count());
                other.recipe == run.recipe
                    && other.input_set == run.input_set
                    && shards[0] == shards[1]
            });
            count += if same { 0 } else { contents.entries.len() };
        }
        if count == 0 { Ok(()) } else { Err(JournalError::NotEmpty { out: out.into(), count }) }
    }

    /// Images of a shard that runs with another number of shards have labeled by the same recipe into the same folder, as far
    /// as their results are valid.
    pub fn entries_of_other_shardings(
        out: &Path,
        shard: Shard,
        recipe: &str,
    ) -> Result<Vec<JournalEntry>, JournalError> {
        let own = Self::path(out, shard);
        // Shards of the same division hold other images.
        let siblings = format!("-of-{}.jsonl", shard.count());
        let is_sibling = |path: &PathBuf| path.to_string_lossy().ends_with(&siblings);
        let mut found = Vec::new();
        for path in Self::list(out).into_iter().filter(|path| *path != own && !is_sibling(path)) {
            let entries = JournalContents::read(&path)?.entries.into_values();
            let ours = |entry: &JournalEntry| {
                entry.recipe == recipe && shard.contains(&unescape_name(&entry.image))
            };
            found
                .extend(entries.filter(|entry| ours(entry) && entry.missing_output(out).is_none()));
        }
        Ok(found)
    }
}
