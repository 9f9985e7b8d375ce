//! Agreement of labels, confidence and logits with a reference: labels near the boundaries of
//! segments and elsewhere, and where the reference is clear.

use crate::upsample::PixelDecision;
use protoseg_models::boundary;
use serde::Serialize;

/// Share of the largest logit above which rounding should not reverse the gap of the two best
/// logits.
const CLEAR: f64 = 0.01;

/// Distance from another label in pixels within which a pixel is near a boundary.
const REACH: usize = 3;

/// Reference labels of one image, and how clear each is.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReferenceLabels<'a> {
    /// Train ids `[height, width]`.
    pub(super) labels: &'a [u8],
    /// Pixels in a row.
    pub(super) width: usize,
    /// Pixel by pixel.
    pub(super) decisions: &'a [PixelDecision],
    /// The largest absolute logit behind them.
    pub(super) largest: f64,
    /// Labels whose two best logits are nearer than this share of the largest logit are ties.
    pub(super) rounding: f64,
}

impl ReferenceLabels<'_> {
    fn is_tie(&self, pixel: usize) -> bool {
        f64::from(self.decisions[pixel].gap) < self.rounding * self.largest
    }
}

/// Pixel counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Agreement {
    pub(super) pixels: usize,
    /// Those near a boundary of the reference.
    pub(super) near: usize,
    /// Pixels with another label, but for ties.
    pub(super) wrong: usize,
    /// Those of `wrong` near a boundary.
    pub(super) wrong_near: usize,
    /// Pixels with another label where the two best logits of the reference are a tie; they count
    /// as agreeing.
    pub(super) ties: usize,
    /// Those of `wrong` where the reference is clear.
    pub(super) clear: usize,
}

impl Agreement {
    /// Compares the labels of one image.
    pub(super) fn compare(reference: &ReferenceLabels, found: &[u8]) -> Self {
        let near = boundary::near_boundary(reference.labels, reference.width, REACH);
        let count = near.iter().filter(|near| **near).count();
        let mut agreement = Self { pixels: reference.labels.len(), near: count, ..Self::default() };
        for (pixel, _) in found
            .iter()
            .zip(reference.labels)
            .enumerate()
            .filter(|(_, (found, label))| found != label)
        {
            if reference.is_tie(pixel) {
                agreement.ties += 1;
                continue;
            }
            agreement.wrong += 1;
            agreement.wrong_near += usize::from(near[pixel]);
            agreement.clear +=
                usize::from(f64::from(reference.decisions[pixel].gap) > CLEAR * reference.largest);
        }
        agreement
    }

    /// Adds the counts of another image.
    pub(super) fn add(&mut self, other: &Self) {
        self.pixels += other.pixels;
        self.near += other.near;
        self.wrong += other.wrong;
        self.wrong_near += other.wrong_near;
        self.ties += other.ties;
        self.clear += other.clear;
    }

    /// The counts as a report has them.
    pub(super) fn report(&self) -> LabelAgreement {
        let share = |wrong: usize, of: usize| (of > 0).then(|| 1.0 - wrong as f64 / of as f64);
        LabelAgreement {
            pixels: self.pixels,
            agreement: share(self.wrong, self.pixels).unwrap_or(1.0),
            equal: share(self.wrong + self.ties, self.pixels).unwrap_or(1.0),
            near_boundaries: share(self.wrong_near, self.near),
            elsewhere: share(self.wrong - self.wrong_near, self.pixels - self.near),
            ties: self.ties,
            clear: self.clear,
        }
    }
}

/// Agreement of labels, in shares of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct LabelAgreement {
    pub(super) pixels: usize,
    /// With the reference's label, or a tie: the share that is judged.
    pub(super) agreement: f64,
    /// With exactly the reference's label.
    pub(super) equal: f64,
    /// The agreement within 3 pixels of another label; None where there are no such pixels.
    pub(super) near_boundaries: Option<f64>,
    /// The same of all other pixels.
    pub(super) elsewhere: Option<f64>,
    /// Pixels with another label that count as agreeing.
    pub(super) ties: usize,
    /// Pixels with another label where the two best logits are more than a hundredth of the largest
    /// logit apart.
    pub(super) clear: usize,
}

impl std::fmt::Display for LabelAgreement {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = |share: Option<f64>| {
            share.map_or_else(|| "-".to_owned(), |share| format!("{:.4} %", 100.0 * share))
        };
        let (near, elsewhere) = (percent(self.near_boundaries), percent(self.elsewhere));
        let Self { equal, ties, clear, .. } = self;
        let equal = percent(Some(*equal));
        write!(
            formatter,
            "the same label {equal}, near boundaries {near}, elsewhere {elsewhere}, {clear} clear differences, {ties} ties"
        )
    }
}

/// Agreement of confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct ConfidenceAgreement {
    /// Share of pixels within one step of 1/255, or tied.
    pub(super) agreement: f64,
    /// The largest difference in steps, but for ties.
    pub(super) largest: u8,
}

impl ConfidenceAgreement {
    /// Compares the confidence in the labels of one image.
    pub(super) fn compare(reference: &ReferenceLabels, found: &[u8]) -> Self {
        Self::between(
            reference,
            reference.decisions.iter().map(|decision| decision.confidence),
            found,
        )
    }

    /// The same with another expected confidence than the reference's own.
    pub(super) fn between(
        reference: &ReferenceLabels,
        expected: impl Iterator<Item = u8>,
        found: &[u8],
    ) -> Self {
        let (mut far, mut largest) = (0, 0);
        for (pixel, (found, expected)) in found.iter().zip(expected).enumerate() {
            let steps = found.abs_diff(expected);
            if steps > 0 && !reference.is_tie(pixel) {
                largest = largest.max(steps);
                far += usize::from(steps > 1);
            }
        }
        Self { agreement: 1.0 - far as f64 / found.len().max(1) as f64, largest }
    }
}

/// Noise-to-signal ratio of logits, as sums of squares over images.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Noise {
    /// Squares of differences from the reference.
    error: f64,
    /// Squares of the reference's deviations from each class's mean over its image.
    signal: f64,
}

impl Noise {
    /// Compares one image's logits `[1, classes, h, w]`, both of the same shape.
    pub(super) fn compare(truth: &[f32], found: &[f32], classes: usize) -> Self {
        let plane = (truth.len() / classes.max(1)).max(1);
        let mut noise = Self::default();
        for (truth, found) in truth.chunks(plane).zip(found.chunks(plane)) {
            let mean = truth.iter().map(|&logit| f64::from(logit)).sum::<f64>() / plane as f64;
            for (&truth, &found) in truth.iter().zip(found) {
                noise.error += (f64::from(found) - f64::from(truth)).powi(2);
                noise.signal += (f64::from(truth) - mean).powi(2);
            }
        }
        noise
    }

    /// Adds the squares of another image.
    pub(super) fn add(&mut self, other: Self) {
        self.error += other.error;
        self.signal += other.signal;
    }

    /// Root mean square of noise over signal: 1 for logits that are constant over the image.
    /// `f64::MAX` where it is not finite.
    pub(super) fn ratio(self) -> f64 {
        let ratio = if self.error == 0.0 { 0.0 } else { (self.error / self.signal).sqrt() };
        if ratio.is_finite() { ratio } else { f64::MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_counted_by_place_and_by_gap() {
        // Two rows of twelve: a boundary in the middle, so that three columns on each side are near
        // it.
        let labels: Vec<u8> = (0..24).map(|pixel| u8::from(pixel % 12 >= 6)).collect();
        let mut decisions = [PixelDecision { gap: 0.005, confidence: 100 }; 24];
        decisions[0].gap = 0.5;
        decisions[7].gap = 1e-6;
        let reference = ReferenceLabels {
            labels: &labels,
            width: 12,
            decisions: &decisions,
            largest: 1.0,
            rounding: 1e-5,
        };
        let mut found = labels.clone();
        for pixel in [0, 7, 14, 15] {
            found[pixel] = 9;
        }
        let agreement = Agreement::compare(&reference, &found);
        let expected =
            Agreement { pixels: 24, near: 12, wrong: 3, wrong_near: 1, ties: 1, clear: 1 };
        assert_eq!(agreement, expected);
        let report = agreement.report();
        assert_eq!(
            (report.agreement, report.equal, report.near_boundaries, report.elsewhere),
            (0.875, 20.0 / 24.0, Some(11.0 / 12.0), Some(10.0 / 12.0))
        );
        let mut twice = agreement;
        twice.add(&agreement);
        assert_eq!(twice.report().agreement, 0.875);

        let mut confidence = [100; 24];
        (confidence[0], confidence[1], confidence[7]) = (103, 99, 0);
        let found = ConfidenceAgreement::compare(&reference, &confidence);
        assert_eq!((found.agreement, found.largest), (1.0 - 1.0 / 24.0, 3));
    }

    #[test]
    fn one_label_everywhere_has_no_boundary() {
        let reference = ReferenceLabels {
            labels: &[2; 6],
            width: 3,
            decisions: &[PixelDecision { gap: 1.0, confidence: 1 }; 6],
            largest: 1.0,
            rounding: 1e-5,
        };
        let report = Agreement::compare(&reference, &[2, 2, 2, 2, 2, 3]).report();
        assert_eq!((report.near_boundaries, report.elsewhere), (None, Some(5.0 / 6.0)));
    }

    #[test]
    fn constant_logits_have_the_ratio_one() {
        // Two classes at four positions, with means 2.5 and 10.
        let truth = [1.0, 2.0, 3.0, 4.0, 9.0, 11.0, 9.0, 11.0];
        let compare = |found: &[f32]| Noise::compare(&truth, found, 2);
        assert_eq!(compare(&truth).ratio(), 0.0);
        assert_eq!(compare(&[2.5, 2.5, 2.5, 2.5, 10.0, 10.0, 10.0, 10.0]).ratio(), 1.0);
        // A square of 9 over the 5 + 4 of the deviations.
        let off = compare(&[1.0, 2.0, 3.0, 7.0, 9.0, 11.0, 9.0, 11.0]);
        assert_eq!(off.ratio(), 1.0);
        let mut both = off;
        both.add(compare(&truth));
        assert_eq!(both.ratio(), 0.5_f64.sqrt());
    }

    #[test]
    fn a_ratio_that_is_not_finite_is_the_largest() {
        assert_eq!(Noise::compare(&[1.0, 2.0], &[1.0, f32::NAN], 1).ratio(), f64::MAX);
        assert_eq!(Noise::compare(&[1.0, 1.0], &[1.0, 1.5], 1).ratio(), f64::MAX);
        assert_eq!(Noise::compare(&[1.0, 1.0], &[1.0, 1.0], 1).ratio(), 0.0);
    }
}
