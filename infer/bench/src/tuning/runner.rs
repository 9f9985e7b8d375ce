//! Runs `protoseg tune`: checks the labels of candidates, and measures them against the incumbent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use protoseg_infer::config::{Device, ExecutionMode};
use protoseg_infer::machine::{Memory, cores, peak_resident, reset_peak, resident};
use protoseg_infer::pipeline::Pipeline;
use protoseg_infer::upsample::into_vec;
use protoseg_infer::{EngineConfig, Outputs, Segmenter, check};
use protoseg_models::bundle::Manifest;
use protoseg_models::errors::error_chain;
use protoseg_models::variant::{ModelKind, Precision};
use protoseg_models::window::Tiling;

use super::search::{Candidate, CandidateRunner, DuelResult, search};
use super::space::SearchSpace;
use super::{LabelAgreement, MachineId, TuningEntry, TuningLimits, describe};
use crate::ab::{AbComparison, Side};
use crate::images::{BenchImage, BenchImages};
use crate::load::{Scenario, StopAfter};
use crate::measure::{Measurement, WarmUpPolicy};
use crate::report::ScenarioResult;
use crate::session::{BenchSession, TargetLocation, TargetSpec};
use crate::stability::StabilityRule;

/// Pairs of blocks of a candidate and the incumbent.
const PAIRS: usize = 8;

/// Time of the final comparison relative to that of a candidate.
const FINAL: u32 = 5;

/// Images of an offline block per session: sessions wait for the last image, which with four or
/// more costs a fifth of the time at most.
const IMAGES_PER_SESSION: usize = 4;

/// What is tuned, and how long it is measured.
#[derive(Debug)]
pub struct TuningRequest {
    /// Bundle folder or ONNX file.
    pub model: PathBuf,
    /// The first one's default is the baseline.
    pub devices: Vec<Device>,
    pub scenario: Scenario,
    pub limits: TuningLimits,
    /// Points of mean IoU that may be lost against the default, where there are labeled images.
    pub score_drop: f64,
    /// Precisions to try beside that of the bundle's first file; all where empty.
    pub precisions: Vec<Precision>,
    /// For each candidate.
    pub time: Duration,
    /// Pairs of blocks of the final comparison.
    pub pairs: usize,
    pub trt_cache: Option<PathBuf>,
}

/// Progress of a tuning.
#[derive(Debug)]
pub enum TuningEvent<'a> {
    Candidate(&'a Candidate),
    /// The final comparison of the default with this choice begins.
    FinalComparison(&'a EngineConfig),
}

/// A tuning without a result.
#[derive(Debug, thiserror::Error)]
pub enum TuningError {
    /// Model or images cannot be used.
    #[error(transparent)]
    Unusable(anyhow::Error),
    #[error("{model} does not run with its defaults: {why}")]
    Default { model: String, why: String },
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl TuningRequest {
    /// Searches, and compares the best with the default.
    pub fn run(
        &self,
        session: BenchSession,
        machine: MachineId,
        model: String,
        observe: &dyn Fn(TuningEvent<'_>),
    ) -> Result<TuningEntry, TuningError> {
        let measured = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut runner = TuningRunner::new(self, session).map_err(TuningError::Unusable)?;
        let limits = runner.limits();
        let space = runner.space();
        let plans: Vec<_> = self.devices.iter().map(|&device| space.plan(device)).collect();
        let mut observe_candidate = |candidate: &Candidate| {
            observe(TuningEvent::Candidate(candidate));
        };
        let found = search(&plans, space.window, limits, &mut runner, &mut observe_candidate)
            .map_err(|why| TuningError::Default { model: self.model.display().to_string(), why })?;
        let default = found.default_choice();
        let (decision, comparison) = match found.decide_early() {
            Some(decision) => (decision, None),
            None => {
                observe(TuningEvent::FinalComparison(&found.best));
                let ([of_default, of_best], comparison) =
                    runner.interleaved([&default, &found.best], self.time * FINAL, self.pairs)?;
                let p99_ms = [p99_ms(&of_default), p99_ms(&of_best)];
                (found.decide(limits, &comparison, p99_ms), Some(comparison))
            }
        };
        Ok(TuningEntry {
            machine,
            model,
            scenario: self.scenario,
            limits,
            images: runner.session.images.summary(),
            program: format!("protoseg {}", env!("CARGO_PKG_VERSION")),
            measured,
            choice: if decision.is_change() { found.best } else { default },
            decision,
            comparison,
            candidates: found.candidates,
        })
    }
}

struct TuningRunner<'a> {
    request: &'a TuningRequest,
    session: BenchSession,
    /// The model with its defaults.
    default: Segmenter,
    /// Precisions of the bundle's files for windows or whole images; empty for a single file.
    precisions: Vec<Precision>,
    /// Reference labels of each image.
    labels: Vec<Vec<u8>>,
    /// Mean IoU of the reference, in percent.
    score: Option<f64>,
    /// Bytes that whole images take beside the model, about; `None` where images are run whole.
    whole_bytes: Option<u64>,
    /// Agreement by the options that change labels.
    known: BTreeMap<BTreeMap<&'static str, String>, Result<LabelAgreement, String>>,
}

impl<'a> TuningRunner<'a> {
    /// Labels the images with the fp32 file in the bundle's own windows.
    fn new(request: &'a TuningRequest, session: BenchSession) -> anyhow::Result<Self> {
        let model = &request.model;
        let files = if model.is_dir() { Manifest::read(model)?.value.files } else { Vec::new() };
        let precisions: Vec<Precision> = files
            .iter()
            .filter(|file| file.variant.kind != ModelKind::Frame)
            .map(|file| file.variant.precision)
            .collect();
        let mut default = Segmenter::open(model)?;
        let whole_bytes = whole_bytes(&mut default, &session.images)?;
        let precision = Some(Precision::Fp32).filter(|fp32| precisions.contains(fp32));
        let config = EngineConfig { precision, ..EngineConfig::default() };
        let mut reference = Segmenter::open_with(model, &config)?;
        let mut labels = Vec::new();
        for image in session.images.all() {
            labels.push(into_vec(reference.predict(&*image.image, Outputs::default())?.labels));
        }
        let score = session.mean_iou(model, &config)?;
        let known = BTreeMap::new();
        Ok(Self { request, session, default, precisions, labels, score, whole_bytes, known })
    }

    /// The limits with that of the score, which follows from the reference's.
    fn limits(&self) -> TuningLimits {
        let least_score = self.score.map(|score| score - self.request.score_drop);
        TuningLimits { least_score, ..self.request.limits }
    }

    /// Refuses whole images that do not fit into memory.
    fn ensure_fits(&self, choice: &EngineConfig) -> anyhow::Result<()> {
        let needed = self.whole_bytes.filter(|_| choice.window == Some(Tiling::Whole));
        let (Some(needed), Some(available)) = (needed, Memory::now().available) else {
            return Ok(());
        };
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        ensure!(
            choice.is_gpu() || needed <= available,
            "whole images take about {:.1} GB each, and {:.1} GB are free",
            gigabytes(needed),
            gigabytes(available)
        );
        Ok(())
    }

    fn space(&self) -> SearchSpace {
        let wanted = &self.request.precisions;
        let mut precisions = Vec::new();
        for &precision in &self.precisions {
            let is_wanted = wanted.is_empty() || wanted.contains(&precision);
            let is_default = Some(precision) == self.default.precision();
            if is_wanted && !is_default && !precisions.contains(&precision) {
                precisions.push(precision);
            }
        }
        SearchSpace {
            precisions,
            window: self.default.window(),
            grid: self.default.model().grid,
            cores: cores(),
            default_mode: self.default_mode(),
            concurrent: self.request.scenario != Scenario::SingleStream,
        }
    }

    /// `label` uses a session per core for many images; `serve`, and `label` for one image, use all
    /// cores for each image.
    fn default_mode(&self) -> ExecutionMode {
        if self.request.scenario == Scenario::Offline {
            ExecutionMode::Throughput
        } else {
            ExecutionMode::Latency
        }
    }

    /// A choice with what is the same for all candidates.
    fn config(&self, choice: &EngineConfig) -> EngineConfig {
        let mut config = choice.clone();
        if config.devices().iter().all(|device| matches!(device, Device::TensorRt(_))) {
            config.trt_cache.clone_from(&self.request.trt_cache);
        }
        if !config.is_gpu() {
            config.mode = config.mode.or(Some(self.default_mode()));
        }
        config
    }

    fn interleaved(
        &self,
        choices: [&EngineConfig; 2],
        time: Duration,
        pairs: usize,
    ) -> anyhow::Result<([ScenarioResult; 2], AbComparison)> {
        let scenario = self.request.scenario;
        let open = |choice: &EngineConfig| {
            let is_default = *choice == EngineConfig::default();
            let name = if is_default { "the default".to_owned() } else { describe(choice) };
            let location = TargetLocation::InProcess(
                self.request.model.clone(),
                Box::new(self.config(choice)),
            );
            let target = self.session.open(&TargetSpec { name: name.clone(), location }, scenario);
            anyhow::Ok((name, target?))
        };
        let (name_a, a) = open(choices[0])?;
        let (name_b, b) = open(choices[1])?;
        let least = match scenario {
            Scenario::Offline => {
                let sessions =
                    [&a, &b].into_iter().filter_map(super::super::session::OpenTarget::setup);
                IMAGES_PER_SESSION * sessions.map(|[sessions, _]| sessions).max().unwrap_or(1)
            }
            Scenario::Clients { clients } => clients,
            _ => 1,
        };
        // Three windows, stable or not: all candidates get the same, and interleaved blocks cancel
        // drift.
        let window = (time.as_secs_f64() / 10.0).clamp(0.01, 0.5);
        let rule = StabilityRule { seconds: window, queries: 1, trials: 3 };
        let measurement = Measurement {
            scenario,
            warm_up: WarmUpPolicy::Stable(rule),
            until: StopAfter::Time(time, least * pairs),
            seed: 0,
            pixels: self.session.images.mean_pixels(),
        };
        let sides = [(name_a.as_str(), &a), (name_b.as_str(), &b)];
        let (results, comparison) = self.session.interleaved(&measurement, sides, pairs)?;
        for (result, name) in results.iter().zip([&name_a, &name_b]) {
            let why = result.first_error.as_deref().unwrap_or_default();
            ensure!(result.failed == 0, "{name} did not answer: {why}");
        }
        Ok((results, comparison))
    }

    fn check_labels(&self, choice: &EngineConfig) -> anyhow::Result<LabelAgreement> {
        let model = &self.request.model;
        self.ensure_fits(choice)?;
        let mut config = self.config(choice);
        if !config.is_gpu() {
            config.mode = Some(ExecutionMode::Latency);
        }
        let (mut segmenters, _) = Pipeline::open(model, &config, Some(1))?.into_segmenters();
        let segmenter = segmenters.first_mut().context("no session was opened")?;
        let mut equal = 0;
        let mut pixels = 0;
        for (image, expected) in self.session.images.all().iter().zip(&self.labels) {
            let labels = into_vec(segmenter.predict(&*image.image, Outputs::default())?.labels);
            equal += labels.iter().zip(expected).filter(|(found, label)| found == label).count();
            pixels += expected.len();
        }
        // Imported models may have no probe.
        let has_probe = model.is_dir() && Manifest::read(model)?.value.probe_sha256.is_some();
        let probe = if has_probe {
            let (width, height) = self.session.images.get(0).image.dimensions();
            let size = [height as usize, width as usize];
            let file = segmenter.file_name_for(size, Outputs::default());
            Some(check::probe_agreement(model, file, &config)?.0)
        } else {
            None
        };
        let images = equal as f64 / pixels.max(1) as f64;
        Ok(LabelAgreement { probe, images, score: self.session.mean_iou(model, &config)? })
    }
}

/// Estimates the memory of whole images, in bytes, by that of windows: activations grow with the
/// pixels that are run at once. `None` where images are run whole, or the system does not tell.
fn whole_bytes(default: &mut Segmenter, images: &BenchImages) -> anyhow::Result<Option<u64>> {
    let Some([down, right]) = default.windows() else { return Ok(None) };
    let pixels =
        |image: &BenchImage| u64::from(image.image.width()) * u64::from(image.image.height());
    let tile = (down.size * right.size) as u64;
    let Some(largest) = images.all().iter().max_by_key(|image| pixels(image)) else {
        return Ok(None);
    };
    if pixels(largest) <= tile || !reset_peak() {
        return Ok(None);
    }
    let before = resident();
    default.predict(&*largest.image, Outputs::default())?;
    let grown = before.zip(peak_resident()).map(|(before, peak)| peak.saturating_sub(before));
    Ok(grown.map(|grown| (grown as f64 / tile as f64 * pixels(largest) as f64) as u64))
}

/// The options that change labels; all others change only time and memory.
fn arithmetic_options(choice: &EngineConfig) -> EngineConfig {
    EngineConfig {
        precision: choice.precision,
        window: choice.window,
        device: choice.device.clone(),
        tf32: choice.tf32,
        trt_fp16: choice.trt_fp16,
        ..EngineConfig::default()
    }
}

impl CandidateRunner for TuningRunner<'_> {
    fn agreement(&mut self, choice: &EngineConfig) -> Result<LabelAgreement, String> {
        let arithmetic = arithmetic_options(choice);
        let key = arithmetic.options();
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let found = self.check_labels(&arithmetic).map_err(|error| error_chain(error.as_ref()));
        self.known.insert(key, found.clone());
        found
    }

    fn duel(
        &mut self,
        incumbent: &EngineConfig,
        candidate: &EngineConfig,
    ) -> Result<DuelResult, String> {
        let measured = self.interleaved([incumbent, candidate], self.request.time, PAIRS);
        let ([a, b], comparison) = measured.map_err(|error| error_chain(error.as_ref()))?;
        let (pairs, _) = comparison.blocks.as_chunks::<2>();
        let won = pairs
            .iter()
            .filter(|[one, other]| (one.ms < other.ms) == (one.side == Side::B))
            .count();
        Ok(DuelResult {
            ratio: comparison.ratio.ratio,
            won: [won, pairs.len()],
            ms: [median_ms(&a), median_ms(&b)],
            p99_ms: [p99_ms(&a), p99_ms(&b)],
        })
    }
}

/// Median milliseconds of a query; offline of an image.
fn median_ms(result: &ScenarioResult) -> f64 {
    result.percentile(50.0).map_or(1e3 / result.images_per_second, |percentile| percentile.ms)
}

/// The bound of 99 % confidence of the 99th percentile, which takes 459 samples or more; of fewer
/// the percentile itself, and of fewer than 100 the largest sample.
fn p99_ms(result: &ScenarioResult) -> Option<f64> {
    let percentile = result.percentile(99.0)?;
    Some(percentile.bound_ms.unwrap_or(percentile.ms))
}
