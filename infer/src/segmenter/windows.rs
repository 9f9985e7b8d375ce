//! Pictures in windows: all scores at once, or row after row of windows.

use std::time::Duration;

use image::RgbImage;
use protoseg_models::window::{Window, WindowPlan};

use super::mosaic::RollingMerger;
use super::{SegmentError, Segmenter, size, too_large};
use crate::session::timed;
use crate::stitch::{LogitMap, Stitcher};
use crate::upsample::{Outputs, Prediction};

impl Segmenter {
    /// Class scores of a picture, and the size that they span.
    pub(super) fn windows(
        &mut self,
        picture: &RgbImage,
        plan: &WindowPlan,
    ) -> Result<(LogitMap, [usize; 2]), SegmentError> {
        let classes = self.model.classes.count();
        let stitcher = timed(&mut self.times.stitch, || Stitcher::new(plan, classes));
        let mut stitcher = stitcher.ok_or_else(|| too_large(picture))?;
        self.run_windows(picture, plan, |scores| {
            stitcher.add(scores);
            Ok(())
        })?;
        let map = timed(&mut self.times.stitch, || stitcher.finish());
        Ok((map, [plan.rows.padded, plan.columns.padded]))
    }

    /// Every pixel of a picture, decided as soon as its scores are known.
    pub(super) fn predict_windows(
        &mut self,
        picture: &RgbImage,
        window: Window,
        wanted: Outputs,
    ) -> Result<Prediction, SegmentError> {
        let size = size(picture)?;
        let plan = WindowPlan::new(size[0], size[1], window, self.model.grid)?;
        let frame = self.frame(size, [plan.rows.padded, plan.columns.padded]);
        let classes = self.model.classes.count();
        let rolling =
            timed(&mut self.times.stitch, || RollingMerger::new(&plan, classes, &frame, wanted));
        let mut rolling = rolling.ok_or_else(|| too_large(picture))?;
        self.run_windows(picture, &plan, |scores| rolling.add(scores))?;
        Ok(rolling.decided)
    }

    /// Runs the windows of a picture, some at once, and hands over their scores, `[n, classes, l, l]`, in the plan's order.
    fn run_windows(
        &mut self,
        picture: &RgbImage,
        plan: &WindowPlan,
        mut take: impl FnMut(&[f32]) -> Result<(), SegmentError>,
    ) -> Result<(), SegmentError> {
        let (size, side) = (plan.window.size, plan.window_logits());
        let classes = self.model.classes.count();
        let starts: Vec<[usize; 2]> = plan.starts().collect();
        for starts in starts.chunks(self.batch) {
            self.copy_tiles(picture, starts, [size; 2])?;
            let expected = [starts.len(), classes, side, side];
            let mut took = Duration::ZERO;
            let taken = self.times.run(&mut self.runner, |runner| {
                runner.run_with_logits(&self.pixels, [starts.len(), size, size], |shape, scores| {
                    if shape != expected {
                        return Err(SegmentError::Shape { found: shape.to_vec(), expected });
                    }
                    timed(&mut took, || take(scores))
                })
            });
            // Scores are taken in the midst of a run.
            self.times.run = self.times.run.saturating_sub(took);
            self.times.stitch += took;
            taken??;
        }
        Ok(())
    }
}
