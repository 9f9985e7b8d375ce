//! Atomic writes: files and folders that appear whole or not at all, even if the writer is killed.
//!
//! The new one is written under a hidden name beside its target, synced, and renamed. Hidden names
//! carry no process number: the next writer to the same target removes what a killed one left.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// Writes a file atomically: at every moment the whole old or the whole new one is there.
/// Concurrent writers wait for each other.
///
/// On failure the old file is unchanged. Only if the last step fails, the sync of the folder, is
/// the new one there already, and a power failure may revert it.
pub fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    write_with(path, |file| file.write_all(contents))
}

/// Writes a file atomically through a closure.
pub fn write_with<E: From<io::Error>>(
    path: &Path,
    fill: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    write_and_rename(&hidden(path, "partial")?, path, fill)
}

fn write_and_rename<E: From<io::Error>>(
    temporary: &Path,
    path: &Path,
    fill: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    let mut partial = PartialFile::create(temporary, path)?;
    fill(partial.file())?;
    partial.commit().map_err(E::from)
}

/// A file that is written under a temporary path, and appears at its own once it is whole. Dropped
/// before that, it is removed.
#[derive(Debug)]
pub struct PartialFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    is_placed: bool,
}

impl PartialFile {
    /// Creates the temporary file, on the same file system as the path: in another folder where even
    /// a killed program must leave nothing but whole files. Concurrent writers wait for each other.
    pub fn create(temporary: &Path, path: &Path) -> io::Result<Self> {
        let file = claim(temporary)?;
        Ok(Self { file, temporary: temporary.into(), path: path.into(), is_placed: false })
    }

    /// Returns the file, which is empty at first.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Writes the bytes to the disk, as [`commit`](Self::commit) does first.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Replaces the file at the path. Where only the last step fails, the sync of the folder, it is
    /// replaced already.
    pub fn commit(mut self) -> io::Result<()> {
        self.sync()?;
        fs::rename(&self.temporary, &self.path)?;
        self.is_placed = true;
        sync_folder(parent(&self.path))
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.is_placed {
            // The first failure is the one to report. Still locked: later it may be another's.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Links `place` to a file, replacing a file that is there: a hard link, or a symbolic link to the
/// full path where the file system refuses one, as between two disks.
pub fn link(file: &Path, place: &Path) -> io::Result<()> {
    let file = file.canonicalize()?;
    let wanted = file.metadata()?;
    match place.metadata() {
        // A rename between two names of one file does nothing.
        Ok(found) if identity(&found) == identity(&wanted) => return Ok(()),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let temporary = hidden(place, "link")?;
    fs::remove_file(&temporary).or_else(unless_absent)?;
    fs::hard_link(&file, &temporary).or_else(|_| std::os::unix::fs::symlink(&file, &temporary))?;
    fs::rename(&temporary, place)?;
    sync_folder(parent(place))
}

/// Writes a folder atomically: `fill` writes a hidden folder, which is then exchanged with the one
/// in place. An old folder is replaced if it holds only files and folders of the `known` names.
/// Concurrent writers wait for each other.
///
/// On failure the old folder is unchanged, and parent folders that were created are removed. Only
/// if the last step fails, the sync of the parent folder, is the new one there already, and a power
/// failure may revert it. File systems that cannot exchange two names in one step (some network
/// file systems) have neither folder for an instant; [`recover`] is for programs killed then.
pub fn write_folder<E: From<io::Error>>(
    path: &Path,
    known: &[&str],
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let place = resolved(path)?;
    let partial = hidden(&place, "partial")?;
    let _parents = CreatedDirs::new(parent(&place))?;
    let _lock = WriteLock::acquire(&place)?;
    put_back(&place)?;
    check_replaceable(&place, known)?;
    clear(&partial)?;
    let old = hidden(&place, "old")?;
    if old.try_exists()? {
        // Never removed under its own name, so that whatever `recover` finds is whole.
        fs::rename(old, &partial)?;
        clear(&partial)?;
    }
    fs::create_dir(&partial)?;
    let placed = fill(&partial).and_then(|()| {
        sync_tree(&partial).and_then(|()| swap(&partial, &place, exchange)).map_err(E::from)
    });
    if let Err(error) = placed {
        let _ = clear(&partial);
        return Err(error);
    }
    sync_folder(parent(&place))?;
    // The old folder. If this fails, the next write tries again.
    let _ = clear(&partial);
    Ok(())
}

/// Removes what a killed [`write_folder`] left beside `path`; waits for a running one.
pub fn remove_partial(path: &Path) -> io::Result<()> {
    let place = resolved(path)?;
    let _lock = WriteLock::acquire(&place)?;
    clear(&hidden(&place, "partial")?)
}

/// Checks that a folder may be replaced: it does not exist, or holds only `known` names.
pub fn check_replaceable(path: &Path, known: &[&str]) -> io::Result<()> {
    let refused = |reason: String| Err(io::Error::new(ErrorKind::AlreadyExists, reason));
    match path.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_dir() => {
            return refused("is a file; name a folder".into());
        }
        Ok(_) => {}
    }
    for entry in path.read_dir()? {
        let name = entry?.file_name();
        if !known.iter().any(|known| name == *known) {
            let name = name.to_string_lossy();
            return refused(format!(
                "holds `{name}`, which was not written by protoseg; name another folder"
            ));
        }
    }
    Ok(())
}

/// Restores the old folder where a killed [`write_folder`] left none. Call it before reading one.
pub fn recover(path: &Path) -> io::Result<()> {
    let place = resolved(path)?;
    if place.try_exists()? || !hidden(&place, "old")?.try_exists()? {
        return Ok(());
    }
    // Wait for a running writer: the folder is missing only until its next step.
    let _lock = WriteLock::acquire(&place)?;
    put_back(&place)
}

fn put_back(place: &Path) -> io::Result<()> {
    let old = hidden(place, "old")?;
    if place.try_exists()? || !old.try_exists()? {
        return Ok(());
    }
    fs::rename(old, place)?;
    sync_folder(parent(place))
}

/// Moves `new` into place, and the old folder, if any, to the name of `new`.
fn swap(
    new: &Path,
    place: &Path,
    exchange: impl Fn(&Path, &Path) -> Result<(), Errno>,
) -> io::Result<()> {
    if !place.try_exists()? {
        return fs::rename(new, place);
    }
    match exchange(new, place) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        exchanged => return Ok(exchanged?),
    }
    let old = hidden(place, "old")?;
    fs::rename(place, &old)?;
    if let Err(error) = fs::rename(new, place) {
        let _ = fs::rename(&old, place);
        return Err(error);
    }
    // The new folder is in place: if the old one keeps its name, the next write removes it.
    let _ = fs::rename(&old, new);
    Ok(())
}

fn exchange(new: &Path, place: &Path) -> Result<(), Errno> {
    renameat_with(CWD, new, CWD, place, RenameFlags::EXCHANGE)
}

/// Parent folders that were created. Those that are still empty are removed on drop.
struct CreatedDirs(Vec<PathBuf>);

impl CreatedDirs {
    fn new(folder: &Path) -> io::Result<Self> {
        let mut created = Self(Vec::new());
        let missing: Vec<&Path> = folder
            .ancestors()
            .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
            .collect();
        for folder in missing.into_iter().rev() {
            match fs::create_dir(folder) {
                Ok(()) => created.0.push(folder.to_owned()),
                // Another writer was first.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(created)
    }
}

impl Drop for CreatedDirs {
    fn drop(&mut self) {
        let mut deepest_first = self.0.iter().rev();
        // A folder that is not empty stays, and so do its parents.
        while deepest_first.next().is_some_and(|folder| fs::remove_dir(folder).is_ok()) {}
    }
}

/// An exclusive lock on writing at a place.
struct WriteLock {
    path: PathBuf,
    _file: File,
}

impl WriteLock {
    fn acquire(place: &Path) -> io::Result<Self> {
        let path = hidden(place, "lock")?;
        Ok(Self { _file: claim(&path)?, path })
    }
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        // While the lock is still held: later it may be another writer's.
        let _ = fs::remove_file(&self.path);
    }
}

/// Opens and empties a hidden file that is this writer's alone until closed, renamed or removed.
///
/// A fixed name without lock would let two writers mix their bytes, and one name for each would
/// pile up after kills; a lock ends with its process. File systems without locks do not keep
/// concurrent writers apart.
fn claim(path: &Path) -> io::Result<File> {
    loop {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        if let Err(error) = file.lock()
            && error.kind() != ErrorKind::Unsupported
        {
            return Err(error);
        }
        // The previous writer may have renamed or removed the file while this one waited.
        let locked = file.metadata()?;
        if path.metadata().is_ok_and(|named| identity(&named) == identity(&locked)) {
            file.set_len(0)?;
            return Ok(file);
        }
    }
}

/// Device and inode.
fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Follows links to the folder itself, which need not exist: hidden names belong beside it.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    if path.try_exists()? {
        return path.canonicalize();
    }
    // A link to a missing folder.
    path.read_link()
        .map_or_else(|_| std::path::absolute(path), |target| resolved(&parent(path).join(target)))
}

/// Returns a hidden name in the same folder, so that renames stay on one file system.
fn hidden(path: &Path, extension: &str) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "names no file or folder"))?;
    let mut hidden = OsString::from(".");
    hidden.extend([name, ".".as_ref(), extension.as_ref()]);
    Ok(path.with_file_name(hidden))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn clear(folder: &Path) -> io::Result<()> {
    fs::remove_dir_all(folder).or_else(unless_absent)
}

fn unless_absent(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Syncs a folder and its contents: a rename may reach the disk before the bytes of its files.
fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in folder.read_dir()? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_folder(folder)
}

/// Syncs the names in a folder.
fn sync_folder(folder: &Path) -> io::Result<()> {
    // Some network file systems cannot sync folders, and a writable folder may not be readable.
    let excused = [ErrorKind::InvalidInput, ErrorKind::Unsupported, ErrorKind::PermissionDenied];
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.or_else(|error| if excused.contains(&error.kind()) { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests;
