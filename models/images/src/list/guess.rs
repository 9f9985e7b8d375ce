//! Files that texts of lists mean by another name than theirs: in other upper and lower case, or by the
//! path that a file has on another machine.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::resolver::{ListResolver, ListedFile, folded, spellings};
use crate::scan::is_image_path;

/// Names of a folder's entries by their lower case.
type FoldedListing = HashMap<String, Vec<OsString>>;

/// Texts that were taken for a file of another name, and the folders that were read for them.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    listings: HashMap<PathBuf, FoldedListing>,
    /// In other upper and lower case.
    case: GuessCount,
    /// By the end of a path.
    elsewhere: GuessCount,
}

/// Number of texts, with the first and its file.
#[derive(Debug, Default)]
struct GuessCount {
    texts: HashSet<OsString>,
    example: Option<(OsString, PathBuf)>,
}

impl GuessCount {
    fn add(&mut self, text: &OsStr, file: &Path) {
        if self.texts.insert(text.to_owned()) {
            self.example.get_or_insert_with(|| (text.to_owned(), file.to_owned()));
        }
    }

    fn text(&self, one: &str, several: &str) -> Option<String> {
        let (text, file) = self.example.as_ref()?;
        let count = self.texts.len();
        let are = if count == 1 { one } else { several };
        Some(format!(
            "{count} {are}, such as {}, which is read as {}",
            Path::new(text).display(),
            file.display()
        ))
    }
}

/// The parts of a path that may be one of another machine.
struct ForeignPath {
    parts: Vec<OsString>,
    /// True for paths from the top of a file system.
    is_absolute: bool,
}

impl ForeignPath {
    /// Parts from the last `..` on, without the letter of a drive.
    fn new(text: &OsStr) -> Self {
        let mut is_absolute = text.as_bytes().starts_with(b"/");
        let mut parts = Vec::new();
        for part in text.as_bytes().split(|&byte| byte == b'/') {
            let is_drive = matches!(part, [letter, b':'] if letter.is_ascii_alphabetic());
            match part {
                b"" | b"." => {}
                b".." => parts.clear(),
                _ if is_drive && parts.is_empty() => is_absolute = true,
                _ => parts.push(OsStr::from_bytes(part).to_owned()),
            }
        }
        Self { parts, is_absolute }
    }

    /// The ends of the path, the longest first, each with what stands before it.
    fn ends(&self) -> impl Iterator<Item = (&[OsString], PathBuf)> {
        // The name alone says too little, unless nothing else can be meant.
        let shortest = if self.is_absolute { 1 } else { 2 };
        let last = self.parts.len().saturating_sub(shortest);
        (0..=last)
            .filter(move |start| self.parts.len() >= start + shortest)
            .map(|start| (&self.parts[..start], self.parts[start..].iter().collect()))
    }
}

impl ListResolver<'_> {
    /// Returns remarks on texts that were taken for files of other names.
    pub fn remarks(&self) -> Vec<String> {
        let case = self.guesses.case.text(
            "name has other upper and lower case than on the disk",
            "names have other upper and lower case than on the disk",
        );
        let elsewhere = self.guesses.elsewhere.text(
            "path is one of another place, and its end is that of a file here",
            "paths are those of another place, and their ends are those of files here",
        );
        case.into_iter().chain(elsewhere).collect()
    }

    /// The file that a text means by another name, an image if `images`; `None` if there is none.
    pub(super) fn guess(&mut self, text: &OsStr, images: bool) -> Option<ListedFile> {
        let is_wanted = |path: &PathBuf| !images || is_image_path(path);
        for spelling in spellings(text) {
            let path = Path::new(&spelling);
            for place in self.places(path) {
                let mut found = self.in_any_case(&place);
                found.retain(is_wanted);
                match found.len() {
                    0 => {}
                    1 => {
                        let found = found.remove(0);
                        // A name alone, found in a usual folder, is no other name.
                        if !found.ends_with(path) {
                            self.guesses.case.add(text, &found);
                        }
                        return Some(ListedFile::Found(found));
                    }
                    _ => return Some(ListedFile::Ambiguous(found)),
                }
            }
        }
        // Back slashes last: the last spelling has none.
        let last = spellings(text).pop()?;
        let path = ForeignPath::new(&last);
        let mut found = None;
        for is_exact in [true, false] {
            found = found.or_else(|| self.by_end(&path, is_exact, &is_wanted));
        }
        if let Some(ListedFile::Found(found)) = &found {
            self.guesses.elsewhere.add(text, found);
        }
        found
    }

    /// Returns the label file that a text means by another name, which is looked for in `folder` too.
    pub(crate) fn guess_label(&mut self, text: &OsStr, folder: &Path) -> Option<PathBuf> {
        let folders = std::mem::replace(&mut self.folders, vec![folder.to_owned()]);
        let found = self.guess(text, false);
        self.folders = folders;
        match found? {
            ListedFile::Found(path) => Some(path),
            ListedFile::Ambiguous(_) | ListedFile::Missing(_) => None,
        }
    }

    /// A relative path from the root and from the folders of images.
    fn places(&self, path: &Path) -> Vec<PathBuf> {
        let mut places = vec![path.to_owned()];
        if path.is_relative() {
            places.extend(self.folders.iter().map(|folder| folder.join(path)));
        }
        places
    }

    /// The file at the longest end of a path that is there.
    fn by_end(
        &mut self,
        path: &ForeignPath,
        is_exact: bool,
        is_wanted: &impl Fn(&PathBuf) -> bool,
    ) -> Option<ListedFile> {
        for (before, end) in path.ends() {
            let mut places = vec![end.clone()];
            if path.is_absolute {
                // Another folder of images of that machine is not the one here.
                let is_named = |folder: &&PathBuf| {
                    before.iter().any(|part| folded(part) == folded(folder.as_os_str()))
                };
                places.extend(
                    self.folders
                        .iter()
                        .filter(|folder| !is_named(folder))
                        .map(|folder| folder.join(&end)),
                );
            }
            for place in places {
                let mut found = match is_exact {
                    true => self.existing(&place).into_iter().collect(),
                    false => self.in_any_case(&place),
                };
                found.retain(is_wanted);
                match found.len() {
                    0 => {}
                    1 => return Some(ListedFile::Found(found.remove(0))),
                    _ => return Some(ListedFile::Ambiguous(found)),
                }
            }
        }
        None
    }

    /// Files whose path differs in upper and lower case at most.
    fn in_any_case(&mut self, path: &Path) -> Vec<PathBuf> {
        let mut found = vec![PathBuf::new()];
        for part in path.components() {
            let mut next = Vec::new();
            for place in found {
                let exact = place.join(part);
                if !matches!(part, Component::Normal(_)) || self.root.join(&exact).exists() {
                    next.push(exact);
                    continue;
                }
                let names = folded(part.as_os_str()).map(|name| self.folded_names(&place, &name));
                next.extend(names.into_iter().flatten().map(|name| place.join(name)));
            }
            found = next;
        }
        found.retain(|path| self.is_file(path));
        found
    }

    fn folded_names(&mut self, folder: &Path, name: &str) -> Vec<OsString> {
        let path = self.root.join(folder);
        let listing = self.guesses.listings.entry(path).or_insert_with_key(|path| {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path.as_path() };
            let mut listing = FoldedListing::new();
            let entries = std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
            for name in entries.map(|entry| entry.file_name()) {
                if let Some(key) = folded(&name) {
                    listing.entry(key).or_default().push(name);
                }
            }
            listing.values_mut().for_each(|names| names.sort());
            listing
        });
        listing.get(name).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::IMAGE_FOLDERS;
    use crate::testing::empty_files;

    #[test]
    fn other_case_and_paths_of_other_machines_mean_the_one_file_that_they_can() {
        let root = empty_files(&[
            "images/img_1.jpg",
            "images/deep/x.jpg",
            "images/Twin.png",
            "images/twin.png",
            "labels/img_1.png",
            "other/x.jpg",
        ])
        .unwrap();
        let mut resolver = ListResolver::new(root.path(), &IMAGE_FOLDERS);
        for (text, expected) in [
            ("IMG_1.JPG", "images/img_1.jpg"),
            ("Images/IMG_1.jpg", "images/img_1.jpg"),
            ("/home/bob/set/images/img_1.jpg", "images/img_1.jpg"),
            ("C:\\set\\images\\img_1.jpg", "images/img_1.jpg"),
            ("D:\\photos\\img_1.jpg", "images/img_1.jpg"),
            ("\\\\server\\set\\IMAGES\\IMG_1.JPG", "images/img_1.jpg"),
            ("../set/images/deep/x.jpg", "images/deep/x.jpg"),
            ("data/set/other/x.jpg", "other/x.jpg"),
        ] {
            assert_eq!(resolver.image(text.as_ref()), ListedFile::Found(expected.into()), "{text}");
            resolver.image(text.as_ref());
        }
        let twins = vec![PathBuf::from("images/Twin.png"), "images/twin.png".into()];
        assert_eq!(resolver.image("TWIN.png".as_ref()), ListedFile::Ambiguous(twins));
        for text in ["/home/bob/images/b/img_1.jpg", "b/img_1.jpg", "/home/x.jpg", "C:\\y.jpg"] {
            assert_eq!(resolver.image(text.as_ref()), ListedFile::Missing(None), "{text}");
        }
        let label = resolver.guess_label("/mnt/masks/img_1.png".as_ref(), Path::new("labels"));
        assert_eq!(label, Some("labels/img_1.png".into()));
        let remarks = resolver.remarks();
        assert!(remarks[0].starts_with("2 names have other"), "{remarks:?}");
        assert!(
            remarks[0].ends_with("IMG_1.JPG, which is read as images/img_1.jpg"),
            "{remarks:?}"
        );
        assert!(remarks[1].starts_with("7 paths are those of another place"), "{remarks:?}");
    }
}
