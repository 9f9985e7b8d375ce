//! One optimiser step of supervised training.

use anyhow::{Context, Result, ensure};
use protoseg_models::graph::{NodeId, Tag};
use protoseg_models::random::Stream;
use tch::{Kind, Tensor};

use crate::config::Config;
use crate::loader::Batch;
use crate::loss::cross_entropy;
use crate::net::{self, Mode, Net};
use crate::optimizer::{Sgd, poly};

/// Purpose of the draws of dropout.
const DROPOUT: u64 = 4;
/// Weight of the auxiliary loss (the reference's `aux_loss.loss_weight`).
const AUXILIARY_WEIGHT: f64 = 0.4;

/// What a step reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Losses {
    /// The loss of the linear head on labelled pixels.
    pub labeled: f64,
    /// The same for the auxiliary head; none where there is none.
    pub auxiliary: Option<f64>,
    /// The encoder's learning rate.
    pub learning_rate: f64,
}

/// What a step works with.
pub struct Student<'a> {
    /// The network that learns.
    pub net: &'a Net,
    /// Weight of each class in the loss.
    pub class_weights: Option<Tensor>,
    /// Whether logits are upsampled with aligned corners.
    pub align_corners: bool,
}

/// Learns from one batch: `L = L_lin + 0.4 L_aux` (method of Xu et al., warm-up phase).
pub fn supervised(student: &Student, sgd: &mut Sgd, batch: &Batch, config: &Config, step: u64) -> Result<Losses> {
    let net = student.net;
    // Dropout draws from the process's generator, which has no state that can be saved: it starts anew every step.
    tch::manual_seed(Stream::keyed(&[config.seed, DROPOUT, step]).bits(0) as i64);
    let side = config.crop;
    let pictures = net::pictures(&batch.pixels, [side, side], net.device())?;
    let shape = [config.batch as i64, side as i64, side as i64];
    let labels = Tensor::f_from_data_size(&batch.labels, &shape, Kind::Uint8)?;
    let labels = labels.f_to_kind(Kind::Int64)?.f_to_device(net.device())?;

    let tags: Vec<NodeId> = [Tag::Logits, Tag::Aux].into_iter().filter_map(|tag| net.graph().tagged(tag)).collect();
    let outputs = net.forward(&pictures, Mode::Train, &tags)?;
    let losses = outputs.iter().map(|logits| {
        let logits = net::upsample(logits, [side as i64, side as i64], student.align_corners)?;
        cross_entropy(&logits, &labels, student.class_weights.as_ref())
    });
    let losses = losses.collect::<Result<Vec<Tensor>>>()?;
    let labeled = losses.first().context("the network has no logits")?;
    let total = match losses.get(1) {
        Some(auxiliary) => labeled.f_add(&auxiliary.f_mul_scalar(AUXILIARY_WEIGHT)?)?,
        None => labeled.shallow_clone(),
    };
    let value = total.f_double_value(&[])?;
    ensure!(
        value.is_finite(),
        "the loss of step {step} is {value}: the learning rate is too high for this data, lower `learning_rate` or `head_multiplier`"
    );
    total.f_backward()?;

    let learning_rate = poly(config.learning_rate, step, config.steps);
    sgd.step(net, |name| {
        let multiplier = if name.starts_with("encoder.") { 1.0 } else { config.head_multiplier };
        learning_rate * multiplier
    })?;
    Ok(Losses {
        labeled: labeled.f_double_value(&[])?,
        auxiliary: losses.get(1).map(|loss| loss.f_double_value(&[])).transpose()?,
        learning_rate,
    })
}
