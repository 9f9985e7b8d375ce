//! Paths in JSON files: texts where they are UTF-8, or else their bytes as numbers.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A path that may have any bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Form", into = "Form")]
pub struct StoredPath(pub PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<Form> for StoredPath {
    fn from(form: Form) -> Self {
        Self(match form {
            Form::Text(text) => text.into(),
            Form::Bytes(bytes) => OsString::from_vec(bytes).into(),
        })
    }
}

impl From<StoredPath> for Form {
    fn from(StoredPath(path): StoredPath) -> Self {
        match path.into_os_string().into_string() {
            Ok(text) => Self::Text(text),
            Err(path) => Self::Bytes(path.into_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_plain_paths_and_other_bytes_come_back() {
        let plain = StoredPath("a/b \"c\".png".into());
        let json = serde_json::to_string(&plain).unwrap();
        assert_eq!(json, serde_json::to_string(&plain.0).unwrap());
        let other = StoredPath(OsString::from_vec(b"stra\xDFe.png".to_vec()).into());
        for path in [plain, other] {
            let json = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<StoredPath>(&json).unwrap(), path);
        }
    }
}
