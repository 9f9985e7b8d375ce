//! Pictures in windows: all scores at once, or row after row of windows.

use std::time::Instant;

use image::RgbImage;
use protoseg_models::window::{Window, WindowPlan};

use super::mosaic::Rolling;
use super::{SegmentError, Segmenter, size, too_large};
use crate::crop;
use crate::stitch::{LogitMap, Stitcher};
use crate::upsample::{Decided, Wanted};

impl Segmenter {
    /// Class scores of a picture, and the size that they span.
    pub(super) fn windows(
        &mut self,
        picture: &RgbImage,
        plan: &WindowPlan,
    ) -> Result<(LogitMap, [usize; 2]), SegmentError> {
        let classes = self.model.classes.count();
        let mut stitcher = Stitcher::new(plan, classes).ok_or_else(|| too_large(picture))?;
        self.run_windows(picture, plan, |scores| {
            stitcher.add(scores);
            Ok(())
        })?;
        let start = Instant::now();
        let map = stitcher.finish();
        self.times.stitch += start.elapsed();
        Ok((map, [plan.rows.padded, plan.columns.padded]))
    }

    /// Every pixel of a picture, decided as soon as its scores are known.
    pub(super) fn decide_windows(
        &mut self,
        picture: &RgbImage,
        window: Window,
        wanted: Wanted,
    ) -> Result<Decided, SegmentError> {
        let size = size(picture)?;
        let plan = WindowPlan::new(size[0], size[1], window, self.model.grid)?;
        let frame = self.frame(size, [plan.rows.padded, plan.columns.padded]);
        let classes = self.model.classes.count();
        let mut rolling = Rolling::new(&plan, classes, &frame, wanted).ok_or_else(|| too_large(picture))?;
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
            self.make_room(picture, starts.len(), [size; 2])?;
            for &start in starts {
                crop::append(picture, start, [size; 2], &mut self.pixels);
            }
            let expected = [starts.len(), classes, side, side];
            let start = Instant::now();
            let took = self.runner.run_scores(&self.pixels, [starts.len(), size, size], |shape, scores| {
                let ran = Instant::now();
                if shape != expected {
                    return Err(SegmentError::Shape { found: shape.to_vec(), expected });
                }
                take(scores)?;
                Ok(ran.elapsed())
            })??;
            self.times.run += start.elapsed().saturating_sub(took);
            self.times.stitch += took;
        }
        Ok(())
    }
}
