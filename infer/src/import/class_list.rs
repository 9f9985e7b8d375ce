//! Class lists as other programs write them: `config.json` of Hugging Face, `labelmap.txt` of CVAT,
//! names line by line, and lists of a single class, to which a background is added.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use protoseg_models::classes::{
    Class, ClassError, ClassTable, ListedClass, means_ignored, parse_class_names,
    parse_class_table, read_class_text, voc_color,
};
use serde_json::Value;

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

/// Loads the classes of a model: a built-in table, a class file of protoseg, or a list of another
/// program. A background is added to a single class.
pub fn load_classes(path: &Path) -> Result<ClassList, ClassError> {
    let named = path.to_str().is_some_and(|name| ["cityscapes", "camvid", "voc"].contains(&name));
    if named || !path.is_file() {
        return Ok(ClassList { table: ClassTable::load(path)?, remark: None });
    }
    let text = read_class_text(path)?;
    let text = text.as_str();
    let in_file = |error: ClassError| ClassError::Table { path: path.into(), source: error.into() };
    let json = |source| ClassError::Json { path: path.into(), source };
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let classes;
    let mut renamed = None;
    if is_json {
        let value: Value = serde_json::from_str(text).map_err(json)?;
        let one = single_json(&value);
        if let (Some(object), None) = (value.as_object(), list_in(&value)) {
            let names = numbered(names_by_number(object).map_err(in_file)?).map_err(in_file)?;
            (classes, renamed) = from_names(names);
        } else if let Some(class) = one {
            classes = vec![class];
        } else {
            return Ok(ClassList { table: ClassTable::load(path)?, remark: None });
        }
    } else if let Some(listed) = label_map(text) {
        classes = listed;
    } else if let Some(listed) = parse_class_table(text).map_err(in_file)? {
        classes = from_listed(listed).map_err(in_file)?;
    } else if let Some(listed) = parse_class_names(text).map_err(in_file)? {
        if listed.iter().all(|class| class.id.is_none()) {
            (classes, renamed) = from_names(listed.into_iter().map(|class| class.name).collect());
        } else {
            classes = from_listed(listed).map_err(in_file)?;
        }
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

/// Classes of a table, without lines that say that an id counts for nothing: a network has no
/// channel for those.
fn from_listed(listed: Vec<ListedClass>) -> Result<Vec<Class>, ClassError> {
    let count = listed.len();
    let kept = listed.into_iter().enumerate().filter(|(_, class)| !means_ignored(&class.name));
    kept.map(|(index, ListedClass { id, name, color })| {
        let source_id = id.or(u8::try_from(index).ok()).ok_or(ClassError::Count(count))?;
        Ok(Class { name, color: color.unwrap_or(voc_color(index)), source_id })
    })
    .collect()
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

/// The list of classes in a JSON file: the whole file, or what stands under one of some keys.
fn list_in(value: &Value) -> Option<&Vec<Value>> {
    let keys = ["categories", "classes", "labels", "names"];
    value.as_array().or_else(|| keys.iter().find_map(|key| value.get(key)?.as_array()))
}

/// Names by number of a `config.json`, an `id2label.json`, or an object under `names`.
fn names_by_number(
    object: &serde_json::Map<String, Value>,
) -> Result<BTreeMap<String, String>, ClassError> {
    let texts = |names: &serde_json::Map<String, Value>| {
        let text = |(id, name): (&String, &Value)| Some((id.clone(), name.as_str()?.to_owned()));
        names.iter().map(text).collect::<Option<BTreeMap<String, String>>>()
    };
    let under = |key: &str| object.get(key).and_then(Value::as_object);
    let named = under("id2label").or_else(|| under("names")).and_then(texts);
    let reverse = under("label2id").and_then(|ids| {
        let text = |(name, id): (&String, &Value)| Some((id.as_u64()?.to_string(), name.clone()));
        ids.iter().map(text).collect()
    });
    named.or(reverse).or_else(|| texts(object)).ok_or_else(|| {
        let keys: Vec<String> = object.keys().take(6).map(|key| format!("`{key}`")).collect();
        ClassError::Numbers(format!(
            "there are neither `id2label`, `label2id` nor `categories` of classes in it, but {}; write              [{{\"name\": \"road\", \"color\": [128, 64, 128]}}, …] or {{\"id2label\": {{\"0\": \"road\", …}}}}",
            if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") }
        ))
    })
}

/// Names in the order of their numbers, which begin at 0 and leave none out.
fn numbered(named: BTreeMap<String, String>) -> Result<Vec<String>, ClassError> {
    let mut names = BTreeMap::new();
    for (id, name) in named {
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

/// The only class of a class file, which is too few for a table: read beside a second.
fn single_line(text: &str) -> Option<Class> {
    let unused = |id: u8| ClassTable::parse(&format!("{text}\n{id} {BACKGROUND} 0 0 0\n")).ok();
    let table = unused(254).or_else(|| unused(253))?;
    match table.classes() {
        [class, _] => Some(class.clone()),
        _ => None,
    }
}

/// The only class of a JSON list, which is too few for a table.
fn single_json(value: &Value) -> Option<Class> {
    let [value] = list_in(value)?.as_slice() else { return None };
    let name = value.as_str().or_else(|| value.get("name")?.as_str())?;
    let byte = |value: &Value| u8::try_from(value.as_u64()?).ok();
    let color: Option<Vec<u8>> =
        value.get("color").and_then(|color| color.as_array()?.iter().map(byte).collect());
    let color = color.and_then(|color| color.try_into().ok()).unwrap_or(voc_color(0));
    let source_id = value.get("source_id").or(value.get("id")).and_then(byte).unwrap_or(1);
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
        let other = load("other.json", r#"{"a": 1, "b": {"c": 2}}"#).unwrap_err();
        for part in ["other.json", "`id2label`", "`categories`", "`a`, `b`"] {
            assert!(other.contains(part), "{other}");
        }
        for broken in [r#"{"categories": [{"id": 300, "name": "a"}, 7]}"#, r#"[{"label": "a"}]"#] {
            let error = load("coco.json", broken).unwrap_err();
            assert!(error.contains("coco.json") && !error.contains("untagged"), "{error}");
        }
    }

    #[test]
    fn tables_of_colors_names_and_ids_are_no_names() {
        let classes = |name: &str, text: &str| {
            let list = load(name, text).unwrap().table;
            let class = |class: &Class| (class.source_id, class.name.clone(), class.color);
            list.classes().iter().map(class).collect::<Vec<_>>()
        };
        let expected =
            [(0, "Animal".to_owned(), [64, 128, 64]), (1, "Archway".to_owned(), [192, 0, 128])];
        for text in [
            "64 128 64\tAnimal\n192 0 128\tArchway\n",
            "Animal 64 128 64\nArchway 192 0 128\n",
            "Animal,64,128,64\nArchway,192,0,128\n",
            "name,r,g,b\nAnimal,64,128,64\nArchway,192,0,128\n",
        ] {
            assert_eq!(classes("classes.txt", text), expected, "{text}");
        }
        let coco = r#"{"categories": [{"id": 2, "name": "cat"}, {"id": 1, "name": "bg"}]}"#;
        assert_eq!(classes("coco.json", coco)[0].1, "cat");
        assert_eq!(classes("coco.json", coco)[1].0, 1);
        for text in ["# mine\nbg\ncat\n", "- bg\n- cat\n", "\"bg\",\n\"cat\",\n"] {
            assert_eq!(names("classes.yaml", text), ["bg", "cat"], "{text}");
        }
        let table = load("classes.csv", "a,b\nc,d\n").unwrap_err();
        assert!(
            table.contains("classes.csv: line 1") && table.contains("row of a table"),
            "{table}"
        );
        let one = load("one.txt", "64 128 64 Animal\n").unwrap();
        assert_eq!(one.table.classes()[1].color, [64, 128, 64]);
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
