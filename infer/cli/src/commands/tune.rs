//! `protoseg tune`: the fastest way to run a model on this machine that still gives right labels.

mod examine;
mod shown;

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, ensure};
use clap::ValueEnum;
use protoseg_bench::load::Scenario;
use protoseg_bench::tuning::limits::TuningLimits;
use protoseg_bench::tuning::machine::{MachineId, model_id};
use protoseg_bench::tuning::search::{Candidate, TuningDecision, search};
use protoseg_bench::tuning::{Tuning, TuningEntry, tuning_path};
use protoseg_infer::config::{Device, Devices};
use protoseg_infer::machine::cores;
use protoseg_infer::session;
use protoseg_models::variant::Precision;

use super::engine_args::precisions;
use super::image_args::ImageArgs;
use super::{CommandError, CommandOutcome, print, print_json, print_stderr};

use self::examine::TuningRunner;

/// Find the fastest way to run a model on this machine
///
/// Tries the bundle's number formats, windows, sessions and threads, windows at once and the device's switches, one after the
/// other, each in turns with the best so far; what does not run, or whose labels do not agree with those of the 32-bit file, is
/// never chosen. The best is then measured in turns with the default, and kept where it is faster beyond doubt. The answer is
/// written to tuning.json beside the model, with all figures; `protoseg label` and `protoseg serve` go by it on the same
/// machine with the same ONNX Runtime and model. Answers of --goal throughput, of the same with --p99 and of --goal latency lie
/// side by side: `label` takes the first, else the second; `serve` the second, else the third, else the first but for its
/// --mode, which nobody measured under requests. Exit status 1 says that nothing keeps to the limits.
#[derive(Debug, clap::Args)]
pub(crate) struct TuneArgs {
    /// Bundle folder, or an ONNX file that `protoseg export` wrote
    bundle: PathBuf,
    /// What may compute, repeated for several: cpu, openvino, cuda:N, tensorrt:N [default: cpu]
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<Devices>,
    /// What is to be fast: many pictures, or one at a time
    #[arg(long, value_enum, default_value_t = Goal::Throughput)]
    goal: Goal,
    /// Number formats to try beside that of the bundle's first file [default: all that it has]
    #[arg(long, value_parser = precisions(), value_delimiter = ',', value_name = "FORMAT,…")]
    precision_candidates: Vec<Precision>,
    /// Least share of pixels with the right label: of the probe, and of the pictures with that of the 32-bit file in the
    /// bundle's own windows
    #[arg(long, value_name = "SHARE", default_value_t = 0.99)]
    least_agreement: f64,
    /// Milliseconds that 99 of 100 answers may take; throughput is then measured with several clients who ask in turns
    #[arg(long, value_name = "MS")]
    p99: Option<f64>,
    /// Those clients [default: two for each core, or 8 for GPUs]
    #[arg(long, value_name = "N", value_parser = super::parse_count, requires = "p99")]
    clients: Option<NonZeroUsize>,
    #[command(flatten)]
    pictures: ImageArgs,
    /// Seconds for which each candidate is measured; the last comparison takes five times as many for either
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    time: f64,
    /// Pairs of blocks of the last comparison
    #[arg(long, value_name = "N", default_value = "20", value_parser = super::parse_count)]
    pairs: NonZeroUsize,
    /// With TensorRT, keep engines here, as the option of that name of `protoseg label`
    #[arg(long, value_name = "DIR")]
    trt_cache: Option<PathBuf>,
    /// Write the answer here instead of beside the model; `--tuning FILE` uses it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print every candidate with its figures, and why the choice was made; from the file, where it was measured before
    #[arg(long)]
    explain: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// What is to be fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Goal {
    /// Most pictures in an hour
    Throughput,
    /// Soonest answer for a single picture
    Latency,
}

/// Clients for each core, so that one waits while one is answered.
const CLIENTS_A_CORE: usize = 2;

/// Clients where GPUs compute.
const CLIENTS_OF_GPUS: usize = 8;

pub(crate) fn run(arguments: &TuneArgs) -> Result<CommandOutcome, CommandError> {
    arguments.check().map_err(CommandError::Usage)?;
    session::load_runtime().map_err(CommandError::usage)?;
    let bundle = &arguments.bundle;
    ensure_there(bundle).map_err(CommandError::Usage)?;
    let place = arguments.out.clone().unwrap_or_else(|| tuning_path(bundle));
    let known = read(&place).map_err(CommandError::Usage)?;
    let (machine, model) = (MachineId::now(), model_id(bundle).map_err(CommandError::usage)?);
    let scenario = arguments.scenario();
    let earlier = known.found(&machine, &model, scenario).filter(|_| arguments.explain);
    let entry = match earlier {
        Some(entry) => entry.clone(),
        None => {
            check_writable(&place).map_err(CommandError::Usage)?;
            let entry = arguments.measure(machine, model)?;
            // Read again, as another machine may have written to it meanwhile.
            let mut tuning = read(&place)?;
            tuning.put(entry.clone());
            tuning.write(&place).map_err(anyhow::Error::from)?;
            entry
        }
    };
    if arguments.json {
        print_json(&entry)?;
    } else {
        if arguments.explain {
            shown::candidates(&entry).into_iter().try_for_each(print)?;
        }
        shown::answer(&entry, &place).into_iter().try_for_each(print)?;
    }
    Ok(if entry.decision == TuningDecision::NothingFits {
        CommandOutcome::Failed
    } else {
        CommandOutcome::Success
    })
}

fn ensure_there(bundle: &Path) -> anyhow::Result<()> {
    ensure!(
        bundle.exists(),
        "{} does not exist; name a bundle folder, or an ONNX file",
        bundle.display()
    );
    Ok(())
}

/// What was found before, of other machines too.
fn read(place: &Path) -> anyhow::Result<Tuning> {
    ensure!(!place.is_dir(), "{} is a folder; name a file with --out FILE", place.display());
    let read = Tuning::read(place).with_context(|| {
        format!(
            "{} holds something else, which would be lost; name another with --out FILE",
            place.display()
        )
    });
    Ok(read?.unwrap_or_else(Tuning::empty))
}

/// Fails before anything is measured where the answer could not be written.
fn check_writable(place: &Path) -> anyhow::Result<()> {
    let folder =
        place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let trial = folder.join(".tuning.trial");
    let way_out = || {
        let place = place.display();
        format!(
            "{place} cannot be written; name another file with --out FILE, and use it with --tuning FILE"
        )
    };
    File::create(&trial).and_then(|_| std::fs::remove_file(&trial)).with_context(way_out)
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
            "--time: {time} s is no time from 0.01 s to an hour"
        );
        if let Some(p99) = self.p99 {
            ensure!(p99 > 0.0 && p99.is_finite(), "--p99 {p99} is no number above zero");
        }
        Ok(())
    }

    fn devices(&self) -> Vec<Device> {
        let mut all: Vec<Device> = Vec::new();
        for device in self.devices.iter().flat_map(Devices::all) {
            if !all.contains(device) {
                all.push(*device);
            }
        }
        if all.is_empty() { vec![Device::Cpu] } else { all }
    }

    /// How the model is asked.
    fn scenario(&self) -> Scenario {
        let usual = if self.devices().iter().any(|device| device.is_gpu()) {
            CLIENTS_OF_GPUS
        } else {
            CLIENTS_A_CORE * cores()
        };
        match (self.goal, self.p99) {
            (Goal::Latency, _) => Scenario::SingleStream,
            (Goal::Throughput, None) => Scenario::Offline,
            (Goal::Throughput, Some(_)) => {
                Scenario::Clients { clients: self.clients.map_or(usual, NonZeroUsize::get) }
            }
        }
    }

    fn limits(&self) -> TuningLimits {
        TuningLimits { least_agreement: self.least_agreement, p99_ms: self.p99 }
    }

    /// Searches, and holds what was found against the default.
    fn measure(&self, machine: MachineId, model: String) -> Result<TuningEntry, CommandError> {
        let measured = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut bench = TuningRunner::new(self).map_err(CommandError::Usage)?;
        let space = bench.space(&self.precision_candidates);
        let plans: Vec<_> = self.devices().into_iter().map(|device| space.plan(device)).collect();
        let limits = self.limits();
        let mut observe = |candidate: &Candidate| print_stderr(shown::progress(candidate));
        let found =
            search(&plans, space.window, limits, &mut bench, &mut observe).map_err(|why| {
                CommandError::Usage(anyhow!(
                    "{} does not run as it comes: {why}",
                    self.bundle.display()
                ))
            })?;
        let (decision, comparison) = match found.decide_early() {
            Some(decision) => (decision, None),
            None => {
                let default = found.default_choice();
                print_stderr(format_args!(
                    "in turns with the default: {}",
                    protoseg_bench::tuning::describe(&found.best)
                ));
                let (against, p99_ms) = bench.compare(&default, &found.best)?;
                (found.decide(limits, &against, p99_ms), Some(against))
            }
        };
        let choice = if decision.is_change() { found.best.clone() } else { found.default_choice() };
        Ok(TuningEntry {
            machine,
            model,
            scenario: self.scenario(),
            limits,
            pictures: bench.pictures(),
            program: format!("protoseg {}", env!("CARGO_PKG_VERSION")),
            measured,
            choice,
            decision,
            comparison,
            candidates: found.candidates,
        })
    }
}
