//! How pictures are cut into pieces, and what that costs.

use std::sync::Arc;

use image::RgbImage;
use protoseg_models::variant::ModelKind;
use protoseg_models::window::{LogitGrid, Window, WindowPlan};

use super::whole::InputSizes;
use super::{SegmentError, Segmenter};
use crate::crop;
use crate::upsample::{LogitGeometry, Outputs};

/// How a model's pictures are cut; the same for all of its segmenters.
#[derive(Debug, Clone)]
pub struct Tiler {
    pub(super) kind: ModelKind,
    pub(super) sizes: InputSizes,
    pub(super) window: Option<Window>,
    pub(super) grid: LogitGrid,
    pub(super) classes: usize,
    /// Sizes that frame files take.
    pub(super) frames: Vec<[usize; 2]>,
}

impl Tiler {
    /// Whether pictures `[height, width]` are not cut but given to [`Segmenter::predict`] as they are: to a file that gives
    /// labels, or to a frame file.
    pub fn runs_whole(&self, size: [usize; 2], wanted: Outputs, scores: bool) -> bool {
        self.kind == ModelKind::Labels || (!scores && !wanted.margin && self.frames.contains(&size))
    }

    /// What pictures `[height, width]` cost, before anything is made for them; with `keep` all scores are held.
    pub fn cost(
        &self,
        [height, width]: [usize; 2],
        at_once: bool,
        keep: bool,
    ) -> Result<TileCost, SegmentError> {
        let product = |sides: &[usize]| {
            sides.iter().fold(1_u64, |product, &side| product.saturating_mul(side as u64))
        };
        if at_once || self.kind != ModelKind::Logits {
            return Ok(TileCost { pixels: product(&[height, width]), bytes: 0 });
        }
        let Some(window) = self.window else {
            let [height, width] = self.sizes.padded([height, width])?;
            let [rows, columns] = [height, width].map(|side| self.grid.logits(side));
            let bytes = product(&[self.classes, rows, columns, size_of::<f32>()]);
            return Ok(TileCost { pixels: product(&[height, width]), bytes });
        };
        let plan = WindowPlan::new(height, width, window, self.grid)?;
        let [rows, columns] = plan.logit_size();
        // As many rows as roll along, and where each window starts, in pixels and in scores.
        let rows = if keep { rows } else { rows.min(plan.window_logits() + 1) };
        let starts = product(&[plan.count(), 2, size_of::<[usize; 2]>()]);
        let bytes =
            product(&[self.classes, rows, columns, size_of::<f32>()]).saturating_add(starts);
        Ok(TileCost { pixels: product(&[plan.count(), window.size, window.size]), bytes })
    }

    /// The pieces of pictures `[height, width]`: windows, or the whole picture, padded to what the network takes.
    pub fn tiles(&self, size: [usize; 2]) -> Result<TileGrid, SegmentError> {
        if size.contains(&0) {
            return Err(SegmentError::Empty);
        }
        if self.kind != ModelKind::Logits {
            return Err(SegmentError::NoScores);
        }
        let plan = match self.window {
            Some(window) => Some(Arc::new(WindowPlan::new(size[0], size[1], window, self.grid)?)),
            None => None,
        };
        let (starts, piece) = match &plan {
            Some(plan) => (plan.starts().collect(), [plan.window.size; 2]),
            None => (vec![[0, 0]], self.sizes.padded(size)?),
        };
        let padded = plan.as_ref().map_or(piece, |plan| [plan.rows.padded, plan.columns.padded]);
        let frame = LogitGeometry {
            height: size[0],
            width: size[1],
            padded,
            align_corners: self.grid.align_corners,
        };
        Ok(TileGrid { starts, piece, plan, frame, classes: self.classes })
    }
}

/// What a picture costs beside its own memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileCost {
    /// Pixels that the network sees: of all pieces, where windows overlap and reach beyond the picture.
    pub pixels: u64,
    /// Bytes of scores, and of what is known of each piece, that are held at a time.
    pub bytes: u64,
}

/// The pieces of a picture.
#[derive(Debug, Clone)]
pub struct TileGrid {
    starts: Vec<[usize; 2]>,
    piece: [usize; 2],
    pub(super) plan: Option<Arc<WindowPlan>>,
    pub(super) frame: LogitGeometry,
    pub(super) classes: usize,
}

impl TileGrid {
    /// How many.
    pub fn count(&self) -> usize {
        self.starts.len()
    }

    /// Height and width of each, in pixels.
    pub fn tile_size(&self) -> [usize; 2] {
        self.piece
    }

    /// Appends the pixels of a piece, RGB `[height, width, 3]`, to a buffer. The picture must be of the size that was cut.
    pub fn append(&self, picture: &RgbImage, index: usize, pixels: &mut Vec<u8>) {
        crop::append_tile(picture, self.starts[index], self.piece, pixels);
    }
}

impl Segmenter {
    /// How pictures are cut for [`run_tiles`](Self::run_tiles).
    pub fn tiler(&self) -> Tiler {
        let (kind, sizes, window, grid) = (self.kind, self.sizes, self.window, self.model.grid);
        Tiler {
            kind,
            sizes,
            window,
            grid,
            classes: self.model.classes.count(),
            frames: self.frame_sizes(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::segmenter) fn tiler(window: Option<Window>) -> Tiler {
        let grid = LogitGrid { stride: 4, encoder_stride: 16, align_corners: false };
        Tiler {
            kind: ModelKind::Logits,
            sizes: InputSizes::Any,
            window,
            grid,
            classes: 3,
            frames: vec![[4, 5]],
        }
    }

    #[test]
    fn a_cost_counts_what_the_network_sees_and_what_is_held() {
        let windows = tiler(Some(Window { size: 48, stride: 32 }));
        // Of 25 rows of scores in 30 columns, 13 roll along.
        let cost = windows.cost([100, 117], false, false).unwrap();
        assert_eq!(cost, TileCost { pixels: 12 * 48 * 48, bytes: 3 * 13 * 30 * 4 + 12 * 32 });
        assert_eq!(windows.cost([100, 117], false, true).unwrap().bytes, 3 * 25 * 30 * 4 + 12 * 32);
        assert_eq!(
            windows.cost([100, 117], true, false).unwrap(),
            TileCost { pixels: 11_700, bytes: 0 }
        );
        assert_eq!(tiler(None).cost([20, 50], false, false).unwrap().pixels, 32 * 50);
        assert!(matches!(tiler(None).tiles([0, 5]), Err(SegmentError::Empty)));
        let at_once = |size, margin| {
            tiler(None).runs_whole(size, Outputs { margin, ..Outputs::default() }, false)
        };
        assert_eq!(
            [at_once([4, 5], false), at_once([4, 5], true), at_once([5, 4], false)],
            [true, false, false]
        );
    }
}
