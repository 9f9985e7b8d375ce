//! What a micro-batch teaches: pictures with their labels, and mixed ones with the teacher's.

use anyhow::{Context, Result};
use protoseg_models::graph::Tag;
use protoseg_models::random::Stream;
use tch::{Kind, Tensor};

use super::step::Learner;
use crate::config::options::TeacherStatistics;
use crate::data::loader::{MicroBatch, Unlabeled};
use crate::method::class_counters::Tally;
use crate::method::cutmix::Boxes;
use crate::method::pseudo_labels::{self, Pseudo};
use crate::net::{self, Mode};
use crate::streams::CUTMIX;

/// A micro-batch as the student sees it.
pub struct Lesson {
    /// The labelled pictures, then the mixed ones.
    pub pictures: Tensor,
    /// Labels of the labelled pictures, i64 `[batch, side, side]`.
    pub labels: Tensor,
    /// What the teacher says of the mixed ones.
    pub taught: Option<Taught>,
}

/// What the teacher says of mixed pictures.
pub struct Taught {
    /// Its labels i64 `[batch, side, side]`; those that are not kept are ignored.
    pub labels: Tensor,
    /// How sure it is of them.
    pub confidence: Tensor,
    /// How many pixels are not padding.
    pub valid: f64,
    /// How many of them keep their label.
    pub kept: f64,
}

/// Unlabelled pictures after CutMix.
pub(super) struct View {
    /// `[batch, side, side, 3]`
    pub(super) pictures: Tensor,
    pub(super) pseudo: Pseudo,
}

impl Learner<'_> {
    /// Puts a micro-batch together and asks the teacher, when a share `progress` of the steps after the warm-up is done.
    pub fn lesson(&self, batch: &MicroBatch, number: u64, progress: f64, tally: &mut Tally) -> Result<Lesson> {
        let pictures = self.pictures(&batch.labeled.pixels)?;
        let labels = self.map(&batch.labeled.labels)?.f_to_kind(Kind::Int64)?;
        let Some(unlabeled) = &batch.unlabeled else { return Ok(Lesson { pictures, labels, taught: None }) };
        let view = self.view(unlabeled, number, tally)?;
        let pictures = Tensor::f_cat(&[&pictures, &view.pictures], 0)?;
        let taught = self.taught(self.judge_mixed(view, &pictures, number)?.pseudo, progress)?;
        Ok(Lesson { pictures, labels, taught: Some(taught) })
    }

    /// Where unlabelled pictures of a micro-batch are mixed.
    pub fn boxes(&self, number: u64) -> Result<Boxes> {
        let stream = Stream::keyed(&[self.config.seed, CUTMIX, number]);
        Boxes::draw(stream, self.config.cutmix, self.config.batch, self.config.crop)
    }

    /// The teacher's labels of unlabelled pictures, and both mixed.
    pub(super) fn view(&self, unlabeled: &Unlabeled, number: u64, tally: &mut Tally) -> Result<View> {
        let _guard = tch::no_grad_guard();
        let weak = self.pictures(&unlabeled.weak)?;
        let logits = self.teacher.forward_tagged(&weak, Mode::Eval, Tag::Logits)?;
        let valid = self.map(&unlabeled.valid)?.f_to_kind(Kind::Bool)?;
        let pseudo = Pseudo::of(&self.upsample(&logits)?, &valid)?;
        tally.pseudo_labels(&pseudo.labels, &valid, &self.map(&unlabeled.truth)?)?;
        let boxes = self.boxes(number)?;
        let strong = unlabeled.strong.as_ref().map(|pixels| self.pictures(pixels)).transpose()?.unwrap_or(weak);
        Ok(View { pictures: boxes.mix(&strong)?, pseudo: pseudo.mix(&boxes)? })
    }

    /// Where the teacher's statistics come from batches, a pass of it in training mode over all pictures, whose entropy of
    /// the mixed ones replaces the mixed entropy.
    pub(super) fn judge_mixed(&self, view: View, together: &Tensor, number: u64) -> Result<View> {
        if self.config.teacher_statistics == TeacherStatistics::Average {
            return Ok(view);
        }
        let _guard = tch::no_grad_guard();
        tch::manual_seed(self.dropout_seed(number, 1));
        let logits = self.teacher.forward_tagged(together, Mode::Train, Tag::Logits)?;
        let count = view.pictures.size()[0];
        let entropy = pseudo_labels::entropy(&self.upsample(&logits.f_narrow(0, count, count)?)?)?;
        Ok(View { pseudo: Pseudo { entropy, ..view.pseudo }, ..view })
    }

    /// Leaves out the pixels that the teacher is least sure of.
    fn taught(&self, pseudo: Pseudo, progress: f64) -> Result<Taught> {
        let graph = self.teacher.graph();
        let classes = graph.node(graph.tagged(Tag::Logits).context("the network has no logits")?).channels;
        let drop = (self.config.entropy_drop > 0.0).then_some(self.config.entropy_drop * (1.0 - progress));
        let kept = pseudo.kept(drop, self.config.entropy_drop_per_class, classes, self.config.unlabeled_gate)?;
        let labels = pseudo.labels_where(&kept)?;
        let count = |mask: &Tensor| -> Result<f64> { Ok(mask.f_sum(Kind::Int64)?.f_int64_value(&[])? as f64) };
        let (valid, kept) = (count(&pseudo.valid)?, count(&kept)?);
        Ok(Taught { labels, confidence: pseudo.confidence, valid, kept })
    }

    pub(super) fn pictures(&self, pixels: &[u8]) -> Result<Tensor> {
        net::pictures(pixels, [self.config.crop; 2], self.student.device())
    }

    /// Bytes as a map u8 `[batch, side, side]`.
    pub(super) fn map(&self, bytes: &[u8]) -> Result<Tensor> {
        let side = self.config.crop as i64;
        let map = Tensor::f_from_data_size(bytes, &[bytes.len() as i64 / (side * side), side, side], Kind::Uint8)?;
        Ok(map.f_to_device(self.student.device())?)
    }
}
