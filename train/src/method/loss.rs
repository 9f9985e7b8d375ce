//! Cross-entropy losses of logits and labels.

use anyhow::Result;
use protoseg_models::classes::IGNORE_INDEX;
use tch::{Device, Kind, Reduction, Tensor};

use crate::config::options::ClassWeights;

/// Returns the mean cross-entropy over pixels that are not ignored, weighted by class; 0 with a gradient of 0 where all are
/// ignored.
///
/// `logits` are `[N, classes, H, W]` and `labels` i64 `[N, H, W]`, or `[N, classes]` and `[N]`.
pub fn cross_entropy(
    logits: &Tensor,
    labels: &Tensor,
    class_weights: Option<&Tensor>,
) -> Result<Tensor> {
    let counted = labels.f_ne(i64::from(IGNORE_INDEX))?.f_any()?;
    if counted.f_int64_value(&[])? == 0 {
        // The sum of no elements: 0, attached to the graph even where logits are infinite.
        return Ok(logits.f_narrow(0, 0, 0)?.f_sum(Kind::Float)?);
    }
    Ok(logits.f_cross_entropy_loss(
        labels,
        class_weights,
        Reduction::Mean,
        i64::from(IGNORE_INDEX),
        0.0,
    )?)
}

/// Online hard example mining (Shrivastava et al., 2016; U2PL's `OhemCrossEntropy2dTensor`): cross-entropy of the pixels
/// whose class has at most the probability `threshold`, and of at least the `least` hardest ones; of all where fewer than
/// `least` are not ignored.
pub fn ohem(
    logits: &Tensor,
    labels: &Tensor,
    class_weights: Option<&Tensor>,
    threshold: f64,
    least: usize,
) -> Result<Tensor> {
    let valid = labels.f_ne(i64::from(IGNORE_INDEX))?;
    let count = valid.f_sum(Kind::Int64)?.f_int64_value(&[])? as usize;
    if count == 0 || least > count {
        return cross_entropy(logits, labels, class_weights);
    }
    let hard = {
        let _guard = tch::no_grad_guard();
        let classes = labels.f_masked_fill(&valid.f_logical_not()?, 0)?.f_unsqueeze(1)?;
        let probability =
            logits.f_softmax(1, Kind::Float)?.f_gather(1, &classes, false)?.f_squeeze_dim(1)?;
        let (rank, _) =
            probability.f_masked_select(&valid)?.f_kthvalue(least.max(1) as i64, 0, false)?;
        let threshold = rank.f_double_value(&[])?.max(threshold as f32 as f64);
        probability.f_le(threshold)?.f_logical_and(&valid)?
    };
    cross_entropy(
        logits,
        &labels.f_masked_fill(&hard.f_logical_not()?, i64::from(IGNORE_INDEX))?,
        class_weights,
    )
}

/// Soft Dice loss (Milletari et al., 2016) over the whole batch: the mean over its classes of
/// `1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1)`, with the probability `p` of the class and `t` 1 on its pixels, 0 elsewhere.
/// Ignored pixels and classes without a pixel do not count; 0 without any.
pub fn dice(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let valid = labels.f_ne(i64::from(IGNORE_INDEX))?.f_unsqueeze(1)?;
    let classes = logits.size()[1];
    let ids =
        Tensor::f_arange(classes, (Kind::Int64, logits.device()))?.f_view([1, classes, 1, 1])?;
    let truth = labels.f_unsqueeze(1)?.f_eq_tensor(&ids)?;
    let probability = logits.f_softmax(1, Kind::Float)?.f_mul(&valid)?;
    let sum = |map: &Tensor| map.f_sum_dim_intlist([0_i64, 2, 3].as_slice(), false, Kind::Float);
    let (shared, counted) = (sum(&probability.f_mul(&truth)?)?, sum(&truth)?);
    let all = sum(&probability)?.f_add(&counted)?;
    let overlap = shared.f_mul_scalar(2.0)?.f_add_scalar(1.0)?.f_div(&all.f_add_scalar(1.0)?)?;
    let present = counted.f_gt(0.0)?;
    if present.f_any()?.f_int64_value(&[])? == 0 {
        return cross_entropy(logits, labels, None);
    }
    let losses = overlap.f_masked_select(&present)?.f_neg()?.f_add_scalar(1.0)?;
    Ok(losses.f_mean(Kind::Float)?)
}

/// Returns the cross-entropy on pseudo-labels (U2PL's `compute_unsupervised_loss`): the mean over pixels whose label is not
/// [`IGNORE_INDEX`], times `scale` over their number; 0 without any.
pub fn pseudo_label_loss(
    logits: &Tensor,
    labels: &Tensor,
    class_weights: Option<&Tensor>,
    scale: f64,
) -> Result<Tensor> {
    let kept = labels.f_ne(i64::from(IGNORE_INDEX))?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
    let mean = cross_entropy(logits, labels, class_weights)?;
    Ok(if kept == 0 { mean } else { mean.f_mul_scalar(scale / kept as f64)? })
}

/// Returns class weights `[classes]` from the labeled pixels of each class.
pub fn class_weights(kind: ClassWeights, pixels: &[u64], device: Device) -> Result<Option<Tensor>> {
    let all = pixels.iter().sum::<u64>().max(1) as f64;
    // A class without pixels weighs as if it had one.
    let share = |&count: &u64| count.max(1) as f64 / all;
    let weights: Vec<f64> = match kind {
        ClassWeights::None => return Ok(None),
        ClassWeights::Enet => pixels.iter().map(|count| 1.0 / (1.02 + share(count)).ln()).collect(),
        ClassWeights::SquareRoot => {
            let roots: Vec<f64> = pixels.iter().map(|count| share(count).sqrt()).collect();
            let mean: f64 = roots.iter().sum();
            roots.iter().map(|root| 1.0 / (root * mean)).collect()
        }
    };
    let weights: Vec<f32> = weights.into_iter().map(|weight| weight as f32).collect();
    Ok(Some(Tensor::f_from_slice(&weights)?.f_to_device(device)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::pseudo_labels::{RawPseudoLabels, entropy};
    use protoseg_models::random::Stream;

    /// Inputs of U2PL's losses, whose results the tests expect: logits `[2, 19, 33, 33]`, labels with one in ten ignored.
    fn reference() -> (Tensor, Tensor) {
        let (logits, labels) = (Stream::named("logits"), Stream::named("labels"));
        let logits: Vec<f32> =
            (0..2 * 19 * 33 * 33).map(|index| (4.0 * logits.signed_unit(index)) as f32).collect();
        let label = |index| match ((labels.signed_unit(index) + 1.0) / 2.0 * 21.0).floor() as i64 {
            class @ 0..19 => class,
            _ => 255,
        };
        let labels: Vec<i64> = (0..2 * 33 * 33).map(label).collect();
        (
            Tensor::from_slice(&logits).reshape([2, 19, 33, 33]),
            Tensor::from_slice(&labels).reshape([2, 33, 33]),
        )
    }

    #[test]
    fn cross_entropy_and_its_gradient_equal_u2pl() {
        let (logits, labels) = reference();
        meets(
            &logits,
            |logits| cross_entropy(logits, &labels, None),
            [4.834_824_6, 1.899_874_9, 1960.0],
        );
    }

    /// Checks a loss, the sum of its absolute gradient and the number of pixels with a gradient.
    fn meets(
        logits: &Tensor,
        loss: impl Fn(&Tensor) -> Result<Tensor>,
        [value, sum, pixels]: [f64; 3],
    ) {
        let logits = logits.detach().set_requires_grad(true);
        let loss = loss(&logits).unwrap();
        loss.backward();
        let gradient = logits.grad().abs().sum_dim_intlist([1_i64].as_slice(), false, Kind::Double);
        let found = gradient.sum(Kind::Double).double_value(&[]);
        let touched = gradient.gt(0.0).sum(Kind::Int64).int64_value(&[]);
        assert!((loss.double_value(&[]) / value - 1.0).abs() < 1e-5, "{loss:?} {value}");
        assert!((found / sum - 1.0).abs() < 1e-5, "{found} {sum}");
        assert_eq!(touched, pixels as i64);
    }

    #[test]
    fn ohem_equals_u2pl() {
        let (logits, labels) = reference();
        for (threshold, least, expected) in [
            (0.7, 1, [4.837_129_6, 1.900_565_6, 1959.0]),
            (0.7, 500, [4.837_129_6, 1.900_565_6, 1959.0]),
            (0.7, 1500, [4.837_129_6, 1.900_565_6, 1959.0]),
            (0.7, 5000, [4.834_824_6, 1.899_874_9, 1960.0]),
            (0.02, 200, [6.346_730_7, 1.991_617_1, 1200.0]),
            (0.3, 200, [4.952_521_3, 1.920_243_3, 1902.0]),
            (0.02, 1500, [5.739_839_7, 1.977_958_1, 1500.0]),
            (0.0, 700, [7.387_615_0, 1.998_295_8, 700.0]),
        ] {
            meets(&logits, |logits| ohem(logits, &labels, None, threshold, least), expected);
        }
    }

    #[test]
    fn the_unlabeled_loss_equals_u2pl() {
        let (logits, labels) = reference();
        let teacher = Stream::named("teacher");
        let teacher: Vec<f32> =
            (0..2 * 19 * 33 * 33).map(|index| (4.0 * teacher.signed_unit(index)) as f32).collect();
        let entropy = entropy(&Tensor::from_slice(&teacher).reshape([2, 19, 33, 33])).unwrap();
        let valid = labels.ne(i64::from(IGNORE_INDEX));
        for (percent, expected) in [
            (80.0, [6.750_759_1, 2.640_251_4, 1568.0]),
            (90.0, [5.997_203_8, 2.346_984_9, 1764.0]),
            (100.0, [5.376_636_0, 2.112_300_2, 1959.0]),
        ] {
            let pseudo = RawPseudoLabels {
                labels: labels.shallow_clone(),
                confidence: entropy.shallow_clone(),
                entropy: entropy.shallow_clone(),
                valid: valid.shallow_clone(),
            };
            let kept = pseudo.select(Some(100.0 - percent), false, 19, 0.0).unwrap();
            let labels = pseudo.masked_labels(&kept).unwrap();
            meets(
                &logits,
                |logits| pseudo_label_loss(logits, &labels, None, f64::from(2 * 33 * 33)),
                expected,
            );
        }
    }

    #[test]
    fn an_unlabeled_loss_without_kept_pixels_is_zero_with_a_gradient() {
        let (logits, labels) = reference();
        let logits = logits.set_requires_grad(true);
        let loss = pseudo_label_loss(&logits, &labels.full_like(255), None, 10.0).unwrap();
        loss.backward();
        assert_eq!(
            (loss.double_value(&[]), logits.grad().abs().max().double_value(&[])),
            (0.0, 0.0)
        );
    }

    #[test]
    fn a_loss_of_ignored_pixels_only_is_zero_with_a_gradient() {
        let (logits, labels) = reference();
        let logits = logits.set_requires_grad(true);
        let loss = cross_entropy(&logits, &labels.full_like(255), None).unwrap();
        loss.backward();
        assert_eq!(
            (loss.double_value(&[]), logits.grad().abs().max().double_value(&[])),
            (0.0, 0.0)
        );
    }

    #[test]
    fn rare_classes_weigh_more() {
        let weights = class_weights(ClassWeights::Enet, &[98, 2], Device::Cpu).unwrap().unwrap();
        let [common, rare] = [0, 1].map(|class| weights.double_value(&[class]));
        assert!(
            (common - 1.0 / 2.0_f64.ln()).abs() < 1e-5 && (rare - 1.0 / 1.04_f64.ln()).abs() < 1e-3
        );
        let weights =
            class_weights(ClassWeights::SquareRoot, &[75, 0, 25], Device::Cpu).unwrap().unwrap();
        let [common, absent, rare] = [0, 1, 2].map(|class| weights.double_value(&[class]));
        assert!((rare / common - 3.0_f64.sqrt()).abs() < 1e-5 && absent.is_finite());
        assert!((0.75 * common + 0.25 * rare - 1.0).abs() < 0.1, "{common} {rare}");
        assert!(class_weights(ClassWeights::None, &[1, 1], Device::Cpu).unwrap().is_none());
    }

    /// Against sums in f64 pixel by pixel, and the gradient against finite differences.
    #[test]
    fn dice_equals_its_formula_and_its_gradient() {
        const CLASSES: usize = 4;
        let stream = Stream::named("dice");
        let values: Vec<f64> =
            (0..2 * CLASSES as u64 * 15).map(|index| 2.0 * stream.signed_unit(index)).collect();
        // Class 3 has no pixel.
        let labels: Vec<i64> = (0..30).map(|pixel| [0, 1, 2, 255, 1][pixel % 5]).collect();
        let formula = |values: &[f64]| {
            let mut sums = [[0.0; 3]; CLASSES];
            for (pixel, &label) in labels.iter().enumerate().filter(|(_, label)| **label != 255) {
                let logit = |class| values[(pixel / 15 * CLASSES + class) * 15 + pixel % 15];
                let all: f64 = (0..CLASSES).map(|class| f64::exp(logit(class))).sum();
                for (class, [shared, probability, truth]) in sums.iter_mut().enumerate() {
                    let share = f64::exp(logit(class)) / all;
                    *probability += share;
                    if class as i64 == label {
                        *shared += share;
                        *truth += 1.0;
                    }
                }
            }
            let present = sums.iter().filter(|[_, _, truth]| *truth > 0.0);
            let losses: Vec<f64> = present
                .map(|[shared, probability, truth]| {
                    1.0 - (2.0 * shared + 1.0) / (probability + truth + 1.0)
                })
                .collect();
            losses.iter().sum::<f64>() / losses.len() as f64
        };
        let floats: Vec<f32> = values.iter().map(|&value| value as f32).collect();
        let logits = Tensor::from_slice(&floats).reshape([2, CLASSES as i64, 3, 5]);
        let logits = logits.set_requires_grad(true);
        let truth = Tensor::from_slice(&labels).reshape([2, 3, 5]);
        let loss = dice(&logits, &truth).unwrap();
        assert!((loss.double_value(&[]) - formula(&values)).abs() < 1e-6);
        loss.backward();
        let gradient = Vec::<f32>::try_from(logits.grad().flatten(0, -1)).unwrap();
        for (index, found) in gradient.iter().enumerate() {
            let at = |step: f64| {
                let mut moved = values.clone();
                moved[index] += step;
                formula(&moved)
            };
            let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{index}: {found} {expected}");
        }
        let nothing = dice(&logits, &truth.full_like(255)).unwrap();
        assert_eq!(nothing.double_value(&[]), 0.0);
    }
}
