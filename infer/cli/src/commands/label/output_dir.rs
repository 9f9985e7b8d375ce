//! Locked output folder of a run, with the state of earlier runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use protoseg_images::world_file;
use protoseg_label::fingerprint::FileFingerprint;
use protoseg_label::journal::{Journal, JournalContents, JournalEntry, JournalError, RunHeader};
use protoseg_label::{OutputWriter, STATE_DIR, escape_name, unescape_name};
use rustix::fs::{Access, access};

use super::super::format::OutputFormats;
use super::super::inputs::InputImage;

/// Output folder, locked by this process.
pub(super) struct OutputDir {
    pub(super) out: PathBuf,
    pub(super) outputs: OutputWriter,
    pub(super) journal: Journal,
    pub(super) run: RunHeader,
    recipe: String,
    contents: JournalContents,
    needs_place: bool,
}

/// Fingerprint of an image, with that of its world file where results hold the place on Earth.
pub(super) fn fingerprint(
    image: &Path,
    by_content: bool,
    needs_place: bool,
) -> std::io::Result<FileFingerprint> {
    let fingerprint = FileFingerprint::from_file(image, by_content)?;
    if !needs_place {
        return Ok(fingerprint);
    }
    fingerprint.with_beside(world_file::find(image).as_deref(), by_content)
}

impl OutputDir {
    /// Creates the folders, checks that they are writable, and records the run in the journal.
    pub(super) fn open(
        out: &Path,
        formats: &OutputFormats,
        run: RunHeader,
        resume: bool,
    ) -> Result<Self> {
        ensure!(
            out.is_dir() || !out.exists(),
            "{} is a file, and results need a folder; choose another --out",
            out.display()
        );
        if !resume {
            Journal::refuse_other_runs(out, &run)?;
        }
        let failed = || format!("results cannot be written into {}", out.display());
        for folder in formats.folders() {
            let folder = out.join(folder);
            // access(2) instead of a trial file, which would stay among the results after a kill.
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
        let needs_place = formats.needs_place();
        Ok(Self { out: out.into(), outputs, journal, run, recipe, contents, needs_place })
    }

    /// Differences from earlier runs, one sentence each: damaged lines of the journal, images that
    /// another recipe labels again, and results of other images or formats.
    pub(super) fn warnings(&self, inputs: &[InputImage], formats: &OutputFormats) -> Vec<String> {
        let entries = &self.contents.entries;
        let damage = self.contents.damage_warning(&Journal::path(&self.out, self.run.shard));
        let mut warnings: Vec<String> = damage
            .into_iter()
            .map(|damage| format!("{damage}: its image is labeled again"))
            .collect();
        let names: BTreeSet<String> = inputs.iter().map(|input| escape_name(&input.name)).collect();
        let other: Vec<&JournalEntry> = entries
            .values()
            .filter(|entry| entry.recipe != self.recipe && names.contains(&entry.image))
            .collect();
        if let Some(first) = other.first() {
            let earlier = self.contents.recipes.get(&first.recipe);
            let differences = earlier.map_or_else(
                || "options".to_owned(),
                |earlier| self.run.recipe.differences(earlier),
            );
            warnings.push(format!(
                "{} of {} images are labeled again: different {differences}",
                other.len(),
                inputs.len()
            ));
        }
        let requested: BTreeSet<&str> = formats.folders().collect();
        let stale = |entry: &JournalEntry, path: &str| {
            let folder = path.split('/').next().unwrap_or_default();
            !names.contains(&entry.image)
                || (entry.recipe != self.recipe && !requested.contains(folder))
        };
        let paths =
            entries.values().flat_map(|entry| entry.outputs.keys().map(move |path| (entry, path)));
        let stale_paths = paths.filter(|(entry, path)| {
            stale(entry, path) && self.out.join(unescape_name(path)).exists()
        });
        match stale_paths.count() {
            0 => {}
            count => warnings.push(format!(
                "{} keeps {count} files of earlier runs for images or formats that are not requested now",
                self.out.display()
            )),
        }
        warnings
    }

    /// Advice after a result could not be written.
    pub(super) fn advice(&self, error: &anyhow::Error) -> String {
        // Folders are created as needed, so one that is not there was there a moment ago.
        let is_gone = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
            .any(|cause| cause.kind() == std::io::ErrorKind::NotFound);
        if is_gone || !self.out.join(STATE_DIR).is_dir() {
            format!("the output folder {} was changed during the run", self.out.display())
        } else {
            "make room or fix the cause".to_owned()
        }
    }

    /// Fails if the results of an image are not there, as after the folder was removed or emptied
    /// during the run.
    pub(super) fn verify(&self, names: &[PathBuf]) -> Result<()> {
        let out = self.out.display();
        let contents = JournalContents::read(&Journal::path(&self.out, self.run.shard))
            .with_context(|| format!("the output folder {out} was removed during the run"))?;
        let is_lost = |name: &&PathBuf| {
            contents.entry(name).is_none_or(|entry| entry.missing_output(&self.out).is_some())
        };
        let lost: Vec<&PathBuf> = names.iter().filter(is_lost).collect();
        let Some(first) = lost.first() else { return Ok(()) };
        let place = contents.entry(first).and_then(|entry| entry.missing_output(&self.out));
        bail!(
            "results of {} of {} images are gone from the output folder {out}, which was changed \
             during the run (the first: {}); continue with --resume",
            lost.len(),
            names.len(),
            place.map_or_else(|| first.display().to_string(), ToOwned::to_owned)
        )
    }

    /// [`Recipe::key`](protoseg_label::journal::Recipe::key) of the run.
    pub(super) fn recipe(&self) -> &str {
        &self.recipe
    }

    /// Invalidates the journal entry of an image before its files change; returns the old entry.
    pub(super) fn invalidate(&self, name: &Path) -> Result<Option<&JournalEntry>, JournalError> {
        let entry = self.contents.entry(name);
        entry.map_or(Ok(()), |entry| self.journal.invalidate(&entry.image))?;
        Ok(entry)
    }

    /// Returns true if an earlier run left the results that this run would write.
    pub(super) fn is_done(&self, input: &InputImage, by_content: bool) -> bool {
        if self.contents.entries.is_empty() {
            return false;
        }
        let fingerprint = fingerprint(&input.path, by_content, self.needs_place);
        fingerprint.is_ok_and(|fingerprint| {
            self.contents.completed(&self.out, &input.name, &self.recipe, &fingerprint).is_some()
        })
    }
}
