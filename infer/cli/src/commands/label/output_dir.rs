//! The output folder of a run, held by this process, with what earlier runs left in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use protoseg_label::fingerprint::FileFingerprint;
use protoseg_label::journal::{Journal, JournalContents, JournalEntry, JournalError, RunHeader};
use protoseg_label::{OutputWriter, escape_name, unescape_name};
use rustix::fs::{Access, access};

use super::super::format::OutputFormats;
use super::super::inputs::InputImage;

/// An output folder into which results can be written.
pub(super) struct OutputDir {
    pub(super) out: PathBuf,
    pub(super) outputs: OutputWriter,
    pub(super) journal: Journal,
    pub(super) run: RunHeader,
    recipe: String,
    contents: JournalContents,
}

impl OutputDir {
    /// Makes the folders, asks whether they can be written into, and notes the run.
    pub(super) fn open(
        out: &Path,
        formats: &OutputFormats,
        run: RunHeader,
        resume: bool,
    ) -> Result<Self> {
        if !resume {
            Journal::refuse_other_runs(out, &run)?;
        }
        let failed = || format!("results cannot be written into {}", out.display());
        for folder in formats.folders() {
            let folder = out.join(folder);
            // Asked and not tried: a file that a trial leaves, if it is killed, would lie among the results.
            std::fs::create_dir_all(&folder)
                .and_then(|()| Ok(access(&folder, Access::WRITE_OK | Access::EXEC_OK)?))
                .with_context(|| format!("results cannot be written into {}", folder.display()))?;
        }
        let (journal, mut contents) = Journal::open(out, run.shard).with_context(failed)?;
        if !resume && !contents.entries.is_empty() {
            return Err(
                JournalError::NotEmpty { out: out.into(), count: contents.entries.len() }.into()
            );
        }
        let outputs = OutputWriter::open(out, run.shard).with_context(failed)?;
        journal.begin(&run).with_context(failed)?;
        let recipe = run.recipe.key();
        if resume {
            for entry in Journal::entries_of_other_shardings(out, run.shard, &recipe)? {
                if contents
                    .entry(&unescape_name(&entry.image))
                    .is_none_or(|own| own.recipe != recipe)
                {
                    journal.add(entry.clone())?;
                    contents.entries.insert(entry.image.clone(), entry);
                }
            }
        }
        Ok(Self { out: out.into(), outputs, journal, run, recipe, contents })
    }

    /// What earlier runs left that this one does otherwise or not at all, as sentences: damaged lines of the journal, pictures
    /// to be labelled anew for another recipe, and results that nobody asks for any more.
    pub(super) fn warnings(&self, inputs: &[InputImage], formats: &OutputFormats) -> Vec<String> {
        let entries = &self.contents.entries;
        let damage = self.contents.damage_warning(&Journal::path(&self.out, self.run.shard));
        let mut remarks: Vec<String> = damage
            .into_iter()
            .map(|damage| format!("{damage}: what it noted is done anew"))
            .collect();
        let names: BTreeSet<String> = inputs.iter().map(|input| escape_name(&input.name)).collect();
        let other: Vec<&JournalEntry> = entries
            .values()
            .filter(|entry| entry.recipe != self.recipe && names.contains(&entry.image))
            .collect();
        if let Some(first) = other.first() {
            let earlier = self.contents.recipes.get(&first.recipe);
            let why = earlier.map_or_else(
                || "options".to_owned(),
                |earlier| self.run.recipe.differences(earlier),
            );
            remarks.push(format!(
                "{} of {} pictures are labelled anew, by other {why}",
                other.len(),
                inputs.len()
            ));
        }
        let asked: BTreeSet<&str> = formats.folders().collect();
        let stale = |entry: &JournalEntry, place: &str| {
            let folder = place.split('/').next().unwrap_or_default();
            !names.contains(&entry.image)
                || (entry.recipe != self.recipe && !asked.contains(folder))
        };
        let places = entries
            .values()
            .flat_map(|entry| entry.outputs.keys().map(move |place| (entry, place)));
        let left = places.filter(|(entry, place)| {
            stale(entry, place) && self.out.join(unescape_name(place)).exists()
        });
        match left.count() {
            0 => {}
            count => remarks.push(format!(
                "{} keeps files of earlier runs, of pictures or formats that this one is not asked for: {count}",
                self.out.display()
            )),
        }
        remarks
    }

    /// [`Recipe::key`](protoseg_label::journal::Recipe::key) of the run.
    pub(super) fn recipe(&self) -> &str {
        &self.recipe
    }

    /// Has nothing count any longer that earlier runs left of a picture, before it changes.
    pub(super) fn invalidate(&self, name: &Path) -> Result<Option<&JournalEntry>, JournalError> {
        let entry = self.contents.entry(name);
        entry.map_or(Ok(()), |entry| self.journal.invalidate(&entry.image))?;
        Ok(entry)
    }

    /// Whether an earlier run left a picture's results, and they would come out the same.
    pub(super) fn is_done(&self, input: &InputImage, content: bool) -> bool {
        if self.contents.entries.is_empty() {
            return false;
        }
        let stamp = FileFingerprint::from_file(&input.path, content);
        stamp.is_ok_and(|stamp| {
            self.contents.completed(&self.out, &input.name, &self.recipe, &stamp).is_some()
        })
    }
}
