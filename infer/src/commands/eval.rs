//! `protoseg eval`: scores a model on labelled pictures.

use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context, anyhow, bail, ensure};
use clap::ValueEnum;
use protoseg_infer::label_map::LabelMap;
use protoseg_infer::labelled::LabelledSet;
use protoseg_models::bundle::Model;
use protoseg_models::classes::{Class, ClassTable};
use protoseg_models::dataset::Dataset;
use protoseg_models::metrics::{Confusion, Scores};
use protoseg_models::window::Pieces;
use serde::Serialize;

use super::pipeline::{self, Decoded, StageSeconds};
use super::sheet::{self, Sheet};
use super::{Failure, Outcome, RunArguments, print, print_json};

/// Score a model on labelled pictures
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    run: RunArguments,
    /// How the data set lies in its folder
    #[arg(long, value_enum)]
    data: Data,
    /// The data set's folder; not for synthetic scenes
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Which part of it: a list, a folder, or `all` of a folder's pictures [default: val; of a folder: all]
    #[arg(long, value_name = "NAME", conflicts_with = "list")]
    split: Option<String>,
    /// File with the pictures' paths, and their labels' where these do not follow from them, relative to the root
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Score only the first N pictures [default of synthetic: 100]
    #[arg(long, value_name = "N", value_parser = super::pictures())]
    limit: Option<usize>,
    /// Seed of the synthetic scenes
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Height and width of the synthetic scenes [default: 512x1024]
    #[arg(long, value_name = "HxW", value_parser = super::size)]
    size: Option<[usize; 2]>,
    /// Draw the first pictures, their truth and what the model made of them side by side into a PNG file
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Print the scores as JSON
    #[arg(long)]
    json: bool,
}

/// Kinds of data sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Data {
    /// train.txt and val.txt with pairs of paths
    Camvid,
    /// The official tree: leftImg8bit and gtFine
    Cityscapes,
    /// The official tree: JPEGImages and SegmentationClass
    Voc,
    /// images, labels and classes.txt
    Folder,
    /// Street scenes drawn by rule, in the classes of Cityscapes
    Synthetic,
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
    let set = open(arguments).map_err(Failure::usage)?;
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
        data: describe(arguments),
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

fn open(arguments: &Arguments) -> anyhow::Result<LabelledSet> {
    let Arguments { data, root, split, list, limit, seed, size, .. } = arguments;
    let dataset = match data {
        Data::Camvid => Dataset::Camvid,
        Data::Cityscapes => Dataset::Cityscapes,
        Data::Voc => Dataset::Voc,
        Data::Folder => Dataset::Folder,
        Data::Synthetic => {
            ensure!(
                root.is_none() && split.is_none() && list.is_none(),
                "synthetic scenes take no --root, --split or --list"
            );
            let (count, size) = (limit.unwrap_or(100), size.unwrap_or([512, 1024]));
            return Ok(LabelledSet::Scenes { seed: seed.unwrap_or(0), first: 0, count, size });
        }
    };
    ensure!(seed.is_none() && size.is_none(), "--seed and --size are for --data synthetic");
    let Some(root) = root else { bail!("name the data set's folder with --root") };
    let usual = if dataset == Dataset::Folder { "all" } else { "val" };
    let mut set = LabelledSet::files(dataset, root, list.as_deref(), split.as_deref().unwrap_or(usual))?;
    if let Some(limit) = limit {
        set.truncate(*limit);
    }
    Ok(set)
}

/// A score needs train ids that mean the same on both sides.
fn same_classes(model: &Model, data: &ClassTable) -> anyhow::Result<()> {
    let names = |table: &ClassTable| table.classes().iter().map(|class: &Class| class.name.clone()).collect::<Vec<_>>();
    let (known, found) = (names(&model.classes), names(data));
    ensure!(
        known == found,
        "the model `{}` knows the classes {}; the data set has {}: a score would mean nothing",
        model.name,
        known.join(", "),
        found.join(", ")
    );
    Ok(())
}

fn describe(arguments: &Arguments) -> String {
    let data = arguments.data.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    match (&arguments.list, &arguments.split) {
        (Some(list), _) => format!("{data} {}", list.display()),
        (None, Some(split)) => format!("{data} {split}"),
        (None, None) => match arguments.data {
            Data::Synthetic => format!("{data} seed {}", arguments.seed.unwrap_or(0)),
            Data::Folder => format!("{data} all"),
            _ => format!("{data} val"),
        },
    }
}
