//! One optimizer step: gradients of the micro-batches, then the weights, the prototypes and the teacher move.

use anyhow::{Context, Result};
use protoseg_models::classes::IGNORE_INDEX;
use protoseg_models::graph::{Graph, NodeId, Tag};
use protoseg_models::random::Stream;
use protoseg_models::weights::StateDict;
use tch::{Device, Kind, Tensor};

use crate::config::Config;
use crate::config::options::{PointSampling, SupervisedLoss, UnlabeledScale};
use crate::data::loader::MicroBatch;
use crate::method::class_counters::ClassCounters;
use crate::method::objective::{LossTerms, LossWeights};
use crate::method::optimizer::Optimizer;
use crate::method::points::SampledPoints;
use crate::method::prototype_init::feature_node;
use crate::method::prototypes::{AssignmentSums, Prototypes};
use crate::method::schedule::Schedule;
use crate::method::targets::{PseudoLabels, Targets};
use crate::method::{loss, teacher};
use crate::net::{self, ForwardMode, Net};
use crate::streams::{DROPOUT, POINTS};

/// Student, teacher, optimizer and prototypes of a run.
pub struct Learner<'a> {
    pub config: &'a Config,
    pub schedule: Schedule,
    pub student: Net,
    /// Moving average of the student; meaningless until `teacher_ready`.
    pub teacher: Net,
    /// Set at the end of the warm-up, when the teacher is first copied from the student.
    pub teacher_ready: bool,
    pub optimizer: Optimizer,
    /// None in the warm-up and in modes without a prototype predictor.
    pub prototypes: Option<Prototypes>,
    /// Counted for the log since its last line; the steps do not depend on them.
    pub counters: ClassCounters,
    /// Class weights `[classes]` of the losses of the linear head.
    pub class_weights: Option<Tensor>,
}

/// Student outputs of one micro-batch, labeled images first.
pub struct HeadOutputs {
    /// `[2b, classes, h, w]` of the linear head.
    pub logits: Tensor,
    /// The same of the auxiliary head.
    pub auxiliary: Option<Tensor>,
    /// `[2b, channels, h, w]`, input of the prototype predictor.
    pub features: Option<Tensor>,
}

impl<'a> Learner<'a> {
    /// Student and teacher with the same weights, an optimizer without momentum, and no prototypes.
    pub fn new(
        config: &'a Config,
        schedule: Schedule,
        graph: &Graph,
        weights: &StateDict,
        device: Device,
    ) -> Result<Self> {
        let logits = graph.tagged(Tag::Logits).context("the network has no logits")?;
        let network = || -> Result<Net> {
            let net = Net::new(graph.clone(), weights, device)?.with_precision(config.precision);
            if config.freeze_encoder { net.freeze("encoder.") } else { Ok(net) }
        };
        Ok(Self {
            config,
            schedule,
            student: network()?,
            teacher: network()?,
            teacher_ready: false,
            optimizer: Optimizer::new(config),
            prototypes: None,
            counters: ClassCounters::new(graph.node(logits).channels, device)?,
            class_weights: None,
        })
    }

    pub fn device(&self) -> Device {
        self.student.device()
    }

    pub fn classes(&self) -> usize {
        self.counters.classes()
    }

    pub fn align_corners(&self) -> bool {
        self.config.network.align_corners()
    }

    /// Returns the network that is scored and published, with its name in the log: the teacher after the warm-up.
    pub fn evaluated_net(&self) -> (&'static str, &Net) {
        if self.teacher_ready { ("teacher", &self.teacher) } else { ("student", &self.student) }
    }

    /// Takes step number `step` on its micro-batches.
    pub fn step(&mut self, batches: &[MicroBatch], step: u64) -> Result<StepReport> {
        let (reports, sums) = self.gradients(batches, step)?;
        self.update(sums, step)?;
        StepReport::mean(&reports).context("a step without a micro-batch")
    }

    /// Accumulates the gradients of a step's micro-batches and the assignments of their points to prototypes.
    pub fn gradients(
        &self,
        batches: &[MicroBatch],
        step: u64,
    ) -> Result<(Vec<StepReport>, Option<AssignmentSums>)> {
        let mut sums = self.prototypes.as_ref().map(Prototypes::begin_step).transpose()?;
        let progress = self.schedule.progress(step);
        let mut reports = Vec::with_capacity(batches.len());
        for (batch, number) in batches.iter().zip(step * batches.len() as u64..) {
            let targets = self.targets(batch, number, progress)?;
            let outputs = self.forward(&targets, number)?;
            let terms = self.terms(&outputs, &targets, number, sums.as_mut())?;
            let values = terms.values()?;
            let total = terms.total(LossWeights::at_progress(self.config, progress))?;
            let loss = total.f_double_value(&[])?;
            total.f_mul_scalar(1.0 / batches.len() as f64)?.f_backward()?;
            let pseudo_labels = targets.pseudo_labels.as_ref();
            let confidence = |pseudo: &PseudoLabels| -> Result<f64> {
                Ok(pseudo.confidence.f_mean(Kind::Float)?.f_double_value(&[])?)
            };
            reports.push(StepReport {
                terms: values,
                loss,
                learning_rate: self.schedule.learning_rate(step),
                kept_share: pseudo_labels.map(PseudoLabels::kept_share),
                confidence: pseudo_labels.map(confidence).transpose()?,
                dropped: pseudo_labels.map_or(0, |pseudo| u64::from(pseudo.kept_pixels == 0)),
            });
        }
        Ok((reports, sums))
    }

    /// Moves the weights against the accumulated gradients, then the prototypes and the teacher.
    pub fn update(&mut self, sums: Option<AssignmentSums>, step: u64) -> Result<()> {
        let rate = self.schedule.learning_rate(step);
        self.optimizer.step(&self.student, step, |name| {
            if name.starts_with("encoder.") { rate } else { rate * self.config.head_multiplier }
        })?;
        if let (Some(prototypes), Some(sums)) = (&mut self.prototypes, sums) {
            prototypes.update(sums, step)?;
        }
        teacher::update_after_step(&self.teacher, &self.student, self.config, self.schedule, step)
    }

    /// Runs the student on the images of a micro-batch in training mode.
    pub fn forward(&self, targets: &Targets, number: u64) -> Result<HeadOutputs> {
        // Dropout draws from the process-global generator, whose state cannot be read: it is seeded before each pass.
        tch::manual_seed(self.dropout_seed(number, 0));
        let graph = self.student.graph();
        let logits = graph.tagged(Tag::Logits).context("the network has no logits")?;
        let auxiliary = graph.tagged(Tag::Aux);
        let features = match &self.prototypes {
            Some(_) => Some(feature_node(graph, self.config.features)?),
            None => None,
        };
        let wanted: Vec<NodeId> =
            [Some(logits), auxiliary, features].into_iter().flatten().collect();
        let Targets { images, frozen, .. } = targets;
        let outputs = match frozen {
            Some(frozen) => self.student.forward_from(
                images,
                net::shared(frozen),
                ForwardMode::Train,
                &wanted,
            )?,
            None => self.student.forward(images, ForwardMode::Train, &wanted)?,
        };
        let mut outputs = outputs.into_iter();
        Ok(HeadOutputs {
            logits: outputs.next().context("no logits")?,
            auxiliary: auxiliary.and_then(|_| outputs.next()),
            features: features.and_then(|_| outputs.next()),
        })
    }

    /// Returns the seed of dropout in a pass over a micro-batch; pass 0 is the student's, 1 the teacher's.
    pub fn dropout_seed(&self, number: u64, pass: u64) -> i64 {
        Stream::keyed(&[self.config.seed, DROPOUT, number, pass]).bits(0) as i64
    }

    /// Returns the terms of the objective, those of the prototypes only with `sums`, to which assignments are added.
    pub fn terms(
        &self,
        outputs: &HeadOutputs,
        targets: &Targets,
        number: u64,
        sums: Option<&mut AssignmentSums>,
    ) -> Result<LossTerms<Tensor>> {
        let auxiliary = outputs
            .auxiliary
            .as_ref()
            .map(|logits| self.labeled_term(logits, &targets.labels))
            .transpose()?;
        let labeled = self.labeled_term(&outputs.logits, &targets.labels)?;
        let mut terms = LossTerms { auxiliary, ..LossTerms::supervised(labeled) };
        let Some(pseudo_labels) = &targets.pseudo_labels else { return Ok(terms) };
        terms.unlabeled = Some(self.unlabeled_term(&outputs.logits, pseudo_labels)?);
        if let (Some(prototypes), Some(sums)) = (&self.prototypes, sums) {
            let [labeled, unlabeled] =
                self.prototype_terms(prototypes, outputs, targets, number, sums)?;
            terms.prototype_labeled = Some(labeled);
            terms.prototype_unlabeled = Some(unlabeled);
        }
        Ok(terms)
    }

    /// `L_lin^l`, or `L_aux^l` for the logits of the auxiliary head.
    fn labeled_term(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let logits = self.upsample(&logits.f_narrow(0, 0, labels.size()[0])?)?;
        let weights = self.class_weights.as_ref();
        let least = (self.config.ohem_kept * labels.numel() as f64).round() as usize;
        let loss = match self.config.criterion {
            SupervisedLoss::CrossEntropy => loss::cross_entropy(&logits, labels, weights),
            SupervisedLoss::Ohem => {
                loss::ohem(&logits, labels, weights, self.config.ohem_threshold, least)
            }
        }?;
        if self.config.dice_weight == 0.0 {
            return Ok(loss);
        }
        let dice = loss::dice(&logits, labels)?.f_mul_scalar(self.config.dice_weight)?;
        Ok(loss.f_add(&dice)?)
    }

    /// `L_lin^u`.
    fn unlabeled_term(&self, logits: &Tensor, pseudo_labels: &PseudoLabels) -> Result<Tensor> {
        let labels = &pseudo_labels.labels;
        let count = labels.size()[0];
        let logits = self.upsample(&logits.f_narrow(0, count, count)?)?;
        let scale = match self.config.unlabeled_scale {
            UnlabeledScale::Valid => pseudo_labels.valid_pixels as f64,
            UnlabeledScale::All => labels.numel() as f64,
        };
        let weights = self.class_weights.as_ref().filter(|_| self.config.unlabeled_class_weights);
        loss::pseudo_label_loss(&logits, labels, weights, scale)
    }

    /// `L_proto^l` and `L_proto^u` on sampled points, which are added to the assignments of the prototypes.
    ///
    /// A point of an unlabeled image is assigned only where the teacher's confidence is above the gate.
    pub fn prototype_terms(
        &self,
        prototypes: &Prototypes,
        outputs: &HeadOutputs,
        targets: &Targets,
        number: u64,
        sums: &mut AssignmentSums,
    ) -> Result<[Tensor; 2]> {
        let pseudo = targets.pseudo_labels.as_ref().context("there are no pseudo-labels")?;
        let labeled_points = self.points(&targets.labels, number, 0)?;
        let unlabeled_points = self.points(&pseudo.labels, number, 1)?;
        let map = outputs.features.as_ref().context("the prototype predictor has no features")?;
        let points = labeled_points.concat(&unlabeled_points)?;
        let similarity = prototypes.compare(&points.features(map, self.align_corners())?)?;

        let labels = labeled_points.labels(&targets.labels)?;
        let pseudo_labels = unlabeled_points.labels(&pseudo.labels)?;
        let below_gate =
            unlabeled_points.read(&pseudo.confidence)?.f_le(self.config.prototype_gate)?;
        let gated = pseudo_labels.f_masked_fill(&below_gate, i64::from(IGNORE_INDEX))?;
        self.counters.gate(&pseudo_labels, &gated)?;
        let assigned = Tensor::f_cat(&[&labels, &gated], 0)?;
        prototypes.accumulate(sums, &similarity, &assigned)?;
        self.counters.cosines(&similarity, &assigned)?;

        let unlabeled_targets = if self.config.gate_loss { gated } else { pseudo_labels };
        let [labeled, unlabeled] = similarity.split(labels.size()[0])?;
        Ok([labeled.loss(&labels)?, unlabeled.loss(&unlabeled_targets)?])
    }

    /// Samples points of the labeled (part 0) or mixed unlabeled images (part 1) with labels i64 `[b, height, width]`.
    pub fn points(&self, labels: &Tensor, number: u64, part: u64) -> Result<SampledPoints> {
        let count = labels.size()[0] as usize;
        let Config { crop, point_cells: cells, .. } = *self.config;
        let size = crop.sides();
        let stream = Stream::keyed(&[self.config.seed, POINTS, number]);
        match self.config.points {
            PointSampling::PerImage => {
                SampledPoints::per_image(stream.child(part), count, size, cells)
            }
            PointSampling::Shared => SampledPoints::shared(stream, count, size, cells),
            PointSampling::Balanced => SampledPoints::balanced(
                stream.child(part),
                labels,
                self.classes(),
                self.config.points_per_class,
            ),
        }
    }

    pub(super) fn upsample(&self, logits: &Tensor) -> Result<Tensor> {
        net::upsample(
            logits,
            self.config.crop.sides().map(|side| side as i64),
            self.align_corners(),
        )
    }
}

/// Losses and pseudo-label statistics of one micro-batch or one step.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct StepReport {
    #[serde(flatten)]
    pub terms: LossTerms<f64>,
    /// Weighted sum of the terms.
    pub loss: f64,
    /// Learning rate of the encoder.
    pub learning_rate: f64,
    /// Share of the valid unlabeled pixels whose pseudo-label was kept.
    pub kept_share: Option<f64>,
    /// Mean confidence of the teacher.
    pub confidence: Option<f64>,
    /// Number of micro-batches of which no pseudo-label was kept.
    pub dropped: u64,
}

impl StepReport {
    /// Mean over the micro-batches of a step; None without any.
    pub fn mean(parts: &[Self]) -> Option<Self> {
        let (first, others) = parts.split_first()?;
        let mut report = first.clone();
        for part in others {
            report.add(part);
        }
        report.scale(1.0 / parts.len() as f64);
        Some(report)
    }

    pub fn add(&mut self, part: &Self) {
        self.terms.add(&part.terms, 1.0);
        self.loss += part.loss;
        self.dropped += part.dropped;
        for (sum, part) in
            [(&mut self.kept_share, part.kept_share), (&mut self.confidence, part.confidence)]
        {
            *sum = sum.zip(part).map_or(part, |(sum, part)| Some(sum + part));
        }
    }

    /// Turns sums into means; `dropped` stays a count.
    pub fn scale(&mut self, share: f64) {
        let sums = self.terms.clone();
        self.terms.add(&sums, share - 1.0);
        self.loss *= share;
        for sum in [&mut self.kept_share, &mut self.confidence] {
            *sum = sum.map(|sum| sum * share);
        }
    }
}

#[cfg(test)]
mod tests;
