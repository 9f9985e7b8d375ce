//! `protoseg bench`: how long a model takes, on this machine or behind an address, and how sure that is.

mod accuracy;
mod pictures;
mod plan;
mod run;
mod sweep;

use std::path::PathBuf;

use anyhow::{anyhow, ensure};
use protoseg_infer::benchmark::measure::WarmUpRule;
use protoseg_infer::benchmark::stability::Rule;
use protoseg_infer::session;

use super::data::DataArguments;
use super::engine_options::GivenEngine;
use super::{Failure, Outcome, print, print_json};

use self::pictures::PictureArguments;
use self::plan::{Kind, Rate};
use self::sweep::Sweep;

/// Measure how long a model takes
///
/// Asks a model for labels as the scenarios say: single-stream (one picture at a time), multi-stream (a query of several
/// pictures), clients (several who ask in turns), offline (all pictures are there), server (pictures come at random moments;
/// latency counts from when each was due). Latency goes from pixels in memory to labels in memory, or with --end-to-end from
/// picture files to label files. Figures that did not settle, or that drifted, are marked UNSTABLE. The same run checks what the
/// model answers, as a fast wrong model is worth nothing.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    /// Bundle folder, or an ONNX file that `protoseg export` wrote
    #[arg(required = true)]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    engine: GivenEngine,
    /// What to measure, any of these
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["single-stream", "offline"])]
    scenario: Vec<Kind>,
    /// Pictures of a query in the multi-stream scenario
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values = ["8"], value_parser = super::few)]
    samples: Vec<std::num::NonZeroUsize>,
    /// Clients of the clients scenario
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values = ["4"], value_parser = super::few)]
    clients: Vec<std::num::NonZeroUsize>,
    /// Pictures in a second that come in the server scenario: numbers, or shares such as 70% of what the model can do
    #[arg(long, value_name = "N|P%,…", value_delimiter = ',', default_values = ["70%"])]
    rate: Vec<Rate>,
    /// Measure for each value of an option of the engine, such as precision=fp32,int8 or threads=1,2; several make every
    /// combination
    #[arg(long, value_name = "OPTION=VALUE,…")]
    sweep: Vec<Sweep>,
    #[command(flatten)]
    pictures: PictureArguments,
    /// Decode picture files and encode label files as part of every query
    #[arg(long)]
    end_to_end: bool,
    /// Seconds for which each scenario is measured
    #[arg(long, value_name = "S", default_value_t = 10.0, conflicts_with = "queries")]
    time: f64,
    /// Queries of each scenario, instead of a time
    #[arg(long, value_name = "N", value_parser = super::pictures())]
    queries: Option<usize>,
    /// Queries before those that count, instead of as many as it takes until three stretches in a row are alike
    #[arg(long, value_name = "N")]
    warm_up: Option<usize>,
    /// Seed of the moments at which pictures come
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    data: DataArguments,
    /// Do not check what the model answers
    #[arg(long)]
    no_accuracy: bool,
    /// Write the report with every sample, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    arguments.check().map_err(Failure::Usage)?;
    session::load_runtime().map_err(Failure::usage)?;
    let report = run::run(arguments)?;
    if arguments.json {
        print_json(&report)?;
    } else {
        print(format!("{report:?}"))?;
    }
    Ok(Outcome::Done)
}

impl Arguments {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (0.1..=86_400.0).contains(&self.time),
            "--time: {} s is no time from 0.1 s to a day; name a number of --queries for a single one",
            self.time
        );
        Ok(())
    }

    fn bundle(&self) -> anyhow::Result<&PathBuf> {
        self.bundle.as_ref().ok_or_else(|| anyhow!("name a bundle"))
    }

    fn warm_up(&self) -> WarmUpRule {
        match self.warm_up {
            Some(queries) => WarmUpRule::Queries(queries),
            None => WarmUpRule::Stable(Rule { seconds: (self.time / 5.0).clamp(0.1, 2.0), queries: 3, ..Rule::default() }),
        }
    }
}
