//! One optimiser step: micro-batches through teacher and student, one move of the weights, one of the prototypes.

use anyhow::{Context, Result};
use protoseg_models::graph::{NodeId, Tag};
use protoseg_models::random::Stream;
use tch::{Kind, Tensor};

use crate::config::Config;
use crate::config::options::{PointSampling, SupervisedLoss, UnlabeledScale};
use crate::data::loader::MicroBatch;
use crate::method::class_counters::ClassCounters;
use crate::method::loss;
use crate::method::objective::{LossTerms, LossWeights};
use crate::method::optimizer::Sgd;
use crate::method::points::SampledPoints;
use crate::method::prototype_init::feature_node;
use crate::method::prototypes::{AssignmentSums, Prototypes};
use crate::method::schedule::Schedule;
use crate::net::{self, ForwardMode, Net};
use crate::streams::{DROPOUT, POINTS};

mod report;

use super::targets::{PseudoLabels, Targets};
pub use report::StepReport;

/// What a step works with and does not change.
pub struct Learner<'a> {
    /// The configuration of the run.
    pub config: &'a Config,
    /// Its steps.
    pub schedule: Schedule,
    /// The network that learns.
    pub student: &'a Net,
    /// Its moving average.
    pub teacher: &'a Net,
    /// Weight of each class in the loss.
    pub class_weights: Option<Tensor>,
    /// Whether maps are upsampled with aligned corners.
    pub align_corners: bool,
}

/// What a step changes, beside the weights.
pub struct StepState<'a> {
    /// The optimiser.
    pub sgd: &'a mut Sgd,
    /// The prototype predictor, where there is one.
    pub prototypes: Option<&'a mut Prototypes>,
    /// Counts for the log.
    pub tally: &'a mut ClassCounters,
}

/// What the student makes of a micro-batch, labelled pictures first.
pub struct HeadOutputs {
    /// Scores of the linear head.
    pub logits: Tensor,
    /// Scores of the auxiliary head, where there is one.
    pub auxiliary: Option<Tensor>,
    /// The map that the prototype predictor reads, where there is one.
    pub features: Option<Tensor>,
}

impl Learner<'_> {
    /// Learns from the micro-batches of a step.
    pub fn step(&self, moving: StepState, batches: &[MicroBatch], step: u64) -> Result<StepReport> {
        let StepState { sgd, prototypes, tally } = moving;
        let (reports, gathered) = self.gradients(prototypes.as_deref(), tally, batches, step)?;
        self.update(sgd, prototypes.zip(gathered), step)?;
        StepReport::mean(&reports).context("a step without a micro-batch")
    }

    /// Adds up the gradients of a step's micro-batches, and their points for the prototypes; a report of each micro-batch.
    pub fn gradients(
        &self,
        prototypes: Option<&Prototypes>,
        tally: &mut ClassCounters,
        batches: &[MicroBatch],
        step: u64,
    ) -> Result<(Vec<StepReport>, Option<AssignmentSums>)> {
        let mut gathered = prototypes.map(Prototypes::begin_step).transpose()?;
        let (progress, learning_rate) =
            (self.schedule.progress(step), self.schedule.learning_rate(step));
        let mut reports = Vec::with_capacity(batches.len());
        for (batch, number) in batches.iter().zip(step * batches.len() as u64..) {
            let lesson = self.targets(batch, number, progress, tally)?;
            let outputs = self.forward(&lesson.images, prototypes.is_some(), number)?;
            let terms =
                self.terms(&outputs, &lesson, number, prototypes.zip(gathered.as_mut()), tally)?;
            let values = terms.values()?;
            let total = terms.total(LossWeights::at_progress(self.config, progress))?;
            let loss = total.f_double_value(&[])?;
            total.f_mul_scalar(1.0 / batches.len() as f64)?.f_backward()?;
            let taught = lesson.pseudo_labels.as_ref();
            reports.push(StepReport {
                terms: values,
                loss,
                learning_rate,
                kept_share: taught.map(|taught| taught.kept_pixels / taught.valid_pixels.max(1.0)),
                confidence: taught
                    .map(|taught| taught.confidence.f_mean(Kind::Float)?.f_double_value(&[]))
                    .transpose()?,
                dropped: taught.map_or(0, |taught| u64::from(taught.kept_pixels == 0.0)),
            });
        }
        Ok((reports, gathered))
    }

    /// Moves the weights against their gradients, and the prototypes towards the points gathered for them.
    pub fn update(
        &self,
        sgd: &mut Sgd,
        prototypes: Option<(&mut Prototypes, AssignmentSums)>,
        step: u64,
    ) -> Result<()> {
        let rate = self.schedule.learning_rate(step);
        sgd.step(self.student, |name| {
            if name.starts_with("encoder.") { rate } else { rate * self.config.head_multiplier }
        })?;
        match prototypes {
            Some((prototypes, gathered)) => prototypes.update(gathered, step),
            None => Ok(()),
        }
    }

    /// The student's view of a micro-batch.
    pub fn forward(
        &self,
        pictures: &Tensor,
        with_features: bool,
        number: u64,
    ) -> Result<HeadOutputs> {
        // Dropout draws from the process's generator, whose state cannot be saved: it starts anew before each pass.
        tch::manual_seed(self.dropout_seed(number, 0));
        let graph = self.student.graph();
        let logits = graph.tagged(Tag::Logits).context("the network has no logits")?;
        let auxiliary = graph.tagged(Tag::Aux);
        let features =
            with_features.then(|| feature_node(graph, self.config.features)).transpose()?;
        let wanted: Vec<NodeId> =
            [Some(logits), auxiliary, features].into_iter().flatten().collect();
        let mut outputs = self.student.forward(pictures, ForwardMode::Train, &wanted)?.into_iter();
        Ok(HeadOutputs {
            logits: outputs.next().context("no logits")?,
            auxiliary: auxiliary.and_then(|_| outputs.next()),
            features: features.and_then(|_| outputs.next()),
        })
    }

    /// Where dropout starts in a pass over a micro-batch: pass 0 is the student's, 1 the teacher's.
    pub fn dropout_seed(&self, number: u64, pass: u64) -> i64 {
        Stream::keyed(&[self.config.seed, DROPOUT, number, pass]).bits(0) as i64
    }

    /// The terms of the objective. Points of the prototype predictor are gathered for the update.
    pub fn terms(
        &self,
        outputs: &HeadOutputs,
        lesson: &Targets,
        number: u64,
        predictor: Option<(&Prototypes, &mut AssignmentSums)>,
        tally: &mut ClassCounters,
    ) -> Result<LossTerms<Tensor>> {
        let auxiliary = outputs
            .auxiliary
            .as_ref()
            .map(|logits| self.labeled_term(logits, &lesson.labels))
            .transpose()?;
        let labeled = self.labeled_term(&outputs.logits, &lesson.labels)?;
        let mut terms = LossTerms { auxiliary, ..LossTerms::supervised(labeled) };
        let Some(taught) = &lesson.pseudo_labels else { return Ok(terms) };
        terms.unlabeled = Some(self.unlabeled_term(&outputs.logits, taught)?);
        if let Some(predictor) = predictor {
            let labels = [&lesson.labels, &taught.labels];
            let [labeled, unlabeled] = self.prototype_terms(
                outputs,
                labels,
                &taught.confidence,
                number,
                predictor,
                tally,
            )?;
            terms.prototype_labeled = Some(labeled);
            terms.prototype_unlabeled = Some(unlabeled);
        }
        Ok(terms)
    }

    /// `L_lin^l` or `L_aux^l`, of the logits of one head.
    fn labeled_term(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let logits = self.upsample(&logits.f_narrow(0, 0, labels.size()[0])?)?;
        let weights = self.class_weights.as_ref();
        let least = (self.config.ohem_kept * labels.numel() as f64).round() as usize;
        match self.config.criterion {
            SupervisedLoss::CrossEntropy => loss::cross_entropy(&logits, labels, weights),
            SupervisedLoss::Ohem => {
                loss::ohem(&logits, labels, weights, self.config.ohem_threshold, least)
            }
        }
    }

    /// `L_lin^u`.
    fn unlabeled_term(&self, logits: &Tensor, taught: &PseudoLabels) -> Result<Tensor> {
        let labels = &taught.labels;
        let count = labels.size()[0];
        let logits = self.upsample(&logits.f_narrow(0, count, count)?)?;
        let scale = match self.config.unlabeled_scale {
            UnlabeledScale::Valid => taught.valid_pixels,
            UnlabeledScale::All => labels.numel() as f64,
        };
        let weights = self.class_weights.as_ref().filter(|_| self.config.unlabeled_class_weights);
        loss::pseudo_label_loss(&logits, labels, weights, scale)
    }

    /// `L_proto^l` and `L_proto^u`, of the labels of the labelled and of the mixed pictures and the teacher's confidence in
    /// the latter; their points are gathered for the update.
    pub fn prototype_terms(
        &self,
        outputs: &HeadOutputs,
        labels: [&Tensor; 2],
        confidence: &Tensor,
        number: u64,
        (prototypes, gathered): (&Prototypes, &mut AssignmentSums),
        tally: &mut ClassCounters,
    ) -> Result<[Tensor; 2]> {
        let classes = outputs.logits.size()[1] as usize;
        let pixels = [
            self.points(labels[0], classes, number, 0)?,
            self.points(labels[1], classes, number, 1)?,
        ];
        let map = outputs.features.as_ref().context("the prototype predictor has no features")?;
        let features = pixels[0].concat(&pixels[1])?.features(map, self.align_corners)?;
        let compared = prototypes.compare(&features)?;
        let (known, thought) = (pixels[0].labels(labels[0])?, pixels[1].labels(labels[1])?);
        let unsure = pixels[1].read(confidence)?.f_le(self.config.prototype_gate)?;
        let passed =
            thought.f_masked_fill(&unsure, i64::from(protoseg_models::classes::IGNORE_INDEX))?;
        tally.gate(&thought, &passed)?;
        let counted = Tensor::f_cat(&[&known, &passed], 0)?;
        prototypes.accumulate(gathered, &compared, &counted)?;
        tally.cosines(&compared, &counted)?;
        let learnt = if self.config.gate_loss { passed } else { thought };
        let [first, second] = compared.split(known.size()[0])?;
        Ok([first.loss(&known)?, second.loss(&learnt)?])
    }

    /// Points of the labelled (part 0) or the mixed pictures (part 1) of a micro-batch, whose labels are given.
    pub fn points(
        &self,
        labels: &Tensor,
        classes: usize,
        number: u64,
        part: u64,
    ) -> Result<SampledPoints> {
        let count = labels.size()[0] as usize;
        let (side, cells) = (self.config.crop, self.config.point_cells);
        let stream = Stream::keyed(&[self.config.seed, POINTS, number]);
        match self.config.points {
            PointSampling::PerImage => {
                SampledPoints::per_image(stream.child(part), count, side, cells)
            }
            PointSampling::Shared => SampledPoints::shared(stream, count, side, cells),
            PointSampling::Balanced => SampledPoints::balanced(
                stream.child(part),
                labels,
                classes,
                self.config.points_per_class,
            ),
        }
    }

    pub(super) fn upsample(&self, logits: &Tensor) -> Result<Tensor> {
        net::upsample(logits, [self.config.crop as i64; 2], self.align_corners)
    }
}

#[cfg(test)]
mod tests;
