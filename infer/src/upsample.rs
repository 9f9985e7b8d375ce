//! From class scores at logit resolution to a decision for every pixel: bilinear upsampling and argmax in one pass, without a
//! tensor of scores at full resolution.

mod exact;
mod place;
mod rows;

use protoseg_images::label_map::LabelMap;

pub use self::exact::{PixelDecision, logits_at, reference_decisions};
pub(crate) use self::rows::Upsampler;
use crate::kernels::InstructionSet;
use crate::stitch::LogitMap;

/// Which pixels a logit map lies over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogitGeometry {
    /// Height of the picture.
    pub height: usize,
    /// Width of the picture.
    pub width: usize,
    /// Height and width of the padded picture that the logits span; the picture is its top left part.
    pub padded: [usize; 2],
    /// Whether corner scores lie on corner pixels (`align_corners` of ONNX Resize); otherwise edges coincide
    /// (`half_pixel`).
    pub align_corners: bool,
}

/// What is wanted of every pixel beside its label.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outputs {
    /// How sure the label is: [`Prediction::confidence`].
    pub confidence: bool,
    /// By how much the label won: [`Prediction::margin`].
    pub margin: bool,
}

/// What was decided of every pixel of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prediction {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Train ids `[height, width]`: the class with the highest score; of equal ones, the first.
    pub labels: Vec<u8>,
    /// `[height, width]`, if wanted: the largest softmax probability c as `floor(255 c + 0.5)`.
    pub confidence: Option<Vec<u8>>,
    /// `[height, width]`, if wanted: the highest score less the second highest, m, as `min(255, floor(16 m + 0.5))`.
    ///
    /// A difference of scores is the logarithm of how many times likelier one class is than the other. In steps of 1/16
    /// neighbouring bytes differ by 6 % of that ratio, and the last byte stands for eight million to one and more.
    /// Confidence cannot tell such pixels apart: it is at its last byte from five hundred to one on.
    pub margin: Option<Vec<u8>>,
}

impl Prediction {
    /// A frame of which nothing is decided yet.
    pub(crate) fn blank(frame: &LogitGeometry, wanted: Outputs) -> Self {
        let LogitGeometry { height, width, .. } = *frame;
        let plane = || vec![0; height * width];
        Self {
            height,
            width,
            labels: plane(),
            confidence: wanted.confidence.then(plane),
            margin: wanted.margin.then(plane),
        }
    }

    /// How many pixels have each of the first `classes` labels.
    pub fn pixels_by_class(&self, classes: usize) -> Vec<u64> {
        pixels_by_class(&self.labels, classes)
    }
}

/// How many of some labels are each of the first `classes` ones.
pub fn pixels_by_class(labels: &[u8], classes: usize) -> Vec<u64> {
    let mut pixels = vec![0; classes];
    for &label in labels {
        if let Some(count) = pixels.get_mut(usize::from(label)) {
            *count += 1;
        }
    }
    pixels
}

impl From<Prediction> for LabelMap {
    fn from(decided: Prediction) -> Self {
        let Prediction { height, width, labels, .. } = decided;
        Self { height, width, labels }
    }
}

impl From<LabelMap> for Prediction {
    fn from(map: LabelMap) -> Self {
        let LabelMap { height, width, labels } = map;
        Self { height, width, labels, confidence: None, margin: None }
    }
}

/// Decides every pixel of a frame. Labels do not depend on what else is wanted.
///
/// ```
/// use protoseg_infer::stitch::LogitMap;
/// use protoseg_infer::upsample::{LogitGeometry, Outputs, predict};
///
/// let logits = LogitMap { classes: 2, height: 1, width: 2, data: vec![0.0, 2.0, 1.0, 1.0] };
/// let frame = LogitGeometry { height: 1, width: 8, padded: [1, 8], align_corners: false };
/// let decided = predict(&logits, &frame, Outputs { margin: true, ..Outputs::default() });
/// assert_eq!(decided.labels, [1, 1, 1, 1, 0, 0, 0, 0]);
/// assert_eq!(decided.margin.as_deref(), Some(&[16, 16, 12, 4, 4, 12, 16, 16][..]));
/// ```
pub fn predict(logits: &LogitMap, frame: &LogitGeometry, wanted: Outputs) -> Prediction {
    predict_with(InstructionSet::best(), logits, frame, wanted)
}

/// The same without vector instructions, as on processors whose own have no form here: the same bytes, later.
pub fn predict_scalar(logits: &LogitMap, frame: &LogitGeometry, wanted: Outputs) -> Prediction {
    predict_with(InstructionSet::Scalar, logits, frame, wanted)
}

fn predict_with(
    form: InstructionSet,
    logits: &LogitMap,
    frame: &LogitGeometry,
    wanted: Outputs,
) -> Prediction {
    let mut decided = Prediction::blank(frame, wanted);
    let grid = [logits.height, logits.width];
    let whole = logits.classes.checked_mul(grid[0]).and_then(|rows| rows.checked_mul(grid[1]));
    if !decided.labels.is_empty() && !logits.data.is_empty() && whole == Some(logits.data.len()) {
        Upsampler::with(form, grid, frame).predict(
            logits,
            0,
            0..frame.height,
            wanted,
            &mut decided,
        );
    }
    decided
}

/// Train ids `[height, width]` of a frame: the class with the highest upsampled score; of equal ones, the first.
pub fn labels(logits: &LogitMap, frame: &LogitGeometry) -> Vec<u8> {
    predict(logits, frame, Outputs::default()).labels
}

#[cfg(test)]
pub(crate) mod tests {
    use protoseg_models::random::Stream;

    use super::*;

    pub(crate) fn random(classes: usize, height: usize, width: usize) -> LogitMap {
        let stream = Stream::keyed(&[3, height as u64, width as u64]);
        let draw =
            |index: usize| stream.below(index as u64, 1 << 20) as f32 / (1 << 16) as f32 - 8.0;
        LogitMap { classes, height, width, data: (0..classes * height * width).map(draw).collect() }
    }

    /// Source coordinate by the formulas of the ONNX standard for Resize.
    fn coordinate(pixel: usize, logits: usize, pixels: usize, align_corners: bool) -> f64 {
        let (pixel, logits, pixels) = (pixel as f64, logits as f64, pixels as f64);
        match align_corners {
            true if pixels == 1.0 => 0.0,
            true => pixel * (logits - 1.0) / (pixels - 1.0),
            false => (pixel + 0.5) / (pixels / logits) - 0.5,
        }
    }

    /// All scores at full resolution, as a sum over every score weighted by its triangle: no index arithmetic in common.
    fn naive(
        logits: &LogitMap,
        frame: &LogitGeometry,
        class: usize,
        row: usize,
        column: usize,
    ) -> f64 {
        let place = |pixel, logits: usize, pixels| {
            coordinate(pixel, logits, pixels, frame.align_corners).max(0.0).min(logits as f64 - 1.0)
        };
        let y = place(row, logits.height, frame.padded[0]);
        let x = place(column, logits.width, frame.padded[1]);
        let triangle = |distance: f64| (1.0 - distance.abs()).max(0.0);
        let mut score = 0.0;
        for i in 0..logits.height {
            for j in 0..logits.width {
                let value = f64::from(logits.data[(class * logits.height + i) * logits.width + j]);
                score += value * triangle(y - i as f64) * triangle(x - j as f64);
            }
        }
        score
    }

    #[test]
    fn labels_are_those_of_upsampling_in_full_but_for_ties() {
        let mut ties = 0;
        for align_corners in [false, true] {
            for (grid, padded, size) in [
                ([5, 7], [20, 28], [20, 28]),
                ([9, 6], [33, 21], [31, 20]),
                ([1, 4], [1, 16], [1, 13]),
                ([8, 8], [32, 32], [5, 32]),
                ([3, 2], [2, 1], [2, 1]),
            ] {
                let logits = random(4, grid[0], grid[1]);
                let frame =
                    LogitGeometry { height: size[0], width: size[1], padded, align_corners };
                let largest =
                    logits.data.iter().fold(0.0_f32, |largest, score| largest.max(score.abs()));
                for (index, &label) in labels(&logits, &frame).iter().enumerate() {
                    let (row, column) = (index / frame.width, index % frame.width);
                    let scores: Vec<f64> =
                        (0..4).map(|class| naive(&logits, &frame, class, row, column)).collect();
                    for (score, other) in scores.iter().zip(logits_at(&logits, &frame, row, column))
                    {
                        assert!(
                            (score - other).abs() < 1e-9,
                            "{frame:?} {row} {column}: {score} {other}"
                        );
                    }
                    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let gap = best - scores[usize::from(label)];
                    assert!(
                        gap < 1e-5 * f64::from(largest),
                        "{frame:?} {row} {column}: {label} of {scores:?}"
                    );
                    ties += usize::from(gap > 0.0);
                }
            }
        }
        assert!(ties <= 1, "{ties} pixels got the second best class");
    }

    #[test]
    fn equal_scores_give_the_first_class_and_nothing_gives_nothing() {
        let logits = LogitMap { classes: 3, height: 1, width: 1, data: vec![1.0, 2.0, 2.0] };
        let frame = LogitGeometry { height: 2, width: 3, padded: [4, 4], align_corners: false };
        assert_eq!(labels(&logits, &frame), [1; 6]);
        assert!(labels(&logits, &LogitGeometry { height: 0, ..frame }).is_empty());
    }
}
