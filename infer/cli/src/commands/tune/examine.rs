//! Finds out about candidates: whether their labels agree, and how long they take.

use std::time::Duration;

use anyhow::{Context, ensure};
use image::RgbImage;
use protoseg_bench::ab;
use protoseg_bench::ab::{AbComparison, Side};
use protoseg_bench::images::BenchImages;
use protoseg_bench::in_process::{InProcessTarget, OpenOptions};
use protoseg_bench::load::Scenario;
use protoseg_bench::load::StopAfter;
use protoseg_bench::measure::{Measurement, WarmUpPolicy};
use protoseg_bench::report::{ImageSummary, ScenarioResult};
use protoseg_bench::stability::StabilityRule;
use protoseg_bench::tuning::describe;
use protoseg_bench::tuning::limits::LabelAgreement;
use protoseg_bench::tuning::search::{CandidateRunner, DuelResult};
use protoseg_bench::tuning::space::SearchSpace;
use protoseg_infer::config::{Device, ExecutionMode};
use protoseg_infer::machine::cores;
use protoseg_infer::pipeline::Pipeline;
use protoseg_infer::upsample::into_vec;
use protoseg_infer::{EngineConfig, Outputs, Segmenter};
use protoseg_models::bundle::Manifest;
use protoseg_models::errors::error_chain;
use protoseg_models::variant::{ModelKind, Precision};

use super::TuneArgs;
use protoseg_infer::check;

/// Pairs of blocks of a candidate and the leader.
const PAIRS: usize = 8;

/// How many times as long as a candidate the last comparison takes.
const LAST: u32 = 5;

/// Pictures for each session that a block has at least where all are there from the start: with fewer, sessions would wait for
/// the last of them, and with four or more they lose a fifth of the time at most.
const A_SESSION: usize = 4;

/// What all candidates share.
pub(super) struct TuningRunner<'a> {
    arguments: &'a TuneArgs,
    images: BenchImages,
    scenario: Scenario,
    runtime: tokio::runtime::Runtime,
    /// As it comes, with the bundle's own windows.
    plain: Segmenter,
    /// Number formats of the bundle's files that windows or whole pictures are run with; none of a single file.
    precisions: Vec<Precision>,
    /// The right labels of every picture.
    labels: Vec<Vec<u8>>,
    /// What was found of options that change what is computed.
    known: Vec<(EngineConfig, Result<LabelAgreement, String>)>,
}

impl<'a> TuningRunner<'a> {
    /// Reads or draws the pictures, and labels them as all candidates must.
    pub(super) fn new(arguments: &'a TuneArgs) -> anyhow::Result<Self> {
        let images = arguments.pictures.open()?;
        let bundle = &arguments.bundle;
        let files = if bundle.is_dir() { Manifest::read(bundle)?.value.files } else { Vec::new() };
        let files = files.into_iter().filter(|file| file.variant.kind != ModelKind::Frame);
        let precisions: Vec<Precision> = files.map(|file| file.variant.precision).collect();
        let plain = Segmenter::open(bundle)?;
        let precision = Some(Precision::Fp32).filter(|wanted| precisions.contains(wanted));
        let mut reference =
            Segmenter::open_with(bundle, &EngineConfig { precision, ..EngineConfig::default() })?;
        let label = |image: &RgbImage| {
            Ok::<_, anyhow::Error>(into_vec(reference.predict(image, Outputs::default())?.labels))
        };
        let labels =
            images.all().iter().map(|sheet| &*sheet.image).map(label).collect::<Result<_, _>>()?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("the threads of the benchmark could not be started")?;
        let (scenario, known) = (arguments.scenario(), Vec::new());
        Ok(Self { arguments, images, scenario, runtime, plain, precisions, labels, known })
    }

    /// What is tried: of the bundle's number formats those that are wanted, or all.
    pub(super) fn space(&self, wanted: &[Precision]) -> SearchSpace {
        let mut precisions: Vec<Precision> = Vec::new();
        for &precision in &self.precisions {
            let is_wanted = wanted.is_empty() || wanted.contains(&precision);
            if is_wanted
                && Some(precision) != self.plain.precision()
                && !precisions.contains(&precision)
            {
                precisions.push(precision);
            }
        }
        SearchSpace {
            precisions,
            window: self.plain.window(),
            grid: self.plain.model().grid,
            cores: cores(),
            usual: self.usual(),
            many: self.scenario != Scenario::SingleStream,
        }
    }

    /// What cores are used for where nobody says: `label` has a session for each where there are many pictures, `serve` and
    /// whoever has one picture has them all for each picture.
    fn usual(&self) -> ExecutionMode {
        if self.scenario == Scenario::Offline {
            ExecutionMode::Throughput
        } else {
            ExecutionMode::Latency
        }
    }

    /// What was asked about.
    pub(super) fn pictures(&self) -> ImageSummary {
        self.images.summary()
    }

    /// Holds what leads against the default, and gives the 99th percentiles of both.
    pub(super) fn compare(
        &self,
        default: &EngineConfig,
        best: &EngineConfig,
    ) -> anyhow::Result<(AbComparison, [Option<f64>; 2])> {
        let time = Duration::from_secs_f64(self.arguments.time) * LAST;
        let (points, against) =
            self.interleaved([default, best], time, self.arguments.pairs.get())?;
        Ok((against, points.map(|point| p99(&point))))
    }

    fn config(&self, choice: &EngineConfig) -> anyhow::Result<EngineConfig> {
        let mut config = choice.clone();
        if matches!(choice.first_device(), Device::TensorRt(_)) {
            config.trt_cache.clone_from(&self.arguments.trt_cache);
        }
        config.check()?;
        config.mode = config.mode.or(Some(self.usual()));
        Ok(config)
    }

    fn interleaved(
        &self,
        choices: [&EngineConfig; 2],
        time: Duration,
        pairs: usize,
    ) -> anyhow::Result<([ScenarioResult; 2], AbComparison)> {
        let open = |choice: &EngineConfig| {
            let how = OpenOptions { config: self.config(choice)?, ..OpenOptions::default() };
            InProcessTarget::open(&self.arguments.bundle, self.scenario, &self.images, &how)
                .map_err(anyhow::Error::from)
        };
        let [a, b] = [open(choices[0])?, open(choices[1])?];
        let sessions = a.facts().setup.sessions.max(b.facts().setup.sessions);
        let least = match self.scenario {
            Scenario::Offline => A_SESSION * sessions,
            Scenario::Clients { clients } => clients,
            _ => 1,
        };
        // Three stretches, alike or not: every candidate gets the same, and blocks in turns take care of what drifts.
        let stretch = (time.as_secs_f64() / 10.0).clamp(0.01, 0.5);
        let rule = StabilityRule { seconds: stretch, queries: 1, trials: 3 };
        let measure = Measurement {
            scenario: self.scenario,
            warm_up: WarmUpPolicy::Stable(rule),
            until: StopAfter::Time(time, least * pairs),
            seed: 0,
            pixels: self.images.mean_pixels(),
        };
        let [of_a, of_b] = choices.map(describe);
        let names = [
            if *choices[0] == EngineConfig::default() { "the default".to_owned() } else { of_a },
            of_b,
        ];
        let sides = [(names[0].as_str(), &a), (names[1].as_str(), &b)];
        let (points, against) = self.runtime.block_on(ab::measure(&measure, sides, pairs))?;
        for (point, name) in points.iter().zip(&names) {
            let why = point.first_error.as_deref().unwrap_or_default();
            ensure!(point.failed == 0, "{name} did not answer: {why}");
        }
        Ok((points, against))
    }

    /// How far labels agree where a model is opened so.
    fn examined(&self, choice: &EngineConfig) -> anyhow::Result<LabelAgreement> {
        let bundle = &self.arguments.bundle;
        let mode = Some(ExecutionMode::Latency);
        let config = EngineConfig { mode, ..self.config(choice)? };
        let (mut segmenters, _) = Pipeline::open(bundle, &config, Some(1))?.into_segmenters();
        let segmenter = segmenters.first_mut().context("no session was opened")?;
        let (mut equal, mut pixels) = (0, 0);
        for (sheet, expected) in self.images.all().iter().zip(&self.labels) {
            let found = segmenter.predict(&*sheet.image, Outputs::default())?.labels;
            equal +=
                found.iter().zip(expected).filter(|(found, expected)| found == expected).count();
            pixels += expected.len();
        }
        let image = &self.images.get(0).image;
        let size = [image.height() as usize, image.width() as usize];
        let file = segmenter.file_name_for(size, Outputs::default()).to_owned();
        // Models that others made may come without a probe.
        let has_probe = bundle.is_dir() && Manifest::read(bundle)?.value.probe_sha256.is_some();
        let probe =
            if has_probe { Some(check::probe_agreement(bundle, &file, &config)?.0) } else { None };
        Ok(LabelAgreement { probe, pictures: equal as f64 / pixels.max(1) as f64 })
    }
}

impl CandidateRunner for TuningRunner<'_> {
    fn agreement(&mut self, choice: &EngineConfig) -> Result<LabelAgreement, String> {
        let EngineConfig { precision, window, tf32, trt_fp16, .. } = *choice;
        let device = choice.device.clone();
        let arithmetic =
            EngineConfig { precision, window, device, tf32, trt_fp16, ..EngineConfig::default() };
        if let Some((_, known)) = self.known.iter().find(|(config, _)| *config == arithmetic) {
            return known.clone();
        }
        let found = self.examined(&arithmetic).map_err(|error| error_chain(error.as_ref()));
        self.known.push((arithmetic, found.clone()));
        found
    }

    fn duel(
        &mut self,
        leader: &EngineConfig,
        candidate: &EngineConfig,
    ) -> Result<DuelResult, String> {
        let time = Duration::from_secs_f64(self.arguments.time);
        let measured = self.interleaved([leader, candidate], time, PAIRS);
        let (points, against) = measured.map_err(|error| error_chain(error.as_ref()))?;
        let [a, b] = &points;
        let (pairs, _) = against.blocks.as_chunks::<2>();
        let won = pairs
            .iter()
            .filter(|[one, other]| (one.ms < other.ms) == (one.side == Side::B))
            .count();
        Ok(DuelResult {
            ratio: against.ratio.ratio,
            won: [won, pairs.len()],
            ms: [ms(a), ms(b)],
            p99_ms: [p99(a), p99(b)],
        })
    }
}

/// Milliseconds of a query in the middle, offline of a picture.
fn ms(point: &ScenarioResult) -> f64 {
    let middle = point
        .latency
        .as_ref()
        .and_then(|latency| latency.percentiles.iter().find(|told| told.percent == 50.0));
    middle.map_or(1e3 / point.images_per_second, |told| told.ms)
}

/// The 99th percentile of latency: what the true one does not exceed with 99 % confidence, where there are the 459 samples or
/// more that this takes. With fewer no bound of that confidence exists, and the sample of that rank stands for it: of less than
/// a hundred the largest.
fn p99(point: &ScenarioResult) -> Option<f64> {
    let told = point.latency.as_ref()?.percentiles.iter().find(|told| told.percent == 99.0)?;
    Some(told.bound_ms.unwrap_or(told.ms))
}
