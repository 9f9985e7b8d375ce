//! `protoseg label`: pictures to label maps.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use protoseg_infer::label_map::LabelMap;
use protoseg_infer::picture;
use protoseg_models::atomic;
use protoseg_models::classes::ClassTable;
use protoseg_models::errors::sentence;
use serde::Serialize;

use super::format::{self, Format};
use super::inputs::{self, Input};
use super::pipeline::{self, Decoded, StageSeconds};
use super::{Failure, Outcome, RunArguments, print, print_json};

/// Label pictures
///
/// A picture below an input folder keeps its place: IN/a/b.jpg becomes OUT/ids/a/b.png, OUT/color/a/b.png and
/// OUT/overlay/a/b.png. EXIF orientation is applied; transparent pixels count as black. A picture that cannot be read is
/// reported, the others are labelled, and the exit status is 3; a result that cannot be written ends the run.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    run: RunArguments,
    /// Pictures, folders of pictures, or patterns such as 'in/**/*.jpg'
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    /// Folder for the results
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What to write, any of these in one pass
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["ids"])]
    format: Vec<Format>,
    /// Print a summary as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Summary {
    labelled: usize,
    failed: Vec<FailedInput>,
    seconds: f64,
    images_per_second: f64,
    stages: StageSeconds,
}

#[derive(Debug, Serialize)]
struct FailedInput {
    /// For people: names that are no text come with replacement characters, as JSON holds nothing else.
    path: String,
    error: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let inputs = inputs::collect(&arguments.inputs).map_err(Failure::usage)?;
    inputs::check_outputs(&inputs, &arguments.inputs, &arguments.out).map_err(Failure::usage)?;
    let mut segmenter = arguments.run.open().map_err(Failure::usage)?;
    let classes = segmenter.model().classes.clone();
    let formats = format::complete(&arguments.format);
    let names: Vec<&Path> = inputs.iter().map(|input| input.name.as_path()).collect();
    format::check(&formats, &names, &classes).map_err(Failure::usage)?;
    make_folders(&arguments.out, &formats).map_err(Failure::usage)?;
    let decode = |index: usize| {
        let image = picture::read(&inputs[index].path, arguments.run.max_pixels)?;
        Ok(Decoded { image, extra: () })
    };
    let encode = |index: usize, item: Decoded<()>, labels: LabelMap| {
        let Input { path, name } = &inputs[index];
        for format in &formats {
            write(*format, &arguments.out, name, &item, &labels, &classes)
                .with_context(|| format!("stopped, as the labels of {} could not be written", path.display()))?;
        }
        Ok(())
    };
    let report = pipeline::run(&mut segmenter, inputs.len(), decode, encode);
    if let Some(error) = report.stopped {
        return Err(error.into());
    }
    let bad: HashSet<usize> = report.failed.iter().map(|(index, _)| *index).collect();
    let good = inputs.iter().enumerate().filter(|(index, _)| !bad.contains(index));
    let names: Vec<PathBuf> = good.map(|(_, input)| input.name.clone()).collect();
    format::write_one_files(&formats, &arguments.out, &names, arguments.run.max_pixels, &classes)
        .context("the pictures are labelled, but a file for all of them could not be written")?;
    let failed = |(index, error): &(usize, anyhow::Error)| FailedInput {
        path: inputs[*index].path.display().to_string(),
        error: sentence(error.as_ref()),
    };
    let labelled = inputs.len() - report.failed.len();
    let seconds = report.elapsed.as_secs_f64();
    let summary = Summary {
        labelled,
        failed: report.failed.iter().map(failed).collect(),
        seconds,
        images_per_second: labelled as f64 / seconds,
        stages: report.seconds,
    };
    if arguments.json {
        print_json(&summary)?;
    } else {
        print(human(&summary, &arguments.out))?;
    }
    Ok(if summary.failed.is_empty() { Outcome::Done } else { Outcome::SomeInputsFailed })
}

/// Makes the folders for the results and writes a trial file into each, before any work is done.
fn make_folders(out: &Path, formats: &[Format]) -> anyhow::Result<()> {
    for folder in formats.iter().filter_map(|format| format.folder()) {
        let folder = out.join(folder);
        let trial = folder.join(format!(".protoseg.{}.trial", std::process::id()));
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&trial, b""))
            .and_then(|()| std::fs::remove_file(&trial))
            .with_context(|| format!("results cannot be written into {}", folder.display()))?;
    }
    Ok(())
}

fn write(
    format: Format,
    out: &Path,
    name: &Path,
    item: &Decoded<()>,
    labels: &LabelMap,
    classes: &ClassTable,
) -> anyhow::Result<()> {
    let Some(place) = format.place(name) else { return Ok(()) };
    let path = out.join(place);
    let bytes = format.bytes(labels, &item.image, classes)?;
    let failed = || path.display().to_string();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(failed)?;
    }
    atomic::write(&path, &bytes).with_context(failed)
}

fn human(summary: &Summary, out: &Path) -> String {
    let StageSeconds { decode, run, stitch, encode } = summary.stages;
    let failed = match summary.failed.len() {
        0 => String::new(),
        count => format!(", {count} failed"),
    };
    format!(
        "{} labelled{failed} into {} in {:.1} s ({:.2} images/s)\n\
         work in seconds: decode {decode:.2}, run {run:.2}, stitch {stitch:.2}, encode {encode:.2}",
        summary.labelled,
        out.display(),
        summary.seconds,
        summary.images_per_second,
    )
}
