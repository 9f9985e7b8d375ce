//! Checks before a bundle is written: it never replaces anything but a bundle, and never its
//! source.

use std::io;
use std::path::{Path, PathBuf};

use crate::bundle::{BundleError, MANIFEST, Manifest};
use crate::checkpoint;
use crate::errors::FileError;

/// A folder that a bundle must not be written to.
#[derive(Debug, thiserror::Error)]
pub enum BundleOutputError {
    /// An I/O error.
    #[error(transparent)]
    File(#[from] FileError),
    /// A folder whose manifest cannot be read, so that its files cannot be told from others.
    #[error("{} has a {MANIFEST} that cannot be read ({source}); remove it or name another folder", out.display())]
    Unreadable {
        /// The folder.
        out: PathBuf,
        /// The fault of the manifest.
        source: BundleError,
    },
    /// A place with other contents.
    #[error("{} {reason}", out.display())]
    Occupied {
        /// The place.
        out: PathBuf,
        /// Its contents, and the way out.
        reason: String,
    },
}

fn occupied(out: &Path, reason: impl Into<String>) -> BundleOutputError {
    BundleOutputError::Occupied { out: out.into(), reason: reason.into() }
}

/// Returns the folder to write without links in its path: a new one, an empty one or an older
/// bundle. It neither contains `source` nor lies in it.
pub fn resolve(out: &Path, source: &Path) -> Result<PathBuf, BundleOutputError> {
    let place = real_path(out).map_err(FileError::at(out))?;
    let real_source = source.canonicalize().map_err(FileError::at(source))?;
    if place.starts_with(&real_source) || real_source.starts_with(&place) {
        let reason = format!(
            "cannot hold the bundle, as {} lies there; name a folder of its own",
            source.display()
        );
        return Err(occupied(out, reason));
    }
    if place.is_dir() {
        let entries = place.read_dir().map_err(FileError::at(out))?;
        let first = entries.flatten().map(|entry| entry.file_name()).min();
        match Manifest::read(&place) {
            Ok(_) => {}
            Err(BundleError::Absent(_)) => {
                if let Some(name) = first {
                    refuse_checkpoint(out)?;
                    let name = name.to_string_lossy();
                    let reason = format!(
                        "holds `{name}` but no {MANIFEST} of a bundle; name another folder or remove it"
                    );
                    return Err(occupied(out, reason));
                }
            }
            Err(source) => return Err(BundleOutputError::Unreadable { out: out.into(), source }),
        }
    } else if place.exists() {
        return Err(occupied(out, "is a file; name a folder for the bundle"));
    }
    Ok(place)
}

/// Refuses a checkpoint folder, even one that the bundle is not exported from.
fn refuse_checkpoint(out: &Path) -> Result<(), BundleOutputError> {
    if out.join(checkpoint::ARCH).is_file() {
        let reason = "is a checkpoint and cannot hold the bundle; name a folder of its own";
        return Err(occupied(out, reason));
    }
    Ok(())
}

/// Returns the names that may be replaced: those of an older bundle, if any, and of the new one.
pub fn replaceable_names(place: &Path, new: &Manifest) -> Vec<String> {
    let older = Manifest::read(place).map(|read| read.value.names()).unwrap_or_default();
    older.into_iter().chain(new.names()).collect()
}

/// Follows links in a path whose last parts need not exist.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    if path.exists() {
        return path.canonicalize();
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(real_path(parent)?.join(name)),
        _ => Ok(path),
    }
}
