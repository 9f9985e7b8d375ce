//! Opens what is to be measured, and measures it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use protoseg_infer::benchmark::in_process::{HowOpened, InProcess, ModelFacts};
use protoseg_infer::benchmark::load::Until;
use protoseg_infer::benchmark::material::Material;
use protoseg_infer::benchmark::measure::{Measure, WarmUpRule};
use protoseg_infer::benchmark::report::{Accuracy, Point, Report, Run, Subject};
use protoseg_infer::benchmark::scenario::Scenario;
use protoseg_infer::pipeline::PipelineOptions;
use protoseg_infer::service::models::name_of;

use super::accuracy::{self, Labelled};
use super::plan::Planned;
use super::sweep::combinations;
use super::{Arguments, Failure};
use crate::commands::engine_arguments::EngineArguments;
use crate::commands::engine_options::Options;
use crate::commands::say;

/// Fewest queries of a scenario that is measured for a time.
const LEAST_QUERIES: usize = 3;

/// Clients for finding out what a model can do, for each of its sessions: one that is run, and one that waits.
const CLIENTS_A_SESSION: usize = 2;

/// Measures everything that was asked for.
pub(super) fn run(arguments: &Arguments) -> Result<Report, Failure> {
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let material = arguments.pictures.open().map_err(Failure::Usage)?;
    let labelled = arguments.labelled().map_err(Failure::Usage)?;
    let combinations = combinations(&arguments.engine.given, &arguments.sweep);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.context("the threads of the benchmark could not be started")?;
    let mut runs = Vec::new();
    for (options, name) in combinations {
        let bench = Bench { arguments, material: &material, labelled: labelled.as_ref(), runtime: &runtime };
        runs.push(bench.run(&options, &name)?);
    }
    let program = format!("protoseg {}", env!("CARGO_PKG_VERSION"));
    Ok(Report { version: Report::VERSION, program, began, runs })
}

struct Bench<'a> {
    arguments: &'a Arguments,
    material: &'a Material,
    labelled: Option<&'a Labelled>,
    runtime: &'a tokio::runtime::Runtime,
}

impl Bench<'_> {
    /// One way to run the model, under every scenario.
    fn run(&self, options: &Options, name: &str) -> Result<Run, Failure> {
        let pipeline = EngineArguments::of(options).and_then(|engine| engine.options(0)).map_err(Failure::Usage)?;
        let how = HowOpened { pipeline, end_to_end: self.arguments.end_to_end };
        let mut points: Vec<Point> = Vec::new();
        let mut facts = None;
        for planned in self.arguments.scenarios() {
            let scenario = match planned {
                Planned::Known(scenario) => scenario,
                Planned::Share(_) => Scenario::Server { rate: 1.0 },
            };
            let bundle = self.arguments.bundle()?;
            let target = InProcess::open(bundle, scenario, self.material, &how).map_err(Failure::usage)?;
            let scenario = match planned {
                Planned::Known(scenario) => scenario,
                Planned::Share(share) => Scenario::Server { rate: share * self.capacity(&target)? },
            };
            say(format_args!("{}{scenario}", if name.is_empty() { String::new() } else { format!("{name}: ") }));
            let point = self.runtime.block_on(self.measure(scenario).of(&target)).map_err(anyhow::Error::from)?;
            facts.get_or_insert_with(|| target.facts().clone());
            points.push(point);
        }
        let facts = facts.context("no scenario was asked for")?;
        let accuracy = self.accuracy(&facts.file, &how.pipeline);
        Ok(Run { subject: self.subject(options, name, facts, accuracy)?, points })
    }

    fn measure(&self, scenario: Scenario) -> Measure {
        let until = match self.arguments.queries {
            Some(queries) => Until::Queries(queries),
            None => Until::Time(Duration::from_secs_f64(self.arguments.time), LEAST_QUERIES),
        };
        Measure {
            scenario,
            warm_up: self.arguments.warm_up(),
            until,
            seed: self.arguments.seed,
            pixels: self.material.mean_pixels(),
        }
    }

    /// Pictures in a second that a target answers when it always has some to do.
    fn capacity(&self, target: &InProcess) -> anyhow::Result<f64> {
        let clients = CLIENTS_A_SESSION * target.facts().setup.sessions;
        let until = match self.arguments.queries {
            Some(_) => Until::Queries(2 * clients),
            None => Until::Time(Duration::from_secs_f64(self.arguments.time / 2.0), 2 * clients),
        };
        let warm_up = WarmUpRule::Queries(clients);
        let measure = Measure { warm_up, until, ..self.measure(Scenario::Clients { clients }) };
        Ok(self.runtime.block_on(measure.of(target))?.images_a_second)
    }

    fn accuracy(&self, file: &str, options: &PipelineOptions) -> Accuracy {
        match (&self.arguments.bundle, self.arguments.no_accuracy) {
            (Some(bundle), false) => accuracy::of(bundle, file, options, self.labelled),
            _ => Accuracy { missing: Some("it was not asked for".to_owned()), ..Accuracy::default() },
        }
    }

    fn subject(&self, options: &Options, name: &str, facts: ModelFacts, accuracy: Accuracy) -> anyhow::Result<Subject> {
        let bundle = self.arguments.bundle()?;
        let ModelFacts { setup, first_seconds, fingerprint, file, precision, pieces } = facts;
        let model = name_of(bundle).unwrap_or_default();
        let name = if name.is_empty() { model } else { format!("{model}, {name}") };
        let devices: Vec<String> = setup.devices.iter().map(ToString::to_string).collect();
        Ok(Subject {
            name,
            bundle: Some(bundle.clone()),
            url: None,
            model: fingerprint,
            file: Some(file),
            precision: precision.map(|precision| precision.name().to_owned()),
            device: Some(devices.join(", ")),
            options: options.clone(),
            pictures: self.material.describe(),
            windows: pieces.0,
            pixel_ratio: pieces.1,
            end_to_end: self.arguments.end_to_end,
            sessions: setup.sessions,
            threads: setup.threads,
            open_seconds: Some(setup.seconds),
            first_seconds: Some(first_seconds),
            nodes: std::collections::BTreeMap::new(),
            accuracy,
            peak_host_bytes: None,
            peak_device_bytes: None,
        })
    }
}

impl Arguments {
    fn labelled(&self) -> anyhow::Result<Option<Labelled>> {
        if self.data.data.is_none() {
            return Ok(None);
        }
        Ok(Some(Labelled { set: self.data.open()?, name: self.data.describe() }))
    }
}
