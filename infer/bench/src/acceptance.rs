//! Acceptance test of a machine: correctness of bundles of random networks on a device, ways to run
//! them, and speed as a share of the device's measured peak.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use protoseg_infer::config::Device;
use protoseg_infer::session::{self, DevicePeak, Runner, SessionError};
use protoseg_infer::{EngineConfig, check};
use protoseg_models::bundle::{Manifest, ModelFile};
use protoseg_models::errors::error_chain;
use protoseg_models::variant::{ModelKind, Precision};
use serde::Serialize;

use super::images::BenchImages;
use super::load::{Scenario, StopAfter};
use super::measure::{Measurement, WarmUpPolicy};
use super::report::{BenchRun, ScenarioResult};
use super::session::{BenchSession, TargetSpec};
use super::stability::StabilityRule;

/// Least label agreement with TF32, whose mantissa has as many bits as that of 16-bit floats.
const LEAST_TF32_AGREEMENT: f64 = 0.999;

const CPU_PROVIDER: &str = "CPUExecutionProvider";

/// Runs of one image: the first two are plain, buffers are bound after them, and launches are
/// captured up to the fifth.
const REPLAYS: usize = 10;

/// GPU memory in which no network runs: less than the weights of the smallest.
const TOO_LITTLE_MEMORY: u64 = 4 << 20;

/// Scenarios with a known rate; that of the server scenario follows from the clients.
const SCENARIOS: [Scenario; 4] = [
    Scenario::SingleStream,
    Scenario::MultiStream { samples: 8 },
    Scenario::Clients { clients: 4 },
    Scenario::Offline,
];

/// Rate of the server scenario as a share of that of the clients.
const SERVER_SHARE: f64 = 0.7;

/// Different images.
const IMAGES: usize = 4;

/// Result of one check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckResult {
    what: String,
    status: CheckStatus,
    /// The finding, or why there is none.
    detail: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    figures: BTreeMap<&'static str, f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum CheckStatus {
    Passed,
    Failed,
    Skipped,
}

impl std::fmt::Display for CheckResult {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = match self.status {
            CheckStatus::Passed => "passed ",
            CheckStatus::Failed => "FAILED ",
            CheckStatus::Skipped => "skipped",
        };
        write!(formatter, "{status}  {}: {}", self.what, self.detail)
    }
}

/// Result of a check before it has a name.
pub enum Outcome {
    Checked {
        holds: bool,
        detail: String,
        figures: BTreeMap<&'static str, f64>,
    },
    /// This machine does not support it.
    Skipped(String),
}

impl Outcome {
    pub fn new<const N: usize>(
        holds: bool,
        detail: String,
        figures: [(&'static str, f64); N],
    ) -> Self {
        Self::Checked { holds, detail, figures: figures.into() }
    }

    fn skipped(why: impl Into<String>) -> anyhow::Result<Self> {
        Ok(Self::Skipped(why.into()))
    }
}

/// Results in order; each is passed to `observe` as it is added.
pub struct CheckResults<'a> {
    all: Vec<CheckResult>,
    observe: &'a dyn Fn(&CheckResult),
}

impl<'a> CheckResults<'a> {
    pub fn new(observe: &'a dyn Fn(&CheckResult)) -> Self {
        Self { all: Vec::new(), observe }
    }

    /// Adds a result; an error is a failure.
    pub fn add(&mut self, what: String, outcome: anyhow::Result<Outcome>) {
        let (status, detail, figures) = match outcome {
            Ok(Outcome::Checked { holds: true, detail, figures }) => {
                (CheckStatus::Passed, detail, figures)
            }
            Ok(Outcome::Checked { holds: false, detail, figures }) => {
                (CheckStatus::Failed, detail, figures)
            }
            Ok(Outcome::Skipped(why)) => (CheckStatus::Skipped, why, BTreeMap::new()),
            Err(error) => (CheckStatus::Failed, error_chain(error.as_ref()), BTreeMap::new()),
        };
        let result = CheckResult { what, status, detail, figures };
        (self.observe)(&result);
        self.all.push(result);
    }

    /// Returns true where something passed and nothing failed.
    pub fn passed(&self) -> bool {
        let any = |status| self.all.iter().any(|result| result.status == status);
        any(CheckStatus::Passed) && !any(CheckStatus::Failed)
    }

    pub fn into_vec(self) -> Vec<CheckResult> {
        self.all
    }
}

/// Peak performance of the device in one precision.
#[derive(Debug, Serialize)]
pub struct Ceiling {
    precision: &'static str,
    tf32: bool,
    #[serde(flatten)]
    peak: DevicePeak,
}

/// A bundle of a random network.
pub struct TestBundle {
    pub network: &'static str,
    pub folder: PathBuf,
    pub manifest: Manifest,
}

impl TestBundle {
    pub fn read(network: &'static str, folder: &Path) -> anyhow::Result<Self> {
        let manifest = Manifest::read(folder)?.value;
        Ok(Self { network, folder: folder.to_owned(), manifest })
    }

    fn file(&self, kind: ModelKind, precision: Precision) -> Option<&ModelFile> {
        let is_wanted =
            |file: &&ModelFile| file.variant.kind == kind && file.variant.precision == precision;
        self.manifest.files.iter().find(is_wanted)
    }

    fn check_name(&self, check: impl std::fmt::Display) -> String {
        format!("{}/{check}", self.network)
    }
}

/// Checks of one device.
pub struct Acceptance {
    pub device: Device,
    /// Small images and short measurements.
    pub brief: bool,
    /// Set by a signal.
    pub stop: Arc<AtomicBool>,
}

impl Acceptance {
    /// Height and width of the measured images.
    pub fn image_size(&self) -> [usize; 2] {
        if self.brief { [192, 256] } else { [1024, 2048] }
    }

    fn config(&self) -> EngineConfig {
        EngineConfig::on(self.device)
    }

    /// Measures the device's peak performance.
    pub fn ceilings(&self, results: &mut CheckResults) -> Vec<Ceiling> {
        let mut kinds = vec![(Precision::Fp32, false), (Precision::Fp16, false)];
        if matches!(self.device, Device::Cuda(_)) {
            kinds.insert(1, (Precision::Fp32, true));
        }
        let measured = kinds.into_iter().map(|(precision, tf32)| {
            let config = EngineConfig { tf32, ..self.config() };
            let peak = DevicePeak::measure(&config, precision)?;
            Ok(Ceiling { precision: precision.name(), tf32, peak })
        });
        measured.collect::<anyhow::Result<_>>().unwrap_or_else(|error| {
            results.add("the device's ceilings are measured".to_owned(), Err(error));
            Vec::new()
        })
    }

    /// Compares the labels of every file with the reference, with CUDA also those of fp32 files
    /// with TF32, and checks where its nodes run.
    pub fn check_files(&self, bundle: &TestBundle, results: &mut CheckResults) {
        for file in &bundle.manifest.files {
            let reference = match file.variant.kind {
                ModelKind::Frame => "windows stitched outside of it, on the CPU",
                ModelKind::Logits | ModelKind::Labels => "libtorch",
            };
            let name = &file.file;
            let least = file.limits().label_agreement.unwrap_or(LEAST_TF32_AGREEMENT);
            results.add(
                bundle.check_name(format_args!("{name} labels as {reference}")),
                check_labels(bundle, file, &self.config(), least),
            );
            if matches!(self.device, Device::Cuda(_)) && file.variant.precision == Precision::Fp32 {
                let config = EngineConfig { tf32: true, ..self.config() };
                results.add(
                    bundle.check_name(format_args!("{name}, with TF32 labels as {reference}")),
                    check_labels(bundle, file, &config, LEAST_TF32_AGREEMENT),
                );
            }
            results.add(
                bundle.check_name(format_args!("{name} runs where it should")),
                self.check_nodes(bundle, file),
            );
        }
        results.add(bundle.check_name("TensorRT labels as libtorch"), self.check_tensorrt(bundle));
    }

    /// With a GPU no node may run on the CPU.
    fn check_nodes(&self, bundle: &TestBundle, file: &ModelFile) -> anyhow::Result<Outcome> {
        let frame = file.variant.frame.map(|form| [form.height, form.width]);
        let window = bundle.manifest.model.window.map(|window| [window.size; 2]);
        let only = file.adapter.as_ref().and_then(|adapter| adapter.size);
        let size = frame.or(window).or(only).unwrap_or(self.image_size());
        let config = EngineConfig { input_size: Some(size), cpu_fallback: true, ..self.config() };
        let path = bundle.manifest.verified(&bundle.folder, file)?;
        let shape = [1, size[0], size[1]];
        let nodes = session::profile(&path, file.adapter.as_ref(), &config, shape)?.nodes;
        let on_cpu = nodes.get(CPU_PROVIDER).copied().unwrap_or(0);
        let holds = !nodes.is_empty() && (!self.device.is_gpu() || on_cpu == 0);
        let counts: Vec<String> =
            nodes.iter().map(|(provider, count)| format!("{count} by {provider}")).collect();
        let figures = [("nodes_on_processor", on_cpu as f64)];
        Ok(Outcome::new(holds, counts.join(", "), figures))
    }

    /// TensorRT beside CUDA, where its library is installed.
    fn check_tensorrt(&self, bundle: &TestBundle) -> anyhow::Result<Outcome> {
        let Device::Cuda(number) = self.device else {
            return Outcome::skipped("TensorRT needs an NVIDIA GPU");
        };
        let device = Device::TensorRt(number);
        if let Err(error) = device.check() {
            return Outcome::skipped(error_chain(&error));
        }
        match bundle.file(ModelKind::Logits, Precision::Fp32) {
            Some(file) => {
                check_labels(bundle, file, &EngineConfig::on(device), LEAST_TF32_AGREEMENT)
            }
            None => Outcome::skipped("the bundle has no fp32 logits file"),
        }
    }

    /// Runs the bundle's fp32 frame file with bound buffers, with a CUDA graph, and out of memory.
    pub fn check_gpu_modes(&self, bundle: &TestBundle, results: &mut CheckResults) {
        let check = |mode: &dyn Fn(&FrameTest) -> anyhow::Result<Outcome>| {
            if !self.device.is_gpu() {
                return Outcome::skipped("only GPUs support it");
            }
            mode(&FrameTest::open(bundle, self.config())?)
        };
        let no_memory = |frame: &FrameTest| match self.device {
            Device::Cuda(_) => frame.run_out_of_memory(),
            _ => Outcome::skipped("only CUDA supports a memory limit"),
        };
        results.add(bundle.check_name("bound buffers"), check(&|frame| frame.replay(false)));
        results.add(bundle.check_name("a CUDA graph"), check(&|frame| frame.replay(true)));
        results.add(bundle.check_name("too little memory"), check(&no_memory));
    }

    /// Measures every scenario with the fp32 and fp16 files.
    pub fn measure(
        &self,
        bundle: &TestBundle,
        ceilings: &[Ceiling],
        results: &mut CheckResults,
    ) -> Vec<BenchRun> {
        let mut runs = Vec::new();
        for precision in [Precision::Fp32, Precision::Fp16] {
            let name = precision.name();
            let what = bundle.check_name(format_args!("speed in {name}"));
            if precision == Precision::Fp16 && !self.device.is_gpu() {
                let why = "CPUs compute 16-bit floats as 32-bit floats, more slowly";
                results.add(what, Outcome::skipped(why));
                continue;
            }
            match self.measure_precision(bundle, precision) {
                Ok(run) => {
                    for point in &run.points {
                        let what = bundle.check_name(format_args!("{} in {name}", point.scenario));
                        results.add(what, Ok(speed(point)));
                    }
                    let ceiling =
                        ceilings.iter().find(|ceiling| ceiling.precision == name && !ceiling.tf32);
                    let what = bundle.check_name(format_args!("roofline in {name}"));
                    results.add(what, self.roofline(bundle, &run, ceiling));
                    runs.push(run);
                }
                Err(error) => results.add(what, Err(error)),
            }
        }
        runs
    }

    fn measure_precision(
        &self,
        bundle: &TestBundle,
        precision: Precision,
    ) -> anyhow::Result<BenchRun> {
        let images = BenchImages::synthetic(IMAGES, self.image_size(), 0)?;
        let mut session = BenchSession::new(images)?;
        session.stop = Arc::clone(&self.stop);
        let config = EngineConfig { precision: Some(precision), ..self.config() };
        let spec = TargetSpec::bundle(&bundle.folder, config, precision.name());
        let seconds = if self.brief { 0.5 } else { 4.0 };
        let rule = StabilityRule { seconds: seconds / 8.0, queries: 3, ..StabilityRule::default() };
        let mut points: Vec<ScenarioResult> = Vec::new();
        let mut first = None;
        let mut measure = |scenario: Scenario| {
            let target = session.open(&spec, scenario)?;
            let measurement = Measurement {
                scenario,
                warm_up: WarmUpPolicy::Stable(rule),
                until: StopAfter::Time(Duration::from_secs_f64(seconds), 3),
                seed: 0,
                pixels: session.images.mean_pixels(),
            };
            let point = session.measure(&target, &measurement)?;
            first.get_or_insert(target);
            let rate = point.images_per_second;
            points.push(point);
            anyhow::Ok(rate)
        };
        let mut client_rate = None;
        for scenario in SCENARIOS {
            let rate = measure(scenario)?;
            if matches!(scenario, Scenario::Clients { .. }) {
                client_rate = Some(rate);
            }
        }
        let client_rate = client_rate.context("no clients were measured")?;
        measure(Scenario::Server { rate: SERVER_SHARE * client_rate })?;
        let target = first.context("nothing was measured")?;
        let subject = session.subject(&spec, &target, true);
        Ok(BenchRun { subject, points, within_bound: None })
    }

    /// Share of the peak that the offline scenario reaches: of arithmetic by the network's
    /// multiply-adds; on GPUs also of copies, by an image's bytes to the device and those of labels
    /// and confidences back.
    fn roofline(
        &self,
        bundle: &TestBundle,
        run: &BenchRun,
        ceiling: Option<&Ceiling>,
    ) -> anyhow::Result<Outcome> {
        let offline = run.points.iter().find(|point| point.scenario == Scenario::Offline);
        let (Some(offline), Some(Ceiling { peak, .. })) = (offline, ceiling) else {
            return Outcome::skipped("the offline scenario or the ceilings are missing");
        };
        let model = &bundle.manifest.model;
        let images = &run.subject.images;
        let [height, width] =
            model.window.map_or([images.height, images.width], |window| [window.size; 2]);
        let graph = model.arch.map(protoseg_models::arch::Arch::graph);
        let Some(multiply_adds) = graph.and_then(|graph| graph.multiply_adds(height, width).ok())
        else {
            return Outcome::skipped("the manifest does not say which network it is");
        };
        let windows = run.subject.windows.unwrap_or(1) as f64;
        let operations = 2.0 * multiply_adds as f64 * windows * offline.images_per_second;
        let of_products = operations / peak.operations_a_second;
        let products = format!(
            "{:.1} % of {:.2} Tflop/s in products of {2}x{2}",
            100.0 * of_products,
            peak.operations_a_second / 1e12,
            peak.side
        );
        if of_products > 1.0 {
            return Outcome::skipped(format!(
                "{products}, as other load held the ceiling down when it was measured; try again"
            ));
        }
        if !self.device.is_gpu() {
            return Ok(Outcome::new(true, products, [("of_products", of_products)]));
        }
        let of_copies = 5e6 * offline.megapixels_per_second / peak.copied_bytes_a_second;
        let copies = format!(
            "{:.1} % of {:.2} GB/s in copies",
            100.0 * of_copies,
            peak.copied_bytes_a_second / 1e9
        );
        let figures = [("of_products", of_products), ("of_copies", of_copies)];
        Ok(Outcome::new(true, format!("{products}, {copies}"), figures))
    }
}

fn check_labels(
    bundle: &TestBundle,
    file: &ModelFile,
    config: &EngineConfig,
    least: f64,
) -> anyhow::Result<Outcome> {
    let share = check::agreement(&bundle.folder, &bundle.manifest, file, config)?;
    let [found, required] = [share, least].map(|share| 100.0 * share);
    let detail = format!("{found:.4} % of labels, at least {required:.2} % required");
    Ok(Outcome::new(share >= least, detail, [("agreement", share), ("least", least)]))
}

fn speed(point: &ScenarioResult) -> Outcome {
    let rate = point.images_per_second;
    let latency = point.latency.as_ref().map_or_else(String::new, |latency| {
        let median = point.percentile(50.0).map_or(f64::NAN, |percentile| percentile.ms);
        format!(", median {median:.2} ms, {:.2} ms at most", latency.max_ms)
    });
    let doubt = if point.unstable.is_some() { ", UNSTABLE" } else { "" };
    let megapixels = point.megapixels_per_second;
    let detail = format!("{rate:.2} images/s, {megapixels:.1} megapixels/s{latency}{doubt}");
    Outcome::new(point.failed == 0, detail, [("images_per_second", rate)])
}

/// A frame file with an image.
struct FrameTest {
    path: PathBuf,
    size: [usize; 2],
    pixels: Vec<u8>,
    config: EngineConfig,
}

impl FrameTest {
    fn open(bundle: &TestBundle, config: EngineConfig) -> anyhow::Result<Self> {
        let file = bundle
            .file(ModelKind::Frame, Precision::Fp32)
            .context("the bundle has no fp32 frame file")?;
        let form = file.variant.frame.context("the manifest has no frame size of the file")?;
        let size = [form.height, form.width];
        Ok(Self {
            path: bundle.manifest.verified(&bundle.folder, file)?,
            size,
            pixels: protoseg_synthetic::render_scene(0, 0, form.height, form.width).image,
            config: EngineConfig { input_size: Some(size), ..config },
        })
    }

    fn run(&self, runner: &mut Runner) -> Result<[Vec<u8>; 2], SessionError> {
        runner.run_frames(&self.pixels, [1, self.size[0], self.size[1]])
    }

    /// Compares the second run, which is plain and warm, with the fastest later one; all must give
    /// the same labels.
    fn replay(&self, cuda_graph: bool) -> anyhow::Result<Outcome> {
        let config = EngineConfig { cuda_graph, ..self.config.clone() };
        let mut runner = Runner::open(&self.path, &config)?;
        let mut expected = None;
        let mut times = Vec::new();
        for run in 1..=REPLAYS {
            let start = Instant::now();
            let found = self.run(&mut runner)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
            let expected = expected.get_or_insert_with(|| found.clone());
            ensure!(found == *expected, "run {run} of one image gives other labels than the first");
        }
        let plain = times[1];
        let later = times[2..].iter().copied().fold(f64::INFINITY, f64::min);
        let detail = format!(
            "the same labels in all of {REPLAYS} runs; {plain:.2} ms plain, {later:.2} ms later"
        );
        Ok(Outcome::new(true, detail, [("plain_ms", plain), ("later_ms", later)]))
    }

    /// Runs out of memory, then runs with enough.
    fn run_out_of_memory(&self) -> anyhow::Result<Outcome> {
        let limit = TOO_LITTLE_MEMORY >> 20;
        let config = EngineConfig { gpu_memory: Some(TOO_LITTLE_MEMORY), ..self.config.clone() };
        let starved =
            Runner::open(&self.path, &config).and_then(|mut runner| self.run(&mut runner));
        match starved {
            Err(SessionError::OutOfMemory { .. }) => {}
            Err(other) => {
                return Err(
                    anyhow::Error::from(other).context("lack of memory was not reported as such")
                );
            }
            Ok(_) => bail!("it runs in {limit} MiB, or the limit is not kept"),
        }
        let mut runner = Runner::open(&self.path, &self.config)?;
        self.run(&mut runner).context("after it ran out of memory once")?;
        let detail = format!("reported with a limit of {limit} MiB, and the next session runs");
        Ok(Outcome::new(true, detail, []))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_fails_all_and_skipped_checks_are_no_success() {
        let mut results = CheckResults::new(&|_| ());
        results.add("a".to_owned(), Outcome::skipped("no device"));
        assert!(!results.passed());
        let passed = Outcome::new(true, "1 of 1".to_owned(), [("share", 1.0)]);
        results.add("b".to_owned(), Ok(passed));
        assert!(results.passed());
        results.add("c".to_owned(), Err(anyhow::anyhow!("broken").context("file")));
        assert!(!results.passed());
        let lines: Vec<String> = results.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            ["skipped  a: no device", "passed   b: 1 of 1", "FAILED   c: file: broken"]
        );
    }
}
