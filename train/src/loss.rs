//! Losses over logits and labels.

use anyhow::Result;
use protoseg_models::classes::IGNORE;
use tch::{Device, Kind, Reduction, Tensor};

use crate::config::ClassWeights;

/// Mean cross-entropy over pixels that are not ignored, weighted by class.
///
/// `logits` `[N, classes, H, W]`, `labels` i64 `[N, H, W]`. Where every pixel is ignored it is 0, with a gradient of 0.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, class_weights: Option<&Tensor>) -> Result<Tensor> {
    let counted = labels.f_ne(i64::from(IGNORE))?.f_any()?;
    if counted.f_int64_value(&[])? == 0 {
        return Ok(logits.f_sum(Kind::Float)?.f_mul_scalar(0.0)?);
    }
    Ok(logits.f_cross_entropy_loss(labels, class_weights, Reduction::Mean, i64::from(IGNORE), 0.0)?)
}

/// The weight of each class, from how many labelled pixels it has.
pub fn class_weights(kind: ClassWeights, pixels: &[u64], device: Device) -> Result<Option<Tensor>> {
    match kind {
        ClassWeights::None => Ok(None),
        ClassWeights::Enet => {
            let all: u64 = pixels.iter().sum();
            let weight = |&count: &u64| (1.0 / (1.02 + count as f64 / all.max(1) as f64).ln()) as f32;
            let weights: Vec<f32> = pixels.iter().map(weight).collect();
            Ok(Some(Tensor::f_from_slice(&weights)?.f_to_device(device)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protoseg_models::random::Stream;

    /// Inputs of the reference line's losses: logits `[2, 19, 33, 33]` and labels with one in ten ignored.
    fn reference() -> (Tensor, Tensor) {
        let (logits, labels) = (Stream::named("logits"), Stream::named("labels"));
        let logits: Vec<f32> = (0..2 * 19 * 33 * 33).map(|index| (4.0 * logits.signed_unit(index)) as f32).collect();
        let label = |index| match ((labels.signed_unit(index) + 1.0) / 2.0 * 21.0).floor() as i64 {
            class @ 0..19 => class,
            _ => 255,
        };
        let labels: Vec<i64> = (0..2 * 33 * 33).map(label).collect();
        (Tensor::from_slice(&logits).reshape([2, 19, 33, 33]), Tensor::from_slice(&labels).reshape([2, 33, 33]))
    }

    #[test]
    fn cross_entropy_and_its_gradient_equal_the_reference() {
        let (logits, labels) = reference();
        let logits = logits.set_requires_grad(true);
        let loss = cross_entropy(&logits, &labels, None).unwrap();
        loss.backward();
        let gradient = logits.grad().abs().sum(Kind::Double).double_value(&[]);
        assert!((loss.double_value(&[]) / 4.834_824_6 - 1.0).abs() < 1e-5, "{loss:?}");
        assert!((gradient / 1.899_874_9 - 1.0).abs() < 1e-5, "{gradient}");
    }

    #[test]
    fn nothing_but_ignored_pixels_is_a_loss_of_zero_with_a_gradient() {
        let (logits, labels) = reference();
        let logits = logits.set_requires_grad(true);
        let loss = cross_entropy(&logits, &labels.full_like(255), None).unwrap();
        loss.backward();
        assert_eq!((loss.double_value(&[]), logits.grad().abs().max().double_value(&[])), (0.0, 0.0));
    }

    #[test]
    fn rare_classes_weigh_more() {
        let weights = class_weights(ClassWeights::Enet, &[98, 2], Device::Cpu).unwrap().unwrap();
        let [common, rare] = [0, 1].map(|class| weights.double_value(&[class]));
        assert!((common - 1.0 / 2.0_f64.ln()).abs() < 1e-5 && (rare - 1.0 / 1.04_f64.ln()).abs() < 1e-3);
        assert!(class_weights(ClassWeights::None, &[1, 1], Device::Cpu).unwrap().is_none());
    }
}
