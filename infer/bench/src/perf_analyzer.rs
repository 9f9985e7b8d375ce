//! A report as CSV in the columns that Triton's perf_analyzer writes with `-f`, for programs that
//! read those files.
//!
//! A file of perf_analyzer begins with the load, of which it has one kind, and its columns are read
//! by name or by position. So each kind of load has a table of its own; perf_analyzer's columns
//! come first, and none of their cells is empty. Our own columns, beginning with the name of the
//! run, follow.

use super::load::Scenario;
use super::report::{BenchReport, BenchRun, Percentile, ScenarioResult};
use super::statistics::mean_of;

/// Meaning of the first column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadKind {
    /// Images requested at the same time, by one client, by several, or in one query.
    Concurrency,
    /// Images per second.
    RequestRate,
    /// Number of images. perf_analyzer has no such load; latencies are empty.
    Offline,
}

impl LoadKind {
    /// In the order of [`csv`].
    const ALL: [Self; 3] = [Self::Concurrency, Self::RequestRate, Self::Offline];

    /// For file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::RequestRate => "request-rate",
            Self::Offline => "offline",
        }
    }

    fn column(self) -> &'static str {
        match self {
            Self::Concurrency => "Concurrency",
            Self::RequestRate => "Request Rate",
            Self::Offline => "Pictures",
        }
    }

    /// The load of a point; `None` where it is of another kind.
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

/// perf_analyzer's columns between the load and the percentiles.
const PERF_ANALYZER: &str = "Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,\
                             Server Compute Input,Server Compute Infer,Server Compute Output,\
                             Client Recv";

/// In percent.
const PERCENTILES: [f64; 4] = [50.0, 90.0, 95.0, 99.0];

/// Our columns between the percentiles and their intervals, and after those.
const OWN: [&str; 2] = [
    "Run,Scenario,Queries,Failed,Avg latency,Max latency",
    "p99 bound,Megapixels/Second,Joules/Inference,Label Agreement,Mean IoU,Stable,Reason,Model,\
     File,Precision,Device,Sessions,Threads,Height,Width,Windows",
];

/// A CSV table (RFC 4180, but with line feeds as perf_analyzer writes them) for each kind of load
/// in a report. Within a run, points are sorted by throughput, as there.
///
/// Times are whole microseconds. An inference is an image; stages of a query of several images are
/// means per image, and percentiles those of the query. `decode`, `prepare` and `upload` are
/// compute input, `download`, `stitch` and `encode` compute output; what no stage accounts for, and
/// a client's `wait`, is the network's.
pub fn csv(report: &BenchReport) -> Result<Vec<(LoadKind, String)>, csv::Error> {
    let mut tables = Vec::new();
    for load in LoadKind::ALL {
        let rows: Vec<Vec<String>> = report.runs.iter().flat_map(|run| rows(run, load)).collect();
        if rows.is_empty() {
            continue;
        }
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(header(load))?;
        rows.iter().try_for_each(|row| writer.write_record(row))?;
        let bytes = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
        tables.push((load, String::from_utf8_lossy(&bytes).into_owned()));
    }
    Ok(tables)
}

fn header(load: LoadKind) -> Vec<String> {
    let percentiles = PERCENTILES.map(|percent| format!("p{percent} latency")).join(",");
    let intervals = PERCENTILES.map(|percent| format!("p{percent} low,p{percent} high")).join(",");
    let groups = [load.column(), PERF_ANALYZER, &percentiles, OWN[0], &intervals, OWN[1]];
    groups.join(",").split(',').map(str::to_owned).collect()
}

fn rows(run: &BenchRun, load: LoadKind) -> Vec<Vec<String>> {
    let mut points: Vec<(f64, &ScenarioResult)> =
        run.points.iter().filter_map(|point| Some((load.value(point)?, point))).collect();
    points.sort_by(|(_, left), (_, right)| {
        left.images_per_second.total_cmp(&right.images_per_second)
    });
    let row = |(load, point): (f64, &ScenarioResult)| {
        let mut row = vec![short(load)];
        row.extend(perf_analyzer_cells(point));
        row.extend(own_cells(run, point));
        row
    };
    points.into_iter().map(row).collect()
}

/// Cells of perf_analyzer's columns after the load.
fn perf_analyzer_cells(point: &ScenarioResult) -> Vec<String> {
    // Stages are sums over the images of a query.
    let images = point.scenario.images_per_query().max(1) as f64;
    let stage = |names: &[&str]| {
        names.iter().map(|name| mean_of(&point.samples, name) / images).sum::<f64>()
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
    [short(point.images_per_second)].into_iter().chain(means).chain(percentiles).collect()
}

/// Cells of our own columns; empty where unknown.
fn own_cells(run: &BenchRun, point: &ScenarioResult) -> Vec<String> {
    let subject = &run.subject;
    let number = |number: Option<f64>| number.map(|number| number.to_string()).unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let whole = |number: Option<usize>| number.map(|number| number.to_string()).unwrap_or_default();
    let latency = point.latency.as_ref();
    let mut cells = vec![
        subject.name.clone(),
        point.scenario.to_string(),
        point.samples.latency_ms.len().to_string(),
        point.failed.to_string(),
        latency.map(|latency| microseconds(latency.mean_ms)).unwrap_or_default(),
        latency.map(|latency| microseconds(latency.max_ms)).unwrap_or_default(),
    ];
    for percent in PERCENTILES {
        cells.push(percentile(point, percent, |found| found.low_ms));
        cells.push(percentile(point, percent, |found| found.high_ms));
    }
    cells.extend([
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
        subject.images.height.to_string(),
        subject.images.width.to_string(),
        whole(subject.windows),
    ]);
    cells
}

/// A time of a percentile in microseconds; empty where unknown.
fn percentile(
    point: &ScenarioResult,
    percent: f64,
    time: fn(&Percentile) -> Option<f64>,
) -> String {
    point.percentile(percent).and_then(time).map(microseconds).unwrap_or_default()
}

fn microseconds(ms: f64) -> String {
    format!("{:.0}", ms * 1000.0)
}

/// Six significant digits, as perf_analyzer writes numbers.
fn short(value: f64) -> String {
    let rounded: f64 = format!("{value:.5e}").parse().unwrap_or(value);
    rounded.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    /// perf_analyzer's first line under `--concurrency-range`, from its documentation.
    const DOCUMENTED: &str = "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute \
                              Input,Server Compute Infer,Server Compute Output,Client Recv,p50 latency,p90 latency,p95 \
                              latency,p99 latency";

    fn read(csv: &str) -> Vec<Vec<String>> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(csv.as_bytes());
        let rows = reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect());
        rows.collect()
    }

    fn table(report: &BenchReport, load: LoadKind) -> Vec<Vec<String>> {
        let csv = csv(report).unwrap().into_iter().find(|(kind, _)| *kind == load);
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
        for (load, csv) in csv(&report).unwrap() {
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
        assert_eq!(csv(&report).unwrap()[0].1.split(",Run").next().unwrap(), DOCUMENTED);
        assert_eq!(table(&report, LoadKind::RequestRate)[0][0], "Request Rate");
    }

    #[test]
    fn cells_hold_the_figures_of_the_report() {
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
            let cell = read(&format!("p{} latency", percentile.percent));
            assert!((cell - percentile.ms * 1000.0).abs() <= 0.5, "{cell} {percentile:?}");
        }
        let parts: f64 =
            ["Client Send", "Network+Server Send/Recv", "Server Queue", "Server Compute Input"]
                .into_iter()
                .chain(["Server Compute Infer", "Server Compute Output", "Client Recv"])
                .map(read)
                .sum();
        // Each of the seven is rounded.
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
    fn special_characters_are_quoted() {
        let mut report = sample::report();
        report.runs[0].subject.name = "a \"quick\", small\nmodel".to_owned();
        let rows = table(&report, LoadKind::Concurrency);
        assert_eq!(cell(&rows, 1, "Run"), "a \"quick\", small\nmodel");
        assert_eq!(cell(&rows, 1, "Model"), report.runs[0].subject.model);
        report.runs.clear();
        assert_eq!(csv(&report).unwrap(), []);
    }

    #[test]
    fn stages_of_several_images_are_means_per_image() {
        let mut report = sample::report();
        report.runs.truncate(1);
        report.runs[0]
            .points
            .retain(|point| matches!(point.scenario, Scenario::MultiStream { .. }));
        let point = &report.runs[0].points[0];
        let images = point.scenario.images_per_query() as f64;
        let rows = table(&report, LoadKind::Concurrency);
        let infer: f64 = cell(&rows, 1, "Server Compute Infer").parse().unwrap();
        assert!((infer - mean_of(&point.samples, "compute") * 1000.0 / images).abs() <= 0.5);
        assert_eq!(cell(&rows, 1, "Concurrency"), images.to_string());
    }
}
