//! What is drawn against steps for the run as a whole and for the scores.

use protoseg_pages::html::{escape, grid, legend, note};

use super::chart::{Chart, ChartSize, Range};
use super::log::{ParsedLog, StepLine, distinct};
use super::series::{Series, room_for};

/// Points of a line in a large chart.
const ROOM: usize = 240;
/// How many colours the page's style has.
const COLORS: usize = 6;
const THINNED: &str = "Where the log has more lines than a chart has room for, the curve is their mean and the band \
                       around it reaches from the least to the greatest of them; what lies outside the axis is cut off.";

type StepField = fn(&StepLine) -> Option<f64>;

fn line(
    log: &ParsedLog,
    name: &str,
    color: usize,
    factor: f64,
    value: StepField,
) -> Option<Series> {
    let scaled = |line: &StepLine| (line.step, value(line).map(|value| factor * value));
    Series::new(name, color, &log.steps.iter().map(scaled).collect::<Vec<_>>(), ROOM)
}

/// The words about bands, if there are any.
fn about_bands(log: &ParsedLog) -> &'static str {
    if log.steps.len() > ROOM { THINNED } else { "" }
}

/// One chart a loss term, and the learning rate.
pub(super) fn losses(log: &ParsedLog) -> String {
    let terms: [(&str, &str, StepField); 7] = [
        ("Loss", "weighted sum", |line| line.loss),
        ("Labelled pixels", "loss", |line| line.labeled),
        ("Auxiliary head", "loss", |line| line.auxiliary),
        ("Unlabelled pixels", "loss", |line| line.unlabeled),
        ("Prototypes, labelled points", "loss", |line| line.prototype_labeled),
        ("Prototypes, unlabelled points", "loss", |line| line.prototype_unlabeled),
        ("Learning rate", "of the encoder", |line| line.learning_rate),
    ];
    let draw = |(title, unit, value): (&str, &str, StepField)| {
        let series = line(log, title, 0, 1.0, value)?;
        let last_step = log.last_step();
        Some(
            Chart { title, unit, size: ChartSize::Large, range: Range::FromZero, last_step }
                .draw(&[series]),
        )
    };
    let charts: Vec<String> = terms.into_iter().filter_map(draw).collect();
    if charts.is_empty() {
        return String::new();
    }
    let words =
        "The loss is what is minimised, the weighted sum; its terms are shown before weighting.";
    note(format!("{words} {}", about_bands(log)).trim()) + &grid("large", &charts)
}

/// Which part of the unlabelled pixels counts, and how sure the teacher is.
pub(super) fn unlabeled(log: &ParsedLog) -> String {
    let chart = |title, value: StepField| {
        let unit = "%";
        let series = line(log, title, 0, 100.0, value)?;
        let last_step = log.last_step();
        Some(
            Chart { title, unit, size: ChartSize::Large, range: Range::Percent, last_step }
                .draw(&[series]),
        )
    };
    let charts = [
        chart("Valid unlabelled pixels that enter the loss", |line| line.kept_share),
        chart("Mean confidence of the teacher", |line| line.confidence),
    ];
    grid("large", &charts.into_iter().flatten().collect::<Vec<_>>())
}

/// Time a step, and how much of it was spent waiting.
pub(super) fn time(log: &ParsedLog) -> String {
    let chart = |title, unit, factor, value: StepField| {
        let series = line(log, title, 0, factor, value)?;
        let last_step = log.last_step();
        Some(
            Chart { title, unit, size: ChartSize::Large, range: Range::FromZero, last_step }
                .draw(&[series]),
        )
    };
    let charts = [
        chart("Time a step", "seconds", 1.0, |line| line.seconds_per_step),
        chart("Waiting for batches", "% of the time", 100.0, |line| line.waited_share),
    ];
    grid("large", &charts.into_iter().flatten().collect::<Vec<_>>())
}

/// mIoU of everyone on each kind of data.
pub(super) fn mean_iou(log: &ParsedLog) -> String {
    let chart = |data: &str| {
        let scored = log.scored();
        let series = scored.iter().enumerate().filter_map(|(index, which)| {
            let scores = log.scores_of(which, data);
            let values: Vec<_> =
                scores.iter().map(|line| (line.step, line.metrics.scores.mean_iou)).collect();
            Series::new(which, index % COLORS, &values, ROOM)
        });
        let title = format!("mIoU, {data}");
        let last_step = log.last_step();
        let chart = Chart {
            title: &title,
            unit: "%",
            size: ChartSize::Large,
            range: Range::Values,
            last_step,
        };
        chart.draw(&series.collect::<Vec<_>>())
    };
    let charts: Vec<String> =
        log.data().into_iter().map(chart).filter(|chart| !chart.is_empty()).collect();
    if charts.is_empty() { String::new() } else { legend_of_scored(log) + &grid("large", &charts) }
}

/// IoU of each class, on each kind of data.
pub(super) fn class_iou(log: &ParsedLog) -> String {
    let mut body = String::new();
    for data in log.data() {
        let lines = log.scores.iter().filter(|line| line.metrics.data == data);
        let names = distinct(
            lines.flat_map(|line| &line.metrics.scores.classes).map(|class| class.name.as_str()),
        );
        let scored = log.scored();
        let room = room_for(names.len() * scored.len() * log.data().len());
        let chart = |name: &&str| {
            let series = scored.iter().enumerate().filter_map(|(index, which)| {
                let values: Vec<_> = log
                    .scores_of(which, data)
                    .iter()
                    .map(|line| (line.step, iou(line, name)))
                    .collect();
                Series::new(which, index % COLORS, &values, room)
            });
            let last_step = log.last_step();
            let chart = Chart {
                title: name,
                unit: "%",
                size: ChartSize::Small,
                range: Range::Percent,
                last_step,
            };
            chart.draw(&series.collect::<Vec<_>>())
        };
        let charts: Vec<String> =
            names.iter().map(chart).filter(|chart| !chart.is_empty()).collect();
        if !charts.is_empty() {
            body += &format!("<h3>{}</h3>\n{}", escape(data), grid("small", &charts));
        }
    }
    if body.is_empty() { body } else { legend_of_scored(log) + &body }
}

fn iou(line: &super::log::ScoreLine, name: &str) -> Option<f64> {
    line.metrics.scores.classes.iter().find(|class| class.name == name).and_then(|class| class.iou)
}

fn legend_of_scored(log: &ParsedLog) -> String {
    let scored = log.scored();
    legend(
        &scored
            .iter()
            .enumerate()
            .map(|(index, which)| (*which, index % COLORS))
            .collect::<Vec<_>>(),
    )
}
