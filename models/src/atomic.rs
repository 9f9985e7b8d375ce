//! Files that appear whole or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes a file beside its place, syncs it, and renames it into place. On failure the old file, if any, is left as it was.
pub fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let temporary = beside(path);
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(contents).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The first failure is the one to report.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// Fills a folder beside its place and renames it into place, replacing what was there. On failure the old folder is left.
pub fn write_folder<E: From<io::Error>>(path: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let temporary = beside(path);
    if temporary.exists() {
        std::fs::remove_dir_all(&temporary)?;
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::create_dir(&temporary)?;
    let filled = fill(&temporary).and_then(|()| replace(&temporary, path).map_err(E::from));
    if filled.is_err() {
        let _ = std::fs::remove_dir_all(&temporary);
    }
    filled
}

/// A hidden name in the same folder, so that the rename stays on one file system.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.partial", std::process::id()))
}

fn replace(new: &Path, place: &Path) -> io::Result<()> {
    if !place.exists() {
        return std::fs::rename(new, place);
    }
    let old = beside(place).with_extension("old");
    std::fs::rename(place, &old)?;
    std::fs::rename(new, place)?;
    std::fs::remove_dir_all(&old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_fill_leaves_the_old_folder_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("bundle");
        write_folder::<io::Error>(&place, |folder| write(&folder.join("a"), b"one")).unwrap();
        let failed = write_folder::<io::Error>(&place, |folder| {
            write(&folder.join("a"), b"two")?;
            Err(io::Error::other("disk full"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(place.join("a")).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
        write_folder::<io::Error>(&place, |folder| write(&folder.join("b"), b"three")).unwrap();
        assert!(!place.join("a").exists() && place.join("b").exists());
    }
}
