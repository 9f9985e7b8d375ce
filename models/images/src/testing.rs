//! Small trees of files for the tests of this and other packages.

use std::io;
use std::path::Path;

use tempfile::TempDir;

/// Writes files, by path and text, into a temporary folder, with the folders that they need.
pub fn tree(files: &[(&str, &str)]) -> io::Result<TempDir> {
    let root = tempfile::tempdir()?;
    for (file, text) in files {
        let path = root.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
        std::fs::write(path, text)?;
    }
    Ok(root)
}

/// The same with empty files.
pub fn empty_files(files: &[&str]) -> io::Result<TempDir> {
    tree(&files.iter().map(|&file| (file, "")).collect::<Vec<_>>())
}
