//! One optimiser step: micro-batches through teacher and student, one move of the weights, one of the prototypes.

use anyhow::{Context, Result};
use protoseg_models::graph::{NodeId, Tag};
use protoseg_models::random::Stream;
use tch::{Kind, Tensor};

use crate::config::Config;
use crate::config::options::{Criterion, Points, TeacherStatistics, UnlabeledScale};
use crate::cutmix::Boxes;
use crate::draws::{CUTMIX, DROPOUT, POINTS};
use crate::first_prototypes::feature_node;
use crate::loader::{MicroBatch, Unlabeled};
use crate::loss;
use crate::net::{self, Mode, Net};
use crate::objective::{Terms, Weights};
use crate::optimizer::Sgd;
use crate::points::Pixels;
use crate::prototypes::{Gathered, Prototypes};
use crate::pseudo::{self, Pseudo};
use crate::schedule::Schedule;
use crate::tally::Tally;

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
pub struct Moving<'a> {
    /// The optimiser.
    pub sgd: &'a mut Sgd,
    /// The prototype predictor, where there is one.
    pub prototypes: Option<&'a mut Prototypes>,
    /// Counts for the log.
    pub tally: &'a mut Tally,
}

/// What a step reports.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The terms of the objective, means over micro-batches.
    pub terms: Terms<f64>,
    /// Their weighted sum.
    pub loss: f64,
    /// The encoder's learning rate.
    pub learning_rate: f64,
    /// Share of the valid unlabelled pixels that were kept.
    pub kept_share: Option<f64>,
    /// Mean confidence of the teacher.
    pub confidence: Option<f64>,
    /// Micro-batches of which no unlabelled pixel was kept.
    pub dropped: u64,
}

/// Unlabelled pictures as the student sees them, with the labels that it learns.
struct View {
    /// `[batch, side, side, 3]`, mixed.
    pictures: Tensor,
    /// What the teacher says of them, mixed.
    pseudo: Pseudo,
}

/// What the student makes of a micro-batch, labelled pictures first.
struct Outputs {
    logits: Tensor,
    auxiliary: Option<Tensor>,
    features: Option<Tensor>,
}

impl Learner<'_> {
    /// Learns from the micro-batches of a step.
    pub fn step(&self, moving: Moving, batches: &[MicroBatch], step: u64) -> Result<Report> {
        let Moving { sgd, prototypes, tally } = moving;
        let mut gathered = prototypes.as_deref().map(Prototypes::gather).transpose()?;
        let mut report: Option<Report> = None;
        let share = 1.0 / batches.len() as f64;
        for (batch, number) in batches.iter().zip(step * batches.len() as u64..) {
            let predictor = prototypes.as_deref().zip(gathered.as_mut());
            let part = self.micro_batch(batch, number, step, share, predictor, tally)?;
            match &mut report {
                Some(report) => report.add(&part),
                None => report = Some(part),
            }
        }
        let mut report = report.context("a step without a micro-batch")?;
        report.scale(share);
        sgd.step(self.student, |name| {
            let multiplier = if name.starts_with("encoder.") { 1.0 } else { self.config.head_multiplier };
            report.learning_rate * multiplier
        })?;
        if let Some((prototypes, gathered)) = prototypes.zip(gathered) {
            prototypes.update(gathered, step)?;
        }
        Ok(report)
    }

    fn micro_batch(
        &self,
        batch: &MicroBatch,
        number: u64,
        step: u64,
        share: f64,
        predictor: Option<(&Prototypes, &mut Gathered)>,
        tally: &mut Tally,
    ) -> Result<Report> {
        let pictures = self.pictures(&batch.labeled.pixels)?;
        let labels = self.map(&batch.labeled.labels)?.f_to_kind(Kind::Int64)?;
        let view = batch.unlabeled.as_ref().map(|unlabeled| self.view(unlabeled, number, tally)).transpose()?;
        let together = match &view {
            Some(view) => Tensor::f_cat(&[&pictures, &view.pictures], 0)?,
            None => pictures,
        };
        let view = view.map(|view| self.judge_mixed(view, &together, number)).transpose()?;
        let outputs = self.forward(&together, predictor.is_some(), number)?;

        let progress = self.schedule.progress(step);
        let mut terms = self.labeled_terms(&outputs, &labels)?;
        let (mut kept_share, mut confidence, mut dropped) = (None, None, 0);
        if let Some(view) = &view {
            let drop = self.config.entropy_drop * (1.0 - progress);
            let drop = (self.config.entropy_drop > 0.0).then_some(drop);
            let (per_class, gate) = (self.config.entropy_drop_per_class, self.config.unlabeled_gate);
            let kept = view.pseudo.kept(drop, per_class, outputs.logits.size()[1] as usize, gate)?;
            let mixed_labels = view.pseudo.labels_where(&kept)?;
            let [kept, valid] = [&kept, &view.pseudo.valid].map(|mask| mask.sum(Kind::Int64).int64_value(&[]) as f64);
            terms.unlabeled = Some(self.unlabeled_term(&outputs, &mixed_labels, valid)?);
            kept_share = Some(kept / valid.max(1.0));
            confidence = Some(view.pseudo.confidence.f_mean(Kind::Float)?.f_double_value(&[])?);
            dropped = u64::from(kept == 0.0);
            if let Some((prototypes, gathered)) = predictor {
                let labels = [&labels, &mixed_labels];
                let [labeled, unlabeled] =
                    self.prototype_terms(&outputs, labels, view, number, (prototypes, gathered), tally)?;
                terms.prototype_labeled = Some(labeled);
                terms.prototype_unlabeled = Some(unlabeled);
            }
        }
        let values = terms.values()?;
        let total = terms.total(Weights::at(self.config, progress))?;
        let loss = total.f_double_value(&[])?;
        total.f_mul_scalar(share)?.f_backward()?;
        let learning_rate = self.schedule.learning_rate(step);
        Ok(Report { terms: values, loss, learning_rate, kept_share, confidence, dropped })
    }

    /// `L_lin^l` and `L_aux^l`.
    fn labeled_terms(&self, outputs: &Outputs, labels: &Tensor) -> Result<Terms<Tensor>> {
        let count = labels.size()[0];
        let least = (self.config.ohem_kept * labels.numel() as f64).round() as usize;
        let term = |logits: &Tensor| -> Result<Tensor> {
            let logits = self.upsample(&logits.f_narrow(0, 0, count)?)?;
            let weights = self.class_weights.as_ref();
            match self.config.criterion {
                Criterion::CrossEntropy => loss::cross_entropy(&logits, labels, weights),
                Criterion::Ohem => loss::ohem(&logits, labels, weights, self.config.ohem_threshold, least),
            }
        };
        let auxiliary = outputs.auxiliary.as_ref().map(term).transpose()?;
        Ok(Terms { auxiliary, ..Terms::supervised(term(&outputs.logits)?) })
    }

    /// `L_lin^u`.
    fn unlabeled_term(&self, outputs: &Outputs, labels: &Tensor, valid: f64) -> Result<Tensor> {
        let count = labels.size()[0];
        let logits = self.upsample(&outputs.logits.f_narrow(0, count, count)?)?;
        let scale = match self.config.unlabeled_scale {
            UnlabeledScale::Valid => valid,
            UnlabeledScale::All => labels.numel() as f64,
        };
        let weights = self.class_weights.as_ref().filter(|_| self.config.unlabeled_class_weights);
        loss::unlabeled(&logits, labels, weights, scale)
    }

    /// `L_proto^l` and `L_proto^u`, of the labels of the labelled and of the mixed pictures; their points are gathered for
    /// the update.
    fn prototype_terms(
        &self,
        outputs: &Outputs,
        labels: [&Tensor; 2],
        view: &View,
        number: u64,
        (prototypes, gathered): (&Prototypes, &mut Gathered),
        tally: &mut Tally,
    ) -> Result<[Tensor; 2]> {
        let classes = outputs.logits.size()[1] as usize;
        let pixels = [self.points(labels[0], classes, number, 0)?, self.points(labels[1], classes, number, 1)?];
        let map = outputs.features.as_ref().context("the prototype predictor has no features")?;
        let features = pixels[0].followed_by(&pixels[1])?.features(map, self.align_corners)?;
        let half = features.size()[0] / 2;
        let [labeled, unlabeled] = [0, half].map(|start| features.narrow(0, start, half));
        let (labeled, unlabeled) = (prototypes.compare(&labeled)?, prototypes.compare(&unlabeled)?);
        let (known, thought) = (pixels[0].labels(labels[0])?, pixels[1].labels(labels[1])?);
        let unsure = pixels[1].read(&view.pseudo.confidence)?.f_le(self.config.gate)?;
        let passed = thought.f_masked_fill(&unsure, i64::from(protoseg_models::classes::IGNORE))?;
        tally.gate(&thought, &passed)?;
        for (compared, labels) in [(&labeled, &known), (&unlabeled, &passed)] {
            prototypes.add(gathered, compared, labels)?;
            tally.cosines(compared, labels)?;
        }
        let learnt = if self.config.gate_loss { &passed } else { &thought };
        Ok([labeled.loss(&known)?, unlabeled.loss(learnt)?])
    }

    /// Points of the labelled (part 0) or the mixed pictures (part 1) of a micro-batch.
    fn points(&self, labels: &Tensor, classes: usize, number: u64, part: u64) -> Result<Pixels> {
        let count = labels.size()[0] as usize;
        let (side, cells) = (self.config.crop, self.config.point_cells);
        let stream = Stream::keyed(&[self.config.seed, POINTS, number]);
        match self.config.points {
            Points::PerPicture => Pixels::per_picture(stream.child(part), count, side, cells),
            Points::Shared => Pixels::shared(stream, count, side, cells),
            Points::Balanced => Pixels::balanced(stream.child(part), labels, classes, self.config.points_a_class),
        }
    }

    /// The teacher's labels of unlabelled pictures, and both mixed.
    fn view(&self, unlabeled: &Unlabeled, number: u64, tally: &mut Tally) -> Result<View> {
        let _guard = tch::no_grad_guard();
        let weak = self.pictures(&unlabeled.weak)?;
        let logits = self.teacher.forward_tagged(&weak, Mode::Eval, Tag::Logits)?;
        let valid = self.map(&unlabeled.valid)?.f_to_kind(Kind::Bool)?;
        let pseudo = Pseudo::of(&self.upsample(&logits)?, &valid)?;
        tally.pseudo_labels(&pseudo.labels, &valid, &self.map(&unlabeled.truth)?)?;
        let stream = Stream::keyed(&[self.config.seed, CUTMIX, number]);
        let boxes = Boxes::draw(stream, self.config.cutmix, self.config.batch, self.config.crop)?;
        let strong = unlabeled.strong.as_ref().map(|pixels| self.pictures(pixels)).transpose()?.unwrap_or(weak);
        Ok(View { pictures: boxes.mix(&strong)?, pseudo: pseudo.mix(&boxes)? })
    }

    /// Where the teacher's statistics come from batches, a pass of it in training mode over all pictures, whose entropy of
    /// the mixed ones replaces the mixed entropy.
    fn judge_mixed(&self, view: View, together: &Tensor, number: u64) -> Result<View> {
        if self.config.teacher_statistics == TeacherStatistics::Average {
            return Ok(view);
        }
        let _guard = tch::no_grad_guard();
        self.seed_dropout(number, 1);
        let logits = self.teacher.forward_tagged(together, Mode::Train, Tag::Logits)?;
        let count = view.pictures.size()[0];
        let entropy = pseudo::entropy(&self.upsample(&logits.f_narrow(0, count, count)?)?)?;
        Ok(View { pseudo: Pseudo { entropy, ..view.pseudo }, ..view })
    }

    fn forward(&self, pictures: &Tensor, with_features: bool, number: u64) -> Result<Outputs> {
        self.seed_dropout(number, 0);
        let graph = self.student.graph();
        let logits = graph.tagged(Tag::Logits).context("the network has no logits")?;
        let auxiliary = graph.tagged(Tag::Aux);
        let features = with_features.then(|| feature_node(graph, self.config.features)).transpose()?;
        let wanted: Vec<NodeId> = [Some(logits), auxiliary, features].into_iter().flatten().collect();
        let mut outputs = self.student.forward(pictures, Mode::Train, &wanted)?.into_iter();
        Ok(Outputs {
            logits: outputs.next().context("no logits")?,
            auxiliary: auxiliary.and_then(|_| outputs.next()),
            features: features.and_then(|_| outputs.next()),
        })
    }

    /// Dropout draws from the process's generator, which has no state that can be saved: it starts anew before each pass.
    fn seed_dropout(&self, number: u64, pass: u64) {
        tch::manual_seed(Stream::keyed(&[self.config.seed, DROPOUT, number, pass]).bits(0) as i64);
    }

    fn upsample(&self, logits: &Tensor) -> Result<Tensor> {
        net::upsample(logits, [self.config.crop as i64; 2], self.align_corners)
    }

    fn pictures(&self, pixels: &[u8]) -> Result<Tensor> {
        net::pictures(pixels, [self.config.crop; 2], self.student.device())
    }

    /// Bytes as a map u8 `[batch, side, side]`.
    fn map(&self, bytes: &[u8]) -> Result<Tensor> {
        let side = self.config.crop as i64;
        let map = Tensor::f_from_data_size(bytes, &[bytes.len() as i64 / (side * side), side, side], Kind::Uint8)?;
        Ok(map.f_to_device(self.student.device())?)
    }
}

impl Report {
    /// Adds what another reports.
    pub fn add(&mut self, part: &Self) {
        self.terms.add(&part.terms, 1.0);
        self.loss += part.loss;
        self.dropped += part.dropped;
        for (sum, part) in [(&mut self.kept_share, part.kept_share), (&mut self.confidence, part.confidence)] {
            *sum = sum.zip(part).map_or(part, |(sum, part)| Some(sum + part));
        }
    }

    /// Sums to means; `dropped` stays a count.
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
