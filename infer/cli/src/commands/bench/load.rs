//! Options of the load: scenarios, rates, times.

use std::num::NonZeroUsize;
use std::str::FromStr;

use anyhow::ensure;
use clap::ValueEnum;
use protoseg_bench::load::Scenario;
use protoseg_bench::run::PlannedScenario;

use super::A_DAY;
use crate::commands::{image_count, parse_count};

/// Defaults of `--samples`, `--clients` and `--rate`.
const SAMPLES: NonZeroUsize = NonZeroUsize::new(8).unwrap();
const CLIENTS: NonZeroUsize = NonZeroUsize::new(4).unwrap();
const RATE: ArrivalRate = ArrivalRate::Share(0.7);

/// Bounds of `--rate`, in images per second or percent.
const LEAST_RATE: f64 = 1e-3;
const LARGEST_RATE: f64 = 1e6;

#[derive(Debug, clap::Args)]
pub(super) struct LoadArgs {
    /// Scenarios to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["single-stream", "offline"])]
    scenario: Vec<ScenarioKind>,
    /// Images of a query in the multi-stream scenario [default: 8]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = parse_count)]
    samples: Vec<NonZeroUsize>,
    /// Clients in the clients scenario [default: 4]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = parse_count)]
    clients: Vec<NonZeroUsize>,
    /// Images per second in the server scenario: numbers, or shares such as 70% of the capacity,
    /// which is measured first; `bench compare` matches only numbers [default: 70%]
    #[arg(long, value_name = "N|P%,…", value_delimiter = ',')]
    rate: Vec<ArrivalRate>,
    /// Search for the largest rate of random arrivals whose 99th percentile of latency is at most
    /// this many milliseconds
    #[arg(long, value_name = "MS", conflicts_with = "against")]
    pub(super) latency_bound: Option<f64>,
    /// Seconds for each scenario
    #[arg(long, value_name = "S", default_value_t = 10.0, conflicts_with = "queries")]
    pub(super) time: f64,
    /// Queries of each scenario, instead of a time
    #[arg(long, value_name = "N", value_parser = image_count())]
    pub(super) queries: Option<usize>,
    /// Queries of the warm-up, instead of as many as it takes until three windows in a row are
    /// alike
    #[arg(long, value_name = "N")]
    pub(super) warm_up: Option<usize>,
    /// Seed of the random arrivals
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) arrival_seed: u64,
    /// Include decoding image files and encoding label files in every query
    #[arg(long)]
    pub(super) end_to_end: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScenarioKind {
    /// One image at a time
    SingleStream,
    /// Queries of several images
    MultiStream,
    /// Concurrent clients
    Clients,
    /// All images are there from the start
    Offline,
    /// Random arrivals
    Server,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum ArrivalRate {
    /// Images per second.
    Absolute(f64),
    /// Share of the model's capacity.
    Share(f64),
}

impl FromStr for ArrivalRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, is_share) = match text.strip_suffix('%') {
            Some(number) => (number, true),
            None => (text, false),
        };
        match number.parse() {
            Ok(number) if (LEAST_RATE..=LARGEST_RATE).contains(&number) => {
                Ok(if is_share { Self::Share(number / 100.0) } else { Self::Absolute(number) })
            }
            _ => {
                Err("write images per second such as 12.5, or a share of the capacity such as 70%"
                    .to_owned())
            }
        }
    }
}

impl LoadArgs {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let of_one_scenario = [
            ("--samples", !self.samples.is_empty(), ScenarioKind::MultiStream, "multi-stream"),
            ("--clients", !self.clients.is_empty(), ScenarioKind::Clients, "clients"),
            ("--rate", !self.rate.is_empty(), ScenarioKind::Server, "server"),
        ];
        for (option, is_given, kind, name) in of_one_scenario {
            ensure!(
                !is_given || self.scenario.contains(&kind),
                "{option} is for the {name} scenario; add it to --scenario"
            );
        }
        ensure!(
            self.latency_bound.is_none_or(|bound| (1e-3..=1e9).contains(&bound)),
            "--latency-bound is a number of milliseconds from 0.001 to 1e9"
        );
        ensure!(
            A_DAY.contains(&self.time),
            "--time: {} s is not between 0.1 s and a day; use --queries for a single one",
            self.time
        );
        Ok(())
    }

    /// The scenarios in the given order, without duplicates.
    pub(super) fn scenarios(&self) -> Vec<PlannedScenario> {
        fn or_default<T: Copy>(given: &[T], default: T) -> Vec<T> {
            if given.is_empty() { vec![default] } else { given.to_vec() }
        }
        let mut planned = Vec::new();
        let mut add = |scenario: PlannedScenario| {
            if !planned.contains(&scenario) {
                planned.push(scenario);
            }
        };
        for kind in &self.scenario {
            match kind {
                ScenarioKind::SingleStream => add(PlannedScenario::Known(Scenario::SingleStream)),
                ScenarioKind::Offline => add(PlannedScenario::Known(Scenario::Offline)),
                ScenarioKind::MultiStream => {
                    for samples in or_default(&self.samples, SAMPLES) {
                        let samples = samples.get();
                        add(PlannedScenario::Known(Scenario::MultiStream { samples }));
                    }
                }
                ScenarioKind::Clients => {
                    for clients in or_default(&self.clients, CLIENTS) {
                        let clients = clients.get();
                        add(PlannedScenario::Known(Scenario::Clients { clients }));
                    }
                }
                ScenarioKind::Server => {
                    for rate in or_default(&self.rate, RATE) {
                        add(match rate {
                            ArrivalRate::Absolute(rate) => {
                                PlannedScenario::Known(Scenario::Server { rate })
                            }
                            ArrivalRate::Share(share) => PlannedScenario::Share(share),
                        });
                    }
                }
            }
        }
        planned
    }
}
