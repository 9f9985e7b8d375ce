//! Opens models, in this process or behind an address, and measures them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::labeled::LabeledDataset;
use protoseg_infer::check::{self, LabeledImages};
use protoseg_infer::config::Device;
use protoseg_infer::pipeline::Pipeline;
use protoseg_infer::segmenter::{SegmentError, Segmenter};
use protoseg_infer::{EngineConfig, evaluate};
use protoseg_models::errors::error_chain;
use protoseg_serve::registry::name_of;

use super::ab::{self, AbComparison};
use super::http_target::HttpTarget;
use super::images::BenchImages;
use super::in_process::{InProcessTarget, OpenOptions};
use super::load::{
    LoadResult, RequestError, RequestStages, Scenario, Target, request_concurrently,
};
use super::machine::gpu::GpuMonitor;
use super::measure::Measurement;
use super::report::{Accuracy, Energy, ScenarioResult, Subject};

/// Error of a request after a signal.
const STOPPED: &str = "stopped by a signal";

/// A model to be measured.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetSpec {
    /// Unique in a report.
    pub name: String,
    pub location: TargetLocation,
}

#[derive(Debug, Clone, PartialEq)]
pub enum TargetLocation {
    /// A bundle or ONNX file in this process.
    InProcess(PathBuf, Box<EngineConfig>),
    /// The address of a server.
    Http(String),
}

impl TargetSpec {
    /// A bundle; `variant` tells it from others of the same bundle, and may be empty.
    pub fn bundle(bundle: &Path, config: EngineConfig, variant: &str) -> Self {
        let model = name_of(bundle).unwrap_or_default();
        let name = if variant.is_empty() { model } else { format!("{model}, {variant}") };
        Self { name, location: TargetLocation::InProcess(bundle.to_owned(), Box::new(config)) }
    }
}

/// A model that is open.
pub enum OpenTarget {
    InProcess(Box<InProcessTarget>),
    Http(Box<HttpTarget>),
}

impl OpenTarget {
    /// Number of sessions and of threads of each; `None` for a server.
    pub fn setup(&self) -> Option<[usize; 2]> {
        let Self::InProcess(model) = self else { return None };
        Some([model.facts().setup.sessions, model.facts().setup.threads])
    }

    /// Number of the GPU where it runs on one alone.
    fn gpu(&self) -> Option<u16> {
        let Self::InProcess(model) = self else { return None };
        match model.facts().setup.devices[..] {
            [Device::Cuda(number) | Device::TensorRt(number)] => Some(number),
            _ => None,
        }
    }
}

impl Target for OpenTarget {
    async fn request(&self, image: usize) -> Result<RequestStages, RequestError> {
        match self {
            Self::InProcess(model) => model.request(image).await,
            Self::Http(server) => server.request(image).await,
        }
    }

    async fn request_all(&self, first: usize, count: usize) -> LoadResult {
        match self {
            Self::InProcess(model) => model.request_all(first, count).await,
            Self::Http(server) => server.request_all(first, count).await,
        }
    }
}

/// A target that refuses requests after a signal.
struct StoppableTarget<'a> {
    target: &'a OpenTarget,
    stop: &'a AtomicBool,
}

impl Target for StoppableTarget<'_> {
    async fn request(&self, image: usize) -> Result<RequestStages, RequestError> {
        if self.is_stopped() {
            return Err(RequestError(STOPPED.to_owned()));
        }
        self.target.request(image).await
    }

    async fn request_all(&self, first: usize, count: usize) -> LoadResult {
        if self.is_stopped() {
            return LoadResult { failed: count, ..LoadResult::default() };
        }
        match self.target {
            // It checks the signal itself.
            OpenTarget::InProcess(model) => model.request_all(first, count).await,
            OpenTarget::Http(_) => request_concurrently(self, first, count).await,
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// How a server is asked.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The first model where none is named.
    pub model: Option<String>,
    /// Bearer token.
    pub key: Option<String>,
    pub timeout: Duration,
}

/// Images and runtime that all measurements of a report share.
pub struct BenchSession {
    pub images: BenchImages,
    pub labeled: Option<LabeledImages>,
    /// Requests include decoding image files and encoding label files.
    pub end_to_end: bool,
    pub server: ServerOptions,
    /// Set by a signal.
    pub stop: Arc<AtomicBool>,
    runtime: tokio::runtime::Runtime,
}

impl BenchSession {
    /// A session that measures from pixels to labels and scores nothing.
    pub fn new(images: BenchImages) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start the threads of the benchmark")?;
        let server = ServerOptions { model: None, key: None, timeout: Duration::from_secs(60) };
        Ok(Self { images, labeled: None, end_to_end: false, server, stop: Arc::default(), runtime })
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Fails after a signal.
    pub fn ensure_running(&self) -> anyhow::Result<()> {
        ensure!(!self.is_stopped(), STOPPED);
        Ok(())
    }

    /// Opens a model for a scenario.
    pub fn open(&self, spec: &TargetSpec, scenario: Scenario) -> anyhow::Result<OpenTarget> {
        match &spec.location {
            TargetLocation::InProcess(bundle, config) => {
                config.check()?;
                let options = OpenOptions {
                    config: (**config).clone(),
                    end_to_end: self.end_to_end,
                    stop: Arc::clone(&self.stop),
                };
                let target = InProcessTarget::open(bundle, scenario, &self.images, &options)?;
                Ok(OpenTarget::InProcess(Box::new(target)))
            }
            TargetLocation::Http(url) => {
                let ServerOptions { model, key, timeout } = self.server.clone();
                let files = self.end_to_end;
                let target =
                    HttpTarget::open(url, model.as_deref(), key, &self.images, files, timeout);
                Ok(OpenTarget::Http(Box::new(self.runtime.block_on(target)?)))
            }
        }
    }

    /// Measures a model under one scenario. After a signal the result is that of the queries until
    /// then, if there are any.
    pub fn measure(
        &self,
        target: &OpenTarget,
        measurement: &Measurement,
    ) -> anyhow::Result<ScenarioResult> {
        // Without a GPU, or a driver that reports, nothing is known.
        let monitor = target.gpu().and_then(|number| GpuMonitor::start(number).ok());
        let stoppable = StoppableTarget { target, stop: &self.stop };
        let measured = self.runtime.block_on(measurement.run(&stoppable));
        let mut result = match (measured, self.is_stopped()) {
            (Ok(result), true) if !result.samples.latency_ms.is_empty() => truncated(result),
            (_, true) => bail!(STOPPED),
            (measured, false) => measured?,
        };
        let gpu = monitor.map(GpuMonitor::stop).unwrap_or_default();
        let queries = result.samples.latency_ms.len() + result.warm_up.queries;
        let images = (queries * result.scenario.images_per_query()) as f64;
        result.energy = gpu
            .joules
            .zip(gpu.watts)
            .map(|(joules, watts)| Energy { joules_per_image: joules / images, watts });
        result.peak_device_bytes = gpu.peak_memory;
        Ok(with_setup(target, result))
    }

    /// Measures two models in interleaved pairs of blocks.
    pub fn interleaved(
        &self,
        measurement: &Measurement,
        [a, b]: [(&str, &OpenTarget); 2],
        pairs: usize,
    ) -> anyhow::Result<([ScenarioResult; 2], AbComparison)> {
        let stoppable = |target| StoppableTarget { target, stop: &self.stop };
        let (target_a, target_b) = (stoppable(a.1), stoppable(b.1));
        let sides = [(a.0, &target_a), (b.0, &target_b)];
        let measured = self.runtime.block_on(ab::measure(measurement, sides, pairs));
        self.ensure_running()?;
        let ([result_a, result_b], comparison) = measured?;
        Ok(([with_setup(a.1, result_a), with_setup(b.1, result_b)], comparison))
    }

    /// Describes a measured model; with `check` its labels are compared with the probe and the
    /// labeled images.
    pub fn subject(&self, spec: &TargetSpec, target: &OpenTarget, check: bool) -> Subject {
        let mut subject = Subject {
            name: spec.name.clone(),
            bundle: None,
            url: None,
            model: String::new(),
            file: None,
            precision: None,
            device: None,
            options: BTreeMap::new(),
            images: self.images.summary(),
            windows: None,
            pixel_ratio: None,
            end_to_end: self.end_to_end,
            open_seconds: None,
            first_run_seconds: None,
            nodes: BTreeMap::new(),
            accuracy: Accuracy { missing: Some("not requested".to_owned()), ..Accuracy::default() },
            peak_host_bytes: None,
        };
        match target {
            OpenTarget::InProcess(model) => {
                let facts = model.facts();
                let devices: Vec<String> =
                    facts.setup.devices.iter().map(ToString::to_string).collect();
                let (windows, pixel_ratio) = facts.tiling;
                subject.model.clone_from(&facts.fingerprint);
                subject.file = Some(facts.file.clone());
                subject.precision = facts.precision.map(|precision| precision.name().to_owned());
                subject.device = Some(devices.join(", "));
                subject.windows = Some(windows);
                subject.pixel_ratio = Some(pixel_ratio);
                subject.open_seconds = Some(facts.setup.seconds);
                subject.first_run_seconds = Some(facts.first_run_seconds);
            }
            OpenTarget::Http(server) => {
                let (name, version) = server.model();
                subject.model = format!("{name} {version}");
            }
        }
        match &spec.location {
            TargetLocation::InProcess(bundle, config) => {
                subject.bundle = Some(bundle.clone());
                subject.options = (**config).clone().into();
                if let (Some(file), true) = (&subject.file, check) {
                    subject.nodes = self.nodes(bundle, config).unwrap_or_default();
                    subject.accuracy = self.accuracy(bundle, file, config);
                }
            }
            TargetLocation::Http(url) => {
                subject.url = Some(url.clone());
                subject.accuracy.missing =
                    Some("a server's model is not checked; bench its bundle".to_owned());
            }
        }
        subject
    }

    /// Mean IoU in percent of a model on the labeled images; `None` without them, or where no class
    /// occurs.
    pub fn mean_iou(&self, model: &Path, config: &EngineConfig) -> anyhow::Result<Option<f64>> {
        match &self.labeled {
            None => Ok(None),
            Some(LabeledImages { set, .. }) => score(model, config, set),
        }
    }

    /// Nodes by execution provider of the file that runs the first image.
    fn nodes(
        &self,
        bundle: &Path,
        config: &EngineConfig,
    ) -> Result<BTreeMap<String, usize>, SegmentError> {
        let segmenter = Segmenter::open_with(bundle, config)?;
        let (width, height) = self.images.get(0).image.dimensions();
        Ok(segmenter.profile([height as usize, width as usize])?.nodes)
    }

    /// Compares the labels of a file with the probe's, and scores it on the labeled images.
    /// Failures are reported as missing.
    fn accuracy(&self, bundle: &Path, file: &str, config: &EngineConfig) -> Accuracy {
        let mut accuracy = Accuracy::default();
        match check::probe_agreement(bundle, file, config) {
            Ok((agreement, reference)) => {
                accuracy.probe_agreement = Some(agreement);
                accuracy.reference = Some(reference);
            }
            Err(error) => accuracy.missing = Some(error_chain(&error)),
        }
        if let Some(LabeledImages { set, name }) = &self.labeled {
            accuracy.data = Some(name.clone());
            match score(bundle, config, set) {
                Ok(mean_iou) => accuracy.mean_iou = mean_iou,
                Err(error) => accuracy.missing = Some(error_chain(error.as_ref())),
            }
        }
        accuracy
    }
}

fn score(
    bundle: &Path,
    config: &EngineConfig,
    set: &LabeledDataset,
) -> anyhow::Result<Option<f64>> {
    let mut pipeline = Pipeline::open(bundle, config, Some(set.count()))?;
    evaluate::ensure_same_classes(pipeline.segmenter().model(), set)?;
    let (confusion, _) =
        evaluate::score(&mut pipeline, set, MAX_PIXELS, false, &|_, _, _, _| (), &|_| ())?;
    Ok(confusion.scores(&pipeline.segmenter().model().classes).mean_iou)
}

/// A result that a signal ended. Requests that failed for that alone do not count.
fn truncated(mut result: ScenarioResult) -> ScenarioResult {
    if result.first_error.as_deref() == Some(STOPPED) {
        result.failed = 0;
        result.first_error = None;
    }
    result.unstable = Some("cut short by a signal".to_owned());
    result
}

fn with_setup(target: &OpenTarget, mut result: ScenarioResult) -> ScenarioResult {
    if let Some([sessions, threads]) = target.setup() {
        result.sessions = Some(sessions);
        result.threads = Some(threads);
    }
    result
}
