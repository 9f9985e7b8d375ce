//! Report files that a command writes besides its output.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use protoseg_models::atomic;

/// Resolves links of an output path. Refuses folders, devices and pipes, which an atomic write
/// would replace.
pub(crate) fn resolve(path: &Path) -> anyhow::Result<PathBuf> {
    let shown = path.display();
    ensure!(path.file_name().is_some(), "{shown} is not a file name");
    let resolved = match path.canonicalize() {
        Ok(resolved) => resolved,
        Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => path.to_owned(),
        Err(error) => return Err(error).with_context(|| shown.to_string()),
    };
    match resolved.metadata() {
        Ok(there) if there.is_dir() => bail!("{shown} is a folder; name a file in it"),
        Ok(there) if !there.is_file() => {
            bail!(
                "{shown} is a device or a pipe; name a file, or print to the standard output with --json"
            )
        }
        _ => {}
    }
    let folder = resolved.parent().filter(|folder| !folder.as_os_str().is_empty());
    ensure!(
        folder.is_none_or(Path::is_dir),
        "{shown} cannot be written, as its folder does not exist; create it first"
    );
    Ok(resolved)
}

/// Refuses a path that cannot be written, before long work begins.
pub(crate) fn check(path: &Path) -> anyhow::Result<()> {
    resolve(path).map(|_| ())
}

/// Writes a file atomically; see [`resolve`].
pub(crate) fn write(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    atomic::write(&resolve(path)?, contents).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_and_only_files_are_written() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::write(at("real"), "old").unwrap();
        symlink(at("real"), at("link")).unwrap();
        write(&at("link"), b"new").unwrap();
        assert!(at("link").is_symlink() && std::fs::read(at("real")).unwrap() == b"new");
        write(&at("other"), b"first").unwrap();
        assert_eq!(std::fs::read(at("other")).unwrap(), b"first");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        symlink(at("gone"), at("dangling")).unwrap();
        for (name, words) in [
            ("pipe", "is a device or a pipe"),
            ("", "is a folder"),
            ("none/file", "its folder does not exist"),
            ("dangling", "dangling"),
        ] {
            let error = format!("{:#}", check(&at(name)).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
    }
}
