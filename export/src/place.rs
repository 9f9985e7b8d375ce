//! Where a bundle may be written: never over something that is no bundle, and never over its own checkpoint.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use protoseg_models::bundle::{MANIFEST, Manifest};

/// The folder to write, without links in its path: a new one, an empty one, or an older bundle.
pub(crate) fn resolve(out: &Path, checkpoint: &Path) -> Result<PathBuf> {
    let place = real_path(out).with_context(|| out.display().to_string())?;
    let checkpoint_place = checkpoint.canonicalize().with_context(|| checkpoint.display().to_string())?;
    ensure!(
        !place.starts_with(&checkpoint_place) && !checkpoint_place.starts_with(&place),
        "{} cannot hold the bundle, as the checkpoint {} lies there; name a folder of its own",
        out.display(),
        checkpoint.display()
    );
    if place.is_dir() {
        let mut entries = place.read_dir().with_context(|| out.display().to_string())?;
        if entries.next().is_some() && Manifest::read(&place).is_err() {
            bail!(
                "{} holds files but no {MANIFEST} of a bundle, and is left alone; name another folder or remove it",
                out.display()
            );
        }
    } else {
        ensure!(!place.exists(), "{} is a file; name a folder for the bundle", out.display());
    }
    Ok(place)
}

/// The path without links, of which the last parts need not exist yet.
fn real_path(path: &Path) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    if path.exists() {
        return path.canonicalize();
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(real_path(parent)?.join(name)),
        _ => Ok(path),
    }
}
