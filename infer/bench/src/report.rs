//! What a benchmark found, as its JSON file holds it: the machine, what was measured with every option, and for each scenario
//! every sample beside what follows from the samples.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ab::AbComparison;
use super::scenario::Scenario;
use crate::machine::MachineInfo;

/// All that one call of `protoseg bench` found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchReport {
    /// Of this format: [`BenchReport::VERSION`].
    pub version: u32,
    /// The program and its version.
    pub program: String,
    /// When it began, in seconds since 1970 (UTC).
    pub began: u64,
    /// The machine that it ran on; the load is that before it began.
    pub machine: MachineInfo,
    /// What was measured, in the order in which it was.
    pub runs: Vec<BenchRun>,
    /// Two of them against each other, where they were measured in turns.
    #[serde(default)]
    pub against: Vec<AbComparison>,
}

impl BenchReport {
    /// The version of the format that is written.
    pub const VERSION: u32 = 1;
}

/// One way to run one model, under each scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchRun {
    /// What was measured.
    pub subject: Subject,
    /// What was found, a scenario each.
    pub points: Vec<ScenarioResult>,
    /// How many pictures may come in a second, where that was looked for.
    #[serde(default)]
    pub within_bound: Option<RateWithinBound>,
}

/// The most pictures that may come in a second, so that their latency keeps to a bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RateWithinBound {
    /// What the 99th percentile of latency may be, in milliseconds.
    pub bound_ms: f64,
    /// The largest rate that was measured and kept to it; none where not even the least that was tried did.
    pub rate: Option<f64>,
    /// The least rate that was measured and did not; none where all did.
    pub beyond: Option<f64>,
    /// Whether MLPerf's bound of 99 % confidence was held against it; else, of too few samples, the percentile itself.
    pub sure: bool,
}

/// What was measured, and how it was opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// What tells it from the others of a report.
    pub name: String,
    /// The bundle folder or file; none of a server.
    pub bundle: Option<PathBuf>,
    /// Address of the server that was asked; none where the model ran in this process.
    pub url: Option<String>,
    /// The model's fingerprint, or the version that the server tells.
    pub model: String,
    /// The ONNX file in the bundle.
    pub file: Option<String>,
    /// Number format of that file.
    pub precision: Option<String>,
    /// What computed.
    pub device: Option<String>,
    /// Every option that is not its default.
    pub options: BTreeMap<String, String>,
    /// The pictures that were asked about.
    pub pictures: ImageSummary,
    /// Windows of a picture; 1 where it is run whole. None of a server.
    pub windows: Option<usize>,
    /// Pixels that the network runs for each pixel of a picture.
    pub pixel_ratio: Option<f64>,
    /// Whether decoding picture files and encoding label files are part of the latency; else it goes from pixels in memory to
    /// labels in memory.
    pub end_to_end: bool,
    /// Seconds until the model was open.
    pub open_seconds: Option<f64>,
    /// Seconds of the first run.
    #[serde(alias = "first_seconds")]
    pub first_run_seconds: Option<f64>,
    /// How many nodes of the file each execution provider ran; empty where that was not asked.
    pub nodes: BTreeMap<String, usize>,
    /// Whether it computes what it should.
    pub accuracy: Accuracy,
    /// Bytes of host memory that the process occupied at most, until the end of this run.
    pub peak_host_bytes: Option<u64>,
}

/// The pictures that were asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSummary {
    /// Pixels from top to bottom; of the first, where they differ.
    pub height: usize,
    /// Pixels from left to right.
    pub width: usize,
    /// How many different ones there were.
    pub count: usize,
    /// Where they come from.
    pub source: String,
}

/// Whether a model computes what it should, by the same program from the same files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Share of the probe's pixels with the reference's label, but for ties.
    pub probe_agreement: Option<f64>,
    /// Whose labels the probe holds: libtorch's, or the model's own as it was adopted.
    pub reference: Option<String>,
    /// Mean IoU in percent on labelled pictures.
    pub mean_iou: Option<f64>,
    /// Those pictures.
    pub data: Option<String>,
    /// Why nothing is known.
    pub missing: Option<String>,
}

/// What one scenario showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScenarioResult {
    /// How requests came.
    pub scenario: Scenario,
    /// Sessions of the model; none of a server, which does not tell.
    pub sessions: Option<usize>,
    /// Threads of each session.
    pub threads: Option<usize>,
    /// What went before.
    pub warm_up: WarmUp,
    /// Why the figures are not to be trusted; none where they are stable.
    pub unstable: Option<String>,
    /// Every query that was answered, in the order in which they were sent.
    pub samples: SampleColumns,
    /// Queries that were not answered, and what the first of them met.
    pub failed: usize,
    /// What the first of them met.
    pub first_error: Option<String>,
    /// Seconds from the first query to the last answer; where queries came by themselves for a time, at least that time.
    pub seconds: f64,
    /// Latency of queries; none of the offline scenario, which has no such thing.
    pub latency: Option<Latency>,
    /// Pictures in a second.
    #[serde(alias = "images_a_second")]
    pub images_per_second: f64,
    /// Megapixels of pictures in a second.
    #[serde(alias = "megapixels_a_second")]
    pub megapixels_per_second: f64,
    /// Energy that the GPU took, warm-up and all, where it tells.
    pub energy: Option<Energy>,
    /// Bytes of the GPU's memory that were occupied at most.
    pub peak_device_bytes: Option<u64>,
}

impl ScenarioResult {
    /// A percentile of latency, such as the 99th; none where it is not among those that are told.
    pub fn percentile(&self, percent: f64) -> Option<&Percentile> {
        self.latency.as_ref()?.percentiles.iter().find(|percentile| percentile.percent == percent)
    }
}

/// What went before the samples.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WarmUp {
    /// Queries that were thrown away.
    pub queries: usize,
    /// Seconds that they took.
    pub seconds: f64,
    /// The windows that were compared until three in a row were alike.
    #[serde(alias = "stretches")]
    pub windows: Vec<MeasurementWindow>,
}

/// Some queries in a row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeasurementWindow {
    /// Median latency in milliseconds.
    pub latency_ms: f64,
    /// Queries in a second.
    #[serde(alias = "queries_a_second")]
    pub queries_per_second: f64,
}

/// The raw samples, by column: entry i of each is of query i.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SampleColumns {
    /// When a query was due, in milliseconds since the first.
    pub due_ms: Vec<f64>,
    /// How much later than that it was sent, in milliseconds; 0 where it is due when it is sent.
    pub late_ms: Vec<f64>,
    /// From when it was due to its answer, in milliseconds.
    pub latency_ms: Vec<f64>,
    /// Parts of that, in milliseconds, in the order in which they happen. Where a query is of several pictures, sums over them.
    pub stages: Vec<StageColumn>,
}

/// One part of the way of every query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageColumn {
    /// `decode`, `queue`, `prepare`, `upload`, `compute`, `download`, `stitch` or `encode`; of a server `wait`, from
    /// the first byte that is sent to the head of the answer, and `receive`.
    pub name: String,
    /// Milliseconds.
    pub ms: Vec<f64>,
}

/// How latency is distributed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Mean, in milliseconds.
    pub mean_ms: f64,
    /// The least.
    pub min_ms: f64,
    /// The largest.
    pub max_ms: f64,
    /// The 50th, 90th, 95th and 99th.
    pub percentiles: Vec<Percentile>,
}

/// A percentile of latency.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    /// Such as 99.
    pub percent: f64,
    /// The sample of that rank, in milliseconds.
    pub ms: f64,
    /// The interval that holds the true one with 95 % confidence, by order statistics; an end is missing where there are too
    /// few samples for it.
    pub low_ms: Option<f64>,
    /// Its upper end.
    pub high_ms: Option<f64>,
    /// What the true one does not exceed with 99 % confidence: MLPerf's early stopping. Missing where there are too few
    /// samples.
    pub bound_ms: Option<f64>,
}

/// Energy of a device.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// Joules for a picture.
    #[serde(alias = "joules_an_image")]
    pub joules_per_image: f64,
    /// Watts on average.
    pub watts: f64,
}
