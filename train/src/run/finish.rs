//! Everything beside the steps: scores, report, sample images, and the checkpoint at the end.
//!
//! The weights are in `checkpoint/` before anything that takes time begins; each part is added to it once it is complete. A
//! run that is stopped or killed on the way goes on there when it is resumed.

use anyhow::Result;
use protoseg_images::labeled::LabeledDataset;
use protoseg_models::checkpoint::Checkpoint;
use protoseg_models::window::Tiling;

use crate::calibrate::Calibrator;
use crate::config::options::Precision;
use crate::evaluate::Predictor;
use crate::interrupt::Interrupted;
use crate::report;
use crate::run::fit::Trainer;
use crate::run::memory::{Phase, in_phase};
use crate::run::scoring::{ImageScores, Scorer};
use crate::run::{RunOutcome, Score};
use crate::run::{checkpoint, sample_images};

/// Folder of the checkpoint of the last step.
pub(super) const CHECKPOINT: &str = "checkpoint";

/// Points of mIoU by which the teacher may be behind the student without a word.
const LAG: f64 = 5.0;

impl Trainer<'_> {
    /// Writes the checkpoint, then adds probe, scores and calibration to it.
    pub(super) fn finish(&mut self) -> Result<RunOutcome> {
        let fresh = checkpoint::weights_only(&self.learner, self.arch, &self.lists.classes)?;
        let mut checkpoint = checkpoint::continue_from(fresh, &self.options.out.join(CHECKPOINT));
        self.write(&checkpoint)?;
        self.log.saved(self.learner.schedule.steps, CHECKPOINT)?;
        if checkpoint.probe.is_empty() {
            checkpoint.probe = checkpoint::record_probe(&self.learner, self.arch)?;
            self.write(&checkpoint)?;
        }
        let scores = match self.logged_scores(&checkpoint)? {
            Some(scores) => scores,
            None => {
                let Some(scores) = unless_interrupted(self.score_lists())? else {
                    return Ok(self.stopped_while("scoring"));
                };
                // The validation list comes first.
                checkpoint.metrics = self
                    .lists
                    .validation
                    .as_ref()
                    .and_then(|_| scores.first().map(|score| score.metrics.clone()));
                self.write(&checkpoint)?;
                scores
            }
        };
        let images = self.config.calibration_images.min(self.lists.labeled.count());
        if images == 0 {
            checkpoint.calibration = None;
        } else if checkpoint.calibration.as_ref().is_none_or(|found| found.count != images) {
            let Some(calibration) = unless_interrupted(self.calibrate(images))? else {
                return Ok(self.stopped_while("calibrating"));
            };
            checkpoint.calibration = Some(calibration);
        } else {
            return Ok(RunOutcome::Finished(scores));
        }
        self.write(&checkpoint)?;
        Ok(RunOutcome::Finished(scores))
    }

    fn write(&self, checkpoint: &Checkpoint) -> Result<()> {
        Ok(checkpoint.write(&self.options.out.join(CHECKPOINT))?)
    }

    fn stopped_while(&self, doing: &str) -> RunOutcome {
        self.log.say(&format!(
            "stopped while {doing}; {CHECKPOINT}/ holds the weights, and --resume goes on there"
        ));
        self.stopped()
    }

    /// Scores the last step on every list.
    fn score_lists(&mut self) -> Result<Vec<Score>> {
        let steps = self.learner.schedule.steps;
        // The report is written with the scores of the validation list, so the other list comes first.
        let unlabeled = match &self.lists.unlabeled_truth {
            Some(unlabeled) => self.score(unlabeled, UNLABELED, steps)?.0,
            None => Vec::new(),
        };
        let mut scores = self.evaluate(steps)?;
        self.warn_of_lag(&scores);
        scores.extend(unlabeled);
        Ok(scores)
    }

    /// Says so where the average that ships is far behind the student.
    fn warn_of_lag(&self, scores: &[Score]) {
        let mean_iou =
            |which: &str| scores.iter().find(|score| score.which == which)?.metrics.scores.mean_iou;
        if let (Some(teacher), Some(student)) = (mean_iou("teacher"), mean_iou("student"))
            && student > teacher + LAG
        {
            self.log.say(&format!(
                "the student scores {student:.1} and the teacher, which ships, {teacher:.1}: its average is too long for \
                 {} steps after the warm-up; train longer, or lower `teacher_decay`, which is {}",
                self.learner.schedule.steps - self.learner.schedule.warmup,
                self.config.teacher_decay
            ));
        }
    }

    /// Returns the scores of the last step from the log, if an earlier end of this run got beyond them.
    fn logged_scores(&self, checkpoint: &Checkpoint) -> Result<Option<Vec<Score>>> {
        if checkpoint.metrics.is_none() {
            return Ok(None);
        }
        let logged = self.log.scores_at(self.learner.schedule.steps)?;
        let protocol = Tiling::from(self.protocol.window).to_string();
        let mut scores = Vec::new();
        for list in [
            self.lists.validation.as_ref().map(|_| VALIDATION),
            self.lists.unlabeled_truth.as_ref().map(|_| UNLABELED),
        ]
        .into_iter()
        .flatten()
        {
            let data = self.data_name(list);
            let of_list =
                |score: &&Score| score.metrics.data == data && score.metrics.protocol == protocol;
            let found: Vec<Score> = logged.iter().filter(of_list).cloned().collect();
            if found.is_empty() {
                return Ok(None);
            }
            scores.extend(found);
        }
        let complete = scores.first().map(|score| &score.metrics) == checkpoint.metrics.as_ref();
        Ok(complete.then_some(scores))
    }

    /// Name of a list's images in scores.
    fn data_name(&self, list: &str) -> String {
        format!("{} {list}", self.config.name)
    }

    fn calibrate(&self, images: usize) -> Result<protoseg_models::calibration::Calibration> {
        let (_, net) = self.learner.evaluated_net();
        let net =
            net.with_precision(Precision::Float32).interruptible(self.options.monitor.interrupt());
        let calibrator =
            Calibrator { net: &net, images: &self.lists.labeled, protocol: self.protocol };
        let progress = self.log.progress("calibrating", "parts", Calibrator::parts(images));
        in_phase(Phase::Calibration, || calibrator.record(images, &self.config.name, &progress))
    }

    /// Scores a list and logs the scores.
    fn score(
        &mut self,
        images: &LabeledDataset,
        list: &str,
        step: u64,
    ) -> Result<(Vec<Score>, ImageScores)> {
        let scorer = Scorer {
            classes: &self.lists.classes,
            protocol: self.protocol,
            interrupt: self.options.monitor.interrupt(),
        };
        let data = self.data_name(list);
        let parts = images.count() * Scorer::predictors(&self.learner);
        let progress = self.log.progress(&format!("scoring {list}"), "images", parts);
        let (scores, image_scores) = in_phase(Phase::Scoring, || {
            scorer.score(&self.learner, images, &data, step, &progress)
        })?;
        for score in &scores {
            self.log.score(&score.which, &score.metrics)?;
        }
        Ok((scores, image_scores))
    }

    /// Scores the validation list, if there is one; writes `best/` where the score is the best so far, the report and
    /// the sample pseudo-labels.
    pub(super) fn evaluate(&mut self, step: u64) -> Result<Vec<Score>> {
        let Some(validation) = &self.lists.validation else {
            report::write(&self.options.out, &self.config.name, &[])?;
            in_phase(Phase::Scoring, || self.write_pseudo_labels(step))?;
            return Ok(Vec::new());
        };
        let (scores, image_scores) = self.score(validation, VALIDATION, step)?;
        let metrics = &scores[0].metrics;
        if metrics.scores.mean_iou > self.best {
            self.best = metrics.scores.mean_iou;
            let best = checkpoint::from_learner(
                &self.learner,
                self.arch,
                &self.lists.classes,
                Some(metrics.clone()),
            )?;
            best.write(&self.options.out.join("best"))?;
            self.log.saved(step, "best")?;
        }
        let net = self.evaluated_net();
        let shown = in_phase(Phase::Scoring, || {
            sample_images::render(
                Predictor::linear(&net, self.protocol),
                validation,
                &self.lists.classes,
                &sample_images::choose(image_scores),
            )
        })?;
        report::write(&self.options.out, &self.config.name, &shown)?;
        in_phase(Phase::Scoring, || self.write_pseudo_labels(step))?;
        self.log.pause();
        Ok(scores)
    }

    /// The network that is published, interrupted once the run is to stop.
    fn evaluated_net(&self) -> crate::net::Net {
        let (_, net) = self.learner.evaluated_net();
        let interrupt = self.options.monitor.interrupt();
        net.with_precision(self.config.precision).interruptible(interrupt)
    }

    /// Writes the pseudo-labels of `dumped_images` unlabeled images.
    fn write_pseudo_labels(&self, step: u64) -> Result<()> {
        let count = self.config.dumped_images;
        let Some(unlabeled) = self.lists.unlabeled.as_ref().filter(|_| count > 0) else {
            return Ok(());
        };
        sample_images::write_pseudo_labels(
            Predictor::linear(&self.evaluated_net(), self.protocol),
            unlabeled,
            &self.lists.classes,
            count,
            &self.options.out.join("pseudo-labels").join(step.to_string()),
        )
    }
}

/// Names of the scored lists.
const VALIDATION: &str = "validation";
const UNLABELED: &str = "unlabeled";

/// Returns None for what was interrupted, as the run is told to stop.
pub(super) fn unless_interrupted<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if error.is::<Interrupted>() => Ok(None),
        result => result.map(Some),
    }
}
