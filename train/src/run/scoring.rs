//! Scores of teacher, student and prototype head on a list of labeled images.

use anyhow::Result;
use protoseg_images::labeled::LabeledDataset;
use protoseg_models::classes::ClassTable;

use crate::config::options::Precision;
use crate::evaluate::{self, Predictor, Protocol};
use crate::interrupt::Interrupt;
use crate::method::prototype_init::feature_node;
use crate::method::step::Learner;
use crate::progress::Progress;
use crate::run::Score;

/// Mean IoU of images by their index in the list, in [0, 1].
pub type ImageScores = Vec<(usize, f64)>;

/// Classes and protocol of a run's scores.
pub struct Scorer<'a> {
    pub classes: &'a ClassTable,
    pub protocol: Protocol,
    /// Scoring fails with [`Interrupted`](crate::interrupt::Interrupted) once the run is to stop.
    pub interrupt: Interrupt,
}

impl Scorer<'_> {
    /// Number of networks and heads that [`Scorer::score`] scores.
    pub fn predictors(learner: &Learner) -> usize {
        1 + usize::from(learner.teacher_ready) + usize::from(learner.prototypes.is_some())
    }

    /// Scores the evaluated network, then the student and the prototype head where there are any, in 32-bit floats.
    /// The scores of the images are those of the evaluated network.
    pub fn score(
        &self,
        learner: &Learner,
        images: &LabeledDataset,
        data: &str,
        step: u64,
        progress: &Progress,
    ) -> Result<(Vec<Score>, ImageScores)> {
        let [teacher, student] = [&learner.teacher, &learner.student].map(|net| {
            net.with_precision(Precision::Float32).interruptible(self.interrupt.clone())
        });
        let mut predictors = vec![("student", Predictor::linear(&student, self.protocol))];
        if learner.teacher_ready {
            predictors.insert(0, ("teacher", Predictor::linear(&teacher, self.protocol)));
        }
        if let Some(prototypes) = &learner.prototypes {
            let node = feature_node(teacher.graph(), learner.config.features)?;
            let predictor = Predictor::prototypes(&teacher, node, prototypes, self.protocol);
            predictors.push(("prototype head", predictor));
        }
        let mut image_scores = ImageScores::new();
        let mut scores = Vec::new();
        for (rank, (which, predictor)) in predictors.into_iter().enumerate() {
            let metrics = evaluate::score(
                predictor,
                images,
                self.classes,
                data,
                step,
                |index, confusion| {
                    let mean_iou = confusion.mean_iou().filter(|_| rank == 0);
                    image_scores.extend(mean_iou.map(|mean_iou| (index, mean_iou)));
                    progress.done();
                    self.interrupt.check().is_ok()
                },
            )?;
            scores.push(Score { which: which.to_owned(), metrics });
        }
        Ok((scores, image_scores))
    }
}
