//! A report as one self-contained HTML page: verdict and key figures, then every run with its latencies and stages.

use protoseg_pages::{
    Block, Cell, ChartSize, Document, Stack, StackPart, Swatch, Table, Tile, fixed,
};

use super::report::{BenchReport, BenchRun, Latency, ScenarioResult, WarmUp};
use super::statistics::{Share, shares};
use super::terminal;
use super::words::{self, count, figure, milliseconds, moment, percent, seconds, share, verdict};

mod charts;

const GLOSSARY: [&str; 7] = [
    "The latency of a query is the time from when it was due to its answer: under an open loop (server), waiting in the queue \
     counts.",
    "A percentile is the sample of that rank, without interpolation: p95 of fewer than 20 queries, and p99 of fewer than 100, \
     is the largest. Its interval holds the true one with 95 % confidence, by order statistics. The true one does not exceed \
     MLPerf's bound (early stopping) with 99 % confidence. Missing values need more samples.",
    "The line over time joins medians of consecutive queries; the dashed lines are p50 and p99. On the cumulative curve, dots \
     are percentiles and the bars through them their intervals.",
    "An axis of latencies is logarithmic where the slowest query takes more than 2.5 times as long as the fastest.",
    "Stages are means over the samples. A stage of a query of several images is summed over them, and what runs in parallel \
     counts each time, waiting for a core included.",
    "Pixel ratio: pixels that the network runs for each pixel of an image, as windows overlap.",
    "UNSTABLE: another measurement may well give other figures; do not base decisions on these.",
];

/// The page of a report. It is self-contained and makes no request; its size grows with the number of points, not of
/// samples, which are thinned.
pub fn html(report: &BenchReport) -> String {
    document(report).to_html()
}

fn document(report: &BenchReport) -> Document {
    let points: usize = report.runs.iter().map(|run| run.points.len()).sum();
    let name = match report.runs.as_slice() {
        [] => "nothing".to_owned(),
        [run] => run.subject.name.clone(),
        [first, rest @ ..] => {
            format!("{} and {}", first.subject.name, count(rest.len(), "other", "others"))
        }
    };
    let mut document = Document::new(format!("Benchmark: {name}"));
    document.summary = terminal::text(report);
    let runs = count(report.runs.len(), "run", "runs");
    let when = moment(report.began);
    let note = format!("{}, {when}. {runs}, {}.", report.program, count(points, "point", "points"));
    let words::ReportVerdict { words: text, reasons, stable } = verdict(report);
    document.head = vec![
        Block::Note(note),
        Block::Verdict { text, stable, reasons },
        Block::Tiles(tiles(report, points)),
    ];
    let comparisons: Vec<String> = report.against.iter().map(ToString::to_string).collect();
    let comparisons = (!comparisons.is_empty()).then_some(Block::List(comparisons));
    document.section("against", "Interleaved A/B comparison", comparisons.into_iter().collect());
    if points > 1 {
        document.section("overview", "All points", vec![Block::Tables(vec![overview(report)])]);
    }
    document.section("throughput", "Throughput and latency", throughput(report));
    document.section("stages", "Latency by stage", stages(report));
    let max_chunks = charts::max_chunks(points);
    for (index, found) in report.runs.iter().enumerate() {
        let number = match report.runs.len() {
            1 => String::new(),
            _ => format!("{}. ", index + 1),
        };
        let title = format!("{number}{}", found.subject.name);
        document.section(format!("run-{}", index + 1), title, run(found, max_chunks));
    }
    document.section("machine", "Machine", vec![Block::Facts(words::machine(&report.machine))]);
    let glossary = GLOSSARY.map(|text| Block::Note(text.to_owned())).to_vec();
    document.section("glossary", "What the figures mean", glossary);
    document
}

/// The best of each kind of figure, and the worst label agreement.
fn tiles(report: &BenchReport, points: usize) -> Vec<Tile> {
    let title = |alone: &str, best: &str| if points == 1 { alone } else { best }.to_owned();
    let latency = |percent: f64, label: String| {
        let (ms, details) = best(report, |point| Some(-point.percentile(percent)?.ms))?;
        Some(Tile { label, value: milliseconds(-ms), details })
    };
    let rate = |value: fn(&ScenarioResult) -> f64, label: String| {
        let (rate, details) = best(report, |point| Some(value(point)))?;
        Some(Tile { label, value: figure(rate), details })
    };
    let agreement = report.runs.iter().filter_map(|run| {
        let accuracy = &run.subject.accuracy;
        Some((accuracy.probe_agreement?, &run.subject.name, accuracy.reference.as_ref()))
    });
    let agreement = agreement.min_by(|(left, ..), (right, ..)| left.total_cmp(right));
    let agreement = agreement.map(|(agreed, name, reference)| {
        let name = (report.runs.len() > 1).then(|| name.clone());
        let reference = reference.map(|reference| format!("with {reference}"));
        let details = name.into_iter().chain(reference).collect();
        Tile { label: "Label agreement".to_owned(), value: share(agreed), details }
    });
    let tiles = [
        latency(50.0, title("Median latency", "Lowest median latency")),
        latency(99.0, title("p99 latency", "Lowest p99 latency")),
        rate(|point| point.images_per_second, title("Images/s", "Most images/s")),
        rate(|point| point.megapixels_per_second, title("Megapixels/s", "Most megapixels/s")),
        agreement,
    ];
    tiles.into_iter().flatten().collect()
}

/// The greatest value, and the point that has it. Unstable points count only where none is stable.
fn best(
    report: &BenchReport,
    value: impl Fn(&ScenarioResult) -> Option<f64>,
) -> Option<(f64, Vec<String>)> {
    let points =
        || report.runs.iter().flat_map(|run| run.points.iter().map(move |point| (run, point)));
    let known = points().filter_map(|(run, point)| Some((value(point)?, run, point)));
    let (value, run, point) = known.max_by(|(left, _, point), (right, _, other)| {
        let by_stability = point.unstable.is_none().cmp(&other.unstable.is_none());
        by_stability.then(left.total_cmp(right))
    })?;
    let stable = point.unstable.is_none();
    let details = [
        (report.runs.len() > 1).then(|| run.subject.name.clone()),
        Some(point.scenario.to_string()),
        (!stable).then(|| "UNSTABLE".to_owned()),
        (stable && points().any(|(_, point)| point.unstable.is_some()))
            .then(|| "of the stable points".to_owned()),
    ];
    Some((value, details.into_iter().flatten().collect()))
}

fn number_or_none(text: Option<String>) -> Cell {
    text.map_or(Cell::Absent("none"), Cell::Number)
}

/// One row per point.
fn overview(report: &BenchReport) -> Table {
    let row = |index: usize, run: &BenchRun, point: &ScenarioResult| {
        let ms = |percent| number_or_none(point.percentile(percent).map(|found| figure(found.ms)));
        vec![
            Cell::Link { text: run.subject.name.clone(), section: format!("run-{}", index + 1) },
            Cell::Text(point.scenario.to_string()),
            Cell::Number(fixed(point.samples.latency_ms.len() as f64, 0)),
            ms(50.0),
            ms(99.0),
            Cell::Number(figure(point.images_per_second)),
            Cell::Number(figure(point.megapixels_per_second)),
            number_or_none(run.subject.accuracy.probe_agreement.map(share)),
            Cell::Stable(point.unstable.is_none()),
        ]
    };
    let runs = report.runs.iter().enumerate();
    let rows =
        runs.flat_map(|(index, run)| run.points.iter().map(move |point| row(index, run, point)));
    let columns = [
        "run",
        "scenario",
        "queries",
        "p50, ms",
        "p99, ms",
        "images/s",
        "megapixels/s",
        "label agreement",
        "verdict",
    ];
    let columns = columns.map(str::to_owned).to_vec();
    Table { wide: true, columns, rows: rows.collect(), ..Table::default() }
}

fn throughput(report: &BenchReport) -> Vec<Block> {
    let Some((names, chart)) = charts::throughput(report) else { return Vec::new() };
    let note = "Each point is a load, written beside it: clients, images per query, or images that arrive per second. \
                The solid line is p50 and the dashed one p99; further right and further down is better.";
    let names = names.into_iter().enumerate();
    let legend = names.map(|(index, name)| (name, Swatch::Line(index))).collect();
    let charts = Block::Charts(ChartSize::Tall, vec![chart]);
    vec![Block::Note(note.to_owned()), Block::Legend(legend), charts]
}

/// One bar per point with timed stages, divided into them.
fn stages(report: &BenchReport) -> Vec<Block> {
    let stack = |run: &BenchRun, point: &ScenarioResult| {
        let part = |part: Share| StackPart {
            color: stage_color(&part.name),
            name: part.name,
            share: part.share,
            value: milliseconds(part.ms),
            percent: percent(part.share),
        };
        let scenario = point.scenario.to_string();
        Stack {
            title: match report.runs.len() {
                1 => scenario,
                _ => format!("{}, {scenario}", run.subject.name),
            },
            note: point.latency.as_ref().map_or_else(String::new, |latency| {
                format!("mean latency {}", milliseconds(latency.mean_ms))
            }),
            parts: shares(point).into_iter().map(part).collect(),
        }
    };
    let points =
        report.runs.iter().flat_map(|run| run.points.iter().map(move |point| (run, point)));
    let stacks = points.map(|(run, point)| stack(run, point));
    let stacks: Vec<Stack> = stacks.filter(|stack| !stack.parts.is_empty()).collect();
    if stacks.is_empty() {
        return Vec::new();
    }
    let note = "Mean of each stage of a query, in the order in which they run.";
    vec![Block::Note(note.to_owned()), Block::Stacks(stacks)]
}

/// Stages of a client have the colors of the server's stages that they resemble.
fn stage_color(stage: &str) -> usize {
    match stage {
        "compute" => 0,
        "stitch" => 1,
        "prepare" => 2,
        "encode" => 3,
        "decode" => 4,
        "queue" | "wait" => 5,
        "upload" | "send" => 6,
        "download" | "receive" => 7,
        _ => 8,
    }
}

fn run(run: &BenchRun, max_chunks: usize) -> Vec<Block> {
    let mut blocks = vec![Block::Facts(words::facts(&run.subject))];
    blocks.extend(run.within_bound.iter().map(|found| Block::Note(words::within_bound(found))));
    for point in &run.points {
        let stable = Some(point.unstable.is_none());
        blocks.push(Block::Heading { text: point.scenario.to_string(), stable });
        blocks.extend(point.unstable.clone().map(Block::Warning));
        let mut note = measured(point);
        let Some(latency) = &point.latency else {
            blocks.push(Block::Note(note));
            continue;
        };
        let mut plots = charts::distribution(&point.samples, latency, max_chunks);
        if let Some((chart, chunk_len)) = charts::over_time(&point.samples, latency, max_chunks) {
            plots.push(chart);
            if chunk_len > 1 {
                note.push_str(&format!(
                    " Over time, the fastest, the middle and the slowest of each {} consecutive queries are shown.",
                    fixed(chunk_len as f64, 0)
                ));
            }
        }
        blocks.push(Block::Note(note));
        if !plots.is_empty() {
            blocks.push(Block::Charts(ChartSize::Large, plots));
        }
        blocks.push(Block::Tables(vec![percentiles(latency)]));
    }
    blocks
}

/// Sentences on the extent of a measurement.
fn measured(point: &ScenarioResult) -> String {
    let queries = count(point.samples.latency_ms.len(), "query", "queries");
    let WarmUp { queries: warm, seconds: warmed, windows } = &point.warm_up;
    let warm_up = match warm {
        0 => "without warm-up".to_owned(),
        _ => format!(
            "after a warm-up of {} in {} ({})",
            count(*warm, "query", "queries"),
            seconds(*warmed),
            count(windows.len(), "window", "windows")
        ),
    };
    let sessions =
        words::sessions(point).map_or_else(String::new, |sessions| format!(" by {sessions}"));
    let mut text = format!(
        "{queries} in {}{sessions}, {warm_up}: {} images/s, {} megapixels/s.",
        seconds(point.seconds),
        figure(point.images_per_second),
        figure(point.megapixels_per_second),
    );
    text.extend(words::device(point).iter().map(|sentence| format!(" {sentence}.")));
    text.extend(words::failure(point).map(|failure| format!(" {failure}.")));
    text
}

fn percentiles(latency: &Latency) -> Table {
    let extreme = |name: &str, ms: f64| {
        [name.to_owned(), figure(ms), String::new(), String::new()].map(Cell::Number).to_vec()
    };
    let end = |ms: Option<f64>| ms.map_or_else(|| "?".to_owned(), figure);
    let percentile = latency.percentiles.iter().map(|found| {
        let (low, high) = (end(found.low_ms), end(found.high_ms));
        let known = found.low_ms.is_some() || found.high_ms.is_some();
        vec![
            Cell::Number(format!("p{}", found.percent)),
            Cell::Number(figure(found.ms)),
            number_or_none(known.then(|| format!("{low} to {high}"))),
            number_or_none(found.bound_ms.map(figure)),
        ]
    });
    let rows = [extreme("least", latency.min_ms), extreme("mean", latency.mean_ms)];
    let rows = rows.into_iter().chain(percentile).chain([extreme("largest", latency.max_ms)]);
    let columns = ["latency", "ms", "95 % interval", "MLPerf's bound, 99 %"];
    let columns = columns.map(str::to_owned).to_vec();
    Table { columns, rows: rows.collect(), ..Table::default() }
}

#[cfg(test)]
mod tests {
    use super::super::report::SampleColumns;
    use super::super::sample;
    use super::*;

    fn section<'a>(document: &'a Document, title: &str) -> &'a [Block] {
        let found = document.sections.iter().find(|section| section.title == title);
        &found.unwrap_or_else(|| panic!("no section {title}")).blocks
    }

    #[test]
    fn no_text_of_a_report_becomes_markup() {
        let page = html(&sample::report());
        assert_eq!(page.matches("<script").count(), 2, "the document and the page's own script");
        assert_eq!(page.matches("</script").count(), 2);
        assert!(page.contains("served &lt;script>alert(1)&lt;/script>"), "in the summary");
        assert!(page.contains("served \\u003cscript>alert(1)") && page.contains("\\u003cbusy>"));
        assert!(page.contains("default-src 'none'"));
        let requests = ["src=\"http", "href=\"http", "url(", "@import"];
        assert!(requests.into_iter().all(|request| !page.contains(request)), "asks the network");
    }

    #[test]
    fn the_page_shows_all_results() {
        let report = sample::report();
        let document = document(&report);
        let points: Vec<&ScenarioResult> = report.runs.iter().flat_map(|run| &run.points).collect();
        let Block::Verdict { text, stable: false, reasons } = &document.head[1] else { panic!() };
        assert_eq!(*text, format!("UNSTABLE: 1 of {} points", points.len()));
        assert!(reasons[0].contains("more comes in than"), "{reasons:?}");
        let titles: Vec<&str> =
            document.sections.iter().map(|section| section.title.as_str()).collect();
        let expected = [
            "All points",
            "Throughput and latency",
            "Latency by stage",
            "1. street fp32",
            "2. street int8",
            "3. served <script>alert(1)</script>",
            "Machine",
            "What the figures mean",
        ];
        assert_eq!(titles, expected);
        for (index, run) in report.runs.iter().enumerate() {
            let title = format!("{}. {}", index + 1, run.subject.name);
            let mut tables = section(&document, &title).iter().filter_map(|block| match block {
                Block::Tables(tables) => Some(&tables[0]),
                _ => None,
            });
            for latency in run.points.iter().filter_map(|point| point.latency.as_ref()) {
                let rows = &tables.next().unwrap().rows;
                for percentile in &latency.percentiles {
                    let name = format!("p{}", percentile.percent);
                    let cells = [name, figure(percentile.ms)].map(Cell::Number);
                    assert!(rows.iter().any(|row| row.starts_with(&cells)), "{cells:?}");
                }
            }
        }
        let json = serde_json::to_string(&document).unwrap();
        assert!(!json.contains("NaN") && !json.contains("inf\""), "a number that is none");
        // The best of the stable points.
        let stable = points.iter().filter(|point| point.unstable.is_none());
        let best = stable.map(|point| point.images_per_second).fold(0.0, f64::max);
        let Block::Tiles(tiles) = &document.head[2] else { panic!() };
        let tile = |label: &str| &tiles.iter().find(|tile| tile.label == label).unwrap().value;
        assert_eq!(*tile("Most images/s"), figure(best));
        assert_eq!(tile("Label agreement"), "98.765 %", "the least");
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
        assert!(page.contains("the fastest, the middle and the slowest of each"));
    }

    #[test]
    fn odd_reports_give_a_page() {
        let whole = sample::report();
        let point = || whole.runs[0].points[0].clone();
        let samples = |due_ms: &[f64], latency_ms: &[f64]| SampleColumns {
            due_ms: due_ms.to_vec(),
            latency_ms: latency_ms.to_vec(),
            ..SampleColumns::default()
        };
        for samples in [
            samples(&[], &[]),
            samples(&[0.0], &[41.0]),
            samples(&[0.0; 9], &[41.0; 9]),
            samples(&[0.0; 9], &[0.0; 9]),
            samples(&[0.0, f64::NAN], &[f64::INFINITY, f64::NAN]),
        ] {
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
