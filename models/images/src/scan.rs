//! Folder scan: the images below a folder, and an account of all that is passed over.
//!
//! An image that is reached twice, also through a link to its folder, is taken once, by the path
//! that has no link where there is one. Nothing found on the way ends a scan. A folder that cannot be read is reported once, and the
//! others are scanned. Hidden entries and what operating systems, storage boxes and notebooks leave
//! behind are counted and not entered; files of endings that are not read are counted by ending.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// Endings of image files, in lower case.
pub const IMAGE_ENDINGS: [&str; 14] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "jfi", "webp", "tif", "tiff", "bmp", "gif", "pgm", "ppm",
    "pnm",
];

/// Endings of texts and world files that lie beside images; nobody takes them for images, so they are
/// not counted.
const TEXT_ENDINGS: [&str; 29] = [
    "bpw", "cfg", "csv", "gfw", "htm", "html", "ini", "ipynb", "jgw", "jpgw", "json", "jsonl",
    "log", "md", "pgw", "pngw", "prj", "py", "sh", "tfw", "tifw", "toml", "tsv", "txt", "wld",
    "wpw", "xml", "yaml", "yml",
];

/// Names, in lower case, of entries that systems leave behind without hiding them.
const BY_PRODUCTS: [&str; 13] = [
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "@eadir",
    "@recently-snapshot",
    "@recycle",
    "__macosx",
    "__pycache__",
    "desktop.ini",
    "ehthumbs.db",
    "lost+found",
    "system volume information",
    "thumbs.db",
];

/// Names of hidden entries, and endings, that a line of a report shows.
const SHOWN: usize = 8;

/// Returns true for the endings of the image formats that are read.
pub fn is_image_path(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
    IMAGE_ENDINGS.iter().any(|known| ending == *known)
}

/// Returns true for the name of a hidden entry or a known by-product.
pub fn is_by_product(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    // `..png` is an image whose stem is a dot.
    let hidden =
        bytes.starts_with(b".") && !(bytes.starts_with(b"..") && is_image_path(name.as_ref()));
    hidden || BY_PRODUCTS.iter().any(|known| bytes.eq_ignore_ascii_case(known.as_bytes()))
}

/// A folder that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableFolder {
    /// Path of the folder.
    pub path: PathBuf,
    /// The system's reason.
    pub error: String,
}

/// What a scan passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// Folders that could not be read, each once.
    pub unreadable: Vec<UnreadableFolder>,
    /// Number of hidden entries and by-products, which are not entered.
    pub hidden: usize,
    /// Files of endings that are not read, by ending in lower case; `none` without one. Texts are
    /// not counted.
    pub endings: BTreeMap<String, usize>,
    /// Some names of hidden entries.
    hidden_names: Vec<String>,
}

impl ScanReport {
    /// Returns the number of files of endings that are not read.
    pub fn unread_files(&self) -> usize {
        self.endings.values().sum()
    }

    /// Returns a line for each kind of entry that was passed over; unreadable folders excepted.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.hidden > 0 {
            let more = if self.hidden > self.hidden_names.len() { ", …" } else { "" };
            lines.push(format!(
                "{} {} passed over, hidden or by-products of other programs ({}{more}); \
                 --hidden takes them, and so does naming one",
                self.hidden,
                if self.hidden == 1 { "entry" } else { "entries" },
                self.hidden_names.join(", ")
            ));
        }
        if !self.endings.is_empty() {
            let (none, named): (Vec<_>, Vec<_>) =
                self.endings.iter().partition(|(ending, _)| ending.as_str() == NO_ENDING);
            let shown: Vec<String> = named
                .iter()
                .chain(&none)
                .map(|(ending, count)| format!("{ending} {count}"))
                .collect();
            let more = shown.len().saturating_sub(2 * SHOWN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            lines.push(format!(
                "{} {} of endings that are not read: {}{more}",
                self.unread_files(),
                if self.unread_files() == 1 { "file" } else { "files" },
                shown[..shown.len().min(2 * SHOWN)].join(", ")
            ));
        }
        lines
    }
}

/// Ending of files without one in [`ScanReport::endings`].
const NO_ENDING: &str = "none";

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedEntry {
    /// The folder's path with the entry's name.
    pub path: PathBuf,
    /// True for folders, and for links to folders.
    pub is_folder: bool,
    /// True for symbolic links.
    pub is_link: bool,
}

/// Scans folders and reports what it passes over. An entry that several scans meet counts once.
///
/// ```
/// use protoseg_images::scan::Scanner;
///
/// let root = tempfile::tempdir()?;
/// for name in ["b.JPG", "a.jfif", "c.heic", "._b.JPG", "notes.txt"] {
///     std::fs::write(root.path().join(name), "")?;
/// }
/// let mut scanner = Scanner::new(false);
/// let images = scanner.images(root.path());
/// assert_eq!(images, ["a.jfif", "b.JPG"].map(|name| root.path().join(name)));
/// assert_eq!(scanner.report().endings["heic"], 1);
/// assert_eq!(scanner.report().hidden, 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Scanner {
    hidden: bool,
    report: ScanReport,
    /// Canonical paths of folders that are in the report.
    counted: HashSet<PathBuf>,
}

impl Scanner {
    /// A scanner that enters hidden entries and by-products too if `hidden`.
    pub fn new(hidden: bool) -> Self {
        Self { hidden, ..Self::default() }
    }

    /// Returns the account so far.
    pub fn report(&self) -> &ScanReport {
        &self.report
    }

    /// Ends scanning.
    pub fn into_report(self) -> ScanReport {
        self.report
    }

    /// Returns the images below a folder in order of their paths. Links are followed, each folder is
    /// entered once, and not through a link if it lies below the folder itself.
    pub fn images(&mut self, folder: &Path) -> Vec<PathBuf> {
        let mut walk = Walk::default();
        walk.linked.push_back(folder.to_owned());
        while let Some(folder) = walk.linked.pop_front() {
            self.walk(&folder, &mut walk);
        }
        walk.images.sort();
        walk.images
    }

    fn walk(&mut self, folder: &Path, walk: &mut Walk) {
        if let Ok(canonical) = folder.canonicalize()
            && !walk.entered.insert(canonical)
        {
            return;
        }
        let (entries, is_new) = self.entries(folder, |_| false);
        for ScannedEntry { path, is_folder, is_link } in entries {
            if is_folder && is_link {
                walk.linked.push_back(path);
            } else if is_folder {
                self.walk(&path, walk);
            } else if is_image_path(&path) {
                walk.images.push(path);
            } else if is_new {
                self.count_ending(&path);
            }
        }
    }

    /// Returns the entries of a folder in order of their names, without those that are passed over,
    /// and true if no scan met the folder before. Names for which `wanted` holds are taken though
    /// they are hidden. A folder that cannot be read is reported and has no entries.
    pub fn entries(
        &mut self,
        folder: &Path,
        wanted: impl Fn(&OsStr) -> bool,
    ) -> (Vec<ScannedEntry>, bool) {
        let canonical = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let is_new = self.counted.insert(canonical);
        let mut names = Vec::new();
        let mut entries = Vec::new();
        let listed = std::fs::read_dir(folder).and_then(|listing| {
            for entry in listing {
                let entry = entry?;
                let name = entry.file_name();
                if !self.hidden && is_by_product(&name) && !wanted(&name) {
                    names.push(name);
                    continue;
                }
                // The kind comes with the listing, so that a folder that cannot be entered is one.
                let kind = entry.file_type();
                let is_link = kind.as_ref().is_ok_and(std::fs::FileType::is_symlink);
                let is_folder = if is_link {
                    entry.path().is_dir()
                } else {
                    kind.is_ok_and(|kind| kind.is_dir())
                };
                entries.push(ScannedEntry { path: entry.path(), is_folder, is_link });
            }
            Ok(())
        });
        if is_new {
            if let Err(error) = listed {
                self.add_unreadable(folder, &error);
            }
            names.sort();
            self.report.hidden += names.len();
            let room = SHOWN.saturating_sub(self.report.hidden_names.len());
            let shown = names.iter().take(room).map(|name| printable(&name.to_string_lossy()));
            self.report.hidden_names.extend(shown);
        }
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        (entries, is_new)
    }

    /// Counts a file that is no image by its ending.
    pub fn count_ending(&mut self, path: &Path) {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        let ending = ending.unwrap_or_else(|| NO_ENDING.to_owned());
        if !TEXT_ENDINGS.contains(&ending.as_str()) {
            *self.report.endings.entry(printable(&ending)).or_default() += 1;
        }
    }

    fn add_unreadable(&mut self, folder: &Path, error: &io::Error) {
        let error = error.to_string();
        self.report.unreadable.push(UnreadableFolder { path: folder.into(), error });
    }
}

/// State of a walk below a folder.
#[derive(Debug, Default)]
struct Walk {
    /// Canonical paths.
    entered: HashSet<PathBuf>,
    /// Links to folders, which wait until every folder that lies below the first was entered.
    linked: VecDeque<PathBuf>,
    images: Vec<PathBuf>,
}

/// A name without control characters, which could break the line or control a terminal.
fn printable(name: &str) -> String {
    name.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::empty_files;

    fn names(scanner: &mut Scanner, root: &Path) -> Vec<String> {
        let images = scanner.images(root);
        images.iter().map(|path| path.strip_prefix(root).unwrap().display().to_string()).collect()
    }

    #[test]
    fn by_products_and_other_endings_are_counted_once() {
        let root = empty_files(&[
            "a.jpg",
            "site/b.jfif",
            "site/c.PGM",
            "._a.jpg",
            "__MACOSX/._a.jpg",
            "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg",
            ".ipynb_checkpoints/a-checkpoint.jpg",
            ".Trash-1000/files/old.png",
            ".thumbnails/a.png",
            "site/Thumbs.db",
            "lost+found/x.jpg",
            "d.heic",
            "g.AVIF",
            "h.avif",
            "f",
            "notes.txt",
        ])
        .unwrap();
        let mut scanner = Scanner::new(false);
        assert_eq!(names(&mut scanner, root.path()), ["a.jpg", "site/b.jfif", "site/c.PGM"]);
        assert_eq!(names(&mut scanner, &root.path().join("site")), ["b.jfif", "c.PGM"]);
        assert_eq!(scanner.report().hidden, 8);
        let lines = scanner.report().lines();
        assert!(lines[0].starts_with("8 entries passed over") && lines[0].contains("--hidden"));
        assert!(lines[0].contains("lost+found") && lines[0].contains("Thumbs.db"));
        assert_eq!(lines[1], "4 files of endings that are not read: avif 2, heic 1, none 1");
        let mut scanner = Scanner::new(true);
        assert_eq!(names(&mut scanner, root.path()).len(), 10);
        assert_eq!((scanner.report().hidden, scanner.report().endings["db"]), (0, 1));
    }

    #[cfg(unix)]
    #[test]
    fn unreadable_and_vanished_folders_and_loops_cost_themselves() {
        use std::os::unix::fs::symlink;

        let root = empty_files(&["a.png", "deep/b.png"]).unwrap();
        let at = |name: &str| root.path().join(name);
        symlink(root.path(), at("deep/again")).unwrap();
        symlink("loop.png", at("loop.png")).unwrap();
        let mut scanner = Scanner::new(false);
        // A link to nothing is an image that fails when it is read.
        assert_eq!(names(&mut scanner, root.path()), ["a.png", "deep/b.png", "loop.png"]);
        assert_eq!(scanner.images(&at("gone")), [] as [PathBuf; 0]);
        assert_eq!(scanner.images(&at("gone")), [] as [PathBuf; 0]);
        let unreadable = &scanner.report().unreadable;
        assert!(unreadable.len() == 1 && unreadable[0].path == at("gone"), "{unreadable:?}");
        assert!(unreadable[0].error.contains("No such file"), "{unreadable:?}");
    }

    #[cfg(unix)]
    #[test]
    fn an_image_has_the_path_without_a_link_where_there_is_one() {
        use std::os::unix::fs::symlink;

        let root = empty_files(&["in/real/a.png", "in/z.png", "elsewhere/deep/b.png"]).unwrap();
        let at = |name: &str| root.path().join(name);
        // Before and behind what they lead to, in order of names; one chain of links.
        symlink(at("in/real"), at("in/a link")).unwrap();
        symlink(at("in/a link"), at("in/zz")).unwrap();
        symlink(at("elsewhere"), at("in/other")).unwrap();
        symlink(at("in"), at("elsewhere/back")).unwrap();
        let mut scanner = Scanner::new(false);
        let expected = ["other/deep/b.png", "real/a.png", "z.png"];
        assert_eq!(names(&mut scanner, &at("in")), expected);
        // Named by the user, a link is the folder.
        assert_eq!(names(&mut scanner, &at("in/a link")), ["a.png"]);
    }
}
