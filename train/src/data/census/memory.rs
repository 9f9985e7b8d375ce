//! `census.jsonl`: good images by path, size and modification time, and what was found in them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::UNIX_EPOCH;

use anyhow::{Error, Result};
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::label_census::MaskCounts;
use protoseg_images::labeled::{LabeledDataset, LabeledImage, LabeledImageError};
use protoseg_images::overlap;
use protoseg_images::palettes::DrawnIndex;
use protoseg_images::thumbnail::Thumbnail;
use protoseg_models::digest;
use serde::{Deserialize, Serialize};

use super::{FILE, write_file};
use crate::data::lists::Lists;
use crate::data::read;
use crate::data::stored_path::StoredPath;

/// Size in bytes and modification time in nanoseconds of a file.
type FileStat = (u64, u64);

/// A good image, as a line of `census.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    image: StoredPath,
    image_stat: FileStat,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) label: Option<StoredPath>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label_stat: Option<FileStat>,
    /// Height and width.
    pub(super) size: [usize; 2],
    /// Pixels of each class.
    pub(super) pixels: Vec<u64>,
    /// Digest of the pixels; files before it are read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
    /// Thumbnail of the image; files before it are read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) thumbnail: Option<Thumbnail>,
    /// Ignored pixels of the label file by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    ignored_ids: BTreeMap<u8, u64>,
    /// Indices of the label file with their colors, where nobody has said what the colors mean.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) palette: Vec<DrawnIndex>,
}

/// First line of `census.jsonl`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CensusHeader {
    version: u32,
    /// Digest of everything that the pixels of a file depend on beside the file.
    meaning: String,
    /// Remarks on how the images were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Paths of an image and of its label.
type EntryKey = (PathBuf, Option<PathBuf>);

impl Entry {
    fn new(sample: &LabeledImage, set: &LabeledDataset) -> Self {
        let counts = MaskCounts::new(&sample.truth, sample.ids.as_deref(), set);
        Self {
            image: StoredPath(PathBuf::new()),
            image_stat: (0, 0),
            label: None,
            label_stat: None,
            size: sample.size(),
            pixels: counts.classes,
            digest: Some(overlap::pixel_digest(&sample.image)),
            thumbnail: Some(Thumbnail::new(&sample.image)),
            ignored_ids: counts.ignored_ids,
            palette: sample.palette.clone(),
        }
    }

    fn key(&self) -> EntryKey {
        (self.image.0.clone(), self.label.as_ref().map(|label| label.0.clone()))
    }

    /// Pixels of the label file by their meaning; `None` without one.
    pub(super) fn counts(&self) -> Option<MaskCounts> {
        self.label.as_ref()?;
        let all: usize = self.size.iter().product();
        Some(MaskCounts {
            classes: self.pixels.clone(),
            ignored: (all as u64).saturating_sub(self.pixels.iter().sum()),
            ignored_ids: self.ignored_ids.clone(),
        })
    }
}

/// An image that was looked at.
pub(super) enum Looked {
    Good(Entry),
    Broken(Vec<LabeledImageError>),
}

/// Images of an earlier census by their paths.
pub(super) struct Remembered {
    entries: BTreeMap<EntryKey, Entry>,
    /// Images that were read as they were not known.
    read: AtomicUsize,
    pub(super) warnings: Vec<String>,
}

impl Remembered {
    /// Reads the census of a run's folder; nothing if there is none, or if pixels had another meaning.
    pub(super) fn read(out: &Path, labeled: &LabeledDataset) -> Self {
        let mut known = BTreeMap::new();
        let text = std::fs::read_to_string(out.join(FILE)).unwrap_or_default();
        let mut lines = text.lines();
        let header = lines.next().and_then(|line| serde_json::from_str::<CensusHeader>(line).ok());
        let header =
            header.filter(|header| header.version == 1 && header.meaning == meaning(labeled));
        if header.is_some() {
            known.extend(entries(lines).map(|entry| (entry.key(), entry)));
        }
        let warnings = header.map(|header| header.warnings).unwrap_or_default();
        Self { entries: known, read: AtomicUsize::new(0), warnings }
    }

    /// Returns what is known of an image, or reads it.
    pub(super) fn look(&self, set: &LabeledDataset, index: usize) -> Result<Looked> {
        let LabeledDataset::Files { samples, .. } = set else {
            return Ok(Looked::Good(Entry::new(&read::read(set, index)?, set)));
        };
        let sample = &samples[index];
        let stats = (stat(&sample.image), sample.label.as_deref().map(stat));
        if let Some(entry) = self.entries.get(&(sample.image.clone(), sample.label.clone()))
            && (Some(entry.image_stat), entry.label_stat.map(Some)) == stats
            && entry.digest.is_some()
            && entry.thumbnail.is_some()
        {
            return Ok(Looked::Good(entry.clone()));
        }
        self.read.fetch_add(1, Ordering::Relaxed);
        match read::read(set, index).map_err(Error::downcast::<LabeledImageError>) {
            Ok(read) => Ok(Looked::Good(Entry {
                image: StoredPath(sample.image.clone()),
                image_stat: stats.0.unwrap_or_default(),
                label: sample.label.clone().map(StoredPath),
                label_stat: stats.1.flatten(),
                ..Entry::new(&read, set)
            })),
            Err(Ok(error)) => {
                let label = label_error(&error, set, index);
                Ok(Looked::Broken(std::iter::once(error).chain(label).collect()))
            }
            Err(Err(error)) => Err(error),
        }
    }

    /// Writes the good images of a census and of those before it; nothing if all were known, or for synthetic scenes.
    pub(super) fn write(
        mut self,
        out: &Path,
        new: Vec<Entry>,
        labeled: &LabeledDataset,
        warnings: &[String],
    ) -> Result<()> {
        if self.read.load(Ordering::Relaxed) == 0 || new.is_empty() {
            return Ok(());
        }
        self.entries.extend(new.into_iter().map(|entry| (entry.key(), entry)));
        let header =
            CensusHeader { version: 1, meaning: meaning(labeled), warnings: warnings.to_vec() };
        let mut text = serde_json::to_string(&header)?;
        for entry in self.entries.values() {
            write!(text, "\n{}", serde_json::to_string(entry)?)?;
        }
        text.push('\n');
        write_file(out, FILE, &text)
    }
}

/// Returns the error of the label of an image that is broken itself, so that both are mended at once.
fn label_error(
    error: &LabeledImageError,
    set: &LabeledDataset,
    index: usize,
) -> Option<LabeledImageError> {
    let LabeledDataset::Files { samples, ids, .. } = set else { return None };
    let LabeledImageError::Image(_) = error else { return None };
    let path = samples[index].label.as_deref()?;
    ids.read(path, MAX_PIXELS).err().map(Into::into)
}

fn entries<'a>(lines: impl Iterator<Item = &'a str>) -> impl Iterator<Item = Entry> {
    lines.filter_map(|line| serde_json::from_str(line).ok())
}

/// Returns size and modification time of a file; None if it cannot be asked.
fn stat(path: &Path) -> Option<FileStat> {
    let metadata = path.metadata().ok()?;
    let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some((metadata.len(), u64::try_from(modified.as_nanos()).ok()?))
}

/// Names the listed files whose size or modification time differs from those in the census of a run's folder, whatever their
/// pixels mean. `moved` is the folder of the data set then and its folder here.
pub fn changed_files(out: &Path, lists: &Lists, moved: Option<[&Path; 2]>) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(out.join(FILE)).unwrap_or_default();
    let remembered: BTreeMap<EntryKey, Entry> =
        entries(text.lines().skip(1)).map(|entry| (entry.key(), entry)).collect();
    let then = |path: &Path| match moved {
        Some([from, to]) => path.strip_prefix(to).map_or(path.to_owned(), |end| from.join(end)),
        None => path.to_owned(),
    };
    let mut changed = Vec::new();
    for set in [Some(lists.labeled.as_ref()), lists.unlabeled.as_deref()].into_iter().flatten() {
        let LabeledDataset::Files { samples, .. } = set else { continue };
        for sample in samples {
            let key = (then(&sample.image), sample.label.as_deref().map(then));
            let Some(entry) = remembered.get(&key) else { continue };
            if stat(&sample.image) != Some(entry.image_stat) {
                changed.push(sample.image.clone());
            }
            if let Some(label) =
                sample.label.as_deref().filter(|&label| stat(label) != entry.label_stat)
            {
                changed.push(label.to_owned());
            }
        }
    }
    changed
}

/// Digest of the classes and of how files become labels and pixels.
fn meaning(labeled: &LabeledDataset) -> String {
    let text = match labeled {
        LabeledDataset::Files { ids, classes, reading, .. } => {
            format!("{ids:?} {classes:?} {:?}", reading.choices())
        }
        LabeledDataset::Synthetic { .. } => "synthetic".to_owned(),
    };
    digest::sha256_bytes(text.as_bytes())
}
