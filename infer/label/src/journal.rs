//! The journal of a shard: a line for each run that was begun and each picture that was labelled, only ever appended to.
//!
//! A picture's line is written after its last file is in place, so that what the journal says is there is there. A line at the
//! end that cannot be read, as a killed program or a full disk may leave one, is cut off; one before others is passed over.

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

/// Version of the journal's lines.
const VERSION: &str = "1.0";

/// What decides, beside the picture, what its files hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// SHA-256 of the model file.
    pub model: String,
    /// In which pieces pictures are run.
    #[serde(rename = "pieces")]
    pub windows: String,
    /// What computes, as numbers of different devices differ in their last digits.
    pub device: String,
    /// The ONNX Runtime that runs the model, as it names itself: another one adds up in another order.
    #[serde(default)]
    pub runtime: String,
    /// Names of the formats that each picture has files of, with what shapes them.
    pub formats: BTreeSet<String>,
}

impl Recipe {
    /// Tells it from every other.
    pub fn key(&self) -> String {
        let Self { model, windows, device, runtime, formats } = self;
        let formats = formats.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        digest::sha256_bytes(
            format!("{model}\n{windows}\n{device}\n{runtime}\n{formats}").as_bytes(),
        )[..16]
            .to_owned()
    }

    /// In what it differs from an earlier one, for people; empty where it does not.
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

/// The pictures of all shards together, as one machine saw them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InputSetDigest {
    /// How many.
    #[serde(rename = "pictures")]
    pub images: u64,
    /// SHA-256 of their names in order.
    pub sha256: String,
}

impl InputSetDigest {
    /// Of pictures by name, in any order.
    pub fn from_names<'a>(names: impl Iterator<Item = &'a Path>) -> Self {
        Self::from_escaped_names(names.map(escape_name).collect())
    }

    pub(crate) fn from_escaped_names(mut names: Vec<String>) -> Self {
        names.sort();
        Self {
            images: names.len() as u64,
            sha256: digest::sha256_bytes(names.join("\n").as_bytes()),
        }
    }
}

/// A run that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunHeader {
    /// Version of the lines that follow.
    version: String,
    /// What it makes of pictures.
    pub recipe: Recipe,
    /// Its part of them.
    pub shard: Shard,
    /// All of them.
    #[serde(rename = "census")]
    pub input_set: InputSetDigest,
    /// Names of the formats that hold all pictures in one file, which are made of the files of each at the end.
    #[serde(rename = "joint")]
    pub combined_formats: BTreeSet<String>,
}

impl RunHeader {
    /// A run of this version.
    pub fn new(
        recipe: Recipe,
        shard: Shard,
        input_set: InputSetDigest,
        combined_formats: BTreeSet<String>,
    ) -> Self {
        Self { version: VERSION.to_owned(), recipe, shard, input_set, combined_formats }
    }
}

/// A picture that was labelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Its name, spelled as text.
    #[serde(rename = "picture")]
    pub image: String,
    /// [`Recipe::key`] of what was made of it.
    pub recipe: String,
    /// Its file.
    pub input: FileFingerprint,
    /// Its results: places relative to the output folder, spelled as text, and bytes.
    pub outputs: BTreeMap<String, u64>,
    /// How many pixels each class has.
    pub pixels: Vec<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum JournalLine {
    #[serde(rename = "begun")]
    Run(RunHeader),
    #[serde(rename = "labelled")]
    Labeled(JournalEntry),
    /// What was noted of a picture holds no longer.
    #[serde(rename = "struck")]
    Removed(String),
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process labels into the same folder.
    #[error("another process is labelling the same shard into this folder: it holds {}", .0.display())]
    Locked(PathBuf),
    /// Results of other pictures, or made otherwise, in the same folder.
    #[error("{} holds the results of {count} pictures: add --resume to go on with them, or choose another --out", out.display())]
    NotEmpty {
        /// The output folder.
        out: PathBuf,
        /// How many pictures' results it holds.
        count: usize,
    },
    /// Of another version.
    #[error("{} was written by another version of protoseg ({found}; this one knows {VERSION}); use that, or label into another folder", path.display())]
    Version {
        /// The journal.
        path: PathBuf,
        /// Its version.
        found: String,
    },
}

/// What a journal holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalContents {
    /// The run that was begun last.
    pub run: Option<RunHeader>,
    /// The recipes of all runs, by their keys.
    pub recipes: BTreeMap<String, Recipe>,
    /// Numbers, from 1, of lines that cannot be read and stand before others that can.
    pub damaged_lines: Vec<usize>,
    /// The last line of each picture that was not struck out since.
    pub entries: BTreeMap<String, JournalEntry>,
}

impl JournalContents {
    /// Reads a journal as it is, of a run that is over or under way.
    pub fn read(path: &Path) -> Result<Self, JournalError> {
        let text =
            fs::read(path).map_err(|source| JournalError::Io { path: path.into(), source })?;
        Ok(Self::parse(path, &text)?.0)
    }

    /// The contents, and how many bytes of the text they are.
    fn parse(path: &Path, text: &[u8]) -> Result<(Self, usize), JournalError> {
        let (mut contents, mut length) = (Self::default(), 0);
        let (mut unread, mut read) = (Vec::new(), 0);
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
                    drop(contents.entries.insert(entry.image.clone(), entry))
                }
                Ok(JournalLine::Removed(picture)) => drop(contents.entries.remove(&picture)),
                Err(_) => {
                    unread.push(number);
                    continue;
                }
            }
            contents.damaged_lines.append(&mut unread);
            length = read;
        }
        Ok((contents, length))
    }

    /// What is wrong with lines of the journal, as a sentence; none where nothing is.
    pub fn damage_warning(&self, path: &Path) -> Option<String> {
        let (&first, others) = self.damaged_lines.split_first()?;
        let more =
            if others.is_empty() { String::new() } else { format!(" (and {} more)", others.len()) };
        Some(format!("line {first} of {} is damaged{more} and passed over", path.display()))
    }

    /// The picture's line.
    pub fn entry(&self, name: &Path) -> Option<&JournalEntry> {
        self.entries.get(&escape_name(name))
    }

    /// The picture's line, if its results are there and would come out the same: the same recipe, the same file, and every
    /// result of the size that was written.
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
    /// The first of its results that is not there in the size that was written.
    pub fn missing_output(&self, out: &Path) -> Option<&str> {
        let there = |(place, &bytes): (&String, &u64)| {
            let metadata = out.join(unescape_name(place)).metadata();
            metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() == bytes)
        };
        self.outputs.iter().find(|output| !there(*output)).map(|(place, _)| place.as_str())
    }
}

/// The path that [`escape_name`] spelled.
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

/// A shard's journal, held by one process at a time until it ends, however it ends.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

impl Journal {
    /// Where the journal of a shard lies.
    pub fn path(out: &Path, shard: Shard) -> PathBuf {
        out.join(STATE_DIR).join(format!("journal{}.jsonl", shard.suffix()))
    }

    /// Opens the journal of an output folder's shard, or begins one, and says what it holds.
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
            // Where the file system has no locks, two runs at once are not kept apart.
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

    /// Notes a run.
    pub fn begin(&self, run: &RunHeader) -> Result<(), JournalError> {
        self.append(&JournalLine::Run(run.clone()))
    }

    /// Notes a picture whose results are in place.
    pub fn add(&self, entry: JournalEntry) -> Result<(), JournalError> {
        self.append(&JournalLine::Labeled(entry))
    }

    /// Notes that a picture's results are about to change, so that they count for nothing if that is broken off.
    pub fn invalidate(&self, picture: &str) -> Result<(), JournalError> {
        self.append(&JournalLine::Removed(picture.to_owned()))
    }

    fn append(&self, line: &JournalLine) -> Result<(), JournalError> {
        let failed = |source| JournalError::Io { path: self.path.clone(), source };
        let mut text = serde_json::to_vec(line).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        // In one call, so that another thread's line does not come between.
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&text).map_err(failed)
    }
}
