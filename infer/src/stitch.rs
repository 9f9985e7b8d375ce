//! Stitching: logits of windows on the common grid, blended where windows overlap.

mod strips;

use protoseg_models::window::WindowPlan;
use rayon::prelude::*;

pub(crate) use self::strips::{StripStitcher, held_logits, window_order};
use crate::kernels::LogitPlanes;

/// Logits of an image before upsampling.
#[derive(Debug, Clone, PartialEq)]
pub struct LogitMap {
    /// Number of classes.
    pub classes: usize,
    /// Height in logit steps.
    pub height: usize,
    /// Width in logit steps.
    pub width: usize,
    /// `[classes, height, width]`.
    pub data: Vec<f32>,
}

impl LogitMap {
    /// Borrows the logits for the kernels.
    pub(crate) fn planes(&self) -> LogitPlanes<'_> {
        LogitPlanes { data: &self.data, rows: self.height, width: self.width }
    }

    /// True where no logit is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        are_finite(&self.data)
    }
}

/// True where no logit is NaN or infinite. In chunks: a loop that may end at any value is not
/// vectorized.
pub(crate) fn are_finite(logits: &[f32]) -> bool {
    logits.chunks(256).all(|logits| logits.iter().fold(true, |all, logit| all & logit.is_finite()))
}

/// Returns the first row and column in pixels of each window of a frame in the order in which windows
/// are run: row by row, but the last two rows side by side where that holds fewer logits.
pub fn run_order(plan: &WindowPlan) -> Vec<[usize; 2]> {
    let start = |[row, column]: [usize; 2]| [plan.rows.starts[row], plan.columns.starts[column]];
    window_order(plan).into_iter().map(start).collect()
}

/// The same in the frame's logit map.
fn logit_starts(plan: &WindowPlan) -> Vec<[usize; 2]> {
    run_order(plan).into_iter().map(|start| start.map(|pixel| pixel / plan.grid.stride)).collect()
}

/// Adds weighted windows in the order in which they are run, and divides by the sum of their weights.
#[derive(Debug)]
pub struct Stitcher {
    starts: Vec<[usize; 2]>,
    /// Weights of a window's rows and columns of logits.
    weights: [Vec<f32>; 2],
    /// Sums of weights over each row and column of the frame.
    sums: [Vec<f32>; 2],
    added: usize,
    sum: LogitMap,
}

impl Stitcher {
    /// None where the frame's logits do not fit into memory.
    pub fn new(plan: &WindowPlan, classes: usize) -> Option<Self> {
        let [height, width] = plan.logit_size();
        let count = classes.checked_mul(height)?.checked_mul(width)?;
        let mut data = Vec::new();
        data.try_reserve_exact(count).ok()?;
        data.resize(count, 0.0);
        let sum = LogitMap { classes, height, width, data };
        Some(Self {
            starts: logit_starts(plan),
            weights: plan.weights(),
            sums: plan.weight_sums(),
            added: 0,
            sum,
        })
    }

    /// Adds the next windows of the [order](run_order), `[n, classes, l, m]` with `[l, m]` =
    /// [`WindowPlan::tile_logits`].
    pub fn add(&mut self, windows: &[f32]) {
        let LogitMap { classes, height, width, .. } = self.sum;
        let [down, across] = &self.weights;
        let size = down.len() * across.len();
        let starts = &self.starts[self.added..];
        self.sum.data.par_chunks_exact_mut(height * width).enumerate().for_each(
            |(class, plane)| {
                for (window, &[top, left]) in windows.chunks_exact(classes * size).zip(starts) {
                    let logits = &window[class * size..][..size];
                    let rows = logits.chunks_exact(across.len()).zip(down).enumerate();
                    for (row, (logits, down)) in rows {
                        let sums = &mut plane[(top + row) * width + left..];
                        for ((sum, logit), across) in sums.iter_mut().zip(logits).zip(across) {
                            *sum += logit * (down * across);
                        }
                    }
                }
            },
        );
        self.added += windows.len() / (classes * size);
    }

    /// Returns the logits of the frame: at each position, the weighted mean over the windows
    /// that cover it.
    pub fn finish(mut self) -> LogitMap {
        let LogitMap { height, width, .. } = self.sum;
        let [rows, columns] = &self.sums;
        self.sum.data.par_chunks_exact_mut(height * width).for_each(|plane| {
            for (logits, down) in plane.chunks_exact_mut(width).zip(rows) {
                for (logit, across) in logits.iter_mut().zip(columns) {
                    *logit /= down * across;
                }
            }
        });
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use protoseg_models::random::Stream;
    use protoseg_models::window::{Blend, LogitGrid, Window, WindowAxis};

    use super::*;

    /// Random logits of every window.
    fn windows(plan: &WindowPlan, classes: usize) -> Vec<f32> {
        let [rows, columns] = plan.tile_logits();
        let stream = Stream::keyed(&[11]);
        (0..plan.count() * classes * rows * columns)
            .map(|index| stream.below(index as u64, 2000) as f32 - 1000.0)
            .collect()
    }

    #[test]
    fn overlaps_are_weighted_means() {
        let half_pixel = LogitGrid { stride: 4, encoder_stride: 16, align_corners: false };
        let aligned = LogitGrid { stride: 4, encoder_stride: 8, align_corners: true };
        for (size, window, grid) in [
            ([50, 117], Window { size: 48, stride: 32 }, half_pixel),
            ([20, 40], Window { size: 32, stride: 16 }, half_pixel),
            ([20, 117], Window { size: 48, stride: 32 }, half_pixel),
            ([33, 90], Window { size: 33, stride: 12 }, aligned),
        ] {
            for blend in [Blend::Mean, Blend::Ramp] {
                check_blending(&WindowPlan::new(size, window, grid, blend).unwrap());
            }
        }
    }

    fn check_blending(plan: &WindowPlan) {
        let (classes, [rows, columns]) = (3, plan.tile_logits());
        let logits = windows(plan, classes);
        // From the nearer edge, 1 at the edge; sides without overlap have no weights.
        let weight = |axis: &WindowAxis, index: usize, side: usize| match plan.blend {
            Blend::Ramp if axis.starts.len() > 1 => index.min(side - 1 - index) as f32 + 1.0,
            _ => 1.0,
        };
        for batch in [1, 2, plan.count()] {
            let mut stitcher = Stitcher::new(plan, classes).unwrap();
            logits.chunks(batch * classes * rows * columns).for_each(|batch| stitcher.add(batch));
            let map = stitcher.finish();
            assert_eq!([map.height, map.width], plan.logit_size());
            for (index, &logit) in map.data.iter().enumerate() {
                let class = index / (map.height * map.width);
                let (row, column) = (index / map.width % map.height, index % map.width);
                let (mut sum, mut weights) = (0.0, 0.0);
                for (window, [top, left]) in run_order(plan).into_iter().enumerate() {
                    let inside = |at: usize, start: usize, side: usize| {
                        (at * 4).checked_sub(start).map(|at| at / 4).filter(|&at| at < side)
                    };
                    let (Some(row), Some(column)) =
                        (inside(row, top, rows), inside(column, left, columns))
                    else {
                        continue;
                    };
                    let here =
                        weight(&plan.rows, row, rows) * weight(&plan.columns, column, columns);
                    sum +=
                        here * logits[((window * classes + class) * rows + row) * columns + column];
                    weights += here;
                }
                // Whole numbers below 2^24: exact in any order.
                assert_eq!(logit, sum / weights, "{:?}", plan.blend);
            }
        }
    }

    #[test]
    fn a_logit_that_is_not_finite_is_found_anywhere() {
        for place in [0, 255, 256, 599] {
            for logit in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut map =
                    LogitMap { classes: 1, height: 6, width: 100, data: vec![f32::MAX; 600] };
                assert!(map.is_finite());
                map.data[place] = logit;
                assert!(!map.is_finite(), "{logit} at {place}");
            }
        }
    }

    #[test]
    fn a_frame_beyond_memory_is_none() {
        let grid = LogitGrid { stride: 4, encoder_stride: 16, align_corners: false };
        let window = Window { size: 32, stride: 16 };
        let plan = WindowPlan::new([32, 48], window, grid, Blend::Mean).unwrap();
        assert!(Stitcher::new(&plan, usize::MAX / 8).is_none());
        assert!(Stitcher::new(&plan, usize::MAX / 400).is_none());
    }
}
