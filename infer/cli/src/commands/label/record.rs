//! Records of a run: results with their journal entries, and the list of failures.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use protoseg_images::geo::Place;
use protoseg_infer::pipeline::DecodedImage;
use protoseg_infer::upsample::{Prediction, pixels_by_class};
use protoseg_label::fingerprint::FileFingerprint;
use protoseg_label::journal::JournalEntry;
use protoseg_label::{STATE_DIR, escape_name, unescape_name};
use protoseg_models::atomic::PartialFile;
use protoseg_models::classes::{ClassTable, IGNORE_INDEX};
use serde::Serialize;

use super::super::format::{LabeledImage, OutputFormats, into_image_labels};
use super::super::inputs::InputImage;
use super::super::progress;
use super::output_dir::OutputDir;

/// Line of the list of failures.
#[derive(Serialize)]
struct Failure {
    error: String,
    path: String,
    /// Escaped name of an image.
    #[serde(rename = "picture", skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    /// Escaped path of a folder that could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    folder: Option<String>,
}

/// Facts about an image file that its pixels do not tell.
pub(super) struct InputFacts {
    pub(super) fingerprint: FileFingerprint,
    pub(super) place: Option<Place>,
}

/// Writes results, journal entries and failures; shared by all threads.
pub(super) struct ResultRecorder<'a> {
    out_dir: &'a OutputDir,
    formats: &'a OutputFormats,
    classes: ClassTable,
    failed: Mutex<File>,
    /// First I/O error of recording a failure.
    record_error: Mutex<Option<std::io::Error>>,
    /// True once a pixel was sure enough for a pseudo-label.
    kept_any: AtomicBool,
    /// Images whose place on Earth is asked for and unknown: their number, and one of them.
    placeless: Mutex<(usize, PathBuf)>,
}

impl<'a> ResultRecorder<'a> {
    /// Empties the list of failures: failed images are tried again.
    pub(super) fn new(
        out_dir: &'a OutputDir,
        formats: &'a OutputFormats,
        classes: ClassTable,
    ) -> Result<Self> {
        let name = format!("failed{}.jsonl", out_dir.run.shard.suffix());
        let path = out_dir.out.join(STATE_DIR).join(name);
        let failed = File::create(&path).with_context(|| path.display().to_string())?;
        Ok(Self {
            out_dir,
            formats,
            classes,
            failed: Mutex::new(failed),
            record_error: Mutex::new(None),
            kept_any: AtomicBool::new(false),
            placeless: Mutex::default(),
        })
    }

    /// Writes an image's results, then its journal entry.
    pub(super) fn write_results(
        &self,
        input: &InputImage,
        item: DecodedImage<InputFacts>,
        prediction: Prediction,
    ) -> Result<()> {
        let InputFacts { fingerprint, place } = item.extra;
        let name = self.formats.names.result_name(&input.name);
        let (mut labels, margin) = into_image_labels(&name, prediction);
        if let Some(place) = &place {
            place.ignore_missing(&mut labels.map.labels, IGNORE_INDEX);
        }
        if self.formats.keeps_any(&labels) {
            self.kept_any.store(true, Ordering::Relaxed);
        }
        self.count_placeless(input, place.as_ref());
        let labeled = LabeledImage {
            image: &item.image,
            labels: &labels,
            margin: margin.as_deref(),
            geo: place.as_ref().map(|place| &place.geo),
        };
        self.out_dir.invalidate(&input.name)?;
        let mut outputs = BTreeMap::new();
        if let Err(error) = self.write(input, &labeled, fingerprint.bytes, &mut outputs) {
            // A result is all files or none.
            self.remove(outputs.keys())?;
            return Err(error);
        }
        let pixels = pixels_by_class(&labels.map.labels, self.classes.count());
        self.add_entry(input, fingerprint, outputs, pixels)
    }

    fn add_entry(
        &self,
        input: &InputImage,
        fingerprint: FileFingerprint,
        outputs: BTreeMap<String, u64>,
        pixels: Vec<u64>,
    ) -> Result<()> {
        let recipe = self.out_dir.recipe().to_owned();
        let entry = JournalEntry {
            image: escape_name(&input.name),
            recipe,
            input: fingerprint,
            outputs,
            pixels,
        };
        Ok(self.out_dir.journal.add(entry)?)
    }

    /// Begins a result by its path below the output folder.
    pub(super) fn begin(&self, path: &Path) -> Result<PartialFile> {
        let shown = || self.out_dir.out.join(path).display().to_string();
        self.out_dir.outputs.begin(path).with_context(shown)
    }

    /// Places the complete files of an image, then writes its journal entry.
    pub(super) fn place_files(
        &self,
        input: &InputImage,
        fingerprint: FileFingerprint,
        files: Vec<(PathBuf, PartialFile)>,
        pixels: Vec<u64>,
    ) -> Result<()> {
        self.out_dir.invalidate(&input.name)?;
        let mut outputs = BTreeMap::new();
        for (path, mut file) in files {
            let shown = || self.out_dir.out.join(&path).display().to_string();
            let bytes = file.file().metadata().map(|metadata| metadata.len());
            match bytes.and_then(|bytes| file.commit().map(|()| bytes)).with_context(shown) {
                Ok(bytes) => outputs.insert(escape_name(&path), bytes),
                Err(error) => {
                    // A result is all files or none.
                    self.remove(outputs.keys())?;
                    return Err(error);
                }
            };
        }
        self.add_entry(input, fingerprint, outputs, pixels)
    }

    /// The error of a result that cannot be written, with what to do.
    pub(super) fn unwritten(&self, input: &InputImage, error: anyhow::Error) -> anyhow::Error {
        let (path, advice) = (input.path.display(), self.out_dir.advice(&error));
        error.context(format!(
            "stopped: the labels of {path} could not be written; {advice}, and continue with \
             --resume"
        ))
    }

    /// Writes an image's files and adds each to `outputs` with its size.
    fn write(
        &self,
        input: &InputImage,
        labeled: &LabeledImage<'_>,
        bytes_of_input: u64,
        outputs: &mut BTreeMap<String, u64>,
    ) -> Result<()> {
        for (path, bytes) in self.formats.files(labeled, &self.classes)? {
            let shown = || self.out_dir.out.join(&path).display().to_string();
            self.out_dir.outputs.write(&path, &bytes).with_context(shown)?;
            outputs.insert(escape_name(&path), bytes.len() as u64);
        }
        if let Some(link) =
            self.formats.link(&self.out_dir.out, &input.path, &labeled.labels.name)?
        {
            outputs.insert(escape_name(&link), bytes_of_input);
        }
        Ok(())
    }

    /// True if a pixel of some image was sure enough for a pseudo-label.
    pub(super) fn kept_any(&self) -> bool {
        self.kept_any.load(Ordering::Relaxed)
    }

    /// Counts an image without a place on Earth, where the place is written.
    pub(super) fn count_placeless(&self, input: &InputImage, place: Option<&Place>) {
        let is_placed = place.is_some_and(|place| place.geo.affine().is_some());
        if self.formats.needs_place() && !is_placed {
            let mut placeless = self.placeless.lock().unwrap_or_else(PoisonError::into_inner);
            *placeless = (placeless.0 + 1, input.path.clone());
        }
    }

    /// Names images whose files in `geotiff` have no place on Earth; `images` were labeled.
    pub(super) fn placeless_warning(&self, images: usize) -> Option<String> {
        let placeless = self.placeless.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, example) = &*placeless;
        (*count > 0).then(|| {
            format!(
                "{count} of {images} images tell no place on Earth, neither by tags of GeoTIFF nor by \
                 a world file beside them, or are turned by EXIF; nor do their files in geotiff: {}",
                example.display()
            )
        })
    }

    /// Adds an image to the list of failures and removes its results of earlier runs.
    pub(super) fn record_failure(&self, input: &InputImage, error: &anyhow::Error) {
        self.record_refusal(input, error);
        self.keep_error(self.clear(&input.name));
    }

    /// Adds an image to the list of failures. It may have results, of a run in which it was alone
    /// under their name.
    pub(super) fn record_refusal(&self, input: &InputImage, error: &anyhow::Error) {
        self.add(&Failure {
            error: progress::named_error(&input.path, error),
            path: path_text(&input.path),
            image: Some(escape_name(&input.name)),
            folder: None,
        });
    }

    /// Adds a folder that could not be read to the list of failures.
    pub(super) fn record_folder(&self, path: &Path, error: &str) {
        let (error, folder) = (error.to_owned(), Some(escape_name(path)));
        self.add(&Failure { error, path: path_text(path), image: None, folder });
    }

    fn add(&self, failure: &Failure) {
        let line = serde_json::to_string(failure).map_err(std::io::Error::from);
        self.keep_error(line.and_then(|line| {
            writeln!(self.failed.lock().unwrap_or_else(PoisonError::into_inner), "{line}")
        }));
    }

    fn keep_error(&self, result: std::io::Result<()>) {
        if let Err(error) = result {
            self.record_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    fn clear(&self, name: &Path) -> std::io::Result<()> {
        let entry = self.out_dir.invalidate(name).map_err(std::io::Error::other)?;
        entry.map_or(Ok(()), |entry| self.remove(entry.outputs.keys()))
    }

    fn remove<'p>(&self, paths: impl Iterator<Item = &'p String>) -> std::io::Result<()> {
        for path in paths.map(|path| self.out_dir.out.join(unescape_name(path))) {
            match std::fs::remove_file(path) {
                Err(error)
                    if error.kind() != ErrorKind::NotFound && !is_name_error_kind(&error) =>
                {
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Fails if a failure could not be recorded.
    pub(super) fn check(&self) -> Result<()> {
        let error = self.record_error.lock().unwrap_or_else(PoisonError::into_inner).take();
        error.map_or(Ok(()), |error| Err(error).context("a failed image could not be recorded"))
    }
}

/// The error of a result whose name cannot be written.
pub(super) fn name_error(input: &InputImage, error: anyhow::Error) -> anyhow::Error {
    let path = input.path.display();
    error.context(format!("cannot write the labels of {path} under its name"))
}

/// Returns true if only the image's name prevents writing: it is too long, or a file stands where
/// it needs a folder or the reverse. Results of other images may still be written.
pub(super) fn is_name_error(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(is_name_error_kind)
}

fn is_name_error_kind(error: &std::io::Error) -> bool {
    let kinds = [
        ErrorKind::InvalidFilename,
        ErrorKind::NotADirectory,
        ErrorKind::IsADirectory,
        ErrorKind::AlreadyExists,
    ];
    kinds.contains(&error.kind())
}

/// A path as text, with replacement characters for bytes that are not UTF-8.
pub(super) fn path_text(path: &Path) -> String {
    path.display().to_string()
}
