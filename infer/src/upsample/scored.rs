//! Confidence and margin of scores that are no plain logits: probabilities, and one channel with a
//! threshold.

use protoseg_models::interface::ScoreKind;
use rayon::prelude::*;

use super::{Interpolation, Pixels, Prediction, ScoreScale, Upsampler};
use crate::kernels::{LogitPlanes, MARGIN_STEPS};

impl ScoreScale {
    /// Returns the confidence in a label, in [0, 1], and its margin in logits: the logarithm of how
    /// many times likelier it is than the next class. `scores` are those of all classes at a pixel.
    fn judge(self, scores: &mut [f32], label: usize) -> (f32, f32) {
        if let Some(first) = scores.first_mut() {
            *first -= self.bias;
        }
        let own = scores.get(label).copied().unwrap_or(f32::NEG_INFINITY);
        let others = scores.iter().enumerate().filter(|(class, _)| *class != label);
        let next = others.fold(f32::NEG_INFINITY, |next, (_, &score)| next.max(score));
        match self.kind {
            // The logarithm of one probability beside a threshold, not beside that of its rest.
            ScoreKind::LogProbabilities if self.bias != 0.0 => {
                let log = scores.get(1).copied().unwrap_or(f32::NEG_INFINITY).min(0.0);
                let rest = -log.exp_m1();
                let (share, lead) = (log.exp(), log - rest.ln());
                if label == 1 { (share, lead) } else { (rest, -lead) }
            }
            ScoreKind::Probabilities => {
                let lead = if next > 0.0 { (own / next).ln() } else { f32::INFINITY };
                (own.clamp(0.0, 1.0), if own > 0.0 { lead } else { 0.0 })
            }
            ScoreKind::LogSigmoid => (own.min(0.0).exp(), own - next),
            ScoreKind::Logits | ScoreKind::LogProbabilities | ScoreKind::Unscaled => {
                let sum: f32 = scores.iter().map(|score| (score - own).exp()).sum();
                (1.0 / sum, own - next)
            }
        }
    }
}

impl Upsampler {
    /// Fills confidence and margin of some rows of pixels whose labels are known.
    pub(super) fn score(
        &self,
        planes: LogitPlanes<'_>,
        top: usize,
        pixels: &Pixels,
        prediction: &mut Prediction,
    ) {
        let width = self.width;
        let Prediction { labels, confidence, margin, .. } = prediction;
        let bytes = pixels.bytes(width);
        let labels = labels.as_slice().and_then(|labels| labels.get(bytes.clone()));
        let confidence = confidence.as_mut().and_then(|plane| plane.as_slice_mut());
        let margin = margin.as_mut().and_then(|plane| plane.as_slice_mut());
        let Some(labels) = labels else { return };
        let judged = labels.par_chunks(width.max(1)).zip(&self.rows[pixels.rows.clone()]);
        let judged: Vec<Vec<[u8; 2]>> =
            judged.map(|(labels, row)| self.score_row(planes, top, row, labels)).collect();
        for (index, plane) in [confidence, margin].into_iter().enumerate() {
            let Some(plane) = plane else { continue };
            let slots = plane[bytes.clone()].iter_mut();
            slots.zip(judged.iter().flatten()).for_each(|(slot, pixel)| *slot = pixel[index]);
        }
    }

    /// Confidence and margin of a row of pixels.
    fn score_row(
        &self,
        planes: LogitPlanes<'_>,
        top: usize,
        row: &Interpolation,
        labels: &[u8],
    ) -> Vec<[u8; 2]> {
        let (upper, lower) = (row.first - top, row.second - top);
        let between = |left: f32, right: f32, weight: f64| left + (right - left) * weight as f32;
        let blended: Vec<Vec<f32>> = planes
            .row(upper)
            .zip(planes.row(lower))
            .map(|(upper, lower)| {
                let pairs = upper.iter().zip(lower);
                pairs.map(|(&upper, &lower)| between(upper, lower, row.weight)).collect()
            })
            .collect();
        let mut scores = vec![0.0; blended.len()];
        let pixel = |(place, &label): (&Interpolation, &u8)| {
            for (score, row) in scores.iter_mut().zip(&blended) {
                *score = between(row[place.first], row[place.second], place.weight);
            }
            let (confidence, margin) = self.scores.judge(&mut scores, label.into());
            [
                (255.0 * confidence + 0.5) as u8,
                (margin * MARGIN_STEPS + 0.5).clamp(0.0, 255.0) as u8,
            ]
        };
        self.places.iter().zip(labels).map(pixel).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LogitGeometry, Outputs, predict};
    use super::*;
    use crate::stitch::LogitMap;

    const ALL: Outputs = Outputs { confidence: true, margin: true, logits: false };

    fn predicted(planes: &[f32], classes: usize, scores: ScoreScale) -> Prediction {
        let width = planes.len() / classes;
        let map = LogitMap { classes, height: 1, width, data: planes.to_vec() };
        let frame = LogitGeometry { scores, ..LogitGeometry::new([1, width], [1, width], false) };
        predict(&map, &frame, ALL)
    }

    #[test]
    fn probabilities_are_their_own_confidence() {
        let scores = ScoreScale { kind: ScoreKind::Probabilities, bias: 0.0 };
        let found = predicted(&[0.6, 0.0, 0.3, 1.0], 2, scores);
        assert_eq!(found.labels, ndarray::arr2(&[[0, 1]]));
        assert_eq!(found.confidence, Some(ndarray::arr2(&[[153, 255]])));
        // ln 2 in steps of 1/16.
        assert_eq!(found.margin, Some(ndarray::arr2(&[[11, 255]])));
        // The logarithms of 0.6 and 0.3, and of 0.001 and 0.9, which do not add up to 1.
        let scores = ScoreScale { kind: ScoreKind::LogSigmoid, bias: 0.0 };
        let logs = [0.6, 0.001, 0.3, 0.9].map(f32::ln);
        let found = predicted(&logs, 2, scores);
        assert_eq!(found.labels, ndarray::arr2(&[[0, 1]]));
        assert_eq!(found.confidence, Some(ndarray::arr2(&[[153, 230]])));
        assert_eq!(found.margin, Some(ndarray::arr2(&[[11, 109]])));
    }

    #[test]
    fn a_threshold_moves_labels_and_no_confidence() {
        // Planes 2 t - p and p with t = 0.25.
        let p = [0.1, 0.3, 0.9];
        let planes: Vec<f32> = p.iter().map(|p| 0.5 - p).chain(p).collect();
        let scores = ScoreScale { kind: ScoreKind::Probabilities, bias: -0.5 };
        let found = predicted(&planes, 2, scores);
        assert_eq!(found.labels, ndarray::arr2(&[[0, 1, 1]]));
        assert_eq!(found.confidence, Some(ndarray::arr2(&[[230, 77, 230]])));
        let logits = ScoreScale { kind: ScoreKind::Logits, bias: 1.0 };
        let found = predicted(&[1.0, 1.0, 0.0, 3.0], 2, logits);
        assert_eq!(found.labels, ndarray::arr2(&[[0, 1]]));
        let expected = [0.5, 1.0 / (1.0 + (-3.0_f32).exp())].map(|p| (255.0 * p + 0.5) as u8);
        assert_eq!(found.confidence, Some(ndarray::arr2(&[expected])));
        // The logarithms of 0.1, 0.6 and 1 beside that of a half.
        let half = -std::f32::consts::LN_2;
        let one = ScoreScale { kind: ScoreKind::LogProbabilities, bias: half };
        let planes = [half, half, half, 0.1_f32.ln(), 0.6_f32.ln(), 0.0];
        let found = predicted(&planes, 2, one);
        assert_eq!(found.labels, ndarray::arr2(&[[0, 1, 1]]));
        assert_eq!(found.confidence, Some(ndarray::arr2(&[[230, 153, 255]])));
        // ln 9 and ln 1.5 in steps of 1/16.
        assert_eq!(found.margin, Some(ndarray::arr2(&[[35, 6, 255]])));
    }
}
