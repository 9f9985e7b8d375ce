//! Patterns of files, such as `in/**/*.jpg`: matched by the same rules as folders are scanned.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use glob::{MatchOptions, Pattern};
use protoseg_images::scan::{ScannedEntry, Scanner, is_image_path};

/// Characters that make a path a pattern.
const WILDCARDS: [char; 3] = ['*', '?', '['];

/// Returns true if a path is a pattern.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(WILDCARDS)
}

/// A pattern, part by part below the folder that its beginning names.
#[derive(Debug)]
pub(super) struct PathPattern {
    /// Folder that the parts without wildcards at the beginning name.
    pub(super) base: PathBuf,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    /// `**`: any number of folders.
    Folders,
    Name(Pattern),
}

impl PathPattern {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let path = Path::new(text);
        let is_plain = |part: &std::path::Component<'_>| {
            !part.as_os_str().to_string_lossy().contains(WILDCARDS)
        };
        let base: PathBuf = path.components().take_while(is_plain).collect();
        let parts = path.components().skip(base.components().count()).map(|part| {
            let part = part.as_os_str().to_string_lossy();
            Ok(if part == "**" { Part::Folders } else { Part::Name(Pattern::new(&part)?) })
        });
        let parts = parts.collect::<Result<_, glob::PatternError>>();
        let parts = parts.with_context(|| format!("{text} is not a valid glob"))?;
        Ok(Self { base, parts })
    }

    /// Returns the images that match, those in the fewest folders first. Links to folders are
    /// followed, but for those to a folder that they are in. An image that several paths lead to
    /// comes once, by a path without a link if there is one.
    pub(super) fn images(&self, scanner: &mut Scanner) -> Vec<PathBuf> {
        let mut images = Vec::new();
        let mut seen = HashSet::new();
        let mut level = vec![(self.base.clone(), Vec::new(), self.start())];
        // Links to folders wait until there is nothing else.
        let mut linked = Vec::new();
        while !level.is_empty() {
            let mut next = Vec::new();
            for (folder, ancestors, states) in level {
                // An empty path is the current folder.
                let read = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
                let Ok(canonical) = read.canonicalize().or_else(|_| std::path::absolute(read))
                else {
                    continue;
                };
                if ancestors.contains(&canonical) {
                    continue;
                }
                let (entries, is_new) =
                    scanner.entries(read, |name| self.names_hidden(&states, name));
                for ScannedEntry { path, is_folder, is_link } in entries {
                    let Some(name) = path.file_name() else { continue };
                    let path = folder.join(name);
                    let after = self.step(&states, name);
                    let is_match = after.contains(&self.parts.len());
                    if is_folder {
                        if !after.is_empty() {
                            let mut ancestors = ancestors.clone();
                            ancestors.push(canonical.clone());
                            let later = if is_link { &mut linked } else { &mut next };
                            later.push((path, ancestors, after));
                        }
                    } else if is_match && is_image_path(&path) {
                        if seen.insert((canonical.clone(), name.to_owned())) {
                            images.push(path);
                        }
                    } else if is_match && is_new {
                        scanner.count_ending(&path);
                    }
                }
            }
            if next.is_empty() {
                next = std::mem::take(&mut linked);
            }
            next.sort();
            level = next;
        }
        images.sort_by_cached_key(|image| (image.components().count(), image.clone()));
        images
    }

    /// States before the first name: the parts that may match it.
    fn start(&self) -> Vec<usize> {
        self.closure(vec![0])
    }

    /// Adds the parts behind `**`, which matches no folder too.
    fn closure(&self, mut states: Vec<usize>) -> Vec<usize> {
        let mut at = 0;
        while at < states.len() {
            let next = states[at] + 1;
            if matches!(self.parts.get(states[at]), Some(Part::Folders)) && !states.contains(&next)
            {
                states.push(next);
            }
            at += 1;
        }
        states.sort_unstable();
        states
    }

    /// States after a name; with the number of parts among them, the pattern matches.
    fn step(&self, states: &[usize], name: &OsStr) -> Vec<usize> {
        let mut after = Vec::new();
        for &state in states {
            let next = match self.parts.get(state) {
                Some(Part::Folders) => state,
                Some(Part::Name(pattern)) if matches(pattern, name) => state + 1,
                _ => continue,
            };
            if !after.contains(&next) {
                after.push(next);
            }
        }
        self.closure(after)
    }

    /// True if a part that begins with the first letter of a hidden name matches the name.
    fn names_hidden(&self, states: &[usize], name: &OsStr) -> bool {
        let first = name.as_encoded_bytes().first();
        states.iter().any(|&state| match self.parts.get(state) {
            Some(Part::Name(pattern)) => {
                pattern.as_str().as_bytes().first() == first && matches(pattern, name)
            }
            _ => false,
        })
    }
}

fn matches(pattern: &Pattern, name: &OsStr) -> bool {
    pattern.matches_with(&name.to_string_lossy(), MatchOptions::new())
}
