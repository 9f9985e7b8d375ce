//! File fingerprint: size and modification time, or SHA-256.

use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use protoseg_models::digest;
use serde::{Deserialize, Serialize};

/// Fingerprint of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFingerprint {
    pub bytes: u64,
    /// Nanoseconds since 1970, negative before.
    pub modified: i64,
    /// Where the content was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Of another file that results depend on, such as a world file; 0 bytes of time 0 where there was
    /// none. Not known of results that depend on none, and in older journals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<Box<Self>>,
}

impl FileFingerprint {
    /// Reads size and time of a file, and with `content` its digest.
    pub fn from_file(path: &Path, content: bool) -> io::Result<Self> {
        let metadata = path.metadata()?;
        let modified = match metadata.modified()?.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |before| -before)
            }
        };
        // A pipe or device may never end.
        let sha256 =
            if content && metadata.is_file() { Some(digest::sha256_file(path)?) } else { None };
        Ok(Self { bytes: metadata.len(), modified, sha256, beside: None })
    }

    /// Adds the file beside it that results depend on; `None` where there is no such file.
    pub fn with_beside(self, beside: Option<&Path>, content: bool) -> io::Result<Self> {
        let none = Self { bytes: 0, modified: 0, sha256: None, beside: None };
        let beside = beside.map_or(Ok(none), |path| Self::from_file(path, content))?;
        Ok(Self { beside: Some(Box::new(beside)), ..self })
    }

    /// Compares digests where both have one, else times; sizes always. Files beside them count where
    /// both know of them.
    pub fn matches(&self, other: &Self) -> bool {
        let same = match (&self.sha256, &other.sha256) {
            (Some(one), Some(two)) => one == two,
            _ => self.modified == other.modified,
        };
        let same_beside = match (&self.beside, &other.beside) {
            (Some(one), Some(two)) => one.matches(two),
            _ => true,
        };
        same && same_beside && self.bytes == other.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_file_beside_counts_where_both_know_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let [image, world] = ["a.png", "a.pgw"].map(|name| folder.path().join(name));
        fs::write(&image, "image").unwrap();
        let alone = FileFingerprint::from_file(&image, false).unwrap();
        let with = |beside| alone.clone().with_beside(beside, false).unwrap();
        let none = with(None);
        fs::write(&world, "1\n").unwrap();
        let first = with(Some(world.as_path()));
        fs::write(&world, "25\n").unwrap();
        let second = with(Some(world.as_path()));
        for (one, two, same) in [
            (&none, &none, true),
            (&none, &first, false),
            (&first, &second, false),
            (&second, &second, true),
            (&alone, &second, true),
        ] {
            assert_eq!(one.matches(two), same);
            let read: FileFingerprint =
                serde_json::from_str(&serde_json::to_string(one).unwrap()).unwrap();
            assert_eq!(read, *one);
        }
        assert!(!serde_json::to_string(&alone).unwrap().contains("beside"));
    }

    #[test]
    fn digests_decide_before_times() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "one").unwrap();
        let [by_time, by_content] =
            [false, true].map(|content| FileFingerprint::from_file(&path, content).unwrap());
        assert!(by_time.matches(&by_content));
        let touch = |seconds| {
            File::options().write(true).open(&path).unwrap().set_modified(seconds).unwrap();
        };
        touch(SystemTime::UNIX_EPOCH - Duration::from_secs(5));
        assert_eq!(FileFingerprint::from_file(&path, false).unwrap().modified, -5_000_000_000);
        assert!(!FileFingerprint::from_file(&path, false).unwrap().matches(&by_time));
        assert!(FileFingerprint::from_file(&path, true).unwrap().matches(&by_content));
        fs::write(&path, "two").unwrap();
        assert!(!FileFingerprint::from_file(&path, true).unwrap().matches(&by_content));
    }
}
