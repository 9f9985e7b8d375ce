//! A report as CSV, in the columns that Triton's perf_analyzer writes with `-f`, so that what reads its files reads these.
//!
//! A file of perf_analyzer begins with the load, of which it has one kind, and its columns are read by their names or by their
//! places. So there is a table for each kind of load; its first columns are perf_analyzer's, nothing stands before them, and
//! none of their cells is empty. What it does not know, the name of the run first of all, follows after them.

use super::report::{BenchReport, BenchRun, Percentile, ScenarioResult};
use super::scenario::Scenario;
use super::stages::mean_of;

/// What the first column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadKind {
    /// Pictures that are asked for at the same time: of one client, of several, or of a query of several.
    Concurrency,
    /// Pictures that come in a second.
    RequestRate,
    /// Pictures that are there from the start. perf_analyzer has no such load; latencies are empty.
    Offline,
}

impl LoadKind {
    /// All of them, in the order of [`csv`].
    const ALL: [Self; 3] = [Self::Concurrency, Self::RequestRate, Self::Offline];

    /// For the names of files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::RequestRate => "request-rate",
            Self::Offline => "offline",
        }
    }

    /// The first column's name.
    fn column(self) -> &'static str {
        match self {
            Self::Concurrency => "Concurrency",
            Self::RequestRate => "Request Rate",
            Self::Offline => "Pictures",
        }
    }

    /// How large a point's load of this kind is; none where it has another kind.
    fn value(self, point: &ScenarioResult) -> Option<f64> {
        match (self, point.scenario) {
            (Self::Concurrency, Scenario::SingleStream) => Some(1.0),
            (
                Self::Concurrency,
                Scenario::Clients { clients: number } | Scenario::MultiStream { samples: number },
            ) => Some(number as f64),
            (Self::RequestRate, Scenario::Server { rate }) => Some(rate),
            (Self::Offline, Scenario::Offline) => {
                Some((point.images_per_second * point.seconds).round())
            }
            _ => None,
        }
    }
}

/// perf_analyzer's columns after the load and before the percentiles.
const PERF_ANALYZER: &str = "Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,\
                             Server Compute Infer,Server Compute Output,Client Recv";
/// The percentiles that follow, in percent.
const PERCENTILES: [f64; 4] = [50.0, 90.0, 95.0, 99.0];
/// Columns of our own after those.
const OWN: &str = "Run,Scenario,Queries,Failed,Avg latency,Max latency,p50 low,p50 high,p90 low,p90 high,p95 low,p95 high,\
                   p99 low,p99 high,p99 bound,Megapixels/Second,Joules/Inference,Label Agreement,Mean IoU,Stable,Reason,\
                   Model,File,Precision,Device,Sessions,Threads,Height,Width,Windows";

/// The tables of a report, one for each kind of load that it has; RFC 4180, with lines that end in a line feed, as
/// perf_analyzer's do. Within a run, points stand in the order of growing throughput, as there.
///
/// Times are whole microseconds. An inference is a picture. Of a query of several pictures, stages are those of one picture
/// on average, and percentiles those of the query. `decode`, `prepare` and `upload` are the input's part of computing,
/// `download`, `stitch` and `encode` the output's; what no stage accounts for, and a client's `wait`, is the network's, as
/// perf_analyzer reckons it.
pub fn csv(report: &BenchReport) -> Vec<(LoadKind, String)> {
    let table = |load: LoadKind| {
        let rows: String = report.runs.iter().flat_map(|run| rows(run, load)).collect();
        let percentiles = PERCENTILES.map(|percent| format!(",p{percent} latency")).concat();
        let head = format!("{},{PERF_ANALYZER}{percentiles},{OWN}\n", load.column());
        (!rows.is_empty()).then(|| (load, head + &rows))
    };
    LoadKind::ALL.into_iter().filter_map(table).collect()
}

fn rows(run: &BenchRun, load: LoadKind) -> Vec<String> {
    let mut points: Vec<(f64, &ScenarioResult)> =
        run.points.iter().filter_map(|point| Some((load.value(point)?, point))).collect();
    points.sort_by(|(_, left), (_, right)| {
        left.images_per_second.total_cmp(&right.images_per_second)
    });
    let row = |(load, point): (f64, &ScenarioResult)| {
        let cells: Vec<String> = [vec![short(load)], theirs(point), ours(run, point)]
            .concat()
            .iter()
            .map(|text| quoted(text))
            .collect();
        cells.join(",") + "\n"
    };
    points.into_iter().map(row).collect()
}

/// The cells of perf_analyzer's columns, but for the load.
fn theirs(point: &ScenarioResult) -> Vec<String> {
    // Stages are sums over the pictures of a query.
    let pictures = point.scenario.images_per_query().max(1) as f64;
    let stage = |names: &[&str]| {
        names.iter().map(|name| mean_of(&point.samples, name) / pictures).sum::<f64>()
    };
    let send = stage(&["send"]);
    let queue = stage(&["queue"]);
    let input = stage(&["decode", "prepare", "upload"]);
    let infer = stage(&["compute"]);
    let output = stage(&["download", "stitch", "encode"]);
    let receive = stage(&["receive"]);
    let mean = point.latency.as_ref().map_or(0.0, |latency| latency.mean_ms);
    let network = (mean - send - queue - input - infer - output - receive).max(0.0);
    let means = [send, network, queue, input, infer, output, receive].map(microseconds);
    let percentiles = PERCENTILES.map(|percent| percentile(point, percent, |found| Some(found.ms)));
    [vec![short(point.images_per_second)], means.to_vec(), percentiles.to_vec()].concat()
}

/// The cells of our own columns; empty where nothing is known.
fn ours(run: &BenchRun, point: &ScenarioResult) -> Vec<String> {
    let subject = &run.subject;
    let number = |number: Option<f64>| number.map(|number| number.to_string()).unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let whole = |number: Option<usize>| number.map(|number| number.to_string()).unwrap_or_default();
    let latency = point.latency.as_ref();
    let intervals = PERCENTILES.map(|percent| {
        [
            percentile(point, percent, |found| found.low_ms),
            percentile(point, percent, |found| found.high_ms),
        ]
    });
    let before = [
        subject.name.clone(),
        point.scenario.to_string(),
        point.samples.latency_ms.len().to_string(),
        point.failed.to_string(),
        latency.map(|latency| microseconds(latency.mean_ms)).unwrap_or_default(),
        latency.map(|latency| microseconds(latency.max_ms)).unwrap_or_default(),
    ];
    let after = [
        percentile(point, 99.0, |found| found.bound_ms),
        short(point.megapixels_per_second),
        number(point.energy.map(|energy| energy.joules_per_image)),
        number(subject.accuracy.probe_agreement),
        number(subject.accuracy.mean_iou),
        point.unstable.is_none().to_string(),
        text(&point.unstable),
        subject.model.clone(),
        text(&subject.file),
        text(&subject.precision),
        text(&subject.device),
        whole(point.sessions),
        whole(point.threads),
        subject.pictures.height.to_string(),
        subject.pictures.width.to_string(),
        whole(subject.windows),
    ];
    [before.to_vec(), intervals.concat(), after.to_vec()].concat()
}

/// Something of a percentile in microseconds; empty where it is not known.
fn percentile(point: &ScenarioResult, percent: f64, of: fn(&Percentile) -> Option<f64>) -> String {
    point.percentile(percent).and_then(of).map(microseconds).unwrap_or_default()
}

fn microseconds(ms: f64) -> String {
    format!("{:.0}", ms * 1000.0)
}

/// A number of six digits, as perf_analyzer writes it.
fn short(value: f64) -> String {
    let rounded: f64 = format!("{value:.5e}").parse().unwrap_or(value);
    rounded.to_string()
}

/// A cell as RFC 4180 wants it.
fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    /// perf_analyzer's first line under `--concurrency-range`, from its documentation.
    const DOCUMENTED: &str = "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute \
                              Input,Server Compute Infer,Server Compute Output,Client Recv,p50 latency,p90 latency,p95 \
                              latency,p99 latency";

    /// A reader by the grammar of RFC 4180, character by character.
    fn read(csv: &str) -> Vec<Vec<String>> {
        let (mut rows, mut row, mut cell, mut quoted) =
            (Vec::new(), Vec::new(), String::new(), false);
        let mut characters = csv.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '"' if quoted && characters.peek() == Some(&'"') => cell.extend(characters.next()),
                '"' => quoted = !quoted,
                ',' if !quoted => row.push(std::mem::take(&mut cell)),
                '\n' if !quoted => {
                    row.push(std::mem::take(&mut cell));
                    rows.push(std::mem::take(&mut row));
                }
                _ => cell.push(character),
            }
        }
        assert!(!quoted && cell.is_empty() && row.is_empty(), "torn: {cell} {row:?}");
        rows
    }

    fn table(report: &BenchReport, load: LoadKind) -> Vec<Vec<String>> {
        let csv = csv(report).into_iter().find(|(kind, _)| *kind == load);
        read(&csv.expect("no such load").1)
    }

    fn cell<'a>(rows: &'a [Vec<String>], row: usize, column: &str) -> &'a str {
        &rows[row][rows[0]
            .iter()
            .position(|name| name == column)
            .unwrap_or_else(|| panic!("no column {column}"))]
    }

    #[test]
    fn the_first_columns_are_those_of_perf_analyzer() {
        let report = sample::report();
        for (load, csv) in csv(&report) {
            let rows = read(&csv);
            assert_eq!(rows[0][1..13].join(","), DOCUMENTED.split_once(',').unwrap().1, "{load:?}");
            assert!(
                rows.len() > 1 && rows.iter().all(|row| row.len() == rows[0].len()),
                "{load:?}"
            );
            let numbers = if load == LoadKind::Offline { 9 } else { 13 };
            let number = |cell: &String| cell.parse::<f64>().is_ok_and(|number| number >= 0.0);
            assert!(rows[1..].iter().all(|row| row[..numbers].iter().all(number)), "{csv}");
        }
        assert_eq!(csv(&report)[0].1.split(",Run").next().unwrap(), DOCUMENTED);
        assert_eq!(table(&report, LoadKind::RequestRate)[0][0], "Request Rate");
    }

    #[test]
    fn figures_are_those_of_the_report() {
        let report = sample::report();
        let rows = table(&report, LoadKind::Concurrency);
        let stream = report.runs[0]
            .points
            .iter()
            .find(|point| point.scenario == Scenario::SingleStream)
            .unwrap();
        let latency = stream.latency.as_ref().unwrap();
        let row = (1..rows.len())
            .find(|&row| {
                cell(&rows, row, "Run") == report.runs[0].subject.name
                    && cell(&rows, row, "Concurrency") == "1"
            })
            .unwrap();
        let read = |column: &str| cell(&rows, row, column).parse::<f64>().unwrap();
        for percentile in &latency.percentiles {
            let told = read(&format!("p{} latency", percentile.percent));
            assert!((told - percentile.ms * 1000.0).abs() <= 0.5, "{told} {percentile:?}");
        }
        let parts: f64 =
            ["Client Send", "Network+Server Send/Recv", "Server Queue", "Server Compute Input"]
                .into_iter()
                .chain(["Server Compute Infer", "Server Compute Output", "Client Recv"])
                .map(read)
                .sum();
        // Each of the seven is rounded by itself.
        assert!(
            (parts - latency.mean_ms * 1000.0).abs() <= 7.0 * 0.5,
            "{parts} {}",
            latency.mean_ms
        );
        let compute =
            &stream.samples.stages.iter().find(|stage| stage.name == "compute").unwrap().ms;
        let mean = compute.iter().sum::<f64>() / compute.len() as f64;
        assert!((read("Server Compute Infer") - mean * 1000.0).abs() <= 0.5);
        assert!((read("Inferences/Second") / stream.images_per_second - 1.0).abs() < 1e-5);
    }

    #[test]
    fn what_names_hold_stays_in_its_cell() {
        let mut report = sample::report();
        report.runs[0].subject.name = "a \"quick\", small\nmodel".to_owned();
        let rows = table(&report, LoadKind::Concurrency);
        assert_eq!(cell(&rows, 1, "Run"), "a \"quick\", small\nmodel");
        assert_eq!(cell(&rows, 1, "Model"), report.runs[0].subject.model);
        report.runs.clear();
        assert_eq!(csv(&report), []);
    }

    #[test]
    fn stages_of_several_pictures_are_those_of_one() {
        let mut report = sample::report();
        report.runs.truncate(1);
        report.runs[0]
            .points
            .retain(|point| matches!(point.scenario, Scenario::MultiStream { .. }));
        let point = &report.runs[0].points[0];
        let pictures = point.scenario.images_per_query() as f64;
        let rows = table(&report, LoadKind::Concurrency);
        let told: f64 = cell(&rows, 1, "Server Compute Infer").parse().unwrap();
        assert!((told - mean_of(&point.samples, "compute") * 1000.0 / pictures).abs() <= 0.5);
        assert_eq!(cell(&rows, 1, "Concurrency"), pictures.to_string());
    }
}
