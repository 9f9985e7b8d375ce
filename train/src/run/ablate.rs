//! A grid of runs: one for each combination of values of some keys, and one table of their scores.
//!
//! Runs that agree in all that their warm-up depends on share it. A grid that was stopped goes on where it was.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Error, Result, ensure};
use protoseg_models::atomic;
use protoseg_models::digest;
use protoseg_models::metrics::Metrics;

use crate::config::Config;
use crate::data::lists::Lists;
use crate::method::schedule::Schedule;
use crate::run::fit::fit;
use crate::run::state::{RunState, changes};
use crate::run::stop::StopReason;
use crate::run::{RunOptions, RunOutcome, Score};

/// A key and its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AblationAxis {
    key: String,
    values: Vec<String>,
}

impl FromStr for AblationAxis {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (key, values) = text
            .split_once('=')
            .with_context(|| format!("`--ablate {text}`: write `key=one,two`"))?;
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        ensure!(
            values.iter().all(|value| !value.is_empty()),
            "`--ablate {text}`: a value is empty"
        );
        Ok(Self { key: key.trim().to_owned(), values })
    }
}

/// A run of the grid.
struct GridRun {
    /// Its settings, such as `mode=prototype`.
    settings: Vec<String>,
    config: Config,
}

/// Trains every combination in a folder of its own below `run.out` and writes `ablation.md` there.
///
/// Returns the table, or why the grid ended early.
pub fn run(
    path: &Path,
    settings: &[String],
    axes: &[AblationAxis],
    run: &RunOptions,
) -> Result<Result<String, StopReason>> {
    let cells = cells(path, settings, axes)?;
    let mut rows = Vec::new();
    for cell in &cells {
        let out = run.out.join(folder(cell));
        let scores = out.join(SCORES);
        if scores.is_file() {
            check_config(&cell.config, &out)?;
        } else {
            eprintln!("== {}", cell.settings.join(" "));
            match train(cell, &out, run)? {
                RunOutcome::Finished(found) => {
                    atomic::write(&scores, &serde_json::to_vec_pretty(&found)?)?;
                }
                RunOutcome::Planned => {}
                RunOutcome::Stopped(stop) => return Ok(Err(stop)),
            }
        }
        let text =
            std::fs::read(&scores).with_context(|| format!("cannot read {}", scores.display()))?;
        let mut found: Vec<Score> = serde_json::from_slice(&text)?;
        found.retain(|score| score.which == "teacher");
        rows.push((cell.settings.clone(), found.into_iter().map(|score| score.metrics).collect()));
    }
    let table = table(axes, &rows);
    atomic::write(&run.out.join("ablation.md"), table.as_bytes())?;
    Ok(Ok(table))
}

/// Refuses to take a finished run for one that would be trained otherwise.
fn check_config(config: &Config, out: &Path) -> Result<()> {
    let path = out.join("config.toml");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let trained: Config = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let changed = changes(&serde_json::to_value(&trained)?, &serde_json::to_value(config)?);
    ensure!(
        trained == *config,
        "{} was trained under another configuration ({changed}): choose another --out",
        out.display()
    );
    Ok(())
}

/// Scores of a finished run of the grid.
const SCORES: &str = "scores.json";

fn cells(path: &Path, settings: &[String], axes: &[AblationAxis]) -> Result<Vec<GridRun>> {
    let mut combinations: Vec<Vec<String>> = vec![Vec::new()];
    for axis in axes {
        let extended = combinations.iter().flat_map(|before| {
            axis.values
                .iter()
                .map(|value| [before.as_slice(), &[format!("{}={value}", axis.key)]].concat())
        });
        combinations = extended.collect();
    }
    let cell = |own: Vec<String>| -> Result<GridRun> {
        let config = Config::read(path, &[settings, &own].concat())?;
        Ok(GridRun { settings: own, config })
    };
    let cells: Vec<GridRun> = combinations.into_iter().map(cell).collect::<Result<_>>()?;
    for (index, cell) in cells.iter().enumerate() {
        let same = cells[..index].iter().find(|other| folder(other) == folder(cell));
        ensure!(same.is_none(), "two runs of the grid would share the folder `{}`", folder(cell));
    }
    Ok(cells)
}

/// The name of a run's folder.
fn folder(cell: &GridRun) -> String {
    cell.settings.join(" ").replace(['/', '\\'], "_")
}

/// Trains a run, from where it was left, or from the warm-up that it shares.
fn train(cell: &GridRun, out: &Path, run: &RunOptions) -> Result<RunOutcome> {
    let state = out.join("state");
    atomic::recover(&state)?;
    if !state.exists() {
        let lists = Lists::open(&cell.config)?;
        let unlabeled = lists.unlabeled.as_ref().map(|set| set.count());
        let schedule = Schedule::new(&cell.config, lists.labeled.count(), unlabeled)?;
        let warmup = schedule.warmup;
        if warmup > 0 && warmup < schedule.steps {
            match warm_up(cell, warmup, run)? {
                Ok(shared) => RunState::fork(&shared, &state, &cell.config)?,
                Err(stop) => return Ok(RunOutcome::Stopped(stop)),
            }
        }
    }
    fit(&cell.config, &RunOptions { out: out.to_owned(), resume: state.exists(), ..run.clone() })
}

/// Trains the warm-up of a run up to its end, unless that has been done.
///
/// Returns the folder of its state, or why it ended early.
fn warm_up(cell: &GridRun, warmup: u64, run: &RunOptions) -> Result<Result<PathBuf, StopReason>> {
    let key = serde_json::to_vec(&cell.config.warmup_keys()?)?;
    let out = run.out.join(format!("warmup-{}", &digest::sha256_bytes(&key)[..8]));
    let state = out.join("state");
    let done = RunState::step(&state)?;
    if done.is_none_or(|done| done < warmup) {
        let shared =
            RunOptions { out, resume: done.is_some(), stop_after: Some(warmup), ..run.clone() };
        match fit(&cell.config.for_warmup()?, &shared)? {
            RunOutcome::Stopped(StopReason::Step)
            | RunOutcome::Finished(_)
            | RunOutcome::Planned => {}
            RunOutcome::Stopped(stop) => return Ok(Err(stop)),
        }
    }
    Ok(Ok(state))
}

/// A line for each run: its settings, its scores on each list, and their mean.
fn table(axes: &[AblationAxis], rows: &[(Vec<String>, Vec<Metrics>)]) -> String {
    let mut text = String::from("|");
    for axis in axes {
        let _ = write!(text, " {} |", axis.key);
    }
    let lists: Vec<&str> = rows
        .first()
        .map(|(_, metrics)| metrics.iter().map(|of| of.data.as_str()).collect())
        .unwrap_or_default();
    for list in &lists {
        let _ = write!(text, " {list} |");
    }
    let _ = writeln!(text, " mean |\n|{}", " --- |".repeat(axes.len() + lists.len() + 1));
    for (settings, metrics) in rows {
        text.push('|');
        for setting in settings {
            let _ = write!(text, " {} |", setting.split_once('=').map_or("", |(_, value)| value));
        }
        let scores: Vec<f64> = metrics.iter().filter_map(|of| of.scores.mean_iou).collect();
        for score in &scores {
            let _ = write!(text, " {score:.2} |");
        }
        let _ = writeln!(text, " {:.2} |", scores.iter().sum::<f64>() / scores.len().max(1) as f64);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_has_every_combination() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/synthetic.toml");
        let axes: Vec<AblationAxis> = ["seed=1, 2,3", "mode=supervised,prototype"]
            .iter()
            .map(|axis| axis.parse().unwrap())
            .collect();
        let cells = cells(&path, &["crop=96".to_owned()], &axes).unwrap();
        let named: Vec<String> = cells.iter().map(|cell| cell.settings.join(" ")).collect();
        assert_eq!(
            (named.len(), named[1].as_str(), named[4].as_str()),
            (6, "seed=1 mode=prototype", "seed=3 mode=supervised")
        );
        assert!(cells.iter().all(|cell| cell.config.crop == 96));
        assert_eq!(cells[2].config.for_warmup().unwrap(), cells[3].config.for_warmup().unwrap());
        for wrong in ["mode", "mode=", "mode=a,,b"] {
            assert!(wrong.parse::<AblationAxis>().is_err(), "{wrong}");
        }
    }
}
