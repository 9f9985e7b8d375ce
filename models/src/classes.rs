//! Class tables: names, colors, and the train ids of the ids in a data set's label files.
//!
//! A [`ClassTable`] is what a model knows. A [`ClassFile`] is what a data set says besides: ids that
//! count for nothing, and which colors were given rather than chosen.

mod builtin;
mod file;
mod listed;
mod table;
mod text;

use std::path::{Path, PathBuf};

pub use file::{ClassFile, IgnoredIds, means_ignored, means_void};
pub use listed::{ListedClass, parse_class_names, parse_class_table};
use serde::{Deserialize, Serialize};
pub use text::read_class_text;

use crate::errors::FileError;

/// The label of ignored pixels.
pub const IGNORE_INDEX: u8 = 255;

/// One class. Its train id is its position in the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// Display name, unique in its table.
    pub name: String,
    /// RGB.
    pub color: [u8; 3],
    /// Id in the label files of its data set, unique in its table.
    pub source_id: u8,
}

impl Class {
    /// Returns the line of a class file, with the given id. A name that would not be read back as it
    /// is, such as `a # b`, is written in quotes, as a JSON string.
    pub fn line(&self, id: u8) -> String {
        let [red, green, blue] = self.color;
        let name = file::written_name(&id.to_string(), &self.name);
        format!("{id} {name} {red} {green} {blue}\n")
    }

    /// True for the class of what no other class is, named [`background`](is_named_background) or
    /// [`void`](means_void).
    pub fn is_background(&self) -> bool {
        is_named_background(&self.name) || means_void(&self.name)
    }
}

/// True for the name `background` in any case, and for LabelMe's `_background_`.
pub fn is_named_background(name: &str) -> bool {
    name.to_lowercase().trim_matches('_') == "background"
}

/// The classes of a data set.
///
/// The `Debug` text is part of a model's fingerprint and must not change.
///
/// ```
/// use protoseg_models::classes::{ClassTable, IGNORE_INDEX};
///
/// let table = ClassTable::parse("3 open water 0 0 255\n9 field\n")?;
/// assert_eq!(table.classes()[0].name, "open water");
/// // The second class is 9 in label files and 1 in training.
/// assert_eq!(table.train_ids()[9], 1);
/// assert_eq!(table.train_ids()[0], IGNORE_INDEX);
/// # Ok::<(), protoseg_models::classes::ClassError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Class>", into = "Vec<Class>")]
pub struct ClassTable {
    classes: Vec<Class>,
}

/// An invalid class table or class file.
#[derive(Debug, thiserror::Error)]
pub enum ClassError {
    /// A number of classes out of range.
    #[error("a table of {0} classes is not supported: 2 to 255 are")]
    Count(usize),
    /// A class whose id is ignored on another line.
    #[error("class `{class}` has the id {id}, which another line ignores; leave one of them out")]
    Ignored {
        /// Name of the class.
        class: String,
        /// The id.
        id: u8,
    },
    /// Two classes of one id or name.
    #[error("classes `{first}` and `{second}` share an id or a name; each needs its own")]
    Duplicate {
        /// Name of the first class.
        first: String,
        /// Name of the second class.
        second: String,
    },
    /// A malformed line, with its number from 1.
    #[error(
        "line {0}: `{1}` is not a class; write `id name`, `id name red green blue` or `id name \
         #rrggbb`, such as `7 road 128 64 128`, with ids and colors from 0 to 255, or `id ignore`"
    )]
    Line(usize, String),
    /// A malformed row of a table, with the number of its line from 1.
    #[error(
        "line {line}: `{text}` is not a row of a class; the columns are those that the first line \
         names, with ids and colors from 0 to 255 and a name"
    )]
    Row {
        /// Number of the line.
        line: usize,
        /// Values of the row.
        text: String,
    },
    /// An id above 255, with the number of its line from 1.
    #[error(
        "line {line}: the id {id} is above 255, the largest that a class can have: give the class \
         another one here, and in the masks by `protoseg convert --map`"
    )]
    LargeId {
        /// Number of the line.
        line: usize,
        /// The id.
        id: String,
    },
    /// A line of a table or list whose parts are not known, with its number from 1.
    #[error("line {line}: `{text}` {reason}")]
    Columns {
        /// Number of the line.
        line: usize,
        /// The line.
        text: String,
        /// The reason and the way out, after the line.
        reason: &'static str,
    },
    /// Names by number, with a gap or a key that is no number.
    #[error("{0}")]
    Numbers(String),
    /// A text in another encoding than Unicode's.
    #[error(
        "{}: line {line} is not UTF-8 ({value:#x}); save the file as UTF-8, such as by `iconv -f latin1 -t utf-8`", path.display()
    )]
    Encoding {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The byte, or the surrogate of UTF-16.
        value: u16,
    },
    /// Neither a built-in table nor a file.
    #[error("{} is neither a file nor a built-in class table: cityscapes, camvid or voc", .0.display())]
    Absent(PathBuf),
    /// An I/O error.
    #[error(transparent)]
    File(#[from] FileError),
    /// Malformed JSON.
    #[error("{} is not a list of classes ({source}); write [{{\"name\": \"road\", \"color\": [128, 64, 128]}}, …]", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The fault.
        source: serde_json::Error,
    },
    /// A file with an invalid table.
    #[error("{}: {source}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// The fault.
        source: Box<Self>,
    },
}

impl TryFrom<Vec<Class>> for ClassTable {
    type Error = ClassError;

    fn try_from(classes: Vec<Class>) -> Result<Self, ClassError> {
        if !(2..=255).contains(&classes.len()) {
            return Err(ClassError::Count(classes.len()));
        }
        for (index, class) in classes.iter().enumerate() {
            let same =
                |other: &&Class| other.source_id == class.source_id || other.name == class.name;
            if let Some(first) = classes[..index].iter().find(same) {
                let first = first.name.clone();
                return Err(ClassError::Duplicate { first, second: class.name.clone() });
            }
        }
        Ok(Self { classes })
    }
}

impl From<ClassTable> for Vec<Class> {
    fn from(table: ClassTable) -> Self {
        table.classes
    }
}

impl ClassTable {
    /// Returns the built-in table `cityscapes`, `camvid` or `voc`, or loads a file; for its form see
    /// [`ClassFile`].
    pub fn load(name: &Path) -> Result<Self, ClassError> {
        Ok(ClassFile::load(name)?.table)
    }

    /// Parses the text of a class file; for its form see [`ClassFile::parse`].
    pub fn parse(text: &str) -> Result<Self, ClassError> {
        Ok(ClassFile::parse(text)?.table)
    }

    /// Returns the text of a class file, with colors.
    pub fn text(&self) -> String {
        let lines = self.classes.iter().map(|class| class.line(class.source_id));
        let void = self.void_id();
        let void = (void != IGNORE_INDEX).then(|| format!("{void} ignore\n"));
        lines.chain(void).collect()
    }

    /// Returns the id of pixels without a class in label files: 255, or the highest id that is no
    /// class if 255 is one.
    pub fn void_id(&self) -> u8 {
        let taken = |id: &u8| self.classes.iter().any(|class| class.source_id == *id);
        // A table has at most 255 classes, so that one of 256 ids is free.
        (0..=IGNORE_INDEX).rev().find(|id| !taken(id)).unwrap_or(IGNORE_INDEX)
    }

    /// Returns true if the ids in label files are the train ids, 0 to the number of classes - 1.
    pub fn has_train_ids(&self) -> bool {
        (0..).zip(&self.classes).all(|(train_id, class)| class.source_id == train_id)
    }

    /// Returns the classes whose name says that their pixels count for nothing, such as `void`;
    /// they are learned like any other.
    pub fn named_like_void(&self) -> impl Iterator<Item = &Class> {
        self.classes.iter().filter(|class| file::means_void(&class.name))
    }

    /// Returns the number of classes.
    pub fn count(&self) -> usize {
        self.classes.len()
    }

    /// Returns the classes by train id.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Returns the train id of each id in a label file; [`IGNORE_INDEX`] for ids of no class.
    pub fn train_ids(&self) -> [u8; 256] {
        let mut map = [IGNORE_INDEX; 256];
        for (train_id, class) in (0..).zip(&self.classes) {
            map[usize::from(class.source_id)] = train_id;
        }
        map
    }

    /// Returns the color of each train id; black for labels of no class.
    pub fn palette(&self) -> [[u8; 3]; 256] {
        let mut palette = [[0; 3]; 256];
        for (color, class) in palette.iter_mut().zip(&self.classes) {
            *color = class.color;
        }
        palette
    }
}

/// Returns color `index` of Pascal VOC's palette after its black: bits of the index, from the
/// lowest, go to the high bits of red, green and blue.
pub fn voc_color(index: usize) -> [u8; 3] {
    let mut color = [0_u8; 3];
    for bit in 0..8 {
        for (channel, value) in color.iter_mut().enumerate() {
            *value |= (((index + 1) >> (3 * bit + channel) & 1) as u8) << (7 - bit);
        }
    }
    color
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_tables_are_valid() {
        for table in [ClassTable::cityscapes(), ClassTable::voc(), ClassTable::camvid()] {
            ClassTable::try_from(table.classes.clone()).unwrap();
            assert_eq!(table.void_id(), IGNORE_INDEX);
        }
        let map = ClassTable::cityscapes().train_ids();
        assert_eq!(
            (map[7], map[33], map[0], map[29], map[255]),
            (0, 18, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX)
        );
        assert_eq!(ClassTable::camvid().train_ids()[11], IGNORE_INDEX);
        let voc = ClassTable::voc();
        assert!((1..21).all(|index| voc.palette()[index] == voc_color(index - 1)));
        assert!(voc.has_train_ids() && !ClassTable::cityscapes().has_train_ids());
    }

    #[test]
    fn a_class_may_have_the_id_255_and_void_another() {
        let table = ClassTable::parse("0 background\n255 crack\n").unwrap();
        assert_eq!((table.train_ids()[255], table.void_id()), (1, 254));
        assert!(table.text().ends_with("254 ignore\n"), "{}", table.text());
        let file = ClassFile::parse(&table.text()).unwrap();
        assert_eq!((&file.table, file.is_ignored(254)), (&table, true));
        let json = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<ClassTable>(&json).unwrap(), table);
    }
}
