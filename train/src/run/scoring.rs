//! What a run is worth so far: scores, and the checkpoints and states that are written.

use anyhow::{Result, bail};
use protoseg_images::labeled::LabeledDataset;
use protoseg_models::checkpoint::{Checkpoint, CheckpointHeader};
use protoseg_models::graph::NodeId;
use protoseg_models::metrics::{ConfusionMatrix, Metrics};
use protoseg_models::weights::StateDict;
use serde::{Deserialize, Serialize};

use crate::calibrate;
use crate::config::options::Precision;
use crate::evaluate::{self, Predictor};
use crate::method::prototype_init::feature_node;
use crate::method::prototypes::Prototypes;
use crate::net::{self, Net};
use crate::probe;
use crate::report;
use crate::run::fit::Trainer;
use crate::run::sample_images;
use crate::run::state::{RunState, SavedPrototypes};

/// Mean IoU of pictures by their position in the list, in [0, 1].
type ImageScores = Vec<(usize, f64)>;

/// A score, and whose it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// `teacher`, `student` or `prototype head`.
    pub which: String,
    /// The score.
    pub metrics: Metrics,
}

impl Trainer<'_> {
    /// The network that counts: the teacher, once there is one.
    fn evaluated_net(&self) -> (&'static str, &Net) {
        if self.teacher_ready { ("teacher", &self.teacher) } else { ("student", &self.student) }
    }

    /// Scores the network that counts on the validation list, the student and the prototypes beside it, and keeps the best
    /// so far.
    ///
    /// All scores are returned, that of the network that counts first; none where there is no validation list.
    pub(crate) fn score(&mut self, done: u64) -> Result<Vec<Score>> {
        let Some(validation) = &self.lists.validation else {
            report::write(&self.run.out, &self.config.name, &[])?;
            self.write_pseudo_labels(done)?;
            return Ok(Vec::new());
        };
        let data = format!("{} validation", self.config.name);
        let (scores, pictures) = self.score_on(validation, &data, done)?;
        let metrics = &scores[0].metrics;
        if metrics.scores.mean_iou > self.best {
            self.best = metrics.scores.mean_iou;
            self.checkpoint(Some(metrics.clone()))?.write(&self.run.out.join("best"))?;
            self.log.saved(done, "best")?;
        }
        let shown = sample_images::choose(pictures);
        let predictor = Predictor::Linear(self.evaluated_net().1);
        let shown = sample_images::render(
            predictor,
            validation,
            &self.lists.classes,
            self.protocol,
            &shown,
        )?;
        report::write(&self.run.out, &self.config.name, &shown)?;
        self.write_pseudo_labels(done)?;
        self.log.pause();
        Ok(scores)
    }

    /// Writes what the teacher makes of some unlabelled pictures, if that is wanted.
    fn write_pseudo_labels(&self, done: u64) -> Result<()> {
        let Some(unlabeled) =
            self.lists.unlabeled.as_ref().filter(|_| self.config.dumped_images > 0)
        else {
            return Ok(());
        };
        let folder = self.run.out.join("pseudo-labels").join(done.to_string());
        let predictor = Predictor::Linear(self.evaluated_net().1);
        let count = self.config.dumped_images;
        sample_images::write_pseudo_labels(
            predictor,
            unlabeled,
            &self.lists.classes,
            self.protocol,
            count,
            &folder,
        )
    }

    /// The scores of the network that counts, of the student and of the prototypes, and the mean IoU of each picture under
    /// the first.
    fn score_on(
        &mut self,
        samples: &LabeledDataset,
        data: &str,
        done: u64,
    ) -> Result<(Vec<Score>, ImageScores)> {
        let exact = |net: &Net| net.with_precision(Precision::Float32);
        let (teacher, student) = (exact(&self.teacher), exact(&self.student));
        let (which, net) =
            if self.teacher_ready { ("teacher", &teacher) } else { ("student", &student) };
        let mut pictures = ImageScores::new();
        let mut measure = |which: &str, predictor: Predictor, keep: bool| -> Result<Score> {
            let seen = |index: usize, confusion: &ConfusionMatrix| {
                pictures.extend(confusion.mean_iou().filter(|_| keep).map(|score| (index, score)));
                self.run.watch.due().is_none()
            };
            let scored =
                evaluate::score(predictor, samples, &self.lists.classes, self.protocol, seen)?;
            Ok(Score { which: which.to_owned(), metrics: scored.into_metrics(data, done) })
        };
        let mut scores = vec![measure(which, Predictor::Linear(net), true)?];
        if self.teacher_ready {
            scores.push(measure("student", Predictor::Linear(&student), false)?);
        }
        if let Some(prototypes) = &self.prototypes {
            let node = feature_node(teacher.graph(), self.config.features)?;
            scores.push(measure(
                "prototype head",
                Predictor::Prototypes(&teacher, node, prototypes),
                false,
            )?);
        }
        for score in &scores {
            self.log.score(&score.which, &score.metrics)?;
        }
        Ok((scores, pictures))
    }

    /// The scores of the last step, and the checkpoint.
    pub(crate) fn finish(&mut self) -> Result<Vec<Score>> {
        let done = self.schedule.steps;
        // First, as the report is written with the scores of the validation list.
        let unlabeled = match &self.lists.unlabeled_truth {
            Some(unlabeled) => {
                self.score_on(unlabeled, &format!("{} unlabeled", self.config.name), done)?.0
            }
            None => Vec::new(),
        };
        let mut scores = self.score(done)?;
        let metrics = scores.first().map(|score| score.metrics.clone());
        scores.extend(unlabeled);
        self.log.say("recording probe and calibration");
        let mut checkpoint = self.checkpoint(metrics)?;
        let pictures = self.config.calibration_images;
        let exact = self.teacher.with_precision(Precision::Float32);
        let record = || calibrate::record(&exact, &self.lists.labeled, pictures, &self.config.name);
        checkpoint.calibration = (pictures > 0).then(record).transpose()?;
        checkpoint.write(&self.run.out.join("checkpoint"))?;
        Ok(scores)
    }

    fn checkpoint(&self, metrics: Option<Metrics>) -> Result<Checkpoint> {
        let net = self.evaluated_net().1.with_precision(Precision::Float32);
        let prototypes = match &self.prototypes {
            Some(prototypes) => {
                Some((feature_node(net.graph(), self.config.features)?, prototypes))
            }
            None => None,
        };
        let publish = |(node, prototypes): (NodeId, &Prototypes)| {
            prototypes.published(&net.graph().node(node).name)
        };
        Ok(Checkpoint {
            header: CheckpointHeader::new(
                &self.config.name,
                self.arch,
                self.lists.classes.clone(),
                self.config.window,
            ),
            weights: finite(net.state_dict()?)?,
            probe: probe::record(&net, self.protocol.grid, prototypes)?,
            calibration: None,
            prototypes: prototypes.map(publish).transpose()?,
            metrics,
            config: toml::to_string(self.config)?,
        })
    }

    /// Saves what going on needs.
    pub(crate) fn save(&mut self, step: u64) -> Result<()> {
        let prototypes = self.prototypes.as_ref().map(|prototypes| -> Result<SavedPrototypes> {
            Ok(SavedPrototypes {
                values: net::from_torch(prototypes.values())?,
                mean: net::from_torch(prototypes.mean())?,
                counters: prototypes.counters(),
            })
        });
        let state = RunState {
            step,
            best: self.best,
            student: finite(self.student.state_dict()?)?,
            teacher: self.teacher_ready.then(|| self.teacher.state_dict()).transpose()?,
            velocity: self.sgd.state_dict()?,
            prototypes: prototypes.transpose()?,
            data: self.lists.digest(),
        };
        state.write(&self.run.out.join("state"), self.config)?;
        self.log.saved(step, "state")
    }
}

/// The weights, if they are numbers.
fn finite(weights: StateDict) -> Result<StateDict> {
    let broken =
        weights.iter().find(|(_, tensor)| !tensor.data.iter().all(|value| value.is_finite()));
    if let Some((name, _)) = broken {
        bail!("`{name}` is not finite: lower `learning_rate` or `head_multiplier`");
    }
    Ok(weights)
}
