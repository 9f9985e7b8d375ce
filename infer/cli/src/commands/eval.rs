//! `protoseg eval`: scores a model on labeled images.

use std::path::PathBuf;

use anyhow::Context;
use image::RgbImage;
use protoseg_infer::check::CheckError;
use protoseg_infer::evaluate;
use protoseg_infer::pipeline::{PipelineEvent, PipelineSetup, StageReport};
use protoseg_models::errors::error_chain;
use protoseg_models::metrics::Scores;
use protoseg_models::window::Tiling;
use serde::Serialize;

use super::contact_sheet::{self, ContactSheet};
use super::data::{DataArgs, ensure_same_classes};
use super::{
    CommandError, CommandOutcome, OrUsage, RunArgs, print, print_json, print_stderr, progress,
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
    /// Print the scores as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct EvalSummary {
    data: String,
    protocol: String,
    images: usize,
    /// Folders of images that could not be read.
    #[serde(skip_serializing_if = "is_zero")]
    unreadable_folders: usize,
    /// Files of endings that are not read, in the folders of images.
    #[serde(skip_serializing_if = "is_zero")]
    passed_over: usize,
    scores: Scores,
    seconds: f64,
    setup: PipelineSetup,
    stages: StageReport,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    beside: Vec<Beside>,
}

/// Another bundle's scores on the same images.
#[derive(Debug, Serialize)]
struct Beside {
    bundle: PathBuf,
    #[serde(flatten)]
    summary: EvalSummary,
}

pub(crate) fn run(arguments: &EvalArgs) -> Result<CommandOutcome, CommandError> {
    arguments.sheet.as_deref().map_or(Ok(()), contact_sheet::check_path).or_usage()?;
    let (set, scan) = arguments.data.open_scanned().or_usage()?;
    let bundles: Vec<&PathBuf> =
        std::iter::once(&arguments.run.bundle).chain(&arguments.beside).collect();
    let mut pipelines = Vec::with_capacity(bundles.len());
    for bundle in &bundles {
        let run = RunArgs { bundle: bundle.to_path_buf(), ..arguments.run.clone() };
        let pipeline = run.open(set.count()).or_usage()?;
        ensure_same_classes(pipeline.segmenter().model(), &set.classes()).or_usage()?;
        pipelines.push(pipeline);
    }
    let sheet = ContactSheet::new(&set.classes(), bundles.len());
    let mut summaries = Vec::with_capacity(bundles.len());
    for (column, mut pipeline) in pipelines.into_iter().enumerate() {
        let on_image = |index: usize, image: &RgbImage, truth: &[u8], labels: &[u8]| {
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
        let max_pixels = arguments.run.max_pixels;
        let scored = evaluate::score(&mut pipeline, &set, max_pixels, &on_image, &observe);
        bar.finish_and_clear();
        let (confusion, report) = scored.map_err(anyhow::Error::from)?;
        summaries.push(EvalSummary {
            data: arguments.data.describe(),
            protocol: Tiling::from(pipeline.segmenter().window()).to_string(),
            images: set.count(),
            unreadable_folders: scan.unreadable.len(),
            passed_over: scan.unread_files(),
            scores: confusion.scores(&pipeline.segmenter().model().classes),
            seconds: report.elapsed.as_secs_f64(),
            setup: pipeline.setup().clone(),
            stages: report.stages,
            beside: Vec::new(),
        });
    }
    if arguments.json {
        let mut summaries = summaries.into_iter();
        let mut summary = summaries.next().context("no bundle was scored")?;
        let bundles = arguments.beside.iter().cloned();
        summary.beside =
            bundles.zip(summaries).map(|(bundle, summary)| Beside { bundle, summary }).collect();
        print_json(&summary)?;
    } else {
        for (bundle, EvalSummary { data, protocol, images, scores, .. }) in
            bundles.iter().zip(&summaries)
        {
            if bundles.len() > 1 {
                print(format!("{}:", bundle.display()))?;
            }
            print(format!("{scores}\n{images} images, {data}, {protocol}"))?;
        }
    }
    if let Some(path) = &arguments.sheet {
        sheet.write(path)?;
    }
    Ok(if scan.unreadable.is_empty() {
        CommandOutcome::Success
    } else {
        CommandOutcome::SomeInputsFailed
    })
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}
