//! Puts the class scores of windows together: on the common grid, overlaps become their mean.

use protoseg_models::window::WindowPlan;
use rayon::prelude::*;

/// Class scores over a frame before upsampling.
#[derive(Debug, Clone, PartialEq)]
pub struct LogitMap {
    /// How many classes.
    pub classes: usize,
    /// Height in logit steps.
    pub height: usize,
    /// Width in logit steps.
    pub width: usize,
    /// `[classes, height, width]`.
    pub data: Vec<f32>,
}

impl LogitMap {
    /// Whether every score is a number.
    pub fn is_finite(&self) -> bool {
        self.data.iter().all(|score| score.is_finite())
    }
}

/// Sums window after window, in the plan's order.
#[derive(Debug)]
pub struct Stitcher<'a> {
    plan: &'a WindowPlan,
    starts: Vec<[usize; 2]>,
    added: usize,
    sum: LogitMap,
}

impl<'a> Stitcher<'a> {
    /// An empty frame; none where its scores do not fit into memory.
    pub fn new(plan: &'a WindowPlan, classes: usize) -> Option<Self> {
        let [height, width] = plan.logit_size();
        let count = classes.checked_mul(height)?.checked_mul(width)?;
        let mut data = Vec::new();
        data.try_reserve_exact(count).ok()?;
        data.resize(count, 0.0);
        let sum = LogitMap { classes, height, width, data };
        Some(Self { plan, starts: plan.logit_starts().collect(), added: 0, sum })
    }

    /// Adds the next windows of the plan, `[n, classes, l, l]` with l = [`WindowPlan::window_logits`].
    pub fn add(&mut self, windows: &[f32]) {
        let side = self.plan.window_logits();
        let LogitMap { classes, height, width, .. } = self.sum;
        let starts = &self.starts[self.added..];
        self.sum.data.par_chunks_exact_mut(height * width).enumerate().for_each(|(class, plane)| {
            for (window, &[top, left]) in windows.chunks_exact(classes * side * side).zip(starts) {
                let scores = &window[class * side * side..][..side * side];
                for (row, scores) in scores.chunks_exact(side).enumerate() {
                    for (sum, score) in plane[(top + row) * width + left..][..side].iter_mut().zip(scores) {
                        *sum += score;
                    }
                }
            }
        });
        self.added += windows.len() / (classes * side * side);
    }

    /// The frame's scores: the sum over the windows that cover a position, divided by their number.
    pub fn finish(mut self) -> LogitMap {
        let [rows, columns] = self.plan.cover();
        let plane = self.sum.height * self.sum.width;
        self.sum.data.par_chunks_exact_mut(plane).for_each(|plane| {
            for (row, &down) in plane.chunks_exact_mut(columns.len()).zip(&rows) {
                for (score, &across) in row.iter_mut().zip(&columns) {
                    *score /= (down * across) as f32;
                }
            }
        });
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use protoseg_models::random::Stream;
    use protoseg_models::window::{LogitGrid, Window};

    use super::*;

    /// Every window's scores, drawn at random.
    fn windows(plan: &WindowPlan, classes: usize) -> Vec<f32> {
        let side = plan.window_logits();
        let stream = Stream::keyed(&[11]);
        (0..plan.count() * classes * side * side)
            .map(|index| stream.below(index as u64, 2000) as f32 - 1000.0)
            .collect()
    }

    #[test]
    fn overlaps_are_means_as_a_brute_force_stitch_has_them() {
        let half_pixel = LogitGrid { stride: 4, encoder_stride: 16, align_corners: false };
        let aligned = LogitGrid { stride: 4, encoder_stride: 8, align_corners: true };
        for (height, width, window, grid) in [
            (50, 117, Window { size: 48, stride: 32 }, half_pixel),
            (20, 20, Window { size: 32, stride: 16 }, half_pixel),
            (33, 90, Window { size: 33, stride: 12 }, aligned),
        ] {
            let plan = WindowPlan::new(height, width, window, grid).unwrap();
            let (classes, side) = (3, plan.window_logits());
            let scores = windows(&plan, classes);
            for batch in [1, 2, plan.count()] {
                let mut stitcher = Stitcher::new(&plan, classes).unwrap();
                scores.chunks(batch * classes * side * side).for_each(|batch| stitcher.add(batch));
                let map = stitcher.finish();
                assert_eq!([map.height, map.width], plan.logit_size());
                for (index, &score) in map.data.iter().enumerate() {
                    let (class, row, column) =
                        (index / (map.height * map.width), index / map.width % map.height, index % map.width);
                    let here: Vec<f32> = plan
                        .starts()
                        .enumerate()
                        .filter_map(|(window, [top, left])| {
                            let row = (row * 4).checked_sub(top)? / 4;
                            let column = (column * 4).checked_sub(left)? / 4;
                            let inside = row < side && column < side;
                            inside.then(|| scores[((window * classes + class) * side + row) * side + column])
                        })
                        .collect();
                    assert_eq!(score, here.iter().sum::<f32>() / here.len() as f32);
                }
            }
        }
    }

    #[test]
    fn a_frame_beyond_memory_is_none() {
        let grid = LogitGrid { stride: 4, encoder_stride: 16, align_corners: false };
        let plan = WindowPlan::new(32, 48, Window { size: 32, stride: 16 }, grid).unwrap();
        assert!(Stitcher::new(&plan, usize::MAX / 8).is_none());
        assert!(Stitcher::new(&plan, usize::MAX / 400).is_none());
    }
}
