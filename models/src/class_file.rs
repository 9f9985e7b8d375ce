//! Class tables by name or from a file, as a person names them on a command line.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::classes::{Class, ClassError, ClassTable, voc_color};

/// Why no table could be had.
#[derive(Debug, thiserror::Error)]
pub enum ClassFileError {
    /// Neither a name nor a file.
    #[error("{} is neither a file nor a known table of classes: cityscapes, camvid or voc", .0.display())]
    Absent(PathBuf),
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A JSON file that is no list of classes.
    #[error("{} is no list of classes ({source}); write [{{\"name\": \"road\", \"color\": [128, 64, 128]}}, …]", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        source: serde_json::Error,
    },
    /// Classes that cannot be.
    #[error("{}: {source}", path.display())]
    Classes {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ClassError,
    },
}

/// A class in a JSON file: a name, with or without the rest.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Entry {
    Name(String),
    Class { name: String, color: Option<[u8; 3]>, source_id: Option<u8> },
}

/// The table called `cityscapes`, `camvid` or `voc`; else that of a file, in order of train ids: JSON where its name ends
/// so, else one class a line as [`ClassTable::parse`] reads them. In JSON, colours and ids may be left out.
pub fn read(name: &Path) -> Result<ClassTable, ClassFileError> {
    match name.to_str() {
        Some("cityscapes") => return Ok(ClassTable::cityscapes()),
        Some("camvid") => return Ok(ClassTable::camvid()),
        Some("voc") => return Ok(ClassTable::voc()),
        _ if !name.is_file() => return Err(ClassFileError::Absent(name.into())),
        _ => {}
    }
    let text = std::fs::read_to_string(name)
        .map_err(|source| ClassFileError::Io { path: name.into(), source })?;
    let wrong = |source| ClassFileError::Classes { path: name.into(), source };
    if name.extension().is_none_or(|extension| extension != "json") {
        return ClassTable::parse(&text).map_err(wrong);
    }
    let entries: Vec<Entry> = serde_json::from_str(&text)
        .map_err(|source| ClassFileError::Json { path: name.into(), source })?;
    if !(2..=255).contains(&entries.len()) {
        return Err(wrong(ClassError::Count(entries.len())));
    }
    let class = |(index, entry): (u8, Entry)| {
        let (name, color, source_id) = match entry {
            Entry::Name(name) => (name, None, None),
            Entry::Class { name, color, source_id } => (name, color, source_id),
        };
        let color = color.unwrap_or_else(|| voc_color(index.into()));
        Class { name, color, source_id: source_id.unwrap_or(index) }
    };
    ClassTable::try_from((0..).zip(entries).map(class).collect::<Vec<_>>()).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_by_name_and_from_files_of_both_kinds() {
        assert_eq!(read(Path::new("voc")).unwrap(), ClassTable::voc());
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            read(&path)
        };
        let text = write("classes.txt", "7 road 128 64 128\n1 sky 0 0 255\n").unwrap();
        let json = r#"[{"name": "road", "color": [128, 64, 128], "source_id": 7}, {"name": "sky", "color": [0, 0, 255]}]"#;
        assert_eq!(write("classes.json", json).unwrap(), text);
        let names = write("names.json", r#"["a", "b", {"name": "c"}]"#).unwrap();
        assert_eq!((names.count(), names.classes()[2].source_id), (3, 2));
        let one = write("one.json", r#"["a"]"#).unwrap_err().to_string();
        assert!(one.contains("one.json") && one.contains("between 2 and 255"), "{one}");
        let strange = write("strange.json", r#"{"a": 1}"#).unwrap_err().to_string();
        assert!(strange.contains("strange.json is no list of classes"), "{strange}");
        assert!(write("bad.txt", "road").unwrap_err().to_string().contains("line 1"));
        assert!(matches!(read(Path::new("imagenet")), Err(ClassFileError::Absent(_))));
    }
}
