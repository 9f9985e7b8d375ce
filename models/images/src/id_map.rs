//! New ids for those of masks: a file of lines `26000-26999 26`, for masks whose ids do not fit into
//! a label map, such as those of instances.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use protoseg_models::errors::FileError;

/// Ids that a message names.
const NAMED: usize = 16;

/// New ids of the masks of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    path: PathBuf,
    rules: Vec<IdRule>,
    /// New ids of the others.
    rest: Option<NewId>,
}

/// New ids of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IdRule {
    first: u32,
    last: u32,
    new: NewId,
    line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NewId {
    Id(u8),
    /// Counts for nothing.
    Ignored,
    /// The old id, divided by a number.
    Divided(u32),
}

/// The reason why ids have no new ones.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum IdMapError {
    /// An I/O error.
    #[error(transparent)]
    File(#[from] FileError),
    /// A malformed line, with its number from 1.
    #[error(
        "{}, line {line}: `{text}` gives no id another; write `OLD NEW`, such as `26000-26999 26`, \
         `0,3 ignore`, `1000-65535 /1000` (divided by 1000) or `* =` (the others stay)",
        path.display()
    )]
    Line { path: PathBuf, line: usize, text: String },
    /// An id on two lines.
    #[error("{}, line {line}: the id {id} is on line {first} too", path.display())]
    Twice { path: PathBuf, line: usize, id: u32, first: usize },
    /// A file without lines.
    #[error("{} gives no id another; write lines `OLD NEW`, such as `26000-26999 26`", .0.display())]
    Empty(PathBuf),
    /// Ids without a new one, with their number of pixels and of masks.
    #[error("{}", unknown_text(path, ids))]
    Unknown { path: PathBuf, ids: BTreeMap<u32, [u64; 2]> },
}

impl IdMap {
    /// Loads a file; for its form see [`parse`](Self::parse).
    pub fn load(path: &Path) -> Result<Self, IdMapError> {
        Self::parse(&std::fs::read_to_string(path).map_err(FileError::at(path))?, path)
    }

    /// Parses lines `OLD NEW`; `#` starts a comment. OLD is an id, a range, a list of these, or `*` for
    /// all others. NEW is an id from 0 to 255, `ignore`, `/N` for the old id divided by N, or `=` for
    /// the old id.
    ///
    /// ```
    /// use std::path::Path;
    ///
    /// use protoseg_images::id_map::IdMap;
    ///
    /// let map = IdMap::parse("26000-26999 26\n7,11 /1\n* ignore\n", Path::new("map.txt"))?;
    /// assert_eq!(map.new_ids(&[26_003, 7, 300])?, [Some(26), Some(7), None]);
    /// # Ok::<(), protoseg_images::id_map::IdMapError>(())
    /// ```
    pub fn parse(text: &str, path: &Path) -> Result<Self, IdMapError> {
        let mut map = Self { path: path.into(), rules: Vec::new(), rest: None };
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let text = line.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            let line = index + 1;
            let malformed = || IdMapError::Line { path: path.into(), line, text: text.to_owned() };
            let (old, new) = parse_line(text).ok_or_else(malformed)?;
            if old.is_empty() && map.rest.replace(new).is_some() {
                return Err(malformed());
            }
            for (first, last) in old {
                let rule = IdRule { first, last, new, line };
                if let Some(other) = map.rules.iter().find(|other| other.meets(rule)) {
                    let (id, first) = (first.max(other.first), other.line);
                    return Err(IdMapError::Twice { path: path.into(), line, id, first });
                }
                map.rules.push(rule);
            }
        }
        if map.rules.is_empty() && map.rest.is_none() {
            return Err(IdMapError::Empty(path.into()));
        }
        Ok(map)
    }

    /// Returns the new ids; `None` for those that count for nothing. Fails with all ids that have none.
    pub fn new_ids(&self, ids: &[u32]) -> Result<Vec<Option<u8>>, IdMapError> {
        let mut known: HashMap<u32, Option<Option<u8>>> = HashMap::new();
        let mut unknown: BTreeMap<u32, [u64; 2]> = BTreeMap::new();
        let mut new_ids = Vec::with_capacity(ids.len());
        for &id in ids {
            match *known.entry(id).or_insert_with(|| self.new_id(id)) {
                Some(new) => new_ids.push(new),
                None => unknown.entry(id).or_insert([0, 1])[0] += 1,
            }
        }
        if unknown.is_empty() {
            return Ok(new_ids);
        }
        Err(IdMapError::Unknown { path: self.path.clone(), ids: unknown })
    }

    /// The new id of an id; `None` if it has none.
    fn new_id(&self, id: u32) -> Option<Option<u8>> {
        let rule = self.rules.iter().find(|rule| (rule.first..=rule.last).contains(&id));
        match rule.map(|rule| rule.new).or(self.rest)? {
            NewId::Id(new) => Some(Some(new)),
            NewId::Ignored => Some(None),
            NewId::Divided(by) => u8::try_from(id / by).ok().map(Some),
        }
    }
}

impl IdRule {
    fn meets(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Parses a line without its comment: ranges, none for `*`, and the new id.
fn parse_line(text: &str) -> Option<(Vec<(u32, u32)>, NewId)> {
    let (old, new) = text.split_once(|letter: char| letter.is_whitespace() || letter == ':')?;
    let new = match new.trim_matches(|letter: char| letter.is_whitespace() || letter == ':') {
        "ignore" | "ignored" | "-" => NewId::Ignored,
        "=" => NewId::Divided(1),
        new => match new.strip_prefix('/') {
            Some(by) => NewId::Divided(by.parse().ok().filter(|by| *by > 0)?),
            None => NewId::Id(new.parse().ok()?),
        },
    };
    if old == "*" {
        return Some((Vec::new(), new));
    }
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some((first, last))
    };
    Some((old.split(',').map(range).collect::<Option<_>>()?, new))
}

fn unknown_text(path: &Path, ids: &BTreeMap<u32, [u64; 2]>) -> String {
    let text = |(id, [pixels, masks]): (&u32, &[u64; 2])| {
        let masks = if *masks == 1 { "1 mask".to_owned() } else { format!("{masks} masks") };
        format!("{id} ({} in {masks})", crate::label_mapping::count(*pixels))
    };
    let listed: Vec<String> = ids.iter().take(NAMED).map(text).collect();
    let more = ids.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let word = if ids.len() == 1 { "the id" } else { "the ids" };
    let verb = if ids.len() == 1 { "has" } else { "have" };
    format!(
        "{word} {}{more} of the masks {verb} no new id from 0 to 255 in {}; add lines for them, or \
         `* ignore`",
        listed.join(", "),
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<IdMap, IdMapError> {
        IdMap::parse(text, Path::new("map.txt"))
    }

    #[test]
    fn ids_get_new_ones_by_every_kind_of_line() {
        let map = parse("\u{feff}# old new\n26000-26999 26 # cars\r\n0,3 ignore\n7: 1\n* /1000\n")
            .unwrap();
        let new = map.new_ids(&[26_001, 0, 3, 7, 24_999, 5]).unwrap();
        assert_eq!(new, [Some(26), None, None, Some(1), Some(24), Some(0)]);
        assert_eq!(parse("* =").unwrap().new_ids(&[255]).unwrap(), [Some(255)]);
        let error = parse("1 2").unwrap().new_ids(&[1, 300, 300, 9]).unwrap_err().to_string();
        assert!(
            error.contains("the ids 9 (1 pixel in 1 mask), 300 (2 pixels in 1 mask)"),
            "{error}"
        );
        assert!(error.contains("in map.txt; add lines for them, or `* ignore`"), "{error}");
        // 300 divided by 1 is none.
        assert!(parse("* =").unwrap().new_ids(&[300]).is_err());
        let many: Vec<u32> = (1000..1100).collect();
        let error = parse("1 2").unwrap().new_ids(&many).unwrap_err().to_string();
        assert!(error.contains("1015 (1 pixel in 1 mask) and 84 more"), "{error}");
    }

    #[test]
    fn malformed_lines_are_named() {
        for text in ["1", "1 256", "a 1", "2-1 1", "1 /0", "1 x", "* 1\n* 2"] {
            let line = text.lines().count();
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("map.txt, line {line}: ")), "{error}");
        }
        let error = parse("1-9 1\n\n5 2").unwrap_err().to_string();
        assert_eq!(error, "map.txt, line 3: the id 5 is on line 1 too");
        assert!(matches!(parse("# nothing\n"), Err(IdMapError::Empty(_))));
    }
}
