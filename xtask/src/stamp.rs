//! Stamp of a fetched folder: its recipe, and the number and size of the files of each entry. It is
//! written last; checking reads no file contents.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

const NAME: &str = "stamp";

/// State of a folder relative to its stamp and recipe.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum InstallState {
    Complete,
    Absent,
    /// Holds the reason.
    Damaged(String),
}

/// Writes the stamp of a complete folder.
pub(crate) fn write(folder: &Path, recipe: &str) -> io::Result<()> {
    fs::write(folder.join(NAME), expected(folder, recipe)?)
}

/// Compares `folder` with its stamp and with `recipe`.
pub(crate) fn check(folder: &Path, recipe: &str) -> InstallState {
    if !folder.exists() {
        return InstallState::Absent;
    }
    let Ok(stamp) = fs::read_to_string(folder.join(NAME)) else {
        return InstallState::Damaged("it has no stamp".to_owned());
    };
    if !stamp.starts_with(&format!("{recipe}\n\n")) {
        return InstallState::Damaged("it was made from another recipe".to_owned());
    }
    let found = match expected(folder, recipe) {
        Ok(found) => found,
        Err(error) => return InstallState::Damaged(format!("it cannot be read ({error})")),
    };
    let difference = stamp.lines().find(|line| !found.lines().any(|other| other == *line));
    match difference {
        None if stamp == found => InstallState::Complete,
        None => InstallState::Damaged("it has additional files".to_owned()),
        Some(line) => InstallState::Damaged(format!("it no longer has `{line}`")),
    }
}

/// Returns the text of the stamp: the recipe, an empty line, and a line per entry of the folder.
fn expected(folder: &Path, recipe: &str) -> io::Result<String> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() != NAME {
            let (files, bytes) = measure(&entry.path())?;
            entries.push(format!("{}: files {files}, bytes {bytes}", entry.file_name().display()));
        }
    }
    entries.sort();
    let mut text = format!("{recipe}\n\n");
    for entry in entries {
        writeln!(text, "{entry}").map_err(io::Error::other)?;
    }
    Ok(text)
}

/// Returns the number and total size of the files under `path`, following links.
fn measure(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_dir() {
        return Ok((1, metadata.len()));
    }
    let mut sum = (0, 0);
    for entry in fs::read_dir(path)? {
        let (files, bytes) = measure(&entry?.path())?;
        sum = (sum.0 + files, sum.1 + bytes);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_absent_and_damaged_folders() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(check(&folder.join("x"), "a==1"), InstallState::Absent);

        fs::create_dir_all(folder.join("x/lib/deep")).unwrap();
        fs::write(folder.join("x/lib/deep/a.so"), "library").unwrap();
        fs::write(folder.join("x/version"), "1").unwrap();
        assert_eq!(
            check(&folder.join("x"), "a==1"),
            InstallState::Damaged("it has no stamp".to_owned())
        );

        write(&folder.join("x"), "a==1").unwrap();
        assert_eq!(check(&folder.join("x"), "a==1"), InstallState::Complete);
        assert_eq!(
            check(&folder.join("x"), "a==2"),
            InstallState::Damaged("it was made from another recipe".to_owned())
        );

        fs::write(folder.join("x/lib/deep/a.so"), "lib").unwrap();
        assert_eq!(
            check(&folder.join("x"), "a==1"),
            InstallState::Damaged("it no longer has `lib: files 1, bytes 7`".to_owned())
        );

        fs::write(folder.join("x/lib/deep/a.so"), "library").unwrap();
        fs::write(folder.join("x/more"), "").unwrap();
        assert_eq!(
            check(&folder.join("x"), "a==1"),
            InstallState::Damaged("it has additional files".to_owned())
        );
    }

    #[test]
    fn a_dangling_link_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("library.so.1"), "library").unwrap();
        std::os::unix::fs::symlink("library.so.1", folder.join("library.so")).unwrap();
        write(folder, "a==1").unwrap();
        assert_eq!(check(folder, "a==1"), InstallState::Complete);
        fs::remove_file(folder.join("library.so.1")).unwrap();
        assert!(matches!(check(folder, "a==1"), InstallState::Damaged(_)));
    }
}
