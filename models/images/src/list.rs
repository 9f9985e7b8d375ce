//! Text lists of images, as people have them: one reading for labeling, scoring and training.
//!
//! A line is a path, a pair of paths (image and label), a JSON object, or a line of a table whose first
//! line names its columns (`image,label`). Texts may be UTF-8 or
//! UTF-16, with any line ends; blank lines and lines that begin with `#` are skipped. A path may
//! stand relative to the root, absolute, with `./` or `//`, with back slashes, in quotes, as a bare
//! name or stem of an image folder, or in the other Unicode form than the name on the disk, as long
//! as it means one file.

mod table;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use table::TableHeader;
pub(crate) use table::values;
use unicode_normalization::UnicodeNormalization;

use crate::scan::is_image_path;

/// The reason why a list cannot be read at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListTextError {
    /// UTF-16 with unpaired surrogates, or cut short.
    #[error("broken UTF-16: save it as UTF-8")]
    Utf16,
    /// Four bytes a character.
    #[error("the text is UTF-32: save it as UTF-8")]
    Utf32,
    /// Another encoding of text.
    #[error("neither UTF-8 nor UTF-16: save it as UTF-8")]
    Utf8,
    /// NUL characters, which no path holds.
    #[error("line {0} holds a NUL character: not a list of paths, or not UTF-8")]
    Nul(usize),
    /// A line that is not a JSON object of the known keys.
    #[error("line {line}: expected an object such as {{\"image\": \"a/street.jpg\"}}: {error}")]
    Object {
        /// Number of the line, from 1.
        line: usize,
        /// The error of the JSON reader.
        error: String,
    },
    /// A line of a table with more or fewer columns than its first line.
    #[error(
        "line {line} has {found} columns, and the first line names {expected}; put names that hold \
         the separator in quotes"
    )]
    Columns {
        /// Number of the line, from 1.
        line: usize,
        /// Number of its columns.
        found: usize,
        /// Number of columns in the first line.
        expected: usize,
    },
    /// A line of a table without an image.
    #[error("line {line} names no image in its column of images")]
    NoImage {
        /// Number of the line, from 1.
        line: usize,
    },
}

/// A line of a list that names an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListLine {
    /// Number of the line, from 1.
    pub number: usize,
    /// Text or object of the line.
    pub content: LineContent,
}

/// Content of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineContent {
    /// A path, or a pair of paths, without surrounding spaces.
    Text(OsString),
    /// A JSON object.
    Object(ListObject),
}

/// JSON object of one line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListObject {
    /// Path of the image.
    pub image: PathBuf,
    /// Path of its label, for training and scoring.
    pub label: Option<PathBuf>,
    /// Path of its results below the output folder, for labeling; by default that of the image.
    pub name: Option<PathBuf>,
}

/// Splits the bytes of a list into lines. Lines are JSON objects if `objects`, or if the text
/// begins with `{`, or come as objects of a table if the first line names its columns. A line that
/// begins with `#` is a comment, unless a file below `root` has that name.
pub fn parse(bytes: &[u8], objects: bool, root: &Path) -> Result<Vec<ListLine>, ListTextError> {
    let text = decode(bytes)?;
    let objects = objects || text.trim_ascii_start().starts_with(b"{");
    // `find -print0` ends lines by NUL, and old Macs by a carriage return alone.
    let end = [b'\n', 0].into_iter().find(|end| text.contains(end)).unwrap_or(b'\r');
    let is_comment = |line: &[u8]| line[0] == b'#' && !root.join(OsStr::from_bytes(line)).is_file();
    let numbered = (1..).zip(text.split(|&byte| byte == end));
    let mut lines = numbered
        .map(|(number, line)| (number, line, trim(line)))
        .filter(|(.., line)| !line.is_empty() && !is_comment(line))
        .peekable();
    let mut header = None;
    if let Some((_, first, _)) = lines.peek().copied().filter(|_| !objects) {
        let next = lines.clone().nth(1).map(|(.., next)| next);
        header = TableHeader::detect(first, next, root);
    }
    if header.is_some() {
        lines.next();
    }
    lines
        .map(|(number, whole, line)| {
            if line.contains(&0) {
                return Err(ListTextError::Nul(number));
            }
            let content = match &header {
                // The first and the last value may be empty.
                Some(header) => LineContent::Object(header.object(number, whole)?),
                None if objects => LineContent::Object(object(number, line)?),
                None => LineContent::Text(OsStr::from_bytes(line).to_owned()),
            };
            Ok(ListLine { number, content })
        })
        .collect()
}

fn object(number: usize, line: &[u8]) -> Result<ListObject, ListTextError> {
    serde_json::from_slice(line)
        .map_err(|error| ListTextError::Object { line: number, error: error.to_string() })
}

/// Returns the text as UTF-8, or in the bytes of the system, without a byte order mark.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<u8>, ListTextError> {
    let units = |bytes: &[u8], read: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let text = String::from_utf16(&pairs.iter().map(|&pair| read(pair)).collect::<Vec<_>>());
        match text {
            Ok(text) if rest.is_empty() => Ok(text.into_bytes()),
            _ => Err(ListTextError::Utf16),
        }
    };
    match bytes {
        [0xEF, 0xBB, 0xBF, text @ ..] => Ok(text.to_owned()),
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => Err(ListTextError::Utf32),
        [0xFF, 0xFE, text @ ..] => units(text, u16::from_le_bytes),
        [0xFE, 0xFF, text @ ..] => units(text, u16::from_be_bytes),
        // Without a mark, ASCII characters tell the order.
        [first, 0, second, 0, ..] if *first != 0 && *second != 0 => {
            units(bytes, u16::from_le_bytes)
        }
        [0, first, 0, second, ..] if *first != 0 && *second != 0 => {
            units(bytes, u16::from_be_bytes)
        }
        _ => Ok(bytes.to_owned()),
    }
}

/// Without spaces around it, those of Unicode included.
fn trim(line: &[u8]) -> &[u8] {
    std::str::from_utf8(line).map_or_else(|_| line.trim_ascii(), |line| line.trim().as_bytes())
}

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
    root: &'a Path,
    /// Folders below the root in which bare names and stems are looked for.
    folders: Vec<PathBuf>,
    listings: HashMap<PathBuf, Listing>,
}

/// Names of a folder's entries by their stem or whole name in Unicode form C.
type Listing = HashMap<String, Vec<OsString>>;

/// Folders of images in data sets.
pub const IMAGE_FOLDERS: [&str; 2] = ["images", "JPEGImages"];

impl<'a> ListResolver<'a> {
    /// Looks for bare names in the root, then in `folders` below it.
    pub fn new(root: &'a Path, folders: &[&str]) -> Self {
        let folders = folders.iter().map(PathBuf::from).collect();
        Self { root, folders, listings: HashMap::new() }
    }

    /// Returns the image that a text means.
    pub fn image(&mut self, text: &OsStr) -> ListedFile {
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

    fn is_file(&self, path: &Path) -> bool {
        self.root.join(path).is_file()
    }

    /// A path whose names may be in another Unicode form on the disk.
    fn existing(&mut self, path: &Path) -> Option<PathBuf> {
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
    fn with_stem(&mut self, path: &Path) -> Vec<PathBuf> {
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
fn spellings(text: &OsStr) -> Vec<OsString> {
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

/// Path of a file relative to a root, however either is written; None outside of it.
pub fn below(root: &Path, path: &Path) -> Option<PathBuf> {
    let plain = |path: &Path| -> Option<PathBuf> {
        let inside =
            |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        path.components()
            .all(|part| inside(&part))
            .then(|| path.components().filter(|part| *part != Component::CurDir).collect())
    };
    if let Some(relative) = plain(path) {
        return Some(relative);
    }
    if let Some(relative) = path.strip_prefix(root).ok().and_then(plain) {
        return Some(relative);
    }
    // Links of files stay as they are: the name in the data set is what counts.
    let root_or_here = if root.as_os_str().is_empty() { Path::new(".") } else { root };
    let folder = root.join(path).parent()?.canonicalize().ok()?;
    let folder = folder.strip_prefix(root_or_here.canonicalize().ok()?).ok()?.to_owned();
    Some(folder.join(path.file_name()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bytes: &[u8]) -> Vec<String> {
        let lines = parse(bytes, false, Path::new("nowhere")).unwrap();
        let text = |line: ListLine| match line.content {
            LineContent::Text(text) => text.into_string().unwrap(),
            LineContent::Object(object) => object.image.display().to_string(),
        };
        lines.into_iter().map(text).collect()
    }

    #[test]
    fn encodings_line_ends_and_comments_do_not_matter() {
        let text = "# training\n\nimages/a.jpg \r\n\timages/ü b.jpg\n";
        let expected = ["images/a.jpg", "images/ü b.jpg"];
        assert_eq!(texts(text.as_bytes()), expected);
        assert_eq!(texts(format!("\u{feff}{text}").as_bytes()), expected);
        assert_eq!(texts(b"a\rb"), ["a", "b"]);
        assert_eq!(texts(b"./a\0./b\0"), ["./a", "./b"]);
        let units = |mark: bool, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            let mark = if mark { "\u{feff}" } else { "" };
            format!("{mark}{text}").encode_utf16().flat_map(bytes).collect()
        };
        for mark in [true, false] {
            assert_eq!(texts(&units(mark, u16::to_le_bytes)), expected);
            assert_eq!(texts(&units(mark, u16::to_be_bytes)), expected);
        }
        let error = |bytes: &[u8]| parse(bytes, false, Path::new("")).unwrap_err().to_string();
        assert!(error(b"\xFF\xFEa\0b").contains("save it as UTF-8"));
        assert!(error(b"\xFF\xFE\0\0a\0\0\0").contains("UTF-32"));
        assert!(error(b"a\nb\0c").starts_with("line 2 holds a NUL"));
        assert!(error(b"{\"image\": 5}").starts_with("line 1: expected an object"));
    }

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
        let lines = parse(b"#e.png\n# e", false, root.path()).unwrap();
        assert_eq!(lines.len(), 1);
        for path in ["./images//a.jpg", "images/../images/a.jpg", &absolute] {
            let below = below(root.path(), Path::new(path));
            assert_eq!(below.as_deref(), Some(Path::new("images/a.jpg")), "{path}");
        }
        assert_eq!(below(root.path(), Path::new("/dev/null")), None);
    }
}
