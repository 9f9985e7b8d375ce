//! Scores of teacher, student and prototype head on a list of labeled images.

use anyhow::Result;
use protoseg_images::labeled::LabeledDataset;
use protoseg_models::classes::ClassTable;
use protoseg_models::metrics::ConfusionMatrix;

use crate::config::options::Precision;
use crate::evaluate::{self, Predictor, Protocol};
use crate::method::prototype_init::feature_node;
use crate::method::step::Learner;
use crate::run::Score;
use crate::run::stop::StopMonitor;

/// Mean IoU of images by their index in the list, in [0, 1].
pub type ImageScores = Vec<(usize, f64)>;

/// Classes and protocol of a run's scores.
pub struct Scorer<'a> {
    pub classes: &'a ClassTable,
    pub protocol: Protocol,
    /// Scoring fails with [`Interrupted`](evaluate::Interrupted) once the run is to stop.
    pub monitor: &'a StopMonitor,
}

impl Scorer<'_> {
    /// Scores the evaluated network, then the student and the prototype head where there are any, in 32-bit floats.
    /// The scores of the images are those of the evaluated network.
    pub fn score(
        &self,
        learner: &Learner,
        images: &LabeledDataset,
        data: &str,
        step: u64,
    ) -> Result<(Vec<Score>, ImageScores)> {
        let teacher = learner.teacher.with_precision(Precision::Float32);
        let student = learner.student.with_precision(Precision::Float32);
        let mut image_scores = ImageScores::new();
        let first = if learner.teacher_ready {
            ("teacher", Predictor::Linear(&teacher))
        } else {
            ("student", Predictor::Linear(&student))
        };
        let mut scores = vec![self.score_one(first, images, data, step, |index, confusion| {
            image_scores.extend(confusion.mean_iou().map(|mean_iou| (index, mean_iou)));
        })?];
        let mut others = Vec::new();
        if learner.teacher_ready {
            others.push(("student", Predictor::Linear(&student)));
        }
        if let Some(prototypes) = &learner.prototypes {
            let node = feature_node(teacher.graph(), learner.config.features)?;
            others.push(("prototype head", Predictor::Prototypes(&teacher, node, prototypes)));
        }
        for other in others {
            scores.push(self.score_one(other, images, data, step, |_, _| ())?);
        }
        Ok((scores, image_scores))
    }

    fn score_one(
        &self,
        (which, predictor): (&str, Predictor),
        images: &LabeledDataset,
        data: &str,
        step: u64,
        mut seen: impl FnMut(usize, &ConfusionMatrix),
    ) -> Result<Score> {
        let go_on = |index: usize, confusion: &ConfusionMatrix| {
            seen(index, confusion);
            self.monitor.due().is_none()
        };
        let evaluation = evaluate::score(predictor, images, self.classes, self.protocol, go_on)?;
        Ok(Score { which: which.to_owned(), metrics: evaluation.into_metrics(data, step) })
    }
}
