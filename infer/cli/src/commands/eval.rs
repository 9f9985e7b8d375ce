//! `protoseg eval`: scores a model on labeled images.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, ensure};
use image::RgbImage;
use ndarray::ArrayView2;
use protoseg_images::labeled::{LabeledDataset, LabeledImageError};
use protoseg_infer::check::CheckError;
use protoseg_infer::evaluate;
use protoseg_infer::pipeline::{PipelineEvent, PipelineSetup, StageReport};
use protoseg_infer::seams::{SeamCounter, Seams};
use protoseg_infer::segmenter::Tiler;
use protoseg_models::bundle::Manifest;
use protoseg_models::errors::error_chain;
use protoseg_models::metrics::Scores;
use serde::Serialize;

use super::contact_sheet::{self, ContactSheet};
use super::data::{DataArgs, ensure_same_classes};
use super::{
    CommandError, CommandOutcome, OrUsage, RunArgs, print, print_json, print_stderr,
    print_warnings, progress,
};

/// Score a model on labeled images
#[derive(Debug, clap::Args)]
#[command(mut_arg("data", |data| data.required(true)))]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Score another bundle on the same images too (repeatable)
    #[arg(long, value_name = "BUNDLE")]
    beside: Vec<PathBuf>,
    /// Write a contact sheet: first images, ground truth and each model's prediction, as PNG
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Also measure seams: how often labels change on the borders of windows, and elsewhere
    #[arg(long)]
    seams: bool,
    /// Score the other images where some, or their label maps, are broken; the exit status is 3
    ///
    /// Ids and colors without a meaning are errors all the same: then the class file is at fault.
    #[arg(long)]
    skip_broken: bool,
    /// Print the scores as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct EvalSummary {
    data: String,
    protocol: String,
    images: usize,
    /// Images that were left out, as they or their label maps cannot be read.
    #[serde(skip_serializing_if = "is_zero")]
    broken: usize,
    /// Folders of images that could not be read.
    #[serde(skip_serializing_if = "is_zero")]
    unreadable_folders: usize,
    /// Files of endings that are not read, in the folders of images.
    #[serde(skip_serializing_if = "is_zero")]
    passed_over: usize,
    scores: Scores,
    #[serde(skip_serializing_if = "Option::is_none")]
    seams: Option<Seams>,
    seconds: f64,
    setup: PipelineSetup,
    stages: StageReport,
    #[serde(flatten)]
    labels: LabelRemarks,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    beside: Vec<Beside>,
}

/// Remarks on the labels that change what the scores mean.
#[derive(Debug, Clone, Default, Serialize)]
struct LabelRemarks {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// Share of the pixels that the class file ignores.
    #[serde(skip_serializing_if = "Option::is_none")]
    ignored: Option<String>,
}

/// Another bundle's scores on the same images.
#[derive(Debug, Serialize)]
struct Beside {
    bundle: PathBuf,
    #[serde(flatten)]
    summary: EvalSummary,
}

/// Reads all label maps before anything is scored. Prints and returns remarks on them; fails with
/// every value that has no meaning, and where there is nothing to score. Images whose label maps
/// cannot be read are taken off the set if `skip_broken`.
fn check_labels(
    set: &mut LabeledDataset,
    max_pixels: u64,
    list: &str,
    skip_broken: bool,
) -> anyhow::Result<LabelRemarks> {
    if let LabeledDataset::Synthetic { .. } = set {
        return Ok(LabelRemarks::default());
    }
    let mut census = set.label_census(max_pixels);
    if let Err(faults) = &census
        && skip_broken
        && faults.faults.len() < set.count()
        && faults.faults.values().all(LabeledImageError::is_unreadable)
    {
        for fault in faults.faults.values() {
            print_stderr(format_args!("error: {}", error_chain(fault)));
        }
        *set = set.without(&faults.faults.keys().copied().collect());
        census = set.label_census(max_pixels);
    }
    let census = census.map_err(|faults| {
        let (count, all) = (faults.faults.len(), set.count());
        let unreadable = faults.faults.values().all(LabeledImageError::is_unreadable);
        let way_out = if unreadable && !skip_broken && count < all {
            " (--skip-broken scores the others)"
        } else {
            ""
        };
        anyhow::Error::from(faults).context(format!(
            "{count} of {all} label maps cannot be used, so there is no score{way_out}"
        ))
    })?;
    ensure!(
        census.labeled() > 0,
        "no pixel of {list} has a class, so there is nothing to score: all count for nothing"
    );
    let mut remarks =
        LabelRemarks { warnings: census.void_classes(), ignored: census.ignored_text() };
    // Other absent classes are named with the mean.
    let absent = census.absent_text(list).filter(|_| census.may_be_of_0_and_255());
    remarks.warnings.extend(absent);
    for warning in &remarks.warnings {
        print_stderr(format_args!("warning: {warning}"));
    }
    Ok(remarks)
}

pub(crate) fn run(arguments: &EvalArgs) -> Result<CommandOutcome, CommandError> {
    arguments.sheet.as_deref().map_or(Ok(()), contact_sheet::check_path).or_usage()?;
    let (mut set, scan) = arguments.data.open_scanned().or_usage()?;
    let bundles: Vec<&PathBuf> =
        std::iter::once(&arguments.run.bundle).chain(&arguments.beside).collect();
    // Before the first is scored; sessions are opened one bundle after the other.
    for bundle in bundles.iter().filter(|bundle| bundle.is_dir()) {
        let model = Manifest::read(bundle).or_usage()?.value.model;
        ensure_same_classes(&model, &set).or_usage()?;
    }
    let listed = set.count();
    let (max_pixels, skip_broken) = (arguments.run.max_pixels(), arguments.skip_broken);
    let labels = check_labels(&mut set, max_pixels, &arguments.data.describe(), skip_broken);
    // Nothing is begun where masks have no meaning.
    let labels = labels.or_usage()?;
    let set = set;
    let sheet = ContactSheet::new(&set.classes(), &bundles);
    let mut summaries = Vec::with_capacity(bundles.len());
    for (column, bundle) in bundles.iter().enumerate() {
        let run = RunArgs { bundle: bundle.to_path_buf(), ..arguments.run.clone() };
        let mut pipeline = run.open(set.count()).or_usage()?;
        ensure_same_classes(pipeline.segmenter().model(), &set).or_usage()?;
        let tiler = pipeline.segmenter().tiler();
        let seams = arguments.seams.then(|| Mutex::new(SeamCounter::default()));
        let on_image = |index: usize, image: &RgbImage, truth: &[u8], labels: &[u8]| {
            if let Some(seams) = &seams {
                let found = count_seams(&tiler, image, labels).unwrap_or_default();
                seams.lock().unwrap_or_else(PoisonError::into_inner).merge(found);
            }
            if arguments.sheet.is_some() {
                sheet.add(column, index, image, truth, labels);
            }
        };
        let bar = progress::bar(set.count());
        let observe = |event: PipelineEvent<'_, CheckError>| {
            if let PipelineEvent::Failed(index, error) = event {
                let error = progress::named_text(&set.name(index), &error_chain(error));
                bar.suspend(|| print_stderr(format_args!("error: {error}")));
            }
            bar.inc(1);
        };
        let scored =
            evaluate::score(&mut pipeline, &set, max_pixels, skip_broken, &on_image, &observe);
        bar.finish_and_clear();
        let (confusion, report) = scored.map_err(anyhow::Error::from)?;
        if let Some(class) = confusion.only_prediction() {
            let name = &pipeline.segmenter().model().classes.classes()[class].name;
            print_stderr(format_args!(
                "warning: {} gives every pixel the class `{name}`: it was trained for too few steps, or \
                 reads other images than it was made for",
                bundle.display()
            ));
        }
        summaries.push(EvalSummary {
            data: arguments.data.describe(),
            protocol: pipeline.segmenter().protocol(),
            images: set.count() - report.failed.len(),
            broken: listed - set.count() + report.failed.len(),
            unreadable_folders: scan.unreadable.len(),
            passed_over: scan.unread_files(),
            scores: confusion.scores(&pipeline.segmenter().model().classes),
            seams: seams
                .map(|seams| seams.into_inner().unwrap_or_else(PoisonError::into_inner).seams()),
            seconds: report.elapsed.as_secs_f64(),
            setup: pipeline.setup().clone(),
            stages: report.stages,
            labels: if column == 0 { labels.clone() } else { LabelRemarks::default() },
            beside: Vec::new(),
        });
    }
    print_warnings(set.warnings(set.count()));
    let is_complete = summaries.iter().all(|summary| summary.broken == 0);
    if arguments.json {
        let mut summaries = summaries.into_iter();
        let mut summary = summaries.next().context("no bundle was scored")?;
        let bundles = arguments.beside.iter().cloned();
        summary.beside =
            bundles.zip(summaries).map(|(bundle, summary)| Beside { bundle, summary }).collect();
        print_json(&summary)?;
    } else {
        print_scores(&bundles, &summaries, listed)?;
        if let Some(ignored) = labels.ignored {
            print(ignored)?;
        }
    }
    if let Some(path) = &arguments.sheet {
        sheet.write(path)?;
    }
    Ok(if scan.unreadable.is_empty() && is_complete {
        CommandOutcome::Success
    } else {
        CommandOutcome::SomeInputsFailed
    })
}

/// Prints the scores of each bundle; `listed` is the number of images with those that are left out.
fn print_scores(
    bundles: &[&PathBuf],
    summaries: &[EvalSummary],
    listed: usize,
) -> anyhow::Result<()> {
    for (bundle, EvalSummary { data, protocol, images, broken, scores, seams, .. }) in
        bundles.iter().zip(summaries)
    {
        if bundles.len() > 1 {
            print(format!("{}:", bundle.display()))?;
        }
        let broken = match broken {
            0 => String::new(),
            broken => format!(" ({broken} of {listed} are broken and left out)"),
        };
        print(format!("{scores}\n{images} images{broken}, {data}, {protocol}"))?;
        if let Some(seams) = seams {
            print(describe(seams))?;
        }
    }
    Ok(())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Label changes of one image; None where it was run whole.
fn count_seams(tiler: &Tiler, image: &RgbImage, labels: &[u8]) -> Option<SeamCounter> {
    let (height, width) = (image.height() as usize, image.width() as usize);
    let plan = tiler.window_plan([height, width]).ok().flatten()?;
    let mut counter = SeamCounter::default();
    counter.add(&ArrayView2::from_shape((height, width), labels).ok()?, &plan);
    Some(counter)
}

fn describe(seams: &Seams) -> String {
    let Seams { on_borders: Some(on_borders), elsewhere: Some(elsewhere), ratio } = seams else {
        return "no seams: no image has more than one window".to_owned();
    };
    let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
    format!(
        "labels change at {:.2} % of the window borders and at {:.2} % elsewhere: {ratio} times",
        100.0 * on_borders,
        100.0 * elsewhere
    )
}
