//! Ablation grid: a run for each combination of values of some keys, and a table of their scores.
//!
//! Runs whose warm-ups do not differ share one. A grid that was stopped resumes where it was.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Error, Result, ensure};
use protoseg_models::atomic;
use protoseg_models::digest;
use protoseg_models::metrics::Metrics;

use crate::config::Config;
use crate::config::resume::changes;
use crate::data::lists::Lists;
use crate::method::schedule::Schedule;
use crate::run::fit::fit;
use crate::run::state;
use crate::run::stop::StopReason;
use crate::run::{NothingBegun, RunOptions, RunOutcome, Score};

/// A key and its values, parsed from `key=one,two`.
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
            "`--ablate {text}`: a value is empty; write `key=one,two`"
        );
        Ok(Self { key: key.trim().to_owned(), values })
    }
}

/// A run of the grid.
struct GridRun {
    /// Values of the axes, such as `mode=prototype`.
    settings: Vec<String>,
    config: Config,
}

/// Trains every combination in its own folder below `options.out` and writes `ablation.md` there.
///
/// Returns the table, or the reason why the grid stopped early.
pub fn run(
    path: &Path,
    settings: &[String],
    axes: &[AblationAxis],
    options: &RunOptions,
) -> Result<Result<String, StopReason>> {
    let runs = grid(path, settings, axes).map_err(NothingBegun)?;
    let is_finished = |run: &&GridRun| options.out.join(folder(run)).join(SCORES).is_file();
    for run in runs.iter().filter(is_finished) {
        check_config(&run.config, &options.out.join(folder(run))).map_err(NothingBegun)?;
    }
    let mut rows = Vec::new();
    let mut begun = false;
    for run in &runs {
        let out = options.out.join(folder(run));
        let scores = out.join(SCORES);
        if !scores.is_file() {
            eprintln!("== {}", run.settings.join(" "));
            let trained = train(run, &out, options, &mut begun);
            match trained.map_err(|error| if begun { of_a_begun_grid(error) } else { error })? {
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
        rows.push((run.settings.clone(), found.into_iter().map(|score| score.metrics).collect()));
    }
    let table = table(axes, &rows);
    atomic::write(&options.out.join("ablation.md"), table.as_bytes())?;
    Ok(Ok(table))
}

/// The error of a run that did not begin, in a grid of which others did.
fn of_a_begun_grid(error: Error) -> Error {
    error.downcast::<NothingBegun>().map_or_else(|other| other, |NothingBegun(error)| error)
}

/// Refuses a finished run that was trained with another configuration.
fn check_config(config: &Config, out: &Path) -> Result<()> {
    let path = out.join("config.toml");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let trained: Config = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let changed = changes(&serde_json::to_value(&trained)?, &serde_json::to_value(config)?);
    ensure!(
        trained == *config,
        "{} was trained with another configuration ({changed}); choose another --out",
        out.display()
    );
    Ok(())
}

/// Scores of a finished run of the grid.
const SCORES: &str = "scores.json";

fn grid(path: &Path, settings: &[String], axes: &[AblationAxis]) -> Result<Vec<GridRun>> {
    let mut combinations: Vec<Vec<String>> = vec![Vec::new()];
    for axis in axes {
        let extended = combinations.iter().flat_map(|before| {
            axis.values
                .iter()
                .map(|value| [before.as_slice(), &[format!("{}={value}", axis.key)]].concat())
        });
        combinations = extended.collect();
    }
    let runs = combinations.into_iter().map(|own| {
        let config = Config::read(path, &[settings, &own].concat())?;
        Ok(GridRun { settings: own, config })
    });
    let runs: Vec<GridRun> = runs.collect::<Result<_>>()?;
    for (index, run) in runs.iter().enumerate() {
        let name = folder(run);
        ensure!(
            runs[..index].iter().all(|other| folder(other) != name),
            "two runs of the grid would share the folder `{name}`; give values that differ in \
             more than slashes"
        );
    }
    Ok(runs)
}

/// Name of a run's folder.
fn folder(run: &GridRun) -> String {
    run.settings.join(" ").replace(['/', '\\'], "_")
}

/// Trains a run, from its saved state or from the warm-up that it shares; sets `begun` after steps.
fn train(run: &GridRun, out: &Path, options: &RunOptions, begun: &mut bool) -> Result<RunOutcome> {
    let state = out.join("state");
    atomic::recover(&state)?;
    if !state.exists() {
        let schedule = schedule(&run.config).map_err(NothingBegun)?;
        let warmup = schedule.warmup;
        if warmup > 0 && warmup < schedule.steps {
            let shared = warm_up(run, warmup, options);
            *begun |= has_begun(&shared);
            match shared? {
                Ok(shared) => state::fork(&shared, &state, &run.config)?,
                Err(stop) => return Ok(RunOutcome::Stopped(stop)),
            }
        }
    }
    let options = RunOptions { out: out.to_owned(), resume: state.exists(), ..options.clone() };
    let outcome = fit(&run.config, &options);
    *begun |= has_begun(&outcome);
    outcome
}

fn schedule(config: &Config) -> Result<Schedule> {
    let lists = Lists::open(config)?;
    let unlabeled = lists.unlabeled.as_ref().map(|set| set.count());
    Schedule::new(config, lists.labeled.count(), unlabeled)
}

fn has_begun<T>(outcome: &Result<T>) -> bool {
    outcome.as_ref().err().is_none_or(|error| !error.is::<NothingBegun>())
}

/// Trains the shared warm-up of a run to its end, unless that has been done.
///
/// Returns the folder of its state, or the reason why it stopped early.
fn warm_up(
    run: &GridRun,
    warmup: u64,
    options: &RunOptions,
) -> Result<Result<PathBuf, StopReason>> {
    let key = serde_json::to_vec(&run.config.warmup_keys()?)?;
    let out = options.out.join(format!("warmup-{}", &digest::sha256_bytes(&key)[..8]));
    let state = out.join("state");
    let done = state::steps_done(&state)?;
    if done.is_none_or(|done| done < warmup) {
        let shared =
            RunOptions { out, resume: done.is_some(), stop_after: Some(warmup), ..options.clone() };
        match fit(&run.config.for_warmup()?, &shared)? {
            RunOutcome::Stopped(StopReason::Step)
            | RunOutcome::Finished(_)
            | RunOutcome::Planned => {}
            RunOutcome::Stopped(stop) => return Ok(Err(stop)),
        }
    }
    Ok(Ok(state))
}

/// Markdown table with a line for each run: its values, the mIoU on each list, and their mean.
fn table(axes: &[AblationAxis], rows: &[(Vec<String>, Vec<Metrics>)]) -> String {
    let mut text = String::from("|");
    for axis in axes {
        let _ = write!(text, " {} |", axis.key);
    }
    let lists: Vec<&str> = rows
        .first()
        .map(|(_, metrics)| metrics.iter().map(|metrics| metrics.data.as_str()).collect())
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
        let scores: Vec<f64> =
            metrics.iter().filter_map(|metrics| metrics.scores.mean_iou).collect();
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
    use crate::config::crop_size::CropSize;

    #[test]
    fn a_grid_has_every_combination() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/synthetic.toml");
        let axes: Vec<AblationAxis> = ["seed=1, 2,3", "mode=supervised,prototype"]
            .iter()
            .map(|axis| axis.parse().unwrap())
            .collect();
        let runs = grid(&path, &["crop=96".to_owned()], &axes).unwrap();
        let named: Vec<String> = runs.iter().map(|run| run.settings.join(" ")).collect();
        assert_eq!(
            (named.len(), named[1].as_str(), named[4].as_str()),
            (6, "seed=1 mode=prototype", "seed=3 mode=supervised")
        );
        assert!(runs.iter().all(|run| run.config.crop == CropSize::square(96)));
        assert_eq!(runs[2].config.for_warmup().unwrap(), runs[3].config.for_warmup().unwrap());
        for wrong in ["mode", "mode=", "mode=a,,b"] {
            assert!(wrong.parse::<AblationAxis>().is_err(), "{wrong}");
        }
    }
}
