//! Position of a logit map over an image, and the meaning of its values.

use protoseg_models::interface::ScoreKind;

/// Position of a logit map over an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitGeometry {
    /// Height of the image.
    pub height: usize,
    /// Width of the image.
    pub width: usize,
    /// `[height, width]` of the padded image that the logits span; the image is its top left part,
    /// unless it has a placement.
    pub padded: [usize; 2],
    /// True where corner logits lie on corner pixels (`align_corners` of ONNX Resize); otherwise
    /// edges coincide (`half_pixel`).
    pub align_corners: bool,
    /// Place of an image that was scaled before it was run.
    pub placement: Option<Placement>,
    /// Meaning of the logits.
    pub scores: ScoreScale,
}

/// Place of a scaled image on the canvas that the network sees, in pixels of the canvas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Height and width of the canvas.
    pub canvas: [usize; 2],
    /// First row and column of the image.
    pub start: [usize; 2],
    /// Height and width of the scaled image.
    pub size: [usize; 2],
    /// True where bars fill the rest of the canvas: logits whose centers lie on them are left out.
    /// Otherwise the image's edge is repeated there.
    pub has_bars: bool,
}

/// Meaning of scores: how confidence and margin follow from them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ScoreScale {
    /// Logits or probabilities.
    pub kind: ScoreKind,
    /// Added to the score of class 0 so that a threshold decides; taken off again for confidence.
    pub bias: f32,
}

impl ScoreScale {
    /// True where confidence is the softmax of the scores as they are.
    pub(crate) fn is_softmax(self) -> bool {
        let apart = matches!(self.kind, ScoreKind::Probabilities | ScoreKind::LogSigmoid);
        !apart && self.bias == 0.0
    }
}

/// A pixel between two logits of a row or column: `(1 - weight) * [first] + weight * [second]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interpolation {
    pub(super) first: usize,
    /// The next logit; at the end, the same.
    pub(super) second: usize,
    pub(super) weight: f64,
}

impl LogitGeometry {
    /// Logits over an image `[height, width]` that is the top left part of a padded one.
    pub const fn new([height, width]: [usize; 2], padded: [usize; 2], align_corners: bool) -> Self {
        let scores = ScoreScale { kind: ScoreKind::Logits, bias: 0.0 };
        Self { height, width, padded, align_corners, placement: None, scores }
    }

    /// Returns the position of each pixel along height (0) or width (1), in pixels of what the
    /// network saw, and the length of that.
    fn sources(&self, axis: usize) -> (impl Fn(usize) -> f64, usize) {
        let pixels = [self.height, self.width][axis];
        let (start, scale, canvas) = match self.placement {
            None => (0.0, 1.0, self.padded[axis]),
            Some(Placement { canvas, start, size, .. }) => {
                (start[axis] as f64, size[axis] as f64 / pixels.max(1) as f64, canvas[axis])
            }
        };
        let placed = self.placement.is_some();
        let source = move |pixel: usize| {
            if placed { start + (pixel as f64 + 0.5) * scale - 0.5 } else { pixel as f64 }
        };
        (source, canvas)
    }

    /// The pixels along height (0) or width (1) among `logits` logits.
    fn positions(&self, axis: usize, logits: usize) -> Vec<Interpolation> {
        let (source, canvas) = self.sources(axis);
        let among_logits = |pixel: f64| {
            if self.align_corners {
                pixel * (logits - 1) as f64 / canvas.saturating_sub(1).max(1) as f64
            } else {
                (pixel + 0.5) * logits as f64 / canvas as f64 - 0.5
            }
        };
        let [least, most] = self.own(axis, logits, among_logits);
        let position = |pixel: usize| {
            let position = among_logits(source(pixel)).clamp(least as f64, most as f64);
            let first = position as usize;
            let weight = position - first as f64;
            Interpolation { first, second: (first + 1).min(most), weight }
        };
        (0..[self.height, self.width][axis]).map(position).collect()
    }

    /// Returns the first and the last of `places` logits or labels along an axis whose centers lie on
    /// the image and not on bars, by the position of a pixel of the canvas among them; the nearest
    /// one where the image is thinner than the distance of two.
    fn own(&self, axis: usize, places: usize, among_places: impl Fn(f64) -> f64) -> [usize; 2] {
        let last = places.saturating_sub(1);
        let Some(Placement { start, size, has_bars: true, .. }) = self.placement else {
            return [0, last];
        };
        let edge = |pixels: usize| among_places(pixels as f64 - 0.5);
        let (low, high) = (edge(start[axis]), edge(start[axis] + size[axis]));
        let (first, end) = (low.max(0.0).ceil() as usize, high.max(0.0).floor() as usize);
        let nearest = (low.midpoint(high).max(0.0).round() as usize).min(last);
        if first <= end.min(last) { [first, end.min(last)] } else { [nearest, nearest] }
    }

    /// Every row of pixels among `logits` rows of logits, of which there is at least one.
    pub(super) fn rows(&self, logits: usize) -> Vec<Interpolation> {
        self.positions(0, logits)
    }

    /// Every column of pixels among `logits` columns of logits, of which there is at least one.
    pub(super) fn columns(&self, logits: usize) -> Vec<Interpolation> {
        self.positions(1, logits)
    }

    /// Returns the nearest of `places` rows (axis 0) or columns (axis 1) of labels for each pixel.
    pub(crate) fn nearest(&self, axis: usize, places: usize) -> Vec<usize> {
        let (source, canvas) = self.sources(axis);
        let among_places = |pixel: f64| (pixel + 0.5) * places as f64 / canvas.max(1) as f64;
        let [least, most] = self.own(axis, places, |pixel| among_places(pixel) - 0.5);
        let place =
            |pixel: usize| (among_places(source(pixel)).max(0.0) as usize).clamp(least, most);
        (0..[self.height, self.width][axis]).map(place).collect()
    }

    /// Returns the nearest of the labels `[height, width]` for each pixel; None where there are
    /// fewer.
    pub(crate) fn spread_labels(
        &self,
        labels: &[u8],
        [height, width]: [usize; 2],
    ) -> Option<Vec<u8>> {
        if height.checked_mul(width) != Some(labels.len()) || labels.is_empty() {
            return None;
        }
        let columns = self.nearest(1, width);
        let rows = self.nearest(0, height).into_iter().map(|row| &labels[row * width..][..width]);
        Some(rows.flat_map(|row| columns.iter().map(|&column| row[column])).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretched_image_has_the_logits_from_edge_to_edge() {
        let placement = Placement { canvas: [8, 8], start: [0, 0], size: [8, 8], has_bars: false };
        let stretched = LogitGeometry {
            placement: Some(placement),
            ..LogitGeometry::new([6, 20], [8, 8], false)
        };
        let plain = LogitGeometry::new([6, 20], [6, 20], false);
        for (axis, logits) in [(0, 4), (1, 4), (1, 9)] {
            let pairs =
                stretched.positions(axis, logits).into_iter().zip(plain.positions(axis, logits));
            for (found, expected) in pairs {
                let place = |one: Interpolation| one.first as f64 + one.weight;
                assert!((place(found) - place(expected)).abs() < 1e-9);
            }
        }
        assert_eq!(stretched.nearest(0, 3), [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn bars_around_an_image_are_left_out() {
        // 4x8 pixels in the middle of 16x16: scaled by two, with four rows of bars on each side.
        let placement =
            Placement { canvas: [16, 16], start: [4, 0], size: [8, 16], has_bars: true };
        let frame = LogitGeometry {
            placement: Some(placement),
            ..LogitGeometry::new([4, 8], [16, 16], false)
        };
        assert_eq!(frame.nearest(0, 16), [5, 7, 9, 11]);
        let rows: Vec<f64> =
            frame.rows(16).into_iter().map(|row| row.first as f64 + row.weight).collect();
        assert_eq!(rows, [4.5, 6.5, 8.5, 10.5]);
        let first = frame.columns(8)[0];
        assert_eq!((first.first, first.second, first.weight), (0, 1, 0.0));
    }

    /// Rows or columns of an image in a letterbox, by the definition: the logits whose centers lie on
    /// the image are cut out, and the position of each pixel is looked for among them.
    fn cut_out(frame: &LogitGeometry, axis: usize, logits: usize) -> Vec<f64> {
        let Placement { canvas, start, size, .. } = frame.placement.unwrap();
        let (canvas, start) = (canvas[axis] as f64, start[axis] as f64);
        let (size, pixels) = (size[axis] as f64, [frame.height, frame.width][axis]);
        // In pixels of the canvas, whose first one is from 0 to 1.
        let center = |logit: usize| match frame.align_corners {
            true if logits == 1 => 0.5,
            true => logit as f64 * (canvas - 1.0) / (logits - 1) as f64 + 0.5,
            false => (logit as f64 + 0.5) * canvas / logits as f64,
        };
        let inside = |logit: &usize| center(*logit) >= start && center(*logit) <= start + size;
        let mut kept: Vec<usize> = (0..logits).filter(inside).collect();
        if kept.is_empty() {
            let distance = |logit: &usize| (center(*logit) - start - size / 2.0).abs();
            kept = (0..logits)
                .rev()
                .min_by(|a, b| distance(a).total_cmp(&distance(b)))
                .into_iter()
                .collect();
        }
        let place = |pixel: usize| {
            let at = start + (pixel as f64 + 0.5) * size / pixels as f64;
            let behind = kept.iter().position(|&logit| center(logit) >= at);
            match behind {
                Some(0) => kept[0] as f64,
                Some(index) => {
                    let (before, next) = (center(kept[index - 1]), center(kept[index]));
                    kept[index - 1] as f64 + (at - before) / (next - before)
                }
                None => kept[kept.len() - 1] as f64,
            }
        };
        (0..pixels).map(place).collect()
    }

    fn letterbox(pixels: [usize; 2], canvas: [usize; 2], corner: bool) -> Placement {
        let scales = [0, 1].map(|axis| canvas[axis] as f64 / pixels[axis] as f64);
        let scale = scales[0].min(scales[1]);
        let size = pixels.map(|side| ((side as f64 * scale).round() as usize).max(1));
        let margin = |axis: usize| (canvas[axis] - size[axis]) / 2;
        let start = if corner { [0, 0] } else { [margin(0), margin(1)] };
        Placement { canvas, start, size, has_bars: true }
    }

    #[test]
    fn no_logit_of_a_bar_reaches_the_image() {
        for (canvas, pixels) in [
            ([16, 16], [4, 8]),
            ([16, 16], [31, 8]),
            ([32, 48], [100, 33]),
            ([64, 64], [1, 900]),
            ([64, 64], [900, 1]),
            ([33, 65], [50, 61]),
            ([40, 40], [40, 39]),
        ] {
            for corner in [false, true] {
                let placement = letterbox(pixels, canvas, corner);
                for align_corners in [false, true] {
                    let frame = LogitGeometry {
                        placement: Some(placement),
                        ..LogitGeometry::new(pixels, canvas, align_corners)
                    };
                    for (axis, stride) in [(0, 1), (0, 2), (0, 4), (0, 8), (1, 1), (1, 4), (1, 8)] {
                        let logits = canvas[axis].div_ceil(stride);
                        let found = frame.positions(axis, logits);
                        let expected = cut_out(&frame, axis, logits);
                        assert_eq!(found.len(), expected.len());
                        for (place, expected) in found.iter().zip(&expected) {
                            let at = place.first as f64
                                + place.weight * (place.second - place.first) as f64;
                            let said = format!("{placement:?} {align_corners} {axis} {stride}");
                            assert!((at - expected).abs() < 1e-9, "{said}: {at} {expected}");
                        }
                        let used = |one: &Interpolation| [one.first, one.second];
                        let least = expected.iter().copied().fold(f64::MAX, f64::min) as usize;
                        let most = expected.iter().copied().fold(0.0, f64::max).ceil() as usize;
                        let mut all = found.iter().filter(|one| one.weight > 0.0).flat_map(used);
                        assert!(all.all(|logit| (least..=most).contains(&logit)));
                        if !align_corners {
                            let nearest = frame.nearest(axis, logits);
                            assert!(nearest.iter().all(|place| (least..=most).contains(place)));
                        }
                    }
                }
            }
        }
    }
}
