//! Predictions and scores on libtorch: whole images, or sliding windows whose logits are averaged before upsampling.

use anyhow::{Context, Result, ensure};
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::labeled::LabeledDataset;
use protoseg_models::classes::ClassTable;
use protoseg_models::graph::{NodeId, Tag};
use protoseg_models::metrics::{ConfusionMatrix, Metrics};
use protoseg_models::window::{LogitGrid, Tiling, Window, WindowPlan};
use tch::{Kind, Tensor};

use crate::interrupt::Interrupted;
use crate::method::prototypes::Prototypes;
use crate::net::{self, ForwardMode, Net};
use crate::tiles;

/// Largest number of values in the upsampled logits of an image; beyond it, they are computed class by class.
const UPSAMPLED_VALUES: usize = 1 << 25;

/// Geometry of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    pub grid: LogitGrid,
    /// None for whole images.
    pub window: Option<Window>,
}

/// A network's head with the geometry of its evaluation.
#[derive(Clone, Copy)]
pub struct Predictor<'a> {
    net: &'a Net,
    /// Node of the features and prototypes on them; None for the linear head.
    prototypes: Option<(NodeId, &'a Prototypes)>,
    protocol: Protocol,
}

impl<'a> Predictor<'a> {
    pub fn linear(net: &'a Net, protocol: Protocol) -> Self {
        Self { net, prototypes: None, protocol }
    }

    /// Prototypes on the output of a node.
    pub fn prototypes(
        net: &'a Net,
        node: NodeId,
        prototypes: &'a Prototypes,
        protocol: Protocol,
    ) -> Self {
        Self { net, prototypes: Some((node, prototypes)), protocol }
    }

    /// Returns the train ids of an image, row by row.
    pub fn labels(&self, pixels: &[u8], size: [usize; 2]) -> Result<Vec<u8>> {
        let _guard = tch::no_grad_guard();
        let (logits, frame) = self.frame_logits(pixels, size)?;
        if fits_at_once(&logits, frame) {
            return to_bytes(&self.upsample(&logits, frame)?.f_argmax(1, false)?, size);
        }
        to_bytes(&self.largest_logits(&logits, frame)?.0, size)
    }

    /// Returns the train ids of an image, row by row, and the confidence in each in steps of 1/255.
    pub fn labels_and_confidence(&self, pixels: &[u8], size: [usize; 2]) -> Result<[Vec<u8>; 2]> {
        let _guard = tch::no_grad_guard();
        let (logits, frame) = self.frame_logits(pixels, size)?;
        let (confidence, labels) = if fits_at_once(&logits, frame) {
            self.upsample(&logits, frame)?.f_softmax(1, Kind::Float)?.f_max_dim(1, false)?
        } else {
            let (labels, largest) = self.largest_logits(&logits, frame)?;
            let mut sum = largest.f_zeros_like()?;
            for class in 0..logits.size()[1] {
                let own = self.upsample(&logits.f_narrow(1, class, 1)?, frame)?.f_squeeze_dim(1)?;
                let _ = sum.f_add_(&own.f_sub(&largest)?.f_exp()?)?;
            }
            (sum.f_reciprocal()?, labels)
        };
        Ok([to_bytes(&labels, size)?, to_bytes(&in_255ths(&confidence)?, size)?])
    }

    /// Returns labels and logits `[1, H, W]` of the most probable classes, from one class after the other.
    fn largest_logits(&self, logits: &Tensor, frame: [i64; 2]) -> Result<(Tensor, Tensor)> {
        let class = |class: i64| -> Result<Tensor> {
            let own = self.upsample(&logits.f_narrow(1, class, 1)?, frame)?;
            Ok(own.f_squeeze_dim(1)?)
        };
        let mut largest = class(0)?;
        let mut labels = largest.f_zeros_like()?.f_to_kind(Kind::Uint8)?;
        for index in 1..logits.size()[1] {
            let own = class(index)?;
            // Of equal logits, the first class wins, as in argmax.
            let _ = labels.f_masked_fill_(&own.f_gt_tensor(&largest)?, index)?;
            largest = largest.f_maximum(&own)?;
        }
        Ok((labels, largest))
    }

    /// Returns the probability of given train ids of an image, row by row, in steps of 1/255.
    pub fn confidence_in(&self, labels: &[u8], pixels: &[u8], size: [usize; 2]) -> Result<Vec<u8>> {
        let _guard = tch::no_grad_guard();
        let (logits, frame) = self.frame_logits(pixels, size)?;
        let probabilities = self.upsample(&logits, frame)?.f_softmax(1, Kind::Float)?;
        let [height, width] = size.map(|length| length as i64);
        let probabilities = probabilities.f_narrow(2, 0, height)?.f_narrow(3, 0, width)?;
        let labels = Tensor::f_from_slice(labels)?
            .f_to_device(self.net.device())?
            .f_to_kind(Kind::Int64)?
            .f_reshape([1, 1, height, width])?;
        let own = probabilities.f_gather(1, &labels, false)?.f_squeeze_dim(1)?;
        to_bytes(&in_255ths(&own)?, size)
    }

    /// Returns the logits `[1, classes, h, w]` of the image or padded frame, with its size in pixels.
    fn frame_logits(&self, pixels: &[u8], size: [usize; 2]) -> Result<(Tensor, [i64; 2])> {
        let (logits, frame) = match self.protocol.window {
            None => {
                let image = net::images_to_tensor(pixels, size, self.net.device())?;
                (self.logits(&image)?, size.map(|length| length as i64))
            }
            Some(window) => self.window_logits(pixels, size, window)?,
        };
        let sum = logits.f_sum(Kind::Double)?.f_double_value(&[])?;
        ensure!(sum.is_finite(), "the network's logits are not finite: lower `learning_rate`");
        Ok((logits, frame))
    }

    fn upsample(&self, logits: &Tensor, frame: [i64; 2]) -> Result<Tensor> {
        net::upsample(logits, frame, self.protocol.grid.align_corners)
    }

    /// Returns the logits `[1, classes, h, w]` of an image u8 `[1, H, W, 3]`.
    fn logits(&self, image: &Tensor) -> Result<Tensor> {
        match self.prototypes {
            None => self.net.forward_tagged(image, ForwardMode::Eval, Tag::Logits),
            Some((node, prototypes)) => {
                let features = self.net.forward(image, ForwardMode::Eval, &[node])?.remove(0);
                prototypes.dense(&features)
            }
        }
    }

    /// Returns the mean logits of all windows `[1, classes, h, w]` over the padded frame, with the size of the frame.
    fn window_logits(
        &self,
        pixels: &[u8],
        size: [usize; 2],
        window: Window,
    ) -> Result<(Tensor, [i64; 2])> {
        let plan = WindowPlan::new(size[0], size[1], window, self.protocol.grid)?;
        let padded = [plan.rows.padded as i64, plan.columns.padded as i64];
        let [rows, columns] = plan.logit_size().map(|length| length as i64);
        let side = plan.window_logits() as i64;
        let mut sum: Option<Tensor> = None;
        for ([top, left], [logit_top, logit_left]) in plan.starts().zip(plan.logit_starts()) {
            let tile = tiles::cut(pixels, size, [top, left], window.size);
            let tile = net::images_to_tensor(&tile, [window.size; 2], self.net.device())?;
            let logits = self.logits(&tile)?;
            let sum = match &mut sum {
                Some(sum) => sum,
                None => sum.insert(Tensor::f_zeros(
                    [1, logits.size()[1], rows, columns],
                    (Kind::Float, self.net.device()),
                )?),
            };
            let mut place =
                sum.f_narrow(2, logit_top as i64, side)?.f_narrow(3, logit_left as i64, side)?;
            let _ = place.f_add_(&logits)?;
        }
        let [down, across] = plan.coverage().map(|counts| -> Result<Tensor> {
            let counts: Vec<f32> = counts.into_iter().map(|count| count as f32).collect();
            Ok(Tensor::f_from_slice(&counts)?.f_to_device(self.net.device())?)
        });
        let visits =
            down?.f_reshape([1, 1, rows, 1])?.f_mul(&across?.f_reshape([1, 1, 1, columns])?)?;
        Ok((sum.context("the frame has no windows")?.f_div(&visits)?, padded))
    }
}

/// Returns true if the logits `[1, classes, h, w]` may be upsampled to a frame for all classes at once.
fn fits_at_once(logits: &Tensor, frame: [i64; 2]) -> bool {
    let values = [logits.size()[1], frame[0], frame[1]].map(|length| length as usize);
    values.into_iter().product::<usize>() <= UPSAMPLED_VALUES
}

fn in_255ths(shares: &Tensor) -> Result<Tensor> {
    Ok(shares.f_mul_scalar(255.0)?.f_round()?)
}

/// Crops a map `[1, H, W]` of numbers up to 255 to bytes.
fn to_bytes(map: &Tensor, size: [usize; 2]) -> Result<Vec<u8>> {
    let map = map.f_narrow(1, 0, size[0] as i64)?.f_narrow(2, 0, size[1] as i64)?;
    let map = map.f_to_kind(Kind::Uint8)?.f_contiguous()?.f_to_device(tch::Device::Cpu)?;
    let mut bytes = vec![0; size[0] * size[1]];
    let count = bytes.len();
    map.f_copy_data(&mut bytes, count)?;
    Ok(bytes)
}

/// Scores a predictor on the list `images`, named `data`, after `step` steps. `seen` gets the index and confusion matrix of
/// every image; where it returns false, scoring fails with [`Interrupted`].
pub fn score(
    predictor: Predictor,
    images: &LabeledDataset,
    classes: &ClassTable,
    data: &str,
    step: u64,
    mut seen: impl FnMut(usize, &ConfusionMatrix) -> bool,
) -> Result<Metrics> {
    let mut confusion = ConfusionMatrix::new(classes.count());
    for index in 0..images.count() {
        let sample = images.read(index, MAX_PIXELS)?;
        let name = || format!("cannot score {}", images.name(index));
        let labels = predictor.labels(sample.image.as_raw(), sample.size()).with_context(name)?;
        let mut own = ConfusionMatrix::new(classes.count());
        own.add(&sample.truth, &labels).with_context(name)?;
        ensure!(seen(index, &own), Interrupted);
        confusion.merge(&own);
    }
    Ok(Metrics {
        data: data.to_owned(),
        protocol: Tiling::from(predictor.protocol.window).to_string(),
        images: images.count(),
        step,
        scores: confusion.scores(classes),
    })
}
