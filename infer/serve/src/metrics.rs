//! Prometheus metrics of the server and of each model.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry, Unit};
use protoseg_infer::{Prediction, Stage, machine};
use protoseg_models::classes::ClassTable;

/// Weight of the newest image in the gauges that watch for drift: about the last hundred decide.
const DRIFT_WEIGHT: f64 = 0.01;

type Labels<const N: usize> = [(&'static str, String); N];
type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;
type FloatGauge = Gauge<f64, AtomicU64>;
type UnsignedGauge = Gauge<u64, AtomicU64>;

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels<3>, Counter>,
    request_seconds: Histograms<1>,
    stage_seconds: Histograms<2>,
    batch_windows: Histograms<1>,
    windows: Family<Labels<1>, Counter>,
    images: Family<Labels<1>, Counter>,
    pixels: Family<Labels<1>, Counter>,
    queue_windows: Family<Labels<1>, Gauge>,
    model_ready: Family<Labels<1>, Gauge>,
    class_share: Family<Labels<2>, FloatGauge>,
    mean_confidence: Family<Labels<1>, FloatGauge>,
    queue_pixels: UnsignedGauge,
    queue_limit_pixels: UnsignedGauge,
    /// Open connections.
    pub connections: Gauge,
    resident_memory: UnsignedGauge,
}

/// Half a millisecond to two minutes.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 1.5, 31))
}

/// 1 to 256 windows.
fn batches() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 9))
}

fn histograms<const N: usize>(constructor: fn() -> Histogram) -> Histograms<N> {
    Family::new_with_constructor(constructor)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("protoseg");
        let r = &mut registry;
        Self {
            requests: add(r, "requests", "Inference requests by outcome", Family::default()),
            request_seconds: add_with_unit(
                r,
                "request",
                Unit::Seconds,
                "From the head of a request to its response",
                histograms(durations),
            ),
            stage_seconds: add_with_unit(
                r,
                "stage",
                Unit::Seconds,
                "Time of an image in a stage: read, decode, queue, run, stitch, encode",
                histograms(durations),
            ),
            batch_windows: add(r, "batch_windows", "Windows in a batch", histograms(batches)),
            windows: add(r, "windows", "Windows that were run", Family::default()),
            images: add(r, "pictures", "Images that were labeled", Family::default()),
            pixels: add(r, "pixels", "Pixels that were labeled", Family::default()),
            queue_windows: add(r, "queue_windows", "Windows in the queue", Family::default()),
            model_ready: add(r, "model_ready", "1 if a model is ready", Family::default()),
            class_share: add(
                r,
                "class_share",
                "Share of a class in the pixels of about the last hundred images",
                Family::default(),
            ),
            mean_confidence: add(
                r,
                "mean_confidence",
                "Mean confidence over about the last hundred images whose requests asked for it",
                Family::default(),
            ),
            queue_pixels: add(r, "queue_pixels", "Pixels of admitted images", Gauge::default()),
            queue_limit_pixels: add(
                r,
                "queue_limit_pixels",
                "Pixels that can be admitted at a time",
                Gauge::default(),
            ),
            connections: add(r, "connections", "Open connections", Gauge::default()),
            resident_memory: add_with_unit(
                r,
                "resident_memory",
                Unit::Bytes,
                "Resident memory of the process",
                Gauge::default(),
            ),
            registry,
        }
    }
}

fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn add_with_unit<M: Metric + Clone>(
    registry: &mut Registry,
    name: &str,
    unit: Unit,
    help: &str,
    metric: M,
) -> M {
    registry.register_with_unit(name, help, unit, metric.clone());
    metric
}

fn model_label(model: &str) -> Labels<1> {
    [("model", model.to_owned())]
}

impl Metrics {
    /// Counts an inference request. The model of requests for unknown models is "", as such names
    /// come from outside.
    pub(crate) fn record_request(
        &self,
        model: &str,
        protocol: &str,
        outcome: &str,
        elapsed: Duration,
    ) {
        let labels = [("model", model), ("protocol", protocol), ("outcome", outcome)];
        let labels = labels.map(|(key, value)| (key, value.to_owned()));
        self.requests.get_or_create(&labels).inc();
        self.request_seconds.get_or_create(&model_label(model)).observe(elapsed.as_secs_f64());
    }

    pub(crate) fn record_ready(&self, model: &str, ready: bool) {
        self.model_ready.get_or_create(&model_label(model)).set(i64::from(ready));
    }

    /// Returns the metrics of one model.
    pub fn for_model(&self, model: &str, classes: &ClassTable) -> ModelMetrics {
        let label = model_label(model);
        let stage = |(_, stage): (Stage, &str)| {
            let labels = [("model", model.to_owned()), ("stage", stage.to_owned())];
            self.stage_seconds.get_or_create(&labels).clone()
        };
        let share = |class: &str| {
            let labels = [("model", model.to_owned()), ("class", class.to_owned())];
            self.class_share.get_or_create(&labels).clone()
        };
        ModelMetrics {
            stages: STAGES.map(stage),
            batches: self.batch_windows.get_or_create(&label).clone(),
            windows: self.windows.get_or_create(&label).clone(),
            images: self.images.get_or_create(&label).clone(),
            pixels: self.pixels.get_or_create(&label).clone(),
            queued: self.queue_windows.get_or_create(&label).clone(),
            confidence: self.mean_confidence.get_or_create(&label).clone(),
            with_confidence: Counter::default(),
            shares: classes.classes().iter().map(|class| share(&class.name)).collect(),
        }
    }

    /// Renders all metrics in the OpenMetrics text format, with the pixels that are and can be
    /// admitted.
    pub fn text(&self, held: u64, limit: u64) -> String {
        self.queue_pixels.set(held);
        self.queue_limit_pixels.set(limit);
        self.resident_memory.set(machine::resident().unwrap_or(0));
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

/// Metrics of one model.
#[derive(Debug, Clone)]
pub struct ModelMetrics {
    stages: [Histogram; 6],
    batches: Histogram,
    windows: Counter,
    images: Counter,
    pixels: Counter,
    queued: Gauge,
    confidence: FloatGauge,
    /// Images whose confidence was asked for.
    with_confidence: Counter,
    shares: Vec<FloatGauge>,
}

impl ModelMetrics {
    pub(crate) fn record_stage(&self, stage: Stage, elapsed: Duration) {
        if let Some(index) = STAGES.iter().position(|(known, _)| *known == stage) {
            self.stages[index].observe(elapsed.as_secs_f64());
        }
    }

    pub(crate) fn record_batch(&self, windows: usize) {
        self.batches.observe(windows as f64);
        self.windows.inc_by(windows as u64);
    }

    pub(crate) fn record_queue(&self, windows: usize) {
        self.queued.set(i64::try_from(windows).unwrap_or(i64::MAX));
    }

    /// Counts a labeled image, and blends it into the drift gauges.
    pub(crate) fn record_prediction(&self, prediction: &Prediction) {
        self.pixels.inc_by(prediction.labels.len() as u64);
        let blend = |gauge: &FloatGauge, images_before: u64, value: f64| {
            let weight = DRIFT_WEIGHT.max(1.0 / (images_before + 1) as f64);
            gauge.set(gauge.get() + weight * (value - gauge.get()));
        };
        let before = self.images.inc();
        let pixels = prediction.labels.len().max(1) as f64;
        let counts = prediction.pixels_by_class(self.shares.len());
        for (gauge, count) in self.shares.iter().zip(counts) {
            blend(gauge, before, count as f64 / pixels);
        }
        if let Some(confidence) = &prediction.confidence {
            let sum: u64 = confidence.iter().map(|&byte| u64::from(byte)).sum();
            blend(&self.confidence, self.with_confidence.inc(), sum as f64 / 255.0 / pixels);
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    #[test]
    fn recorded_values_are_in_the_text() {
        let metrics = Metrics::default();
        let classes = ClassTable::parse("0 road\n1 sky\n").unwrap();
        let model = metrics.for_model("street", &classes);
        model.record_batch(4);
        model.record_stage(Stage::Queue, Duration::from_millis(3));
        let labels = Prediction::from_labels(arr2(&[[1, 1, 1, 0]]));
        let confidence = Some(arr2(&[[255, 255, 0, 0]]));
        model.record_prediction(&labels);
        model.record_prediction(&Prediction { confidence, ..labels });
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
