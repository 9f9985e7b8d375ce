//! Results of labelling that no end of the program loses: a [`journal`] beside them says what each was made of, so that a
//! run goes on where another was stopped or killed; a [`shard`] is one machine's part of the pictures.
//!
//! In the output folder, `.protoseg/` holds for each shard `journal*.jsonl`, `failed*.jsonl` with the pictures of the last
//! run that could not be labelled, and `partial*/` with files that are not whole yet. All else are results, each of which
//! appears by a rename once it is whole.

pub mod fingerprint;
pub mod journal;
pub mod merge;
pub mod shard;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use protoseg_models::atomic;

pub use self::journal::unescape_name;
pub use protoseg_images::formats::escape_name;

/// The folder below the output folder that is not results.
pub const STATE_DIR: &str = ".protoseg";

/// Writes results into an output folder.
#[derive(Debug)]
pub struct OutputWriter {
    root: PathBuf,
    partial: PathBuf,
    next: AtomicUsize,
}

impl OutputWriter {
    /// For whoever holds the journal of the same shard: what a killed program left half written is cleared away.
    pub fn open(root: &Path, shard: shard::Shard) -> io::Result<Self> {
        let partial = root.join(STATE_DIR).join(format!("partial{}", shard.suffix()));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        Ok(Self { root: root.into(), partial, next: AtomicUsize::new(0) })
    }

    /// Writes a file whose place is relative to the output folder; folders on the way are made.
    pub fn write(&self, place: &Path, bytes: &[u8]) -> io::Result<()> {
        let path = self.root.join(place);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let way = self.partial.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        atomic::write_via(&way, &path, bytes)
    }
}
