//! Stitching in little memory: of a row of windows only the columns around the last window are held,
//! and over the whole width only the rows that the next row of windows covers too.
//!
//! The last row of windows is shifted into the frame, by which it may cover most of the rows above.
//! Then it is run beside that row, some windows behind, and nothing is held over the whole width.

use std::ops::Range;

use protoseg_models::window::WindowPlan;
use rayon::prelude::*;

use super::{LogitMap, are_finite};

/// Returns row and column of each window in the order in which they are run: row by row, the last
/// two rows side by side where that holds less. A window comes after all those of the rows above
/// that it overlaps, so that sums have the bits of any such order.
pub(crate) fn window_order(plan: &WindowPlan) -> Vec<[usize; 2]> {
    StripPlan::new(plan).order()
}

/// Adds weighted windows in their [order](window_order), and averages the columns that a window
/// completes. The bits are those of [`Stitcher`](super::Stitcher).
#[derive(Debug)]
pub(crate) struct StripStitcher {
    plan: StripPlan,
    /// First column that is held with each column of windows; at most the windows' own.
    firsts: Vec<usize>,
    /// Rows and columns of windows.
    order: Vec<[usize; 2]>,
    /// Number of windows that were added.
    added: usize,
    /// Of all rows of windows, and of the last where it is run beside the one above.
    strips: [HeldColumns; 2],
    /// Sums for the next row of windows, and those for the last where it is run beside.
    carried: [HeldColumns; 2],
}

/// Columns of the frame that are held.
#[derive(Debug)]
struct HeldColumns {
    map: LogitMap,
    columns: Range<usize>,
}

/// Columns that a window completed, in the rows that no window to come covers.
#[derive(Debug)]
pub(crate) struct FinishedStrip<'a> {
    /// Row and column of windows.
    pub(crate) window: [usize; 2],
    /// True where it is the last of its row of windows.
    pub(crate) ends_row: bool,
    /// Complete logits and others, with a row above if there is one.
    pub(crate) logits: &'a LogitMap,
    /// Row of the frame that is the first of them.
    pub(crate) top: usize,
    /// Rows of the frame that became complete.
    pub(crate) rows: Range<usize>,
    /// True where none of them has a logit that is NaN or infinite.
    pub(crate) is_finite: bool,
}

impl StripStitcher {
    /// Holds with each column of windows the columns of logits from one of `firsts` on. None where
    /// the logits do not fit into memory.
    pub(crate) fn new(plan: &WindowPlan, classes: usize, firsts: Vec<usize>) -> Option<Self> {
        let ([rows, columns], [_, width]) = (plan.tile_logits(), plan.logit_size());
        let plan = StripPlan::new(plan);
        let order = plan.order();
        let ends = plan.starts[1].iter().map(|left| left + columns);
        let widest = ends.zip(&firsts).map(|(end, first)| end - first).max().unwrap_or(columns);
        let [carried, beside] = [plan.carried_height(), plan.beside_height()];
        let beside_strip = if beside == 0 { [1, 1] } else { [rows + 1, widest] };
        let strip = |[height, width]: [usize; 2]| {
            Some(HeldColumns { map: zeros(classes, height.max(1), width)?, columns: 0..0 })
        };
        let strips = [strip([rows + 1, widest])?, strip(beside_strip)?];
        let carried = [strip([carried, width])?, strip([beside, plan.beside_width(&order)])?];
        Some(Self { plan, firsts, order, added: 0, strips, carried })
    }

    /// Adds the next window, `[classes, l, m]` with `[l, m]` = [`WindowPlan::tile_logits`], and
    /// averages what it completes. None after the last window.
    pub(crate) fn add(&mut self, window: &[f32]) -> Option<FinishedStrip<'_>> {
        let at @ [row, column] = *self.order.get(self.added)?;
        let Self { plan, strips, carried: [carried, beside], .. } = self;
        let place = usize::from(plan.is_beside(row));
        let needed = strips[1].columns.end;
        let strip = strips.get_mut(place)?;
        let step = plan.step(at, strip.columns.clone(), *self.firsts.get(column)?)?;
        let saves_beside = plan.is_beside(row + 1);
        if saves_beside {
            beside.drop_before(needed);
            beside.columns.end = step.averaged_columns.end;
        }
        let (width, beside_first) = (strip.map.width, beside.columns.start);
        let (carried_width, beside_width) = (carried.map.width, beside.map.width);
        let window_size = plan.weights[0].len() * plan.weights[1].len();
        let planes = strip.map.planes_mut().zip(carried.map.planes_mut());
        let planes = planes.zip(beside.map.planes_mut());
        let finite = planes.zip(window.par_chunks_exact(window_size)).map(
            |(((plane, carried), beside), window)| {
                step.shift(plane, width);
                match place {
                    0 => step.load(plane, width, carried, [carried_width, 0]),
                    _ => step.load(plane, width, beside, [beside_width, beside_first]),
                }
                step.add(plane, width, window, &plan.weights);
                let is_finite = step.average(plane, width, &plan.sums);
                match saves_beside {
                    false => step.save(plane, width, carried, [carried_width, 0]),
                    true => step.save(plane, width, beside, [beside_width, beside_first]),
                }
                is_finite
            },
        );
        let is_finite = finite.reduce(|| true, |all, one| all & one);
        self.added += 1;
        let ends_row = column + 1 == plan.starts[1].len();
        strip.columns = if ends_row { 0..0 } else { step.first..step.loaded.end };
        if place == 1 {
            // What was loaded is not needed any more, also after the last.
            strip.columns.end = step.loaded.end;
        }
        let (top, rows, logits) = (step.top, step.averaged_rows, &strip.map);
        Some(FinishedStrip { window: at, ends_row, logits, top, rows, is_finite })
    }
}

impl HeldColumns {
    /// Drops the columns before one.
    fn drop_before(&mut self, column: usize) {
        let gone = column.min(self.columns.end).saturating_sub(self.columns.start);
        if gone > 0 {
            let (width, held) = (self.map.width, self.columns.len());
            self.map.planes_mut().for_each(|plane| {
                plane.chunks_exact_mut(width).for_each(|row| row.copy_within(gone..held, 0));
            });
            self.columns.start += gone;
        }
    }
}

impl LogitMap {
    /// The logits of each class, of which there is at least one.
    fn planes_mut(&mut self) -> rayon::slice::ChunksExactMut<'_, f32> {
        let plane = (self.height * self.width).max(1);
        self.data.par_chunks_exact_mut(plane)
    }
}

/// Returns the most logits of a class that are held at a time, with no more than `spare` columns
/// beside those of a window.
pub(crate) fn held_logits(plan: &WindowPlan, spare: usize) -> u64 {
    let ([rows, columns], [_, width]) = (plan.tile_logits(), plan.logit_size());
    let plan = StripPlan::new(plan);
    let product = |height: usize, width: usize| (height as u64).saturating_mul(width as u64);
    let strip = product(rows + 1, width.min(columns + spare));
    let beside = match plan.beside_height() {
        // A strip and a row of sums that are not used.
        0 => 2,
        height => strip.saturating_add(product(height, plan.beside_width(&plan.order()))),
    };
    let carried = product(plan.carried_height(), width);
    strip.saturating_add(carried).saturating_add(beside)
}

fn zeros(classes: usize, height: usize, width: usize) -> Option<LogitMap> {
    let count = classes.checked_mul(height)?.checked_mul(width)?;
    let mut data = Vec::new();
    data.try_reserve_exact(count).ok()?;
    data.resize(count, 0.0);
    Some(LogitMap { classes, height, width, data })
}

/// Windows of a frame and their weights, in logits.
#[derive(Debug)]
struct StripPlan {
    /// First row of each row of windows, and first column of each column of them.
    starts: [Vec<usize>; 2],
    /// Weights of a window's rows and columns of logits.
    weights: [Vec<f32>; 2],
    /// Sums of weights over each row and column of the frame.
    sums: [Vec<f32>; 2],
    /// The last row of windows where it is run beside the one above.
    beside: Option<usize>,
}

impl StripPlan {
    fn new(plan: &WindowPlan) -> Self {
        let starts = [&plan.rows, &plan.columns]
            .map(|axis| axis.starts.iter().map(|start| start / plan.grid.stride).collect());
        let (weights, sums) = (plan.weights(), plan.weight_sums());
        let mut plan = Self { starts, weights, sums, beside: None };
        plan.choose_beside();
        plan
    }

    /// Returns the end of what is complete after a row (axis 0) or column (axis 1) of windows.
    fn complete(&self, axis: usize, index: usize) -> usize {
        self.starts[axis].get(index + 1).copied().unwrap_or(self.sums[axis].len())
    }

    /// Rows that a row of windows needs of those above: the last complete one, between which and the
    /// next there are pixels, and those that it covers too. Empty for the first.
    fn carried_rows(&self, row: usize) -> Range<usize> {
        let above = row.checked_sub(1).and_then(|above| self.starts[0].get(above));
        let (Some(above), Some(top)) = (above, self.starts[0].get(row)) else { return 0..0 };
        top.saturating_sub(1)..above + self.weights[0].len()
    }

    /// Most rows that are carried to one of the first rows of windows.
    fn most_carried(&self, count: usize) -> usize {
        (0..count).map(|row| self.carried_rows(row).len()).max().unwrap_or(0).max(1)
    }

    /// Lets the last row of windows be run beside the one above where this holds less than its rows
    /// over the whole width.
    fn choose_beside(&mut self) {
        let last = self.starts[0].len().saturating_sub(1);
        let (outer, inner) = (self.carried_rows(last).len(), self.most_carried(last));
        self.beside = Some(last);
        let [rows, columns] = [&self.weights[0], &self.weights[1]].map(Vec::len);
        let held = (rows + 1) * columns + outer * self.beside_width(&self.order());
        if last == 0 || held >= outer.saturating_sub(inner) * self.sums[1].len() {
            self.beside = None;
        }
    }

    /// True for the last row of windows where it is run beside the one above.
    fn is_beside(&self, row: usize) -> bool {
        self.beside == Some(row)
    }

    /// Height of the buffer over the whole width.
    fn carried_height(&self) -> usize {
        self.most_carried(self.beside.unwrap_or(self.starts[0].len()))
    }

    /// Height of the buffer between the last two rows of windows; 0 where they are run one after the
    /// other.
    fn beside_height(&self) -> usize {
        self.beside.map_or(0, |last| self.carried_rows(last).len())
    }

    /// Most columns between those that the last row of windows loaded and those that the one above
    /// completed.
    fn beside_width(&self, order: &[[usize; 2]]) -> usize {
        let (mut needed, mut widest) = (0, 1);
        for &[row, column] in order {
            if self.is_beside(row) {
                needed = self.starts[1][column] + self.weights[1].len();
            } else if self.is_beside(row + 1) {
                widest = widest.max(self.complete(1, column) - needed);
            }
        }
        widest
    }

    /// See [`window_order`].
    fn order(&self) -> Vec<[usize; 2]> {
        let [rows, columns] = &self.starts;
        let row = |row: usize| (0..columns.len()).map(move |column| [row, column]);
        let above = self.beside.and_then(|last| last.checked_sub(1));
        let mut order: Vec<[usize; 2]> = (0..above.unwrap_or(rows.len())).flat_map(row).collect();
        let Some(above) = above else { return order };
        let last = above + 1;
        let mut above = row(above).peekable();
        for (window, left) in row(last).zip(columns) {
            let end = left + self.weights[1].len();
            while let Some(window) = above.next_if(|&[_, column]| columns[column] < end) {
                order.push(window);
            }
            order.push(window);
        }
        order
    }

    /// Returns the work on each class with a window, of a row and column of windows, where some
    /// columns of the frame are held and those before `first` are not needed any more. None where
    /// there is no such window.
    fn step(&self, [row, column]: [usize; 2], held: Range<usize>, first: usize) -> Option<Step> {
        let (window_top, left) = (*self.starts[0].get(row)?, *self.starts[1].get(column)?);
        let carried = self.carried_rows(row);
        Some(Step {
            top: if row == 0 { window_top } else { carried.start },
            first,
            loaded: held.end..left + self.weights[1].len(),
            held,
            window: [window_top, left],
            carried: carried.len(),
            saved: self.carried_rows(row + 1),
            averaged_rows: window_top..self.complete(0, row),
            averaged_columns: left..self.complete(1, column),
        })
    }
}

/// The work on each class with a window; rows and columns are the frame's.
#[derive(Debug)]
struct Step {
    /// First row of the strip.
    top: usize,
    /// First column of the strip.
    first: usize,
    /// Columns of the strip that was before.
    held: Range<usize>,
    /// Columns that come into the strip.
    loaded: Range<usize>,
    /// First row and column of the window.
    window: [usize; 2],
    /// Number of rows that the rows of windows above left.
    carried: usize,
    /// Rows for the next row of windows.
    saved: Range<usize>,
    averaged_rows: Range<usize>,
    averaged_columns: Range<usize>,
}

/// Columns among those from a first one on.
fn from_first(columns: &Range<usize>, first: usize) -> Range<usize> {
    columns.start - first..columns.end - first
}

impl Step {
    /// Drops the columns that are not needed any more.
    fn shift(&self, plane: &mut [f32], width: usize) {
        let kept = self.first - self.held.start.min(self.first)..self.held.len();
        if kept.start > 0 && !kept.is_empty() {
            plane.chunks_exact_mut(width).for_each(|row| row.copy_within(kept.clone(), 0));
        }
    }

    /// Begins the sums of the columns that come into the strip, from rows of a width whose first
    /// column is one of the frame.
    fn load(&self, plane: &mut [f32], width: usize, carried: &[f32], [across, left]: [usize; 2]) {
        let columns = from_first(&self.loaded, self.first);
        let mut rows = plane.chunks_exact_mut(width).map(|row| &mut row[columns.clone()]);
        let above = carried.chunks_exact(across).take(self.carried);
        // The rows that are carried come first, so that none is lost to the end of `above`.
        for (above, row) in above.zip(&mut rows) {
            row.copy_from_slice(&above[from_first(&self.loaded, left)]);
        }
        rows.for_each(|row| row.fill(0.0));
    }

    fn add(&self, plane: &mut [f32], width: usize, window: &[f32], weights: &[Vec<f32>; 2]) {
        let [down, across] = weights;
        let [top, left] = self.window;
        let rows = plane.chunks_exact_mut(width).skip(top - self.top);
        for ((row, logits), down) in rows.zip(window.chunks_exact(across.len())).zip(down) {
            let sums = &mut row[left - self.first..];
            for ((sum, logit), across) in sums.iter_mut().zip(logits).zip(across) {
                *sum += logit * (down * across);
            }
        }
    }

    /// Divides sums by those of the weights; false where a quotient is NaN or infinite.
    fn average(&self, plane: &mut [f32], width: usize, sums: &[Vec<f32>; 2]) -> bool {
        let columns = from_first(&self.averaged_columns, self.first);
        let rows = plane.chunks_exact_mut(width).skip(self.averaged_rows.start - self.top);
        let mut is_finite = true;
        for (row, down) in rows.zip(&sums[0][self.averaged_rows.clone()]) {
            let row = &mut row[columns.clone()];
            for (logit, across) in row.iter_mut().zip(&sums[1][self.averaged_columns.clone()]) {
                *logit /= down * across;
            }
            is_finite &= are_finite(row);
        }
        is_finite
    }

    /// Keeps the rows of complete columns that the next row of windows needs.
    fn save(&self, plane: &[f32], width: usize, carried: &mut [f32], [across, left]: [usize; 2]) {
        let columns = from_first(&self.averaged_columns, self.first);
        let rows = plane.chunks_exact(width).skip(self.saved.start.saturating_sub(self.top));
        let below = carried.chunks_exact_mut(across).take(self.saved.len());
        for (below, row) in below.zip(rows) {
            below[from_first(&self.averaged_columns, left)].copy_from_slice(&row[columns.clone()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use protoseg_models::random::Stream;
    use protoseg_models::window::{Blend, LogitGrid, Window, WindowPlan};

    use super::super::Stitcher;
    use super::*;

    #[test]
    fn strips_have_the_bits_of_all_at_once() {
        let half_pixel = LogitGrid { stride: 4, encoder_stride: 16, align_corners: false };
        let aligned = LogitGrid { stride: 4, encoder_stride: 8, align_corners: true };
        for (size, window, grid) in [
            ([52, 2000], Window { size: 48, stride: 16 }, half_pixel),
            ([388, 2000], Window { size: 128, stride: 64 }, half_pixel),
            ([50, 117], Window { size: 48, stride: 32 }, half_pixel),
            ([100, 90], Window { size: 32, stride: 32 }, half_pixel),
            ([130, 210], Window { size: 64, stride: 12 }, half_pixel),
            ([20, 40], Window { size: 32, stride: 16 }, half_pixel),
            ([117, 20], Window { size: 48, stride: 32 }, half_pixel),
            ([90, 190], Window { size: 33, stride: 12 }, aligned),
        ] {
            let plan = WindowPlan::new(size, window, grid, Blend::Ramp).unwrap();
            let beside = StripPlan::new(&plan).beside;
            assert_eq!(beside.is_some(), size[1] == 2000);
            for spare in [0, 1, 5] {
                check_strips(&plan, spare);
            }
        }
    }

    /// Compares every averaged row of every strip, and the one above, with those of all at once.
    fn check_strips(plan: &WindowPlan, spare: usize) {
        let (classes, [rows, columns]) = (3, plan.tile_logits());
        let (size, stream) = (classes * rows * columns, Stream::keyed(&[12]));
        let logits: Vec<f32> =
            (0..plan.count() * size).map(|index| stream.signed_unit(index as u64) as f32).collect();
        let mut whole = Stitcher::new(plan, classes).unwrap();
        whole.add(&logits);
        let whole = whole.finish();
        let lefts: Vec<usize> =
            plan.columns.starts.iter().map(|left| left / plan.grid.stride).collect();
        let firsts: Vec<usize> = lefts.iter().map(|left| left.saturating_sub(spare)).collect();
        let mut strips = StripStitcher::new(plan, classes, firsts.clone()).unwrap();
        let mut checked = 0;
        let mut rows_seen = vec![0; plan.rows.starts.len()];
        for window in logits.chunks_exact(size) {
            let done = strips.add(window).unwrap();
            let [row, column] = done.window;
            assert!(done.is_finite);
            assert_eq!(column, rows_seen[row], "from the left");
            rows_seen[row] += 1;
            assert_eq!(done.ends_row, rows_seen[row] == lefts.len());
            let end = lefts.get(column + 1).copied().unwrap_or(whole.width);
            for class in 0..classes {
                for row in done.top..done.rows.end {
                    let at = |map: &LogitMap, row: usize, columns: Range<usize>| {
                        let start = (class * map.height + row) * map.width;
                        map.data[start + columns.start..start + columns.end].to_vec()
                    };
                    let first = firsts[column];
                    let found = at(done.logits, row - done.top, 0..end - first);
                    assert!(
                        found == at(&whole, row, first..end),
                        "{plan:?} {spare} {row} {done:?}"
                    );
                    checked += end - lefts[column];
                }
            }
        }
        assert!(checked >= classes * whole.height * whole.width);
        assert!(strips.add(&logits[..size]).is_none());
        let held = strips.strips.iter().chain(&strips.carried).map(|strip| strip.map.data.len());
        assert!(held.sum::<usize>() as u64 <= held_logits(plan, spare) * classes as u64);
    }

    #[test]
    fn a_logit_that_is_not_finite_is_found_in_its_strip() {
        let grid = LogitGrid { stride: 4, encoder_stride: 16, align_corners: false };
        let window = Window { size: 32, stride: 16 };
        let plan = WindowPlan::new([64, 64], window, grid, Blend::Mean).unwrap();
        for place in 0..64 {
            let mut stitcher = StripStitcher::new(&plan, 1, vec![0, 4, 8]).unwrap();
            let mut window = [0.0; 64];
            window[place] = f32::NAN;
            let first = stitcher.add(&window).unwrap().is_finite;
            // Rows and columns from 4 on wait for other windows.
            assert_eq!(first, place / 8 >= 4 || place % 8 >= 4, "{place}");
            let all = (1..plan.count()).map(|_| stitcher.add(&[0.0; 64]).unwrap().is_finite);
            assert_eq!(all.collect::<Vec<_>>().contains(&false), first, "{place}");
        }
        assert!(StripStitcher::new(&plan, usize::MAX / 400, vec![0, 4, 8]).is_none());
    }
}
