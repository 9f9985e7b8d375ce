//! Predictions and scores on libtorch: whole images, or sliding windows whose logits are averaged before upsampling.

use anyhow::{Context, Result, ensure};
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::labeled::LabeledDataset;
use protoseg_models::classes::ClassTable;
use protoseg_models::graph::{NodeId, Tag};
use protoseg_models::metrics::{ConfusionMatrix, Metrics, Scores};
use protoseg_models::window::{LogitGrid, Tiling, Window, WindowPlan};
use tch::{Kind, Tensor};

use crate::method::prototypes::Prototypes;
use crate::net::{self, ForwardMode, Net};

/// Geometry of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    pub grid: LogitGrid,
    /// None for whole images.
    pub window: Option<Window>,
}

impl Protocol {
    /// Returns the name in reports.
    pub fn name(self) -> String {
        Tiling::from(self.window).to_string()
    }
}

/// A network's head.
#[derive(Clone, Copy)]
pub enum Predictor<'a> {
    Linear(&'a Net),
    /// Prototypes on the output of a node.
    Prototypes(&'a Net, NodeId, &'a Prototypes),
}

impl Predictor<'_> {
    fn net(&self) -> &Net {
        match self {
            Self::Linear(net) | Self::Prototypes(net, ..) => net,
        }
    }

    /// Returns the logits `[1, classes, h, w]` of an image u8 `[1, H, W, 3]` before upsampling.
    fn logits(&self, image: &Tensor) -> Result<Tensor> {
        match self {
            Self::Linear(net) => net.forward_tagged(image, ForwardMode::Eval, Tag::Logits),
            Self::Prototypes(net, node, prototypes) => {
                prototypes.dense(&net.forward(image, ForwardMode::Eval, &[*node])?.remove(0))
            }
        }
    }
}

/// Returns the logits `[1, classes, h, w]` before upsampling, with the size of the image or of the frame padded for its
/// windows.
fn logits(predictor: Predictor, image: &Tensor, protocol: Protocol) -> Result<(Tensor, [i64; 2])> {
    let (height, width) = (image.size()[1], image.size()[2]);
    let Some(window) = protocol.window else {
        return Ok((predictor.logits(image)?, [height, width]));
    };
    let device = predictor.net().device();
    let plan = WindowPlan::new(height as usize, width as usize, window, protocol.grid)?;
    let padded = [plan.rows.padded as i64, plan.columns.padded as i64];
    let frame = image.f_permute([0, 3, 1, 2])?.f_to_kind(Kind::Float)?;
    let frame = frame.f_replication_pad2d([0, padded[1] - width, 0, padded[0] - height])?;
    let frame = frame.f_to_kind(Kind::Uint8)?.f_permute([0, 2, 3, 1])?;
    let [rows, columns] = plan.logit_size().map(|length| length as i64);
    let side = plan.window_logits() as i64;
    let mut sum: Option<Tensor> = None;
    let size = window.size as i64;
    for (start, logit_start) in plan.starts().zip(plan.logit_starts()) {
        let part = frame.f_narrow(1, start[0] as i64, size)?.f_narrow(2, start[1] as i64, size)?;
        let part = predictor.logits(&part)?;
        let sum = match &mut sum {
            Some(sum) => sum,
            None => sum.insert(Tensor::f_zeros(
                [1, part.size()[1], rows, columns],
                (Kind::Float, device),
            )?),
        };
        let place = sum.f_narrow(2, logit_start[0] as i64, side)?.f_narrow(
            3,
            logit_start[1] as i64,
            side,
        )?;
        let _ = place.shallow_clone().f_add_(&part)?;
    }
    let [down, across] = plan
        .coverage()
        .map(|cover| cover.into_iter().map(|count| count as f32).collect::<Vec<_>>());
    let down = Tensor::f_from_slice(&down)?.f_to_device(device)?.f_reshape([1, 1, rows, 1])?;
    let across =
        Tensor::f_from_slice(&across)?.f_to_device(device)?.f_reshape([1, 1, 1, columns])?;
    let mean = sum.context("the frame has no windows")?.f_div(&down.f_mul(&across)?)?;
    Ok((mean, padded))
}

/// Returns the train ids of an image, row by row, and the confidence in each in steps of 1/255.
pub fn predict_with_confidence(
    predictor: Predictor,
    pixels: &[u8],
    size: [usize; 2],
    protocol: Protocol,
) -> Result<[Vec<u8>; 2]> {
    let _guard = tch::no_grad_guard();
    let (confidence, labels) = upsampled(predictor, pixels, size, protocol)?
        .f_softmax(1, Kind::Float)?
        .f_max_dim(1, false)?;
    Ok([bytes(&labels, size)?, bytes(&confidence.f_mul_scalar(255.0)?.f_round()?, size)?])
}

/// Returns the probability of given train ids of an image, row by row, in steps of 1/255.
pub fn label_confidence(
    predictor: Predictor,
    pixels: &[u8],
    size: [usize; 2],
    protocol: Protocol,
    labels: &[u8],
) -> Result<Vec<u8>> {
    let _guard = tch::no_grad_guard();
    let probabilities = upsampled(predictor, pixels, size, protocol)?.f_softmax(1, Kind::Float)?;
    let [height, width] = size.map(|length| length as i64);
    let probabilities = probabilities.f_narrow(2, 0, height)?.f_narrow(3, 0, width)?;
    let labels = Tensor::f_from_slice(labels)?
        .f_to_device(probabilities.device())?
        .f_to_kind(Kind::Int64)?;
    let own = probabilities
        .f_gather(1, &labels.f_reshape([1, 1, height, width])?, false)?
        .f_squeeze_dim(1)?;
    bytes(&own.f_mul_scalar(255.0)?.f_round()?, size)
}

/// Returns the train ids of an image, row by row.
pub fn predict_labels(
    predictor: Predictor,
    pixels: &[u8],
    size: [usize; 2],
    protocol: Protocol,
) -> Result<Vec<u8>> {
    let _guard = tch::no_grad_guard();
    bytes(&upsampled(predictor, pixels, size, protocol)?.f_argmax(1, false)?, size)
}

/// Returns the logits of every pixel `[1, classes, H, W]` of the image or padded frame.
fn upsampled(
    predictor: Predictor,
    pixels: &[u8],
    size: [usize; 2],
    protocol: Protocol,
) -> Result<Tensor> {
    let image = net::images_to_tensor(pixels, size, predictor.net().device())?;
    let (logits, padded) = logits(predictor, &image, protocol)?;
    net::upsample(&logits, padded, protocol.grid.align_corners)
}

/// Crops a map `[1, H, W]` of numbers up to 255 to bytes.
fn bytes(map: &Tensor, size: [usize; 2]) -> Result<Vec<u8>> {
    let map = map.f_narrow(1, 0, size[0] as i64)?.f_narrow(2, 0, size[1] as i64)?;
    let map = map.f_to_kind(Kind::Uint8)?.f_contiguous()?.f_to_device(tch::Device::Cpu)?;
    let mut bytes = vec![0; size[0] * size[1]];
    let count = bytes.len();
    map.f_copy_data(&mut bytes, count)?;
    Ok(bytes)
}

/// Scoring was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("scoring was interrupted")]
pub struct Interrupted;

/// Scores a predictor on a list. `seen` gets the index and confusion matrix of every image; where it returns false, scoring
/// fails with [`Interrupted`].
pub fn score(
    predictor: Predictor,
    samples: &LabeledDataset,
    classes: &ClassTable,
    protocol: Protocol,
    mut seen: impl FnMut(usize, &ConfusionMatrix) -> bool,
) -> Result<Evaluation> {
    let mut confusion = ConfusionMatrix::new(classes.count());
    for index in 0..samples.count() {
        let sample = samples.read(index, MAX_PIXELS)?;
        let name = || format!("cannot score {}", samples.name(index));
        let labels = predict_labels(predictor, sample.image.as_raw(), sample.size(), protocol)
            .with_context(name)?;
        let mut own = ConfusionMatrix::new(classes.count());
        own.add(&sample.truth, &labels).with_context(name)?;
        ensure!(seen(index, &own), Interrupted);
        confusion.merge(&own);
    }
    Ok(Evaluation {
        protocol: protocol.name(),
        images: samples.count(),
        scores: confusion.scores(classes),
    })
}

/// Scores without data set and step.
pub struct Evaluation {
    protocol: String,
    images: usize,
    scores: Scores,
}

impl Evaluation {
    pub fn into_metrics(self, data: &str, step: u64) -> Metrics {
        Metrics {
            data: data.to_owned(),
            protocol: self.protocol,
            images: self.images,
            step,
            scores: self.scores,
        }
    }
}
