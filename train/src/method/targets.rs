//! What a micro-batch teaches: pictures with their labels, and mixed ones with the teacher's.

use anyhow::{Context, Result};
use protoseg_models::graph::Tag;
use protoseg_models::random::Stream;
use tch::{Kind, Tensor};

use super::step::Learner;
use crate::config::options::TeacherStatistics;
use crate::data::loader::{MicroBatch, UnlabeledBatch};
use crate::method::class_counters::ClassCounters;
use crate::method::cutmix::CutMixBoxes;
use crate::method::pseudo_labels::{self, RawPseudoLabels};
use crate::net::{self, ForwardMode};
use crate::streams::CUTMIX;

/// A micro-batch as the student sees it.
pub struct Targets {
    /// The labelled pictures, then the mixed ones.
    pub images: Tensor,
    /// Labels of the labelled pictures, i64 `[batch, side, side]`.
    pub labels: Tensor,
    /// What the teacher says of the mixed ones.
    pub pseudo_labels: Option<PseudoLabels>,
}

/// What the teacher says of mixed pictures.
pub struct PseudoLabels {
    /// Its labels i64 `[batch, side, side]`; those that are not kept are ignored.
    pub labels: Tensor,
    /// How sure it is of them.
    pub confidence: Tensor,
    /// How many pixels are not padding.
    pub valid_pixels: f64,
    /// How many of them keep their label.
    pub kept_pixels: f64,
}

/// Unlabelled pictures after CutMix.
pub(super) struct MixedBatch {
    /// `[batch, side, side, 3]`
    pub(super) images: Tensor,
    pub(super) pseudo: RawPseudoLabels,
}

impl Learner<'_> {
    /// Puts a micro-batch together and asks the teacher, when a share `progress` of the steps after the warm-up is done.
    pub fn targets(
        &self,
        batch: &MicroBatch,
        number: u64,
        progress: f64,
        tally: &mut ClassCounters,
    ) -> Result<Targets> {
        let pictures = self.images_to_tensor(&batch.labeled.pixels)?;
        let labels = self.map_to_tensor(&batch.labeled.labels)?.f_to_kind(Kind::Int64)?;
        let Some(unlabeled) = &batch.unlabeled else {
            return Ok(Targets { images: pictures, labels, pseudo_labels: None });
        };
        let view = self.mix_unlabeled(unlabeled, number, tally)?;
        let pictures = Tensor::f_cat(&[&pictures, &view.images], 0)?;
        let taught = self.select_pseudo_labels(
            self.teacher_entropy_of_mixed(view, &pictures, number)?.pseudo,
            progress,
        )?;
        Ok(Targets { images: pictures, labels, pseudo_labels: Some(taught) })
    }

    /// Where unlabelled pictures of a micro-batch are mixed.
    pub fn boxes(&self, number: u64) -> Result<CutMixBoxes> {
        let stream = Stream::keyed(&[self.config.seed, CUTMIX, number]);
        CutMixBoxes::sample(stream, self.config.cutmix, self.config.batch, self.config.crop)
    }

    /// The teacher's labels of unlabelled pictures, and both mixed.
    pub(super) fn mix_unlabeled(
        &self,
        unlabeled: &UnlabeledBatch,
        number: u64,
        tally: &mut ClassCounters,
    ) -> Result<MixedBatch> {
        let _guard = tch::no_grad_guard();
        let weak = self.images_to_tensor(&unlabeled.weak)?;
        let logits = self.teacher.forward_tagged(&weak, ForwardMode::Eval, Tag::Logits)?;
        let valid = self.map_to_tensor(&unlabeled.valid)?.f_to_kind(Kind::Bool)?;
        let pseudo = RawPseudoLabels::from_logits(&self.upsample(&logits)?, &valid)?;
        tally.pseudo_labels(&pseudo.labels, &valid, &self.map_to_tensor(&unlabeled.truth)?)?;
        let boxes = self.boxes(number)?;
        let strong = unlabeled
            .strong
            .as_ref()
            .map(|pixels| self.images_to_tensor(pixels))
            .transpose()?
            .unwrap_or(weak);
        Ok(MixedBatch { images: boxes.mix(&strong)?, pseudo: pseudo.mix(&boxes)? })
    }

    /// Where the teacher's statistics come from batches, a pass of it in training mode over all pictures, whose entropy of
    /// the mixed ones replaces the mixed entropy.
    pub(super) fn teacher_entropy_of_mixed(
        &self,
        view: MixedBatch,
        together: &Tensor,
        number: u64,
    ) -> Result<MixedBatch> {
        if self.config.teacher_statistics == TeacherStatistics::Average {
            return Ok(view);
        }
        let _guard = tch::no_grad_guard();
        tch::manual_seed(self.dropout_seed(number, 1));
        let logits = self.teacher.forward_tagged(together, ForwardMode::Train, Tag::Logits)?;
        let count = view.images.size()[0];
        let entropy = pseudo_labels::entropy(&self.upsample(&logits.f_narrow(0, count, count)?)?)?;
        Ok(MixedBatch { pseudo: RawPseudoLabels { entropy, ..view.pseudo }, ..view })
    }

    /// Leaves out the pixels that the teacher is least sure of.
    fn select_pseudo_labels(&self, pseudo: RawPseudoLabels, progress: f64) -> Result<PseudoLabels> {
        let graph = self.teacher.graph();
        let classes =
            graph.node(graph.tagged(Tag::Logits).context("the network has no logits")?).channels;
        let drop =
            (self.config.entropy_drop > 0.0).then_some(self.config.entropy_drop * (1.0 - progress));
        let kept = pseudo.select(
            drop,
            self.config.entropy_drop_per_class,
            classes,
            self.config.unlabeled_gate,
        )?;
        let labels = pseudo.masked_labels(&kept)?;
        let count = |mask: &Tensor| -> Result<f64> {
            Ok(mask.f_sum(Kind::Int64)?.f_int64_value(&[])? as f64)
        };
        let (valid, kept) = (count(&pseudo.valid)?, count(&kept)?);
        Ok(PseudoLabels {
            labels,
            confidence: pseudo.confidence,
            valid_pixels: valid,
            kept_pixels: kept,
        })
    }

    pub(super) fn images_to_tensor(&self, pixels: &[u8]) -> Result<Tensor> {
        net::images_to_tensor(pixels, [self.config.crop; 2], self.student.device())
    }

    /// Bytes as a map u8 `[batch, side, side]`.
    pub(super) fn map_to_tensor(&self, bytes: &[u8]) -> Result<Tensor> {
        let side = self.config.crop as i64;
        let map = Tensor::f_from_data_size(
            bytes,
            &[bytes.len() as i64 / (side * side), side, side],
            Kind::Uint8,
        )?;
        Ok(map.f_to_device(self.student.device())?)
    }
}
