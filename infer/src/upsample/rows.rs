//! Frames row by row: which cells need a closer look, and which pixels the kernels fill.

use std::ops::Range;

use ndarray::Array2;
use rayon::prelude::*;

use super::place::Interpolation;
use super::{LogitGeometry, Outputs, Prediction};
use crate::kernels::{
    self, BlendedRow, Corners, InstructionSet, LANES, LogitPlanes, PixelGroup, PixelRow, put,
};

/// Most rows of pixels that are filled as one piece of work.
const MOST_ROWS: usize = 16;

/// Decides the pixels of frames of one size.
#[derive(Debug)]
pub(crate) struct Upsampler {
    rows: Vec<Interpolation>,
    groups: Vec<PixelGroup>,
    width: usize,
    columns: usize,
    form: InstructionSet,
}

/// Rows of pixels between the same two rows of logits, and where their decisions go.
struct Band<'a> {
    rows: &'a [Interpolation],
    labels: &'a mut [u8],
    confidence: Option<&'a mut [u8]>,
    margin: Option<&'a mut [u8]>,
}

/// What a thread works with.
struct Workspace {
    upper: (Option<usize>, Corners),
    lower: (Option<usize>, Corners),
    /// Of each group, the class that all corners agree on.
    agreed: Vec<Option<u8>>,
    /// Neighbouring groups that need a closer look.
    runs: Vec<Range<usize>>,
    mixed: BlendedRow,
    scores: Vec<[f32; LANES]>,
}

impl Upsampler {
    /// For logits of a height and width that are not zero, under a frame.
    pub(crate) fn new(grid: [usize; 2], frame: &LogitGeometry) -> Self {
        Self::with(InstructionSet::best(), grid, frame)
    }

    /// The same with instructions of a form.
    pub(super) fn with(form: InstructionSet, grid: [usize; 2], frame: &LogitGeometry) -> Self {
        let columns = frame.columns(grid[1]);
        let groups = columns.chunks(LANES).map(group).collect();
        Self { rows: frame.rows(grid[0]), groups, width: frame.width, columns: grid[1], form }
    }

    /// How many rows of pixels need nothing but the first `logits` rows of scores.
    pub(crate) fn ready(&self, logits: usize) -> usize {
        self.rows.partition_point(|row| row.second < logits)
    }

    /// Decides some rows of pixels, from rows of logits of which the first is the frame's row `top`.
    pub(crate) fn predict(
        &self,
        planes: LogitPlanes<'_>,
        top: usize,
        pixels: Range<usize>,
        wanted: Outputs,
        decided: &mut Prediction,
    ) {
        let classes = planes.data.len() / (planes.rows * planes.width);
        self.bands(pixels, decided).into_par_iter().for_each_init(
            || Workspace::new(classes, self.columns, self.groups.len(), wanted),
            |workspace, band| self.fill(planes, top, band, workspace),
        );
    }

    fn bands<'a>(&'a self, pixels: Range<usize>, decided: &'a mut Prediction) -> Vec<Band<'a>> {
        let bytes = pixels.start * self.width..pixels.end * self.width;
        // Planes are in standard layout, as `Prediction::blank` makes them.
        let slice = |plane: &'a mut Array2<u8>| {
            let plane = plane.as_slice_mut().unwrap_or_default();
            &mut plane[bytes.clone()]
        };
        let mut labels = slice(&mut decided.labels);
        let mut confidence = decided.confidence.as_mut().map(slice);
        let mut margin = decided.margin.as_mut().map(slice);
        let mut bands = Vec::new();
        for between in self.rows[pixels].chunk_by(|row, next| row.first == next.first) {
            for rows in between.chunks(MOST_ROWS) {
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
        workspace.look(self.form, planes, between);
        self.judge(confidence.is_some() || margin.is_some(), workspace);
        for (index, row) in rows.iter().enumerate() {
            let bytes = index * self.width..(index + 1) * self.width;
            let mut pixels = PixelRow {
                labels: &mut labels[bytes.clone()],
                confidence: confidence.as_mut().map(|plane| &mut plane[bytes.clone()]),
                margin: margin.as_mut().map(|plane| &mut plane[bytes]),
            };
            // What corners settle is at its last byte.
            for plane in [&mut pixels.confidence, &mut pixels.margin].into_iter().flatten() {
                plane.fill(u8::MAX);
            }
            let between = kernels::RowBlend { rows: between, weight: row.weight as f32 };
            for run in &workspace.runs {
                let groups = &self.groups[run.clone()];
                let [Some(first), Some(last)] = [groups.first(), groups.last()] else { continue };
                self.form.blend_rows(
                    planes,
                    between,
                    first.base..last.last + 1,
                    &mut workspace.mixed,
                );
                self.form.fill_pixels(
                    &workspace.mixed,
                    &self.groups,
                    run.clone(),
                    &mut workspace.scores,
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

    /// Sorts the groups by what their corners say.
    fn judge(&self, more: bool, workspace: &mut Workspace) {
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

/// Pixels of a row as the kernels want them; where they are fewer than a group, the last one again and again.
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
    fn new(classes: usize, columns: usize, groups: usize, wanted: Outputs) -> Self {
        let corners = || (None, Corners::new(columns, wanted.confidence, wanted.margin));
        Self {
            upper: corners(),
            lower: corners(),
            agreed: vec![None; groups],
            runs: Vec::new(),
            mixed: BlendedRow::new(classes, columns),
            scores: Vec::new(),
        }
    }

    /// Decides two rows of logits, unless they are those of last time: bands mostly come in order.
    fn look(&mut self, form: InstructionSet, planes: LogitPlanes<'_>, [upper, lower]: [usize; 2]) {
        if self.lower.0 == Some(upper) {
            std::mem::swap(&mut self.upper, &mut self.lower);
        }
        for ((known, corners), row) in [(&mut self.upper, upper), (&mut self.lower, lower)] {
            if *known != Some(row) {
                form.corners(planes, row, corners);
                *known = Some(row);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::predict_with;
    use super::super::tests::random;
    use super::*;
    use crate::stitch::LogitMap;

    /// Scores as networks give them: smooth, so that most corners agree and many are sure.
    fn smooth(classes: usize, height: usize, width: usize) -> LogitMap {
        let score = |index: usize| {
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
            data: (0..classes * height * width).map(score).collect(),
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
    fn every_form_gives_the_same_bits() {
        for (grid, padded, [height, width]) in FRAMES {
            for logits in [
                random(19, grid[0], grid[1]),
                smooth(19, grid[0], grid[1]),
                random(1, grid[0], grid[1]),
            ] {
                for align_corners in [false, true] {
                    let frame = LogitGeometry { height, width, padded, align_corners };
                    for (confidence, margin) in
                        [(false, false), (true, false), (false, true), (true, true)]
                    {
                        let wanted = Outputs { confidence, margin, logits: false };
                        let [scalar, others @ ..] = &InstructionSet::all()[..] else {
                            panic!("no form")
                        };
                        let expected = predict_with(*scalar, logits.planes(), &frame, wanted);
                        assert_eq!(expected.confidence.is_some(), confidence);
                        for form in others {
                            assert!(
                                predict_with(*form, logits.planes(), &frame, wanted) == expected,
                                "{form:?} {frame:?}"
                            );
                        }
                        let labels =
                            predict_with(*scalar, logits.planes(), &frame, Outputs::default())
                                .labels;
                        assert!(
                            labels == expected.labels,
                            "labels depend on {wanted:?}: {frame:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn rows_of_a_part_of_the_logits_are_those_of_all() {
        for (grid, padded, [height, width]) in FRAMES {
            let logits = smooth(5, grid[0], grid[1]);
            let frame = LogitGeometry { height, width, padded, align_corners: false };
            let wanted = Outputs { confidence: true, margin: true, logits: false };
            let upsampler = Upsampler::new(grid, &frame);
            let expected = super::super::predict(&logits, &frame, wanted);
            let mut decided = Prediction::blank(&frame, wanted);
            let mut done = 0;
            for rows in 1..=grid[0] {
                let (top, ready) = (rows.saturating_sub(3), upsampler.ready(rows));
                // Two rows and more are held; with less than two pixels a row of logits, more.
                let top = top.min(upsampler.rows.get(done).map_or(top, |row| row.first));
                let plane = grid[0] * grid[1];
                let part = |class: usize| {
                    &logits.data[class * plane + top * grid[1]..class * plane + rows * grid[1]]
                };
                let data = (0..5).flat_map(|class| part(class).iter().copied()).collect();
                let held = LogitMap { classes: 5, height: rows - top, width: grid[1], data };
                upsampler.predict(held.planes(), top, done..ready, wanted, &mut decided);
                done = ready;
            }
            assert_eq!(done, height);
            assert!(decided == expected, "{frame:?}");
        }
    }
}
