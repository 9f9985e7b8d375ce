//! A picture in pieces which may run in any order, on several segmenters of one model and beside pieces of other pictures:
//! what its scores become.

use std::collections::BTreeMap;

use protoseg_models::weights::Tensor;
use protoseg_models::window::WindowPlan;

use super::{ImageLogits, RawPrediction, SegmentError, Segmenter, TileGrid};
use crate::stitch::{LogitMap, Stitcher};
use crate::upsample::{self, LogitGeometry, Outputs, Prediction, Upsampler};

/// Scores of the pieces of a picture on their way to a label for every pixel. Tiling may come in any order; those that come
/// before their turn wait, so that sums, and with them labels, do not depend on it.
#[derive(Debug)]
pub struct TileMerger {
    /// Height and width of a piece's scores, where they are known beforehand.
    side: Option<usize>,
    classes: usize,
    count: usize,
    next: usize,
    early: BTreeMap<usize, Tensor>,
    made: MergeState,
}

/// What scores are made into.
#[derive(Debug)]
enum MergeState {
    /// One piece is all.
    Whole { frame: LogitGeometry, wanted: Outputs, keep: bool },
    /// Windows are put together, and scores kept.
    Map { stitcher: Box<Stitcher>, frame: LogitGeometry },
    /// Windows are put together, and pixels decided as soon as no window to come covers them.
    Pixels(Box<RollingMerger>),
    /// All has been given away.
    Nothing,
}

impl TileMerger {
    /// Of a picture of which nothing is known yet. With `keep` its scores are the answer, else what is decided of each
    /// pixel; the memory of that is taken now.
    pub fn new(cut: &TileGrid, wanted: Outputs, keep: bool) -> Result<Self, SegmentError> {
        let TileGrid { plan, frame, classes, .. } = cut;
        let too_large = || SegmentError::TooLarge { height: frame.height, width: frame.width };
        let made = match plan {
            None => MergeState::Whole { frame: *frame, wanted, keep },
            Some(plan) if keep => {
                let stitcher = Stitcher::new(plan, *classes).ok_or_else(too_large)?;
                MergeState::Map { stitcher: Box::new(stitcher), frame: *frame }
            }
            Some(plan) => MergeState::Pixels(Box::new(
                RollingMerger::new(plan, *classes, frame, wanted).ok_or_else(too_large)?,
            )),
        };
        let side = plan.as_ref().map(|plan| plan.window_logits());
        Ok(Self {
            side,
            classes: *classes,
            count: cut.count(),
            next: 0,
            early: BTreeMap::new(),
            made,
        })
    }

    /// Puts the scores of a piece, `[1, classes, h, w]`, into their place. Once all have come, what the model made of the
    /// picture.
    pub fn put(
        &mut self,
        index: usize,
        scores: Tensor,
    ) -> Result<Option<RawPrediction>, SegmentError> {
        let fits = match (&scores.shape[..], self.side) {
            (&[1, classes, height, width], Some(side)) => {
                [classes, height, width] == [self.classes, side, side]
            }
            (&[1, classes, height, width], None) => classes == self.classes && height * width > 0,
            _ => false,
        };
        if !fits {
            let side = self.side.unwrap_or(0);
            return Err(SegmentError::Shape {
                found: scores.shape,
                expected: [1, self.classes, side, side],
            });
        }
        self.early.insert(index, scores);
        while let Some(scores) = self.early.remove(&self.next) {
            self.next += 1;
            match &mut self.made {
                MergeState::Pixels(rolling) => rolling.add(&scores.data)?,
                MergeState::Map { stitcher, .. } => stitcher.add(&scores.data),
                MergeState::Whole { frame, wanted, keep } => {
                    let (height, width) = (scores.shape[2], scores.shape[3]);
                    let map = LogitMap { classes: self.classes, height, width, data: scores.data };
                    if !map.is_finite() {
                        return Err(SegmentError::NotFinite);
                    }
                    return Ok(Some(if *keep {
                        RawPrediction::Logits(ImageLogits { map, frame: *frame })
                    } else {
                        RawPrediction::Final(upsample::predict(&map, frame, *wanted))
                    }));
                }
                MergeState::Nothing => {}
            }
        }
        if self.next < self.count {
            return Ok(None);
        }
        match std::mem::replace(&mut self.made, MergeState::Nothing) {
            MergeState::Pixels(rolling) => Ok(Some(RawPrediction::Final(rolling.decided))),
            MergeState::Map { stitcher, frame } => {
                let map = stitcher.finish();
                if map.is_finite() {
                    Ok(Some(RawPrediction::Logits(ImageLogits { map, frame })))
                } else {
                    Err(SegmentError::NotFinite)
                }
            }
            MergeState::Whole { .. } | MergeState::Nothing => Ok(None),
        }
    }
}

/// Windows that are put together in the plan's order, and given up from the top.
#[derive(Debug)]
pub(super) struct RollingMerger {
    stitcher: Stitcher,
    upsampler: Upsampler,
    wanted: Outputs,
    /// What has been decided; all of it after the last window.
    pub(super) decided: Prediction,
    /// Rows of the picture that are decided.
    rows: usize,
    /// Rows of the scores that are known.
    known: usize,
    /// How many scores a window has.
    scores: usize,
}

impl RollingMerger {
    /// None where the scores do not fit into memory.
    pub(super) fn new(
        plan: &WindowPlan,
        classes: usize,
        frame: &LogitGeometry,
        wanted: Outputs,
    ) -> Option<Self> {
        let stitcher = Stitcher::rolling(plan, classes)?;
        let upsampler = Upsampler::new(plan.logit_size(), frame);
        let decided = Prediction::blank(frame, wanted);
        let side = plan.window_logits();
        Some(Self {
            stitcher,
            upsampler,
            wanted,
            decided,
            rows: 0,
            known: 0,
            scores: classes * side * side,
        })
    }

    /// Adds the next windows, `[n, classes, l, l]`.
    pub(super) fn add(&mut self, scores: &[f32]) -> Result<(), SegmentError> {
        for window in scores.chunks_exact(self.scores) {
            self.stitcher.add(window);
            let settled = self.stitcher.finish_rows();
            if settled > self.known {
                let (map, top) = self.stitcher.buffered_rows();
                if !map.rows_are_finite(self.known - top..settled - top) {
                    return Err(SegmentError::NotFinite);
                }
                let ready = self.upsampler.ready(settled);
                self.upsampler.predict(map, top, self.rows..ready, self.wanted, &mut self.decided);
                (self.rows, self.known) = (ready, settled);
                self.stitcher.drop_finished_rows();
            }
        }
        Ok(())
    }
}

impl Segmenter {
    /// Runs pieces of any pictures, RGB `[n, h, w, 3]` with `shape` = `[n, h, w]`: the scores of each, `[1, classes, h', w']`.
    pub fn run_tiles(
        &mut self,
        pixels: &[u8],
        shape: [usize; 3],
    ) -> Result<Vec<Tensor>, SegmentError> {
        let scores = self.times.run(&mut self.runner, |runner| runner.run(pixels, shape))?;
        match scores.shape[..] {
            [count, classes, height, width]
                if count == shape[0] && scores.data.len() % count.max(1) == 0 =>
            {
                let one = |data: &[f32]| Tensor {
                    shape: vec![1, classes, height, width],
                    data: data.to_vec(),
                };
                if count == 1 {
                    return Ok(vec![scores]);
                }
                Ok(scores
                    .data
                    .chunks_exact((scores.data.len() / count.max(1)).max(1))
                    .map(one)
                    .collect())
            }
            _ => Err(SegmentError::Shape {
                found: scores.shape,
                expected: [shape[0], self.model.classes.count(), 0, 0],
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use protoseg_models::random::Stream;
    use protoseg_models::window::Window;

    use super::super::cut::tests::tiler;
    use super::*;

    fn scores(cut: &TileGrid, height: usize, width: usize, index: usize) -> Tensor {
        let stream = Stream::keyed(&[7, index as u64]);
        let draw =
            |place: usize| stream.below(place as u64, 1 << 20) as f32 / (1 << 16) as f32 - 8.0;
        Tensor {
            shape: vec![1, cut.classes, height, width],
            data: (0..cut.classes * height * width).map(draw).collect(),
        }
    }

    #[test]
    fn the_order_in_which_pieces_come_changes_nothing() {
        let cut = tiler(Some(Window { size: 48, stride: 32 })).tiles([100, 117]).unwrap();
        assert_eq!((cut.count(), cut.tile_size()), (12, [48, 48]));
        let wanted = Outputs { confidence: true, margin: true };
        let orders: [Vec<usize>; 3] = [
            (0..12).collect(),
            (0..12).rev().collect(),
            vec![5, 0, 1, 11, 2, 4, 3, 6, 10, 7, 9, 8],
        ];
        let mut answers = Vec::new();
        for keep in [false, true] {
            for order in &orders {
                let mut mosaic = TileMerger::new(&cut, wanted, keep).unwrap();
                let mut answer = None;
                for (place, &index) in order.iter().enumerate() {
                    assert!(answer.is_none(), "before all pieces came");
                    answer = mosaic.put(index, scores(&cut, 12, 12, index)).unwrap();
                    assert_eq!(answer.is_some(), place == 11);
                }
                answers.push(answer.unwrap().predict(wanted));
            }
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!([answers[0].height, answers[0].width], [100, 117]);
    }

    #[test]
    fn a_whole_picture_is_one_piece_and_wrong_scores_are_refused() {
        let cut = tiler(None).tiles([20, 50]).unwrap();
        assert_eq!((cut.count(), cut.tile_size()), (1, [32, 50]));
        let mut mosaic = TileMerger::new(&cut, Outputs::default(), false).unwrap();
        let wrong = Tensor { shape: vec![1, 2, 8, 13], data: vec![0.0; 2 * 8 * 13] };
        assert!(matches!(mosaic.put(0, wrong), Err(SegmentError::Shape { .. })));
        let decided =
            mosaic.put(0, scores(&cut, 8, 13, 0)).unwrap().unwrap().predict(Outputs::default());
        assert_eq!(decided.labels.len(), 20 * 50);
        let mut lost = scores(&cut, 8, 13, 0);
        lost.data[5] = f32::NAN;
        let mut mosaic = TileMerger::new(&cut, Outputs::default(), false).unwrap();
        assert!(matches!(mosaic.put(0, lost), Err(SegmentError::NotFinite)));
    }
}
