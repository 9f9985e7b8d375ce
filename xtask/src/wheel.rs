//! Unpacks selected members of wheels (zip files).

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use zip::ZipArchive;

use crate::host;

/// A damaged wheel, which may be fetched again.
#[derive(Debug, thiserror::Error)]
#[error("{} is not a complete wheel ({reason})", .wheel.display())]
pub(crate) struct BrokenWheel {
    wheel: PathBuf,
    reason: String,
}

/// Number and total size of unpacked files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// Returns the wheels in `folder`, sorted; fails if one is not a zip file.
pub(crate) fn wheels_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let explain = host::explain(folder);
    let mut wheels = Vec::new();
    for entry in fs::read_dir(folder).map_err(&explain)? {
        let path = entry.map_err(&explain)?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            open(&path)?;
            wheels.push(path);
        }
    }
    wheels.sort();
    Ok(wheels)
}

/// Unpacks the members of `wheel` to which `place` gives a path in `folder`, and verifies their
/// checksums.
pub(crate) fn unpack(
    wheel: &Path,
    folder: &Path,
    place: fn(&str) -> Option<String>,
) -> Result<Unpacked> {
    let mut archive = open(wheel)?;
    let mut unpacked = Unpacked::default();
    for index in 0..archive.len() {
        let mut member =
            archive.by_index(index).map_err(|error| broken(wheel, error.to_string()))?;
        let name = member.name().map_err(|error| broken(wheel, error.to_string()))?;
        let Some(path) = place(&name).filter(|_| member.is_file()) else { continue };
        if !Path::new(&path).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(broken(wheel, format!("{path} is outside the folder")).into());
        }
        unpacked.bytes += copy(&mut member, &folder.join(&path)).map_err(|error| match error {
            CopyError::Read(error) => broken(wheel, format!("{path}: {error}")).into(),
            CopyError::Write(error) => host::explain(&folder.join(&path))(error),
        })?;
        unpacked.files += 1;
    }
    Ok(unpacked)
}

fn open(wheel: &Path) -> Result<ZipArchive<BufReader<File>>> {
    let file = File::open(wheel).map_err(host::explain(wheel))?;
    Ok(ZipArchive::new(BufReader::new(file)).map_err(|error| broken(wheel, error.to_string()))?)
}

fn broken(wheel: &Path, reason: String) -> BrokenWheel {
    BrokenWheel { wheel: wheel.to_owned(), reason }
}

enum CopyError {
    Read(std::io::Error),
    Write(std::io::Error),
}

fn copy(from: &mut impl Read, to: &Path) -> Result<u64, CopyError> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(CopyError::Write)?;
    }
    let mut file = File::create(to).map_err(CopyError::Write)?;
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let read = from.read(&mut buffer).map_err(CopyError::Read)?;
        if read == 0 {
            return Ok(bytes);
        }
        file.write_all(&buffer[..read]).map_err(CopyError::Write)?;
        bytes += read as u64;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;

    pub(crate) fn write_wheel(path: &Path, members: &[(&str, &[u8])]) {
        let mut writer = ZipWriter::new(File::create(path).unwrap());
        for (name, content) in members {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap();
    }

    fn keep_lib(member: &str) -> Option<String> {
        member.strip_prefix("package/lib/").map(str::to_owned)
    }

    #[test]
    fn unpacks_members_with_a_place() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let wheel = folder.join("package-1-py3-none-any.whl");
        write_wheel(&wheel, &[("package/lib/deep/a.so", b"library"), ("package/code.py", b"pass")]);
        assert_eq!(wheels_in(folder).unwrap(), std::slice::from_ref(&wheel));
        assert_eq!(
            unpack(&wheel, &folder.join("out"), keep_lib).unwrap(),
            Unpacked { files: 1, bytes: 7 }
        );
        assert_eq!(fs::read(folder.join("out/deep/a.so")).unwrap(), b"library");
        assert_eq!(fs::read_dir(folder.join("out")).unwrap().count(), 1);
    }

    #[test]
    fn a_truncated_wheel_is_broken() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let wheel = folder.join("package-1-py3-none-any.whl");
        write_wheel(&wheel, &[("package/lib/a.so", &[7; 5000])]);
        let length = fs::metadata(&wheel).unwrap().len();
        File::options().write(true).open(&wheel).unwrap().set_len(length / 2).unwrap();
        let error = wheels_in(folder).unwrap_err();
        assert!(error.is::<BrokenWheel>(), "{error:#}");
        assert!(error.to_string().contains("is not a complete wheel"), "{error:#}");
    }

    #[test]
    fn a_flipped_bit_is_broken() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let wheel = folder.join("package-1-py3-none-any.whl");
        let content: Vec<u8> = (0..5000_u32).map(|i| (i * i % 251) as u8).collect();
        write_wheel(&wheel, &[("package/lib/a.so", &content)]);
        let mut bytes = fs::read(&wheel).unwrap();
        bytes[200] ^= 4;
        fs::write(&wheel, bytes).unwrap();
        let error = unpack(&wheel, &folder.join("out"), keep_lib).unwrap_err();
        assert!(error.is::<BrokenWheel>(), "{error:#}");
    }

    #[test]
    fn nothing_is_written_outside_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let wheel = folder.join("package-1-py3-none-any.whl");
        write_wheel(&wheel, &[("package/lib/../../outside", b"x")]);
        let error = unpack(&wheel, &folder.join("out"), keep_lib).unwrap_err();
        assert!(error.to_string().contains("is outside the folder"), "{error:#}");
        assert!(!folder.join("outside").exists());
    }

    #[test]
    fn a_write_failure_is_not_a_broken_wheel() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let wheel = folder.join("package-1-py3-none-any.whl");
        write_wheel(&wheel, &[("package/lib/a.so", b"library")]);
        fs::write(folder.join("out"), "a file where the folder should be").unwrap();
        let error = unpack(&wheel, &folder.join("out"), keep_lib).unwrap_err();
        assert!(!error.is::<BrokenWheel>(), "{error:#}");
    }
}
