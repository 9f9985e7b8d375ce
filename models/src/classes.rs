//! Class tables: names, colours, and how the ids in a data set's label files map to train ids.

use serde::{Deserialize, Serialize};

/// The label of pixels that count nowhere.
pub const IGNORE_INDEX: u8 = 255;

/// One class. Its train id is its place in the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// What a person calls it.
    pub name: String,
    /// RGB.
    pub color: [u8; 3],
    /// Its id in the label files of its data set.
    pub source_id: u8,
}

impl Class {
    /// The line of a class file that gives it an id.
    pub fn line(&self, id: u8) -> String {
        let [red, green, blue] = self.color;
        format!("{id} {} {red} {green} {blue}\n", self.name)
    }
}

/// The classes of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Class>", into = "Vec<Class>")]
pub struct ClassTable {
    classes: Vec<Class>,
}

/// A class table that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClassError {
    /// Labels are bytes, and 255 is kept for ignored pixels.
    #[error("{0} classes: between 2 and 255 are possible")]
    Count(usize),
    /// The id of ignored pixels.
    #[error(
        "the class `{0}` has the id 255, which marks pixels that count nowhere; leave it out, or give it another id"
    )]
    Ignored(String),
    /// An id or a name stands twice.
    #[error(
        "the classes `{first}` and `{second}` share the id {source_id} or the name; each needs its own"
    )]
    Duplicate {
        /// The earlier class.
        first: String,
        /// The later class.
        second: String,
        /// Id of the later class.
        source_id: u8,
    },
    /// A line of a class file that is not understood.
    #[error(
        "line {line}: `{text}` is no class; write `id name` or `id name red green blue`, such as `7 road 128 64 128`"
    )]
    Line {
        /// Counted from 1.
        line: usize,
        /// What stands there.
        text: String,
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
                let (first, second) = (first.name.clone(), class.name.clone());
                return Err(ClassError::Duplicate { first, second, source_id: class.source_id });
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
    /// The 19 classes of Cityscapes; source ids are those of `labelIds` files (`cityscapesscripts/helpers/labels.py`).
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

    /// The 21 classes of Pascal VOC 2012, background first; colours are those of its label files' palette.
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

    /// The eleven classes of CamVid's usual form; 11 in its label files is void.
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

    /// Reads a class file: one class a line, `id name` or `id name red green blue`; names may hold spaces; `#` starts a
    /// comment. Classes without a colour get one of their own.
    pub fn parse(text: &str) -> Result<Self, ClassError> {
        let mut classes = Vec::new();
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let class = parse_line(line, classes.len());
            classes.push(
                class.ok_or_else(|| ClassError::Line { line: index + 1, text: line.to_owned() })?,
            );
        }
        Self::try_from(classes)
    }

    /// As a class file, `id name red green blue` a line.
    pub fn text(&self) -> String {
        self.classes.iter().map(|class| class.line(class.source_id)).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.classes.len()
    }

    /// All, by train id.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Train id of each id in a label file; [`IGNORE_INDEX`] for every id that is no class.
    pub fn train_ids(&self) -> [u8; 256] {
        let mut map = [IGNORE_INDEX; 256];
        for (train_id, class) in (0..).zip(&self.classes) {
            map[usize::from(class.source_id)] = train_id;
        }
        map
    }

    /// Colour of each label; black for ids that are no class.
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
    let source_id = words.first()?.parse().ok()?;
    let numbers =
        |words: &[&str]| words.iter().map(|word| word.parse().ok()).collect::<Option<Vec<u8>>>();
    let tail = words
        .len()
        .checked_sub(3)
        .filter(|&start| start >= 2)
        .and_then(|start| numbers(&words[start..]));
    let (name, color) = match tail {
        Some(color) => (&words[1..words.len() - 3], [color[0], color[1], color[2]]),
        None => (&words[1..], voc_color(index)),
    };
    (!name.is_empty()).then(|| Class { name: name.join(" "), color, source_id })
}

/// The palette of Pascal VOC continued: bits of the index, from the lowest, go to the high bits of red, green and blue.
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
    fn built_in_tables_hold_every_id_once() {
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
    fn a_class_file_is_read_and_its_mistakes_are_named() {
        let table = ClassTable::parse("# land\n3 open water 0 0 255\n\n9 field # crops\n").unwrap();
        assert_eq!(
            table.classes()[0],
            Class { name: "open water".into(), color: [0, 0, 255], source_id: 3 }
        );
        assert_eq!((table.classes()[1].name.as_str(), table.train_ids()[9]), ("field", 1));
        let error = ClassTable::parse("1 a\n2 b\nthree c").unwrap_err();
        assert_eq!(error, ClassError::Line { line: 3, text: "three c".into() });
        assert!(matches!(ClassTable::parse("1 a\n1 b"), Err(ClassError::Duplicate { .. })));
        assert_eq!(ClassTable::parse("1 a").unwrap_err(), ClassError::Count(1));
        assert_eq!(
            ClassTable::parse("1 a\n255 void").unwrap_err(),
            ClassError::Ignored("void".into())
        );
        assert_eq!(ClassTable::parse(&table.text()).unwrap(), table);
        assert_eq!(ClassTable::parse("\u{feff}1 a\r\n2 b\r\n").unwrap().count(), 2);
    }
}
