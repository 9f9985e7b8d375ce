//! Where a bundle may be written: never over something that is no bundle, and never over what it is made from.

use std::io;
use std::path::{Path, PathBuf};

use crate::bundle::{BundleError, MANIFEST, Manifest};
use crate::checkpoint;

/// Why a bundle may not be written at a place.
#[derive(Debug, thiserror::Error)]
pub enum BundleOutputError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The place, or what the bundle is made from.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What the bundle is made from would be lost.
    #[error("{} cannot hold the bundle, as {} lies there; name a folder of its own", out.display(), made_from.display())]
    Source {
        /// The place.
        out: PathBuf,
        /// What the bundle is made from.
        made_from: PathBuf,
    },
    /// Perhaps a bundle, but it cannot be told which files are its own.
    #[error("{} holds a {MANIFEST} that cannot be read as a bundle's, and is left alone ({source}); remove it or name another folder", out.display())]
    Unreadable {
        /// The place.
        out: PathBuf,
        /// Why the manifest cannot be read.
        source: BundleError,
    },
    /// What training wrote.
    #[error("{} is a checkpoint, and cannot hold the bundle; name a folder of its own", .0.display())]
    Checkpoint(PathBuf),
    /// A folder of other things.
    #[error("{} holds files but no {MANIFEST} of a bundle, and is left alone; name another folder or remove it", .0.display())]
    Occupied(PathBuf),
    /// A file.
    #[error("{} is a file; name a folder for the bundle", .0.display())]
    File(PathBuf),
}

/// The folder to write, without links in its path: a new one, an empty one, or an older bundle. It neither holds nor lies
/// in `made_from`.
pub fn resolve(out: &Path, made_from: &Path) -> Result<PathBuf, BundleOutputError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| BundleOutputError::Io { path, source }
    };
    let place = real_path(out).map_err(failed(out))?;
    let source = made_from.canonicalize().map_err(failed(made_from))?;
    if place.starts_with(&source) || source.starts_with(&place) {
        return Err(BundleOutputError::Source { out: out.into(), made_from: made_from.into() });
    }
    if place.is_dir() {
        let empty = place.read_dir().map_err(failed(out))?.next().is_none();
        match Manifest::read(&place) {
            Ok(_) => {}
            Err(BundleError::Absent(_)) if empty => {}
            Err(BundleError::Absent(_)) => {
                return Err(refuse_checkpoint(out)
                    .err()
                    .unwrap_or(BundleOutputError::Occupied(out.into())));
            }
            Err(source) => return Err(BundleOutputError::Unreadable { out: out.into(), source }),
        }
    } else if place.exists() {
        return Err(BundleOutputError::File(out.into()));
    }
    Ok(place)
}

/// Refuses the folder of a checkpoint, whichever one a bundle is made from.
pub fn refuse_checkpoint(out: &Path) -> Result<(), BundleOutputError> {
    if out.join(checkpoint::ARCH).is_file() {
        Err(BundleOutputError::Checkpoint(out.into()))
    } else {
        Ok(())
    }
}

/// Names of all files that an older bundle at a place holds, if there is one, and of those of a new one: what may be
/// replaced.
pub fn replaceable_names(place: &Path, new: &Manifest) -> Vec<String> {
    let older = Manifest::read(place).map(|read| read.value.names()).unwrap_or_default();
    older.into_iter().chain(new.names()).collect()
}

/// The path without links, of which the last parts need not exist yet.
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
