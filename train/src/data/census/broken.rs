//! Files that a census could not use: their list `bad.jsonl`, and the error that ends a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow};
use protoseg_images::label_census::LabelFaults;
use protoseg_images::labeled::{LabeledDataset, LabeledImageError};
use serde::Serialize;

use super::{BAD, ListKind, write_file};
use crate::config::Config;
use crate::data::stored_path::StoredPath;

/// Broken files named on the terminal.
const NAMED: usize = 20;

/// A file that cannot be used.
#[derive(Debug)]
pub(super) struct BrokenFile {
    pub(super) list: ListKind,
    /// Index in the list.
    pub(super) index: usize,
    pub(super) image: PathBuf,
    pub(super) error: LabeledImageError,
}

/// A line of `bad.jsonl`.
#[derive(Serialize)]
struct BrokenLine {
    list: &'static str,
    image: StoredPath,
    error: String,
}

/// Writes the broken files, or removes the file of an earlier census.
pub(super) fn write(out: &Path, broken: &[BrokenFile]) -> Result<()> {
    if broken.is_empty() {
        let path = out.join(BAD);
        return match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        };
    }
    let line = |file: &BrokenFile| {
        let image = StoredPath(file.image.clone());
        let (list, error) = (file.list.name(), file.error.to_string());
        serde_json::to_string(&BrokenLine { list, image, error })
    };
    let lines = broken.iter().map(line).collect::<Result<Vec<_>, _>>()?;
    write_file(out, BAD, &(lines.join("\n") + "\n"))
}

/// Prints the first broken files and returns the error that ends the run. It begins with what the masks of each of `sets`
/// have in common.
pub(super) fn refusal(
    faults: Vec<BrokenFile>,
    sets: &[(ListKind, &LabeledDataset)],
    config: &Config,
    out: &Path,
    say: impl Fn(&str),
) -> Error {
    let (files, way_out) = files_text(&faults, out, say);
    let mut by_list: BTreeMap<ListKind, BTreeMap<usize, LabeledImageError>> = BTreeMap::new();
    for BrokenFile { list, index, error, .. } in faults {
        if let LabeledImageError::Mask(_) = error {
            by_list.entry(list).or_default().insert(index, error);
        }
    }
    let mut masks = Vec::new();
    for (list, set) in sets {
        if let Some(faults) = by_list.remove(list) {
            masks.push(format!(
                "{}: {}",
                list.masks(config),
                LabelFaults::new(set.count(), faults, &set.classes())
            ));
        }
    }
    let masks = masks.join("; ");
    // A single mask is named in both.
    if masks.contains(&files) {
        anyhow!("{masks}{way_out}")
    } else if masks.is_empty() {
        anyhow!("{files}{way_out}")
    } else {
        anyhow!("{masks}; {files}{way_out}")
    }
}

/// Describes the broken files, a single one by its own error, and the way to go without them.
fn files_text(faults: &[BrokenFile], out: &Path, say: impl Fn(&str)) -> (String, &'static str) {
    if let [single] = faults {
        let way_out = if single.list == ListKind::Unlabeled {
            "; `skip_broken = true` goes without it"
        } else {
            ""
        };
        return (single.error.to_string(), way_out);
    }
    let width = faults.iter().map(|fault| fault.list.name().len()).max().unwrap_or(0);
    for fault in faults.iter().take(NAMED) {
        // The way out follows once, for all of them.
        say(&format!("  {:width$}  {}", fault.list.name(), fault.error.fact()));
    }
    if faults.len() > NAMED {
        say(&format!("  and {} more", faults.len() - NAMED));
    }
    let count = |list: ListKind| faults.iter().filter(|fault| fault.list == list).count();
    let counts: Vec<String> = ListKind::ALL
        .into_iter()
        .filter(|list| count(*list) > 0)
        .map(|list| format!("{} {}", count(list), list.name()))
        .collect();
    let mut ways: Vec<String> = faults
        .iter()
        .filter(|fault| !matches!(fault.error, LabeledImageError::Mask(_)))
        .filter_map(|fault| fault.error.way_out())
        .collect();
    ways.sort();
    ways.dedup();
    let ways: String = ways.into_iter().map(|way| format!("; {way}")).collect();
    let way_out = if count(ListKind::Unlabeled) > 0 {
        "; `skip_broken = true` goes without the unlabeled ones"
    } else {
        ""
    };
    let text = format!(
        "{} files cannot be used ({}), all of them are in {}: mend them, or take them off the lists{ways}",
        faults.len(),
        counts.join(", "),
        out.join(BAD).display()
    );
    (text, way_out)
}
