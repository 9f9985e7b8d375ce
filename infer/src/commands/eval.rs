//! `protoseg eval`: scores a model on labelled pictures.

use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context, anyhow};
use protoseg_infer::label_map::LabelMap;
use protoseg_models::metrics::{Confusion, Scores};
use protoseg_models::window::Pieces;
use serde::Serialize;

use super::data::{DataArguments, same_classes};
use super::pipeline::{self, Decoded, StageSeconds};
use super::sheet::{self, Sheet};
use super::{Failure, Outcome, RunArguments, print, print_json};

/// Score a model on labelled pictures
#[derive(Debug, clap::Args)]
#[command(mut_arg("data", |data| data.required(true)))]
pub(crate) struct Arguments {
    #[command(flatten)]
    run: RunArguments,
    #[command(flatten)]
    data: DataArguments,
    /// Draw the first pictures, their truth and what the model made of them side by side into a PNG file
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Print the scores as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Summary {
    data: String,
    protocol: String,
    images: usize,
    scores: Scores,
    seconds: f64,
    stages: StageSeconds,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    arguments.sheet.as_deref().map_or(Ok(()), sheet::check_place).map_err(Failure::usage)?;
    let set = arguments.data.open().map_err(Failure::usage)?;
    let mut segmenter = arguments.run.open().map_err(Failure::usage)?;
    same_classes(segmenter.model(), &set.classes()).map_err(Failure::usage)?;
    let confusion = Mutex::new(Confusion::new(segmenter.model().classes.count()));
    let sheet = Sheet::new(&segmenter.model().classes);
    let decode = |index: usize| {
        let labelled = set.read(index, arguments.run.max_pixels)?;
        Ok(Decoded { image: labelled.image, extra: labelled.truth })
    };
    let encode = |index: usize, item: Decoded<Vec<u8>>, labels: LabelMap| {
        if arguments.sheet.is_some() {
            sheet.add(index, &item.image, &item.extra, &labels.labels);
        }
        let mut confusion = confusion.lock().map_err(|_| anyhow!("another picture stopped the count"))?;
        confusion.add(&item.extra, &labels.labels).with_context(|| set.name(index))
    };
    let report = pipeline::run(&mut segmenter, set.count(), decode, encode);
    if let Some(error) = report.stopped {
        return Err(error.into());
    }
    if !report.failed.is_empty() {
        let failed = report.failed.len();
        let all = set.count();
        return Err(anyhow!("{failed} of {all} pictures could not be scored, so there is no score").into());
    }
    let confusion = confusion.into_inner().map_err(|_| anyhow!("a picture stopped the count"))?;
    let summary = Summary {
        data: arguments.data.describe(),
        protocol: Pieces::from(segmenter.window()).to_string(),
        images: set.count(),
        scores: confusion.scores(&segmenter.model().classes),
        seconds: report.elapsed.as_secs_f64(),
        stages: report.seconds,
    };
    if arguments.json {
        print_json(&summary)?;
    } else {
        let Summary { data, protocol, images, scores, .. } = &summary;
        print(format!("{scores}\n{images} pictures, {data}, {protocol}"))?;
    }
    if let Some(path) = &arguments.sheet {
        sheet.write(path)?;
    }
    Ok(Outcome::Done)
}
