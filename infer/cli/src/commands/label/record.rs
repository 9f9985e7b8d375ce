//! What becomes of pictures: results with their journal, and failures with their list.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use protoseg_infer::pipeline::DecodedImage;
use protoseg_infer::upsample::{Prediction, pixels_by_class};
use protoseg_label::fingerprint::FileFingerprint;
use protoseg_label::journal::JournalEntry;
use protoseg_label::{STATE_DIR, escape_name, unescape_name};
use protoseg_models::classes::ClassTable;
use protoseg_models::errors::error_chain;
use serde_json::json;

use super::super::format::{LabeledImage, OutputFormats, into_image_labels};
use super::super::inputs::InputImage;
use super::output_dir::OutputDir;

/// Keeps what becomes of pictures, from any thread.
pub(super) struct ResultRecorder<'a> {
    place: &'a OutputDir,
    formats: &'a OutputFormats,
    classes: ClassTable,
    failed: Mutex<File>,
    /// The first failure to note a failure.
    lost: Mutex<Option<std::io::Error>>,
}

impl<'a> ResultRecorder<'a> {
    /// The list of failures begins anew: what failed before is tried again.
    pub(super) fn new(
        place: &'a OutputDir,
        formats: &'a OutputFormats,
        classes: ClassTable,
    ) -> Result<Self> {
        let name = format!("failed{}.jsonl", place.run.shard.suffix());
        let path = place.out.join(STATE_DIR).join(name);
        let failed = File::create(&path).with_context(|| path.display().to_string())?;
        Ok(Self { place, formats, classes, failed: Mutex::new(failed), lost: Mutex::new(None) })
    }

    /// Writes a picture's results, and then its line in the journal.
    pub(super) fn write_results(
        &self,
        input: &InputImage,
        item: DecodedImage<FileFingerprint>,
        decided: Prediction,
    ) -> Result<()> {
        let (labels, margin) = into_image_labels(&input.name, decided);
        let picture =
            LabeledImage { image: &item.image, labels: &labels, margin: margin.as_deref() };
        self.place.invalidate(&input.name)?;
        let mut outputs = BTreeMap::new();
        if let Err(error) = self.write(input, &picture, item.extra.bytes, &mut outputs) {
            // Some of its files alone are no result.
            self.remove(outputs.keys())?;
            return Err(error);
        }
        let pixels = pixels_by_class(&labels.map.labels, self.classes.count());
        let recipe = self.place.recipe().to_owned();
        let entry = JournalEntry {
            image: escape_name(&input.name),
            recipe,
            input: item.extra,
            outputs,
            pixels,
        };
        Ok(self.place.journal.add(entry)?)
    }

    /// Writes a picture's files, and notes each that is in place.
    fn write(
        &self,
        input: &InputImage,
        picture: &LabeledImage<'_>,
        bytes_of_input: u64,
        outputs: &mut BTreeMap<String, u64>,
    ) -> Result<()> {
        for (place, bytes) in self.formats.files(picture, &self.classes)? {
            let path = || self.place.out.join(&place).display().to_string();
            self.place.outputs.write(&place, &bytes).with_context(path)?;
            outputs.insert(escape_name(&place), bytes.len() as u64);
        }
        if let Some(link) = self.formats.link(&self.place.out, &input.path, &input.name)? {
            outputs.insert(escape_name(&link), bytes_of_input);
        }
        Ok(())
    }

    /// Notes that a picture could not be labelled; results that an earlier run left of it are of another picture.
    pub(super) fn record_failure(&self, input: &InputImage, error: &anyhow::Error) {
        let InputImage { path, name } = input;
        let line = json!({
            "picture": escape_name(name),
            "path": path_text(path),
            "error": error_chain(error.as_ref()),
        });
        let written =
            writeln!(self.failed.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
        if let Err(error) = written.and_then(|()| self.clear(name)) {
            self.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    fn clear(&self, name: &Path) -> std::io::Result<()> {
        let entry = self.place.invalidate(name).map_err(std::io::Error::other)?;
        entry.map_or(Ok(()), |entry| self.remove(entry.outputs.keys()))
    }

    fn remove<'p>(&self, places: impl Iterator<Item = &'p String>) -> std::io::Result<()> {
        for place in places.map(|place| self.place.out.join(unescape_name(place))) {
            match std::fs::remove_file(place) {
                Err(error) if error.kind() != ErrorKind::NotFound && !is_of_kind(&error) => {
                    return Err(error);
                }
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
pub(super) fn is_name_error(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(is_of_kind)
}

fn is_of_kind(error: &std::io::Error) -> bool {
    let kinds = [
        ErrorKind::InvalidFilename,
        ErrorKind::NotADirectory,
        ErrorKind::IsADirectory,
        ErrorKind::AlreadyExists,
    ];
    kinds.contains(&error.kind())
}

/// For people: names that are no text come with replacement characters, as JSON holds nothing else.
pub(super) fn path_text(path: &Path) -> String {
    path.display().to_string()
}
