//! Versioned JSON files, and the promises of a version to its readers.
//!
//! In a file of the same minor version, or an older one, an unknown field is an error. In one of a
//! newer minor version, unknown fields are ignored and reported to the caller, for a warning. A
//! newer major version is refused.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::atomic;
use crate::errors::FileError;

/// A JSON file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// An I/O error.
    #[error(transparent)]
    File(#[from] FileError),
    /// Malformed JSON, or JSON of another structure.
    #[error("{} is not valid: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The fault.
        source: serde_json::Error,
    },
    /// An unknown field.
    #[error("{} has the unknown field `{field}`; remove it, or correct its name", path.display())]
    UnknownField {
        /// The file.
        path: PathBuf,
        /// Dotted path of the field.
        field: String,
    },
    /// A missing or unsupported version.
    #[error("{} has version {found}, and this program reads versions up to {supported}; update protoseg", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Version of the file.
        found: String,
        /// Newest version read.
        supported: &'static str,
    },
}

/// A value with the unknown fields of its file, which are those of a newer minor version.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// Dotted paths of the ignored fields.
    pub unknown_fields: Vec<String>,
}

/// Reads a JSON file whose top-level `version` is `major.minor`.
pub fn read<T: DeserializeOwned>(
    path: &Path,
    supported: &'static str,
) -> Result<Versioned<T>, JsonError> {
    parse(path, &read_text(path)?, supported)
}

/// Parses a versioned JSON text; `path` is for messages.
pub fn parse<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    supported: &'static str,
) -> Result<Versioned<T>, JsonError> {
    let json: serde_json::Value = serde_json::from_str(text).map_err(content(path))?;
    let found =
        json.get("version").and_then(serde_json::Value::as_str).unwrap_or("unknown").to_owned();
    let newer = match (numbers(&found), numbers(supported)) {
        (Some((major, minor)), Some((our_major, our_minor))) if major == our_major => {
            minor > our_minor
        }
        _ => return Err(JsonError::Version { path: path.into(), found, supported }),
    };
    let mut unknown_fields = Vec::new();
    let value = serde_ignored::deserialize(json, |field| unknown_fields.push(field.to_string()))
        .map_err(content(path))?;
    match unknown_fields.first() {
        Some(field) if !newer => {
            Err(JsonError::UnknownField { path: path.into(), field: field.clone() })
        }
        _ => Ok(Versioned { value, unknown_fields }),
    }
}

/// Reads a JSON file without version, which belongs to a versioned one.
pub fn read_unversioned<T: DeserializeOwned>(path: &Path) -> Result<T, JsonError> {
    serde_json::from_str(&read_text(path)?).map_err(content(path))
}

/// Writes a value as indented JSON, atomically.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), JsonError> {
    let mut text = serde_json::to_string_pretty(value).map_err(content(path))?;
    text.push('\n');
    Ok(atomic::write(path, text.as_bytes()).map_err(FileError::at(path))?)
}

fn read_text(path: &Path) -> Result<String, FileError> {
    std::fs::read_to_string(path).map_err(FileError::at(path))
}

fn content(path: &Path) -> impl Fn(serde_json::Error) -> JsonError {
    move |source| JsonError::Content { path: path.into(), source }
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Inner {
        size: u32,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Outer {
        version: String,
        inner: Inner,
    }

    fn parse_outer(text: &str) -> Result<Versioned<Outer>, JsonError> {
        parse(Path::new("manifest.json"), text, "1.2")
    }

    #[test]
    fn unknown_fields_are_errors_unless_the_version_is_newer() {
        let same = parse_outer(r#"{"version": "1.2", "inner": {"size": 3}}"#).unwrap().value;
        assert_eq!((same.version.as_str(), same.inner.size), ("1.2", 3));
        let error =
            parse_outer(r#"{"version": "1.1", "inner": {"size": 3, "sise": 4}}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "manifest.json has the unknown field `inner.sise`; remove it, or correct its name"
        );
        let newer = parse_outer(r#"{"version": "1.3", "inner": {"size": 3, "depth": 4}}"#).unwrap();
        assert_eq!(
            (newer.value.inner.size, newer.unknown_fields),
            (3, vec!["inner.depth".to_owned()])
        );
        for text in [
            r#"{"version": "2.0", "inner": {"size": 3}}"#,
            r#"{"inner": {"size": 3}}"#,
            r#"{"version": 1}"#,
        ] {
            assert!(matches!(parse_outer(text), Err(JsonError::Version { .. })), "{text}");
        }
        assert!(matches!(parse_outer(r#"{"version": "1.2"}"#), Err(JsonError::Content { .. })));
        assert!(matches!(parse_outer("{"), Err(JsonError::Content { .. })));
    }
}
