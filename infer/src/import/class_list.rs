//! Class lists as other programs write them: `config.json` of Hugging Face, `labelmap.txt` of CVAT,
//! names line by line, and lists of a single class, to which a background is added.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use protoseg_models::classes::{Class, ClassError, ClassTable, read_class_text, voc_color};
use serde::Deserialize;

/// Name of the class that is added to a single one.
const BACKGROUND: &str = "background";

/// Classes of a file that a model's author wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassList {
    /// The classes in order of channels or labels.
    pub table: ClassTable,
    /// Remark on an added class, or on names that were made unique.
    pub remark: Option<String>,
}

/// The part of a `config.json` that names classes, or an `id2label.json`.
#[derive(Deserialize)]
#[serde(untagged)]
enum ModelConfig {
    Config { id2label: BTreeMap<String, String> },
    Reverse { label2id: BTreeMap<String, usize> },
    Names(BTreeMap<String, String>),
}

/// Loads the classes of a model: a built-in table, a class file of protoseg, or a list of another
/// program. A background is added to a single class.
pub fn load_classes(path: &Path) -> Result<ClassList, ClassError> {
    let named = path.to_str().is_some_and(|name| ["cityscapes", "camvid", "voc"].contains(&name));
    if named || !path.is_file() {
        return Ok(ClassList { table: ClassTable::load(path)?, remark: None });
    }
    let text = read_class_text(path)?;
    let text = text.as_str();
    // A table with named columns; other files of this ending are lists of names.
    if path.extension().is_some_and(|extension| extension == "csv") {
        match ClassTable::load(path) {
            Ok(table) => return Ok(ClassList { table, remark: None }),
            Err(error) if is_fault_of_table(&error) => return Err(error),
            Err(_) => {}
        }
    }
    let in_file = |error: ClassError| ClassError::Table { path: path.into(), source: error.into() };
    let json = |source| ClassError::Json { path: path.into(), source };
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let classes;
    let mut renamed = None;
    if is_json && text.trim_start().starts_with('{') {
        let config: ModelConfig = serde_json::from_str(text).map_err(json)?;
        (classes, renamed) = from_names(numbered(config).map_err(in_file)?);
    } else if is_json {
        // A list of one class is none of protoseg's.
        let values: Vec<serde_json::Value> = serde_json::from_str(text).map_err(json)?;
        match values.as_slice() {
            [one] => classes = vec![single_json(one).ok_or_else(|| in_file(ClassError::Count(1)))?],
            _ => return Ok(ClassList { table: ClassTable::load(path)?, remark: None }),
        }
    } else if let Some(listed) = label_map(text) {
        classes = listed;
    } else if let Some(names) = plain_names(text) {
        (classes, renamed) = from_names(names);
    } else {
        match ClassTable::load(path) {
            Ok(table) => return Ok(ClassList { table, remark: None }),
            Err(error) => match single_line(text) {
                Some(class) => classes = vec![class],
                None => return Err(error),
            },
        }
    }
    let list = with_background(classes).map_err(in_file)?;
    Ok(ClassList { remark: list.remark.or(renamed), ..list })
}

/// True for the faults of a table whose columns are known.
fn is_fault_of_table(error: &ClassError) -> bool {
    let ClassError::Table { source, .. } = error else { return false };
    matches!(**source, ClassError::Row { .. } | ClassError::LargeId { .. })
}

/// Adds a background as class 0 to a single class.
fn with_background(mut classes: Vec<Class>) -> Result<ClassList, ClassError> {
    let [class] = classes.as_mut_slice() else {
        return Ok(ClassList { table: ClassTable::try_from(classes)?, remark: None });
    };
    if class.source_id == 0 {
        class.source_id = 1;
    }
    let remark = format!("one class, `{}`: class 0 is `{BACKGROUND}`", class.name);
    let background = Class { name: BACKGROUND.to_owned(), color: [0; 3], source_id: 0 };
    classes.insert(0, background);
    Ok(ClassList { table: ClassTable::try_from(classes)?, remark: Some(remark) })
}

/// Names in the order of their numbers, which begin at 0 and leave none out.
fn numbered(config: ModelConfig) -> Result<Vec<String>, ClassError> {
    let mut names = BTreeMap::new();
    let numbered = match config {
        ModelConfig::Config { id2label } | ModelConfig::Names(id2label) => id2label,
        ModelConfig::Reverse { label2id } => {
            label2id.into_iter().map(|(name, id)| (id.to_string(), name)).collect()
        }
    };
    for (id, name) in numbered {
        let number: usize = id.parse().map_err(|_| {
            ClassError::Numbers(format!(
                "id2label has the key `{id}`, which is not the number of a channel: write \"0\", \"1\" and so on"
            ))
        })?;
        names.insert(number, name);
    }
    match names.keys().enumerate().find(|(index, number)| index != *number) {
        Some((index, number)) => Err(ClassError::Numbers(format!(
            "id2label has no {index}, and goes on with {number}: the model has a channel for every number, so name those \
             that stand for nothing too, such as \"{index}\": \"unused {index}\""
        ))),
        None => Ok(names.into_values().collect()),
    }
}

/// Names become unique, as a table needs them. Returns a remark on those that were not.
fn from_names(names: Vec<String>) -> (Vec<Class>, Option<String>) {
    let mut seen: BTreeSet<String> = names.iter().cloned().collect();
    let mut taken = BTreeSet::new();
    let mut renamed = Vec::new();
    let mut class = |(index, given): (usize, String)| {
        let mut name = given.clone();
        if !taken.insert(given.clone()) {
            let mut numbered = (2..).map(|number| format!("{given} {number}"));
            name = numbered.find(|name| seen.insert(name.clone())).unwrap_or(given);
            renamed.push(format!("{index} `{name}`"));
        }
        let source_id = u8::try_from(index).unwrap_or(u8::MAX);
        Class { name, color: voc_color(index), source_id }
    };
    let classes = names.into_iter().enumerate().map(&mut class).collect();
    let remark = (!renamed.is_empty()).then(|| {
        format!(
            "several classes have one name; told apart by numbers, class {}",
            renamed.join(", class ")
        )
    });
    (classes, remark)
}

/// Lines of CVAT's and Datumaro's `labelmap.txt`: `name:red,green,blue:parts:actions`.
fn label_map(text: &str) -> Option<Vec<Class>> {
    let mut classes = Vec::new();
    let lines = text.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut fields = line.split(':');
        let name = fields.next()?.trim();
        let color: Vec<u8> = fields
            .next()?
            .split(',')
            .map(|number| number.trim().parse().ok())
            .collect::<Option<_>>()?;
        let color: [u8; 3] = color.try_into().ok()?;
        let source_id = u8::try_from(classes.len()).ok()?;
        classes.push(Class { name: name.to_owned(), color, source_id });
    }
    (!classes.is_empty()).then_some(classes)
}

/// Names line by line, none of which begins with a number; lines with marks are those of class
/// files.
fn plain_names(text: &str) -> Option<Vec<String>> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let numbered = |line: &&str| line.starts_with(|letter: char| letter.is_ascii_digit());
    let marked = |line: &&str| line.contains('#') || line.contains(':');
    if lines.is_empty() || lines.iter().any(|line| numbered(line) || marked(line)) {
        return None;
    }
    Some(lines.into_iter().map(str::to_owned).collect())
}

/// The only class of a class file, which is too few for a table: read beside a second.
fn single_line(text: &str) -> Option<Class> {
    let unused = |id: u8| ClassTable::parse(&format!("{text}\n{id} {BACKGROUND} 0 0 0\n")).ok();
    let table = unused(254).or_else(|| unused(253))?;
    match table.classes() {
        [class, _] => Some(class.clone()),
        _ => None,
    }
}

/// The only class of a JSON list.
fn single_json(value: &serde_json::Value) -> Option<Class> {
    let name = value.as_str().or_else(|| value.get("name")?.as_str())?;
    let byte = |value: &serde_json::Value| u8::try_from(value.as_u64()?).ok();
    let color: Option<Vec<u8>> =
        value.get("color").and_then(|color| color.as_array()?.iter().map(byte).collect());
    let color = color.and_then(|color| color.try_into().ok()).unwrap_or(voc_color(0));
    let source_id = value.get("source_id").and_then(byte).unwrap_or(1);
    Some(Class { name: name.to_owned(), color, source_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(name: &str, text: &str) -> Result<ClassList, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        load_classes(&path).map_err(|error| error.to_string())
    }

    fn names(name: &str, text: &str) -> Vec<String> {
        let list = load(name, text).unwrap();
        list.table.classes().iter().map(|class| class.name.clone()).collect()
    }

    #[test]
    fn lists_of_other_programs_are_read() {
        let config = r#"{"architectures": ["X"], "id2label": {"10": "k", "0": "a", "1": "b", "2": "c", "3": "d", "4": "e",
            "5": "f", "6": "g", "7": "h", "8": "i", "9": "j"}}"#;
        assert_eq!(names("config.json", config).concat(), "abcdefghijk");
        assert_eq!(
            names("names.txt", "road\n\nopen water\r\nsky\n"),
            ["road", "open water", "sky"]
        );
        assert_eq!(names("list.json", r#"["a", "b"]"#), ["a", "b"]);
        let roboflow = "Pixel Value, Class\n0, background\n1, car\n";
        assert_eq!(names("_classes.csv", roboflow), ["background", "car"]);
        assert_eq!(names("class_dict.csv", "name,r,g,b\nsky,1,2,3\nsea,3,2,1\n"), ["sky", "sea"]);
        assert!(load("_classes.csv", "id,name\n0,a\n1,\n").unwrap_err().contains("line 3"));
        // ADE20K has two classes of one name.
        assert_eq!(names("names.txt", "box\nsky\nbox\n"), ["box", "sky", "box 2"]);
        assert_eq!(names("names.txt", "a\na\na 2\na\n"), ["a", "a 3", "a 2", "a 4"]);
        let remark = load("names.txt", "box\nsky\nbox\n").unwrap().remark.unwrap();
        assert!(remark.contains("class 2 `box 2`"), "{remark}");
        let map = load(
            "labelmap.txt",
            "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\n",
        );
        let map = map.unwrap().table;
        assert_eq!(
            (map.classes()[1].name.as_str(), map.classes()[1].color),
            ("road", [128, 64, 128])
        );
        assert_eq!(map.classes()[1].source_id, 1);
        let table = load("classes.txt", "7 road 128 64 128\n1 sky 0 0 255\n").unwrap().table;
        assert_eq!(table.classes()[0].source_id, 7);
        assert_eq!(names("id2label.json", r#"{"1": "b", "0": "a"}"#), ["a", "b"]);
        assert_eq!(names("config.json", r#"{"label2id": {"z": 0, "a": 1}}"#), ["z", "a"]);
        let gap = load("config.json", r#"{"id2label": {"0": "a", "2": "b"}}"#).unwrap_err();
        for part in ["config.json", "id2label has no 1", "goes on with 2", "\"1\": \"unused 1\""] {
            assert!(gap.contains(part), "{gap}");
        }
        let key = load("config.json", r#"{"id2label": {"0": "a", "b": "c"}}"#).unwrap_err();
        assert!(key.contains("the key `b`") && !key.contains("line 1"), "{key}");
        assert!(load("other.json", r#"{"a": 1}"#).unwrap_err().contains("other.json"));
    }

    #[test]
    fn a_single_class_gets_a_background() {
        for (name, text, id) in [
            ("one.txt", "0 crack 255 0 0\n", 1),
            ("one.txt", "7 crack 255 0 0\n", 7),
            ("one.txt", "crack", 0),
            ("one.json", r#"["crack"]"#, 1),
            ("config.json", r#"{"id2label": {"0": "crack"}}"#, 1),
        ] {
            let list = load(name, text).unwrap();
            assert!(list.remark.unwrap().contains("`crack`: class 0 is `background`"), "{text}");
            let [background, crack] = list.table.classes() else { panic!("{text}") };
            assert_eq!((background.name.as_str(), background.source_id), ("background", 0));
            assert_eq!((crack.name.as_str(), crack.source_id), ("crack", id.max(1)), "{text}");
        }
        assert!(load("empty.txt", "").is_err() && load("empty.json", "[]").is_err());
    }
}
