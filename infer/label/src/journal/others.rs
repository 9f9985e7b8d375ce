//! Journals beside a run's own in one output folder: of other shards, of other divisions into shards, of other labellings.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Journal, JournalContents, JournalEntry, JournalError, RunHeader, unescape_name};
use crate::STATE_DIR;
use crate::shard::Shard;

impl Journal {
    /// The journals of an output folder, in order of their names; none where it is not one.
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

    /// Refuses an output folder in which another labelling has results. Other shards of the same one may lie there: with the
    /// same recipe, pictures and number of shards.
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

    /// Pictures of a shard that runs of another number of shards have labelled by the same recipe into the same folder, as far as
    /// their results are there.
    pub fn entries_of_other_shardings(
        out: &Path,
        shard: Shard,
        recipe: &str,
    ) -> Result<Vec<JournalEntry>, JournalError> {
        let own = Self::path(out, shard);
        // Those of the same number have other pictures, and may be many.
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
