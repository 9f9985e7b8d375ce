//! Tiles of images: where they lie, what they cost, and how their logits become predictions. Tiles
//! may run in any order, on several segmenters of one model and beside tiles of other images.

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::{Array3, CowArray, Ix3};
use protoseg_models::variant::ModelKind;
use protoseg_models::window::{Blend, LogitGrid, ShortSides, Window, WindowPlan};

use super::fit::Painter;
use super::rolling::{self, Predicted, RollingMerger};
use super::{ImageView, InputSizes, SegmentError};
use crate::kernels::LogitPlanes;
use crate::stitch::{Stitcher, are_finite, run_order};
use crate::upsample::{self, LogitGeometry, Outputs, Prediction, ScoreScale};

/// Splits images into tiles; the same for all segmenters of a model.
#[derive(Debug, Clone)]
pub struct Tiler {
    pub(super) kind: ModelKind,
    pub(super) sizes: InputSizes,
    pub(super) painter: Painter,
    /// Windows along height and width.
    pub(super) windows: Option<[Window; 2]>,
    pub(super) grid: LogitGrid,
    pub(super) blend: Blend,
    pub(super) short_sides: ShortSides,
    pub(super) classes: usize,
    pub(super) scores: ScoreScale,
    /// `[height, width]` of each frame file.
    pub(super) frames: Vec<[usize; 2]>,
}

impl Tiler {
    /// True where images `[height, width]` are not split but go through
    /// [`Segmenter::predict`](super::Segmenter::predict): to a file that gives labels, or to a
    /// frame file.
    pub fn runs_whole(&self, size: [usize; 2], outputs: Outputs) -> bool {
        let frame = !outputs.logits && !outputs.margin && self.frames.contains(&size);
        self.kind == ModelKind::Labels || frame
    }

    /// Returns the windows of an image `[height, width]`; None where it is run whole.
    pub fn window_plan(&self, size: [usize; 2]) -> Result<Option<WindowPlan>, SegmentError> {
        let Some(windows) = self.windows else { return Ok(None) };
        let plan = WindowPlan::oblong(size, windows, self.grid, self.blend, self.short_sides)?;
        Ok(Some(plan))
    }

    /// Returns the cost of an image `[height, width]`, before anything is allocated for it.
    pub fn cost(&self, size: [usize; 2], outputs: Outputs) -> Result<TileCost, SegmentError> {
        let product = |sides: &[usize]| {
            sides.iter().fold(1_u64, |product, &side| product.saturating_mul(side as u64))
        };
        if self.runs_whole(size, outputs) || self.kind != ModelKind::Logits {
            return Ok(TileCost { pixels: product(&size), bytes: 0 });
        }
        let Some(plan) = self.window_plan(size)? else {
            let padded = self.sizes.padded(size)?;
            let [rows, columns] = padded.map(|side| self.grid.logits(side));
            let bytes = product(&[self.classes, rows, columns, size_of::<f32>()]);
            return Ok(TileCost { pixels: product(&padded), bytes });
        };
        let logits = match outputs.logits {
            true => product(&plan.logit_size()),
            false => rolling::held_logits(&plan),
        };
        // Where each window starts, in pixels and in logits.
        let starts = product(&[plan.count(), 2, size_of::<[usize; 2]>()]);
        let bytes = logits
            .saturating_mul(product(&[self.classes, size_of::<f32>()]))
            .saturating_add(starts);
        let [height, width] = plan.tile_size();
        Ok(TileCost { pixels: product(&[plan.count(), height, width]), bytes })
    }

    /// Splits an image `[height, width]` into windows, or into one tile padded to what the network
    /// takes.
    pub fn tiles(&self, size: [usize; 2]) -> Result<TileGrid, SegmentError> {
        if size.contains(&0) {
            return Err(SegmentError::Empty);
        }
        if self.kind != ModelKind::Logits {
            return Err(SegmentError::NoLogits);
        }
        let plan = self.window_plan(size)?.map(Arc::new);
        let (starts, tile_size) = match &plan {
            Some(plan) => (run_order(plan), plan.tile_size()),
            None => (vec![[0, 0]], self.sizes.padded(size)?),
        };
        let padded = plan.as_ref().map_or(tile_size, |plan| plan.padded());
        let align_corners = self.grid.align_corners;
        let placement = match plan {
            Some(_) => None,
            None => self.sizes.placement(size, self.painter.bars.corner)?,
        };
        let frame = LogitGeometry {
            placement,
            scores: self.scores,
            ..LogitGeometry::new(size, padded, align_corners)
        };
        let (classes, painter) = (self.classes, self.painter);
        Ok(TileGrid { starts, tile_size, plan, frame, painter, classes })
    }
}

/// Cost of an image beside its own memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileCost {
    /// Pixels of all tiles, overlaps and padding included.
    pub pixels: u64,
    /// Bytes of logits and tile positions that are held at a time.
    pub bytes: u64,
}

/// The tiles of an image.
#[derive(Debug, Clone)]
pub struct TileGrid {
    starts: Vec<[usize; 2]>,
    tile_size: [usize; 2],
    plan: Option<Arc<WindowPlan>>,
    frame: LogitGeometry,
    painter: Painter,
    classes: usize,
}

impl TileGrid {
    /// Returns the number of tiles.
    pub fn count(&self) -> usize {
        self.starts.len()
    }

    /// Returns `[height, width]` of each tile in pixels.
    pub fn tile_size(&self) -> [usize; 2] {
        self.tile_size
    }

    /// Appends the pixels of a tile, RGB `[height, width, 3]`, to a buffer. The image must have the
    /// size that was split.
    pub fn append<'a>(&self, image: impl Into<ImageView<'a>>, index: usize, pixels: &mut Vec<u8>) {
        let image = image.into();
        match self.frame.placement {
            Some(placement) => self.painter.append(&image, placement, pixels),
            None => image.append_tile(self.starts[index], self.tile_size, pixels),
        }
    }
}

/// Merges the logits of an image's tiles into its prediction. Tiles may come in any order; those
/// that come early wait, so that sums, and with them labels, do not depend on the order.
#[derive(Debug)]
pub struct TileMerger {
    /// Height and width of a tile's logits, where they are known beforehand.
    tile_logits: Option<[usize; 2]>,
    classes: usize,
    count: usize,
    next: usize,
    early: BTreeMap<usize, Array3<f32>>,
    outputs: Outputs,
    frame: LogitGeometry,
    state: MergeState,
}

#[derive(Debug)]
enum MergeState {
    /// The image is one tile.
    Single,
    /// Windows are stitched, and all logits kept.
    Stitching(Box<Stitcher>),
    /// Windows are stitched, and pixels predicted as soon as no window to come covers them.
    Rolling(Box<RollingMerger>),
    Finished,
}

impl TileMerger {
    /// Allocates what the outputs of an image need.
    pub fn new(grid: &TileGrid, outputs: Outputs) -> Result<Self, SegmentError> {
        let TileGrid { plan, frame, classes, .. } = grid;
        let too_large = || SegmentError::TooLarge { height: frame.height, width: frame.width };
        let state = match plan {
            None => MergeState::Single,
            Some(plan) if outputs.logits => MergeState::Stitching(Box::new(
                Stitcher::new(plan, *classes).ok_or_else(too_large)?,
            )),
            Some(plan) => MergeState::Rolling(Box::new(
                RollingMerger::new(plan, *classes, frame, outputs, Predicted::Frame)
                    .ok_or_else(too_large)?,
            )),
        };
        Ok(Self {
            tile_logits: plan.as_ref().map(|plan| plan.tile_logits()),
            classes: *classes,
            count: grid.count(),
            next: 0,
            early: BTreeMap::new(),
            outputs,
            frame: *frame,
            state,
        })
    }

    /// Takes the logits `[classes, h, w]` of a tile, and returns the prediction once all tiles have
    /// come.
    pub fn put<'a>(
        &mut self,
        index: usize,
        logits: impl Into<CowArray<'a, f32, Ix3>>,
    ) -> Result<Option<Prediction>, SegmentError> {
        let logits = logits.into();
        let (classes, height, width) = logits.dim();
        let fits = match self.tile_logits {
            Some(expected) => [height, width] == expected,
            None => height * width > 0,
        };
        if classes != self.classes || !fits {
            let [rows, columns] = self.tile_logits.unwrap_or_default();
            let expected = [1, self.classes, rows, columns];
            return Err(SegmentError::Shape { found: vec![1, classes, height, width], expected });
        }
        if index != self.next {
            self.early.insert(index, logits.into_owned());
            return Ok(None);
        }
        let mut prediction = self.add(logits)?;
        while let Some(logits) = self.early.remove(&self.next) {
            prediction = self.add(logits.into())?;
        }
        Ok(prediction)
    }

    fn add(&mut self, logits: CowArray<'_, f32, Ix3>) -> Result<Option<Prediction>, SegmentError> {
        self.next += 1;
        let logits = if logits.is_standard_layout() {
            logits
        } else {
            logits.as_standard_layout().into_owned().into()
        };
        let values = logits.as_slice().unwrap_or_default();
        match &mut self.state {
            MergeState::Rolling(rolling) => rolling.add(values)?,
            MergeState::Stitching(stitcher) => stitcher.add(values),
            MergeState::Single => {
                if !are_finite(values) {
                    return Err(SegmentError::NotFinite);
                }
                let (_, rows, width) = logits.dim();
                let planes = LogitPlanes { data: values, rows, width };
                let mut prediction = upsample::predict_planes(planes, &self.frame, self.outputs);
                self.state = MergeState::Finished;
                prediction.logits = self.outputs.logits.then(|| logits.into_owned());
                return Ok(Some(prediction));
            }
            MergeState::Finished => {}
        }
        if self.next < self.count {
            return Ok(None);
        }
        match std::mem::replace(&mut self.state, MergeState::Finished) {
            MergeState::Rolling(rolling) => Ok(Some(rolling.into_prediction())),
            MergeState::Stitching(stitcher) => {
                let map = stitcher.finish();
                if !map.is_finite() {
                    return Err(SegmentError::NotFinite);
                }
                Ok(Some(upsample::predict_owned(map, &self.frame, self.outputs)))
            }
            MergeState::Single | MergeState::Finished => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use protoseg_models::interface::Interface;
    use protoseg_models::random::Stream;

    use super::*;

    fn tiler(window: Option<Window>) -> Tiler {
        let grid = LogitGrid { stride: 4, encoder_stride: 16, align_corners: false };
        Tiler {
            kind: ModelKind::Logits,
            sizes: InputSizes::Any,
            painter: Painter::new(&Interface::default()),
            windows: window.map(|window| [window; 2]),
            grid,
            blend: Blend::Ramp,
            short_sides: ShortSides::Logits,
            classes: 3,
            scores: ScoreScale::default(),
            frames: vec![[4, 5]],
        }
    }

    const LABELS: Outputs = Outputs { confidence: false, margin: false, logits: false };
    const LOGITS: Outputs = Outputs { logits: true, ..LABELS };

    #[test]
    fn a_cost_counts_what_the_network_sees_and_what_is_held() {
        let windows = tiler(Some(Window { size: 48, stride: 32 }));
        // Of 25 rows of logits in 30 columns, 13 around a window, of 12 columns and those of a group
        // of pixels; and over the whole width the 7 rows by which the last windows overlap, and one.
        let cost = windows.cost([100, 117], LABELS).unwrap();
        let held = 13 * (12 + 8) + 8 * 30 + 2;
        assert_eq!(cost, TileCost { pixels: 12 * 48 * 48, bytes: 3 * held * 4 + 12 * 32 });
        assert_eq!(windows.cost([100, 117], LOGITS).unwrap().bytes, 3 * 25 * 30 * 4 + 12 * 32);
        assert_eq!(windows.cost([4, 5], LABELS).unwrap(), TileCost { pixels: 20, bytes: 0 });
        let labels = Tiler { kind: ModelKind::Labels, ..windows };
        let cost = labels.cost([100, 117], LABELS).unwrap();
        assert_eq!(cost, TileCost { pixels: 11_700, bytes: 0 });
        assert_eq!(tiler(None).cost([20, 50], LABELS).unwrap().pixels, 32 * 50);
        assert!(matches!(tiler(None).tiles([0, 5]), Err(SegmentError::Empty)));
        let margin = Outputs { margin: true, ..LABELS };
        let whole = |size, outputs| tiler(None).runs_whole(size, outputs);
        assert_eq!(
            [whole([4, 5], LABELS), whole([4, 5], margin), whole([5, 4], LABELS)],
            [true, false, false]
        );
        assert!(!whole([4, 5], LOGITS));
    }

    fn logits(grid: &TileGrid, height: usize, width: usize, index: usize) -> Array3<f32> {
        let stream = Stream::keyed(&[7, index as u64]);
        let draw =
            |place: usize| stream.below(place as u64, 1 << 20) as f32 / (1 << 16) as f32 - 8.0;
        let values = (0..grid.classes * height * width).map(draw).collect();
        Array3::from_shape_vec((grid.classes, height, width), values).unwrap()
    }

    #[test]
    fn the_order_in_which_tiles_come_changes_nothing() {
        let grid = tiler(Some(Window { size: 48, stride: 32 })).tiles([100, 117]).unwrap();
        assert_eq!((grid.count(), grid.tile_size()), (12, [48, 48]));
        let orders: [Vec<usize>; 3] = [
            (0..12).collect(),
            (0..12).rev().collect(),
            vec![5, 0, 1, 11, 2, 4, 3, 6, 10, 7, 9, 8],
        ];
        let mut predictions = Vec::new();
        for keep in [false, true] {
            let outputs = Outputs { confidence: true, margin: true, logits: keep };
            for order in &orders {
                let mut merger = TileMerger::new(&grid, outputs).unwrap();
                let mut prediction = None;
                for (place, &index) in order.iter().enumerate() {
                    assert!(prediction.is_none(), "before all tiles came");
                    prediction = merger.put(index, logits(&grid, 12, 12, index)).unwrap();
                    assert_eq!(prediction.is_some(), place == 11);
                }
                let mut prediction: Prediction = prediction.unwrap();
                let logits = prediction.logits.take().map(|logits| logits.dim());
                assert_eq!(logits, keep.then_some((3, 25, 30)));
                predictions.push(prediction);
            }
        }
        assert!(predictions.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(predictions[0].labels.dim(), (100, 117));
    }

    #[test]
    fn a_whole_image_is_one_tile_and_wrong_logits_are_refused() {
        let grid = tiler(None).tiles([20, 50]).unwrap();
        assert_eq!((grid.count(), grid.tile_size()), (1, [32, 50]));
        let mut merger = TileMerger::new(&grid, LOGITS).unwrap();
        let wrong = Array3::<f32>::zeros((2, 8, 13));
        assert!(matches!(merger.put(0, wrong.view()), Err(SegmentError::Shape { .. })));
        let expected = logits(&grid, 8, 13, 0);
        let prediction = merger.put(0, expected.view()).unwrap().unwrap();
        assert_eq!(prediction.labels.len(), 20 * 50);
        assert_eq!(prediction.logits, Some(expected));
        let mut lost = logits(&grid, 8, 13, 0);
        lost[[0, 0, 5]] = f32::NAN;
        let mut merger = TileMerger::new(&grid, LABELS).unwrap();
        assert!(matches!(merger.put(0, lost), Err(SegmentError::NotFinite)));
    }
}
