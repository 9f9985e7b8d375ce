//! Upsampling: logits to a label for every pixel, by bilinear interpolation and argmax in one pass,
//! without a tensor of logits at full resolution.

mod geometry;
mod reference;
mod scored;

use std::ops::Range;
use std::sync::Arc;

use ndarray::{Array2, Array3};
use protoseg_images::label_map::LabelMap;
use rayon::prelude::*;

use self::geometry::Interpolation;
pub use self::geometry::{LogitGeometry, Placement, ScoreScale};
pub use self::reference::{PixelDecision, logits_at, reference_decisions};
use crate::kernels::{
    self, BlendedRow, Corners, InstructionSet, LANES, LogitPlanes, PixelGroup, PixelRow, put,
};
use crate::stitch::LogitMap;

/// Outputs that are asked for beside labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outputs {
    /// Confidence in the label: [`Prediction::confidence`].
    pub confidence: bool,
    /// Margin of the label over the next: [`Prediction::margin`].
    pub margin: bool,
    /// Logits before upsampling: [`Prediction::logits`].
    pub logits: bool,
}

/// Prediction of an image of `[height, width]` pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Train ids `[height, width]`: the class with the highest logit; of equal ones, the first.
    pub labels: Array2<u8>,
    /// `[height, width]`, if asked for: the largest softmax probability c as `floor(255 c + 0.5)`;
    /// of networks that give probabilities, that of the label. Files that give labels give none.
    pub confidence: Option<Array2<u8>>,
    /// `[height, width]`, if asked for: the highest logit less the second highest, m, as `min(255,
    /// floor(16 m + 0.5))`. Files that give labels give none.
    ///
    /// A difference of logits is the logarithm of how many times likelier one class is than the
    /// other. In steps of 1/16 neighboring bytes differ by 6 % of that ratio, and the last byte
    /// stands for eight million to one and more. Confidence cannot tell such pixels apart: it is at
    /// its last byte from five hundred to one on.
    pub margin: Option<Array2<u8>>,
    /// `[classes, h, w]`, if asked for: logits before upsampling, over the padded image. Files that
    /// give labels give none.
    pub logits: Option<Array3<f32>>,
}

impl Prediction {
    /// A prediction of labels alone.
    pub fn from_labels(labels: Array2<u8>) -> Self {
        Self { labels, confidence: None, margin: None, logits: None }
    }

    /// Allocates the planes of a frame.
    pub(crate) fn blank(frame: &LogitGeometry, outputs: Outputs) -> Self {
        let plane = || Array2::zeros((frame.height, frame.width));
        Self {
            labels: plane(),
            confidence: outputs.confidence.then(plane),
            margin: outputs.margin.then(plane),
            logits: None,
        }
    }

    /// Counts the pixels of each of the first `classes` labels.
    pub fn pixels_by_class(&self, classes: usize) -> Vec<u64> {
        pixels_by_class(self.labels.iter(), classes)
    }
}

/// Counts the labels of each of the first `classes` classes.
pub fn pixels_by_class<'a>(labels: impl IntoIterator<Item = &'a u8>, classes: usize) -> Vec<u64> {
    let mut pixels = vec![0; classes];
    for &label in labels {
        if let Some(count) = pixels.get_mut(usize::from(label)) {
            *count += 1;
        }
    }
    pixels
}

impl From<Prediction> for LabelMap {
    fn from(prediction: Prediction) -> Self {
        let (height, width) = prediction.labels.dim();
        Self { height, width, labels: into_vec(prediction.labels) }
    }
}

/// Returns the values of a plane in row-major order, without copying where it is stored so.
pub fn into_vec(plane: Array2<u8>) -> Vec<u8> {
    let plane =
        if plane.is_standard_layout() { plane } else { plane.as_standard_layout().into_owned() };
    match plane.into_raw_vec_and_offset() {
        (values, None | Some(0)) => values,
        (values, Some(offset)) => values[offset..].to_vec(),
    }
}

/// Predicts every pixel of an image. Labels do not depend on the other outputs.
///
/// ```
/// use protoseg_infer::stitch::LogitMap;
/// use protoseg_infer::upsample::{LogitGeometry, Outputs, predict};
///
/// let logits = LogitMap { classes: 2, height: 1, width: 2, data: vec![0.0, 2.0, 1.0, 1.0] };
/// let frame = LogitGeometry::new([1, 8], [1, 8], false);
/// let prediction = predict(&logits, &frame, Outputs { margin: true, ..Outputs::default() });
/// assert_eq!(prediction.labels, ndarray::arr2(&[[1, 1, 1, 1, 0, 0, 0, 0]]));
/// assert_eq!(prediction.margin, Some(ndarray::arr2(&[[16, 16, 12, 4, 4, 12, 16, 16]])));
/// ```
pub fn predict(logits: &LogitMap, frame: &LogitGeometry, outputs: Outputs) -> Prediction {
    predict_planes(logits.planes(), frame, outputs)
}

/// The same without vector instructions: the same bytes, slower.
pub fn predict_scalar(logits: &LogitMap, frame: &LogitGeometry, outputs: Outputs) -> Prediction {
    predict_with(InstructionSet::Scalar, logits.planes(), frame, outputs)
}

/// The same of logits that are moved into the prediction if they are asked for.
pub(crate) fn predict_owned(
    logits: LogitMap,
    frame: &LogitGeometry,
    outputs: Outputs,
) -> Prediction {
    let mut prediction = predict(&logits, frame, outputs);
    if outputs.logits {
        let shape = (logits.classes, logits.height, logits.width);
        prediction.logits = Array3::from_shape_vec(shape, logits.data).ok();
    }
    prediction
}

/// The same of borrowed logits.
pub(crate) fn predict_planes(
    logits: LogitPlanes<'_>,
    frame: &LogitGeometry,
    outputs: Outputs,
) -> Prediction {
    predict_with(InstructionSet::best(), logits, frame, outputs)
}

fn predict_with(
    set: InstructionSet,
    logits: LogitPlanes<'_>,
    frame: &LogitGeometry,
    outputs: Outputs,
) -> Prediction {
    let mut prediction = Prediction::blank(frame, outputs);
    let grid = [logits.rows, logits.width];
    let plane = grid[0].checked_mul(grid[1]).filter(|&plane| plane > 0);
    let fits = plane.is_some_and(|plane| logits.data.len().is_multiple_of(plane));
    if !prediction.labels.is_empty() && !logits.data.is_empty() && fits {
        let upsampler = Upsampler::with(set, grid, frame);
        let pixels = Pixels { rows: 0..frame.height, first: 0 };
        upsampler.predict(logits, 0, &pixels, outputs, &mut prediction);
    }
    prediction
}

/// Predicts the train ids `[height, width]` alone.
pub fn labels(logits: &LogitMap, frame: &LogitGeometry) -> Vec<u8> {
    into_vec(predict(logits, frame, Outputs::default()).labels)
}

/// Most rows of pixels per task.
const MAX_ROWS: usize = 16;

/// Predicts the pixels of frames of one size.
#[derive(Debug)]
pub(crate) struct Upsampler {
    rows: Arc<[Interpolation]>,
    groups: Vec<PixelGroup>,
    width: usize,
    columns: usize,
    set: InstructionSet,
    scores: ScoreScale,
    /// Columns of pixels, where confidence and margin need them.
    places: Vec<Interpolation>,
}

/// Columns of pixels that are predicted by themselves.
#[derive(Debug)]
pub(crate) struct Strip {
    /// Of these columns alone.
    pub(crate) upsampler: Upsampler,
    /// Columns of the frame.
    pub(crate) pixels: Range<usize>,
    /// Column of the frame that is the first of the logits to give.
    pub(crate) first: usize,
}

/// Rows of pixels that are predicted.
#[derive(Debug, Clone)]
pub(crate) struct Pixels {
    /// Rows of the frame.
    pub(crate) rows: Range<usize>,
    /// Row of the frame that is the first of the planes to fill.
    pub(crate) first: usize,
}

impl Pixels {
    /// Bytes of a plane of some width.
    fn bytes(&self, width: usize) -> Range<usize> {
        (self.rows.start - self.first) * width..(self.rows.end - self.first) * width
    }
}

/// Rows of pixels between the same two rows of logits, and their output planes.
struct Band<'a> {
    rows: &'a [Interpolation],
    labels: &'a mut [u8],
    confidence: Option<&'a mut [u8]>,
    margin: Option<&'a mut [u8]>,
}

/// Scratch space of a thread.
struct Workspace {
    upper: (Option<usize>, Corners),
    lower: (Option<usize>, Corners),
    /// The class of each group that all its corners agree on.
    agreed: Vec<Option<u8>>,
    /// Runs of neighboring groups whose pixels must be computed.
    runs: Vec<Range<usize>>,
    blended: BlendedRow,
    logits: Vec<[f32; LANES]>,
}

impl Upsampler {
    /// For logits `[height, width]`, neither zero, over a frame.
    pub(crate) fn new(grid: [usize; 2], frame: &LogitGeometry) -> Self {
        Self::with(InstructionSet::best(), grid, frame)
    }

    fn with(set: InstructionSet, grid: [usize; 2], frame: &LogitGeometry) -> Self {
        let columns = frame.columns(grid[1]);
        let groups = columns.chunks(LANES).map(group).collect();
        let scores = frame.scores;
        Self {
            rows: frame.rows(grid[0]).into(),
            groups,
            width: frame.width,
            columns: grid[1],
            set,
            scores,
            places: if scores.is_softmax() { Vec::new() } else { columns },
        }
    }

    /// Number of rows of pixels that depend on the first `logits` rows of logits alone.
    pub(crate) fn ready(&self, logits: usize) -> usize {
        self.rows.partition_point(|row| row.second < logits)
    }

    /// Splits the columns of pixels into strips: one for each range of columns of logits, which
    /// follow each other, with the pixels that need no column behind it. Groups of pixels stay
    /// whole, so that bits are the same.
    pub(crate) fn strips(&self, columns: impl Iterator<Item = Range<usize>>) -> Vec<Strip> {
        let mut done = 0;
        let strip = |Range { start: left, end }: Range<usize>| {
            let ready = self.groups.partition_point(|group| group.last < end);
            let next = self.groups.get(done);
            let first = next.map_or(left, |group| group.base.min(left));
            let groups = &self.groups[done..ready];
            let [start, stop] = [done, ready].map(|group| self.width.min(group * LANES));
            let rebased = groups.iter().map(|group| PixelGroup {
                base: group.base - first,
                last: group.last - first,
                ..group.clone()
            });
            let places = self.places.get(start..stop).unwrap_or_default().iter();
            let upsampler = Self {
                rows: Arc::clone(&self.rows),
                groups: rebased.collect(),
                width: stop - start,
                columns: end - first,
                set: self.set,
                scores: self.scores,
                places: places
                    .map(|place| Interpolation {
                        first: place.first - first,
                        second: place.second - first,
                        ..*place
                    })
                    .collect(),
            };
            done = ready;
            Strip { upsampler, pixels: start..stop, first }
        };
        columns.map(strip).collect()
    }

    /// Predicts some rows of pixels, from rows of logits of which the first is the frame's row
    /// `top`.
    pub(crate) fn predict(
        &self,
        planes: LogitPlanes<'_>,
        top: usize,
        pixels: &Pixels,
        outputs: Outputs,
        prediction: &mut Prediction,
    ) {
        let classes = planes.data.len() / (planes.rows * planes.width);
        let softmax = self.scores.is_softmax();
        let labels_only = Outputs { confidence: false, margin: false, ..outputs };
        let fast = if softmax { outputs } else { labels_only };
        self.bands(pixels, fast, prediction).into_par_iter().for_each_init(
            || Workspace::new(classes, self.columns, self.groups.len(), fast),
            |workspace, band| self.fill(planes, top, band, workspace),
        );
        if !softmax && (outputs.confidence || outputs.margin) {
            self.score(planes, top, pixels, prediction);
        }
    }

    /// Rows of pixels with the planes that the kernels are to fill.
    fn bands<'a>(
        &'a self,
        pixels: &Pixels,
        outputs: Outputs,
        prediction: &'a mut Prediction,
    ) -> Vec<Band<'a>> {
        let bytes = pixels.bytes(self.width);
        // Planes are in standard layout, as `Prediction::blank` makes them.
        let slice = |plane: &'a mut Array2<u8>| {
            let plane = plane.as_slice_mut().unwrap_or_default();
            &mut plane[bytes.clone()]
        };
        let mut labels = slice(&mut prediction.labels);
        let confidence = prediction.confidence.as_mut().filter(|_| outputs.confidence);
        let mut confidence = confidence.map(slice);
        let mut margin = prediction.margin.as_mut().filter(|_| outputs.margin).map(slice);
        let mut bands = Vec::new();
        for between in self.rows[pixels.rows.clone()].chunk_by(|row, next| row.first == next.first)
        {
            for rows in between.chunks(MAX_ROWS) {
                let mut take =
                    |plane: &mut &'a mut [u8]| plane.split_off_mut(..rows.len() * self.width);
                let Some(labels) = take(&mut labels) else { continue };
                let (confidence, margin) =
                    (confidence.as_mut().and_then(&mut take), margin.as_mut().and_then(&mut take));
                bands.push(Band { rows, labels, confidence, margin });
            }
        }
        bands
    }

    fn fill(&self, planes: LogitPlanes<'_>, top: usize, band: Band<'_>, workspace: &mut Workspace) {
        let Band { rows, labels, mut confidence, mut margin } = band;
        let Some(Interpolation { first, second, .. }) = rows.first() else { return };
        let between = [first - top, second - top];
        workspace.predict_corners(self.set, planes, between);
        self.sort_groups(confidence.is_some() || margin.is_some(), workspace);
        for (index, row) in rows.iter().enumerate() {
            let bytes = index * self.width..(index + 1) * self.width;
            let mut pixels = PixelRow {
                labels: &mut labels[bytes.clone()],
                confidence: confidence.as_mut().map(|plane| &mut plane[bytes.clone()]),
                margin: margin.as_mut().map(|plane| &mut plane[bytes]),
            };
            // Pixels that the corners settle have the highest byte.
            for plane in [&mut pixels.confidence, &mut pixels.margin].into_iter().flatten() {
                plane.fill(u8::MAX);
            }
            let between = kernels::RowBlend { rows: between, weight: row.weight as f32 };
            for run in &workspace.runs {
                let groups = &self.groups[run.clone()];
                let [Some(first), Some(last)] = [groups.first(), groups.last()] else { continue };
                self.set.blend_rows(
                    planes,
                    between,
                    first.base..last.last + 1,
                    &mut workspace.blended,
                );
                self.set.fill_pixels(
                    &workspace.blended,
                    &self.groups,
                    run.clone(),
                    &mut workspace.logits,
                    &mut pixels,
                );
            }
            for (index, label) in workspace.agreed.iter().enumerate() {
                if let Some(label) = label {
                    put(pixels.labels, index, [*label; LANES]);
                }
            }
        }
    }

    /// Sorts the groups into those that the corners settle and runs that must be computed.
    fn sort_groups(&self, more: bool, workspace: &mut Workspace) {
        let Workspace { upper: (_, upper), lower: (_, lower), agreed, runs, .. } = workspace;
        runs.clear();
        for (index, (group, agreed)) in self.groups.iter().zip(agreed).enumerate() {
            let columns = group.base..group.last + 1;
            let label = upper.labels[group.base];
            let same = |corners: &Corners| {
                corners.labels[columns.clone()].iter().all(|other| *other == label)
            };
            let sure = |corners: &Corners| corners.sure[columns.clone()].iter().all(|sure| *sure);
            *agreed = (same(upper) && same(lower)).then_some(label);
            if agreed.is_some() && !(more && !(sure(upper) && sure(lower))) {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.end == index => run.end += 1,
                _ => runs.push(index..index + 1),
            }
        }
    }
}

/// A group of pixels as the kernels take it; where there are fewer, the last one is repeated.
fn group(columns: &[Interpolation]) -> PixelGroup {
    let (base, last) = (columns[0].first, columns[columns.len() - 1].second);
    let column = |lane: usize| columns[lane.min(columns.len() - 1)];
    PixelGroup {
        base,
        last,
        left: std::array::from_fn(|lane| (column(lane).first - base) as u32),
        weights: std::array::from_fn(|lane| column(lane).weight as f32),
    }
}

impl Workspace {
    fn new(classes: usize, columns: usize, groups: usize, outputs: Outputs) -> Self {
        let corners = || (None, Corners::new(columns, outputs.confidence, outputs.margin));
        Self {
            upper: corners(),
            lower: corners(),
            agreed: vec![None; groups],
            runs: Vec::new(),
            blended: BlendedRow::new(classes, columns),
            logits: Vec::new(),
        }
    }

    /// Predicts two rows of logits, unless they are those of last time: bands mostly come in order.
    fn predict_corners(
        &mut self,
        set: InstructionSet,
        planes: LogitPlanes<'_>,
        [upper, lower]: [usize; 2],
    ) {
        if self.lower.0 == Some(upper) {
            std::mem::swap(&mut self.upper, &mut self.lower);
        }
        for ((known, corners), row) in [(&mut self.upper, upper), (&mut self.lower, lower)] {
            if *known != Some(row) {
                set.corners(planes, row, corners);
                *known = Some(row);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ndarray::s;
    use protoseg_models::random::Stream;

    use super::*;

    pub(crate) fn random(classes: usize, height: usize, width: usize) -> LogitMap {
        let stream = Stream::keyed(&[3, height as u64, width as u64]);
        let draw =
            |index: usize| stream.below(index as u64, 1 << 20) as f32 / (1 << 16) as f32 - 8.0;
        LogitMap { classes, height, width, data: (0..classes * height * width).map(draw).collect() }
    }

    /// Source coordinate by the formulas of the ONNX standard for Resize.
    fn coordinate(pixel: usize, logits: usize, pixels: usize, align_corners: bool) -> f64 {
        let (pixel, logits, pixels) = (pixel as f64, logits as f64, pixels as f64);
        match align_corners {
            true if pixels == 1.0 => 0.0,
            true => pixel * (logits - 1.0) / (pixels - 1.0),
            false => (pixel + 0.5) / (pixels / logits) - 0.5,
        }
    }

    /// A logit at full resolution, as a sum over all logits weighted by triangles: no index
    /// arithmetic in common.
    fn naive(
        logits: &LogitMap,
        frame: &LogitGeometry,
        class: usize,
        row: usize,
        column: usize,
    ) -> f64 {
        let place = |pixel, logits: usize, pixels| {
            coordinate(pixel, logits, pixels, frame.align_corners).max(0.0).min(logits as f64 - 1.0)
        };
        let y = place(row, logits.height, frame.padded[0]);
        let x = place(column, logits.width, frame.padded[1]);
        let triangle = |distance: f64| (1.0 - distance.abs()).max(0.0);
        let mut score = 0.0;
        for i in 0..logits.height {
            for j in 0..logits.width {
                let value = f64::from(logits.data[(class * logits.height + i) * logits.width + j]);
                score += value * triangle(y - i as f64) * triangle(x - j as f64);
            }
        }
        score
    }

    #[test]
    fn labels_are_those_of_full_upsampling_but_for_ties() {
        let mut ties = 0;
        for align_corners in [false, true] {
            for (grid, padded, size) in [
                ([5, 7], [20, 28], [20, 28]),
                ([9, 6], [33, 21], [31, 20]),
                ([1, 4], [1, 16], [1, 13]),
                ([8, 8], [32, 32], [5, 32]),
                ([3, 2], [2, 1], [2, 1]),
            ] {
                let logits = random(4, grid[0], grid[1]);
                let frame = LogitGeometry::new([size[0], size[1]], padded, align_corners);
                let largest =
                    logits.data.iter().fold(0.0_f32, |largest, score| largest.max(score.abs()));
                for (index, &label) in labels(&logits, &frame).iter().enumerate() {
                    let (row, column) = (index / frame.width, index % frame.width);
                    let scores: Vec<f64> =
                        (0..4).map(|class| naive(&logits, &frame, class, row, column)).collect();
                    for (score, other) in scores.iter().zip(logits_at(&logits, &frame, row, column))
                    {
                        assert!(
                            (score - other).abs() < 1e-9,
                            "{frame:?} {row} {column}: {score} {other}"
                        );
                    }
                    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let gap = best - scores[usize::from(label)];
                    assert!(
                        gap < 1e-5 * f64::from(largest),
                        "{frame:?} {row} {column}: {label} of {scores:?}"
                    );
                    ties += usize::from(gap > 0.0);
                }
            }
        }
        assert!(ties <= 1, "{ties} pixels got the second best class");
    }

    #[test]
    fn equal_logits_give_the_first_class_and_none_give_none() {
        let logits = LogitMap { classes: 3, height: 1, width: 1, data: vec![1.0, 2.0, 2.0] };
        let frame = LogitGeometry::new([2, 3], [4, 4], false);
        assert_eq!(labels(&logits, &frame), [1; 6]);
        assert!(labels(&logits, &LogitGeometry { height: 0, ..frame }).is_empty());
    }

    /// Logits as networks give them: smooth, so that most corners agree and many are sure.
    fn smooth(classes: usize, height: usize, width: usize) -> LogitMap {
        let logit = |index: usize| {
            let (class, row, column) =
                (index / (height * width), index / width % height, index % width);
            let wave = (row as f32 * 0.11 + class as f32).sin()
                + (column as f32 * 0.07 * (class + 1) as f32).cos();
            wave * wave * wave * 3.0
        };
        LogitMap {
            classes,
            height,
            width,
            data: (0..classes * height * width).map(logit).collect(),
        }
    }

    const FRAMES: [([usize; 2], [usize; 2], [usize; 2]); 8] = [
        ([16, 33], [64, 132], [64, 132]),
        ([17, 33], [65, 129], [63, 121]),
        ([9, 40], [33, 77], [33, 77]),
        ([1, 4], [1, 16], [1, 13]),
        ([40, 3], [40, 3], [40, 3]),
        ([64, 90], [16, 22], [16, 21]),
        ([2, 2], [100, 90], [99, 90]),
        ([1, 1], [4, 4], [2, 3]),
    ];

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        for (grid, padded, [height, width]) in FRAMES {
            for logits in [
                random(19, grid[0], grid[1]),
                smooth(19, grid[0], grid[1]),
                random(1, grid[0], grid[1]),
            ] {
                for align_corners in [false, true] {
                    let frame = LogitGeometry::new([height, width], padded, align_corners);
                    for (confidence, margin) in
                        [(false, false), (true, false), (false, true), (true, true)]
                    {
                        let outputs = Outputs { confidence, margin, logits: false };
                        let [scalar, others @ ..] = &InstructionSet::all()[..] else {
                            panic!("no instruction set")
                        };
                        let expected = predict_with(*scalar, logits.planes(), &frame, outputs);
                        assert_eq!(expected.confidence.is_some(), confidence);
                        for set in others {
                            assert!(
                                predict_with(*set, logits.planes(), &frame, outputs) == expected,
                                "{set:?} {frame:?}"
                            );
                        }
                        let labels =
                            predict_with(*scalar, logits.planes(), &frame, Outputs::default())
                                .labels;
                        assert!(
                            labels == expected.labels,
                            "labels depend on {outputs:?}: {frame:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn rows_of_part_of_the_logits_are_those_of_all() {
        for (grid, padded, [height, width]) in FRAMES {
            let logits = smooth(5, grid[0], grid[1]);
            let frame = LogitGeometry::new([height, width], padded, false);
            let outputs = Outputs { confidence: true, margin: true, logits: false };
            let upsampler = Upsampler::new(grid, &frame);
            let expected = predict(&logits, &frame, outputs);
            let mut prediction = Prediction::blank(&frame, outputs);
            let mut done = 0;
            for rows in 1..=grid[0] {
                let (top, ready) = (rows.saturating_sub(3), upsampler.ready(rows));
                // Two rows and more are in the buffer; with less than two pixels per row of logits,
                // more.
                let top = top.min(upsampler.rows.get(done).map_or(top, |row| row.first));
                let plane = grid[0] * grid[1];
                let part = |class: usize| {
                    &logits.data[class * plane + top * grid[1]..class * plane + rows * grid[1]]
                };
                let data = (0..5).flat_map(|class| part(class).iter().copied()).collect();
                let held = LogitMap { classes: 5, height: rows - top, width: grid[1], data };
                let pixels = Pixels { rows: done..ready, first: 0 };
                upsampler.predict(held.planes(), top, &pixels, outputs, &mut prediction);
                let band = LogitGeometry { height: ready - done, ..frame };
                let mut rows = Prediction::blank(&band, outputs);
                let pixels = Pixels { rows: done..ready, first: done };
                upsampler.predict(held.planes(), top, &pixels, outputs, &mut rows);
                assert!(rows.labels == expected.labels.slice(s![done..ready, ..]), "{frame:?}");
                let scored = expected.margin.as_ref().map(|plane| plane.slice(s![done..ready, ..]));
                assert!(rows.margin.as_ref().map(|plane| plane.view()) == scored, "{frame:?}");
                done = ready;
            }
            assert_eq!(done, height);
            assert!(prediction == expected, "{frame:?}");
        }
    }
}
