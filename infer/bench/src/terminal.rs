//! A report as text for a terminal of 100 to 120 columns: for each way to run what it is, then a line a scenario.

use super::report::{BenchReport, BenchRun, Latency, Percentile, ScenarioResult};
use super::stages::shares;
use super::words::{
    count, device, facts, figure, largest, machine, milliseconds, moment, percent, rounded,
    seconds, sessions, verdict, within_bound,
};

/// Columns that lines of words are broken at.
const WIDTH: usize = 110;
/// An interval of which one side is longer than the other by more than this factor has two numbers.
const LOPSIDED: f64 = 1.5;
/// Before all that belongs to a run.
const INDENT: &str = "  ";
/// What the table's columns hold; the first is words, the others numbers.
const COLUMNS: [&str; 10] =
    ["latency in ms", "queries", "p50", "p90", "p95", "p99", "max", "images/s", "MP/s", "verdict"];

/// The report in plain words and aligned columns; no colours. Latencies are milliseconds. After a percentile stands
/// how far its interval of 95 % confidence reaches: `±` the farther end, or `-` and `+` where the ends are not about as far;
/// nothing where an end is not known.
pub fn text(report: &BenchReport) -> String {
    let verdict = verdict(report);
    let mut lines =
        vec![format!("{}, {}: {}", report.program, moment(report.began), verdict.words)];
    lines.extend(rows(&machine(&report.machine)));
    for run in &report.runs {
        lines.push(String::new());
        lines.extend(self::run(run));
    }
    if !report.against.is_empty() {
        lines.push(String::new());
        let told = report.against.iter().map(ToString::to_string);
        lines.extend(told.flat_map(|told| wrapped("", &[told], "")));
    }
    let intervals =
        report.runs.iter().flat_map(|run| &run.points).filter_map(|point| point.latency.as_ref());
    if intervals
        .flat_map(|latency| &latency.percentiles)
        .any(|percentile| reach(percentile).is_some())
    {
        lines.push(String::new());
        lines.push(
            "±, or - and +: with 95 % confidence the true percentile is no farther away."
                .to_owned(),
        );
    }
    lines.extend(largest(report));
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn run(run: &BenchRun) -> Vec<String> {
    let mut lines = vec![run.subject.name.clone()];
    lines.extend(rows(&facts(&run.subject)));
    if run.points.is_empty() {
        return lines;
    }
    let head = COLUMNS.map(str::to_owned).to_vec();
    let table: Vec<Vec<String>> = [head].into_iter().chain(run.points.iter().map(cells)).collect();
    let mut rows = aligned(&table).into_iter();
    lines.extend(rows.next());
    for (row, point) in rows.zip(&run.points) {
        lines.push(row);
        lines.extend(below(point));
    }
    lines.extend(
        run.within_bound.iter().flat_map(|found| wrapped(INDENT, &[within_bound(found)], "")),
    );
    lines
}

/// Labels with their texts, as many in a line as there is room for.
fn rows(rows: &[(&str, String)]) -> Vec<String> {
    let told: Vec<String> = rows.iter().map(|(label, text)| format!("{label} {text}")).collect();
    wrapped(INDENT, &told, " · ")
}

/// A point's cells in the table.
fn cells(point: &ScenarioResult) -> Vec<String> {
    let percentile = |percent| point.percentile(percent).map_or_else(|| "-".to_owned(), with_reach);
    let most = point
        .latency
        .as_ref()
        .map_or_else(|| "-".to_owned(), |latency: &Latency| figure(latency.max_ms));
    vec![
        point.scenario.to_string(),
        point.samples.latency_ms.len().to_string(),
        percentile(50.0),
        percentile(90.0),
        percentile(95.0),
        percentile(99.0),
        most,
        figure(point.images_per_second),
        figure(point.megapixels_per_second),
        if point.unstable.is_some() { "UNSTABLE" } else { "STABLE" }.to_owned(),
    ]
}

/// A percentile and how far the ends of its interval are from it: one number where they are about as far.
fn with_reach(percentile: &Percentile) -> String {
    let reach = reach(percentile).map(|[down, up]| match down.max(up) <= LOPSIDED * down.min(up) {
        true => format!(" ±{}", rounded(down.max(up), 2)),
        false => format!(" -{}+{}", rounded(down, 1), rounded(up, 1)),
    });
    figure(percentile.ms) + &reach.unwrap_or_default()
}

/// How far the lower and the upper end of a percentile's interval are from it, in milliseconds.
fn reach(percentile: &Percentile) -> Option<[f64; 2]> {
    Some([percentile.ms - percentile.low_ms?, percentile.high_ms? - percentile.ms])
}

/// What is said of a point below its line: why it is unstable, what failed, and where its time goes.
fn below(point: &ScenarioResult) -> Vec<String> {
    let indent = INDENT.repeat(2);
    let mut lines = Vec::new();
    if let Some(why) = &point.unstable {
        lines.extend(wrapped(&indent, &[format!("UNSTABLE: {why}")], ""));
    }
    if point.failed > 0 {
        let error =
            point.first_error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
        let failed =
            format!("{} not answered{error}", count(point.failed, "query was", "queries were"));
        lines.extend(wrapped(&indent, &[failed], ""));
    }
    let stage = |share: super::stages::Share| {
        format!("{} {} ({})", share.name, milliseconds(share.ms), percent(share.share))
    };
    let mut parts: Vec<String> =
        sessions(point).into_iter().chain(shares(point).into_iter().map(stage)).collect();
    let pictures = point.scenario.images_per_query();
    if pictures > 1 {
        parts.push(format!("summed over {pictures} pictures"));
    }
    if point.latency.is_none() {
        parts.insert(0, format!("all in {}", seconds(point.seconds)));
    }
    parts.extend(device(point));
    lines.extend(wrapped(&indent, &parts, ", "));
    lines
}

/// Rows with columns as wide as their widest cells: the first and the last to the left, the others to the right.
fn aligned(table: &[Vec<String>]) -> Vec<String> {
    let columns = table.first().map_or(0, Vec::len);
    let wide = |text: &String| text.chars().count();
    let widths: Vec<usize> = (0..columns)
        .map(|column| table.iter().map(|row| wide(&row[column])).max().unwrap_or(0))
        .collect();
    let padded = |(column, text): (usize, &String)| {
        let room = " ".repeat(widths[column] - wide(text));
        if column == 0 || column + 1 == columns {
            format!("{text}{room}")
        } else {
            format!("{room}{text}")
        }
    };
    let line = |row: &Vec<String>| {
        format!(
            "{INDENT}{}",
            row.iter().enumerate().map(padded).collect::<Vec<_>>().join("  ").trim_end()
        )
    };
    table.iter().map(line).collect()
}

/// Parts with a separator between them, broken after separators; what is longer than a line is broken between its words.
fn wrapped(indent: &str, parts: &[String], separator: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for (index, part) in parts.iter().enumerate() {
        let end = if index + 1 < parts.len() { separator.trim_end() } else { "" };
        // A line break within a text is a place to break as any other.
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
    lines
        .into_iter()
        .filter(|line| !line.is_empty())
        .map(|line| format!("{indent}{line}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn every_figure_stands_in_its_scenario_s_line() {
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
                    let told: Vec<&str> = words.by_ref().take(5).collect();
                    assert_eq!(told, ms.map(figure).collect::<Vec<_>>(), "{line}");
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
        assert_eq!(words(&text).matches(&words(why)).count(), 1, "below its line");
    }

    #[test]
    fn a_reach_holds_the_whole_interval() {
        let percentile = |low_ms, high_ms| Percentile {
            percent: 99.0,
            ms: 41.0,
            low_ms,
            high_ms,
            bound_ms: None,
        };
        assert_eq!(with_reach(&percentile(Some(40.5), Some(43.0))), "41.0 -0.5+2");
        assert_eq!(with_reach(&percentile(Some(40.5), Some(41.6))), "41.0 ±0.60");
        assert_eq!(with_reach(&percentile(Some(40.5), None)), "41.0");
    }

    #[test]
    fn a_report_of_nothing_is_a_line() {
        let report = BenchReport { runs: Vec::new(), ..sample::report() };
        let told = text(&report);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(
            lines[0],
            "protoseg 0.1.0, 2026-07-30 12:00 UTC: UNSTABLE: nothing was measured"
        );
        assert_eq!(
            lines[1..],
            ["  processor A processor · cores to use 2 · load before 0.25 over a minute"]
        );
    }
}
