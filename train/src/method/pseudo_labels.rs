//! Teacher pseudo-labels of unlabeled images, and the selection of pixels by entropy (U2PL) and confidence.

use anyhow::Result;
use protoseg_models::classes::IGNORE_INDEX;
use tch::{Kind, Tensor};

use crate::method::cutmix::CutMixBoxes;

/// Teacher predictions of a micro-batch before any selection; every map is `[images, side, side]`.
pub struct RawPseudoLabels {
    /// i64, the most probable class.
    pub labels: Tensor,
    /// Probability of the label.
    pub confidence: Tensor,
    /// Entropy of the class probabilities, in nats, or another measure of doubt.
    pub entropy: Tensor,
    /// False in the padding.
    pub valid: Tensor,
}

impl RawPseudoLabels {
    /// Predicts from the teacher's logits `[images, classes, side, side]`.
    pub fn from_logits(logits: &Tensor, valid: &Tensor) -> Result<Self> {
        let logarithms = logits.f_log_softmax(1, Kind::Float)?;
        let probabilities = logarithms.f_exp()?;
        let (confidence, labels) = probabilities.f_max_dim(1, false)?;
        Ok(Self {
            labels,
            confidence,
            entropy: entropy_of(&probabilities, logarithms)?,
            valid: valid.shallow_clone(),
        })
    }

    /// Takes labels u8 and the confidence in them in steps of 1/255, u8. The doubt, 1 less the
    /// confidence, stands for the entropy, which the labels do not tell.
    pub fn from_confidence(labels: &Tensor, confidence: &Tensor, valid: &Tensor) -> Result<Self> {
        let confidence = confidence.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
        Ok(Self {
            labels: labels.f_to_kind(Kind::Int64)?,
            entropy: confidence.f_neg()?.f_add_scalar(1.0)?,
            confidence,
            valid: valid.shallow_clone(),
        })
    }

    /// Applies CutMix to every map.
    pub fn mix(&self, boxes: &CutMixBoxes) -> Result<Self> {
        Ok(Self {
            labels: boxes.mix(&self.labels)?,
            confidence: boxes.mix(&self.confidence)?,
            entropy: boxes.mix(&self.entropy)?,
            valid: boxes.mix(&self.valid)?,
        })
    }

    /// Returns the mask of kept pixels: valid, confidence above `gate`, and entropy below the percentile 100 - `drop` over
    /// valid pixels, or over those of the same label with `per_class`. A pixel at the percentile is dropped, as in U2PL.
    pub fn select(
        &self,
        drop: Option<f64>,
        per_class: bool,
        classes: usize,
        gate: f64,
    ) -> Result<Tensor> {
        let mut kept = self.valid.shallow_clone();
        if gate > 0.0 {
            kept = kept.f_logical_and(&self.confidence.f_gt(gate)?)?;
        }
        let Some(drop) = drop else { return Ok(kept) };
        if !per_class {
            return self.below(&kept, &self.valid, drop);
        }
        for class in 0..classes {
            let among = self.labels.f_eq(class as i64)?.f_logical_and(&self.valid)?;
            let others = among.f_logical_not()?;
            kept = self.below(&kept, &among, drop)?.f_logical_or(&kept.f_logical_and(&others)?)?;
        }
        Ok(kept)
    }

    /// Restricts `kept` to pixels below the percentile over `among`.
    fn below(&self, kept: &Tensor, among: &Tensor, drop: f64) -> Result<Tensor> {
        match percentile(&self.entropy.f_masked_select(among)?, 100.0 - drop)? {
            Some(threshold) => Ok(kept.f_logical_and(&self.entropy.f_lt(threshold)?)?),
            None => Ok(kept.shallow_clone()),
        }
    }

    /// Returns the labels, [`IGNORE_INDEX`] outside `kept`.
    pub fn masked_labels(&self, kept: &Tensor) -> Result<Tensor> {
        Ok(self.labels.f_masked_fill(&kept.f_logical_not()?, i64::from(IGNORE_INDEX))?)
    }
}

/// Returns the entropy of the softmax in nats, from logits `[N, classes, H, W]` to `[N, H, W]`.
pub fn entropy(logits: &Tensor) -> Result<Tensor> {
    let logarithms = logits.f_log_softmax(1, Kind::Float)?;
    entropy_of(&logarithms.f_exp()?, logarithms)
}

/// Returns `-sum p log p` over classes.
fn entropy_of(probabilities: &Tensor, mut logarithms: Tensor) -> Result<Tensor> {
    let _ = logarithms.f_mul_(probabilities)?;
    Ok(logarithms.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)?.f_neg()?)
}

/// Returns NumPy's percentile (linear interpolation) of a one-dimensional tensor; None for an empty one.
pub fn percentile(values: &Tensor, percent: f64) -> Result<Option<f64>> {
    let count = values.numel();
    if count == 0 {
        return Ok(None);
    }
    let place = percent.clamp(0.0, 100.0) / 100.0 * (count - 1) as f64;
    let low = place.floor();
    let statistic = |rank: usize| -> Result<f64> {
        let (value, _) = values.f_kthvalue((rank + 1).min(count) as i64, 0, false)?;
        Ok(value.f_double_value(&[])?)
    };
    let below = statistic(low as usize)?;
    if place == low {
        return Ok(Some(below));
    }
    Ok(Some(below + (statistic(low as usize + 1)? - below) * (place - low)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protoseg_models::random::Stream;
    use tch::Device;

    fn values(count: usize) -> Vec<f32> {
        // Coarse, so that there are ties.
        (0..count).map(|index| Stream::keyed(&[8]).below(index as u64, 40) as f32 / 10.0).collect()
    }

    #[test]
    fn percentiles_are_numpys() {
        let numbers = Tensor::from_slice(&[3.0_f32, 1.0, 2.0, 10.0]);
        // numpy.percentile([3, 1, 2, 10], [0, 25, 50, 80, 99, 100])
        for (percent, expected) in
            [(0.0, 1.0), (25.0, 1.75), (50.0, 2.5), (80.0, 5.8), (99.0, 9.79), (100.0, 10.0)]
        {
            let found = percentile(&numbers, percent).unwrap().unwrap();
            assert!((found - expected).abs() < 1e-6, "{percent}: {found}");
        }
        assert_eq!(percentile(&numbers.narrow(0, 0, 0), 50.0).unwrap(), None);
        assert_eq!(percentile(&numbers.narrow(0, 0, 1), 37.0).unwrap(), Some(3.0));
    }

    /// Loops in f64 over random maps with padding, ties and a class that is never predicted.
    #[test]
    fn selection_equals_loops() {
        let (count, classes) = (2 * 9 * 9, 4);
        let stream = Stream::keyed(&[2]);
        let labels: Vec<i64> =
            (0..count).map(|index| stream.below(index as u64, 3) as i64).collect();
        let confidence: Vec<f32> =
            (0..count).map(|index| stream.unit(1000 + index as u64) as f32).collect();
        let valid: Vec<bool> =
            (0..count).map(|index| stream.unit(2000 + index as u64) < 0.8).collect();
        let entropy = values(count);
        let shape = [2, 9, 9];
        let pseudo = RawPseudoLabels {
            labels: Tensor::from_slice(&labels).reshape(shape),
            confidence: Tensor::from_slice(&confidence).reshape(shape),
            entropy: Tensor::from_slice(&entropy).reshape(shape),
            valid: Tensor::from_slice(&valid).reshape(shape),
        };
        let threshold = |among: &dyn Fn(usize) -> bool, percent: f64| {
            let mut sorted: Vec<f64> = (0..count)
                .filter(|&index| among(index))
                .map(|index| entropy[index].into())
                .collect();
            sorted.sort_by(f64::total_cmp);
            let place = percent / 100.0 * (sorted.len() as f64 - 1.0);
            let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        for (drop, per_class, gate) in [
            (Some(20.0), false, 0.0),
            (Some(35.0), true, 0.0),
            (Some(0.0), false, 0.3),
            (None, false, 0.9),
            (None, true, 1.0),
        ] {
            let kept = pseudo.select(drop, per_class, classes, gate).unwrap();
            for index in 0..count {
                let among =
                    |other: usize| valid[other] && (!per_class || labels[other] == labels[index]);
                let below = drop
                    .is_none_or(|drop| f64::from(entropy[index]) < threshold(&among, 100.0 - drop));
                let expected =
                    valid[index] && below && (gate == 0.0 || f64::from(confidence[index]) > gate);
                let found = kept.view(-1).int64_value(&[index as i64]) == 1;
                assert_eq!(found, expected, "{index} {drop:?} {per_class} {gate}");
            }
        }
        let nothing = pseudo.select(None, false, classes, 1.0).unwrap();
        assert_eq!(nothing.sum(Kind::Int64).int64_value(&[]), 0);
        assert_eq!(pseudo.masked_labels(&nothing).unwrap().min().int64_value(&[]), 255);
    }

    #[test]
    fn labels_confidence_and_entropy_come_from_the_softmax() {
        let logits: Vec<f32> =
            (0..3 * 4).map(|index| 3.0 * Stream::keyed(&[3]).signed_unit(index) as f32).collect();
        let tensor = Tensor::from_slice(&logits).reshape([1, 3, 2, 2]);
        let valid = Tensor::ones([1, 2, 2], (Kind::Bool, Device::Cpu));
        let pseudo = RawPseudoLabels::from_logits(&tensor, &valid).unwrap();
        for pixel in 0..4 {
            let powers: Vec<f64> =
                (0..3).map(|class| f64::from(logits[class * 4 + pixel]).exp()).collect();
            let sum: f64 = powers.iter().sum();
            let shares: Vec<f64> = powers.iter().map(|power| power / sum).collect();
            let best =
                (0..3).max_by(|&left, &right| shares[left].total_cmp(&shares[right])).unwrap();
            let place = [0, pixel as i64 / 2, pixel as i64 % 2];
            assert_eq!(pseudo.labels.int64_value(&place), best as i64);
            assert!((pseudo.confidence.double_value(&place) - shares[best]).abs() < 1e-6);
            let entropy: f64 = shares.iter().map(|share| -share * share.ln()).sum();
            assert!((pseudo.entropy.double_value(&place) - entropy).abs() < 1e-5);
        }
    }
}
