//! Samples that a list or a folder names more than once.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Sample;

/// Samples of a list or a folder, each once, and an account of those that it names again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SampleList {
    /// The samples in the order of the list, in the spelling of the first line that names them.
    pub samples: Vec<Sample>,
    /// Number of lines, or of images of the folder.
    pub lines: usize,
    /// Lines about what a scan of a folder passed over, and what was found under other names.
    pub(super) notes: Vec<String>,
    /// First and second spelling of the first sample that is named again.
    repeated: Option<[PathBuf; 2]>,
    /// Number of images with several labels, and the first of them with two of these.
    relabeled: (usize, Option<[PathBuf; 3]>),
}

/// Identity of a file: its device and number, so that links and other spellings are the same; its
/// path where it cannot be asked. Size and time tell files apart where a file system numbers all of
/// them alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum FileId {
    Number { device: u64, inode: u64, bytes: u64, modified: (i64, i64) },
    Path(PathBuf),
}

impl FileId {
    fn new(path: &Path) -> Self {
        let Ok(file) = path.metadata() else { return Self::Path(path.into()) };
        let modified = (file.mtime(), file.mtime_nsec());
        Self::Number { device: file.dev(), inode: file.ino(), bytes: file.len(), modified }
    }
}

impl SampleList {
    /// Keeps the first of the samples that have the same image and the same label.
    pub(super) fn new(all: Vec<Sample>) -> Self {
        let lines = all.len();
        let mut list = Self { lines, ..Self::default() };
        let mut first_lines: HashMap<(FileId, Option<FileId>), PathBuf> = HashMap::new();
        let mut labels: HashMap<FileId, PathBuf> = HashMap::new();
        let mut relabeled = HashSet::new();
        for sample in all {
            let image = FileId::new(&sample.image);
            let key = (image.clone(), sample.label.as_deref().map(FileId::new));
            if let Some(first) = first_lines.get(&key) {
                list.repeated.get_or_insert_with(|| [first.clone(), sample.image]);
                continue;
            }
            if let Some(label) = &sample.label {
                let other = labels.entry(image.clone()).or_insert_with(|| label.clone());
                if other != label && relabeled.insert(image) {
                    let example = || [sample.image.clone(), other.clone(), label.clone()];
                    list.relabeled.1.get_or_insert_with(example);
                }
            }
            first_lines.insert(key, sample.image.clone());
            list.samples.push(sample);
        }
        list.relabeled.0 = relabeled.len();
        list
    }

    /// Returns lines about what was passed over or found under other names, samples that are named again, and images with several
    /// labels.
    pub fn remarks(&self, list: &Path) -> Vec<String> {
        let list = list.display();
        let repeated = self.repeated.as_ref().map(|[first, second]| {
            let (first, second) = (first.display().to_string(), second.display().to_string());
            let same = if first == second { first } else { format!("{second}, which is {first}") };
            format!(
                "{list}: {} of {} samples are named again, such as {same}; each counts once",
                self.lines - self.samples.len(),
                self.lines
            )
        });
        let (count, example) = &self.relabeled;
        let relabeled = example.as_ref().map(|[image, first, second]| {
            let (images, have) = if *count == 1 { ("image", "has") } else { ("images", "have") };
            format!(
                "{list}: {count} {images} {have} several labels, such as {} with {} and {}; each \
                 pair counts",
                image.display(),
                first.display(),
                second.display()
            )
        });
        let notes = self.notes.iter().map(|line| format!("{list}: {line}"));
        notes.chain(repeated).chain(relabeled).collect()
    }
}
