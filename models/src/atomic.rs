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

/// Fills a folder beside its place and renames it into place. What was there is replaced if it holds nothing but files and
/// folders of the `known` names. On failure the old folder is left.
pub fn write_folder<E: From<io::Error>>(
    path: &Path,
    known: &[&str],
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    check_replaceable(path, known)?;
    let path = if path.exists() { path.canonicalize()? } else { std::path::absolute(path)? };
    // No process number: what a killed program left is cleared away by the next.
    let temporary = path.with_file_name(format!(".{}.partial", path.file_name().unwrap_or_default().to_string_lossy()));
    if temporary.exists() {
        std::fs::remove_dir_all(&temporary)?;
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::create_dir(&temporary)?;
    let filled = fill(&temporary).and_then(|()| replace(&temporary, &path).map_err(E::from));
    if filled.is_err() {
        let _ = std::fs::remove_dir_all(&temporary);
    }
    filled
}

/// Whether a folder may be written over: it is not there, or holds nothing but the `known` names.
pub fn check_replaceable(path: &Path, known: &[&str]) -> io::Result<()> {
    let refused = |why: String| Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_dir() => return refused("is a file, and a folder is to be written there".into()),
        Ok(_) => {}
    }
    for entry in path.read_dir()? {
        let name = entry?.file_name();
        if !known.iter().any(|known| name == *known) {
            let name = name.to_string_lossy();
            return refused(format!("holds `{name}`, which was not written by protoseg; name another folder"));
        }
    }
    Ok(())
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
    let old = new.with_extension("old");
    if old.exists() {
        std::fs::remove_dir_all(&old)?;
    }
    std::fs::rename(place, &old)?;
    if let Err(error) = std::fs::rename(new, place) {
        std::fs::rename(&old, place)?;
        return Err(error);
    }
    std::fs::remove_dir_all(&old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_fill_leaves_the_old_folder_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("bundle");
        let known = ["a", "b"];
        write_folder::<io::Error>(&place, &known, |folder| write(&folder.join("a"), b"one")).unwrap();
        let failed = write_folder::<io::Error>(&place, &known, |folder| {
            write(&folder.join("a"), b"two")?;
            Err(io::Error::other("disk full"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(place.join("a")).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
        write_folder::<io::Error>(&place, &known, |folder| write(&folder.join("b"), b"three")).unwrap();
        assert!(!place.join("a").exists() && place.join("b").exists());
    }

    #[test]
    fn what_others_wrote_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("mine");
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("notes"), "important").unwrap();
        let error = write_folder::<io::Error>(&place, &["a"], |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("`notes`"), "{error}");
        let file = place.join("notes");
        let error = write_folder::<io::Error>(&file, &["a"], |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("is a file"), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "important");
    }
}
