//! Student inputs and targets of one micro-batch: ground truth for labeled images, teacher pseudo-labels for CutMix-ed
//! unlabeled images.

use anyhow::Result;
use protoseg_models::graph::Tag;
use protoseg_models::random::Stream;
use tch::{Kind, Tensor};

use crate::config::Config;
use crate::config::options::TeacherStatistics;
use crate::data::loader::{MicroBatch, UnlabeledBatch};
use crate::method::cutmix::CutMixBoxes;
use crate::method::pseudo_labels::{self, RawPseudoLabels};
use crate::method::step::Learner;
use crate::net::{self, ForwardMode, FrozenOutputs};
use crate::streams::CUTMIX;

/// Inputs and targets of one micro-batch.
pub struct Targets {
    /// u8 `[2b, height, width, 3]`: b labeled images, then b mixed unlabeled ones; `[b, …]` in the warm-up.
    pub images: Tensor,
    /// Outputs of the frozen encoder for these images, if it need not run on the mixed ones.
    pub frozen: Option<FrozenOutputs>,
    /// i64 `[b, height, width]`; 255 is ignored.
    pub labels: Tensor,
    /// None in the supervised warm-up.
    pub pseudo_labels: Option<PseudoLabels>,
}

/// Teacher pseudo-labels after the entropy drop and the confidence gate.
pub struct PseudoLabels {
    /// i64 `[b, height, width]`; dropped pixels are 255.
    pub labels: Tensor,
    /// f32 `[b, height, width]`, the largest softmax of the teacher.
    pub confidence: Tensor,
    /// Pixels that are not padding.
    pub valid_pixels: u64,
    /// Valid pixels whose label was kept.
    pub kept_pixels: u64,
}

impl PseudoLabels {
    pub fn kept_share(&self) -> f64 {
        self.kept_pixels as f64 / self.valid_pixels.max(1) as f64
    }
}

/// Unlabeled images and teacher predictions after CutMix.
pub(super) struct MixedBatch {
    /// u8 `[b, height, width, 3]`
    pub(super) images: Tensor,
    /// Mixed outputs of the frozen encoder, with `cutmix_features`.
    pub(super) frozen: Option<FrozenOutputs>,
    pub(super) pseudo: RawPseudoLabels,
}

impl Learner<'_> {
    /// Builds the inputs and targets of micro-batch `number`, at `progress` in [0, 1] of the steps after the warm-up.
    pub fn targets(&self, batch: &MicroBatch, number: u64, progress: f64) -> Result<Targets> {
        let labeled = self.images_to_tensor(&batch.labeled.pixels)?;
        let labels = self.map_to_tensor(&batch.labeled.labels)?.f_to_kind(Kind::Int64)?;
        let Some(unlabeled) = &batch.unlabeled else {
            return Ok(Targets { images: labeled, frozen: None, labels, pseudo_labels: None });
        };
        let mixed = self.mix_unlabeled(unlabeled, number)?;
        let images = Tensor::f_cat(&[&labeled, &mixed.images], 0)?;
        let student = &self.student;
        let frozen = match &mixed.frozen {
            Some(mixed) => Some(net::concat_outputs(&student.frozen_outputs(&labeled)?, mixed)?),
            // Mixed images never come again: kept, their outputs would fill the folder.
            None if student.has_cache() => Some(net::concat_outputs(
                &student.frozen_outputs(&labeled)?,
                &student.new_frozen_outputs(&mixed.images)?,
            )?),
            None => None,
        };
        let mixed = self.teacher_entropy_of_mixed(mixed, &images, number)?;
        let pseudo_labels = Some(self.select_pseudo_labels(mixed.pseudo, progress)?);
        Ok(Targets { images, frozen, labels, pseudo_labels })
    }

    /// Draws the CutMix boxes of micro-batch `number`.
    pub fn boxes(&self, number: u64) -> Result<CutMixBoxes> {
        let stream = Stream::keyed(&[self.config.seed, CUTMIX, number]);
        let Config { cutmix, cutmix_features, batch, crop, .. } = *self.config;
        let boxes = CutMixBoxes::sample(stream, cutmix, batch, crop.sides())?;
        if !cutmix_features {
            return Ok(boxes);
        }
        Ok(boxes.on_grid(self.config.arch(self.classes())?.encoder_stride()))
    }

    /// Predicts the weak views with the teacher, and mixes strong views and predictions.
    pub(super) fn mix_unlabeled(
        &self,
        unlabeled: &UnlabeledBatch,
        number: u64,
    ) -> Result<MixedBatch> {
        let _guard = tch::no_grad_guard();
        let weak = self.images_to_tensor(&unlabeled.weak)?;
        // Student and teacher have the same frozen encoder.
        let frozen = match self.config.cutmix_features {
            true => Some(self.teacher.frozen_outputs(&weak)?),
            false => None,
        };
        let valid = self.map_to_tensor(&unlabeled.valid)?.f_to_kind(Kind::Bool)?;
        let pseudo = match (&unlabeled.teacher, &frozen) {
            (Some(found), _) => RawPseudoLabels::from_confidence(
                &self.map_to_tensor(&found.labels)?,
                &self.map_to_tensor(&found.confidence)?,
                &valid,
            )?,
            (None, Some(frozen)) => {
                let node = [self.teacher.tagged(Tag::Logits)?];
                let outputs = net::shared(frozen);
                let logits = self.teacher.forward_from(&weak, outputs, ForwardMode::Eval, &node)?;
                RawPseudoLabels::from_logits(&self.upsample(&logits[0])?, &valid)?
            }
            (None, None) => {
                let logits = self.teacher.forward_tagged(&weak, ForwardMode::Eval, Tag::Logits)?;
                RawPseudoLabels::from_logits(&self.upsample(&logits)?, &valid)?
            }
        };
        let truth = self.map_to_tensor(&unlabeled.truth)?;
        self.counters.pseudo_labels(&pseudo.labels, &valid, &truth)?;
        let boxes = self.boxes(number)?;
        let strong = match &unlabeled.strong {
            Some(pixels) => self.images_to_tensor(pixels)?,
            None => weak,
        };
        let mix = |frozen: FrozenOutputs| -> Result<FrozenOutputs> {
            let size = self.config.crop.sides();
            frozen.into_iter().map(|(id, maps)| Ok((id, boxes.mix_maps(&maps, size)?))).collect()
        };
        Ok(MixedBatch {
            images: boxes.mix(&strong)?,
            frozen: frozen.map(mix).transpose()?,
            pseudo: pseudo.mix(&boxes)?,
        })
    }

    /// With `teacher_statistics = "batch"`, replaces the mixed entropy by that of a teacher pass in training mode over
    /// labeled and mixed images, as U2PL computes it.
    pub(super) fn teacher_entropy_of_mixed(
        &self,
        mixed: MixedBatch,
        images: &Tensor,
        number: u64,
    ) -> Result<MixedBatch> {
        if self.config.teacher_statistics == TeacherStatistics::Average {
            return Ok(mixed);
        }
        let _guard = tch::no_grad_guard();
        tch::manual_seed(self.dropout_seed(number, 1));
        let logits = self.teacher.forward_tagged(images, ForwardMode::Train, Tag::Logits)?;
        let count = mixed.images.size()[0];
        let entropy = pseudo_labels::entropy(&self.upsample(&logits.f_narrow(0, count, count)?)?)?;
        Ok(MixedBatch { pseudo: RawPseudoLabels { entropy, ..mixed.pseudo }, ..mixed })
    }

    /// Drops the `entropy_drop` percent of pixels with the highest entropy, falling linearly to none at the last step,
    /// and those at or below `unlabeled_gate`.
    fn select_pseudo_labels(&self, pseudo: RawPseudoLabels, progress: f64) -> Result<PseudoLabels> {
        let config = self.config;
        let kept = pseudo.select(
            (config.entropy_drop > 0.0).then_some(config.entropy_drop * (1.0 - progress)),
            config.entropy_drop_per_class,
            self.classes(),
            config.unlabeled_gate,
        )?;
        let count = |mask: &Tensor| -> Result<u64> {
            Ok(mask.f_sum(Kind::Int64)?.f_int64_value(&[])? as u64)
        };
        Ok(PseudoLabels {
            labels: pseudo.masked_labels(&kept)?,
            valid_pixels: count(&pseudo.valid)?,
            kept_pixels: count(&kept)?,
            confidence: pseudo.confidence,
        })
    }

    pub(super) fn images_to_tensor(&self, pixels: &[u8]) -> Result<Tensor> {
        net::images_to_tensor(pixels, self.config.crop.sides(), self.device())
    }

    /// Returns bytes as a map u8 `[b, height, width]` of crops.
    pub(super) fn map_to_tensor(&self, bytes: &[u8]) -> Result<Tensor> {
        let [height, width] = self.config.crop.sides().map(|side| side as i64);
        let shape = [bytes.len() as i64 / (height * width), height, width];
        Ok(Tensor::f_from_data_size(bytes, &shape, Kind::Uint8)?.f_to_device(self.device())?)
    }
}
