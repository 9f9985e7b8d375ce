//! JSON files with a version: what each version promises its readers.
//!
//! The same minor version (or an older one): an unknown field is an error. A newer minor version: unknown fields are
//! passed over, and the caller gets their names for a warning. A newer major version: refused.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::atomic;

/// Why a JSON file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not the JSON that was expected.
    #[error("{} is not what it should be: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        source: serde_json::Error,
    },
    /// A field that this version does not have.
    #[error("{} holds the unknown field `{field}`; remove it, or correct its name", path.display())]
    UnknownField {
        /// The file.
        path: PathBuf,
        /// Dotted path of the field.
        field: String,
    },
    /// No version, or none that is understood.
    #[error("{} is of version {found}, and this program reads versions up to {supported}; update protoseg", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What stands in it.
        found: String,
        /// What is read.
        supported: &'static str,
    },
}

/// A value read, with the fields that were passed over because the file is of a newer minor version.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// Dotted paths of fields that this program does not know.
    pub unknown_fields: Vec<String>,
}

/// Reads a JSON file whose top-level `version` is `major.minor`.
pub fn read<T: DeserializeOwned>(
    path: &Path,
    supported: &'static str,
) -> Result<Versioned<T>, JsonError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| JsonError::Io { path: path.into(), source })?;
    parse(path, &text, supported)
}

/// The same from a text; `path` is for messages.
pub fn parse<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    supported: &'static str,
) -> Result<Versioned<T>, JsonError> {
    let content = |source| JsonError::Content { path: path.into(), source };
    let json: serde_json::Value = serde_json::from_str(text).map_err(content)?;
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
        .map_err(content)?;
    match unknown_fields.first() {
        Some(field) if !newer => {
            Err(JsonError::UnknownField { path: path.into(), field: field.clone() })
        }
        _ => Ok(Versioned { value, unknown_fields }),
    }
}

/// Reads a JSON file without a version of its own: one that only lies beside a versioned one.
pub fn read_unversioned<T: DeserializeOwned>(path: &Path) -> Result<T, JsonError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| JsonError::Io { path: path.into(), source })?;
    serde_json::from_str(&text).map_err(|source| JsonError::Content { path: path.into(), source })
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Writes a value as indented JSON, whole or not at all.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), JsonError> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|source| JsonError::Content { path: path.into(), source })?;
    text.push('\n');
    atomic::write(path, text.as_bytes())
        .map_err(|source| JsonError::Io { path: path.into(), source })
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
    fn versions_decide_what_unknown_fields_mean() {
        let same = parse_outer(r#"{"version": "1.2", "inner": {"size": 3}}"#).unwrap().value;
        assert_eq!((same.version.as_str(), same.inner.size), ("1.2", 3));
        let error =
            parse_outer(r#"{"version": "1.1", "inner": {"size": 3, "sise": 4}}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "manifest.json holds the unknown field `inner.sise`; remove it, or correct its name"
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
