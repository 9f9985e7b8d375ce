//! The output folder of a run, held by this process, with what earlier runs left in it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use protoseg_infer::labelling::Outputs;
use protoseg_infer::labelling::journal::{Begun, Contents, Entry, Journal, JournalError};
use protoseg_infer::labelling::stamp::Stamp;
use rustix::fs::{Access, access};

use super::super::format::Formats;
use super::super::inputs::Input;

/// An output folder into which results can be written.
pub(super) struct Place {
    pub(super) out: PathBuf,
    pub(super) outputs: Outputs,
    pub(super) journal: Journal,
    pub(super) begun: Begun,
    recipe: String,
    contents: Contents,
}

impl Place {
    /// Makes the folders, asks whether they can be written into, and notes the run.
    pub(super) fn take(out: &Path, formats: &Formats, begun: Begun, resume: bool) -> Result<Self> {
        let failed = || format!("results cannot be written into {}", out.display());
        for folder in formats.folders() {
            let folder = out.join(folder);
            // Asked and not tried: a file that a trial leaves, if it is killed, would lie among the results.
            std::fs::create_dir_all(&folder)
                .and_then(|()| Ok(access(&folder, Access::WRITE_OK | Access::EXEC_OK)?))
                .with_context(|| format!("results cannot be written into {}", folder.display()))?;
        }
        let (journal, contents) = Journal::open(out, begun.shard).with_context(failed)?;
        if !resume && !contents.entries.is_empty() {
            bail!(
                "{} holds the results of {} pictures: add --resume to go on with them, or choose another --out",
                out.display(),
                contents.entries.len()
            );
        }
        let outputs = Outputs::open(out, begun.shard).with_context(failed)?;
        journal.begin(&begun).with_context(failed)?;
        let recipe = begun.recipe.key();
        Ok(Self { out: out.into(), outputs, journal, begun, recipe, contents })
    }

    /// [`Recipe::key`](protoseg_infer::labelling::journal::Recipe::key) of the run.
    pub(super) fn recipe(&self) -> &str {
        &self.recipe
    }

    /// Has nothing count any longer that earlier runs left of a picture, before it changes.
    pub(super) fn strike(&self, name: &Path) -> Result<Option<&Entry>, JournalError> {
        let entry = self.contents.entry(name);
        entry.map_or(Ok(()), |entry| self.journal.strike(&entry.picture))?;
        Ok(entry)
    }

    /// Whether an earlier run left a picture's results, and they would come out the same.
    pub(super) fn has(&self, input: &Input, content: bool) -> bool {
        if self.contents.entries.is_empty() {
            return false;
        }
        let stamp = Stamp::of(&input.path, content);
        stamp.is_ok_and(|stamp| self.contents.finished(&self.out, &input.name, &self.recipe, &stamp).is_some())
    }
}
