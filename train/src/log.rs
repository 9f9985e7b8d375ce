//! What a run says while it goes: a progress bar for people, a JSON line per report for programs.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use protoseg_models::{atomic, metrics::Metrics};
use serde::Serialize;

use crate::step::Losses;

/// A line of `log.jsonl`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Step {
        step: u64,
        loss: f64,
        auxiliary_loss: Option<f64>,
        learning_rate: f64,
        seconds_a_step: f64,
        waited_share: f64,
    },
    Score {
        step: u64,
        which: &'a str,
        mean_iou: Option<f64>,
        metrics: &'a Metrics,
    },
    Saved {
        step: u64,
        what: &'a str,
    },
}

/// The bar and the file of a run.
pub struct Log {
    bar: ProgressBar,
    file: File,
    sums: Sums,
    last_step: Instant,
}

/// The step that a line of the log is about.
fn step_of(line: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(line).ok()?.get("step")?.as_u64()
}

/// Sums since the last line.
struct Sums {
    since: Instant,
    steps: u64,
    loss: f64,
    auxiliary: Option<f64>,
    waited: Duration,
}

impl Sums {
    fn new() -> Self {
        Self { since: Instant::now(), steps: 0, loss: 0.0, auxiliary: None, waited: Duration::ZERO }
    }
}

impl Log {
    /// Opens `log.jsonl` in a run's folder. Of the lines of an earlier part of the run, those up to step `first` stay.
    pub fn open(folder: &Path, first: u64, steps: u64) -> Result<Self> {
        let path = folder.join("log.jsonl");
        let earlier = std::fs::read_to_string(&path).unwrap_or_default();
        let kept = earlier.lines().filter(|line| step_of(line).is_some_and(|step| step <= first && first > 0));
        let kept: String = kept.flat_map(|line| [line, "\n"]).collect();
        let file = atomic::write(&path, kept.as_bytes());
        let file = file.and_then(|()| OpenOptions::new().append(true).open(&path));
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let style = ProgressStyle::with_template("{wide_bar} step {pos}/{len}, {eta} left, {msg}");
        let bar = ProgressBar::new(steps).with_position(first);
        bar.set_style(style.context("the progress bar's template")?);
        bar.reset_eta();
        Ok(Self { bar, file, sums: Sums::new(), last_step: Instant::now() })
    }

    /// Counts a step; every `every` steps a line is written. `waited` is the time that the trainer waited for its batch.
    pub fn step(&mut self, done: u64, losses: &Losses, waited: Duration, every: u64) -> Result<()> {
        self.bar.set_position(done);
        self.last_step = Instant::now();
        let sums = &mut self.sums;
        sums.steps += 1;
        sums.loss += losses.labeled;
        sums.waited += waited;
        if let Some(auxiliary) = losses.auxiliary {
            sums.auxiliary = Some(sums.auxiliary.unwrap_or(0.0) + auxiliary);
        }
        if !done.is_multiple_of(every) {
            return Ok(());
        }
        let sums = std::mem::replace(sums, Sums::new());
        let (steps, seconds) = (sums.steps as f64, sums.since.elapsed().as_secs_f64());
        let line = Line::Step {
            step: done,
            loss: sums.loss / steps,
            auxiliary_loss: sums.auxiliary.map(|sum| sum / steps),
            learning_rate: losses.learning_rate,
            seconds_a_step: seconds / steps,
            waited_share: sums.waited.as_secs_f64() / seconds,
        };
        self.bar.set_message(format!("loss {:.3}", sums.loss / steps));
        self.write(&line)
    }

    /// Notes a score.
    pub fn score(&mut self, which: &str, metrics: &Metrics) -> Result<()> {
        let mean_iou = metrics.scores.mean_iou;
        self.say(&format!(
            "step {}: mIoU of the {which} on {} {:.2}",
            metrics.step,
            metrics.data,
            mean_iou.unwrap_or(f64::NAN)
        ));
        self.pause();
        self.write(&Line::Score { step: metrics.step, which, mean_iou, metrics })
    }

    /// Notes that something was saved.
    pub fn saved(&mut self, step: u64, what: &str) -> Result<()> {
        self.pause();
        self.write(&Line::Saved { step, what })
    }

    /// Leaves the time since the last step, which was spent on something else, out of the next line's.
    fn pause(&mut self) {
        let now = Instant::now();
        self.sums.since += now - self.last_step;
        self.last_step = now;
    }

    /// Says a line to the person at the terminal, above the bar.
    pub fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn write(&mut self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).context("cannot write log.jsonl; is the disk full?")
    }
}
