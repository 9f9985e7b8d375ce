//! `protoseg label`: writes label maps of images.

mod failures;
mod large;
mod output_dir;
mod record;
mod row_run;
mod summary;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, anyhow, ensure};
use protoseg_bench::tuning::TuningPurpose;
use protoseg_images::formats::pseudo_labels::DEFAULT_MIN_CONFIDENCE;
use protoseg_images::image_file::NotedImage;
use protoseg_images::notes::NoteCollector;
use protoseg_infer::config::parse_bytes;
use protoseg_infer::pipeline::{DecodedImage, PendingImage, Pipeline, PipelineEvent, RunControl};
use protoseg_infer::session::{self, SessionError};
use protoseg_infer::{EngineConfig, Prediction};
use protoseg_label::journal::{InputSetDigest, Recipe, RunHeader};
use protoseg_label::shard::Shard;
use protoseg_models::classes::ClassTable;
use protoseg_models::window::Tiling;
use protoseg_program::signals::StopSignals;

use self::failures::Failures;
use self::large::{LargeImages, LargeSetting};
use self::output_dir::{OutputDir, fingerprint};
use self::record::{InputFacts, ResultRecorder};
use self::summary::LabelSummary;
use super::accept_failed::{AcceptFailedArgs, InputCounts};
use super::annotation_args::AnnotationArgs;
use super::format::{OutputFormat, OutputFormats, ResultNames};
use super::inputs::{self, InputImage, Inputs};
use super::tuned::{TunedEngine, TuningArgs};
use super::{
    CommandError, CommandOutcome, OrUsage, RunArgs, print, print_json, print_stderr,
    print_warnings, progress,
};

/// Label images
///
/// Images keep their path below the input folder: IN/a/b.jpg becomes OUT/ids/a/b.png,
/// OUT/color/a/b.png and so on. EXIF orientation is applied; opacity and further
/// channels are left out with a warning, unless --channels says otherwise.
///
/// Images and folders that cannot be read are reported, also in OUT/.protoseg/failed.jsonl; the
/// others are labeled, and the exit status is 3 (see --accept-failed). The run stops at the first result that cannot be written,
/// unless the image's name is the cause. SIGTERM, SIGHUP and Ctrl-C stop it after the images in
/// flight, with status 143, 129 and 130. The same command with --resume continues any stopped run.
#[derive(Debug, clap::Args)]
pub(crate) struct LabelArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    tuning: TuningArgs,
    /// Images, folders or globs such as 'in/**/*.jpg'; - reads a list from standard input
    #[arg(required_unless_present = "lists")]
    inputs: Vec<PathBuf>,
    /// List of images: each line a path, or {"image": PATH, "name": PATH BELOW OUT}
    #[arg(long = "list", value_name = "FILE")]
    lists: Vec<PathBuf>,
    /// Folder that paths in lists are relative to [default: the list's folder]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Memory for the pixels and labels of one image, such as 800M: larger TIFF and PNG files are read
    /// and labeled by rows of windows [default: 1600M, that of 200 megapixels]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    image_memory: Option<u64>,
    /// Take hidden entries and by-products of other programs (@eaDir, Thumbs.db and the like) in
    /// folders and globs too
    #[arg(long)]
    hidden: bool,
    /// Output folder
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    out: PathBuf,
    /// Output formats, comma-separated
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["ids"], help_heading = "Output")]
    format: Vec<OutputFormat>,
    /// Least confidence of a pseudo-label, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = DEFAULT_MIN_CONFIDENCE, help_heading = "Output")]
    pseudo_confidence: f64,
    /// Keep the ending of images in the names of their results: a.jpg.png instead of a.png
    #[arg(long, help_heading = "Output")]
    keep_ending: bool,
    /// Paint the class `background` over images in overlays too
    #[arg(long, help_heading = "Output")]
    overlay_background: bool,
    #[command(flatten)]
    annotations: AnnotationArgs,
    /// Continue in a folder with results: label missing, changed and failed images
    #[arg(long, help_heading = "Resume and shards")]
    resume: bool,
    /// Detect changed images by SHA-256 instead of size and modification time
    #[arg(long, help_heading = "Resume and shards")]
    verify_inputs: bool,
    /// Label one shard of the images: i/n with i from 1 to n, or `auto`
    ///
    /// Images are assigned by a hash of their names. `auto` reads the scheduler's variables
    /// (Kubernetes indexed jobs, AWS Batch and Slurm arrays, torchrun). `protoseg merge` joins the
    /// shards.
    #[arg(long, value_name = "i/n|auto", help_heading = "Resume and shards")]
    shard: Option<String>,
    /// Number of shards with --shard auto, if the scheduler does not give it
    #[arg(long, value_name = "n", help_heading = "Resume and shards")]
    shards: Option<u64>,
    #[command(flatten)]
    accept_failed: AcceptFailedArgs,
    /// Print the summary as JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
}

pub(crate) fn run(arguments: &LabelArgs) -> Result<CommandOutcome, CommandError> {
    let signals = StopSignals::catch().or_usage()?;
    let shard = arguments.shard().or_usage()?;
    let Inputs { images: all, scan, .. } = arguments.inputs().or_usage()?;
    let input_set = InputSetDigest::from_names(all.iter().map(|input| input.name.as_path()));
    let inputs: Vec<InputImage> =
        all.into_iter().filter(|input| shard.contains(&input.name)).collect();
    let (mut pipeline, engine) = arguments.open(inputs.len()).or_usage()?;
    let formats = arguments.formats(&pipeline).or_usage()?;
    let recipe = arguments.recipe(&pipeline, &engine, &formats).or_usage()?;
    let run = RunHeader::new(recipe, shard, input_set, formats.combined_names().collect());
    let out_dir = OutputDir::open(&arguments.out, &formats, run, arguments.resume).or_usage()?;
    for warning in out_dir.warnings(&inputs, &formats) {
        print_stderr(format_args!("warning: {warning}"));
    }
    let classes = pipeline.segmenter().model().classes.clone();
    let record = ResultRecorder::new(&out_dir, &formats, classes.clone())?;
    let (todo, refused) = arguments.divide(&inputs, &out_dir);
    let mut failures = Failures::begin(refused, &inputs, &scan.unreadable, &record);
    let notes = NoteCollector::default();
    let reading = pipeline.segmenter().model().reading;
    let large = LargeImages::new(arguments, &formats, pipeline.segmenter());
    let open = |index: usize| {
        let input = &inputs[todo[index]];
        // Taken before reading, so that a concurrent write counts as a change.
        let by_content = arguments.verify_inputs;
        let fingerprint = fingerprint(&input.path, by_content, formats.needs_place())
            .with_context(|| input.path.display().to_string())?;
        let file = large.read(index, &input.path)?;
        let (notes, formats, pixels) = (&notes, &formats, file.pixels());
        let decode = move || {
            let NotedImage { image, notes: seen, place } = file.decode_as(reading)?;
            let place = formats.place(place, &seen, &input.path)?;
            notes.add(&input.path.display().to_string(), &seen);
            Ok(DecodedImage { image, extra: InputFacts { fingerprint, place } })
        };
        Ok(PendingImage { pixels, decode })
    };
    let bar = progress::bar(todo.len());
    // Images that were run, but whose names cannot be written below the output folder.
    let unwritable: Mutex<Vec<(usize, anyhow::Error)>> = Mutex::default();
    let encode = |index: usize, item: DecodedImage<InputFacts>, prediction: Prediction| {
        let input = &inputs[todo[index]];
        match record.write_results(input, item, prediction) {
            Err(error) if record::is_name_error(&error) => {
                let error = record::name_error(input, error);
                progress::show_error(&bar, &input.path, &error);
                record.record_failure(input, &error);
                unwritable.lock().unwrap_or_else(PoisonError::into_inner).push((index, error));
                Ok(())
            }
            written => written.map_err(|error| record.unwritten(input, error)),
        }
    };
    let observe = |event: PipelineEvent<'_, anyhow::Error>| {
        progress::show(&bar, &event, |index| inputs[todo[index]].path.clone());
        if let PipelineEvent::Failed(index, error) = event {
            record.record_failure(&inputs[todo[index]], error);
        }
    };
    let leave_out = |index: usize| large.keep(index, &inputs[todo[index]].path, &bar);
    let control = RunControl {
        outputs: formats.outputs(),
        stop: &signals.stop,
        leave_out: &leave_out,
        observe: &observe,
    };
    let mut report = pipeline.run(todo.len(), &control, open, encode);
    bar.finish_and_clear();
    let (engine, stop) = (&engine, &signals.stop);
    let setting = LargeSetting { engine, record: &record, notes: &notes, stop };
    let input = |index: usize| &inputs[todo[index]];
    let rows = large.run_after(&mut report, &mut pipeline, &setting, input);
    print_warnings(notes.warnings(todo.len()));
    if let Some(error) = report.stopped {
        return Err(error.into());
    }
    let rows = rows?;
    record.check()?;
    warn_of_results(&formats, &record, report.done + rows.labeled);
    let unwritable = unwritable.into_inner().unwrap_or_else(PoisonError::into_inner);
    let labeled = report.done - unwritable.len() + rows.labeled;
    for (index, error) in report.failed.into_iter().chain(unwritable).chain(rows.failed) {
        failures.add(todo[index], &inputs[todo[index]].path, &error);
    }
    let done = failures.without(&inputs);
    let kept = inputs.len() - todo.len() - failures.refused();
    let mut summary =
        LabelSummary::new(&pipeline, labeled, kept, failures.into_list(), &scan, shard);
    summary.set_times(report.elapsed, report.stages);
    summary.ids = formats.ids_note(&pipeline.segmenter().model().classes);
    if report.interrupted {
        summary.left = done.len() - labeled - kept;
    } else {
        let names: Vec<PathBuf> = done.iter().map(|input| input.name.clone()).collect();
        out_dir.verify(&names)?;
        if shard == Shard::ALL {
            arguments.finish(&formats, &names, &classes)?;
        }
    }
    arguments.print(&summary)?;
    let status = report.interrupted.then(|| signals.status());
    Ok(arguments.outcome(status, &summary, scan.unreadable.len()))
}

/// Warns where pseudo-labels were asked for and no pixel is sure enough, and where images tell no place
/// on Earth for `geotiff`.
fn warn_of_results(formats: &OutputFormats, record: &ResultRecorder<'_>, images: usize) {
    let least = formats.pseudo_confidence().filter(|_| images > 0 && !record.kept_any());
    if let Some(least) = least {
        print_stderr(format_args!(
            "warning: no pixel of {images} images reaches --pseudo-confidence {least}, so pseudo/ \
             holds no label; give a lower one, and see --format confidence"
        ));
    }
    if let Some(warning) = record.placeless_warning(images) {
        print_stderr(format_args!("warning: {warning}"));
    }
}

impl LabelArgs {
    /// The outcome of a run, which a signal with a status may have ended.
    fn outcome(
        &self,
        status: Option<u8>,
        summary: &LabelSummary,
        unreadable_folders: usize,
    ) -> CommandOutcome {
        status.map_or_else(
            || {
                self.accept_failed.outcome(InputCounts {
                    labeled: summary.labeled + summary.kept,
                    failed_images: summary.failed.len() - unreadable_folders,
                    unreadable_folders,
                })
            },
            CommandOutcome::ExitCode,
        )
    }

    fn print(&self, summary: &LabelSummary) -> anyhow::Result<()> {
        if self.json {
            return print_json(summary);
        }
        print(summary.human(&self.out))
    }

    /// Collects the images of the command line and refuses those that cannot have results.
    fn inputs(&self) -> anyhow::Result<Inputs> {
        let mut inputs =
            inputs::collect(&self.inputs, &self.lists, self.root.as_deref(), self.hidden)?;
        inputs::check_outputs(&mut inputs.images, &self.inputs, &self.out)?;
        inputs::print_passed_over(&inputs.scan);
        if inputs.repeated > 0 {
            print_stderr(format_args!(
                "note: {} of {} images are named again, and labeled once",
                inputs.repeated,
                inputs.repeated + inputs.images.len()
            ));
        }
        let names = ResultNames { keep_ending: self.keep_ending };
        let collisions =
            inputs::refuse_collisions(&mut inputs.images, |name| names.result_name(name));
        if let Some(line) = collisions {
            print_stderr(format_args!("warning: {line}"));
        }
        Ok(inputs)
    }

    /// Divides images into those to label and those that are refused; the rest is done.
    fn divide(&self, inputs: &[InputImage], out_dir: &OutputDir) -> (Vec<usize>, Vec<usize>) {
        let left =
            (0..inputs.len()).filter(|&index| !out_dir.is_done(&inputs[index], self.verify_inputs));
        left.partition(|&index| inputs[index].refusal.is_none())
    }

    /// Writes the files of all images.
    fn finish(
        &self,
        formats: &OutputFormats,
        names: &[PathBuf],
        classes: &ClassTable,
    ) -> anyhow::Result<()> {
        let notes = formats.finish(&self.out, names, self.run.max_pixels(), classes).context(
            "the images are labeled, but a combined file could not be written; if a result is \
             named here as broken, delete it and continue with --resume",
        )?;
        for note in notes {
            print_stderr(format_args!("note: {note}"));
        }
        Ok(())
    }

    fn shard(&self) -> anyhow::Result<Shard> {
        match self.shard.as_deref() {
            Some("auto") => {
                let (shard, source) =
                    Shard::from_scheduler(|name| std::env::var(name).ok(), self.shards)?;
                print_stderr(format_args!("shard {shard}, as {source} says"));
                Ok(shard)
            }
            _ if self.shards.is_some() => {
                Err(anyhow!("--shards needs --shard auto; without a scheduler write --shard i/n"))
            }
            Some(named) => Ok(named.parse()?),
            None => Ok(Shard::ALL),
        }
    }

    /// Opens the bundle with tuned or given options for a number of images.
    fn open(&self, images: usize) -> anyhow::Result<(Pipeline, EngineConfig)> {
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
        let opened = self.run.open_with(&engine, images);
        let pipeline = if used {
            opened.context("with tuned options; --tuning off ignores them")?
        } else {
            opened?
        };
        Ok((pipeline, engine))
    }

    fn formats(&self, pipeline: &Pipeline) -> anyhow::Result<OutputFormats> {
        let share = self.pseudo_confidence;
        ensure!(
            (0.0..=1.0).contains(&share),
            "--pseudo-confidence is {share}; write a share from 0 to 1"
        );
        let mut formats =
            OutputFormats::new(&self.format, share, pipeline.segmenter().lacks_confidence())?;
        formats.names.keep_ending = self.keep_ending;
        formats.overlay_background = self.overlay_background;
        formats.annotations = self.annotations.clone();
        formats.check(&pipeline.segmenter().model().classes)?;
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
