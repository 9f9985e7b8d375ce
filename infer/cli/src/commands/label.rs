//! `protoseg label`: pictures to label maps.

mod output_dir;
mod record;
mod summary;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, anyhow, ensure};
use protoseg_bench::tuning::TuningPurpose;
use protoseg_images::formats::pseudo_labels::DEFAULT_MIN_CONFIDENCE;
use protoseg_images::image_file::ImageFile;
use protoseg_infer::pipeline::{DecodedImage, PendingImage, Pipeline, PipelineEvent, RunControl};
use protoseg_infer::session::{self, SessionError};
use protoseg_infer::{EngineConfig, Prediction};
use protoseg_label::fingerprint::FileFingerprint;
use protoseg_label::journal::{InputSetDigest, Recipe, RunHeader};
use protoseg_label::shard::Shard;
use protoseg_models::window::Tiling;

use self::output_dir::OutputDir;
use self::record::ResultRecorder;
use self::summary::{FailedInput, LabelSummary};
use super::format::{OutputFormat, OutputFormats};
use super::inputs::{self, InputImage};
use super::signals::StopSignals;
use super::tuned::{TunedEngine, TuningArgs};
use super::{CommandError, CommandOutcome, RunArgs, print, print_json, print_stderr, progress};

/// Label pictures
///
/// A picture below an input folder keeps its place: IN/a/b.jpg becomes OUT/ids/a/b.png, OUT/color/a/b.png and
/// OUT/overlay/a/b.png. EXIF orientation is applied; transparent pixels count as black. A picture that cannot be read is
/// reported, in OUT/.protoseg/failed.jsonl too, the others are labelled, and the exit status is 3; a result that cannot be
/// written, but for the picture's name, ends the run. SIGTERM, SIGHUP and Ctrl-C end it when the pictures on their way are done, with status 143, 129 and 130. Whatever
/// ended it, the same command with --resume goes on.
#[derive(Debug, clap::Args)]
pub(crate) struct LabelArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    tuning: TuningArgs,
    /// Pictures, folders of pictures, or patterns such as 'in/**/*.jpg'; - reads a list from the standard input
    #[arg(required_unless_present = "lists")]
    inputs: Vec<PathBuf>,
    /// File with a picture's path a line, or an object {"image": PATH, "name": PLACE} a line
    #[arg(long = "list", value_name = "FILE")]
    lists: Vec<PathBuf>,
    /// What paths of lists are relative to [default: the list's folder]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Folder for the results
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What to write, any of these in one pass
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["ids"])]
    format: Vec<OutputFormat>,
    /// How sure a pixel must be to be a pseudo-label
    #[arg(long, value_name = "SHARE", default_value_t = DEFAULT_MIN_CONFIDENCE)]
    pseudo_confidence: f64,
    /// Go on in a folder that holds results: label what is missing, what has changed, and what failed
    #[arg(long)]
    resume: bool,
    /// Tell whether a picture has changed by its content instead of its size and time
    #[arg(long)]
    verify_inputs: bool,
    /// Label one part of the pictures, by their names: i/n with i from 1 to n, or `auto` as the scheduler's variables say
    /// (Kubernetes indexed jobs, AWS Batch and Slurm arrays, torchrun); `protoseg merge` joins the parts
    #[arg(long, value_name = "i/n|auto")]
    shard: Option<String>,
    /// How many shards there are, where the scheduler does not say
    #[arg(long, value_name = "n")]
    shards: Option<u64>,
    /// Print a summary as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &LabelArgs) -> Result<CommandOutcome, CommandError> {
    let signals = StopSignals::catch().map_err(CommandError::usage)?;
    let shard = arguments.shard().map_err(CommandError::usage)?;
    let all = inputs::collect(&arguments.inputs, &arguments.lists, arguments.root.as_deref())
        .map_err(CommandError::usage)?;
    inputs::check_outputs(&all, &arguments.inputs, &arguments.out).map_err(CommandError::usage)?;
    let input_set = InputSetDigest::from_names(all.iter().map(|input| input.name.as_path()));
    let inputs: Vec<InputImage> =
        all.into_iter().filter(|input| shard.contains(&input.name)).collect();
    let (mut pipeline, engine) = arguments.open(inputs.len()).map_err(CommandError::usage)?;
    let formats = arguments.formats(&pipeline, &inputs).map_err(CommandError::usage)?;
    let recipe = arguments.recipe(&pipeline, &engine, &formats).map_err(CommandError::usage)?;
    let run = RunHeader::new(recipe, shard, input_set, formats.combined_names().collect());
    let place = OutputDir::open(&arguments.out, &formats, run, arguments.resume)
        .map_err(CommandError::usage)?;
    for remark in place.warnings(&inputs, &formats) {
        print_stderr(format_args!("warning: {remark}"));
    }
    let todo: Vec<usize> = (0..inputs.len())
        .filter(|&index| !place.is_done(&inputs[index], arguments.verify_inputs))
        .collect();
    let record =
        ResultRecorder::new(&place, &formats, pipeline.segmenter().model().classes.clone())?;

    let open = |index: usize| {
        let input = &inputs[todo[index]];
        // Before it is read: what is written to it meanwhile makes it another one.
        let stamp = FileFingerprint::from_file(&input.path, arguments.verify_inputs)
            .with_context(|| input.path.display().to_string())?;
        let file = ImageFile::read(&input.path, arguments.run.max_pixels)?;
        Ok(PendingImage {
            pixels: file.pixels(),
            decode: move || Ok(DecodedImage { image: file.decode()?, extra: stamp }),
        })
    };
    let bar = progress::bar(todo.len());
    // Pictures that were run, and whose results have no place.
    let unplaced: Mutex<Vec<(usize, anyhow::Error)>> = Mutex::default();
    let encode = |index: usize, item: DecodedImage<FileFingerprint>, decided: Prediction| {
        let input = &inputs[todo[index]];
        let path = input.path.display();
        match record.write_results(input, item, decided) {
            Err(error) if record::is_name_error(&error) => {
                let error = error.context(format!("the labels of {path} have no place by its name"));
                progress::show_error(&bar, &error);
                record.record_failure(input, &error);
                unplaced.lock().unwrap_or_else(PoisonError::into_inner).push((index, error));
                Ok(())
            }
            kept => kept.with_context(|| {
                format!("stopped, as the labels of {path} could not be written; make room or mend it, and go on with --resume")
            }),
        }
    };
    let observe = |event: PipelineEvent<'_, anyhow::Error>| {
        progress::show(&bar, &event);
        if let PipelineEvent::Failed(index, error) = event {
            record.record_failure(&inputs[todo[index]], error);
        }
    };
    let control = RunControl { outputs: formats.outputs(), stop: &signals.stop, observe: &observe };
    let report = pipeline.run(todo.len(), &control, open, encode);
    bar.finish_and_clear();
    if let Some(error) = report.stopped {
        return Err(error.into());
    }
    record.check()?;
    let unplaced = unplaced.into_inner().unwrap_or_else(PoisonError::into_inner);
    let labelled = report.done - unplaced.len();
    let mut bad: Vec<(usize, anyhow::Error)> = report.failed.into_iter().chain(unplaced).collect();
    bad.sort_by_key(|(index, _)| *index);
    let failed: Vec<FailedInput> = bad
        .iter()
        .map(|(index, error)| FailedInput::new(&inputs[todo[*index]].path, error))
        .collect();
    let mut summary =
        LabelSummary::new(&pipeline, labelled, inputs.len() - todo.len(), failed, shard);
    summary.time(report.elapsed, report.stages);
    if report.interrupted {
        summary.left = todo.len() - summary.labeled - summary.failed.len();
    } else if shard == Shard::ALL {
        let bad: HashSet<usize> = bad.iter().map(|(index, _)| todo[*index]).collect();
        let good = inputs.iter().enumerate().filter(|(index, _)| !bad.contains(index));
        let names: Vec<PathBuf> = good.map(|(_, input)| input.name.clone()).collect();
        formats
            .finish(&arguments.out, &names, arguments.run.max_pixels, &pipeline.segmenter().model().classes)
            .context(
                "the pictures are labelled, but a file for all of them could not be written; if a file among the results is \
                 named here as broken, delete it and go on with --resume",
            )?;
    }
    if arguments.json {
        print_json(&summary)?;
    } else {
        print(summary.human(&arguments.out))?;
    }
    Ok(match (report.interrupted, summary.failed.is_empty()) {
        (true, _) => CommandOutcome::ExitCode(signals.status()),
        (false, true) => CommandOutcome::Success,
        (false, false) => CommandOutcome::SomeInputsFailed,
    })
}

impl LabelArgs {
    fn shard(&self) -> anyhow::Result<Shard> {
        match self.shard.as_deref() {
            Some("auto") => {
                let (shard, source) =
                    Shard::from_scheduler(|name| std::env::var(name).ok(), self.shards)?;
                print_stderr(format_args!("shard {shard}, as {source} says"));
                Ok(shard)
            }
            _ if self.shards.is_some() => {
                Err(anyhow!("--shards goes with --shard auto; write --shard i/n otherwise"))
            }
            Some(named) => Ok(named.parse()?),
            None => Ok(Shard::ALL),
        }
    }

    /// Opens the bundle as tuned or as given, to run so many pictures.
    fn open(&self, pictures: usize) -> anyhow::Result<(Pipeline, EngineConfig)> {
        let TunedEngine { engine, used, remark, warning } = self.tuning.resolve(
            &self.run.bundle,
            &self.run.engine.config(),
            TuningPurpose::Label,
        )?;
        if let Some(warning) = warning {
            print_stderr(format_args!("warning: {warning}"));
        }
        if let Some(remark) = remark.filter(|_| used || self.run.verbose) {
            print_stderr(remark);
        }
        let opened = self.run.open_with(&engine, pictures);
        let pipeline = if used {
            opened.context("as it was tuned, which --tuning off leaves out")?
        } else {
            opened?
        };
        Ok((pipeline, engine))
    }

    fn formats(&self, pipeline: &Pipeline, inputs: &[InputImage]) -> anyhow::Result<OutputFormats> {
        let share = self.pseudo_confidence;
        ensure!(
            (0.0..=1.0).contains(&share),
            "--pseudo-confidence is a share from 0 to 1, not {share}"
        );
        let formats = OutputFormats::new(&self.format, share, pipeline.segmenter().has_logits())?;
        let names = inputs.iter().map(|input| input.name.as_path());
        formats.check(&names, &pipeline.segmenter().model().classes)?;
        Ok(formats)
    }

    fn recipe(
        &self,
        pipeline: &Pipeline,
        engine: &EngineConfig,
        formats: &OutputFormats,
    ) -> Result<Recipe, SessionError> {
        let segmenter = pipeline.segmenter();
        Ok(Recipe {
            model: segmenter.fingerprint().to_owned(),
            windows: Tiling::from(segmenter.window()).to_string(),
            device: engine.arithmetic(segmenter.device()),
            runtime: session::runtime()?.build,
            formats: formats.names().collect(),
        })
    }
}
