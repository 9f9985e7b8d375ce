//! `protoseg tune`: the fastest engine options for a model on this machine that keep its labels.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use protoseg_bench::load::Scenario;
use protoseg_bench::session::BenchSession;
use protoseg_bench::tuning::runner::{TuningError, TuningEvent, TuningRequest};
use protoseg_bench::tuning::search::{Candidate, CandidateOutcome, TuningDecision};
use protoseg_bench::tuning::{
    MachineId, Tuning, TuningEntry, TuningLimits, describe, model_id, tuning_path,
};
use protoseg_infer::check::LabeledImages;
use protoseg_infer::config::{Device, Devices};
use protoseg_infer::machine::cores;
use protoseg_infer::session;
use protoseg_models::bundle::Manifest;
use protoseg_models::variant::Precision;
use protoseg_models::window::Tiling;

use super::data::{DataArgs, ensure_same_classes};
use super::engine_args::precisions;
use super::image_args::ImageArgs;
use super::{CommandError, CommandOutcome, print, print_json, print_stderr};

/// Default clients per core, so that one waits while another is answered.
const CLIENTS_PER_CORE: usize = 2;

/// Default clients with GPUs.
const GPU_CLIENTS: usize = 8;

/// Find the fastest way to run a model on this machine
///
/// Tries the bundle's precisions, windows and whole images, sessions and threads, windows per run and the device's
/// switches, one stage after the other, each interleaved with the best so far. Candidates that do
/// not run or fit into memory, or whose labels do not agree with those of the fp32 file, are
/// dropped; with labeled images (--data) their score counts instead of agreement. The best is then
/// interleaved with the default, and kept where it is faster beyond doubt. The result is written to
/// tuning.json beside the model, with all figures; `protoseg label` and `protoseg serve` use it on
/// the same machine with the same ONNX Runtime and model. Results of --goal throughput, of the same
/// with --p99 and of --goal latency are kept side by side: `label` uses the first, else the second;
/// `serve` the second, else the third, else the first without its --mode, which was not measured
/// under requests. Exit status 1 means that nothing keeps to the limits.
#[derive(Debug, clap::Args)]
pub(crate) struct TuneArgs {
    /// Bundle folder, or an ONNX file that `protoseg export` wrote
    bundle: PathBuf,
    /// Devices to try, repeated for several: cpu, openvino, cuda:N, tensorrt:N [default: cpu]
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<Devices>,
    /// What is to be fast: many images, or one at a time
    #[arg(long, value_enum, default_value_t = Goal::Throughput)]
    goal: Goal,
    /// Precisions to try beside that of the bundle's first file [default: all of the bundle]
    #[arg(long, value_parser = precisions(), value_delimiter = ',', value_name = "PRECISION,…")]
    precision_candidates: Vec<Precision>,
    /// Least share of pixels with the right label: on the probe, and on the images with the label
    /// of the fp32 file in the bundle's own windows
    #[arg(long, value_name = "SHARE", default_value_t = 0.99)]
    least_agreement: f64,
    /// Largest 99th percentile of latency in milliseconds; throughput is then measured with
    /// concurrent clients
    #[arg(long, value_name = "MS")]
    p99: Option<f64>,
    /// Those clients [default: two per core, or 8 for GPUs]
    #[arg(long, value_name = "N", value_parser = super::parse_count, requires = "p99")]
    clients: Option<NonZeroUsize>,
    #[command(flatten)]
    images: ImageArgs,
    /// Points of mIoU that may be lost against the default, with --data
    ///
    /// The score on labeled images judges labels instead of their agreement on the images: whole
    /// images or other windows may give other labels, and better ones.
    #[arg(
        long,
        value_name = "POINTS",
        default_value_t = 0.2,
        requires = "data",
        help_heading = "Data"
    )]
    score_drop: f64,
    #[command(flatten)]
    data: DataArgs,
    /// Seconds for each candidate; the final comparison takes five times as many for either side
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    time: f64,
    /// Pairs of blocks of the final comparison
    #[arg(long, value_name = "N", default_value = "20", value_parser = super::parse_count)]
    pairs: NonZeroUsize,
    /// With TensorRT, keep engines here, as with the same option of `protoseg label`
    #[arg(long, value_name = "DIR")]
    trt_cache: Option<PathBuf>,
    /// Write the result here instead of beside the model; `--tuning FILE` uses it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print every candidate with its figures, and the reason of the choice; from the file, where
    /// it was measured before
    #[arg(long)]
    explain: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Goal {
    /// Most images per hour
    Throughput,
    /// Lowest latency of single images
    Latency,
}

pub(crate) fn run(arguments: &TuneArgs) -> Result<CommandOutcome, CommandError> {
    arguments.check().map_err(CommandError::Usage)?;
    session::load_runtime().map_err(CommandError::usage)?;
    let bundle = &arguments.bundle;
    let path = arguments.out.clone().unwrap_or_else(|| tuning_path(bundle));
    let known = read(&path).map_err(CommandError::Usage)?;
    let machine = MachineId::now();
    let model = model_id(bundle).map_err(CommandError::usage)?;
    let request = arguments.request();
    let earlier =
        known.find(&machine, &model, request.scenario).filter(|_| arguments.explain).cloned();
    let entry = match earlier {
        Some(entry) => entry,
        None => {
            check_writable(&path).map_err(CommandError::Usage)?;
            let images = arguments.images.open(Some(bundle)).map_err(CommandError::Usage)?;
            let mut session = BenchSession::new(images).map_err(CommandError::Usage)?;
            session.labeled = arguments.labeled().map_err(CommandError::Usage)?;
            let measured = request.run(session, machine, model, &show_progress);
            let entry = measured.map_err(|error| match error {
                TuningError::Failed(error) => CommandError::Runtime(error),
                TuningError::Unusable(error) => CommandError::Usage(error),
                TuningError::Default { .. } => CommandError::usage(error),
            })?;
            // Read again, as another machine may have written meanwhile.
            let mut tuning = read(&path)?;
            tuning.put(entry.clone());
            tuning.write(&path).map_err(anyhow::Error::from)?;
            entry
        }
    };
    if arguments.json {
        print_json(&entry)?;
    } else {
        if arguments.explain {
            candidate_lines(&entry).into_iter().try_for_each(print)?;
        }
        result_lines(&entry, &path).into_iter().try_for_each(print)?;
    }
    Ok(if entry.decision == TuningDecision::NothingFits {
        CommandOutcome::Failed
    } else {
        CommandOutcome::Success
    })
}

/// Reads the entries of a file; none where it does not exist.
fn read(path: &Path) -> anyhow::Result<Tuning> {
    ensure!(!path.is_dir(), "{} is a folder; name a file with --out FILE", path.display());
    let tuning = Tuning::read(path).with_context(|| {
        format!(
            "{} has other content, which would be lost; name another file with --out FILE",
            path.display()
        )
    });
    Ok(tuning?.unwrap_or_else(Tuning::empty))
}

/// Fails before the measurement where the result could not be written.
fn check_writable(path: &Path) -> anyhow::Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let trial = folder.join(".tuning.trial");
    File::create(&trial).and_then(|_| std::fs::remove_file(&trial)).with_context(|| {
        format!(
            "{} cannot be written; name another file with --out FILE, and use it with --tuning FILE",
            path.display()
        )
    })
}

impl TuneArgs {
    fn check(&self) -> anyhow::Result<()> {
        let Self { least_agreement, time, .. } = *self;
        ensure!(
            (0.0..=1.0).contains(&least_agreement),
            "--least-agreement is a share from 0 to 1, not {least_agreement}"
        );
        ensure!(
            (0.01..=3600.0).contains(&time),
            "--time: {time} s is not between 0.01 s and an hour"
        );
        ensure!(
            (0.0..=100.0).contains(&self.score_drop),
            "--score-drop is a number of points from 0 to 100, not {}",
            self.score_drop
        );
        ensure!(
            self.data.data.is_some() || !self.data.is_narrowed(),
            "--root, --split, --list, --limit, --seed and --size select labeled images; name their kind with --data"
        );
        if let Some(p99) = self.p99 {
            ensure!(p99 > 0.0 && p99.is_finite(), "--p99: {p99} is not a number above zero");
        }
        ensure!(
            self.bundle.exists(),
            "{} does not exist; name a bundle folder, or an ONNX file",
            self.bundle.display()
        );
        Ok(())
    }

    /// Opens the labeled images and checks that their classes are the model's; `None` without
    /// --data.
    fn labeled(&self) -> anyhow::Result<Option<LabeledImages>> {
        if self.data.data.is_none() {
            return Ok(None);
        }
        let set = self.data.open()?;
        if self.bundle.is_dir() {
            let model = Manifest::read(&self.bundle)?.value.model;
            ensure_same_classes(&model, &set)?;
        }
        ensure!(set.count() > 0, "no image in {}", self.data.describe());
        Ok(Some(LabeledImages { set, name: self.data.describe() }))
    }

    fn request(&self) -> TuningRequest {
        let mut devices: Vec<Device> = Vec::new();
        for device in self.devices.iter().flat_map(Devices::all) {
            if !devices.contains(device) {
                devices.push(*device);
            }
        }
        if devices.is_empty() {
            devices.push(Device::Cpu);
        }
        let has_gpu = devices.iter().any(|device| device.is_gpu());
        let clients = self.clients.map_or_else(
            || if has_gpu { GPU_CLIENTS } else { CLIENTS_PER_CORE * cores() },
            NonZeroUsize::get,
        );
        let scenario = match (self.goal, self.p99) {
            (Goal::Latency, _) => Scenario::SingleStream,
            (Goal::Throughput, None) => Scenario::Offline,
            (Goal::Throughput, Some(_)) => Scenario::Clients { clients },
        };
        TuningRequest {
            model: self.bundle.clone(),
            devices,
            scenario,
            limits: TuningLimits {
                least_agreement: self.least_agreement,
                p99_ms: self.p99,
                least_score: None,
            },
            score_drop: self.score_drop,
            precisions: self.precision_candidates.clone(),
            time: Duration::from_secs_f64(self.time),
            pairs: self.pairs.get(),
            trt_cache: self.trt_cache.clone(),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature of an observer")]
fn show_progress(event: TuningEvent<'_>) {
    match event {
        TuningEvent::Candidate(candidate) => print_stderr(format_args!(
            "{}: {}: {}",
            candidate.stage,
            describe(&candidate.choice),
            outcome(candidate)
        )),
        TuningEvent::FinalComparison(best) => {
            print_stderr(format_args!("interleaved with the default: {}", describe(best)));
        }
    }
}

fn outcome(candidate: &Candidate) -> String {
    let ratio = candidate
        .ratio
        .map_or_else(String::new, |ratio| format!(", {:+.1} % of time", 100.0 * (ratio - 1.0)));
    match &candidate.outcome {
        CandidateOutcome::First => "start of the search".to_owned(),
        CandidateOutcome::Incumbent => format!("best so far{ratio}"),
        CandidateOutcome::NotFaster => format!("not faster{ratio}"),
        CandidateOutcome::Dropped { why } => format!("dropped: {why}"),
    }
}

/// The table of candidates.
fn candidate_lines(entry: &TuningEntry) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let number = |number: Option<f64>| or_dash(number.map(|number| format!("{number:.3}")));
    let percent =
        |share: Option<f64>| or_dash(share.map(|share| format!("{:.3} %", 100.0 * share)));
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.add_row([
        "stage",
        "ms",
        "best ms",
        "p99 ms",
        "probe",
        "images",
        "mIoU",
        "options: outcome",
    ]);
    for candidate in &entry.candidates {
        table.add_row([
            candidate.stage.clone(),
            number(candidate.ms),
            number(candidate.incumbent_ms),
            number(candidate.p99_ms),
            percent(candidate.agreement.and_then(|agreement| agreement.probe)),
            percent(candidate.agreement.map(|agreement| agreement.images)),
            or_dash(score_of(candidate).map(|score| format!("{score:.2}"))),
            format!("{}: {}", describe(&candidate.choice), outcome(candidate)),
        ]);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((if index == 0 { 0 } else { 2 }, 0));
        if (1..7).contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.push(
        "ms: medians of blocks. % of time: median ratio of interleaved blocks, which is more reliable on a machine that drifts."
            .to_owned(),
    );
    lines.push(String::new());
    lines
}

fn score_of(candidate: &Candidate) -> Option<f64> {
    candidate.agreement?.score
}

/// Says what whole images cost and gain against the bundle's windows; `None` where they were not
/// tried.
fn whole_images(entry: &TuningEntry) -> Option<String> {
    let whole =
        entry.candidates.iter().find(|candidate| candidate.choice.window == Some(Tiling::Whole))?;
    let mut parts = Vec::new();
    if let Some(ratio) = whole.ratio {
        parts.push(format!("{ratio:.2} times the time of windows"));
    }
    if let Some(agreement) = whole.agreement {
        parts.push(format!("{:.2} % of labels as in windows", 100.0 * agreement.images));
    }
    let windows = entry.candidates.first().and_then(score_of);
    if let Some((whole, windows)) = score_of(whole).zip(windows) {
        parts.push(format!("mIoU {whole:.2} %, in windows {windows:.2} %"));
    }
    if let CandidateOutcome::Dropped { why } = &whole.outcome {
        let way = if whole.agreement.is_some() && windows.is_none() {
            "; with --data their score decides"
        } else {
            ""
        };
        parts.push(format!("dropped: {why}{way}"));
    }
    Some(parts.join(", "))
}

/// The choice with its reason.
fn result_lines(entry: &TuningEntry, path: &Path) -> Vec<String> {
    let mut rows = vec![
        ("choice", describe(&entry.choice)),
        ("because", entry.decision.sentence().to_owned()),
    ];
    if let Some(speedup) = entry.speedup() {
        rows.push(("speed", format!("{speedup:.2} times the default")));
    }
    if let Some(comparison) = &entry.comparison {
        rows.push(("compared", comparison.to_string()));
    }
    if let Some(whole) = whole_images(entry) {
        rows.push(("whole", whole));
    }
    let score = entry.limits.least_score;
    let score = score.map_or_else(String::new, |least| format!(", mIoU at least {least:.2} %"));
    let p99 = entry.limits.p99_ms;
    let p99 = p99.map_or_else(String::new, |p99| format!(", 99th percentile at most {p99} ms"));
    let agreement = 100.0 * entry.limits.least_agreement;
    rows.push(("limits", format!("{agreement} % of labels agree{score}{p99}")));
    let images = &entry.images;
    let size = format!("{}x{} ({})", images.height, images.width, images.source);
    rows.push((
        "measured",
        format!("{}, {}, {} images of {size}", entry.date(), entry.scenario, images.count),
    ));
    rows.push(("machine", entry.machine.to_string()));
    rows.push(("file", path.display().to_string()));
    rows.into_iter().map(|(name, text)| format!("{name:<11}{text}")).collect()
}
