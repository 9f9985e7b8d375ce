//! Lists that are JSON or YAML: an array of names is read, other documents are named with the way out.

use std::ffi::OsString;
use std::path::Path;

use serde_json::Value;

use super::{LineContent, ListLine, ListTextError};

/// Names of lists that a message shows.
const NAMED: usize = 6;

/// Parses a JSON array of names, or of objects with an image. `None` for texts that are lines; fails
/// for other documents.
pub(super) fn parse(text: &[u8], root: &Path) -> Option<Result<Vec<ListLine>, ListTextError>> {
    let start = text.trim_ascii_start();
    match start.first()? {
        b'[' => array(text, start),
        b'{' => object(text).map(Err),
        _ => yaml(text, root).map(Err),
    }
}

fn array(text: &[u8], start: &[u8]) -> Option<Result<Vec<ListLine>, ListTextError>> {
    let values: Vec<Value> = match serde_json::from_slice(text) {
        Ok(values) => values,
        Err(error) => {
            // A name may begin with a bracket.
            let next = start[1..].trim_ascii_start().first();
            let is_json = next.is_none_or(|next| [b'"', b'{', b']'].contains(next));
            return is_json.then(|| Err(ListTextError::Json(error.to_string())));
        }
    };
    let line = |(number, value): (usize, Value)| {
        let content = match value {
            Value::String(name) => LineContent::Text(OsString::from(name.trim())),
            Value::Object(_) => {
                serde_json::from_value(value).map(LineContent::Object).map_err(|error| {
                    ListTextError::Object { line: number, error: error.to_string() }
                })?
            }
            other => {
                let found = other.to_string();
                return Err(ListTextError::Entry { number, found });
            }
        };
        Ok(ListLine { number, content })
    };
    Some((1..).zip(values).map(line).collect())
}

/// The fault of a document that is one object; `None` for an object on each line.
fn object(text: &[u8]) -> Option<ListTextError> {
    let Value::Object(map) = serde_json::from_slice(text).ok()? else { return None };
    if map.contains_key("image") {
        return None;
    }
    if map.contains_key("images") && map.contains_key("annotations") {
        return Some(ListTextError::Coco);
    }
    let count = |(key, value): (&String, &Value)| {
        let names = value.as_array()?;
        let counted =
            if names.len() == 1 { "1 name".into() } else { format!("{} names", names.len()) };
        names.iter().all(Value::is_string).then(|| format!("`{key}` ({counted})"))
    };
    let lists: Vec<String> = map.iter().filter_map(count).collect();
    if !lists.is_empty() {
        return Some(ListTextError::JsonSplits(shortened(lists)));
    }
    let keys = map.keys().map(|key| format!("`{key}`")).collect();
    Some(ListTextError::JsonObject(shortened(keys)))
}

fn shortened(names: Vec<String>) -> String {
    let more = if names.len() > NAMED { ", …" } else { "" };
    names.into_iter().take(NAMED).collect::<Vec<_>>().join(", ") + more
}

/// The fault of YAML: names behind `- `, perhaps below a key.
fn yaml(text: &[u8], root: &Path) -> Option<ListTextError> {
    let text = std::str::from_utf8(text).ok()?;
    let mut lines = (1..).zip(text.lines()).map(|(number, line)| (number, line.trim()));
    let is_content = |line: &str| !line.is_empty() && !line.starts_with('#') && line != "---";
    let mut lines = lines.by_ref().filter(|(_, line)| is_content(line));
    let (number, first) = lines.next()?;
    let is_item = |line: &str| line.strip_prefix("- ").is_some_and(|name| !name.trim().is_empty());
    let is_key = first.strip_suffix(':').is_some_and(|key| !key.is_empty());
    let is_yaml =
        is_item(first) || is_key && lines.next().is_some_and(|(_, second)| is_item(second));
    let line = first.to_owned();
    (is_yaml && !root.join(first).is_file()).then_some(ListTextError::Yaml { number, line })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::list::{LineContent, parse};

    fn names(text: &str) -> Result<Vec<String>, String> {
        let lines = parse(text.as_bytes(), false, Path::new("nowhere"));
        let lines = lines.map_err(|error| error.to_string())?;
        let name = |content| match content {
            LineContent::Text(text) => text.into_string().unwrap(),
            LineContent::Object(object) => object.image.display().to_string(),
        };
        Ok(lines.into_iter().map(|line| name(line.content)).collect())
    }

    #[test]
    fn arrays_of_names_are_lists() {
        for text in [
            r#"["a.jpg", "b c.jpg"]"#,
            "\u{feff}[\n  \"a.jpg\",\r\n  \"b c.jpg\"\n]\n",
            r#"[{"image": "a.jpg", "label": "a.png"}, "b c.jpg"]"#,
        ] {
            assert_eq!(names(text).unwrap(), ["a.jpg", "b c.jpg"], "{text}");
        }
        assert_eq!(names("[1] a.jpg\n[2] b.jpg\n").unwrap(), ["[1] a.jpg", "[2] b.jpg"]);
        assert_eq!(names("{\"image\": \"a.jpg\"}\n{\"image\": \"b.jpg\"}\n").unwrap().len(), 2);
    }

    #[test]
    fn other_documents_are_named_with_the_way_out() {
        for (text, parts) in [
            (
                r#"{"train": ["a.jpg", "b.jpg"], "val": ["c.jpg"]}"#,
                ["`train` (2 names), `val` (1 name)", "a file of its own"],
            ),
            ("{\n\"images\": [],\n\"annotations\": []\n}", ["COCO", "protoseg convert"]),
            (r#"{"version": 1}"#, ["`version`", "[\"a.jpg\", \"b.jpg\"]"]),
            ("[\"a.jpg\", ", ["malformed JSON", "[\"a.jpg\", \"b.jpg\"]"]),
            ("[\"a.jpg\", 3]", ["entry 2", "is 3"]),
            ("# mine\n- a.jpg\n- b.jpg\n", ["line 2: `- a.jpg`", "YAML"]),
            ("train:\n  - a.jpg\n", ["line 1: `train:`", "YAML"]),
        ] {
            let error = names(text).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
        assert_eq!(names("a: b.jpg\n").unwrap(), ["a: b.jpg"]);
    }
}
