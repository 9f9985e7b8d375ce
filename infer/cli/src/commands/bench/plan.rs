//! Which scenarios are measured, and at which rates.

use std::num::NonZeroUsize;
use std::str::FromStr;

use clap::ValueEnum;
use protoseg_bench::load::Scenario;

use super::BenchArgs;

/// The scenarios by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ScenarioKind {
    /// One picture at a time
    SingleStream,
    /// A query of several pictures at a time
    MultiStream,
    /// Several clients who ask in turns
    Clients,
    /// All pictures are there from the start
    Offline,
    /// Pictures come at random moments
    Server,
}

/// Pictures in a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ArrivalRate {
    /// So many.
    Absolute(f64),
    /// So large a share of what the model can do.
    Share(f64),
}

/// Pictures in a second, or percent: one in a quarter of an hour, and more than anything answers.
const LEAST: f64 = 1e-3;
const MOST: f64 = 1e6;

impl FromStr for ArrivalRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "write pictures in a second such as 12.5, or a share of what the model can do such as 70%".to_owned()
        };
        let number =
            |text: &str| text.parse().ok().filter(|number: &f64| (LEAST..=MOST).contains(number));
        match text.strip_suffix('%') {
            Some(share) => number(share).map(|share| Self::Share(share / 100.0)).ok_or_else(wrong),
            None => number(text).map(Self::Absolute).ok_or_else(wrong),
        }
    }
}

/// Pictures of a query, clients, and the rate at which pictures come, where nobody says otherwise.
const SAMPLES: usize = 8;
const CLIENTS: usize = 4;
const RATE: ArrivalRate = ArrivalRate::Share(0.7);

/// A scenario whose rate may not be known yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum PlannedScenario {
    /// It is known.
    Known(Scenario),
    /// Pictures come at a share of what the model can do.
    Share(f64),
}

impl PlannedScenario {
    /// The scenario, where the rate does not matter.
    pub(super) fn shape(self) -> Scenario {
        match self {
            Self::Known(scenario) => scenario,
            Self::Share(rate) => Scenario::Server { rate },
        }
    }

    /// The scenario, where it can be measured piece by piece.
    pub(super) fn in_blocks(self) -> Option<Scenario> {
        Some(self.shape()).filter(|scenario| !matches!(scenario, Scenario::Server { .. }))
    }
}

/// What was named, or the usual number.
fn counts(named: &[NonZeroUsize], usual: usize) -> impl Iterator<Item = usize> {
    let usual = named.is_empty().then_some(usual);
    named.iter().map(|count| count.get()).chain(usual)
}

impl BenchArgs {
    /// The scenarios, in the order in which they were named.
    pub(super) fn scenarios(&self) -> Vec<PlannedScenario> {
        let known = |scenario| PlannedScenario::Known(scenario);
        let of_kind = |kind: &ScenarioKind| -> Vec<PlannedScenario> {
            match kind {
                ScenarioKind::SingleStream => vec![known(Scenario::SingleStream)],
                ScenarioKind::Offline => vec![known(Scenario::Offline)],
                ScenarioKind::MultiStream => {
                    let counts = counts(&self.samples, SAMPLES);
                    counts.map(|samples| known(Scenario::MultiStream { samples })).collect()
                }
                ScenarioKind::Clients => {
                    let counts = counts(&self.clients, CLIENTS);
                    counts.map(|clients| known(Scenario::Clients { clients })).collect()
                }
                ScenarioKind::Server => {
                    let planned = |rate: &ArrivalRate| match *rate {
                        ArrivalRate::Absolute(rate) => known(Scenario::Server { rate }),
                        ArrivalRate::Share(share) => PlannedScenario::Share(share),
                    };
                    let rates = if self.rate.is_empty() { &[RATE][..] } else { &self.rate };
                    rates.iter().map(planned).collect()
                }
            }
        };
        let mut planned: Vec<PlannedScenario> = Vec::new();
        for one in self.scenario.iter().flat_map(of_kind) {
            // Whoever names one twice wants it once.
            if !planned.contains(&one) {
                planned.push(one);
            }
        }
        planned
    }
}
