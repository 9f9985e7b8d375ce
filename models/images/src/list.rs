//! Text lists of images, as people have them: one reading for labeling, scoring and training.
//!
//! A line is a path, a pair of paths (image and label), a JSON object, or a line of a table whose first
//! line names its columns (`image,label`); or the whole list is a JSON array. Texts may be UTF-8 or
//! UTF-16, with any line ends; blank lines and lines that begin with `#` are skipped. A path may
//! stand relative to the root, absolute, with `./` or `//`, with back slashes, in quotes, as a bare
//! name or stem of an image folder, or in the other Unicode form than the name on the disk, as long
//! as it means one file.

mod guess;
mod json;
mod resolver;
mod table;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

pub(crate) use resolver::folded;
pub use resolver::{IMAGE_FOLDERS, ListResolver, ListedFile};
use serde::Deserialize;
use table::TableHeader;
pub(crate) use table::values;

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
    /// Malformed JSON.
    #[error("malformed JSON ({0}); a list is [\"a.jpg\", \"b.jpg\"], or a name a line")]
    Json(String),
    /// An entry of a JSON array that is no name.
    #[error(
        "entry {number} of the JSON array is {found}; a list is [\"a.jpg\", \"b.jpg\"], or of objects \
         such as {{\"image\": \"a.jpg\"}}"
    )]
    Entry {
        /// Number of the entry, from 1.
        number: usize,
        /// The entry.
        found: String,
    },
    /// A JSON object of several lists.
    #[error(
        "it is a JSON object of lists: {0}; a list is one of them: write each to a file of its own, as \
         [\"a.jpg\", \"b.jpg\"], or a name a line"
    )]
    JsonSplits(String),
    /// COCO's annotations.
    #[error(
        "it is COCO's JSON, and no list: `protoseg convert FILE --images DIR --out NEW` makes a data set \
         of it, with a list"
    )]
    Coco,
    /// Another JSON object.
    #[error(
        "it is a JSON object of the keys {0}, and no list: write [\"a.jpg\", \"b.jpg\"], or a name a line"
    )]
    JsonObject(String),
    /// YAML.
    #[error(
        "line {number}: `{line}` is YAML, which is not read: write a name a line without `- ` before it, \
         each list to a file of its own, or a JSON array [\"a.jpg\", \"b.jpg\"]"
    )]
    Yaml {
        /// Number of the line, from 1.
        number: usize,
        /// The line.
        line: String,
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
    /// A table whose rows belong to several splits.
    #[error(
        "the column `{column}` tells several splits apart: {values}; a list is one of them: write the rows of each to a file of its \
         own, or leave the column out if all are meant"
    )]
    Splits {
        /// Name of the column.
        column: String,
        /// Its values with their numbers of rows.
        values: String,
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

/// Splits that a message names.
const NAMED_SPLITS: usize = 5;

/// Splits the bytes of a list into lines. Lines are JSON objects if `objects`, or if the text
/// begins with `{`, or come as objects of a table if the first line names its columns. A line that
/// begins with `#` is a comment, unless a file below `root` has that name. A table with rows of several splits is refused.
pub fn parse(bytes: &[u8], objects: bool, root: &Path) -> Result<Vec<ListLine>, ListTextError> {
    let text = decode(bytes)?;
    if let Some(lines) = json::parse(&text, root) {
        return lines;
    }
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
    let mut splits: BTreeMap<OsString, usize> = BTreeMap::new();
    let lines: Vec<ListLine> = lines
        .map(|(number, whole, line)| {
            if line.contains(&0) {
                return Err(ListTextError::Nul(number));
            }
            let content = match &header {
                // The first and the last value may be empty.
                Some(header) => {
                    if let Some(split) = header.split(whole) {
                        *splits.entry(split).or_default() += 1;
                    }
                    LineContent::Object(header.object(number, whole)?)
                }
                None if objects => LineContent::Object(object(number, line)?),
                None => LineContent::Text(OsStr::from_bytes(line).to_owned()),
            };
            Ok(ListLine { number, content })
        })
        .collect::<Result<_, _>>()?;
    if splits.len() > 1
        && let Some(column) = header.and_then(TableHeader::split_name)
    {
        let counted = |(value, count): (&OsString, &usize)| {
            let rows = if *count == 1 { "row" } else { "rows" };
            format!("{} ({count} {rows})", value.to_string_lossy())
        };
        let values: Vec<String> = splits.iter().take(NAMED_SPLITS).map(counted).collect();
        let more = if splits.len() > NAMED_SPLITS { ", …" } else { "" };
        return Err(ListTextError::Splits { column, values: values.join(", ") + more });
    }
    Ok(lines)
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
}
