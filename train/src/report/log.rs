//! Reads a run's log; torn lines and unknown events are skipped.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use protoseg_models::metrics::Metrics;
use serde::Deserialize;

/// Scored models in the order of the report; others follow.
const MODEL_ORDER: [&str; 3] = ["teacher", "student", "prototype head"];

/// The lines of a log by event, in the order of steps.
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

/// Means over the steps since the previous such line. Loss terms are unweighted, shares and the confidence in [0, 1].
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StepLine {
    pub(super) step: u64,
    pub(super) loss: Option<f64>,
    pub(super) labeled: Option<f64>,
    pub(super) auxiliary: Option<f64>,
    pub(super) unlabeled: Option<f64>,
    pub(super) prototype_labeled: Option<f64>,
    pub(super) prototype_unlabeled: Option<f64>,
    /// Of the valid unlabeled pixels, those that enter the unlabeled loss.
    pub(super) kept_share: Option<f64>,
    /// Mean of the teacher.
    pub(super) confidence: Option<f64>,
    pub(super) learning_rate: Option<f64>,
    #[serde(alias = "seconds_a_step")]
    pub(super) seconds_per_step: Option<f64>,
    /// Of the time, waiting for batches.
    pub(super) waited_share: Option<f64>,
}

/// Statistics since the previous such line.
#[derive(Debug, Deserialize)]
pub(super) struct ClassesLine {
    pub(super) step: u64,
    pub(super) classes: Vec<ClassLine>,
}

/// Shares and accuracies are in [0, 1].
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ClassLine {
    pub(super) name: String,
    /// Of all pseudo-labels, those of this class.
    pub(super) pseudo_share: Option<f64>,
    /// Of these, the correct ones.
    pub(super) pseudo_accuracy: Option<f64>,
    /// Of its sampled points, those above the confidence gate.
    pub(super) gate_share: Option<f64>,
    pub(super) own_cosine: Option<f64>,
    /// To the nearest prototype of another class.
    pub(super) other_cosine: Option<f64>,
    /// Points assigned to each of its prototypes.
    pub(super) hits: Option<Vec<Option<f64>>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ScoreLine {
    pub(super) step: u64,
    /// The model that was scored.
    pub(super) which: String,
    pub(super) metrics: Metrics,
}

impl ScoreLine {
    /// IoU of a class in percent.
    pub(super) fn iou(&self, class: &str) -> Option<f64> {
        self.metrics.scores.classes.iter().find(|found| found.name == class)?.iou
    }
}

impl ParsedLog {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let unread = || format!("cannot read {}", path.display());
        let mut reader = BufReader::new(File::open(path).with_context(unread)?);
        let mut log = Self::default();
        let mut line = Vec::new();
        // Bytes, as a killed run may have torn a character.
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

    pub(super) fn last_step(&self) -> u64 {
        let steps = self.steps.last().map_or(0, |line| line.step);
        let classes = self.classes.last().map_or(0, |line| line.step);
        let scores = self.scores.last().map_or(0, |line| line.step);
        steps.max(classes).max(scores)
    }

    /// Time of all steps.
    pub(super) fn seconds(&self) -> f64 {
        let mut previous = 0;
        let mut seconds = 0.0;
        for line in &self.steps {
            seconds += line.seconds_per_step.unwrap_or(0.0) * (line.step - previous) as f64;
            previous = line.step;
        }
        seconds
    }

    /// Names of the scored data sets, in the order of the log.
    pub(super) fn data(&self) -> Vec<&str> {
        distinct(self.scores.iter().map(|line| line.metrics.data.as_str()))
    }

    /// Names of the scored models.
    pub(super) fn models(&self) -> Vec<&str> {
        let mut models = distinct(self.scores.iter().map(|line| line.which.as_str()));
        models.sort_by_key(|which| {
            MODEL_ORDER.iter().position(|known| known == which).unwrap_or(MODEL_ORDER.len())
        });
        models
    }

    /// Scores of one model on one data set.
    pub(super) fn scores_of(&self, which: &str, data: &str) -> Vec<&ScoreLine> {
        self.scores.iter().filter(|line| line.which == which && line.metrics.data == data).collect()
    }

    pub(super) fn class_names(&self) -> Vec<&str> {
        distinct(
            self.classes.iter().flat_map(|line| &line.classes).map(|class| class.name.as_str()),
        )
    }

    /// Steps and values of one class, at every [`ClassesLine`].
    pub(super) fn of_class<'a, T>(
        &'a self,
        name: &str,
        value: impl Fn(&'a ClassLine) -> Option<T>,
    ) -> Vec<(u64, Option<T>)> {
        // Nearly always where it was in the previous line.
        let mut index = 0;
        let mut value_in = |line: &'a ClassesLine| {
            if line.classes.get(index).is_none_or(|class| class.name != name) {
                index = line.classes.iter().position(|class| class.name == name)?;
            }
            value(line.classes.get(index)?)
        };
        self.classes.iter().map(|line| (line.step, value_in(line))).collect()
    }
}

/// Names without repetitions, in the order of their first appearance.
pub(super) fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| seen.insert(*name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_and_unknown_lines_are_skipped() {
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
            (log.data(), log.models(), log.class_names()),
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
