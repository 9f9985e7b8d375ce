//! Where the pixels of a frame lie between its scores: the one place that knows.

use super::LogitGeometry;

/// Where a pixel lies between two scores of a row or column: `(1 - weight) * [first] + weight * [second]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interpolation {
    /// The score before it.
    pub(super) first: usize,
    /// The score behind it; at the end, the same.
    pub(super) second: usize,
    /// How near it is to the second, from 0 to 1.
    pub(super) weight: f64,
}

impl LogitGeometry {
    /// The first `count` pixels along a direction of `padded` pixels that `logits` scores span.
    fn positions(&self, count: usize, padded: usize, logits: usize) -> Vec<Interpolation> {
        let position = |pixel: usize| {
            let place = if self.align_corners {
                let steps = padded.saturating_sub(1).max(1);
                pixel as f64 * (logits - 1) as f64 / steps as f64
            } else {
                (pixel as f64 + 0.5) * logits as f64 / padded as f64 - 0.5
            };
            let place = place.clamp(0.0, (logits - 1) as f64);
            let first = place as usize;
            Interpolation {
                first,
                second: (first + 1).min(logits - 1),
                weight: place - first as f64,
            }
        };
        (0..count).map(position).collect()
    }

    /// Every row of pixels among `logits` rows of scores, of which there is at least one.
    pub(super) fn rows(&self, logits: usize) -> Vec<Interpolation> {
        self.positions(self.height, self.padded[0], logits)
    }

    /// Every column of pixels among `logits` columns of scores, of which there is at least one.
    pub(super) fn columns(&self, logits: usize) -> Vec<Interpolation> {
        self.positions(self.width, self.padded[1], logits)
    }
}
