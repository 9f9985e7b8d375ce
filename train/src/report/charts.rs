//! Charts of a run's log against steps, thinned so that the page of a long run stays small.

use protoseg_pages::{
    Axis, Block, Chart, ChartSize, HeatMap, Line, Mark, Scale, Swatch, is_plottable,
};

use super::log::{ClassLine, ParsedLog, StepLine, distinct};

/// Points of a line in a large chart.
const MAX_POINTS: usize = 240;
/// Lines up to this length show each of their points.
const MAX_DOTS: usize = 60;
/// Points of all lines of a section of small charts, roughly.
const MAX_SECTION_POINTS: usize = 12_000;
/// Cells of all heat maps, roughly.
const MAX_HEAT_CELLS: usize = 30_000;
const BANDS: &str = " Where the log has more lines than a chart has room for, the curve is their \
                     mean and the band spans their range; what lies outside the axis is cut off.";

type StepField = fn(&StepLine) -> Option<f64>;
/// Step and points assigned to each prototype, of one class.
type Assignments<'a> = Vec<(u64, Option<&'a [Option<f64>]>)>;
/// Name of a line, the factor to its unit, and its value.
pub(super) type ClassField = (&'static str, f64, fn(&ClassLine) -> Option<f64>);

pub(super) const PSEUDO_LABEL_FIELDS: [ClassField; 3] = [
    ("correct pseudo-labels", 100.0, |class| class.pseudo_accuracy),
    ("sampled points above the confidence gate", 100.0, |class| class.gate_share),
    ("share of all pseudo-labels", 100.0, |class| class.pseudo_share),
];
const COSINE_FIELDS: [ClassField; 2] = [
    ("to the class's own prototypes", 1.0, |class| class.own_cosine),
    ("to the nearest prototype of another class", 1.0, |class| class.other_cosine),
];

/// A line of at most `max_points` points: means of consecutive values, with their range as a band. Values that cannot be
/// plotted are gaps; a line without values is none.
fn line(
    name: &str,
    color: usize,
    values: &[(u64, Option<f64>)],
    max_points: usize,
) -> Option<Line> {
    let chunk_len = values.len().div_ceil(max_points.max(1)).max(1);
    let points: Vec<(f64, Option<[f64; 3]>)> = values.chunks(chunk_len).map(point).collect();
    if points.iter().all(|(_, value)| value.is_none()) {
        return None;
    }
    let column =
        |index: usize| points.iter().map(|(_, value)| value.map(|value| value[index])).collect();
    Some(Line {
        name: name.to_owned(),
        color,
        dashed: false,
        dots: chunk_len == 1 && points.len() <= MAX_DOTS,
        x: points.iter().map(|(step, _)| *step).collect(),
        y: column(0),
        band: (chunk_len > 1).then(|| [column(1), column(2)]),
    })
}

/// Mean step; mean, least and greatest value.
fn point(values: &[(u64, Option<f64>)]) -> (f64, Option<[f64; 3]>) {
    let steps: f64 = values.iter().map(|(step, _)| *step as f64).sum();
    let known: Vec<f64> =
        values.iter().filter_map(|(_, value)| *value).filter(is_plottable).collect();
    let mean = known.iter().sum::<f64>() / known.len() as f64;
    let least = known.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = known.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let step = (steps / values.len().max(1) as f64).round();
    (step, (!known.is_empty()).then_some([mean, least, greatest]))
}

/// Points of each of a section's `lines` lines.
fn points_per_line(lines: usize) -> usize {
    (MAX_SECTION_POINTS / lines.max(1)).clamp(20, 150)
}

/// None without lines.
fn chart(log: &ParsedLog, title: &str, unit: &str, y: Axis, lines: Vec<Line>) -> Option<Chart> {
    let x = Axis::counts("step", log.last_step() as f64);
    let marks: Vec<Mark> = lines.into_iter().map(Mark::Line).collect();
    let (title, unit) = (title.to_owned(), unit.to_owned());
    (!marks.is_empty()).then_some(Chart { title, unit, x, y, marks })
}

fn from_zero() -> Axis {
    Axis { scale: Scale::FromZero, ..Axis::default() }
}

/// One large chart per title, unit, factor and value of a [`StepLine`], as far as the log has values.
fn step_charts(
    log: &ParsedLog,
    y: &Axis,
    charts: &[(&str, &str, f64, StepField)],
) -> Option<Block> {
    let draw = |&(title, unit, factor, value): &(&str, &str, f64, StepField)| {
        let scaled = |line: &StepLine| (line.step, value(line).map(|value| factor * value));
        let values: Vec<_> = log.steps.iter().map(scaled).collect();
        let line = line(title, 0, &values, MAX_POINTS)?;
        chart(log, title, unit, y.clone(), vec![line])
    };
    let charts: Vec<Chart> = charts.iter().filter_map(draw).collect();
    (!charts.is_empty()).then_some(Block::Charts(ChartSize::Large, charts))
}

pub(super) fn losses(log: &ParsedLog) -> Vec<Block> {
    let charts = step_charts(
        log,
        &from_zero(),
        &[
            ("Loss", "weighted sum", 1.0, |line| line.loss),
            ("Labeled pixels", "loss", 1.0, |line| line.labeled),
            ("Auxiliary head", "loss", 1.0, |line| line.auxiliary),
            ("Unlabeled pixels", "loss", 1.0, |line| line.unlabeled),
            ("Prototypes, labeled points", "loss", 1.0, |line| line.prototype_labeled),
            ("Prototypes, unlabeled points", "loss", 1.0, |line| line.prototype_unlabeled),
            ("Learning rate", "of the encoder", 1.0, |line| line.learning_rate),
        ],
    );
    let bands = if log.steps.len() > MAX_POINTS { BANDS } else { "" };
    let note = format!(
        "The loss is the weighted sum that is minimized; its terms are shown before weighting.{bands}"
    );
    charts.map_or_else(Vec::new, |charts| vec![Block::Note(note), charts])
}

pub(super) fn unlabeled(log: &ParsedLog) -> Vec<Block> {
    let charts = step_charts(
        log,
        &Axis::percent(),
        &[
            ("Valid unlabeled pixels that enter the loss", "%", 100.0, |line| line.kept_share),
            ("Mean confidence of the teacher", "%", 100.0, |line| line.confidence),
        ],
    );
    charts.into_iter().collect()
}

pub(super) fn time(log: &ParsedLog) -> Vec<Block> {
    let charts = step_charts(
        log,
        &from_zero(),
        &[
            ("Time per step", "seconds", 1.0, |line| line.seconds_per_step),
            ("Waiting for batches", "% of the time", 100.0, |line| line.waited_share),
        ],
    );
    charts.into_iter().collect()
}

/// The colors of lines; none for a single line.
fn legend(names: &[&str]) -> Option<Block> {
    let entries = names.iter().enumerate();
    let entries = entries.map(|(index, name)| ((*name).to_owned(), Swatch::Line(index)));
    (names.len() > 1).then(|| Block::Legend(entries.collect()))
}

/// mIoU of every model on each data set.
pub(super) fn mean_iou(log: &ParsedLog) -> Vec<Block> {
    let models = log.models();
    let draw = |data: &&str| {
        let lines = models.iter().enumerate().filter_map(|(index, which)| {
            let scores = log.scores_of(which, data).into_iter();
            let values: Vec<_> =
                scores.map(|line| (line.step, line.metrics.scores.mean_iou)).collect();
            line(which, index, &values, MAX_POINTS)
        });
        chart(log, &format!("mIoU, {data}"), "%", Axis::default(), lines.collect())
    };
    let charts: Vec<Chart> = log.data().iter().filter_map(draw).collect();
    if charts.is_empty() {
        return Vec::new();
    }
    legend(&models).into_iter().chain([Block::Charts(ChartSize::Large, charts)]).collect()
}

/// IoU of each class, by data set.
pub(super) fn class_iou(log: &ParsedLog) -> Vec<Block> {
    let (data_sets, models) = (log.data(), log.models());
    let mut blocks = Vec::new();
    for data in &data_sets {
        let scores = log.scores.iter().filter(|line| line.metrics.data == *data);
        let classes = scores.flat_map(|line| &line.metrics.scores.classes);
        let names = distinct(classes.map(|class| class.name.as_str()));
        let max_points = points_per_line(names.len() * models.len() * data_sets.len());
        let draw = |name: &&str| {
            let lines = models.iter().enumerate().filter_map(|(index, which)| {
                let scores = log.scores_of(which, data).into_iter();
                let values: Vec<_> = scores.map(|line| (line.step, line.iou(name))).collect();
                line(which, index, &values, max_points)
            });
            chart(log, name, "%", Axis::percent(), lines.collect())
        };
        let charts: Vec<Chart> = names.iter().filter_map(draw).collect();
        if !charts.is_empty() {
            blocks.push(Block::Heading { text: (*data).to_owned(), stable: None });
            blocks.extend(legend(&models));
            blocks.push(Block::Charts(ChartSize::Small, charts));
        }
    }
    blocks
}

/// One small chart per class; nothing where no class has any of the values.
pub(super) fn class_charts(
    log: &ParsedLog,
    unit: &str,
    y: &Axis,
    fields: &[ClassField],
) -> Vec<Block> {
    let names = log.class_names();
    let max_points = points_per_line(names.len() * fields.len());
    let draw = |name: &&str| {
        let lines = fields.iter().enumerate().filter_map(|(index, (label, factor, value))| {
            let values = log.of_class(name, |class| value(class).map(|value| factor * value));
            line(label, index, &values, max_points)
        });
        chart(log, name, unit, y.clone(), lines.collect())
    };
    let charts: Vec<Chart> = names.iter().filter_map(draw).collect();
    if charts.is_empty() {
        return Vec::new();
    }
    let labels: Vec<&str> = fields.iter().map(|(label, ..)| *label).collect();
    legend(&labels).into_iter().chain([Block::Charts(ChartSize::Small, charts)]).collect()
}

pub(super) fn cosines(log: &ParsedLog) -> Vec<Block> {
    let mut blocks = class_charts(log, "cosine", &from_zero(), &COSINE_FIELDS);
    if !blocks.is_empty() {
        blocks.insert(0, Block::Note("Mean cosine of each class's sampled points.".to_owned()));
    }
    blocks
}

/// A heat map per class: one row per prototype, shaded by its share of the class's points.
pub(super) fn prototypes(log: &ParsedLog) -> Vec<Block> {
    let assignments: Vec<(&str, Assignments)> = log
        .class_names()
        .into_iter()
        .map(|name| (name, log.of_class(name, |class| class.hits.as_deref())))
        .collect();
    let rows = |lines: &Assignments| {
        lines.iter().filter_map(|(_, hits)| *hits).map(<[_]>::len).max().unwrap_or(0)
    };
    let all_rows: usize = assignments.iter().map(|(_, lines)| rows(lines)).sum();
    let max_columns = (MAX_HEAT_CELLS / all_rows.max(1)).clamp(10, 60);
    let map = |(name, lines): &(&str, Assignments)| {
        let rows = rows(lines);
        let mut map = HeatMap {
            title: (*name).to_owned(),
            rows,
            row_name: "prototypes",
            last_step: log.last_step(),
            ..HeatMap::default()
        };
        for lines in lines.chunks(lines.len().div_ceil(max_columns).max(1)) {
            let mut sums = vec![0.0; rows];
            for hits in lines.iter().filter_map(|(_, hits)| *hits) {
                for (sum, hits) in sums.iter_mut().zip(hits) {
                    *sum += hits.filter(is_plottable).unwrap_or(0.0).max(0.0);
                }
            }
            let all: f64 = sums.iter().sum();
            // Three decimals are more than the shades tell apart.
            let share = |sum: &f64| (1000.0 * sum / all.max(1.0)).round() / 1000.0;
            map.steps.extend(lines.last().map(|(step, _)| *step as f64));
            map.shares.push(sums.iter().map(share).collect());
        }
        (rows > 0).then_some(map)
    };
    let maps: Vec<HeatMap> = assignments.iter().filter_map(map).collect();
    if maps.is_empty() {
        return Vec::new();
    }
    let note = "Share of a class's points that were assigned to each of its prototypes since the previous line of the \
                log. An empty row is a prototype without points.";
    vec![Block::Note(note.to_owned()), Block::HeatMaps(maps)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use protoseg_pages::Values;

    fn column(values: &[f64]) -> Values {
        values.iter().copied().collect()
    }

    #[test]
    fn long_lines_are_thinned_to_means_and_ranges() {
        let values: Vec<(u64, Option<f64>)> =
            (0..10).map(|step| (step, Some(step as f64))).collect();
        let thinned = line("a", 0, &values, 4).unwrap();
        let [least, greatest] = thinned.band.unwrap();
        assert_eq!(thinned.x, column(&[1.0, 4.0, 7.0, 9.0]));
        assert_eq!(thinned.y, column(&[1.0, 4.0, 7.0, 9.0]));
        assert_eq!(least, column(&[0.0, 3.0, 6.0, 9.0]));
        assert_eq!(greatest, column(&[2.0, 5.0, 8.0, 9.0]));
        assert!(!thinned.dots);
        let whole = line("a", 3, &values, 10).unwrap();
        assert_eq!((whole.band, whole.dots, whole.color), (None, true, 3));
    }

    #[test]
    fn values_that_are_not_finite_leave_gaps() {
        let values = [
            (1, Some(1.0)),
            (2, None),
            (3, Some(f64::NAN)),
            (4, Some(1e300)),
            (5, Some(5.0)),
            (6, Some(6.0)),
        ];
        let gaps = line("a", 0, &values, 10).unwrap();
        assert_eq!(gaps.y.0, [Some(1.0), None, None, None, Some(5.0), Some(6.0)]);
        assert_eq!(line("a", 0, &values[1..4], 10), None);
        assert_eq!(line("a", 0, &[], 10), None);
    }
}
