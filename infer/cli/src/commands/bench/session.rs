//! What measurements share: the pictures, and the threads that put load on models.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use protoseg_bench::ab;
use protoseg_bench::ab::AbComparison;
use protoseg_bench::http_target::HttpTarget;
use protoseg_bench::images::BenchImages;
use protoseg_bench::in_process::{InProcessTarget, OpenOptions};
use protoseg_bench::load::Scenario;
use protoseg_bench::machine::gpu::GpuMonitor;
use protoseg_bench::measure::Measurement;
use protoseg_bench::report::{Energy, ScenarioResult};

use super::accuracy::LabeledData;
use super::asked::{OpenTarget, STOPPED, StoppableTarget, TargetLocation, TargetSpec};
use crate::commands::serve::KEY_VARIABLE;

/// How a server is asked.
#[derive(Debug, Clone)]
pub(crate) struct ServerOptions {
    /// Its model; the first where none is named.
    pub(crate) model: Option<String>,
    /// How long an answer is waited for.
    pub(crate) patience: Duration,
}

/// Pictures and threads.
pub(crate) struct BenchSession {
    pub(super) images: BenchImages,
    /// LabeledData pictures that models are scored on.
    pub(crate) labeled: Option<LabeledData>,
    /// Whether picture files are decoded and label files encoded.
    pub(crate) end_to_end: bool,
    pub(crate) server: ServerOptions,
    /// Once true, nothing more is asked.
    pub(crate) stop: Arc<AtomicBool>,
    runtime: tokio::runtime::Runtime,
}

impl BenchSession {
    /// From pixels to labels, of models that are not scored.
    pub(crate) fn new(images: BenchImages) -> anyhow::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("the threads of the benchmark could not be started")?;
        let server = ServerOptions { model: None, patience: Duration::from_secs(60) };
        Ok(Self { images, labeled: None, end_to_end: false, server, stop: Arc::default(), runtime })
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Fails once a signal has come.
    pub(super) fn go_on(&self) -> anyhow::Result<()> {
        ensure!(!self.is_stopped(), STOPPED);
        Ok(())
    }

    /// The pictures.
    pub(crate) fn images(&self) -> &BenchImages {
        &self.images
    }

    /// Opens a model for a scenario.
    pub(crate) fn open(
        &self,
        wanted: &TargetSpec,
        scenario: Scenario,
    ) -> anyhow::Result<OpenTarget> {
        let end_to_end = self.end_to_end;
        match &wanted.place {
            TargetLocation::InProcess(bundle, options) => {
                options.check()?;
                let config = options.clone();
                let how = OpenOptions { config, end_to_end, stop: Arc::clone(&self.stop) };
                Ok(OpenTarget::InProcess(Box::new(InProcessTarget::open(
                    bundle,
                    scenario,
                    &self.images,
                    &how,
                )?)))
            }
            TargetLocation::Http(url) => {
                let key = std::env::var(KEY_VARIABLE).ok();
                let ServerOptions { model, patience } = &self.server;
                let server = HttpTarget::open(
                    url,
                    model.as_deref(),
                    key,
                    &self.images,
                    end_to_end,
                    *patience,
                );
                Ok(OpenTarget::Http(Box::new(self.runtime.block_on(server)?)))
            }
        }
    }

    /// Measures a model under one scenario; after a signal, what came until then, if anything did.
    pub(crate) fn point(
        &self,
        asked: &OpenTarget,
        measure: &Measurement,
    ) -> anyhow::Result<ScenarioResult> {
        // Without a GPU, or a driver that tells, nothing is known.
        let watch = asked.gpu().and_then(|number| GpuMonitor::start(number).ok());
        let measured =
            self.runtime.block_on(measure.run(&StoppableTarget { asked, stop: &self.stop }));
        let point = match (measured, self.is_stopped()) {
            (Ok(point), true) if !point.samples.latency_ms.is_empty() => truncated_by_signal(point),
            (_, true) => bail!(STOPPED),
            (measured, false) => measured?,
        };
        let seen = watch.map(GpuMonitor::stop).unwrap_or_default();
        let pictures = (point.samples.latency_ms.len() + point.warm_up.queries)
            * point.scenario.images_per_query();
        let energy = seen.joules.zip(seen.watts);
        let energy = energy
            .map(|(joules, watts)| Energy { joules_per_image: joules / pictures as f64, watts });
        Ok(ScenarioResult {
            energy,
            peak_device_bytes: seen.peak_memory,
            ..with_setup(asked, point)
        })
    }

    /// Measures two models in so many pairs of blocks.
    pub(crate) fn interleaved(
        &self,
        measure: &Measurement,
        sides: [(&str, &OpenTarget); 2],
        pairs: usize,
    ) -> anyhow::Result<([ScenarioResult; 2], AbComparison)> {
        let stoppable = sides.map(|(_, asked)| StoppableTarget { asked, stop: &self.stop });
        let named = [(sides[0].0, &stoppable[0]), (sides[1].0, &stoppable[1])];
        let measured = self.runtime.block_on(ab::measure(measure, named, pairs));
        self.go_on()?;
        let ([a, b], against) = measured?;
        Ok(([with_setup(sides[0].1, a), with_setup(sides[1].1, b)], against))
    }
}

/// A point that a signal ended. What was asked after it was not answered for that alone.
fn truncated_by_signal(point: ScenarioResult) -> ScenarioResult {
    let asked = point.first_error.as_deref() == Some(STOPPED);
    let (failed, first_error) = if asked { (0, None) } else { (point.failed, point.first_error) };
    let unstable = Some("cut short by a signal".to_owned());
    ScenarioResult { failed, first_error, unstable, ..point }
}

/// A point with what is known of how it was measured.
fn with_setup(asked: &OpenTarget, point: ScenarioResult) -> ScenarioResult {
    let setup = asked.setup();
    ScenarioResult {
        sessions: setup.map(|[sessions, _]| sessions),
        threads: setup.map(|[_, threads]| threads),
        ..point
    }
}
