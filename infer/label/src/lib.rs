//! Labeling of image folders that survives any end of the program: the [`journal`] records which inputs and options each
//! result was made from, so that `--resume` repeats nothing; a [`shard`] is one machine's part of the images; [`merge`]
//! proves that shards are complete.
//!
//! `.protoseg/` in the output folder holds for each shard `journal*.jsonl`, `failed*.jsonl` with the images that the last run
//! could not label, and `partial*/` with files that are being written. A result appears by a rename once it is complete.
//!
//! **Invariant:** nothing here knows clap, tokio or the service.

pub mod fingerprint;
pub mod journal;
pub mod merge;
pub mod shard;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use protoseg_models::atomic::PartialFile;

pub use self::journal::unescape_name;
pub use protoseg_images::formats::escape_name;

/// Name of the folder for state, below the output folder.
pub const STATE_DIR: &str = ".protoseg";

/// Writes results into an output folder, each by a rename.
#[derive(Debug)]
pub struct OutputWriter {
    root: PathBuf,
    partial: PathBuf,
    next: AtomicUsize,
}

impl OutputWriter {
    /// Removes files that a killed process left half written. The caller holds the journal of the same shard.
    pub fn open(root: &Path, shard: shard::Shard) -> io::Result<Self> {
        let partial = root.join(STATE_DIR).join(format!("partial{}", shard.suffix()));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        Ok(Self { root: root.into(), partial, next: AtomicUsize::new(0) })
    }

    /// Writes a file by its path relative to the output folder and creates folders as needed.
    pub fn write(&self, relative: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut partial = self.begin(relative)?;
        partial.file().write_all(bytes)?;
        partial.commit()
    }

    /// Begins a file by its path relative to the output folder, which appears once it is committed, and creates folders as
    /// needed.
    pub fn begin(&self, relative: &Path) -> io::Result<PartialFile> {
        let path = self.root.join(relative);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let partial = self.partial.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        PartialFile::create(&partial, &path)
    }
}
