//! The files that the texts of lists mean.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use unicode_normalization::UnicodeNormalization;

use super::guess::Guesses;
use crate::scan::is_image_path;

/// The file that a text of a list means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedFile {
    /// A file, by its path relative to the root, or absolute.
    Found(PathBuf),
    /// Several files could be meant, by their paths relative to the root.
    Ambiguous(Vec<PathBuf>),
    /// No file; with the line that may be meant, if one is near.
    Missing(Option<PathBuf>),
}

/// Finds the files that lists mean below a root. Keeps the names of folders that it had to search.
#[derive(Debug)]
pub struct ListResolver<'a> {
    pub(super) root: &'a Path,
    /// Folders below the root in which bare names and stems are looked for.
    pub(super) folders: Vec<PathBuf>,
    listings: HashMap<PathBuf, Listing>,
    pub(super) guesses: Guesses,
}

/// Names of a folder's entries by their stem or whole name in Unicode form C.
type Listing = HashMap<String, Vec<OsString>>;

/// Folders of images in data sets.
pub const IMAGE_FOLDERS: [&str; 2] = ["images", "JPEGImages"];

impl<'a> ListResolver<'a> {
    /// Looks for bare names in the root, then in `folders` below it.
    pub fn new(root: &'a Path, folders: &[&str]) -> Self {
        let folders = folders.iter().map(PathBuf::from).collect();
        Self { root, folders, listings: HashMap::new(), guesses: Guesses::default() }
    }

    /// Looks for bare names in another folder too.
    pub(crate) fn add_folder(&mut self, folder: PathBuf) {
        if !self.folders.contains(&folder) {
            self.folders.push(folder);
        }
    }

    /// Returns the image that a text means: as it stands, or else in other upper and lower case or by
    /// the end of a path of another machine, which [`remarks`](Self::remarks) count.
    pub fn image(&mut self, text: &OsStr) -> ListedFile {
        match self.exact_image(text) {
            ListedFile::Missing(near) => {
                self.guess(text, true).unwrap_or(ListedFile::Missing(near))
            }
            found => found,
        }
    }

    /// Returns the image that a text means as it stands.
    pub(crate) fn exact_image(&mut self, text: &OsStr) -> ListedFile {
        if self.is_file(Path::new(text)) {
            return ListedFile::Found(text.into());
        }
        let mut near = None;
        for spelling in spellings(text) {
            let path = Path::new(&spelling);
            let mut places = vec![path.to_owned()];
            if path.is_relative() {
                places.extend(self.folders.iter().map(|folder| folder.join(path)));
            }
            if let Some(found) = places.iter().find_map(|place| self.existing(place)) {
                return ListedFile::Found(found);
            }
            let mut found: Vec<PathBuf> =
                places.iter().flat_map(|place| self.with_stem(place)).collect();
            found.dedup();
            match found.len() {
                0 => {}
                1 if !is_image_path(path) => return ListedFile::Found(found.remove(0)),
                // Another image of the same stem is not the one that the text names.
                _ if is_image_path(path) => near = near.or(found.into_iter().next()),
                _ => return ListedFile::Ambiguous(found),
            }
        }
        ListedFile::Missing(near)
    }

    /// Returns a file by its path, also in other spellings and Unicode forms, relative to the root
    /// or absolute.
    pub fn file(&mut self, text: &OsStr) -> Option<PathBuf> {
        if self.is_file(Path::new(text)) {
            return Some(text.into());
        }
        spellings(text).into_iter().find_map(|spelling| self.existing(Path::new(&spelling)))
    }

    /// Returns the file at a path below the root, or absolute, that [`file`](Self::file) finds.
    pub fn file_at(&mut self, path: &Path) -> Option<PathBuf> {
        let relative = path.strip_prefix(self.root).unwrap_or(path).to_owned();
        Some(self.root.join(self.file(relative.as_os_str())?))
    }

    /// Returns the files beside a path, which begins with the root, whose name without the ending is
    /// that of the path in either Unicode form.
    pub fn same_stem(&mut self, path: &Path) -> Vec<PathBuf> {
        let relative = path.strip_prefix(self.root).unwrap_or(path).to_owned();
        let key = relative.file_stem().and_then(form_c);
        let (Some(key), Some(folder)) = (key, relative.parent()) else { return Vec::new() };
        let is_same =
            |name: &&OsString| Path::new(name).file_stem().and_then(form_c).as_ref() == Some(&key);
        let names = self.listing(folder).get(&key).map(Vec::as_slice).unwrap_or_default();
        let names: Vec<OsString> = names.iter().filter(is_same).cloned().collect();
        names.iter().map(|name| path.with_file_name(name)).collect()
    }

    pub(super) fn is_file(&self, path: &Path) -> bool {
        self.root.join(path).is_file()
    }

    /// A path whose names may be in another Unicode form on the disk.
    pub(super) fn existing(&mut self, path: &Path) -> Option<PathBuf> {
        if self.is_file(path) {
            return Some(path.into());
        }
        if path.to_str().is_none_or(str::is_ascii) {
            return None;
        }
        let mut found = PathBuf::new();
        for part in path.components() {
            let next = found.join(part);
            if matches!(part, Component::Normal(_)) && !self.root.join(&next).exists() {
                let key = form_c(part.as_os_str())?;
                let names = self.listing(&found).get(&key)?;
                let mut same =
                    names.iter().filter(|name| form_c(name).as_deref() == Some(key.as_str()));
                let (name, others) = (same.next()?.clone(), same.count());
                if others > 0 {
                    return None;
                }
                found.push(name);
            } else {
                found = next;
            }
        }
        self.is_file(&found).then_some(found)
    }

    /// Images with the stem of a path, or with its name as their stem.
    pub(crate) fn with_stem(&mut self, path: &Path) -> Vec<PathBuf> {
        let stem = if is_image_path(path) { path.file_stem() } else { path.file_name() };
        let (Some(key), Some(folder)) = (stem.and_then(form_c), path.parent()) else {
            return Vec::new();
        };
        let is_image = |name: &&OsString| {
            let name = Path::new(name);
            is_image_path(name) && name.file_stem().and_then(form_c).as_ref() == Some(&key)
        };
        let names = self.listing(folder).get(&key).map(Vec::as_slice).unwrap_or_default();
        names.iter().filter(is_image).map(|name| folder.join(name)).collect()
    }

    fn listing(&mut self, folder: &Path) -> &Listing {
        let path = self.root.join(folder);
        self.listings.entry(path).or_insert_with_key(|path| {
            let mut listing = Listing::new();
            // An empty path is the current folder.
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path.as_path() };
            let mut names: Vec<OsString> = std::fs::read_dir(path)
                .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect())
                .unwrap_or_default();
            names.sort();
            for name in names {
                let stem = Path::new(&name).file_stem().and_then(form_c);
                let whole = form_c(&name);
                for key in
                    stem.iter().chain(whole.as_ref().filter(|whole| Some(*whole) != stem.as_ref()))
                {
                    listing.entry(key.clone()).or_default().push(name.clone());
                }
            }
            listing
        })
    }
}

/// Other ways of writing a path: without quotes, without a comment behind it, with slashes.
pub(super) fn spellings(text: &OsStr) -> Vec<OsString> {
    let bytes = text.as_bytes();
    let mut spellings = vec![bytes.to_owned()];
    for quote in [b'"', b'\''] {
        if let [first, inner @ .., last] = bytes
            && *first == quote
            && *last == quote
        {
            spellings.push(inner.to_owned());
        }
    }
    let comment =
        bytes.windows(2).position(|pair| pair[0].is_ascii_whitespace() && pair[1] == b'#');
    spellings.extend(comment.map(|start| bytes[..start].trim_ascii_end().to_owned()));
    let slashed: Vec<Vec<u8>> = spellings
        .iter()
        .filter(|spelling| spelling.contains(&b'\\'))
        .map(|spelling| {
            spelling.iter().map(|&byte| if byte == b'\\' { b'/' } else { byte }).collect()
        })
        .collect();
    spellings.extend(slashed);
    spellings.into_iter().map(OsString::from_vec).collect()
}

/// A name in Unicode form C; None if it is not UTF-8.
fn form_c(name: &OsStr) -> Option<String> {
    Some(name.to_str()?.nfc().collect())
}

/// A name in Unicode form C and lower case; None if it is not UTF-8.
pub(crate) fn folded(name: &OsStr) -> Option<String> {
    Some(form_c(name)?.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_the_files_that_are_there() {
        let root = tempfile::tempdir().unwrap();
        // On the disk: one name in form D, one in form C.
        let (nfd, nfc) = ("gru\u{308}n", "h\u{f6}he");
        for name in [
            "images/a.jpg",
            "images/a b.png",
            "images/deep/c.jpg",
            "images/c.png",
            "images/d.jpg",
            "images/d.png",
            "#e.png",
        ] {
            std::fs::create_dir_all(root.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(root.path().join(name), "").unwrap();
        }
        for stem in [nfd, nfc] {
            std::fs::write(root.path().join(format!("images/{stem}.jpg")), "").unwrap();
        }
        let mut resolver = ListResolver::new(root.path(), &IMAGE_FOLDERS);
        let absolute = root.path().join("images/a.jpg").display().to_string();
        for (text, expected) in [
            ("images/a.jpg", "images/a.jpg"),
            ("./images//a.jpg", "./images//a.jpg"),
            ("images\\deep\\c.jpg", "images/deep/c.jpg"),
            ("\"images/a b.png\"", "images/a b.png"),
            ("images/a.jpg # bad light", "images/a.jpg"),
            ("a.jpg", "images/a.jpg"),
            ("a", "images/a.jpg"),
            ("deep/c", "images/deep/c.jpg"),
            ("images/gr\u{fc}n.jpg", "images/gru\u{308}n.jpg"),
            ("ho\u{308}he", "images/h\u{f6}he.jpg"),
            (&absolute, &absolute),
        ] {
            assert_eq!(resolver.image(text.as_ref()), ListedFile::Found(expected.into()), "{text}");
        }
        let twins = vec![PathBuf::from("images/d.jpg"), "images/d.png".into()];
        assert_eq!(resolver.image("d".as_ref()), ListedFile::Ambiguous(twins));
        let near = ListedFile::Missing(Some("images/a.jpg".into()));
        assert_eq!(resolver.image("images/a.jpeg".as_ref()), near);
        assert_eq!(resolver.image("images/x.jpg".as_ref()), ListedFile::Missing(None));
        let lines = crate::list::parse(b"#e.png\n# e", false, root.path()).unwrap();
        assert_eq!(lines.len(), 1);
        for path in ["./images//a.jpg", "images/../images/a.jpg", &absolute] {
            let below = crate::list::below(root.path(), Path::new(path));
            assert_eq!(below.as_deref(), Some(Path::new("images/a.jpg")), "{path}");
        }
        assert_eq!(crate::list::below(root.path(), Path::new("/dev/null")), None);
    }
}
