//! Class tables: names, colors, and the train ids of the ids in a data set's label files.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

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
    /// Returns the line of a class file, with the given id.
    pub fn line(&self, id: u8) -> String {
        let [red, green, blue] = self.color;
        format!("{id} {} {red} {green} {blue}\n", self.name)
    }
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
    /// A class with the id of ignored pixels.
    #[error("class `{0}` has the id 255 of ignored pixels; leave it out, or give it another id")]
    Ignored(String),
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
        "line {0}: `{1}` is not a class; write `id name` or `id name red green blue`, such as \
         `7 road 128 64 128`"
    )]
    Line(usize, String),
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
        if let Some(class) = classes.iter().find(|class| class.source_id == IGNORE_INDEX) {
            return Err(ClassError::Ignored(class.name.clone()));
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

/// A class in a JSON file.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum JsonClass {
    Name(String),
    Class { name: String, color: Option<[u8; 3]>, source_id: Option<u8> },
}

impl ClassTable {
    /// The 19 classes of Cityscapes; source ids are those of `labelIds` files
    /// (`cityscapesscripts/helpers/labels.py`).
    pub fn cityscapes() -> Self {
        Self::fixed(&[
            ("road", [128, 64, 128], 7),
            ("sidewalk", [244, 35, 232], 8),
            ("building", [70, 70, 70], 11),
            ("wall", [102, 102, 156], 12),
            ("fence", [190, 153, 153], 13),
            ("pole", [153, 153, 153], 17),
            ("traffic light", [250, 170, 30], 19),
            ("traffic sign", [220, 220, 0], 20),
            ("vegetation", [107, 142, 35], 21),
            ("terrain", [152, 251, 152], 22),
            ("sky", [70, 130, 180], 23),
            ("person", [220, 20, 60], 24),
            ("rider", [255, 0, 0], 25),
            ("car", [0, 0, 142], 26),
            ("truck", [0, 0, 70], 27),
            ("bus", [0, 60, 100], 28),
            ("train", [0, 80, 100], 31),
            ("motorcycle", [0, 0, 230], 32),
            ("bicycle", [119, 11, 32], 33),
        ])
    }

    /// The 21 classes of Pascal VOC 2012, background first, with the colors of its label files.
    pub fn voc() -> Self {
        Self::fixed(&[
            ("background", [0, 0, 0], 0),
            ("aeroplane", [128, 0, 0], 1),
            ("bicycle", [0, 128, 0], 2),
            ("bird", [128, 128, 0], 3),
            ("boat", [0, 0, 128], 4),
            ("bottle", [128, 0, 128], 5),
            ("bus", [0, 128, 128], 6),
            ("car", [128, 128, 128], 7),
            ("cat", [64, 0, 0], 8),
            ("chair", [192, 0, 0], 9),
            ("cow", [64, 128, 0], 10),
            ("diningtable", [192, 128, 0], 11),
            ("dog", [64, 0, 128], 12),
            ("horse", [192, 0, 128], 13),
            ("motorbike", [64, 128, 128], 14),
            ("person", [192, 128, 128], 15),
            ("pottedplant", [0, 64, 0], 16),
            ("sheep", [128, 64, 0], 17),
            ("sofa", [0, 192, 0], 18),
            ("train", [128, 192, 0], 19),
            ("tvmonitor", [0, 64, 128], 20),
        ])
    }

    /// The 11 classes of CamVid in its usual form; 11 in its label files is void.
    pub fn camvid() -> Self {
        Self::fixed(&[
            ("Sky", [128, 128, 128], 0),
            ("Building", [128, 0, 0], 1),
            ("Pole", [192, 192, 128], 2),
            ("Road", [128, 64, 128], 3),
            ("Pavement", [60, 40, 222], 4),
            ("Tree", [128, 128, 0], 5),
            ("SignSymbol", [192, 128, 128], 6),
            ("Fence", [64, 64, 128], 7),
            ("Car", [64, 0, 128], 8),
            ("Pedestrian", [64, 64, 0], 9),
            ("Bicyclist", [0, 128, 192], 10),
        ])
    }

    fn fixed(rows: &[(&str, [u8; 3], u8)]) -> Self {
        let class = |&(name, color, source_id): &(&str, [u8; 3], u8)| Class {
            name: name.to_owned(),
            color,
            source_id,
        };
        Self { classes: rows.iter().map(class).collect() }
    }

    /// Returns the built-in table `cityscapes`, `camvid` or `voc`, or loads a file.
    ///
    /// A `.json` file holds a list of names or of objects `{name, color, source_id}`, the last two
    /// optional; for other files see [`parse`](Self::parse).
    pub fn load(name: &Path) -> Result<Self, ClassError> {
        match name.to_str() {
            Some("cityscapes") => return Ok(Self::cityscapes()),
            Some("camvid") => return Ok(Self::camvid()),
            Some("voc") => return Ok(Self::voc()),
            _ if !name.is_file() => return Err(ClassError::Absent(name.into())),
            _ => {}
        }
        let text = std::fs::read_to_string(name).map_err(FileError::at(name))?;
        let table = if name.extension().is_some_and(|extension| extension == "json") {
            let classes: Vec<JsonClass> = serde_json::from_str(&text)
                .map_err(|source| ClassError::Json { path: name.into(), source })?;
            Self::from_json(classes)
        } else {
            Self::parse(&text)
        };
        table.map_err(|error| ClassError::Table { path: name.into(), source: error.into() })
    }

    fn from_json(classes: Vec<JsonClass>) -> Result<Self, ClassError> {
        // Before indices are converted to ids.
        if !(2..=255).contains(&classes.len()) {
            return Err(ClassError::Count(classes.len()));
        }
        let class = |(index, class): (u8, JsonClass)| {
            let (name, color, source_id) = match class {
                JsonClass::Name(name) => (name, None, None),
                JsonClass::Class { name, color, source_id } => (name, color, source_id),
            };
            let color = color.unwrap_or_else(|| voc_color(index.into()));
            Class { name, color, source_id: source_id.unwrap_or(index) }
        };
        Self::try_from((0..).zip(classes).map(class).collect::<Vec<_>>())
    }

    /// Parses a class file: `id name` or `id name red green blue` on each line, in order of train
    /// ids. Names may contain spaces, `#` starts a comment, and missing colors are chosen.
    pub fn parse(text: &str) -> Result<Self, ClassError> {
        let mut classes = Vec::new();
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let class = parse_line(line, classes.len());
            classes.push(class.ok_or_else(|| ClassError::Line(index + 1, line.to_owned()))?);
        }
        Self::try_from(classes)
    }

    /// Returns the text of a class file, with colors.
    pub fn text(&self) -> String {
        self.classes.iter().map(|class| class.line(class.source_id)).collect()
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

fn parse_line(line: &str, index: usize) -> Option<Class> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (id, rest) = words.split_first()?;
    let color = |words: &[&str; 3]| {
        let [red, green, blue] = words.map(|word| word.parse().ok());
        Some([red?, green?, blue?])
    };
    let (name, color) = match rest.split_last_chunk() {
        Some((name, tail)) if !name.is_empty() => match color(tail) {
            Some(color) => (name, color),
            None => (rest, voc_color(index)),
        },
        _ => (rest, voc_color(index)),
    };
    let source_id = id.parse().ok()?;
    (!name.is_empty()).then(|| Class { name: name.join(" "), color, source_id })
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
        }
        let map = ClassTable::cityscapes().train_ids();
        assert_eq!(
            (map[7], map[33], map[0], map[29], map[255]),
            (0, 18, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX)
        );
        assert_eq!(ClassTable::camvid().train_ids()[11], IGNORE_INDEX);
        let voc = ClassTable::voc();
        assert!((1..21).all(|index| voc.palette()[index] == voc_color(index - 1)));
    }

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
        let ignored = error("1 a\n255 void");
        assert!(matches!(&ignored, ClassError::Ignored(name) if name == "void"), "{ignored}");
        assert_eq!(ClassTable::parse(&table.text()).unwrap(), table);
        assert_eq!(ClassTable::parse("\u{feff}1 a\r\n2 b\r\n").unwrap().count(), 2);
    }

    #[test]
    fn tables_are_loaded_by_name_and_from_both_kinds_of_files() {
        assert_eq!(ClassTable::load(Path::new("voc")).unwrap(), ClassTable::voc());
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            ClassTable::load(&path)
        };
        let text = write("classes.txt", "7 road 128 64 128\n1 sky 0 0 255\n").unwrap();
        let json = r#"[{"name": "road", "color": [128, 64, 128], "source_id": 7}, {"name": "sky", "color": [0, 0, 255]}]"#;
        assert_eq!(write("classes.json", json).unwrap(), text);
        let names = write("names.json", r#"["a", "b", {"name": "c"}]"#).unwrap();
        assert_eq!((names.count(), names.classes()[2].source_id), (3, 2));
        let one = write("one.json", r#"["a"]"#).unwrap_err().to_string();
        assert!(one.contains("one.json") && one.contains("2 to 255"), "{one}");
        let strange = write("strange.json", r#"{"a": 1}"#).unwrap_err().to_string();
        assert!(strange.contains("strange.json is not a list of classes"), "{strange}");
        assert!(write("bad.txt", "road").unwrap_err().to_string().contains("line 1"));
        let absent = ClassTable::load(Path::new("imagenet"));
        assert!(matches!(absent, Err(ClassError::Absent(_))));
    }
}
