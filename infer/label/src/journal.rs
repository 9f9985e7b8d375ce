//! The append-only journal of a shard: a line for each run and each labeled image.
//!
//! An image's line is written after its last file is in place. A damaged last line, as a killed process or a full disk may
//! leave, is cut off; one before others is ignored with a warning.

mod others;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use protoseg_models::digest;
use serde::{Deserialize, Serialize};

use super::STATE_DIR;
use super::fingerprint::FileFingerprint;
use super::shard::Shard;
use protoseg_images::formats::escape_name;

const VERSION: &str = "1.0";

/// Everything beside the image that its results depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// SHA-256 of the model file.
    pub model: String,
    /// Windows in which images are run.
    #[serde(rename = "pieces")]
    pub windows: String,
    /// Device and its arithmetic: results of different devices differ in their last digits.
    pub device: String,
    /// Build of ONNX Runtime: another one sums in another order.
    #[serde(default)]
    pub runtime: String,
    /// Formats with a file for each image, with their options.
    pub formats: BTreeSet<String>,
}

impl Recipe {
    /// First 16 hexadecimal digits of the SHA-256 of all fields.
    pub fn key(&self) -> String {
        let Self { model, windows, device, runtime, formats } = self;
        let formats = formats.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        digest::sha256_bytes(
            format!("{model}\n{windows}\n{device}\n{runtime}\n{formats}").as_bytes(),
        )[..16]
            .to_owned()
    }

    /// Describes the differences from an earlier recipe; empty where there are none.
    pub fn differences(&self, earlier: &Self) -> String {
        let formats =
            |recipe: &Self| recipe.formats.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        let [was, is] = [earlier, self].map(|recipe| {
            let model = recipe.model.get(..12).unwrap_or(&recipe.model).to_owned();
            [
                model,
                recipe.windows.clone(),
                recipe.device.clone(),
                recipe.runtime.clone(),
                formats(recipe),
            ]
        });
        let names = ["model", "windows", "device", "ONNX Runtime", "formats"];
        let differ = names.iter().zip(was.iter().zip(&is)).filter(|(_, (was, is))| was != is);
        differ
            .map(|(name, (was, is))| format!("{name} (was {was}, is {is})"))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// Digest of the names of all images of all shards.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InputSetDigest {
    #[serde(rename = "pictures")]
    pub images: u64,
    /// Of the escaped names in order.
    pub sha256: String,
}

impl InputSetDigest {
    /// From names in any order.
    pub fn from_names<'a>(names: impl Iterator<Item = &'a Path>) -> Self {
        Self::from_escaped_names(names.map(escape_name).collect())
    }

    pub(crate) fn from_escaped_names(mut names: Vec<String>) -> Self {
        names.sort();
        // Images of one name are refused; the name counts once, as in a list of failures.
        names.dedup();
        Self {
            images: names.len() as u64,
            sha256: digest::sha256_bytes(names.join("\n").as_bytes()),
        }
    }
}

/// Header of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunHeader {
    /// Version of the lines that follow.
    version: String,
    pub recipe: Recipe,
    pub shard: Shard,
    #[serde(rename = "census")]
    pub input_set: InputSetDigest,
    /// Formats with one file for all images, written at the end from the files of each.
    #[serde(rename = "joint")]
    pub combined_formats: BTreeSet<String>,
}

impl RunHeader {
    /// A header of this program's version.
    pub fn new(
        recipe: Recipe,
        shard: Shard,
        input_set: InputSetDigest,
        combined_formats: BTreeSet<String>,
    ) -> Self {
        Self { version: VERSION.to_owned(), recipe, shard, input_set, combined_formats }
    }
}

/// A labeled image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Escaped name.
    #[serde(rename = "picture")]
    pub image: String,
    /// [`Recipe::key`] of its results.
    pub recipe: String,
    pub input: FileFingerprint,
    /// Escaped paths of its results relative to the output folder, and their sizes in bytes.
    pub outputs: BTreeMap<String, u64>,
    /// Pixels of each class.
    pub pixels: Vec<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum JournalLine {
    #[serde(rename = "begun")]
    Run(RunHeader),
    #[serde(rename = "labelled")]
    Labeled(JournalEntry),
    /// An earlier entry is no longer valid.
    #[serde(rename = "struck")]
    Removed(String),
}

/// Errors of opening, reading and writing a journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("another process is labeling the same shard into this folder: it holds {}", .0.display())]
    Locked(PathBuf),
    #[error("{} holds the results of {count} images: add --resume to continue, or choose another --out", out.display())]
    NotEmpty { out: PathBuf, count: usize },
    #[error("{} has version {found}, and this program reads {VERSION}; use the program that wrote it, or another --out", path.display())]
    Version { path: PathBuf, found: String },
}

/// Contents of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalContents {
    /// The last run.
    pub run: Option<RunHeader>,
    /// Recipes of all runs by their keys.
    pub recipes: BTreeMap<String, Recipe>,
    /// Line numbers, from 1, of damaged lines before intact ones.
    pub damaged_lines: Vec<usize>,
    /// Valid entries by escaped name.
    pub entries: BTreeMap<String, JournalEntry>,
}

impl JournalContents {
    /// Reads a journal without locking it.
    pub fn read(path: &Path) -> Result<Self, JournalError> {
        let text =
            fs::read(path).map_err(|source| JournalError::Io { path: path.into(), source })?;
        Ok(Self::parse(path, &text)?.0)
    }

    /// Returns the contents and the length of the intact part of the text.
    fn parse(path: &Path, text: &[u8]) -> Result<(Self, usize), JournalError> {
        let mut contents = Self::default();
        let mut length = 0;
        let mut read = 0;
        let mut damaged = Vec::new();
        for (number, line) in (1..).zip(text.split_inclusive(|&byte| byte == b'\n')) {
            let Some(whole) = line.strip_suffix(b"\n") else { break };
            read += line.len();
            match serde_json::from_slice(whole) {
                Ok(JournalLine::Run(run)) if run.version != VERSION => {
                    return Err(JournalError::Version { path: path.into(), found: run.version });
                }
                Ok(JournalLine::Run(run)) => {
                    contents.recipes.insert(run.recipe.key(), run.recipe.clone());
                    contents.run = Some(run);
                }
                Ok(JournalLine::Labeled(entry)) => {
                    drop(contents.entries.insert(entry.image.clone(), entry));
                }
                Ok(JournalLine::Removed(image)) => drop(contents.entries.remove(&image)),
                Err(_) => {
                    damaged.push(number);
                    continue;
                }
            }
            contents.damaged_lines.append(&mut damaged);
            length = read;
        }
        Ok((contents, length))
    }

    /// A sentence about damaged lines, if there are any.
    pub fn damage_warning(&self, path: &Path) -> Option<String> {
        let (&first, others) = self.damaged_lines.split_first()?;
        let more =
            if others.is_empty() { String::new() } else { format!(" (and {} more)", others.len()) };
        Some(format!("line {first} of {} is damaged{more} and ignored", path.display()))
    }

    /// The entry of an image.
    pub fn entry(&self, name: &Path) -> Option<&JournalEntry> {
        self.entries.get(&escape_name(name))
    }

    /// The entry of an image whose results are valid: same recipe, same input file, and every result present in the size that
    /// was written.
    pub fn completed(
        &self,
        out: &Path,
        name: &Path,
        recipe: &str,
        input: &FileFingerprint,
    ) -> Option<&JournalEntry> {
        let entry = self.entry(name)?;
        let same = entry.recipe == recipe && entry.input.matches(input);
        (same && entry.missing_output(out).is_none()).then_some(entry)
    }
}

impl JournalEntry {
    /// The first result that is missing or has another size.
    pub fn missing_output(&self, out: &Path) -> Option<&str> {
        let there = |(place, &bytes): (&String, &u64)| {
            let metadata = out.join(unescape_name(place)).metadata();
            metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() == bytes)
        };
        self.outputs.iter().find(|output| !there(*output)).map(|(place, _)| place.as_str())
    }
}

/// Inverse of [`escape_name`].
pub fn unescape_name(spelled: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(spelled.len());
    let mut rest = spelled.as_bytes();
    while let Some((&first, others)) = rest.split_first() {
        let digits = others.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits
            .filter(|_| first == b'%')
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
        {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => {
                bytes.push(first);
                rest = others;
            }
        }
    }
    PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes))
}

/// A shard's journal, locked by one process until that ends.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

impl Journal {
    /// Path of a shard's journal.
    pub fn path(out: &Path, shard: Shard) -> PathBuf {
        out.join(STATE_DIR).join(format!("journal{}.jsonl", shard.suffix()))
    }

    /// Opens or creates the journal of a shard, cuts off a damaged end and returns the contents.
    pub fn open(out: &Path, shard: Shard) -> Result<(Self, JournalContents), JournalError> {
        let path = Self::path(out, shard);
        let failed = |source| JournalError::Io { path: path.clone(), source };
        fs::create_dir_all(out.join(STATE_DIR)).map_err(failed)?;
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Locked(path)),
            // File systems without locks cannot keep two runs apart.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        let (contents, length) = JournalContents::parse(&path, &text)?;
        file.set_len(length as u64)
            .and_then(|()| file.seek(io::SeekFrom::End(0)).map(drop))
            .map_err(failed)?;
        Ok((Self { file: Mutex::new(file), path }, contents))
    }

    /// Appends the header of a run.
    pub fn begin(&self, run: &RunHeader) -> Result<(), JournalError> {
        self.append(&JournalLine::Run(run.clone()))
    }

    /// Appends an image whose results are in place.
    pub fn add(&self, entry: JournalEntry) -> Result<(), JournalError> {
        self.append(&JournalLine::Labeled(entry))
    }

    /// Invalidates an entry before its results change, so that an interruption does not leave it valid.
    pub fn invalidate(&self, image: &str) -> Result<(), JournalError> {
        self.append(&JournalLine::Removed(image.to_owned()))
    }

    fn append(&self, line: &JournalLine) -> Result<(), JournalError> {
        let failed = |source| JournalError::Io { path: self.path.clone(), source };
        let mut text = serde_json::to_vec(line).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        // One call, so that lines of other threads do not interleave.
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&text).map_err(failed)
    }
}
