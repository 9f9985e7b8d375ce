//! What a service counts and measures, in the text that Prometheus reads.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use protoseg_models::classes::ClassTable;

use protoseg_infer::machine;
use protoseg_infer::{Prediction, Stage};

/// What the newest picture counts for in gauges that watch for drift: the last hundred or so decide.
const NEWEST: f64 = 0.01;

type FloatGauge = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    model: String,
    protocol: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    model: String,
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    model: String,
    class: String,
}

/// All that a service counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    seconds: Family<ModelLabels, Histogram, fn() -> Histogram>,
    stages: Family<StageLabels, Histogram, fn() -> Histogram>,
    runs: Family<ModelLabels, Histogram, fn() -> Histogram>,
    windows: Family<ModelLabels, Counter>,
    pictures: Family<ModelLabels, Counter>,
    pixels: Family<ModelLabels, Counter>,
    waiting: Family<ModelLabels, Gauge>,
    ready: Family<ModelLabels, Gauge>,
    shares: Family<ClassLabels, FloatGauge>,
    confidence: Family<ModelLabels, FloatGauge>,
    held: Gauge<u64, AtomicU64>,
    limit: Gauge<u64, AtomicU64>,
    /// Open connections.
    pub connections: Gauge,
    memory: Gauge<u64, AtomicU64>,
}

/// Half a millisecond to two minutes.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 1.5, 31))
}

/// One to 256 windows.
fn batches() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 9))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("protoseg"),
            requests: Family::default(),
            seconds: Family::new_with_constructor(durations),
            stages: Family::new_with_constructor(durations),
            runs: Family::new_with_constructor(batches),
            windows: Family::default(),
            pictures: Family::default(),
            pixels: Family::default(),
            waiting: Family::default(),
            ready: Family::default(),
            shares: Family::default(),
            confidence: Family::default(),
            held: Gauge::default(),
            limit: Gauge::default(),
            connections: Gauge::default(),
            memory: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "requests",
            "Requests for answers of a model, by how they ended",
            self.requests.clone(),
        );
        let help = "From the head of a request to its answer";
        registry.register_with_unit("request", help, Unit::Seconds, self.seconds.clone());
        let help = "Time of a picture in a stage: read, decode, queue, run, stitch, encode";
        registry.register_with_unit("stage", help, Unit::Seconds, self.stages.clone());
        registry.register("batch_windows", "Windows in a run of the network", self.runs.clone());
        registry.register("windows", "Windows that were run", self.windows.clone());
        registry.register("pictures", "Pictures that were labelled", self.pictures.clone());
        registry.register("pixels", "Pixels that were labelled", self.pixels.clone());
        registry.register("queue_windows", "Windows that wait for a run", self.waiting.clone());
        registry.register("model_ready", "Whether a model answers", self.ready.clone());
        let help = "Share of a class in the pixels of about the last hundred pictures";
        registry.register("class_share", help, self.shares.clone());
        let help = "Mean confidence of the pixels of about the last hundred pictures, of those that asked for it";
        registry.register("mean_confidence", help, self.confidence.clone());
        registry.register(
            "queue_pixels",
            "Pixels of the pictures that are held",
            self.held.clone(),
        );
        registry.register("queue_limit_pixels", "Pixels that can be held", self.limit.clone());
        registry.register("connections", "Open connections", self.connections.clone());
        let help = "Memory that the process occupies";
        registry.register_with_unit("resident_memory", help, Unit::Bytes, self.memory.clone());
    }

    /// A request that ended. Requests for models that do not exist are counted under no name, as names come from outside.
    pub fn record_request(
        &self,
        model: &str,
        protocol: &'static str,
        outcome: &'static str,
        took: Duration,
    ) {
        self.requests
            .get_or_create(&RequestLabels { model: model.to_owned(), protocol, outcome })
            .inc();
        self.seconds
            .get_or_create(&ModelLabels { model: model.to_owned() })
            .observe(took.as_secs_f64());
    }

    /// Whether a model answers.
    pub fn ready(&self, model: &str, ready: bool) {
        self.ready.get_or_create(&ModelLabels { model: model.to_owned() }).set(i64::from(ready));
    }

    /// What is counted for one model.
    pub fn for_model(&self, model: &str, classes: &ClassTable) -> ModelMetrics {
        let label = ModelLabels { model: model.to_owned() };
        let stage = |(_, stage)| {
            self.stages.get_or_create(&StageLabels { model: model.to_owned(), stage }).clone()
        };
        let share = |name: &String| {
            self.shares
                .get_or_create(&ClassLabels { model: model.to_owned(), class: name.clone() })
                .clone()
        };
        ModelMetrics {
            stages: STAGES.map(stage),
            runs: self.runs.get_or_create(&label).clone(),
            windows: self.windows.get_or_create(&label).clone(),
            pictures: self.pictures.get_or_create(&label).clone(),
            pixels: self.pixels.get_or_create(&label).clone(),
            waiting: self.waiting.get_or_create(&label).clone(),
            confidence: self.confidence.get_or_create(&label).clone(),
            sure: Counter::default(),
            shares: classes.classes().iter().map(|class| share(&class.name)).collect(),
        }
    }

    /// All of it as text, with the pixels that are held and can be.
    pub fn text(&self, held: u64, limit: u64) -> String {
        self.held.set(held);
        self.limit.set(limit);
        self.memory.set(machine::resident().unwrap_or(0));
        let mut out = String::new();
        // Writing to a string does not fail.
        text::encode(&mut out, &self.registry).map_or_else(|_| String::new(), |()| out)
    }
}

/// Stages that are measured, and their values of the label `stage`.
const STAGES: [(Stage, &str); 6] = [
    (Stage::Read, "read"),
    (Stage::Decode, "decode"),
    (Stage::Queue, "queue"),
    (Stage::Compute, "run"),
    (Stage::Stitch, "stitch"),
    (Stage::Encode, "encode"),
];

/// What is counted for one model.
#[derive(Debug, Clone)]
pub struct ModelMetrics {
    stages: [Histogram; 6],
    runs: Histogram,
    windows: Counter,
    pictures: Counter,
    pixels: Counter,
    waiting: Gauge,
    confidence: FloatGauge,
    /// Pictures whose confidence was asked for.
    sure: Counter,
    shares: Vec<FloatGauge>,
}

impl ModelMetrics {
    /// Time of a picture in a stage.
    pub fn record_stage(&self, stage: Stage, took: Duration) {
        let index = STAGES.iter().position(|(known, _)| *known == stage);
        if let Some(index) = index {
            self.stages[index].observe(took.as_secs_f64());
        }
    }

    /// A run of the network.
    pub(super) fn record_batch(&self, windows: usize) {
        self.runs.observe(windows as f64);
        self.windows.inc_by(windows as u64);
    }

    /// How many windows wait.
    pub(super) fn waiting(&self, windows: usize) {
        self.waiting.set(i64::try_from(windows).unwrap_or(i64::MAX));
    }

    /// A picture that was labelled; its gauges watch for pictures that are no longer like those before.
    pub fn record_prediction(&self, decided: &Prediction) {
        self.pixels.inc_by(decided.labels.len() as u64);
        let blend = |gauge: &FloatGauge, before: u64, value: f64| {
            let newest = NEWEST.max(1.0 / (before + 1) as f64);
            gauge.set(gauge.get() + newest * (value - gauge.get()));
        };
        let before = self.pictures.inc();
        let pixels = decided.labels.len().max(1) as f64;
        for (gauge, count) in self.shares.iter().zip(decided.pixels_by_class(self.shares.len())) {
            blend(gauge, before, count as f64 / pixels);
        }
        if let Some(confidence) = &decided.confidence {
            let sum: u64 = confidence.iter().map(|&byte| u64::from(byte)).sum();
            blend(&self.confidence, self.sure.inc(), sum as f64 / 255.0 / pixels);
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    #[test]
    fn what_was_counted_is_in_the_text() {
        let metrics = Metrics::default();
        let classes = ClassTable::parse("0 road\n1 sky\n").unwrap();
        let model = metrics.for_model("street", &classes);
        model.record_batch(4);
        model.record_stage(Stage::Queue, Duration::from_millis(3));
        let labels = Prediction::from_labels(arr2(&[[1, 1, 1, 0]]));
        let decided = Prediction { confidence: Some(arr2(&[[255, 255, 0, 0]])), ..labels.clone() };
        model.record_prediction(&labels);
        model.record_prediction(&decided);
        metrics.record_request("street", "http", "ok", Duration::from_secs(1));
        let text = metrics.text(7, 9);
        for line in [
            "protoseg_windows_total{model=\"street\"} 4",
            "protoseg_class_share{model=\"street\",class=\"sky\"} 0.75",
            "protoseg_mean_confidence{model=\"street\"} 0.5",
            "protoseg_requests_total{model=\"street\",protocol=\"http\",outcome=\"ok\"} 1",
            "protoseg_stage_seconds_count{model=\"street\",stage=\"queue\"} 1",
            "protoseg_queue_pixels 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
