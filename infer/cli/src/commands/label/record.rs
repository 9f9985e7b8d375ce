//! What becomes of pictures: results with their journal, and failures with their list.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use protoseg_infer::pipeline::Decoded;
use protoseg_infer::upsample::{Decided, pixels_by_class};
use protoseg_label::journal::Entry;
use protoseg_label::stamp::Stamp;
use protoseg_label::{OWN_FOLDER, place_of, spelled};
use protoseg_models::classes::ClassTable;
use protoseg_models::errors::sentence;
use serde_json::json;

use super::super::format::{Formats, Labelled, named};
use super::super::inputs::Input;
use super::place::Place;

/// Keeps what becomes of pictures, from any thread.
pub(super) struct Record<'a> {
    place: &'a Place,
    formats: &'a Formats,
    classes: ClassTable,
    failed: Mutex<File>,
    /// The first failure to note a failure.
    lost: Mutex<Option<std::io::Error>>,
}

impl<'a> Record<'a> {
    /// The list of failures begins anew: what failed before is tried again.
    pub(super) fn new(place: &'a Place, formats: &'a Formats, classes: ClassTable) -> Result<Self> {
        let name = format!("failed{}.jsonl", place.begun.shard.suffix());
        let path = place.out.join(OWN_FOLDER).join(name);
        let failed = File::create(&path).with_context(|| path.display().to_string())?;
        Ok(Self { place, formats, classes, failed: Mutex::new(failed), lost: Mutex::new(None) })
    }

    /// Writes a picture's results, and then its line in the journal.
    pub(super) fn keep(&self, input: &Input, item: Decoded<Stamp>, decided: Decided) -> Result<()> {
        let (labels, margin) = named(&input.name, decided);
        let picture = Labelled { image: &item.image, labels: &labels, margin: margin.as_deref() };
        self.place.strike(&input.name)?;
        let mut outputs = BTreeMap::new();
        if let Err(error) = self.write(input, &picture, item.extra.bytes, &mut outputs) {
            // Some of its files alone are no result.
            self.remove(outputs.keys())?;
            return Err(error);
        }
        let pixels = pixels_by_class(&labels.map.labels, self.classes.count());
        let recipe = self.place.recipe().to_owned();
        let entry = Entry { picture: spelled(&input.name), recipe, input: item.extra, outputs, pixels };
        Ok(self.place.journal.add(entry)?)
    }

    /// Writes a picture's files, and notes each that is in place.
    fn write(
        &self,
        input: &Input,
        picture: &Labelled<'_>,
        bytes_of_input: u64,
        outputs: &mut BTreeMap<String, u64>,
    ) -> Result<()> {
        for (place, bytes) in self.formats.files(picture, &self.classes)? {
            let path = || self.place.out.join(&place).display().to_string();
            self.place.outputs.write(&place, &bytes).with_context(path)?;
            outputs.insert(spelled(&place), bytes.len() as u64);
        }
        if let Some(link) = self.formats.link(&self.place.out, &input.path, &input.name)? {
            outputs.insert(spelled(&link), bytes_of_input);
        }
        Ok(())
    }

    /// Notes that a picture could not be labelled; results that an earlier run left of it are of another picture.
    pub(super) fn fail(&self, input: &Input, error: &anyhow::Error) {
        let Input { path, name } = input;
        let line = json!({
            "picture": spelled(name),
            "path": path_text(path),
            "error": sentence(error.as_ref()),
        });
        let written = writeln!(self.failed.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
        if let Err(error) = written.and_then(|()| self.clear(name)) {
            self.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    fn clear(&self, name: &Path) -> std::io::Result<()> {
        let entry = self.place.strike(name).map_err(std::io::Error::other)?;
        entry.map_or(Ok(()), |entry| self.remove(entry.outputs.keys()))
    }

    fn remove<'p>(&self, places: impl Iterator<Item = &'p String>) -> std::io::Result<()> {
        for place in places.map(|place| self.place.out.join(place_of(place))) {
            match std::fs::remove_file(place) {
                Err(error) if error.kind() != ErrorKind::NotFound && !is_of_kind(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether all failures could be noted.
    pub(super) fn check(&self) -> Result<()> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner).take();
        lost.map_or(Ok(()), |error| Err(error).context("a picture that failed could not be noted"))
    }
}

/// Whether results could not be written for the picture's name alone, so that the next picture's may be: it is too long, or a
/// file and a folder of others are in each other's place.
pub(super) fn is_of_name(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(is_of_kind)
}

fn is_of_kind(error: &std::io::Error) -> bool {
    let kinds =
        [ErrorKind::InvalidFilename, ErrorKind::NotADirectory, ErrorKind::IsADirectory, ErrorKind::AlreadyExists];
    kinds.contains(&error.kind())
}

/// For people: names that are no text come with replacement characters, as JSON holds nothing else.
pub(super) fn path_text(path: &Path) -> String {
    path.display().to_string()
}
