//! What a run is worth so far: scores, and the checkpoints and states that are written.

use anyhow::{Result, bail};
use protoseg_models::checkpoint::{Checkpoint, Header};
use protoseg_models::metrics::Metrics;
use protoseg_models::weights::StateDict;
use protoseg_pictures::labelled::LabelledSet;

use crate::calibrate;
use crate::evaluate::{self, Predictor};
use crate::first_prototypes::feature_node;
use crate::fit::Trainer;
use crate::net::{self, Net};
use crate::probe;
use crate::state::{SavedPrototypes, State};

impl Trainer<'_> {
    /// The network that counts: the teacher, once there is one.
    fn scored(&self) -> (&'static str, &Net) {
        if self.taught { ("teacher", &self.teacher) } else { ("student", &self.student) }
    }

    /// Scores the network that counts on the validation list, the student and the prototypes beside it, and keeps the best
    /// so far.
    pub(crate) fn score(&mut self, done: u64) -> Result<Option<Metrics>> {
        let Some(validation) = &self.lists.validation else { return Ok(None) };
        let data = format!("{} validation", self.config.name);
        let metrics = self.score_on(validation, &data, done)?;
        if metrics.scores.mean_iou > self.best {
            self.best = metrics.scores.mean_iou;
            self.checkpoint(Some(metrics.clone()))?.write(&self.run.out.join("best"))?;
            self.log.saved(done, "best")?;
        }
        Ok(Some(metrics))
    }

    fn score_on(&mut self, samples: &LabelledSet, data: &str, done: u64) -> Result<Metrics> {
        let measure = |predictor: Predictor| -> Result<Metrics> {
            let scored = evaluate::metrics(predictor, samples, &self.lists.classes, self.protocol, |_, _| {})?;
            Ok(scored.named(data, done))
        };
        let (which, net) = self.scored();
        let metrics = measure(Predictor::Linear(net))?;
        let mut beside = Vec::new();
        if self.taught {
            beside.push(("student", measure(Predictor::Linear(&self.student))?));
        }
        if let Some(prototypes) = &self.prototypes {
            let node = feature_node(self.teacher.graph(), self.config.features)?;
            beside.push(("prototype head", measure(Predictor::Prototypes(&self.teacher, node, prototypes))?));
        }
        for (which, metrics) in &beside {
            self.log.score(which, metrics)?;
        }
        self.log.score(which, &metrics)?;
        Ok(metrics)
    }

    /// The scores of the last step, and the checkpoint.
    pub(crate) fn finish(&mut self) -> Result<Vec<Metrics>> {
        let done = self.schedule.steps;
        let metrics = self.score(done)?;
        let unlabeled = self.lists.unlabeled_truth.as_ref();
        let data = format!("{} unlabeled", self.config.name);
        let transductive = unlabeled.map(|samples| self.score_on(samples, &data, done)).transpose()?;
        self.log.say("recording probe and calibration");
        let mut checkpoint = self.checkpoint(metrics.clone())?;
        let pictures = self.config.calibration_pictures;
        let record = || calibrate::record(&self.teacher, &self.lists.labeled, pictures, &self.config.name);
        checkpoint.calibration = (pictures > 0).then(record).transpose()?;
        checkpoint.write(&self.run.out.join("checkpoint"))?;
        Ok([metrics, transductive].into_iter().flatten().collect())
    }

    fn checkpoint(&self, metrics: Option<Metrics>) -> Result<Checkpoint> {
        let (_, net) = self.scored();
        Ok(Checkpoint {
            header: Header::new(&self.config.name, self.arch, self.lists.classes.clone(), self.config.window),
            weights: finite(net.state_dict()?)?,
            probe: probe::record(net, self.protocol.grid)?,
            calibration: None,
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
        let state = State {
            step,
            best: self.best,
            student: finite(self.student.state_dict()?)?,
            teacher: self.taught.then(|| self.teacher.state_dict()).transpose()?,
            velocity: self.sgd.state_dict()?,
            prototypes: prototypes.transpose()?,
        };
        state.write(&self.run.out.join("state"), self.config)?;
        self.log.saved(step, "state")
    }
}

/// The weights, if they are numbers.
fn finite(weights: StateDict) -> Result<StateDict> {
    let broken = weights.iter().find(|(_, tensor)| !tensor.data.iter().all(|value| value.is_finite()));
    if let Some((name, _)) = broken {
        bail!("`{name}` is not finite: lower `learning_rate` or `head_multiplier`");
    }
    Ok(weights)
}
