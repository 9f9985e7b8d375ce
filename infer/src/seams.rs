//! Seams: label changes on the borders of windows, against those elsewhere.

use std::ops::AddAssign;

use ndarray::{ArrayView2, Axis};
use protoseg_models::window::{WindowAxis, WindowPlan};
use serde::Serialize;

/// Pairs of neighboring pixels, and those of different labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct PairCount {
    pairs: u64,
    changes: u64,
}

impl PairCount {
    fn share(self) -> Option<f64> {
        (self.pairs > 0).then(|| self.changes as f64 / self.pairs as f64)
    }
}

impl AddAssign for PairCount {
    fn add_assign(&mut self, other: Self) {
        self.pairs += other.pairs;
        self.changes += other.changes;
    }
}

/// Counts label changes between neighboring pixels over any number of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SeamCounter {
    borders: PairCount,
    elsewhere: PairCount,
}

/// Share of neighboring pixels with different labels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Seams {
    /// Where a window begins or ends between the two; None without such borders.
    pub on_borders: Option<f64>,
    /// Elsewhere; None for images of one pixel.
    pub elsewhere: Option<f64>,
    /// The first over the second: about 1 where windows leave no seams.
    pub ratio: Option<f64>,
}

impl SeamCounter {
    /// Adds the labels of an image that was run in the windows of a plan.
    pub fn add(&mut self, labels: &ArrayView2<'_, u8>, plan: &WindowPlan) {
        for (direction, axis) in [(Axis(0), &plan.rows), (Axis(1), &plan.columns)] {
            let borders = borders(axis);
            let lines = labels.axis_iter(direction);
            let pairs = lines.clone().zip(lines.skip(1)).zip(1..);
            for ((line, next), start) in pairs {
                let changes = line.iter().zip(next).filter(|(one, other)| one != other).count();
                let found = PairCount { pairs: line.len() as u64, changes: changes as u64 };
                if borders.binary_search(&start).is_ok() {
                    self.borders += found;
                } else {
                    self.elsewhere += found;
                }
            }
        }
    }

    /// Adds the counts of another counter.
    pub fn merge(&mut self, other: Self) {
        self.borders += other.borders;
        self.elsewhere += other.elsewhere;
    }

    /// Returns the shares.
    pub fn seams(&self) -> Seams {
        let (on_borders, elsewhere) = (self.borders.share(), self.elsewhere.share());
        let ratio = on_borders.zip(elsewhere).map(|(on_borders, elsewhere)| on_borders / elsewhere);
        Seams { on_borders, elsewhere, ratio: ratio.filter(|ratio| ratio.is_finite()) }
    }
}

/// First pixels after the borders of windows, ascending.
fn borders(axis: &WindowAxis) -> Vec<usize> {
    let mut borders: Vec<usize> =
        axis.starts.iter().flat_map(|&start| [start, start + axis.size]).collect();
    borders.sort_unstable();
    borders.dedup();
    borders.retain(|&border| border > 0 && border < axis.padded);
    borders
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use protoseg_models::random::Stream;
    use protoseg_models::window::{Blend, LogitGrid, Window};

    use super::*;

    #[test]
    fn changes_are_told_apart_by_borders() {
        let grid = LogitGrid { stride: 4, encoder_stride: 16, align_corners: false };
        let window = Window { size: 32, stride: 16 };
        let (height, width) = (48, 70);
        let plan = WindowPlan::new([height, width], window, grid, Blend::Mean).unwrap();
        let stream = Stream::keyed(&[3]);
        let labels = Array2::from_shape_fn((height, width), |(row, column)| {
            stream.below((row * width + column) as u64, 3) as u8
        });
        let mut expected = SeamCounter::default();
        let mut count = |row: usize, column: usize, changed: bool| {
            // Starts 0, 16 down; 0, 16, 32, 40 across.
            let border = [16, 32].contains(&row) || [16, 32, 40, 48, 64].contains(&column);
            let found = if border { &mut expected.borders } else { &mut expected.elsewhere };
            *found += PairCount { pairs: 1, changes: u64::from(changed) };
        };
        for row in 0..height {
            for column in 0..width {
                if row > 0 {
                    count(row, 0, labels[[row, column]] != labels[[row - 1, column]]);
                }
                if column > 0 {
                    count(0, column, labels[[row, column]] != labels[[row, column - 1]]);
                }
            }
        }
        let mut found = SeamCounter::default();
        found.add(&labels.view(), &plan);
        assert_eq!(found, expected);
        let seams = found.seams();
        assert!((seams.ratio.unwrap() - 1.0).abs() < 0.1, "{seams:?}");
        let whole = WindowPlan::new([20, 20], window, grid, Blend::Mean).unwrap();
        let mut alone = SeamCounter::default();
        alone.add(&Array2::zeros((20, 20)).view(), &whole);
        let none = Seams { on_borders: None, elsewhere: Some(0.0), ratio: None };
        assert_eq!(alone.seams(), none);
    }
}
