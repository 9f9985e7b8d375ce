//! Windows that are stitched in the plan's order, and predicted from the top as soon as they are
//! complete.

use protoseg_models::window::WindowPlan;

use super::SegmentError;
use crate::stitch::Stitcher;
use crate::upsample::{LogitGeometry, Outputs, Pixels, Prediction, Upsampler};

/// Stitches windows and predicts rows of pixels that no window to come covers.
#[derive(Debug)]
pub(super) struct RollingMerger {
    stitcher: Stitcher,
    upsampler: Upsampler,
    outputs: Outputs,
    frame: LogitGeometry,
    predictions: Predictions,
    /// Rows of pixels that are predicted.
    predicted_rows: usize,
    /// Rows of logits that are complete.
    complete_rows: usize,
    /// Logits per window.
    window_values: usize,
}

#[derive(Debug)]
enum Predictions {
    /// The whole frame, complete after the last window.
    Frame(Prediction),
    /// Rows that were predicted and not taken yet, from the top.
    Rows(Vec<Prediction>),
}

impl RollingMerger {
    /// Predicts a frame as a whole. None where the logits do not fit into memory.
    pub(super) fn new(
        plan: &WindowPlan,
        classes: usize,
        frame: &LogitGeometry,
        outputs: Outputs,
    ) -> Option<Self> {
        let stitcher = Stitcher::rolling(plan, classes)?;
        let predictions = Predictions::Frame(Prediction::blank(frame, outputs));
        Some(Self::with(stitcher, plan, classes, frame, outputs, predictions))
    }

    /// Predicts rows, which are to be taken by [`take_rows`](Self::take_rows).
    pub(super) fn by_rows(
        plan: &WindowPlan,
        classes: usize,
        frame: &LogitGeometry,
        outputs: Outputs,
    ) -> Option<Self> {
        let stitcher = Stitcher::rolling(plan, classes)?;
        let predictions = Predictions::Rows(Vec::new());
        Some(Self::with(stitcher, plan, classes, frame, outputs, predictions))
    }

    fn with(
        stitcher: Stitcher,
        plan: &WindowPlan,
        classes: usize,
        frame: &LogitGeometry,
        outputs: Outputs,
        predictions: Predictions,
    ) -> Self {
        let [rows, columns] = plan.tile_logits();
        Self {
            stitcher,
            upsampler: Upsampler::new(plan.logit_size(), frame),
            outputs,
            frame: *frame,
            predictions,
            predicted_rows: 0,
            complete_rows: 0,
            window_values: classes * rows * columns,
        }
    }

    /// Adds the next windows, `[n, classes, l, m]`.
    pub(super) fn add(&mut self, logits: &[f32]) -> Result<(), SegmentError> {
        for window in logits.chunks_exact(self.window_values) {
            self.stitcher.add(window);
            let complete = self.stitcher.finish_rows();
            if complete > self.complete_rows {
                let (map, top) = self.stitcher.buffered_rows();
                if !map.rows_are_finite(self.complete_rows - top..complete - top) {
                    return Err(SegmentError::NotFinite);
                }
                let ready = self.upsampler.ready(complete);
                self.predict(ready);
                self.complete_rows = complete;
                self.stitcher.drop_finished_rows();
            }
        }
        Ok(())
    }

    /// Predicts the rows of pixels up to one whose logits are complete.
    fn predict(&mut self, ready: usize) {
        let (map, top) = self.stitcher.buffered_rows();
        let rows = self.predicted_rows..ready;
        if rows.is_empty() {
            return;
        }
        let (planes, outputs) = (map.planes(), self.outputs);
        match &mut self.predictions {
            Predictions::Frame(prediction) => {
                let pixels = Pixels { rows, first: 0 };
                self.upsampler.predict(planes, top, pixels, outputs, prediction);
            }
            Predictions::Rows(predictions) => {
                let frame = LogitGeometry { height: rows.len(), ..self.frame };
                let mut prediction = Prediction::blank(&frame, outputs);
                let pixels = Pixels { first: rows.start, rows };
                self.upsampler.predict(planes, top, pixels, outputs, &mut prediction);
                predictions.push(prediction);
            }
        }
        self.predicted_rows = ready;
    }

    /// Takes the rows that were predicted since the last call, from the top.
    pub(super) fn take_rows(&mut self) -> Vec<Prediction> {
        match &mut self.predictions {
            Predictions::Frame(_) => Vec::new(),
            Predictions::Rows(predictions) => std::mem::take(predictions),
        }
    }

    /// Returns the prediction of the frame; an empty one where it was made by rows.
    pub(super) fn into_prediction(self) -> Prediction {
        match self.predictions {
            Predictions::Frame(prediction) => prediction,
            Predictions::Rows(_) => {
                Prediction::blank(&LogitGeometry { height: 0, ..self.frame }, self.outputs)
            }
        }
    }
}
