//! Files and folders that appear whole or not at all, whenever the program that writes them is killed.
//!
//! The new one is made under a hidden name beside its place, synced, and renamed into place. Hidden names carry no process
//! number: what a killed program left is cleared away by the next that writes there.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// Writes a file; at every moment the old one or the new one is there, whole. Of several writers each waits for its turn.
///
/// On failure the old file, if any, is left as it was; only if the last step fails, the sync of its folder, the new one is
/// there, which a power cut may take back.
pub fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    write_with(path, |file| file.write_all(contents))
}

/// The same for a file that is written piece by piece.
pub fn write_with<E: From<io::Error>>(
    path: &Path,
    fill: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    write_through(&hidden(path, "partial")?, path, fill)
}

/// The same by way of another name on the same file system, for folders in which even a killed program shall leave nothing
/// but whole files.
pub fn write_via(way: &Path, path: &Path, contents: &[u8]) -> io::Result<()> {
    write_through(way, path, |file| file.write_all(contents))
}

fn write_through<E: From<io::Error>>(
    temporary: &Path,
    path: &Path,
    fill: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    let mut file = claim(temporary)?;
    let written = fill(&mut file)
        .and_then(|()| file.sync_all().and_then(|()| fs::rename(temporary, path)).map_err(E::from));
    if let Err(error) = written {
        // The first failure is the one to report.
        let _ = fs::remove_file(temporary);
        return Err(error);
    }
    Ok(sync_folder(parent(path))?)
}

/// Puts a second name of a file into place, where another file may lie: a hard link, or where the file system refuses one, as
/// between two disks, a symbolic link to the file's full path.
pub fn link(file: &Path, place: &Path) -> io::Result<()> {
    let file = file.canonicalize()?;
    let wanted = file.metadata()?;
    match place.metadata() {
        // Between two names of one file a rename does nothing.
        Ok(there) if (there.dev(), there.ino()) == (wanted.dev(), wanted.ino()) => return Ok(()),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let temporary = hidden(place, "link")?;
    fs::remove_file(&temporary)
        .or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    fs::hard_link(&file, &temporary).or_else(|_| std::os::unix::fs::symlink(&file, &temporary))?;
    fs::rename(&temporary, place)?;
    sync_folder(parent(place))
}

/// Fills a folder beside its place and swaps it into place; at every moment the old one or the new one is there, whole.
/// What was there is replaced if it holds nothing but files and folders of the `known` names. Of several writers each waits
/// for its turn.
///
/// On failure the old folder is left, and no folder around it that was not there; only if the last step fails, the sync of
/// the folder around it, the new one is there, which a power cut may take back. File systems that cannot exchange two names in one step (some of the network) have
/// neither for an instant; for a program killed in it there is [`recover`].
pub fn write_folder<E: From<io::Error>>(
    path: &Path,
    known: &[&str],
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let place = resolved(path)?;
    let partial = hidden(&place, "partial")?;
    let _way = CreatedDirs::make(parent(&place))?;
    let _turn = WriteLock::take(&place)?;
    put_back(&place)?;
    check_replaceable(&place, known)?;
    clear(&partial)?;
    if hidden(&place, "old")?.try_exists()? {
        // Never removed under its own name, so that what `recover` finds is whole.
        fs::rename(hidden(&place, "old")?, &partial)?;
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
    // The old folder. The new one is in place, so this is no failure; the next write tries again.
    let _ = clear(&partial);
    Ok(())
}

/// Clears away what a [`write_folder`] that was killed left beside a place; one at work is let finish.
pub fn remove_partial(path: &Path) -> io::Result<()> {
    let place = resolved(path)?;
    let _turn = WriteLock::take(&place)?;
    clear(&hidden(&place, "partial")?)
}

/// Whether a folder may be written over: it is not there, or holds nothing but the `known` names.
pub fn check_replaceable(path: &Path, known: &[&str]) -> io::Result<()> {
    let refused = |why: String| Err(io::Error::new(ErrorKind::AlreadyExists, why));
    match path.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_dir() => {
            return refused("is a file, and a folder is to be written there".into());
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

/// Puts the old folder back where a killed [`write_folder`] left none, to be called before one is looked for. It fails if
/// the file system refuses.
pub fn recover(path: &Path) -> io::Result<()> {
    let place = resolved(path)?;
    if place.try_exists()? || !hidden(&place, "old")?.try_exists()? {
        return Ok(());
    }
    // A writer at work is let finish: the folder is missing only until its next step.
    let _turn = WriteLock::take(&place)?;
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

/// Puts `new` into place, and what was there, if anything, under the name of `new`.
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
    // The new folder is in place: if the old one keeps its name, the next write clears it away.
    let _ = fs::rename(&old, new);
    Ok(())
}

fn exchange(new: &Path, place: &Path) -> Result<(), Errno> {
    renameat_with(CWD, new, CWD, place, RenameFlags::EXCHANGE)
}

/// Folders that were made for another to lie in. At the end of its life those go again that have stayed empty.
struct CreatedDirs {
    made: Vec<PathBuf>,
}

impl CreatedDirs {
    fn make(folder: &Path) -> io::Result<Self> {
        let mut way = Self { made: Vec::new() };
        let missing: Vec<&Path> = folder
            .ancestors()
            .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
            .collect();
        for folder in missing.into_iter().rev() {
            match fs::create_dir(folder) {
                Ok(()) => way.made.push(folder.to_owned()),
                // Another writer was there first.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(way)
    }
}

impl Drop for CreatedDirs {
    fn drop(&mut self) {
        let mut deepest_first = self.made.iter().rev();
        // One that holds something stays, and so do those around it.
        while deepest_first.next().is_some_and(|folder| fs::remove_dir(folder).is_ok()) {}
    }
}

/// The right to write at a place, for as long as it lives.
struct WriteLock {
    path: PathBuf,
    _held: File,
}

impl WriteLock {
    fn take(place: &Path) -> io::Result<Self> {
        let path = hidden(place, "lock")?;
        Ok(Self { _held: claim(&path)?, path })
    }
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        // While it is still held: one moment later it may be another's.
        let _ = fs::remove_file(&self.path);
    }
}

/// Opens a hidden file, emptied, that no other writer has until it is closed, renamed or removed.
///
/// A fixed name alone would let two writers mix their bytes, and a name for each would pile up: so a fixed name under a
/// lock, which ends with its process. Where the file system has no locks, two writers at once are not kept apart.
fn claim(path: &Path) -> io::Result<File> {
    loop {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        if let Err(error) = file.lock()
            && error.kind() != ErrorKind::Unsupported
        {
            return Err(error);
        }
        // The writer before may have renamed or removed the file while this one waited.
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        if path
            .metadata()
            .is_ok_and(|named| file.metadata().is_ok_and(|held| identity(named) == identity(held)))
        {
            file.set_len(0)?;
            return Ok(file);
        }
    }
}

/// Where a folder lies or is to lie, links followed: beside it is where hidden names belong.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    if path.try_exists()? {
        return path.canonicalize();
    }
    // A link whose folder is missing.
    path.read_link()
        .map_or_else(|_| std::path::absolute(path), |target| resolved(&parent(path).join(target)))
}

/// A hidden name in the same folder, so that the rename stays on one file system.
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
    fs::remove_dir_all(folder)
        .or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Syncs a folder with all that it holds: a rename may reach the disk before the bytes of what it renames.
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
    // Some network file systems sync no folders, and a folder may be writable yet not readable.
    let excused = [ErrorKind::InvalidInput, ErrorKind::Unsupported, ErrorKind::PermissionDenied];
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.or_else(|error| if excused.contains(&error.kind()) { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests;
