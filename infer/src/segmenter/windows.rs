//! Windows of an image, in memory or read from the top while it is run.

use std::ops::Range;
use std::time::{Duration, Instant};

use protoseg_models::variant::ModelKind;
use protoseg_models::window::WindowPlan;

use super::rolling::{Predicted, RollingMerger};
use super::{ImageView, SegmentError, Segmenter, timed_run};
use crate::stage::Stage;
use crate::stitch::run_order;
use crate::upsample::{Outputs, Prediction};

/// An image that comes from the top, and whose prediction goes the same way.
pub trait RowStream {
    /// Errors of reading and writing, and of the segmenter.
    type Error: From<SegmentError>;

    /// Appends the next rows of pixels, RGB `[rows, width, 3]`, of which there is at least one. Not
    /// called after the last row.
    fn read(&mut self, pixels: &mut Vec<u8>) -> Result<(), Self::Error>;

    /// Takes the prediction of the next rows.
    fn write(&mut self, rows: Prediction) -> Result<(), Self::Error>;

    /// Called when a number of windows of all is done. An error ends the run.
    fn progress(&mut self, done: usize, all: usize) -> Result<(), Self::Error>;
}

/// Windows to run, and what takes their logits.
pub(super) trait WindowStream {
    type Error: From<SegmentError>;

    /// Makes rows of the image ready; those above are not needed again.
    fn hold(&mut self, rows: Range<usize>) -> Result<(), Self::Error>;

    /// Appends a window `[height, width]` at a row and column within the rows that are ready.
    fn copy(&self, start: [usize; 2], size: [usize; 2], pixels: &mut Vec<u8>);

    /// Takes the logits of the next windows, `[n, classes, l, m]`.
    fn take(&mut self, logits: &[f32]) -> Result<(), SegmentError>;

    /// Called when a number of windows is done.
    fn progress(&mut self, done: usize) -> Result<(), Self::Error>;
}

/// Windows of an image in memory.
pub(super) struct FrameWindows<'a, T> {
    pub(super) image: &'a ImageView<'a>,
    pub(super) take: T,
}

impl<T: FnMut(&[f32]) -> Result<(), SegmentError>> WindowStream for FrameWindows<'_, T> {
    type Error = SegmentError;

    fn hold(&mut self, _: Range<usize>) -> Result<(), SegmentError> {
        Ok(())
    }

    fn copy(&self, start: [usize; 2], size: [usize; 2], pixels: &mut Vec<u8>) {
        self.image.append_tile(start, size, pixels);
    }

    fn take(&mut self, logits: &[f32]) -> Result<(), SegmentError> {
        (self.take)(logits)
    }

    fn progress(&mut self, _: usize) -> Result<(), SegmentError> {
        Ok(())
    }
}

/// Windows of an image of which only the rows that they cover are in memory.
struct HeldWindows<'a, S> {
    stream: &'a mut S,
    merger: RollingMerger,
    size: [usize; 2],
    /// Number of all windows.
    count: usize,
    /// First row in memory.
    top: usize,
    /// RGB `[rows, width, 3]`.
    pixels: Vec<u8>,
}

impl<S: RowStream> HeldWindows<'_, S> {
    /// Row after the last in memory.
    fn bottom(&self) -> usize {
        self.top + self.pixels.len() / (self.size[1] * 3)
    }

    fn drop_above(&mut self, row: usize) {
        let gone = row.min(self.bottom()).saturating_sub(self.top);
        self.pixels.drain(..gone * self.size[1] * 3);
        self.top += gone;
    }
}

impl<S: RowStream> WindowStream for HeldWindows<'_, S> {
    type Error = S::Error;

    fn hold(&mut self, rows: Range<usize>) -> Result<(), S::Error> {
        self.drop_above(rows.start);
        let [height, width] = self.size;
        while self.bottom() < rows.end.min(height) {
            let before = self.pixels.len();
            self.stream.read(&mut self.pixels)?;
            let bytes = self.pixels.len() - before;
            if bytes == 0 || !bytes.is_multiple_of(width * 3) || self.bottom() > height {
                return Err(SegmentError::Rows { bytes, row: self.bottom(), height, width }.into());
            }
            self.drop_above(rows.start);
        }
        Ok(())
    }

    fn copy(&self, [top, left]: [usize; 2], size: [usize; 2], pixels: &mut Vec<u8>) {
        let rows = ImageView::from_rows(&self.pixels, self.size[1]);
        rows.append_tile([top - self.top, left], size, pixels);
    }

    fn take(&mut self, logits: &[f32]) -> Result<(), SegmentError> {
        self.merger.add(logits)
    }

    fn progress(&mut self, done: usize) -> Result<(), S::Error> {
        for rows in self.merger.take_rows() {
            self.stream.write(rows)?;
        }
        self.stream.progress(done, self.count)
    }
}

impl Segmenter {
    /// Predicts an image `[height, width]` that is larger than memory: its rows are read as windows
    /// need them, and those of the prediction are handed over once no window to come covers them.
    /// Labels, confidence and margin have the bits that [`predict`](Self::predict) gives them by
    /// windows; [`Outputs::logits`] is not regarded.
    ///
    /// Memory is taken for the pixels and predictions of one row of windows over the image's width,
    /// of two where a batch of windows spans two, and for the logits of the rows by which windows
    /// overlap. Models that run images whole are refused.
    pub fn predict_rows<S: RowStream>(
        &mut self,
        size: [usize; 2],
        outputs: Outputs,
        stream: &mut S,
    ) -> Result<(), S::Error> {
        if size.contains(&0) {
            return Err(SegmentError::Empty.into());
        }
        if self.kind != ModelKind::Logits {
            return Err(SegmentError::NoLogits.into());
        }
        let plan = self.plan(size)?.ok_or(SegmentError::WholeByRows)?;
        let frame = self.geometry(size, plan.padded())?;
        let outputs = Outputs { logits: false, ..outputs };
        let classes = self.model.classes.count();
        let merger = self.times.timed(Stage::Stitch, || {
            RollingMerger::new(&plan, classes, &frame, outputs, Predicted::Rows)
        });
        let [height, width] = size;
        let merger = merger.ok_or(SegmentError::TooLarge { height, width })?;
        let (count, pixels) = (plan.count(), Vec::new());
        let mut windows = HeldWindows { stream, merger, size, count, top: 0, pixels };
        self.run_windows(&plan, &mut windows)
    }

    /// Runs the windows of an image in batches, in their [order](run_order).
    pub(super) fn run_windows<S: WindowStream>(
        &mut self,
        plan: &WindowPlan,
        windows: &mut S,
    ) -> Result<(), S::Error> {
        let (size, [rows, columns]) = (plan.tile_size(), plan.tile_logits());
        let classes = self.model.classes.count();
        let starts = run_order(plan);
        let needed = needed_rows(&starts);
        let mut done = 0;
        for starts in starts.chunks(self.batch) {
            let last = starts.iter().map(|[top, _]| *top).max().unwrap_or(0);
            windows.hold(needed.get(done).copied().unwrap_or(last)..last + size[0])?;
            self.fill_tiles(starts, size, |start, pixels| windows.copy(start, size, pixels))
                .ok_or_else(|| {
                    let [height, width] = plan.padded();
                    SegmentError::TooLarge { height, width }
                })?;
            let expected = [starts.len(), classes, rows, columns];
            let mut stitching = Duration::ZERO;
            let Self { runner, times, pixels, .. } = self;
            let taken = timed_run(times, runner, |runner| {
                runner.run_with_logits(pixels, [starts.len(), size[0], size[1]], |shape, logits| {
                    if shape != expected {
                        return Err(SegmentError::Shape { found: shape.to_vec(), expected });
                    }
                    let start = Instant::now();
                    let taken = windows.take(logits);
                    stitching = start.elapsed();
                    taken
                })
            });
            // Logits are taken in the midst of a run.
            self.times[Stage::Compute] = self.times[Stage::Compute].saturating_sub(stitching);
            self.times[Stage::Stitch] += stitching;
            taken.map_err(SegmentError::from)??;
            done += starts.len();
            windows.progress(done)?;
        }
        Ok(())
    }
}

/// The first row of the image that each window or one after it needs.
fn needed_rows(starts: &[[usize; 2]]) -> Vec<usize> {
    let mut least = usize::MAX;
    let rows = starts.iter().rev().map(|[top, _]| {
        least = least.min(*top);
        least
    });
    let mut needed: Vec<usize> = rows.collect();
    needed.reverse();
    needed
}
