//! `protoseg merge`: the shards of a labelling, joined and proven complete.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use protoseg_infer::labelling::joined::{Joined, Part};
use protoseg_infer::labelling::{OWN_FOLDER, place_of};
use protoseg_infer::picture::MAX_PIXELS;
use protoseg_infer::segmenter::{Segmenter, SegmenterOptions};
use protoseg_models::classes::ClassTable;
use serde::Serialize;

use super::format::Formats;
use super::{Failure, Outcome, print, print_json};

/// Join the shards of `protoseg label`, prove that they are complete, and write the files for all pictures
///
/// Every picture must have been labelled once, by the same model and options, and every result must be there in the size that
/// was written. Exit status 3 says that it is so but for pictures that could not be read.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Output folders of `protoseg label --shard`
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    /// The bundle or file that labelled: it knows the classes
    #[arg(long, value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Gather the results of several folders here, by hard links where the file system allows it
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print a summary as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Summary {
    labelled: usize,
    /// Names of the pictures that could not be labelled.
    failed: Vec<String>,
    /// Share of each class in all pixels.
    classes: BTreeMap<String, f64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let out = match (&arguments.out, &arguments.folders[..]) {
        (Some(out), _) => out,
        (None, [only]) => only,
        (None, _) => {
            let error =
                anyhow::anyhow!("the shards lie in several folders: name one that they are gathered in with --out");
            return Err(Failure::usage(error));
        }
    };
    let joined = Joined::read(&arguments.folders).map_err(Failure::usage)?;
    let segmenter = Segmenter::open_with(&arguments.bundle, &SegmenterOptions::default()).map_err(Failure::usage)?;
    if segmenter.fingerprint() != joined.recipe.model {
        let error = anyhow::anyhow!("{} is not the model that labelled these pictures", arguments.bundle.display());
        return Err(Failure::usage(error));
    }
    let classes = &segmenter.model().classes;
    check(&joined)?;
    let names = joined.recipe.formats.iter().chain(&joined.joint).map(String::as_str);
    let formats = Formats::of_names(names).map_err(Failure::usage)?;
    for part in joined.parts.values().filter(|part| part.out != *out) {
        gather(part, out)?;
    }
    let own = out.join(OWN_FOLDER);
    std::fs::create_dir_all(&own).with_context(|| own.display().to_string())?;
    let names: Vec<PathBuf> = joined.parts.keys().cloned().collect();
    formats.finish(out, &names, MAX_PIXELS, classes).context("a file for all pictures could not be written")?;
    let failed: Vec<String> =
        joined.failed.iter().filter(|name| !joined.parts.contains_key(&place_of(name))).cloned().collect();
    let summary = Summary { labelled: joined.parts.len(), failed, classes: shares(&joined, classes) };
    if arguments.json {
        print_json(&summary)?;
    } else {
        print(human(&summary, out))?;
    }
    Ok(if summary.failed.is_empty() { Outcome::Done } else { Outcome::SomeInputsFailed })
}

/// Fails where pictures are missing that did not fail.
fn check(joined: &Joined) -> Result<()> {
    if joined.is_complete() {
        return Ok(());
    }
    let (there, all) = (joined.parts.len() + joined.failed.len(), joined.census.pictures);
    bail!(
        "of {all} pictures {there} were labelled or failed, or not the same ones: a shard is not through; run it again with \
         --resume"
    )
}

/// Puts a picture's results into another output folder.
fn gather(part: &Part, out: &Path) -> Result<()> {
    for place in part.entry.outputs.keys().map(|place| place_of(place)) {
        let (from, to) = (part.out.join(&place), out.join(&place));
        let placed = || -> std::io::Result<()> {
            if let Some(folder) = to.parent() {
                std::fs::create_dir_all(folder)?;
            }
            match std::fs::hard_link(&from, &to) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    std::fs::remove_file(&to)?;
                    std::fs::hard_link(&from, &to)
                }
                linked => linked,
            }
            .or_else(|_| std::fs::copy(&from, &to).map(drop))
        };
        placed().with_context(|| format!("{} cannot be put to {}", from.display(), to.display()))?;
    }
    Ok(())
}

fn shares(joined: &Joined, classes: &ClassTable) -> BTreeMap<String, f64> {
    let pixels = joined.pixels();
    let all = pixels.iter().sum::<u64>().max(1) as f64;
    let names = classes.classes().iter().map(|class| class.name.clone());
    names.zip(pixels).map(|(name, pixels)| (name, pixels as f64 / all)).collect()
}

fn human(summary: &Summary, out: &Path) -> String {
    let mut classes: Vec<(&String, &f64)> = summary.classes.iter().collect();
    classes.sort_by(|one, other| other.1.total_cmp(one.1));
    let classes: String = classes.iter().map(|(name, share)| format!("\n  {:5.2} %  {name}", 100.0 * *share)).collect();
    let failed = match summary.failed.len() {
        0 => String::new(),
        count => format!(", {count} failed ({} …)", summary.failed[0]),
    };
    format!("{} pictures in {}, complete{failed}; shares of pixels:{classes}", summary.labelled, out.display())
}
