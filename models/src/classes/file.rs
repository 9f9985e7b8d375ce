//! Class files: `classes.txt` and JSON lists of classes.

use std::borrow::Cow;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::listed::{ListedClass, names_columns, parse_class_table};
use super::{Class, ClassError, ClassTable, IGNORE_INDEX, read_class_text, voc_color};

/// Classes of a data set, with the ids of its label files that count for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassFile {
    /// The classes.
    pub table: ClassTable,
    /// By train id: true for a color of the file, false for a chosen one.
    pub given_colors: Vec<bool>,
    /// Ids that count for nothing, in the order of the file. 255 counts for nothing too, unless it
    /// is a class.
    pub ignored: Vec<IgnoredIds>,
    /// True if every id that is no class counts for nothing.
    pub ignores_rest: bool,
}

/// Ids that count for nothing: a line such as `0 ignore`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredIds {
    /// First and last id.
    pub ids: (u8, u8),
    /// Name on the line, such as `fence` in `3 fence ignore`, if there is one.
    pub name: Option<String>,
    /// RGB of these pixels in colored masks, if the line gives it.
    pub color: Option<[u8; 3]>,
}

impl From<ClassTable> for ClassFile {
    /// A table all of whose colors are meant.
    fn from(table: ClassTable) -> Self {
        let given_colors = vec![true; table.count()];
        Self { table, given_colors, ignored: Vec::new(), ignores_rest: false }
    }
}

impl ClassFile {
    /// Returns the built-in table `cityscapes`, `camvid` or `voc`, or loads a file.
    ///
    /// A `.json` file holds a list of names or of objects `{name, color, id, ignore}`, the last three
    /// optional, or an object with such a list under `categories`, as in COCO, or `classes`; for other
    /// files see [`parse`](Self::parse).
    pub fn load(name: &Path) -> Result<Self, ClassError> {
        match name.to_str() {
            Some("cityscapes") => return Ok(ClassTable::cityscapes().into()),
            Some("camvid") => return Ok(ClassTable::camvid().into()),
            Some("voc") => return Ok(ClassTable::voc().into()),
            _ if !name.is_file() => return Err(ClassError::Absent(name.into())),
            _ => {}
        }
        let text = read_class_text(name)?;
        let file = if name.extension().is_some_and(|extension| extension == "json") {
            let classes = json_classes(&text)
                .map_err(|source| ClassError::Json { path: name.into(), source })?;
            Self::from_json(classes)
        } else {
            Self::parse(&text)
        };
        file.map_err(|error| ClassError::Table { path: name.into(), source: error.into() })
    }

    /// Parses a class file: `id name` on each line, in order of train ids, with a color as
    /// `red green blue` or `#rrggbb` behind the name if it is given. Names may contain spaces, and
    /// `#` starts a comment. A name that a line cannot hold so, such as `a # b`, stands in quotes, as
    /// a JSON string; quotes around other names belong to them.
    ///
    /// Where the name is `ignore` or `-`, or ends with the word `ignore`, the id counts for nothing;
    /// there the id may be a list such as `0,90-99`, or `*` for every id that is no class.
    ///
    /// Tables are read too, see [`parse_class_table`], such as Roboflow's `Pixel Value, Class` or
    /// `name,r,g,b`; without ids, classes have those of their positions.
    ///
    /// ```
    /// use protoseg_models::classes::ClassFile;
    ///
    /// let file = ClassFile::parse("0 void ignore\n1 road #804080\n255 crack\n")?;
    /// assert_eq!(file.table.count(), 2);
    /// assert_eq!(file.given_colors, [true, false]);
    /// assert!(file.is_ignored(0) && !file.is_ignored(255));
    /// # Ok::<(), protoseg_models::classes::ClassError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, ClassError> {
        if let Some(listed) = parse_class_table(text)? {
            return Self::from_listed(listed);
        }
        let mut lines = Vec::new();
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            if lines.is_empty() && names_columns(line) {
                continue;
            }
            let malformed = || match large_id(line) {
                Some(id) => ClassError::LargeId { line: index + 1, id: id.to_owned() },
                None => ClassError::Line(index + 1, line.trim().to_owned()),
            };
            if let Some(quoted) = QuotedName::find(line) {
                lines.push(quoted.parse().ok_or_else(malformed)?);
                continue;
            }
            let (line, hex) = split_comment(line).ok_or_else(malformed)?;
            if line.is_empty() {
                continue;
            }
            lines.push(Line::parse(line, hex).ok_or_else(malformed)?);
        }
        Self::from_lines(lines)
    }

    fn from_listed(classes: Vec<ListedClass>) -> Result<Self, ClassError> {
        if classes.len() > 256 {
            return Err(ClassError::Count(classes.len()));
        }
        let line = |(index, class): (u8, ListedClass)| {
            let id = class.id.unwrap_or(index);
            let malformed = ClassError::Line(usize::from(index) + 1, class.name.clone());
            Line::new(vec![Ids::Range(id, id)], class.name, class.color).ok_or(malformed)
        };
        let lines = (0..=u8::MAX).zip(classes).map(line).collect::<Result<_, _>>()?;
        Self::from_lines(lines)
    }

    fn from_json(classes: Vec<JsonClass>) -> Result<Self, ClassError> {
        // Before indices are converted to ids.
        if classes.len() > 256 {
            return Err(ClassError::Count(classes.len()));
        }
        let mut lines = Vec::new();
        for (index, class) in (0..=u8::MAX).zip(classes) {
            let (name, color, source_id, ignore) = match class {
                JsonClass::Name(name) => (name, None, None, None),
                JsonClass::Class { name, color, source_id, ignore, .. } => {
                    (name, color, source_id, ignore)
                }
            };
            let color = match color {
                None => None,
                Some(JsonColor::Rgb(color)) => Some(color),
                Some(JsonColor::Hex(text)) => {
                    let digits = text.strip_prefix('#').and_then(hex_color);
                    Some(digits.ok_or_else(|| ClassError::Line(usize::from(index) + 1, text))?)
                }
            };
            let id = source_id.unwrap_or(index);
            let ids = Ids::Range(id, id);
            let line = match ignore {
                Some(true) => Line::Ignored { ids: vec![ids], name: Some(name), color },
                Some(false) => Line::Class { id, name, color },
                None => Line::new(vec![ids], name, color)
                    .ok_or_else(|| ClassError::Line(usize::from(index) + 1, String::new()))?,
            };
            lines.push(line);
        }
        Self::from_lines(lines)
    }

    fn from_lines(lines: Vec<Line>) -> Result<Self, ClassError> {
        let (mut classes, mut given_colors) = (Vec::new(), Vec::new());
        let (mut ignored, mut ignores_rest) = (Vec::new(), false);
        for line in lines {
            match line {
                Line::Class { id, name, color } => {
                    given_colors.push(color.is_some());
                    let color = color.unwrap_or_else(|| voc_color(classes.len()));
                    classes.push(Class { name, color, source_id: id });
                }
                Line::Ignored { ids, name, color } => {
                    for ids in ids {
                        match ids {
                            Ids::Range(first, last) => {
                                let (ids, name) = ((first, last), name.clone());
                                ignored.push(IgnoredIds { ids, name, color });
                            }
                            Ids::Rest => ignores_rest = true,
                        }
                    }
                }
            }
        }
        let file =
            Self { table: ClassTable::try_from(classes)?, given_colors, ignored, ignores_rest };
        let is_listed =
            |class: &&Class| file.ignored.iter().any(|ignored| ignored.holds(class.source_id));
        match file.table.classes().iter().find(is_listed) {
            Some(class) => {
                Err(ClassError::Ignored { class: class.name.clone(), id: class.source_id })
            }
            None => Ok(file),
        }
    }

    /// Returns true if pixels of an id count for nothing.
    pub fn is_ignored(&self, id: u8) -> bool {
        let is_class = self.table.classes().iter().any(|class| class.source_id == id);
        let listed = || self.ignored.iter().any(|ignored| ignored.holds(id));
        !is_class && (id == IGNORE_INDEX || self.ignores_rest || listed())
    }

    /// Returns the color that the file gives to a class, by train id.
    pub fn color(&self, train_id: usize) -> Option<[u8; 3]> {
        let given = self.given_colors.get(train_id).copied().unwrap_or_default();
        self.table.classes().get(train_id).filter(|_| given).map(|class| class.color)
    }

    /// Describes the ids that the file ignores, such as `0, 90-99`; `None` if it lists none.
    pub fn ignored_text(&self) -> Option<String> {
        let range = |ignored: &IgnoredIds| match ignored.ids {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let listed = self.ignored.iter().map(range);
        let rest = self.ignores_rest.then(|| "every id that is no class".to_owned());
        let ids: Vec<String> = listed.chain(rest).collect();
        (!ids.is_empty()).then(|| ids.join(", "))
    }
}

impl IgnoredIds {
    fn holds(&self, id: u8) -> bool {
        (self.ids.0..=self.ids.1).contains(&id)
    }
}

/// Reads the list of a JSON file, which may stand in an object.
fn json_classes(text: &str) -> Result<Vec<JsonClass>, serde_json::Error> {
    let mut value: serde_json::Value = serde_json::from_str(text)?;
    let lists = ["categories", "classes", "labels", "names"];
    let key = lists.into_iter().find(|key| value.get(key).is_some_and(serde_json::Value::is_array));
    match key.and_then(|key| value.get_mut(key)).map(serde_json::Value::take) {
        Some(list) => {
            let mut list = list;
            // Keypoints and the like.
            let objects = list.as_array_mut().into_iter().flatten();
            objects.filter_map(serde_json::Value::as_object_mut).for_each(|class| {
                class.retain(|key, _| JSON_KEYS.contains(&key.as_str()));
            });
            serde_json::from_value(list)
        }
        None => serde_json::from_str(text),
    }
}

/// Keys of a class in a JSON file.
const JSON_KEYS: [&str; 7] =
    ["name", "color", "source_id", "id", "ignore", "supercategory", "isthing"];

/// A class in a JSON file.
#[derive(Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "a class is a name, or an object with `name` and perhaps `id` (0 to 255), `color` and `ignore`"
)]
enum JsonClass {
    Name(String),
    Class {
        name: String,
        color: Option<JsonColor>,
        #[serde(alias = "id")]
        source_id: Option<u8>,
        ignore: Option<bool>,
        /// Of COCO, without a meaning here.
        #[serde(rename = "supercategory")]
        _supercategory: Option<IgnoredAny>,
        #[serde(rename = "isthing")]
        _is_thing: Option<IgnoredAny>,
    },
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a color is [red, green, blue] from 0 to 255, or \"#rrggbb\"")]
enum JsonColor {
    Rgb([u8; 3]),
    Hex(String),
}

/// Returns true for names of pixels that count for nothing elsewhere, such as `void`; a class file
/// makes classes of them.
pub fn means_void(name: &str) -> bool {
    let name = name.to_lowercase();
    let named = ["void", "don't care", "dont care", "dontcare"].contains(&name.as_str());
    named || name.starts_with("unlabel")
}

/// Returns true for names that say in a class file that their ids count for nothing: `-`, `ignore`,
/// `ignored`, and those that end with one of these words.
pub fn means_ignored(name: &str) -> bool {
    let name = name.to_lowercase();
    let last = name.rsplit(' ').next().unwrap_or_default();
    matches!(last, "ignore" | "ignored") || name == "-"
}

/// The name of a class as its line has it: in quotes where it would be read otherwise.
pub(super) fn written_name<'a>(ids: &str, name: &'a str) -> Cow<'a, str> {
    if is_plain(ids, name) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(serde_json::Value::from(name).to_string())
}

/// Returns true if a name is read back from a line that has it as it is.
fn is_plain(ids: &str, name: &str) -> bool {
    let line = format!("{ids} {name} 1 2 3");
    let mut lines = line.lines();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    if QuotedName::find(line).is_some() {
        return false;
    }
    let parsed = split_comment(line).and_then(|(line, hex)| Line::parse(line, hex));
    matches!(parsed, Some(Line::Class { name: own, .. }) if own == name)
}

/// A line with a name in quotes.
struct QuotedName<'a> {
    ids: &'a str,
    name: String,
    /// Color and comment.
    tail: &'a str,
}

impl<'a> QuotedName<'a> {
    /// Finds a name in quotes that cannot stand without them.
    fn find(line: &'a str) -> Option<Self> {
        let quoted = Self::split(line).filter(|quoted| !quoted.name.is_empty())?;
        // Ends, as the name in quotes is shorter than the line's.
        (!is_plain(quoted.ids, &quoted.name)).then_some(quoted)
    }

    fn split(line: &'a str) -> Option<Self> {
        let (ids, rest) = line.trim().split_once(char::is_whitespace)?;
        let rest = rest.trim_start();
        if !rest.starts_with('"') {
            return None;
        }
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<String>();
        let name = values.next()?.ok()?;
        let tail = rest.get(values.byte_offset()..)?;
        Some(Self { ids, name, tail })
    }

    fn parse(self) -> Option<Line> {
        // The rest is that of any other line.
        let line = format!("{} x {}", self.ids, self.tail);
        let (line, hex) = split_comment(&line)?;
        match Line::parse(line, hex)? {
            Line::Class { id, name, color } if name == "x" => {
                Some(Line::Class { id, name: self.name, color })
            }
            Line::Ignored { ids, color, .. } => {
                Some(Line::Ignored { ids, name: Some(self.name), color })
            }
            Line::Class { .. } => None,
        }
    }
}

/// A line of a class file.
enum Line {
    Class { id: u8, name: String, color: Option<[u8; 3]> },
    Ignored { ids: Vec<Ids>, name: Option<String>, color: Option<[u8; 3]> },
}

/// Ids at the start of a line.
enum Ids {
    Range(u8, u8),
    Rest,
}

impl Line {
    /// Parses a line without its comment; `hex` is a color behind it.
    fn parse(line: &str, hex: Option<[u8; 3]>) -> Option<Self> {
        let mut words = line.split_whitespace();
        let ids = words.next()?.split(',').map(Ids::parse).collect::<Option<Vec<Ids>>>()?;
        let mut words: Vec<&str> = words.collect();
        let color = match hex {
            Some(color) => Some(color),
            None => take_color(&mut words)?,
        };
        Self::new(ids, words.join(" "), color)
    }

    fn new(ids: Vec<Ids>, name: String, color: Option<[u8; 3]>) -> Option<Self> {
        match ids[..] {
            _ if means_ignored(&name) => {
                let words = name.rsplit_once(' ').map(|(words, _)| words.to_owned());
                Some(Self::Ignored { ids, name: words, color })
            }
            [Ids::Range(IGNORE_INDEX, IGNORE_INDEX)] if means_void(&name) => {
                Some(Self::Ignored { ids, name: Some(name), color })
            }
            [Ids::Range(id, last)] if id == last && !name.is_empty() => {
                Some(Self::Class { id, name, color })
            }
            _ => None,
        }
    }
}

impl Ids {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Rest);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some(Self::Range(first, last))
    }
}

/// Returns the first of the ids at the start of a line that is above 255.
fn large_id(line: &str) -> Option<&str> {
    let ids = line.split_whitespace().next()?.split([',', '-']);
    let is_number = |id: &&str| !id.is_empty() && id.bytes().all(|digit| digit.is_ascii_digit());
    ids.filter(is_number).find(|id| id.parse::<u8>().is_err())
}

/// Removes the color from the end of the words behind the id: three numbers, or three with commas
/// between them. `None` if it is out of range.
fn take_color(words: &mut Vec<&str>) -> Option<Option<[u8; 3]>> {
    let color = |[red, green, blue]: [&str; 3]| {
        Some([red.parse().ok()?, green.parse().ok()?, blue.parse().ok()?])
    };
    let is_number = |word: &str| word.parse::<f64>().is_ok();
    if let Some(last) = words.last()
        && let [red, green, blue] = last.split(',').collect::<Vec<_>>()[..]
        && [red, green, blue].into_iter().all(is_number)
        && words.len() > 1
    {
        words.pop();
        return Some(Some(color([red, green, blue])?));
    }
    match words.split_last_chunk() {
        Some((name, &tail)) if !name.is_empty() && tail.into_iter().all(is_number) => {
            let color = color(tail)?;
            words.truncate(words.len() - 3);
            Some(Some(color))
        }
        _ => Some(None),
    }
}

/// Splits a line at its comment. `#rrggbb` behind a name is a color, and no comment. `None` if the
/// line cannot be read.
fn split_comment(line: &str) -> Option<(&str, Option<[u8; 3]>)> {
    let Some((before, after)) = line.split_once('#') else { return Some((line.trim(), None)) };
    let end = after.find(char::is_whitespace).unwrap_or(after.len());
    let (digits, rest) = after.split_at(end);
    let behind_name =
        before.ends_with(char::is_whitespace) && before.split_whitespace().count() > 1;
    let is_hex = digits.chars().all(|digit| digit.is_ascii_hexdigit());
    if !behind_name || !is_hex || !matches!(digits.len(), 3 | 4 | 6 | 8) {
        return Some((before.trim(), None));
    }
    let rest = rest.trim();
    if rest.is_empty() || rest.starts_with('#') {
        return Some((before.trim(), Some(hex_color(digits)?)));
    }
    // A word such as `#facade` starts a comment; with a digit in it, it is a color in a wrong place.
    let is_word = !digits.contains(|digit: char| digit.is_ascii_digit());
    is_word.then(|| (before.trim(), None))
}

/// Parses `rrggbb` or `rgb`.
fn hex_color(digits: &str) -> Option<[u8; 3]> {
    let number = u32::from_str_radix(digits, 16).ok()?;
    let [_, red, green, blue] = number.to_be_bytes();
    match digits.len() {
        6 => Some([red, green, blue]),
        3 => Some([8, 4, 0].map(|shift| (number >> shift & 15) as u8 * 17)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_file_is_parsed_and_its_faults_are_named() {
        let table = ClassTable::parse("# land\n3 open water 0 0 255\n\n9 field # crops\n").unwrap();
        assert_eq!(
            table.classes()[0],
            Class { name: "open water".into(), color: [0, 0, 255], source_id: 3 }
        );
        assert_eq!((table.classes()[1].name.as_str(), table.train_ids()[9]), ("field", 1));
        let error = |text: &str| ClassTable::parse(text).unwrap_err();
        let line = error("1 a\n2 b\nthree c");
        assert!(matches!(&line, ClassError::Line(3, text) if text == "three c"), "{line}");
        assert!(matches!(error("1 a\n1 b"), ClassError::Duplicate { .. }));
        assert!(matches!(error("1 a"), ClassError::Count(1)));
        assert_eq!(ClassTable::parse(&table.text()).unwrap(), table);
        assert_eq!(ClassTable::parse("\u{feff}1 a\r\n2 b\r\n").unwrap().count(), 2);
        for text in ["256 a", "0,300-310 ignore", "70000 b"] {
            let error = error(&format!("{text}\n1 b"));
            assert!(matches!(error, ClassError::LargeId { line: 1, .. }), "{text}: {error}");
        }
        for text in ["-1 a", "0 a 300 0 0", "0 a 0.5 0 0", "0 a #12345678", "0,1 a", "0"] {
            let error = error(&format!("{text}\n1 b"));
            assert!(matches!(error, ClassError::Line(1, _)), "{text}: {error}");
        }
    }

    #[test]
    fn ids_are_ignored_in_every_spelling() {
        for line in ["0 ignore", "0 -", "0 Void ignore", "0 - ignore", "0 void IGNORED 0 0 0"] {
            let file = ClassFile::parse(&format!("{line}\n1 a\n2 b")).unwrap();
            assert!(file.is_ignored(0) && !file.is_ignored(1) && file.is_ignored(255), "{line}");
            assert_eq!((file.table.count(), file.ignored_text().unwrap().as_str()), (2, "0"));
        }
        let file = ClassFile::parse("1 a\n2 b\n0,77,90-99 ignore\n255 void 224 224 192").unwrap();
        assert_eq!(file.ignored_text().unwrap(), "0, 77, 90-99, 255");
        assert!(file.is_ignored(95) && !file.is_ignored(100));
        assert_eq!(file.ignored[3].color, Some([224, 224, 192]));
        let rest = ClassFile::parse("1 a\n255 b\n* ignore").unwrap();
        assert!(rest.is_ignored(200) && !rest.is_ignored(255) && !rest.is_ignored(1));
        let error = ClassFile::parse("1 a\n2 b\n0-1 ignore").unwrap_err().to_string();
        assert!(error.contains("class `a` has the id 1, which another line ignores"), "{error}");
        // Learned, but pointed at.
        let file = ClassFile::parse("0 void\n1 a").unwrap();
        assert_eq!(file.table.named_like_void().count(), 1);
    }

    #[test]
    fn colors_have_several_spellings() {
        let colors = |line: &str| {
            let file = ClassFile::parse(&format!("{line}\n9 other")).unwrap();
            (file.table.classes()[0].name.clone(), file.color(0))
        };
        let red = ("big road".to_owned(), Some([255, 0, 16]));
        for line in ["#ff0010", "#FF0010 # asphalt", "255 0 16", "255,0,16 # #000000"] {
            assert_eq!(colors(&format!("0 big road {line}")), red, "{line}");
        }
        assert_eq!(colors("0 road #f00"), ("road".to_owned(), Some([255, 0, 0])));
        for line in ["0 road # ff0010", "0 road #crops", "0 road #facade of houses", "0 road"] {
            assert_eq!(colors(line), ("road".to_owned(), None), "{line}");
        }
        assert!(ClassFile::parse("0 road #ff0010 asphalt\n1 b").is_err());
    }

    #[test]
    fn names_that_a_line_cannot_hold_are_read_back_from_quotes() {
        let names = [
            "a#b",
            "a  b",
            " a",
            "a ",
            "a\nb",
            "a\rb",
            "a\tb",
            "# a",
            "ignore",
            "wall ignore",
            "-",
            "\"a#b\"",
            "\"a # b",
            "3 cars",
            "1 2 3",
            "1,2,3",
            "\"cars\"",
            "a \"b\"",
            "é\\n",
            "#ff0000",
            "road #ff0000",
            "0",
            "\u{feff}",
            "a\u{2028}b",
        ];
        let class = |(name, id): (&&str, u8)| Class {
            name: (*name).to_owned(),
            color: [id, 2, 3],
            source_id: id,
        };
        let table = ClassTable::try_from(names.iter().zip(0..).map(class).collect::<Vec<_>>());
        let text = table.as_ref().unwrap().text();
        assert_eq!(ClassTable::parse(&text).unwrap(), table.unwrap(), "{text}");
        // Others are written and read as they always were.
        assert!(text.contains("\n13 3 cars 13 2 3\n"), "{text}");
        assert!(text.contains("\n16 \"cars\" 16 2 3\n"), "{text}");
        assert!(text.starts_with("0 \"a#b\" 0 2 3\n"), "{text}");
        let file =
            ClassFile::parse("0 \"a#b\" #ff0000 # red\n1 \"b#c\"\n2 \"c#d\" ignore\n").unwrap();
        assert_eq!((file.color(0), file.color(1)), (Some([255, 0, 0]), None));
        assert_eq!(file.ignored[0].name.as_deref(), Some("c#d"));
        for line in ["0 \"a#b\" c", "0 \"a#b\" 300 0 0", "x \"a#b\""] {
            assert!(ClassFile::parse(&format!("{line}\n1 b\n2 c")).is_err(), "{line}");
        }
    }

    #[test]
    fn tables_are_loaded_by_name_and_from_both_kinds_of_files() {
        assert_eq!(ClassTable::load(Path::new("voc")).unwrap(), ClassTable::voc());
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            ClassFile::load(&path)
        };
        let text = write("classes.txt", "7 road 128 64 128\n1 sky 0 0 255\n0 void ignore").unwrap();
        let json = r##"[{"name": "road", "color": [128, 64, 128], "source_id": 7},
            {"name": "sky", "color": "#0000ff", "source_id": 1},
            {"name": "void", "source_id": 0, "ignore": true}]"##;
        assert_eq!(write("classes.json", json).unwrap(), text);
        let names = write("names.json", r#"["a", "b", {"name": "c"}]"#).unwrap().table;
        assert_eq!((names.count(), names.classes()[2].source_id), (3, 2));
        let one = write("one.json", r#"["a"]"#).unwrap_err().to_string();
        assert!(one.contains("one.json") && one.contains("2 to 255"), "{one}");
        let coco = r#"{"images": [], "categories": [{"id": 2, "name": "b", "keypoints": []}, {"id": 1, "name": "a"}]}"#;
        let coco = write("coco.json", coco).unwrap().table;
        assert_eq!((coco.classes()[0].name.as_str(), coco.train_ids()[2]), ("b", 0));
        let colors = write(
            "label_colors.txt",
            "64 128 64\tAnimal\n0 0 0\t\tVoid ignore\n192 0 128\tArchway\n",
        );
        let colors = colors.unwrap();
        assert_eq!((colors.color(1), colors.is_ignored(1)), (Some([192, 0, 128]), true));
        assert_eq!(colors.table.train_ids()[2], 1);
        let headed = write("headed.txt", "id name red green blue\n7 road 1 2 3\n9 sky 4 5 6\n");
        assert_eq!(headed.unwrap().table.train_ids()[9], 1);
        let strange = write("strange.json", r#"{"a": 1}"#).unwrap_err().to_string();
        assert!(strange.contains("strange.json is not a list of classes"), "{strange}");
        assert!(write("bad.txt", "road").unwrap_err().to_string().contains("line 1"));
        let absent = ClassTable::load(&folder.path().join("none.txt")).unwrap_err().to_string();
        assert!(absent.contains("cityscapes, camvid or voc"), "{absent}");
    }
}
