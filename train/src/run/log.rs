//! Log of a run: a progress bar on the terminal, JSON lines in `log.jsonl`, scalars for
//! TensorBoard.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use protoseg_models::{atomic, metrics::Metrics};
use serde::Serialize;

use crate::method::class_counters::ClassStatistics;
use crate::method::step::StepReport;
use crate::progress::Progress;
use crate::run::Score;
use crate::run::tensorboard::EventFile;

/// One line of `log.jsonl`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum LogLine<'a> {
    Step(StepMeans),
    Classes { step: u64, classes: Vec<ClassStatistics> },
    Score { step: u64, which: &'a str, mean_iou: Option<f64>, metrics: &'a Metrics },
    Saved { step: u64, what: &'a str },
}

/// Progress bar and log files of a run.
pub struct RunLog {
    bar: ProgressBar,
    files: Option<LogFiles>,
    since_line: Accumulated,
    last_step: Instant,
}

struct LogFiles {
    path: PathBuf,
    lines: File,
    events: EventFile,
}

/// The step of a line of the log.
fn step_of(line: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(line).ok()?.get("step")?.as_u64()
}

/// Means over the steps since the last line.
#[derive(Debug, Serialize)]
struct StepMeans {
    step: u64,
    #[serde(flatten)]
    means: StepReport,
    seconds_per_step: f64,
    waited_share: f64,
}

impl StepMeans {
    /// TensorBoard tags and values.
    fn scalars(&self) -> [(&'static str, Option<f64>); 11] {
        let StepReport { terms, loss, learning_rate, kept_share, confidence, .. } = &self.means;
        [
            ("loss/total", Some(*loss)),
            ("loss/labeled", Some(terms.labeled)),
            ("loss/auxiliary", terms.auxiliary),
            ("loss/unlabeled", terms.unlabeled),
            ("loss/prototype labeled", terms.prototype_labeled),
            ("loss/prototype unlabeled", terms.prototype_unlabeled),
            ("unlabeled/kept share", *kept_share),
            ("unlabeled/confidence", *confidence),
            ("run/learning rate", Some(*learning_rate)),
            ("run/seconds a step", Some(self.seconds_per_step)),
            ("run/waited share", Some(self.waited_share)),
        ]
    }
}

/// Sums over the steps since the last line.
struct Accumulated {
    start: Instant,
    waited: Duration,
    steps: u64,
    sum: Option<StepReport>,
}

impl Accumulated {
    fn new() -> Self {
        Self { start: Instant::now(), waited: Duration::ZERO, steps: 0, sum: None }
    }
}

impl RunLog {
    /// Shows a bar for a run that has done `first` of its steps; no file is written yet.
    pub fn new(first: u64, steps: u64) -> Result<Self> {
        let style = ProgressStyle::with_template("{wide_bar} step {pos}/{len}, {eta} left, {msg}");
        let bar = ProgressBar::new(steps).with_position(first);
        bar.set_style(style.context("the progress bar's template")?);
        bar.reset_eta();
        Ok(Self { bar, files: None, since_line: Accumulated::new(), last_step: Instant::now() })
    }

    /// Opens `log.jsonl` and `tensorboard/` in a run's folder. Lines of an earlier part of the run
    /// stay up to step `first`.
    pub fn open(&mut self, folder: &Path, first: u64) -> Result<()> {
        let path = folder.join("log.jsonl");
        let earlier = std::fs::read_to_string(&path).unwrap_or_default();
        let is_kept = |line: &&str| step_of(line).is_some_and(|step| step <= first && first > 0);
        let kept: String = earlier.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect();
        let lines = atomic::write(&path, kept.as_bytes())
            .and_then(|()| OpenOptions::new().append(true).open(&path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        let tensorboard = folder.join("tensorboard");
        let events = EventFile::create(&tensorboard, first + 1)
            .with_context(|| format!("cannot write {}", tensorboard.display()))?;
        self.files = Some(LogFiles { path, lines, events });
        self.since_line = Accumulated::new();
        self.last_step = Instant::now();
        Ok(())
    }

    /// Counts a step, and writes a line where one is `due`; returns true if it did. `waited` is the
    /// time that the trainer waited for its batches.
    pub fn step(
        &mut self,
        done: u64,
        report: &StepReport,
        waited: Duration,
        due: bool,
    ) -> Result<bool> {
        self.bar.set_position(done);
        self.last_step = Instant::now();
        self.since_line.steps += 1;
        self.since_line.waited += waited;
        match &mut self.since_line.sum {
            Some(sum) => sum.add(report),
            None => self.since_line.sum = Some(report.clone()),
        }
        if !due {
            return Ok(false);
        }
        let Accumulated { start, waited, steps, sum } =
            std::mem::replace(&mut self.since_line, Accumulated::new());
        let Some(mut means) = sum else { return Ok(false) };
        means.scale(1.0 / steps as f64);
        means.learning_rate = report.learning_rate;
        let seconds = start.elapsed().as_secs_f64();
        self.bar.set_message(format!("loss {:.3}", means.loss));
        let means = StepMeans {
            step: done,
            means,
            seconds_per_step: seconds / steps as f64,
            waited_share: waited.as_secs_f64() / seconds,
        };
        for (tag, value) in means.scalars() {
            self.scalar(tag, done, value)?;
        }
        self.write(&LogLine::Step(means))?;
        Ok(true)
    }

    /// Logs the counts of each class since the last such line.
    pub fn classes(&mut self, step: u64, classes: Vec<ClassStatistics>) -> Result<()> {
        for class in &classes {
            for (statistic, value) in [
                ("pseudo label share", class.pseudo_share),
                ("pseudo label accuracy", class.pseudo_accuracy),
                ("gate share", class.gate_share),
                ("own cosine", class.own_cosine),
                ("other cosine", class.other_cosine),
            ] {
                self.scalar(&format!("{statistic}/{}", class.name), step, value)?;
            }
        }
        self.write(&LogLine::Classes { step, classes })
    }

    fn scalar(&mut self, tag: &str, step: u64, value: Option<f64>) -> Result<()> {
        let (Some(value), Some(files)) = (value, &mut self.files) else { return Ok(()) };
        files
            .events
            .scalar(tag, step, value)
            .context("cannot write to tensorboard/; is the disk full?")
    }

    /// Logs a score.
    pub fn score(&mut self, which: &str, metrics: &Metrics) -> Result<()> {
        let mean_iou = metrics.scores.mean_iou;
        self.say(&format!(
            "step {}: mIoU of the {which} on {} {}",
            metrics.step,
            metrics.data,
            metrics.scores.mean_text()
        ));
        self.pause();
        // The last word of the data's name is the name of the list.
        let list = metrics.data.rsplit(' ').next().unwrap_or_default();
        self.scalar(&format!("mIoU {list}/{which}"), metrics.step, mean_iou)?;
        for class in metrics.scores.classes.iter().filter(|_| which == "teacher") {
            self.scalar(&format!("IoU {list}/{}", class.name), metrics.step, class.iou)?;
        }
        self.write(&LogLine::Score { step: metrics.step, which, mean_iou, metrics })
    }

    /// Logs that something was saved.
    pub fn saved(&mut self, step: u64, what: &str) -> Result<()> {
        self.pause();
        self.write(&LogLine::Saved { step, what })
    }

    /// Excludes the time since the last step from the next line, as it was not spent on training.
    pub fn pause(&mut self) {
        let now = Instant::now();
        self.since_line.start += now - self.last_step;
        self.last_step = now;
    }

    /// Progress of something beside the steps, shown in the bar.
    pub fn progress(&self, verb: &str, unit: &'static str, parts: usize) -> Progress {
        Progress::new(&self.bar, verb, unit, parts)
    }

    /// Reads the scores of a step from the log; of scores that were logged twice, the last.
    pub fn scores_at(&self, step: u64) -> Result<Vec<Score>> {
        let Some(files) = &self.files else { return Ok(Vec::new()) };
        let text = std::fs::read_to_string(&files.path)
            .with_context(|| format!("cannot read {}", files.path.display()))?;
        let mut scores: Vec<Score> = Vec::new();
        for line in text.lines() {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            if value["event"] != "score" || value["step"].as_u64() != Some(step) {
                continue;
            }
            let Ok(score) = serde_json::from_value::<Score>(value) else { continue };
            let same = |other: &Score| {
                (&other.which, &other.metrics.data) == (&score.which, &score.metrics.data)
            };
            scores.retain(|other| !same(other));
            scores.push(score);
        }
        Ok(scores)
    }

    /// Prints a line to stderr, above the bar.
    pub fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn write(&mut self, line: &LogLine) -> Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        files.lines.write_all(text.as_bytes()).context("cannot write log.jsonl; is the disk full?")
    }
}
