//! From class scores at logit resolution to a label for every pixel: bilinear upsampling and argmax in one pass, without a
//! tensor of scores at full resolution.

use rayon::prelude::*;

use crate::stitch::LogitMap;

/// Which pixels a logit map lies over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
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

/// Where a pixel lies between two scores of a row or column: `(1 - weight) * [first] + weight * [second]`.
#[derive(Debug, Clone, Copy)]
struct Between {
    first: usize,
    second: usize,
    weight: f64,
}

impl Frame {
    /// The first `count` pixels along a direction of `padded` pixels that `logits` scores span.
    fn positions(&self, count: usize, padded: usize, logits: usize) -> Vec<Between> {
        let position = |pixel: usize| {
            let place = if self.align_corners {
                let steps = padded.saturating_sub(1).max(1);
                pixel as f64 * (logits - 1) as f64 / steps as f64
            } else {
                (pixel as f64 + 0.5) * logits as f64 / padded as f64 - 0.5
            };
            let place = place.clamp(0.0, (logits - 1) as f64);
            let first = place as usize;
            Between { first, second: (first + 1).min(logits - 1), weight: place - first as f64 }
        };
        (0..count).map(position).collect()
    }

    fn rows(&self, logits: &LogitMap) -> Vec<Between> {
        self.positions(self.height, self.padded[0], logits.height)
    }

    fn columns(&self, logits: &LogitMap) -> Vec<Between> {
        self.positions(self.width, self.padded[1], logits.width)
    }
}

/// Train ids `[height, width]` of a frame: the class with the highest upsampled score; of equal ones, the first.
pub fn labels(logits: &LogitMap, frame: &Frame) -> Vec<u8> {
    let mut labels = vec![0; frame.height * frame.width];
    if labels.is_empty() || logits.data.is_empty() {
        return labels;
    }
    let (rows, columns) = (frame.rows(logits), frame.columns(logits));
    let plane = logits.height * logits.width;
    labels.par_chunks_exact_mut(frame.width).zip(&rows).for_each_init(
        || (vec![0.0; logits.width], vec![0.0; frame.width]),
        |(scores, best), (labels, row)| {
            best.fill(f32::NEG_INFINITY);
            for (class, plane) in (0..).zip(logits.data.chunks_exact(plane)) {
                let upper = &plane[row.first * logits.width..][..logits.width];
                let lower = &plane[row.second * logits.width..][..logits.width];
                for ((score, upper), lower) in scores.iter_mut().zip(upper).zip(lower) {
                    *score = upper + (lower - upper) * row.weight as f32;
                }
                for ((best, label), column) in best.iter_mut().zip(labels.iter_mut()).zip(&columns) {
                    let (left, right) = (scores[column.first], scores[column.second]);
                    let score = left + (right - left) * column.weight as f32;
                    if score > *best {
                        (*best, *label) = (score, class);
                    }
                }
            }
        },
    );
    labels
}

/// Scores of all classes at one pixel, in f64: what [`labels`] chooses from.
pub fn scores_at(logits: &LogitMap, frame: &Frame, row: usize, column: usize) -> Vec<f64> {
    let (row, column) = (frame.rows(logits)[row], frame.columns(logits)[column]);
    logits
        .data
        .chunks_exact(logits.height * logits.width)
        .map(|plane| score(plane, logits.width, row, column))
        .collect()
}

fn score(plane: &[f32], width: usize, row: Between, column: Between) -> f64 {
    let at = |row: usize, column: usize| f64::from(plane[row * width + column]);
    let across = |row: usize| {
        let (left, right) = (at(row, column.first), at(row, column.second));
        left + (right - left) * column.weight
    };
    across(row.first) + (across(row.second) - across(row.first)) * row.weight
}

/// How clear the choice of a pixel's label is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Largest score minus the second largest.
    pub gap: f32,
    /// Largest softmax, in steps of 1/255, rounded.
    pub confidence: u8,
}

/// The choice at every pixel `[height, width]`, counted in f64: slow, for judging others.
pub fn choices(logits: &LogitMap, frame: &Frame) -> Vec<Choice> {
    let (rows, columns) = (frame.rows(logits), frame.columns(logits));
    let planes: Vec<&[f32]> = logits.data.chunks_exact(logits.height * logits.width).collect();
    let choice = |scores: &[f64]| {
        let (mut best, mut second) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        for &score in scores {
            if score > best {
                (best, second) = (score, best);
            } else if score > second {
                second = score;
            }
        }
        let sum: f64 = scores.iter().map(|score| (score - best).exp()).sum();
        Choice { gap: (best - second) as f32, confidence: (255.0 / sum).round() as u8 }
    };
    let of_row = |row: &Between| {
        let row = *row;
        let mut scores = vec![0.0; planes.len()];
        let of_pixel = |column: &Between| {
            for (found, plane) in scores.iter_mut().zip(&planes) {
                *found = score(plane, logits.width, row, *column);
            }
            choice(&scores)
        };
        columns.iter().map(of_pixel).collect::<Vec<_>>()
    };
    rows.par_iter().flat_map_iter(of_row).collect()
}

#[cfg(test)]
mod tests {
    use protoseg_models::random::Stream;

    use super::*;

    fn random(classes: usize, height: usize, width: usize) -> LogitMap {
        let stream = Stream::keyed(&[3, height as u64, width as u64]);
        let draw = |index: usize| stream.below(index as u64, 1 << 20) as f32 / (1 << 16) as f32 - 8.0;
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
    fn naive(logits: &LogitMap, frame: &Frame, class: usize, row: usize, column: usize) -> f64 {
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
                let frame = Frame { height: size[0], width: size[1], padded, align_corners };
                let largest = logits.data.iter().fold(0.0_f32, |largest, score| largest.max(score.abs()));
                for (index, &label) in labels(&logits, &frame).iter().enumerate() {
                    let (row, column) = (index / frame.width, index % frame.width);
                    let scores: Vec<f64> = (0..4).map(|class| naive(&logits, &frame, class, row, column)).collect();
                    for (score, other) in scores.iter().zip(scores_at(&logits, &frame, row, column)) {
                        assert!((score - other).abs() < 1e-9, "{frame:?} {row} {column}: {score} {other}");
                    }
                    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let gap = best - scores[usize::from(label)];
                    assert!(gap < 1e-5 * f64::from(largest), "{frame:?} {row} {column}: {label} of {scores:?}");
                    ties += usize::from(gap > 0.0);
                }
            }
        }
        assert!(ties <= 1, "{ties} pixels got the second best class");
    }

    #[test]
    fn equal_scores_give_the_first_class_and_nothing_gives_nothing() {
        let logits = LogitMap { classes: 3, height: 1, width: 1, data: vec![1.0, 2.0, 2.0] };
        let frame = Frame { height: 2, width: 3, padded: [4, 4], align_corners: false };
        assert_eq!(labels(&logits, &frame), [1; 6]);
        assert!(labels(&logits, &Frame { height: 0, ..frame }).is_empty());
    }

    #[test]
    fn choices_tell_how_near_the_next_class_is() {
        let logits = random(5, 6, 4);
        let frame = Frame { height: 23, width: 16, padded: [24, 16], align_corners: false };
        for (index, choice) in choices(&logits, &frame).iter().enumerate() {
            let mut scores = scores_at(&logits, &frame, index / 16, index % 16);
            let softmax = |score: &f64| score.exp() / scores.iter().map(|score| score.exp()).sum::<f64>();
            let confidence = scores.iter().map(softmax).fold(0.0, f64::max);
            assert!((f64::from(choice.confidence) - 255.0 * confidence).abs() < 0.5 + 1e-9, "{index}");
            scores.sort_by(f64::total_cmp);
            assert!((f64::from(choice.gap) - (scores[4] - scores[3])).abs() < 1e-5, "{index}");
        }
    }
}
