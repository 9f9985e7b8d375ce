//! How far labels, and the confidence in them, agree with a reference: near the borders of segments and away from them, and
//! where the reference was sure of its choice.

use crate::upsample::PixelDecision;
use protoseg_models::boundary;
use serde::Serialize;

/// Above this share of the largest logit, the gap of the two best scores is one that rounding should not turn over.
const CLEAR: f64 = 0.01;

/// Pixels from another label within which a pixel counts as near a boundary.
const REACH: usize = 3;

/// What labels are held against: those of one picture, with how clear each choice was.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReferenceLabels<'a> {
    /// Train ids `[height, width]`.
    pub(super) labels: &'a [u8],
    /// Pixels in a row.
    pub(super) width: usize,
    /// The choices behind the labels, pixel by pixel.
    pub(super) choices: &'a [PixelDecision],
    /// The largest logit behind them, whatever its sign.
    pub(super) largest: f64,
    /// Labels whose two best scores are nearer than this share of the largest logit are a matter of rounding.
    pub(super) rounding: f64,
}

impl ReferenceLabels<'_> {
    fn is_tie(&self, pixel: usize) -> bool {
        f64::from(self.choices[pixel].gap) < self.rounding * self.largest
    }
}

/// Counts of pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Agreement {
    /// All of them.
    pub(super) pixels: usize,
    /// Those near a boundary of the reference.
    pub(super) near: usize,
    /// Those with another label, but for ties.
    pub(super) wrong: usize,
    /// Those of `wrong` near a boundary.
    pub(super) wrong_near: usize,
    /// Those with another label where the two best scores of the reference are as good as equal; they count as agreeing.
    pub(super) ties: usize,
    /// Those of `wrong` where the reference was sure.
    pub(super) clear: usize,
}

impl Agreement {
    /// Compares the labels of one picture.
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
                usize::from(f64::from(reference.choices[pixel].gap) > CLEAR * reference.largest);
        }
        agreement
    }

    /// Adds the counts of another picture.
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

/// How labels agree, in shares of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct LabelAgreement {
    /// All of them.
    pub(super) pixels: usize,
    /// With the reference's label, or another where rounding decides between the two best scores: what is judged.
    pub(super) agreement: f64,
    /// With the very label of the reference.
    pub(super) equal: f64,
    /// The agreement within 3 pixels of another label; none where there are no such pixels.
    pub(super) near_boundaries: Option<f64>,
    /// The same of all other pixels.
    pub(super) elsewhere: Option<f64>,
    /// Pixels with another label that count as agreeing, as rounding decides between the two best scores.
    pub(super) ties: usize,
    /// Pixels with another label where the two best scores are more than a hundredth of the largest logit apart.
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

/// How confidence agrees.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct ConfidenceAgreement {
    /// Share of pixels within one step of 1/255, or tied.
    pub(super) agreement: f64,
    /// The largest difference in steps, but for ties.
    pub(super) largest: u8,
}

impl ConfidenceAgreement {
    /// Compares the confidence in the labels of one picture.
    pub(super) fn compare(reference: &ReferenceLabels, found: &[u8]) -> Self {
        Self::between(reference, reference.choices.iter().map(|choice| choice.confidence), found)
    }

    /// The same with another confidence in the reference's labels than the reference's own.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_counted_by_place_and_by_gap() {
        // Two rows of twelve: a boundary in the middle, so that three columns on each side are near it.
        let labels: Vec<u8> = (0..24).map(|pixel| u8::from(pixel % 12 >= 6)).collect();
        let mut choices = [PixelDecision { gap: 0.005, confidence: 100 }; 24];
        choices[0].gap = 0.5;
        choices[7].gap = 1e-6;
        let reference = ReferenceLabels {
            labels: &labels,
            width: 12,
            choices: &choices,
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
            choices: &[PixelDecision { gap: 1.0, confidence: 1 }; 6],
            largest: 1.0,
            rounding: 1e-5,
        };
        let report = Agreement::compare(&reference, &[2, 2, 2, 2, 2, 3]).report();
        assert_eq!((report.near_boundaries, report.elsewhere), (None, Some(5.0 / 6.0)));
    }
}
