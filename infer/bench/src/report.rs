//! The report of `protoseg bench`: machine, subjects with all their options, and for each scenario
//! every sample and the statistics; and its JSON file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use protoseg_models::versioned::{self, JsonError};
use serde::{Deserialize, Serialize};

use super::ab::AbComparison;
use super::load::Scenario;
use crate::machine::MachineInfo;

/// Results of one call of `protoseg bench`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchReport {
    /// [`BenchReport::VERSION`].
    pub version: u32,
    /// The program and its version.
    pub program: String,
    /// Unix time in seconds.
    pub began: u64,
    /// Its load is that before the benchmark began.
    pub machine: MachineInfo,
    /// In the order of measurement.
    pub runs: Vec<BenchRun>,
    #[serde(default)]
    pub against: Vec<AbComparison>,
}

/// One way to run one model, under each scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchRun {
    pub subject: Subject,
    pub points: Vec<ScenarioResult>,
    /// Result of the search for the largest rate within a latency bound.
    #[serde(default)]
    pub within_bound: Option<RateWithinBound>,
}

/// Largest rate of arrivals whose 99th percentile of latency keeps to a bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RateWithinBound {
    pub bound_ms: f64,
    /// Largest measured rate that keeps to the bound; `None` where no measured rate does.
    pub rate: Option<f64>,
    /// Least measured rate that does not; `None` where all do.
    pub beyond: Option<f64>,
    /// True where MLPerf's bound of 99 % confidence was compared; of too few samples the percentile
    /// itself was.
    pub sure: bool,
}

/// A model with the way it was opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// Unique in a report.
    pub name: String,
    /// Bundle folder or ONNX file; `None` for a server.
    pub bundle: Option<PathBuf>,
    /// Address of the server; `None` in this process.
    pub url: Option<String>,
    /// The model's fingerprint, or the server's name and version of it.
    pub model: String,
    /// The ONNX file in the bundle.
    pub file: Option<String>,
    pub precision: Option<String>,
    pub device: Option<String>,
    /// Engine options that are not defaults.
    pub options: BTreeMap<String, String>,
    #[serde(rename = "pictures")]
    pub images: ImageSummary,
    /// Windows per image; 1 where it is run whole, `None` for a server.
    pub windows: Option<usize>,
    /// Pixels that the network runs per pixel of an image.
    pub pixel_ratio: Option<f64>,
    /// Latency includes decoding image files and encoding label files; else it goes from pixels to
    /// labels in memory.
    pub end_to_end: bool,
    pub open_seconds: Option<f64>,
    #[serde(alias = "first_seconds")]
    pub first_run_seconds: Option<f64>,
    /// Nodes of the file by execution provider; empty where unknown.
    pub nodes: BTreeMap<String, usize>,
    pub accuracy: Accuracy,
    /// Peak host memory of the process until the end of this run, in bytes.
    pub peak_host_bytes: Option<u64>,
}

/// The images of a measurement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSummary {
    /// Size of the first image.
    pub height: usize,
    pub width: usize,
    /// Number of different images.
    pub count: usize,
    pub source: String,
}

/// Correctness of the labels, checked by the same program on the same files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Share of the probe's pixels with the reference's label, ties excepted.
    pub probe_agreement: Option<f64>,
    /// Source of the probe's labels: libtorch, or the model itself when it was imported.
    pub reference: Option<String>,
    /// In percent, on `data`.
    pub mean_iou: Option<f64>,
    pub data: Option<String>,
    /// Why the accuracy is unknown.
    pub missing: Option<String>,
}

/// Samples and statistics of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScenarioResult {
    pub scenario: Scenario,
    /// `None` for a server.
    pub sessions: Option<usize>,
    /// Threads of each session.
    pub threads: Option<usize>,
    pub warm_up: WarmUp,
    /// Why the figures are unreliable; `None` where they are stable.
    pub unstable: Option<String>,
    /// Answered queries in the order of sending.
    pub samples: SampleColumns,
    /// Number of queries that were not answered.
    pub failed: usize,
    pub first_error: Option<String>,
    /// From the first query to the last answer; in the open loop at least the time asked for.
    pub seconds: f64,
    /// `None` for the offline scenario.
    pub latency: Option<Latency>,
    #[serde(alias = "images_a_second")]
    pub images_per_second: f64,
    #[serde(alias = "megapixels_a_second")]
    pub megapixels_per_second: f64,
    /// Of the GPU, including the warm-up.
    pub energy: Option<Energy>,
    /// Peak memory of the GPU.
    pub peak_device_bytes: Option<u64>,
}

impl ScenarioResult {
    /// One of the reported percentiles of latency.
    pub fn percentile(&self, percent: f64) -> Option<&Percentile> {
        self.latency.as_ref()?.percentiles.iter().find(|percentile| percentile.percent == percent)
    }
}

/// Queries before the samples.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WarmUp {
    pub queries: usize,
    pub seconds: f64,
    #[serde(alias = "stretches")]
    pub windows: Vec<MeasurementWindow>,
}

/// Consecutive queries of a warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeasurementWindow {
    /// Median.
    pub latency_ms: f64,
    #[serde(alias = "queries_a_second")]
    pub queries_per_second: f64,
}

/// Raw samples by column, in milliseconds; entry i of each column is of query i.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SampleColumns {
    /// Since the first query.
    pub due_ms: Vec<f64>,
    /// From due to sent; 0 in a closed loop.
    pub late_ms: Vec<f64>,
    /// From due to answered.
    pub latency_ms: Vec<f64>,
    /// In the order of execution, each summed over the images of a query.
    pub stages: Vec<StageColumn>,
}

/// One stage of every query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageColumn {
    /// `decode`, `queue`, `prepare`, `upload`, `compute`, `download`, `stitch` or `encode`; for a
    /// server `wait`, from the first byte sent to the head of the response, and `receive`.
    pub name: String,
    pub ms: Vec<f64>,
}

/// Distribution of latency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub mean_ms: f64,
    pub min_ms: f64,
    pub max_ms: f64,
    /// The 50th, 90th, 95th and 99th.
    pub percentiles: Vec<Percentile>,
}

/// A percentile with its order-statistic interval; an end is `None` where there are too few samples
/// for it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    pub percent: f64,
    /// Nearest rank.
    pub ms: f64,
    /// Lower end of the two-sided interval of 95 % confidence.
    pub low_ms: Option<f64>,
    /// Upper end of that interval.
    pub high_ms: Option<f64>,
    /// One-sided upper bound of 99 % confidence, as in MLPerf's early stopping.
    pub bound_ms: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    #[serde(alias = "joules_an_image")]
    pub joules_per_image: f64,
    /// Mean.
    pub watts: f64,
}

/// A report that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BenchReportError {
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error(
        "{} is not a report of `protoseg bench`; name the JSON file that `protoseg bench … --report FILE` wrote",
        path.display()
    )]
    NotAReport { path: PathBuf },
    #[error(
        "{}: report format {found} is not supported, this program reads format {}; measure again with this program, or \
         read the report with the one that wrote it",
        path.display(),
        BenchReport::VERSION
    )]
    Version { path: PathBuf, found: u64 },
    /// serde_json would write null.
    #[error(
        "{} is not written: the {what} of {subject}, {scenario}, is {value}, which JSON cannot hold",
        path.display()
    )]
    NotFinite { path: PathBuf, what: &'static str, subject: String, scenario: String, value: f64 },
}

/// Fields that every report has.
#[derive(Deserialize)]
struct Header {
    version: Option<serde_json::Value>,
    program: Option<serde_json::Value>,
    runs: Option<serde::de::IgnoredAny>,
}

impl BenchReport {
    /// Version of the format.
    pub const VERSION: u32 = 1;

    /// Reads a file that [`Self::write`] wrote, or that was printed as JSON.
    pub fn read(path: &Path) -> Result<Self, BenchReportError> {
        let foreign = || BenchReportError::NotAReport { path: path.into() };
        let header: Header = versioned::read_unversioned(path).map_err(|error| match error {
            JsonError::Content { ref source, .. } if source.is_data() || is_no_json(source) => {
                foreign()
            }
            error => error.into(),
        })?;
        let (Some(version), Some(_), Some(_)) = (header.version, header.program, header.runs)
        else {
            return Err(foreign());
        };
        match version.as_u64() {
            Some(found) if found == u64::from(Self::VERSION) => {
                Ok(versioned::read_unversioned(path)?)
            }
            Some(found) => Err(BenchReportError::Version { path: path.into(), found }),
            None => Err(foreign()),
        }
    }

    /// Writes JSON atomically; refuses NaN and infinities.
    pub fn write(&self, path: &Path) -> Result<(), BenchReportError> {
        let check =
            |subject: &str, scenario: &dyn ToString, values: Vec<(&'static str, f64)>| match values
                .into_iter()
                .find(|(_, value)| !value.is_finite())
            {
                None => Ok(()),
                Some((what, value)) => Err(BenchReportError::NotFinite {
                    path: path.into(),
                    what,
                    subject: subject.into(),
                    scenario: scenario.to_string(),
                    value,
                }),
            };
        for run in &self.runs {
            let name = &run.subject.name;
            check(name, &"all scenarios", run.subject.numbers())?;
            for point in &run.points {
                check(name, &point.scenario, point.numbers())?;
            }
        }
        for comparison in &self.against {
            let mut numbers = vec![("ratio", comparison.ratio.ratio)];
            numbers.extend(comparison.blocks.iter().map(|block| ("block", block.ms)));
            if let Some(interval) = comparison.ratio.interval {
                numbers.extend([("ratio", interval.low), ("ratio", interval.high)]);
            }
            check(&comparison.b, &comparison.scenario, numbers)?;
        }
        Ok(versioned::write(path, self)?)
    }
}

/// Returns true where a file differs from JSON at its first character, as a page does.
fn is_no_json(error: &serde_json::Error) -> bool {
    error.is_syntax() && error.line() == 1 && error.column() <= 1
}

impl Subject {
    fn numbers(&self) -> Vec<(&'static str, f64)> {
        let optional = [
            ("time to open", self.open_seconds),
            ("time of the first run", self.first_run_seconds),
            ("pixel ratio", self.pixel_ratio),
            ("agreement", self.accuracy.probe_agreement),
            ("mean IoU", self.accuracy.mean_iou),
        ];
        optional.into_iter().filter_map(|(what, value)| Some((what, value?))).collect()
    }
}

impl ScenarioResult {
    fn numbers(&self) -> Vec<(&'static str, f64)> {
        let mut numbers = vec![
            ("warm-up", self.warm_up.seconds),
            ("time", self.seconds),
            ("rate", self.images_per_second),
            ("rate in megapixels", self.megapixels_per_second),
        ];
        let mut add = |what: &'static str, values: &[f64]| {
            numbers.extend(values.iter().map(|&value| (what, value)));
        };
        add("due time of a query", &self.samples.due_ms);
        add("delay of a query", &self.samples.late_ms);
        add("latency of a query", &self.samples.latency_ms);
        for stage in &self.samples.stages {
            add("stage of a query", &stage.ms);
        }
        for window in &self.warm_up.windows {
            add("warm-up", &[window.latency_ms, window.queries_per_second]);
        }
        if let Some(Latency { mean_ms, min_ms, max_ms, percentiles }) = &self.latency {
            add("latency", &[*mean_ms, *min_ms, *max_ms]);
            for &Percentile { percent, ms, low_ms, high_ms, bound_ms } in percentiles {
                add("percentile of latency", &[percent, ms]);
                for end in [low_ms, high_ms, bound_ms].into_iter().flatten() {
                    add("interval of latency", &[end]);
                }
            }
        }
        if let Some(Energy { joules_per_image, watts }) = self.energy {
            add("energy", &[joules_per_image, watts]);
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::super::compare::tests::report;
    use super::*;

    #[test]
    fn reports_survive_a_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("report.json");
        let report = report("main", 20.0, 0);
        report.write(&path).unwrap();
        assert!(BenchReport::read(&path).unwrap() == report);
    }

    #[test]
    fn non_finite_numbers_are_refused_and_the_old_file_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("report.json");
        std::fs::write(&path, "old").unwrap();
        let spoil: [fn(&mut BenchReport, f64); 4] = [
            |report, value| report.runs[0].points[0].samples.latency_ms[3] = value,
            |report, value| report.runs[0].points[0].images_per_second = value,
            |report, value| report.runs[0].points[0].warm_up.seconds = value,
            |report, value| report.runs[0].subject.first_run_seconds = Some(value),
        ];
        for (index, spoil) in spoil.into_iter().enumerate() {
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let mut report = report("main", 20.0, 0);
                spoil(&mut report, value);
                let error = report.write(&path).unwrap_err();
                assert!(matches!(error, BenchReportError::NotFinite { .. }), "{index}: {error}");
                assert!(error.to_string().contains("report.json is not written: the "), "{error}");
            }
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    }

    #[test]
    fn other_files_are_not_reports() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.json");
        let error = |text: &str| {
            std::fs::write(&path, text).unwrap();
            BenchReport::read(&path).unwrap_err()
        };
        for text in [
            "[1]",
            "3",
            "{}",
            r#"{"version": "1.4", "files": []}"#,
            r#"{"version": "1", "program": "x", "runs": []}"#,
            "<!DOCTYPE html>",
        ] {
            assert!(matches!(error(text), BenchReportError::NotAReport { .. }), "{text}");
        }
        for text in ["", "{", "no JSON", r#"{"version": 1, "program": "x", "runs": [3]}"#] {
            assert!(
                matches!(error(text), BenchReportError::Json(JsonError::Content { .. })),
                "{text}"
            );
        }
        let newer = error(r#"{"version": 2, "program": "x", "runs": [3]}"#);
        assert!(matches!(newer, BenchReportError::Version { found: 2, .. }), "{newer}");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(
            BenchReport::read(&path),
            Err(BenchReportError::Json(JsonError::File(_)))
        ));
    }
}
