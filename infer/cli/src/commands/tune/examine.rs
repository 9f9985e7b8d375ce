//! Finds out about candidates: whether their labels agree, and how long they take.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use image::RgbImage;
use protoseg_bench::against::{Against, Turn};
use protoseg_bench::blocks;
use protoseg_bench::in_process::{HowOpened, InProcess};
use protoseg_bench::load::Until;
use protoseg_bench::material::Material;
use protoseg_bench::measure::{Measure, WarmUpRule};
use protoseg_bench::report::{Pictures, Point};
use protoseg_bench::scenario::Scenario;
use protoseg_bench::stability::Rule;
use protoseg_bench::tuning::limits::Agreement;
use protoseg_bench::tuning::search::{Duel, Examiner};
use protoseg_bench::tuning::space::Space;
use protoseg_bench::tuning::{Choice, described};
use protoseg_infer::machine::cores;
use protoseg_infer::pipeline::{Mode, Pipeline, PipelineOptions};
use protoseg_infer::segmenter::{Segmenter, SegmenterOptions};
use protoseg_models::bundle::Manifest;
use protoseg_models::errors::sentence;
use protoseg_models::form::{Kind, Precision};

use super::Arguments;
use crate::commands::engine_arguments::EngineArguments;
use protoseg_infer::check;

/// Pairs of blocks of a candidate and the leader.
const PAIRS: usize = 8;

/// How many times as long as a candidate the last comparison takes.
const LAST: u32 = 5;

/// Pictures for each session that a block has at least where all are there from the start: with fewer, sessions would wait for
/// the last of them, and with four or more they lose a fifth of the time at most.
const A_SESSION: usize = 4;

/// What stands for pictures without an end.
const MANY: usize = 1_000_000;

/// Options that change what is computed; all others only change when and where.
const ARITHMETIC: [&str; 5] = ["precision", "window", "device", "tf32", "trt-fp16"];

/// What all candidates share.
pub(super) struct Bench<'a> {
    arguments: &'a Arguments,
    material: Material,
    scenario: Scenario,
    runtime: tokio::runtime::Runtime,
    /// As it comes, with the bundle's own windows.
    plain: Segmenter,
    /// Number formats of the bundle's files that windows or whole pictures are run with; none of a single file.
    precisions: Vec<Precision>,
    /// The right labels of every picture.
    labels: Vec<Vec<u8>>,
    /// What was found of options that change what is computed.
    known: BTreeMap<Choice, Result<Agreement, String>>,
}

impl<'a> Bench<'a> {
    /// Reads or draws the pictures, and labels them as all candidates must.
    pub(super) fn new(arguments: &'a Arguments) -> anyhow::Result<Self> {
        let material = arguments.pictures.open()?;
        let bundle = &arguments.bundle;
        let files = if bundle.is_dir() { Manifest::read(bundle)?.value.files } else { Vec::new() };
        let files = files.into_iter().filter(|file| file.form.kind != Kind::Frame);
        let precisions: Vec<Precision> = files.map(|file| file.form.precision).collect();
        let plain = Segmenter::open(bundle)?;
        let precision = Some(Precision::Fp32).filter(|wanted| precisions.contains(wanted));
        let mut reference =
            Segmenter::open_with(bundle, &SegmenterOptions { precision, ..SegmenterOptions::default() })?;
        let label = |image: &RgbImage| Ok::<_, anyhow::Error>(reference.segment(image)?.labels);
        let labels = material.all().iter().map(|sheet| &*sheet.image).map(label).collect::<Result<_, _>>()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("the threads of the benchmark could not be started")?;
        let (scenario, known) = (arguments.scenario(), BTreeMap::new());
        Ok(Self { arguments, material, scenario, runtime, plain, precisions, labels, known })
    }

    /// What is tried: of the bundle's number formats those that are wanted, or all.
    pub(super) fn space(&self, wanted: &[Precision]) -> Space {
        let mut precisions: Vec<Precision> = Vec::new();
        for &precision in &self.precisions {
            let is_wanted = wanted.is_empty() || wanted.contains(&precision);
            if is_wanted && Some(precision) != self.plain.precision() && !precisions.contains(&precision) {
                precisions.push(precision);
            }
        }
        Space {
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
    fn usual(&self) -> Mode {
        if self.scenario == Scenario::Offline { Mode::Throughput } else { Mode::Latency }
    }

    /// What was asked about.
    pub(super) fn pictures(&self) -> Pictures {
        self.material.describe()
    }

    /// Holds what leads against the default, and gives the 99th percentiles of both.
    pub(super) fn compare(&self, default: &Choice, best: &Choice) -> anyhow::Result<(Against, [Option<f64>; 2])> {
        let time = Duration::from_secs_f64(self.arguments.time) * LAST;
        let (points, against) = self.in_turns([default, best], time, self.arguments.pairs.get())?;
        Ok((against, points.map(|point| p99(&point))))
    }

    fn options(&self, choice: &Choice) -> anyhow::Result<PipelineOptions> {
        let mut all = choice.clone();
        let cache = self.arguments.trt_cache.as_deref().map(Path::to_string_lossy);
        if let Some(cache) = cache.filter(|_| choice.get("device").is_some_and(|device| device.starts_with("tensorrt")))
        {
            all.insert("trt-cache".to_owned(), cache.into_owned());
        }
        let pictures = if self.scenario == Scenario::Offline { MANY } else { 0 };
        let options = EngineArguments::of(&all)?.options(pictures)?;
        Ok(PipelineOptions { mode: options.mode.or(Some(self.usual())), ..options })
    }

    fn in_turns(&self, choices: [&Choice; 2], time: Duration, pairs: usize) -> anyhow::Result<([Point; 2], Against)> {
        let open = |choice: &Choice| {
            let how = HowOpened { pipeline: self.options(choice)?, ..HowOpened::default() };
            InProcess::open(&self.arguments.bundle, self.scenario, &self.material, &how).map_err(anyhow::Error::from)
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
        let rule = Rule { seconds: stretch, queries: 1, trials: 3 };
        let measure = Measure {
            scenario: self.scenario,
            warm_up: WarmUpRule::Stable(rule),
            until: Until::Time(time, least * pairs),
            seed: 0,
            pixels: self.material.mean_pixels(),
        };
        let [of_a, of_b] = choices.map(described);
        let names = [if choices[0].is_empty() { "the default".to_owned() } else { of_a }, of_b];
        let sides = [(names[0].as_str(), &a), (names[1].as_str(), &b)];
        let (points, against) = self.runtime.block_on(blocks::measure(&measure, sides, pairs))?;
        for (point, name) in points.iter().zip(&names) {
            let why = point.first_error.as_deref().unwrap_or_default();
            ensure!(point.failed == 0, "{name} did not answer: {why}");
        }
        Ok((points, against))
    }

    /// How far labels agree where a model is opened so.
    fn examined(&self, choice: &Choice) -> anyhow::Result<Agreement> {
        let bundle = &self.arguments.bundle;
        let options = PipelineOptions { mode: Some(Mode::Latency), pictures: 1, ..self.options(choice)? };
        let (mut segmenters, _) = Pipeline::open(bundle, &options)?.into_segmenters();
        let segmenter = segmenters.first_mut().context("no session was opened")?;
        let (mut equal, mut pixels) = (0, 0);
        for (sheet, expected) in self.material.all().iter().zip(&self.labels) {
            let found = segmenter.segment(&sheet.image)?.labels;
            equal += found.iter().zip(expected).filter(|(found, expected)| found == expected).count();
            pixels += expected.len();
        }
        let file = segmenter.file_for(&self.material.get(0).image).to_owned();
        // Models that others made may come without a probe.
        let has_probe = bundle.is_dir() && Manifest::read(bundle)?.value.probe_sha256.is_some();
        let probe = if has_probe { Some(check::probe_agreement(bundle, &file, &options)?.0) } else { None };
        Ok(Agreement { probe, pictures: equal as f64 / pixels.max(1) as f64 })
    }
}

impl Examiner for Bench<'_> {
    fn agreement(&mut self, choice: &Choice) -> Result<Agreement, String> {
        let arithmetic: Choice = choice
            .iter()
            .filter(|(name, _)| ARITHMETIC.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if let Some(known) = self.known.get(&arithmetic) {
            return known.clone();
        }
        let found = self.examined(&arithmetic).map_err(|error| sentence(error.as_ref()));
        self.known.insert(arithmetic, found.clone());
        found
    }

    fn duel(&mut self, leader: &Choice, candidate: &Choice) -> Result<Duel, String> {
        let time = Duration::from_secs_f64(self.arguments.time);
        let measured = self.in_turns([leader, candidate], time, PAIRS);
        let (points, against) = measured.map_err(|error| sentence(error.as_ref()))?;
        let [a, b] = &points;
        let (pairs, _) = against.blocks.as_chunks::<2>();
        let won = pairs.iter().filter(|[one, other]| (one.ms < other.ms) == (one.turn == Turn::B)).count();
        Ok(Duel { ratio: against.ratio.ratio, won: [won, pairs.len()], ms: [ms(a), ms(b)], p99_ms: [p99(a), p99(b)] })
    }
}

/// Milliseconds of a query in the middle, offline of a picture.
fn ms(point: &Point) -> f64 {
    let middle =
        point.latency.as_ref().and_then(|latency| latency.percentiles.iter().find(|told| told.percent == 50.0));
    middle.map_or(1e3 / point.images_a_second, |told| told.ms)
}

/// The 99th percentile of latency: what the true one does not exceed with 99 % confidence, where there are the 459 samples or
/// more that this takes. With fewer no bound of that confidence exists, and the sample of that rank stands for it: of less than
/// a hundred the largest.
fn p99(point: &Point) -> Option<f64> {
    let told = point.latency.as_ref()?.percentiles.iter().find(|told| told.percent == 99.0)?;
    Some(told.bound_ms.unwrap_or(told.ms))
}
