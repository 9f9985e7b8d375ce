//! Windows that are stitched in their order, and predicted from the top as soon as they are
//! complete.

use std::collections::BTreeMap;
use std::ops::Range;

use ndarray::s;
use protoseg_models::window::WindowPlan;

use super::SegmentError;
use crate::kernels::LANES;
use crate::stitch::{StripStitcher, held_logits as held_in_strips};
use crate::upsample::{LogitGeometry, Outputs, Pixels, Prediction, Strip, Upsampler};

/// Stitches windows and predicts pixels that no window to come covers.
#[derive(Debug)]
pub(super) struct RollingMerger {
    stitcher: StripStitcher,
    /// One for each column of windows.
    strips: Vec<Strip>,
    outputs: Outputs,
    frame: LogitGeometry,
    predicted: Predicted,
    /// The frame under 0, or the rows of each row of windows that is being run.
    predicting: BTreeMap<usize, Prediction>,
    /// Rows that were predicted and not taken yet, from the top.
    taken: Vec<Prediction>,
    /// Logits per window.
    window_values: usize,
}

/// The form in which a prediction is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Predicted {
    /// The whole frame, complete after the last window.
    Frame,
    /// Rows from the top, which are to be taken by [`RollingMerger::take_rows`].
    Rows,
}

/// Returns the most logits of a class that a merger holds at a time.
pub(super) fn held_logits(plan: &WindowPlan) -> u64 {
    // There is at least a pixel for each logit: so a group of pixels that waits for the next window
    // spans no more columns than it has pixels.
    held_in_strips(plan, LANES)
}

impl RollingMerger {
    /// None where the logits do not fit into memory.
    pub(super) fn new(
        plan: &WindowPlan,
        classes: usize,
        frame: &LogitGeometry,
        outputs: Outputs,
        predicted: Predicted,
    ) -> Option<Self> {
        let ([rows, columns], [_, width]) = (plan.tile_logits(), plan.logit_size());
        let lefts = plan.columns.starts.iter().map(|left| left / plan.grid.stride);
        let ends = lefts.clone().skip(1).chain([width]);
        let upsampler = Upsampler::new(plan.logit_size(), frame);
        let strips = upsampler.strips(lefts.zip(ends).map(|(left, end)| left..end));
        let firsts = strips.iter().map(|strip| strip.first).collect();
        let whole = (predicted == Predicted::Frame).then(|| Prediction::blank(frame, outputs));
        Some(Self {
            stitcher: StripStitcher::new(plan, classes, firsts)?,
            strips,
            outputs,
            frame: *frame,
            predicted,
            predicting: whole.map(|whole| (0, whole)).into_iter().collect(),
            taken: Vec::new(),
            window_values: classes * rows * columns,
        })
    }

    /// Adds the next windows, `[n, classes, l, m]`.
    pub(super) fn add(&mut self, logits: &[f32]) -> Result<(), SegmentError> {
        let Self { stitcher, strips, outputs, frame, predicted, .. } = self;
        for window in logits.chunks_exact(self.window_values) {
            let Some(finished) = stitcher.add(window) else { break };
            if !finished.is_finite {
                return Err(SegmentError::NotFinite);
            }
            let [row, column] = finished.window;
            let Some(Strip { upsampler, pixels: columns, .. }) = strips.get(column) else { break };
            let rows = upsampler.ready(finished.rows.start)..upsampler.ready(finished.rows.end);
            let (key, first_row) = match predicted {
                Predicted::Frame => (0, 0),
                Predicted::Rows => (row, rows.start),
            };
            let blank = |width: usize| {
                let part = LogitGeometry { height: rows.len(), width, ..*frame };
                Prediction::blank(&part, *outputs)
            };
            let prediction = self.predicting.entry(key).or_insert_with(|| blank(frame.width));
            if !rows.is_empty() && !columns.is_empty() {
                let mut strip = blank(columns.len());
                let pixels = Pixels { first: rows.start, rows: rows.clone() };
                let planes = finished.logits.planes();
                upsampler.predict(planes, finished.top, &pixels, *outputs, &mut strip);
                let rows = rows.start - first_row..rows.end - first_row;
                put(prediction, &strip, rows, columns.clone());
            }
            if finished.ends_row && *predicted == Predicted::Rows {
                self.taken.extend(self.predicting.remove(&key).filter(|_| !rows.is_empty()));
            }
        }
        Ok(())
    }

    /// Takes the rows that were predicted since the last call, from the top.
    pub(super) fn take_rows(&mut self) -> Vec<Prediction> {
        std::mem::take(&mut self.taken)
    }

    /// Returns the prediction of the frame; an empty one where it was made by rows.
    pub(super) fn into_prediction(mut self) -> Prediction {
        let none = || Prediction::blank(&LogitGeometry { height: 0, ..self.frame }, self.outputs);
        self.predicting.remove(&0).unwrap_or_else(none)
    }
}

/// Puts the prediction of a part of a frame into its place.
fn put(frame: &mut Prediction, part: &Prediction, rows: Range<usize>, columns: Range<usize>) {
    let place = s![rows, columns];
    frame.labels.slice_mut(place).assign(&part.labels);
    for (plane, part) in
        [(&mut frame.confidence, &part.confidence), (&mut frame.margin, &part.margin)]
    {
        if let (Some(plane), Some(part)) = (plane, part) {
            plane.slice_mut(place).assign(part);
        }
    }
}
