//! Reads a run's log. Lines that are torn or of an unknown kind are passed over.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use protoseg_models::metrics::Metrics;
use serde::Deserialize;

/// Those that are scored, in the order in which they are shown; any others follow.
const KNOWN: [&str; 3] = ["teacher", "student", "prototype head"];

/// What a run's log says, each kind of line by itself and in the order of steps.
#[derive(Debug, Default)]
pub(super) struct ParsedLog {
    pub(super) steps: Vec<StepLine>,
    pub(super) classes: Vec<ClassesLine>,
    pub(super) scores: Vec<ScoreLine>,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum ParsedLine {
    Step(StepLine),
    Classes(ClassesLine),
    Score(ScoreLine),
    #[serde(other)]
    Other,
}

/// Means over the steps since the last such line. Loss terms are those before weighting.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StepLine {
    pub(super) step: u64,
    /// The weighted sum that is minimised.
    pub(super) loss: Option<f64>,
    pub(super) labeled: Option<f64>,
    pub(super) auxiliary: Option<f64>,
    pub(super) unlabeled: Option<f64>,
    pub(super) prototype_labeled: Option<f64>,
    pub(super) prototype_unlabeled: Option<f64>,
    /// Of the valid unlabelled pixels those that enter the unlabelled loss, in [0, 1].
    pub(super) kept_share: Option<f64>,
    /// The teacher's mean confidence, in [0, 1].
    pub(super) confidence: Option<f64>,
    pub(super) learning_rate: Option<f64>,
    #[serde(alias = "seconds_a_step")]
    pub(super) seconds_per_step: Option<f64>,
    /// Share of the time in which the trainer waited for its batch.
    pub(super) waited_share: Option<f64>,
}

/// What happened to each class since the last such line.
#[derive(Debug, Deserialize)]
pub(super) struct ClassesLine {
    pub(super) step: u64,
    pub(super) classes: Vec<ClassLine>,
}

/// One class of a [`ClassesLine`]. Shares and accuracies are in [0, 1].
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ClassLine {
    pub(super) name: String,
    /// Share of the pseudo labels that are this class.
    pub(super) pseudo_share: Option<f64>,
    /// Share of these that are right.
    pub(super) pseudo_accuracy: Option<f64>,
    /// Share of its points that are above the confidence gate.
    pub(super) gate_share: Option<f64>,
    pub(super) own_cosine: Option<f64>,
    /// Of the nearest other class's prototype.
    pub(super) other_cosine: Option<f64>,
    /// Points assigned to each of its prototypes.
    pub(super) hits: Option<Vec<Option<f64>>>,
}

/// A score.
#[derive(Debug, Deserialize)]
pub(super) struct ScoreLine {
    pub(super) step: u64,
    /// Whose it is.
    pub(super) which: String,
    pub(super) metrics: Metrics,
}

impl ParsedLog {
    /// Reads `log.jsonl`.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let unread = || format!("cannot read {}", path.display());
        let mut reader = BufReader::new(File::open(path).with_context(unread)?);
        let mut log = Self::default();
        let mut line = Vec::new();
        // By bytes: a killed run may have torn a character.
        while reader.read_until(b'\n', &mut line).with_context(unread)? > 0 {
            match serde_json::from_slice(&line) {
                Ok(ParsedLine::Step(step)) => log.steps.push(step),
                Ok(ParsedLine::Classes(classes)) => log.classes.push(classes),
                Ok(ParsedLine::Score(score)) => log.scores.push(score),
                Ok(ParsedLine::Other) | Err(_) => {}
            }
            line.clear();
        }
        log.steps.sort_by_key(|line| line.step);
        log.classes.sort_by_key(|line| line.step);
        log.scores.sort_by_key(|line| line.step);
        Ok(log)
    }

    /// The last step that anything was logged at.
    pub(super) fn last_step(&self) -> u64 {
        let last = [
            self.steps.last().map(|line| line.step),
            self.classes.last().map(|line| line.step),
            self.scores.last().map(|line| line.step),
        ];
        last.into_iter().flatten().max().unwrap_or(0)
    }

    /// Seconds that the steps took.
    pub(super) fn seconds(&self) -> f64 {
        let mut before = 0;
        let mut seconds = 0.0;
        for line in &self.steps {
            seconds += line.seconds_per_step.unwrap_or(0.0) * (line.step - before) as f64;
            before = line.step;
        }
        seconds
    }

    /// What was scored on, in the order of the log.
    pub(super) fn data(&self) -> Vec<&str> {
        distinct(self.scores.iter().map(|line| line.metrics.data.as_str()))
    }

    /// Whose scores there are.
    pub(super) fn scored(&self) -> Vec<&str> {
        let mut scored = distinct(self.scores.iter().map(|line| line.which.as_str()));
        scored.sort_by_key(|which| {
            KNOWN.iter().position(|known| known == which).unwrap_or(KNOWN.len())
        });
        scored
    }

    /// The scores of one on one kind of data.
    pub(super) fn scores_of(&self, which: &str, data: &str) -> Vec<&ScoreLine> {
        self.scores.iter().filter(|line| line.which == which && line.metrics.data == data).collect()
    }

    /// The classes of [`ClassesLine`]s.
    pub(super) fn class_names(&self) -> Vec<&str> {
        distinct(
            self.classes.iter().flat_map(|line| &line.classes).map(|class| class.name.as_str()),
        )
    }

    /// A value of one class at every [`ClassesLine`].
    pub(super) fn of_class<'a, T>(
        &'a self,
        name: &str,
        value: impl Fn(&'a ClassLine) -> Option<T>,
    ) -> Vec<(u64, Option<T>)> {
        // Nearly always in the same place as in the line before.
        let mut place = 0;
        let mut of = |line: &'a ClassesLine| {
            if line.classes.get(place).is_none_or(|class| class.name != name) {
                place = line.classes.iter().position(|class| class.name == name)?;
            }
            value(line.classes.get(place)?)
        };
        self.classes.iter().map(|line| (line.step, of(line))).collect()
    }
}

/// Each once, in the order of first appearance.
pub(super) fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| seen.insert(*name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_and_unknown_lines_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let mut text = br#"{"event":"step","step":40,"loss":null,"seconds_a_step":0.5,"later":[1]}
{"event":"step","step":20,"loss":1.5,"seconds_a_step":1}

{"event":"saved","step":20,"what":"state"}
{"event":"unheard of"}
nonsense
{"event":"classes","step":20,"classes":[{"name":"a","hits":[1,null]},{"name":"b"}]}
{"event":"score","step":60,"which":"other","mean_iou":null,"metrics":{"data":"d","protocol":"whole","images":1,"step":60,"scores":{"mean_iou":null,"pixel_accuracy":null,"classes":[]}}}
{"event":"score","step":60,"which":"teacher","metrics":{"data":"d","protocol":"whole","images":1,"step":60,"scores":{"mean_iou":1,"pixel_accuracy":null,"classes":[]}}}
{"event":"step","step":80,"loss":1.2,"name":""#.to_vec();
        text.push(0xc3);
        std::fs::write(&path, text).unwrap();
        let log = ParsedLog::read(&path).unwrap();
        assert_eq!(
            log.steps.iter().map(|line| (line.step, line.loss)).collect::<Vec<_>>(),
            [(20, Some(1.5)), (40, None)]
        );
        assert_eq!((log.last_step(), log.seconds()), (60, 30.0));
        assert_eq!(
            (log.data(), log.scored(), log.class_names()),
            (vec!["d"], vec!["teacher", "other"], vec!["a", "b"])
        );
        assert_eq!(
            log.of_class("a", |class| class.hits.as_deref()),
            [(20, Some(&[Some(1.0), None][..]))]
        );
        assert!(
            ParsedLog::read(&folder.path().join("absent"))
                .unwrap_err()
                .to_string()
                .contains("absent")
        );
    }
}
