//! What stands above everything: what and when, the verdict with its reasons, and the best figures.

use protoseg_pages::html::{escape, note, tile, tiles};

use super::super::report::{BenchReport, BenchRun, ScenarioResult};
use super::super::words::{count, figure, milliseconds, moment, share, verdict};

/// Names of the runs; of many only the first.
pub(super) fn names(report: &BenchReport) -> String {
    match report.runs.as_slice() {
        [] => "nothing".to_owned(),
        [run] => run.subject.name.clone(),
        [first, rest @ ..] => {
            format!("{} and {}", first.subject.name, count(rest.len(), "other", "others"))
        }
    }
}

/// All that stands below the title.
pub(super) fn head(report: &BenchReport) -> String {
    let points = report.runs.iter().map(|run| run.points.len()).sum();
    let words = format!(
        "{}, {}. {}, {}.",
        report.program,
        moment(report.began),
        count(report.runs.len(), "way to run", "ways to run"),
        count(points, "point", "points")
    );
    let verdict = verdict(report);
    let reasons: String =
        verdict.reasons.iter().map(|reason| format!("<li>{}</li>\n", escape(reason))).collect();
    let reasons = if reasons.is_empty() { reasons } else { format!("<ul>\n{reasons}</ul>") };
    let class = if verdict.stable { "good" } else { "bad" };
    let banner = format!(
        "<div class=\"verdict {class}\"><b class=\"{class}\">{}</b>{reasons}</div>\n",
        escape(&verdict.words)
    );
    note(&words) + &banner + &tiles(&figures(report))
}

/// The best of each kind of figure, and the worst of label agreement.
fn figures(report: &BenchReport) -> Vec<String> {
    let one = report.runs.iter().map(|run| run.points.len()).sum::<usize>() == 1;
    let title = |alone: &'static str, best: &'static str| if one { alone } else { best };
    let latency = |percent: f64, title: &str| {
        best(report, |point| Some(-point.percentile(percent)?.ms))
            .map(|(ms, under)| tile(title, &milliseconds(-ms), &under))
    };
    let rate = |of: fn(&ScenarioResult) -> f64, title: &str| {
        best(report, |point| Some(of(point)))
            .map(|(rate, under)| tile(title, &figure(rate), &under))
    };
    let agreement = report
        .runs
        .iter()
        .filter_map(|run| run.subject.accuracy.probe_agreement.map(|agreed| (agreed, run)))
        .min_by(|(left, _), (right, _)| left.total_cmp(right));
    let agreement = agreement.map(|(agreed, run)| {
        let whose = run.subject.accuracy.reference.as_ref().map(|whose| format!("with {whose}"));
        let named = (report.runs.len() > 1).then(|| run.subject.name.clone());
        tile(
            "Label agreement",
            &share(agreed),
            &[named, whose].into_iter().flatten().collect::<Vec<_>>(),
        )
    });
    [
        latency(50.0, title("Median latency", "Lowest median latency")),
        latency(99.0, title("p99 latency", "Lowest p99 latency")),
        rate(|point| point.images_per_second, title("Pictures/s", "Most pictures/s")),
        rate(|point| point.megapixels_per_second, title("Megapixels/s", "Most megapixels/s")),
        agreement,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The point of the greatest value, with words on which it is. Unstable ones count only where none is stable.
fn best(
    report: &BenchReport,
    value: impl Fn(&ScenarioResult) -> Option<f64>,
) -> Option<(f64, Vec<String>)> {
    let points =
        report.runs.iter().flat_map(|run| run.points.iter().map(move |point| (run, point)));
    let known = points.filter_map(|(run, point)| value(point).map(|value| (value, run, point)));
    let rank =
        |(value, _, point): &(f64, &BenchRun, &ScenarioResult)| (point.unstable.is_none(), *value);
    let (value, run, point) = known.max_by(|left, right| {
        let ((stable, left), (other, right)) = (rank(left), rank(right));
        stable.cmp(&other).then(left.total_cmp(&right))
    })?;
    let mut all = report.runs.iter().flat_map(|run| &run.points);
    let others_are_not = point.unstable.is_none() && all.any(|point| point.unstable.is_some());
    let under = [
        (report.runs.len() > 1).then(|| run.subject.name.clone()),
        Some(point.scenario.to_string()),
        point.unstable.as_ref().map(|_| "UNSTABLE".to_owned()),
        others_are_not.then(|| "of what is stable".to_owned()),
    ];
    Some((value, under.into_iter().flatten().collect()))
}
