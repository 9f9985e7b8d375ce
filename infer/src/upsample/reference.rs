//! Reference predictions in f64: slow, to compare others with.

use rayon::prelude::*;

use super::{Interpolation, LogitGeometry};
use crate::stitch::LogitMap;

/// Logits of all classes at one pixel, in f64.
pub fn logits_at(logits: &LogitMap, frame: &LogitGeometry, row: usize, column: usize) -> Vec<f64> {
    let (row, column) = (frame.rows(logits.height)[row], frame.columns(logits.width)[column]);
    logits
        .data
        .chunks_exact(logits.height * logits.width)
        .map(|plane| score(plane, logits.width, row, column))
        .collect()
}

fn score(plane: &[f32], width: usize, row: Interpolation, column: Interpolation) -> f64 {
    let at = |row: usize, column: usize| f64::from(plane[row * width + column]);
    let across = |row: usize| {
        let (left, right) = (at(row, column.first), at(row, column.second));
        left + (right - left) * column.weight
    };
    across(row.first) + (across(row.second) - across(row.first)) * row.weight
}

/// How clear the label of a pixel is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelDecision {
    /// Largest logit minus the second largest.
    pub gap: f32,
    /// Largest softmax, in steps of 1/255, rounded.
    pub confidence: u8,
}

/// Computes the decision at every pixel `[height, width]` in f64.
pub fn reference_decisions(logits: &LogitMap, frame: &LogitGeometry) -> Vec<PixelDecision> {
    let (rows, columns) = (frame.rows(logits.height), frame.columns(logits.width));
    let planes: Vec<&[f32]> = logits.data.chunks_exact(logits.height * logits.width).collect();
    let decision = |scores: &[f64]| {
        let (mut best, mut second) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        for &score in scores {
            if score > best {
                (best, second) = (score, best);
            } else if score > second {
                second = score;
            }
        }
        let sum: f64 = scores.iter().map(|score| (score - best).exp()).sum();
        PixelDecision { gap: (best - second) as f32, confidence: (255.0 / sum).round() as u8 }
    };
    let row_decisions = |row: &Interpolation| {
        let row = *row;
        let mut scores = vec![0.0; planes.len()];
        let pixel_decision = |column: &Interpolation| {
            for (found, plane) in scores.iter_mut().zip(&planes) {
                *found = score(plane, logits.width, row, *column);
            }
            decision(&scores)
        };
        columns.iter().map(pixel_decision).collect::<Vec<_>>()
    };
    rows.par_iter().flat_map_iter(row_decisions).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::random;
    use super::*;

    #[test]
    fn decisions_tell_how_near_the_next_class_is() {
        let logits = random(5, 6, 4);
        let frame = LogitGeometry::new([23, 16], [24, 16], false);
        for (index, decision) in reference_decisions(&logits, &frame).iter().enumerate() {
            let mut scores = logits_at(&logits, &frame, index / 16, index % 16);
            let softmax =
                |score: &f64| score.exp() / scores.iter().map(|score| score.exp()).sum::<f64>();
            let confidence = scores.iter().map(softmax).fold(0.0, f64::max);
            assert!(
                (f64::from(decision.confidence) - 255.0 * confidence).abs() < 0.5 + 1e-9,
                "{index}"
            );
            scores.sort_by(f64::total_cmp);
            assert!((f64::from(decision.gap) - (scores[4] - scores[3])).abs() < 1e-5, "{index}");
        }
    }
}
