//! A report as text for a terminal of 100 to 120 columns: each subject, then a line per scenario.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::report::{BenchReport, BenchRun, Percentile, ScenarioResult};
use super::statistics::{Share, shares};
use super::words::{
    device, facts, failure, figure, largest, machine, milliseconds, moment, percent, rounded,
    seconds, sessions, verdict, within_bound,
};

/// Columns after which sentences are wrapped.
const WIDTH: usize = 110;
/// Ratio of the two sides of an interval above which both are printed.
const LOPSIDED: f64 = 1.5;
const INDENT: &str = "  ";
const COLUMNS: [&str; 10] =
    ["latency in ms", "queries", "p50", "p90", "p95", "p99", "max", "images/s", "MP/s", "verdict"];

/// The report as uncolored text. Latencies are milliseconds. A percentile is followed by its
/// interval of 95 % confidence: `±` the farther end, or `-` and `+` where the ends are not about as
/// far; nothing where an end is unknown.
pub fn text(report: &BenchReport) -> String {
    let mut lines =
        vec![format!("{}, {}: {}", report.program, moment(report.began), verdict(report).words)];
    lines.extend(labeled(&machine(&report.machine)));
    for run in &report.runs {
        lines.push(String::new());
        lines.extend(run_lines(run));
    }
    if !report.against.is_empty() {
        lines.push(String::new());
        for comparison in &report.against {
            lines.extend(wrapped("", &[comparison.to_string()], ""));
        }
    }
    let points = report.runs.iter().flat_map(|run| &run.points);
    let mut percentiles =
        points.filter_map(|point| point.latency.as_ref()).flat_map(|latency| &latency.percentiles);
    if percentiles.any(|percentile| distances(percentile).is_some()) {
        lines.push(String::new());
        lines.push(
            "±, or - and +: with 95 % confidence the true percentile is no farther away."
                .to_owned(),
        );
    }
    lines.extend(largest(report));
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn run_lines(run: &BenchRun) -> Vec<String> {
    let mut lines = vec![run.subject.name.clone()];
    lines.extend(labeled(&facts(&run.subject)));
    if run.points.is_empty() {
        return lines;
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.add_row(COLUMNS);
    run.points.iter().for_each(|point| {
        table.add_row(cells(point));
    });
    let last = COLUMNS.len() - 1;
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((2, 0));
        if index != 0 && index != last {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut rows = table.lines();
    lines.extend(rows.next());
    for (row, point) in rows.zip(&run.points) {
        lines.push(row);
        lines.extend(details(point));
    }
    if let Some(found) = &run.within_bound {
        lines.extend(wrapped(INDENT, &[within_bound(found)], ""));
    }
    lines
}

/// Labels with their texts, wrapped.
fn labeled(facts: &[(&str, String)]) -> Vec<String> {
    let parts: Vec<String> = facts.iter().map(|(label, text)| format!("{label} {text}")).collect();
    wrapped(INDENT, &parts, " · ")
}

fn cells(point: &ScenarioResult) -> [String; COLUMNS.len()] {
    let percentile =
        |percent| point.percentile(percent).map_or_else(|| "-".to_owned(), with_interval);
    let max = point.latency.as_ref().map(|latency| figure(latency.max_ms));
    [
        point.scenario.to_string(),
        point.samples.latency_ms.len().to_string(),
        percentile(50.0),
        percentile(90.0),
        percentile(95.0),
        percentile(99.0),
        max.unwrap_or_else(|| "-".to_owned()),
        figure(point.images_per_second),
        figure(point.megapixels_per_second),
        if point.unstable.is_some() { "UNSTABLE" } else { "STABLE" }.to_owned(),
    ]
}

/// A percentile with the distances to the ends of its interval; one number where they are about
/// equal.
fn with_interval(percentile: &Percentile) -> String {
    let ms = figure(percentile.ms);
    match distances(percentile) {
        None => ms,
        Some([down, up]) if down.max(up) <= LOPSIDED * down.min(up) => {
            format!("{ms} ±{}", rounded(down.max(up), 2))
        }
        Some([down, up]) => format!("{ms} -{}+{}", rounded(down, 1), rounded(up, 1)),
    }
}

/// Distances of a percentile to the lower and the upper end of its interval, in milliseconds.
fn distances(percentile: &Percentile) -> Option<[f64; 2]> {
    Some([percentile.ms - percentile.low_ms?, percentile.high_ms? - percentile.ms])
}

/// Lines below the row of a point: why it is unstable, failures, stage times.
fn details(point: &ScenarioResult) -> Vec<String> {
    let indent = INDENT.repeat(2);
    let mut lines = Vec::new();
    if let Some(why) = &point.unstable {
        lines.extend(wrapped(&indent, &[format!("UNSTABLE: {why}")], ""));
    }
    if let Some(failure) = failure(point) {
        lines.extend(wrapped(&indent, &[failure], ""));
    }
    let mut parts = Vec::new();
    if point.latency.is_none() {
        parts.push(format!("all in {}", seconds(point.seconds)));
    }
    parts.extend(sessions(point));
    let stage = |Share { name, ms, share }: Share| {
        format!("{name} {} ({})", milliseconds(ms), percent(share))
    };
    parts.extend(shares(point).into_iter().map(stage));
    let images = point.scenario.images_per_query();
    if images > 1 {
        parts.push(format!("summed over {images} images"));
    }
    parts.extend(device(point));
    lines.extend(wrapped(&indent, &parts, ", "));
    lines
}

/// Joins parts, breaking lines after separators; a part longer than a line is broken between its
/// words.
fn wrapped(indent: &str, parts: &[String], separator: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for (index, part) in parts.iter().enumerate() {
        let end = if index + 1 < parts.len() { separator.trim_end() } else { "" };
        let whole = part.split_whitespace().collect::<Vec<_>>().join(" ") + end;
        let fits = indent.len() + whole.chars().count() <= WIDTH;
        let pieces = if fits { vec![whole.as_str()] } else { whole.split(' ').collect() };
        for piece in pieces {
            let line = lines.last_mut().filter(|line| {
                line.is_empty()
                    || indent.len() + line.chars().count() + 1 + piece.chars().count() <= WIDTH
            });
            match line {
                Some(line) if line.is_empty() => line.push_str(piece),
                Some(line) => *line += &format!(" {piece}"),
                None => lines.push(piece.to_owned()),
            }
        }
    }
    lines.retain(|line| !line.is_empty());
    lines.into_iter().map(|line| format!("{indent}{line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn rows_hold_all_figures_of_their_scenario() {
        let report = sample::report();
        let text = text(&report);
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        assert!(
            text.starts_with("protoseg 0.1.0, 2026-07-30 12:00 UTC: UNSTABLE: 1 of "),
            "{text}"
        );
        for run in &report.runs {
            let own = text
                .split("\n\n")
                .find(|part| part.starts_with(&format!("{}\n", run.subject.name)));
            let own = own.unwrap_or_else(|| panic!("no part of {}: {text}", run.subject.name));
            for point in &run.points {
                let line = own
                    .lines()
                    .find(|line| line.starts_with(&format!("  {}  ", point.scenario)))
                    .unwrap();
                let mut words = line[2 + point.scenario.to_string().len()..].split_whitespace();
                assert_eq!(
                    words.next().unwrap(),
                    point.samples.latency_ms.len().to_string(),
                    "{line}"
                );
                let mut words = words.filter(|word| {
                    !word.starts_with('±') && (*word == "-" || !word.starts_with('-'))
                });
                if let Some(latency) = &point.latency {
                    let ms = latency
                        .percentiles
                        .iter()
                        .map(|percentile| percentile.ms)
                        .chain([latency.max_ms]);
                    let printed: Vec<&str> = words.by_ref().take(5).collect();
                    assert_eq!(printed, ms.map(figure).collect::<Vec<_>>(), "{line}");
                } else {
                    assert!(words.by_ref().take(5).all(|word| word == "-"), "{line}");
                }
                assert_eq!(words.next().unwrap(), figure(point.images_per_second), "{line}");
                assert_eq!(words.next().unwrap(), figure(point.megapixels_per_second), "{line}");
                let verdict = if point.unstable.is_some() { "UNSTABLE" } else { "STABLE" };
                assert_eq!(words.next(), Some(verdict), "{line}");
            }
        }
        let why = report
            .runs
            .iter()
            .flat_map(|run| &run.points)
            .find_map(|point| point.unstable.as_ref())
            .unwrap();
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(&text).matches(&words(why)).count(), 1, "below its row");
    }

    #[test]
    fn intervals_are_printed_by_their_distances() {
        let percentile = |low_ms, high_ms| Percentile {
            percent: 99.0,
            ms: 41.0,
            low_ms,
            high_ms,
            bound_ms: None,
        };
        assert_eq!(with_interval(&percentile(Some(40.5), Some(43.0))), "41.0 -0.5+2");
        assert_eq!(with_interval(&percentile(Some(40.5), Some(41.6))), "41.0 ±0.60");
        assert_eq!(with_interval(&percentile(Some(40.5), None)), "41.0");
    }

    #[test]
    fn an_empty_report_is_a_line() {
        let report = BenchReport { runs: Vec::new(), ..sample::report() };
        let text = text(&report);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "protoseg 0.1.0, 2026-07-30 12:00 UTC: UNSTABLE: nothing was measured"
        );
        assert_eq!(
            lines[1..],
            ["  processor A processor · usable cores 2 · load before 0.25 over a minute"]
        );
    }
}
