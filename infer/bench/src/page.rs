//! A report as one HTML page that needs nothing else to be read: verdict and figures first, then every way to run with the
//! distribution of its latency, where time goes and how much it takes at once.

use protoseg_pages::html::{Page, Section, escape, note};
use protoseg_pages::scale::fixed;

use super::report::{BenchReport, BenchRun};
use super::words;

mod charts;
mod head;
mod overview;
mod points;
mod stages;
mod thinned;
mod throughput;

const STYLE: &str = include_str!("page/style.css");

/// How many colours tell lines and stages apart; beyond that they repeat.
const COLORS: usize = 9;

/// The page of a report. It holds all that it shows and asks the network for nothing; whatever stands in the report appears
/// as text. Its size grows with the number of points, not of samples: those are thinned, and the page says how.
pub fn html(report: &BenchReport) -> String {
    let anchors: Vec<String> =
        (1..=report.runs.len()).map(|number| format!("run-{number}")).collect();
    let titles: Vec<String> =
        report.runs.iter().enumerate().map(|(index, run)| numbered(report, index, run)).collect();
    let room = thinned::room(report.runs.iter().map(|run| run.points.len()).sum());
    let section = |anchor, title, body| Section { anchor, title, body };
    let mut sections = vec![
        section("against", "In turns", against(report)),
        section("overview", "All points", overview::table(report)),
        section("throughput", "Throughput and latency", throughput::section(report)),
        section("stages", "Where time goes", stages::section(report)),
    ];
    let runs = report.runs.iter().zip(&anchors).zip(&titles);
    sections
        .extend(runs.map(|((run, anchor), title)| section(anchor, title, points::run(run, room))));
    sections.push(section("machine", "Machine", facts(&words::machine(&report.machine))));
    sections.push(section("words", "What the figures mean", meaning()));
    let title = format!("Benchmark: {}", head::names(report));
    Page { title: &title, head: &head::head(report), sections: &sections, style: STYLE }.draw()
}

/// A run's name, behind its number where there are several.
fn numbered(report: &BenchReport, index: usize, run: &BenchRun) -> String {
    if report.runs.len() < 2 {
        run.subject.name.clone()
    } else {
        format!("{}. {}", index + 1, run.subject.name)
    }
}

/// Labels with their texts, side by side as many as fit; nothing where there are none.
fn facts(rows: &[(&str, String)]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let row = |(label, text): &(&str, String)| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(label), escape(text))
    };
    format!("<dl class=\"facts\">\n{}</dl>\n", rows.iter().map(row).collect::<String>())
}

/// Two against each other, where they were measured in turns.
fn against(report: &BenchReport) -> String {
    let told: String = report
        .against
        .iter()
        .map(|against| format!("<li>{}</li>\n", escape(&against.to_string())))
        .collect();
    if told.is_empty() { told } else { format!("<ul>\n{told}</ul>\n") }
}

/// The word for whether a point is stable, as markup.
fn verdict(unstable: bool) -> &'static str {
    if unstable { "<b class=\"bad\">UNSTABLE</b>" } else { "<span class=\"good\">STABLE</span>" }
}

/// A number that may be missing, as a table's cell.
fn cell(text: Option<String>) -> String {
    text.map_or_else(
        || "<td class=\"absent\">none</td>".to_owned(),
        |text| format!("<td>{text}</td>"),
    )
}

fn meaning() -> String {
    let words = [
        "Latency of a query goes from the moment for which it was due to its answer: where queries come by themselves, time \
         that they wait for their turn counts.",
        "A percentile is the sample of that rank, not between two: p95 of fewer than 20 queries, and p99 of fewer than 100, is \
         the largest. With 95 % confidence its interval holds the true one, by \
         order statistics. With 99 % confidence the true one does not exceed MLPerf's bound (early stopping). What is missing \
         needs more samples.",
        "The line over time goes through the middle of stretches of queries; the broken lines are p50 and p99. On the cumulative \
         curve dots are percentiles and the bars through them their intervals.",
        "An axis of latencies is logarithmic where the slowest takes more than 2.5 times as long as the fastest.",
        "Stages are means over the samples. A stage of a query of several pictures is summed over them, and what is done at \
         the same time counts as often as it is done, waiting for a core too.",
        "Pixel ratio: pixels that the network runs for each pixel of a picture, as windows overlap.",
        "UNSTABLE says that another measurement may well give other figures: they are no ground for decisions.",
    ];
    words.map(note).concat()
}

/// A count with its thousands set apart.
fn whole(count: usize) -> String {
    fixed(count as f64, 0)
}

/// A number of three digits, as text.
fn figure(value: f64) -> String {
    words::figure(value)
}

#[cfg(test)]
mod tests {
    use super::super::report::{Latency, SampleColumns, ScenarioResult};
    use super::super::sample;
    use super::*;

    #[test]
    fn nothing_of_a_report_is_markup() {
        let page = html(&sample::report());
        assert_eq!(page.matches("<script").count(), 1, "only the page's own");
        assert!(
            page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && page.contains("&lt;busy&gt;")
        );
        assert!(page.contains("default-src &#39;none&#39;") || page.contains("default-src 'none'"));
        let asks = ["src=\"http", "href=\"http", "url(", "@import"];
        assert!(asks.into_iter().all(|asking| !page.contains(asking)), "asks the network");
    }

    #[test]
    fn the_page_says_what_was_found() {
        let report = sample::report();
        let page = html(&report);
        let points: Vec<&ScenarioResult> = report.runs.iter().flat_map(|run| &run.points).collect();
        assert!(
            page.contains(&format!("UNSTABLE: 1 of {} points", points.len()))
                && page.contains("more comes in than")
        );
        for point in &points {
            for percentile in point.latency.iter().flat_map(|latency| &latency.percentiles) {
                let row = format!(
                    "<th scope=\"row\">p{}</th><td>{}</td>",
                    percentile.percent,
                    figure(percentile.ms)
                );
                assert!(page.contains(&row), "{row}");
            }
        }
        let headings: Vec<&str> =
            page.split("<h2>").skip(1).filter_map(|rest| rest.split("</h2>").next()).collect();
        let first = [
            "All points",
            "Throughput and latency",
            "Where time goes",
            "1. street fp32",
            "2. street int8",
        ];
        assert_eq!(headings[..5], first);
        assert!(!page.contains("NaN") && !page.contains("inf\""), "a number that is none");
        // The best of the stable points: the unstable one's figures are no headline.
        let best = points
            .iter()
            .filter(|point| point.unstable.is_none())
            .map(|point| point.images_per_second);
        let best = figure(best.fold(0.0, f64::max));
        assert!(page.contains(&format!("<span>Most pictures/s</span><b>{best}</b>")), "{best}");
        assert!(page.contains("<span>Label agreement</span><b>98.765 %</b>"), "the least");
    }

    #[test]
    fn histograms_hold_every_query() {
        let report = sample::report();
        let page = html(&report);
        let bars = page
            .split("data-name=\"queries\" d=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next());
        let counted: Vec<f64> = bars
            .map(|path| {
                path[1..]
                    .split('L')
                    .filter_map(|point| point.split(' ').nth(1)?.parse::<f64>().ok())
                    .sum()
            })
            .collect();
        let points =
            report.runs.iter().flat_map(|run| &run.points).filter(|point| point.latency.is_some());
        assert_eq!(
            counted,
            points.map(|point| point.samples.latency_ms.len() as f64).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_hundred_thousand_samples_are_a_small_page() {
        let mut report = sample::report();
        let point = &mut report.runs[0].points[0];
        let (due_ms, latency_ms) =
            (0..100_000).map(|index| (f64::from(index), f64::from(40 + index % 37))).unzip();
        point.samples = SampleColumns { due_ms, latency_ms, ..SampleColumns::default() };
        let page = html(&report);
        assert!(page.len() < 400_000, "{}", page.len());
        assert!(
            page.contains("queries in a row the fastest, the middle and the slowest are shown")
        );
    }

    #[test]
    fn odd_reports_give_a_page() {
        let whole = sample::report();
        let point = || whole.runs[0].points[0].clone();
        let empty = SampleColumns::default();
        let one =
            SampleColumns { due_ms: vec![0.0], latency_ms: vec![41.0], ..SampleColumns::default() };
        let same = SampleColumns {
            due_ms: vec![0.0; 9],
            latency_ms: vec![41.0; 9],
            ..SampleColumns::default()
        };
        let zero = SampleColumns {
            due_ms: vec![0.0; 9],
            latency_ms: vec![0.0; 9],
            ..SampleColumns::default()
        };
        let odd = SampleColumns {
            due_ms: vec![0.0, f64::NAN],
            latency_ms: vec![f64::INFINITY, f64::NAN],
            ..SampleColumns::default()
        };
        for samples in [empty, one, same, zero, odd] {
            let latency =
                Latency { mean_ms: 0.0, min_ms: 0.0, max_ms: 0.0, percentiles: Vec::new() };
            for latency in [None, Some(latency), point().latency] {
                let mut report = whole.clone();
                report.runs[0].points =
                    vec![ScenarioResult { samples: samples.clone(), latency, ..point() }];
                let page = html(&report);
                assert!(!page.contains("NaN"), "{samples:?}");
            }
        }
        let mut report = whole;
        report.runs.truncate(1);
        report.runs[0].points.clear();
        assert!(html(&report).contains("nothing was measured"));
        report.runs.clear();
        assert!(html(&report).contains("nothing was measured"));
    }
}
