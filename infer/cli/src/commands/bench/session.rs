//! What measurements share: the pictures, and the threads that put load on models.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use protoseg_bench::against::Against;
use protoseg_bench::blocks;
use protoseg_bench::in_process::{HowOpened, InProcess};
use protoseg_bench::material::Material;
use protoseg_bench::measure::Measure;
use protoseg_bench::remote::Remote;
use protoseg_bench::report::{Energy, Point};
use protoseg_bench::scenario::Scenario;
use protoseg_infer::machine::gpu::Watch;

use super::accuracy::Labelled;
use super::asked::{Asked, Place, STOPPED, Stoppable, Wanted};
use crate::commands::engine_arguments::EngineArguments;
use crate::commands::serve::KEY_VARIABLE;

/// How a server is asked.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Its model; the first where none is named.
    pub(crate) model: Option<String>,
    /// How long an answer is waited for.
    pub(crate) patience: Duration,
}

/// Pictures and threads.
pub(crate) struct Session {
    pub(super) material: Material,
    /// Labelled pictures that models are scored on.
    pub(crate) labelled: Option<Labelled>,
    /// Whether picture files are decoded and label files encoded.
    pub(crate) end_to_end: bool,
    pub(crate) server: Server,
    /// Once true, nothing more is asked.
    pub(crate) stop: Arc<AtomicBool>,
    runtime: tokio::runtime::Runtime,
}

impl Session {
    /// From pixels to labels, of models that are not scored.
    pub(crate) fn new(material: Material) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("the threads of the benchmark could not be started")?;
        let server = Server { model: None, patience: Duration::from_secs(60) };
        Ok(Self { material, labelled: None, end_to_end: false, server, stop: Arc::default(), runtime })
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
    pub(crate) fn material(&self) -> &Material {
        &self.material
    }

    /// Opens a model for a scenario.
    pub(crate) fn open(&self, wanted: &Wanted, scenario: Scenario) -> anyhow::Result<Asked> {
        let end_to_end = self.end_to_end;
        match &wanted.place {
            Place::Here(bundle, options) => {
                let pipeline = EngineArguments::of(options)?.options(0)?;
                let how = HowOpened { pipeline, end_to_end, stop: Arc::clone(&self.stop) };
                Ok(Asked::Here(Box::new(InProcess::open(bundle, scenario, &self.material, &how)?)))
            }
            Place::There(url) => {
                let key = std::env::var(KEY_VARIABLE).ok();
                let Server { model, patience } = &self.server;
                let server = Remote::open(url, model.as_deref(), key, &self.material, end_to_end, *patience);
                Ok(Asked::There(Box::new(self.runtime.block_on(server)?)))
            }
        }
    }

    /// Measures a model under one scenario; after a signal, what came until then, if anything did.
    pub(crate) fn point(&self, asked: &Asked, measure: &Measure) -> anyhow::Result<Point> {
        // Without a GPU, or a driver that tells, nothing is known.
        let watch = asked.gpu().and_then(|number| Watch::start(number).ok());
        let measured = self.runtime.block_on(measure.of(&Stoppable { asked, stop: &self.stop }));
        let point = match (measured, self.is_stopped()) {
            (Ok(point), true) if !point.samples.latency_ms.is_empty() => cut_short(point),
            (_, true) => bail!(STOPPED),
            (measured, false) => measured?,
        };
        let seen = watch.map(Watch::stop).unwrap_or_default();
        let pictures = (point.samples.latency_ms.len() + point.warm_up.queries) * point.scenario.pictures_a_query();
        let energy = seen.joules.zip(seen.watts);
        let energy = energy.map(|(joules, watts)| Energy { joules_an_image: joules / pictures as f64, watts });
        Ok(Point { energy, peak_device_bytes: seen.peak_memory, ..of(asked, point) })
    }

    /// Measures two models in so many pairs of blocks.
    pub(crate) fn in_turns(
        &self,
        measure: &Measure,
        sides: [(&str, &Asked); 2],
        pairs: usize,
    ) -> anyhow::Result<([Point; 2], Against)> {
        let stoppable = sides.map(|(_, asked)| Stoppable { asked, stop: &self.stop });
        let named = [(sides[0].0, &stoppable[0]), (sides[1].0, &stoppable[1])];
        let measured = self.runtime.block_on(blocks::measure(measure, named, pairs));
        self.go_on()?;
        let ([a, b], against) = measured?;
        Ok(([of(sides[0].1, a), of(sides[1].1, b)], against))
    }
}

/// A point that a signal ended. What was asked after it was not answered for that alone.
fn cut_short(point: Point) -> Point {
    let asked = point.first_error.as_deref() == Some(STOPPED);
    let (failed, first_error) = if asked { (0, None) } else { (point.failed, point.first_error) };
    let unstable = Some("cut short by a signal".to_owned());
    Point { failed, first_error, unstable, ..point }
}

/// A point with what is known of how it was measured.
fn of(asked: &Asked, point: Point) -> Point {
    let setup = asked.setup();
    Point { sessions: setup.map(|[sessions, _]| sessions), threads: setup.map(|[_, threads]| threads), ..point }
}
