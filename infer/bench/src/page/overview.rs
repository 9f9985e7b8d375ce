//! All points of a report in one table.

use protoseg_pages::html::escape;

use super::super::report::{BenchReport, BenchRun, ScenarioResult};
use super::super::words::share;
use super::{cell, figure, verdict, whole};

/// A row a point; nothing where there are fewer than two.
pub(super) fn table(report: &BenchReport) -> String {
    let row = |(index, run): (usize, &BenchRun)| {
        let link = format!("<a href=\"#run-{}\">{}</a>", index + 1, escape(&run.subject.name));
        run.points.iter().map(|point| line(&link, run, point)).collect::<Vec<_>>()
    };
    let rows: Vec<String> = report.runs.iter().enumerate().flat_map(row).collect();
    if rows.len() < 2 {
        return String::new();
    }
    let columns =
        ["queries", "p50, ms", "p99, ms", "pictures/s", "megapixels/s", "label agreement"];
    let head: String = columns.map(|column| format!("<th scope=\"col\">{column}</th>")).concat();
    format!(
        "<div class=\"scroll\"><table class=\"wide\"><thead><tr><th scope=\"col\">run</th>\
         <th scope=\"col\" class=\"word\">scenario</th>{head}<th scope=\"col\" class=\"word\">verdict</th></tr></thead>\n\
         <tbody>\n{}</tbody></table></div>\n",
        rows.concat()
    )
}

fn line(link: &str, run: &BenchRun, point: &ScenarioResult) -> String {
    let percentile =
        |percent| cell(point.percentile(percent).map(|percentile| figure(percentile.ms)));
    format!(
        "<tr><th scope=\"row\">{link}</th><td class=\"word\">{}</td><td>{}</td>{}{}<td>{}</td><td>{}</td>{}\
         <td class=\"word\">{}</td></tr>\n",
        escape(&point.scenario.to_string()),
        whole(point.samples.latency_ms.len()),
        percentile(50.0),
        percentile(99.0),
        figure(point.images_per_second),
        figure(point.megapixels_per_second),
        cell(run.subject.accuracy.probe_agreement.map(share)),
        verdict(point.unstable.is_some()),
    )
}
