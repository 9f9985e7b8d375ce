//! `protoseg merge`: merges the shards of a labeling run and verifies that they are complete.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_infer::{EngineConfig, Segmenter};
use protoseg_label::journal::{Journal, JournalContents, JournalEntry, RunHeader};
use protoseg_label::merge::MergedShards;
use protoseg_label::shard::Shard;
use protoseg_label::{STATE_DIR, unescape_name};
use protoseg_models::classes::ClassTable;
use serde::Serialize;

use super::accept_failed::{AcceptFailedArgs, InputCounts};
use super::format::OutputFormats;
use super::reading_args::ReadingArgs;
use super::{CommandError, CommandOutcome, OrUsage, print, print_json, print_stderr};

/// Merge the shards of `protoseg label`, verify that they are complete, and write combined files
///
/// Every image must have been labeled once, by the same model and options, and every result must
/// exist in its recorded size. Exit status 3: complete, except for images that could not be read
/// (see --accept-failed).
/// The folder --out is then the same as if all shards had been labeled into it.
#[derive(Debug, clap::Args)]
pub(crate) struct MergeArgs {
    /// Output folders of `protoseg label --shard`
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    /// Bundle or ONNX file that labeled the images
    #[arg(long, value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Folder that the results of several folders are gathered in
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Gather by hard links where the file system allows it
    ///
    /// Links take no space, but editing a file edits the original too.
    #[arg(long, requires = "out")]
    link: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    accept_failed: AcceptFailedArgs,
    #[command(flatten)]
    reading: ReadingArgs,
}

#[derive(Debug, Serialize)]
struct MergeSummary {
    #[serde(rename = "labelled")]
    labeled: usize,
    /// Names of the images that could not be labeled.
    failed: Vec<String>,
    /// Folders of images that could not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable_folders: Vec<String>,
    /// Share of all pixels by class.
    classes: BTreeMap<String, f64>,
}

pub(crate) fn run(arguments: &MergeArgs) -> Result<CommandOutcome, CommandError> {
    let out = match (&arguments.out, &arguments.folders[..]) {
        (Some(out), _) => out,
        (None, [only]) => only,
        (None, _) => {
            let error = anyhow::anyhow!(
                "the shards are in several folders; name a folder to gather them in with --out"
            );
            return Err(CommandError::usage(error));
        }
    };
    let merged = MergedShards::read(&arguments.folders).or_usage()?;
    let engine = EngineConfig { reading: arguments.reading.reading(), ..EngineConfig::default() };
    let segmenter = Segmenter::open_with(&arguments.bundle, &engine).or_usage()?;
    if segmenter.fingerprint() != merged.recipe.model {
        let error = anyhow::anyhow!(
            "{} is not the model that labeled these images, or it read them otherwise: if they were labeled with \
             --channels, --range or --depth, give the same",
            arguments.bundle.display()
        );
        return Err(CommandError::usage(error));
    }
    let classes = &segmenter.model().classes;
    for warning in &merged.warnings {
        print_stderr(format_args!("warning: {warning}"));
    }
    check(&merged)?;
    check_out(&merged, out).or_usage()?;
    let names = merged.recipe.formats.iter().chain(&merged.combined_formats).map(String::as_str);
    let formats = OutputFormats::from_names(names).or_usage()?;
    let state = out.join(STATE_DIR);
    std::fs::create_dir_all(&state).with_context(|| state.display().to_string())?;
    for (&shard, folder) in merged.shards.iter().filter(|(_, folder)| !is_same_folder(folder, out))
    {
        gather(&merged, shard, folder, out, arguments.link)?;
    }
    let names: Vec<PathBuf> = merged.parts.keys().cloned().collect();
    let notes = formats.finish(out, &names, MAX_PIXELS, classes).context(
        "a combined file could not be written; if a result is named here as broken, delete it, label its shard again with \
         --resume, and merge again",
    )?;
    for note in notes {
        print_stderr(format_args!("note: {note}"));
    }
    let failed: Vec<String> = merged
        .failed
        .iter()
        .filter(|name| !merged.parts.contains_key(&unescape_name(name)))
        .cloned()
        .collect();
    let summary = MergeSummary {
        labeled: merged.parts.len(),
        failed,
        unreadable_folders: merged.folders.iter().cloned().collect(),
        classes: shares(&merged, classes),
    };
    if arguments.json {
        print_json(&summary)?;
    } else {
        print(text(&summary, out))?;
    }
    Ok(arguments.accept_failed.outcome(InputCounts {
        labeled: summary.labeled,
        failed_images: summary.failed.len(),
        unreadable_folders: summary.unreadable_folders.len(),
    }))
}

/// Fails if images are missing that did not fail.
fn check(merged: &MergedShards) -> Result<()> {
    if merged.is_complete() {
        return Ok(());
    }
    let done = merged.parts.len() + merged.failed.len();
    let all = merged.input_set.images;
    bail!(
        "{done} of {all} images were labeled or failed, or other images than those of the run: a shard is unfinished; run it \
         again with --resume"
    )
}

/// Refuses a folder with results of another labeling run: another recipe or other images.
fn check_out(merged: &MergedShards, out: &Path) -> Result<()> {
    // The folders of the command line were compared with each other already.
    if merged.shards.values().any(|folder| is_same_folder(folder, out)) {
        return Ok(());
    }
    let recipe = merged.recipe.key();
    for path in Journal::list(out) {
        let contents = JournalContents::read(&path)?;
        let divided = contents.run.is_none_or(|run| merged.shards.contains_key(&run.shard));
        let ours = |entry: &JournalEntry| {
            entry.recipe == recipe && merged.parts.contains_key(&unescape_name(&entry.image))
        };
        ensure!(
            contents.entries.is_empty() || (divided && contents.entries.values().all(ours)),
            "{} holds the results of another labeling run (see {}); choose another --out",
            out.display(),
            path.display()
        );
    }
    Ok(())
}

/// Returns true if two paths lead to the same folder.
fn is_same_folder(one: &Path, other: &Path) -> bool {
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    canonical(one) == canonical(other)
}

/// Copies or links a shard's results, journal and list of failures into another output folder.
fn gather(
    merged: &MergedShards,
    shard: Shard,
    folder: &Path,
    out: &Path,
    link: bool,
) -> Result<()> {
    let run = RunHeader::new(
        merged.recipe.clone(),
        shard,
        merged.input_set.clone(),
        merged.combined_formats.clone(),
    );
    let (journal, _) = Journal::open(out, shard)?;
    journal.begin(&run)?;
    for part in
        merged.parts.values().filter(|part| shard.contains(&unescape_name(&part.entry.image)))
    {
        journal.invalidate(&part.entry.image)?;
        for path in part.entry.outputs.keys().map(|path| unescape_name(path)) {
            let (from, to) = (folder.join(&path), out.join(&path));
            copy_or_link(&from, &to, &out.join(STATE_DIR).join("gathered"), link)
                .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        }
        journal.add(part.entry.clone())?;
    }
    let failed = Path::new(STATE_DIR).join(format!("failed{}.jsonl", shard.suffix()));
    if folder.join(&failed).exists() {
        std::fs::copy(folder.join(&failed), out.join(&failed))
            .with_context(|| failed.display().to_string())?;
    }
    Ok(())
}

/// Copies or links `from` to `to` via `temporary` on the same file system. Writing to
/// `to` directly would truncate `from` if both are links to one file.
fn copy_or_link(from: &Path, to: &Path, temporary: &Path, link: bool) -> std::io::Result<()> {
    let remove = |path: &Path| match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)?;
    }
    remove(temporary)?;
    let linked = if link { std::fs::hard_link(from, temporary).is_ok() } else { false };
    if !linked {
        std::fs::copy(from, temporary)?;
    }
    std::fs::rename(temporary, to)?;
    // rename(2) does nothing if both names are links to one file.
    remove(temporary)
}

fn shares(merged: &MergedShards, classes: &ClassTable) -> BTreeMap<String, f64> {
    let pixels = merged.pixels();
    let all = pixels.iter().sum::<u64>().max(1) as f64;
    let names = classes.classes().iter().map(|class| class.name.clone());
    names.zip(pixels).map(|(name, pixels)| (name, pixels as f64 / all)).collect()
}

fn text(summary: &MergeSummary, out: &Path) -> String {
    let mut classes: Vec<(&String, &f64)> = summary.classes.iter().collect();
    classes.sort_by(|one, other| other.1.total_cmp(one.1));
    let classes: String = classes
        .iter()
        .map(|(name, share)| format!("\n  {:5.2} %  {name}", 100.0 * *share))
        .collect();
    let failed = match summary.failed.len() {
        0 => String::new(),
        count => format!(", {count} failed ({} …)", summary.failed[0]),
    };
    let folders = match summary.unreadable_folders.len() {
        0 => String::new(),
        count => format!(", {count} folders not read ({} …)", summary.unreadable_folders[0]),
    };
    format!(
        "{} images in {}, complete{failed}{folders}; shares of pixels:{classes}",
        summary.labeled,
        out.display()
    )
}
