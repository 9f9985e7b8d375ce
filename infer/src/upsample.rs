//! From class scores at logit resolution to a decision for every pixel: bilinear upsampling and argmax in one pass, without a
//! tensor of scores at full resolution.

mod exact;
mod place;
mod rows;

use ndarray::{Array2, Array3};
use protoseg_images::label_map::LabelMap;

pub use self::exact::{PixelDecision, logits_at, reference_decisions};
pub(crate) use self::rows::Upsampler;
use crate::kernels::{InstructionSet, LogitPlanes};
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

/// Outputs that are asked for beside labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outputs {
    /// Confidence in the label: [`Prediction::confidence`].
    pub confidence: bool,
    /// Margin of the label over the next: [`Prediction::margin`].
    pub margin: bool,
    /// Logits before upsampling: [`Prediction::logits`].
    pub logits: bool,
}

/// Prediction of an image of `[height, width]` pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Train ids `[height, width]`: the class with the highest logit; of equal ones, the first.
    pub labels: Array2<u8>,
    /// `[height, width]`, if asked for: the largest softmax probability c as `floor(255 c + 0.5)`. Files that give labels
    /// give none.
    pub confidence: Option<Array2<u8>>,
    /// `[height, width]`, if asked for: the highest logit less the second highest, m, as `min(255, floor(16 m + 0.5))`. Files
    /// that give labels give none.
    ///
    /// A difference of logits is the logarithm of how many times likelier one class is than the other. In steps of 1/16
    /// neighboring bytes differ by 6 % of that ratio, and the last byte stands for eight million to one and more.
    /// Confidence cannot tell such pixels apart: it is at its last byte from five hundred to one on.
    pub margin: Option<Array2<u8>>,
    /// `[classes, h, w]`, if asked for: logits before upsampling, over the padded image. Files that give labels give none.
    pub logits: Option<Array3<f32>>,
}

impl Prediction {
    /// A prediction of labels alone.
    pub fn from_labels(labels: Array2<u8>) -> Self {
        Self { labels, confidence: None, margin: None, logits: None }
    }

    /// Allocates the planes of a frame.
    pub(crate) fn blank(frame: &LogitGeometry, outputs: Outputs) -> Self {
        let plane = || Array2::zeros((frame.height, frame.width));
        Self {
            labels: plane(),
            confidence: outputs.confidence.then(plane),
            margin: outputs.margin.then(plane),
            logits: None,
        }
    }

    /// Counts the pixels of each of the first `classes` labels.
    pub fn pixels_by_class(&self, classes: usize) -> Vec<u64> {
        pixels_by_class(self.labels.iter(), classes)
    }
}

/// Counts the labels of each of the first `classes` classes.
pub fn pixels_by_class<'a>(labels: impl IntoIterator<Item = &'a u8>, classes: usize) -> Vec<u64> {
    let mut pixels = vec![0; classes];
    for &label in labels {
        if let Some(count) = pixels.get_mut(usize::from(label)) {
            *count += 1;
        }
    }
    pixels
}

impl From<Prediction> for LabelMap {
    fn from(prediction: Prediction) -> Self {
        let (height, width) = prediction.labels.dim();
        Self { height, width, labels: into_vec(prediction.labels) }
    }
}

/// Returns the values of a plane in row-major order, without copying where it is stored so.
pub fn into_vec(plane: Array2<u8>) -> Vec<u8> {
    let plane =
        if plane.is_standard_layout() { plane } else { plane.as_standard_layout().into_owned() };
    match plane.into_raw_vec_and_offset() {
        (values, None | Some(0)) => values,
        (values, Some(offset)) => values[offset..].to_vec(),
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
/// assert_eq!(decided.labels, ndarray::arr2(&[[1, 1, 1, 1, 0, 0, 0, 0]]));
/// assert_eq!(decided.margin, Some(ndarray::arr2(&[[16, 16, 12, 4, 4, 12, 16, 16]])));
/// ```
pub fn predict(logits: &LogitMap, frame: &LogitGeometry, wanted: Outputs) -> Prediction {
    predict_planes(logits.planes(), frame, wanted)
}

/// The same without vector instructions, as on processors whose own have no form here: the same bytes, later.
pub fn predict_scalar(logits: &LogitMap, frame: &LogitGeometry, wanted: Outputs) -> Prediction {
    predict_with(InstructionSet::Scalar, logits.planes(), frame, wanted)
}

/// The same of logits that are moved into the prediction if they are asked for.
pub(crate) fn predict_owned(
    logits: LogitMap,
    frame: &LogitGeometry,
    outputs: Outputs,
) -> Prediction {
    let mut prediction = predict(&logits, frame, outputs);
    if outputs.logits {
        let shape = (logits.classes, logits.height, logits.width);
        prediction.logits = Array3::from_shape_vec(shape, logits.data).ok();
    }
    prediction
}

/// The same of borrowed logits.
pub(crate) fn predict_planes(
    logits: LogitPlanes<'_>,
    frame: &LogitGeometry,
    outputs: Outputs,
) -> Prediction {
    predict_with(InstructionSet::best(), logits, frame, outputs)
}

fn predict_with(
    form: InstructionSet,
    logits: LogitPlanes<'_>,
    frame: &LogitGeometry,
    wanted: Outputs,
) -> Prediction {
    let mut decided = Prediction::blank(frame, wanted);
    let grid = [logits.rows, logits.width];
    let plane = grid[0].checked_mul(grid[1]).filter(|&plane| plane > 0);
    let fits = plane.is_some_and(|plane| logits.data.len().is_multiple_of(plane));
    if !decided.labels.is_empty() && !logits.data.is_empty() && fits {
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
    into_vec(predict(logits, frame, Outputs::default()).labels)
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
