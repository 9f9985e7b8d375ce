//! A sample report for tests of its renderings: three subjects, with stalls, failures, and names
//! that are markup.

use std::collections::BTreeMap;

use super::load::Scenario;
use super::report::{
    Accuracy, BenchReport, BenchRun, Energy, ImageSummary, Latency, MeasurementWindow, Percentile,
    SampleColumns, ScenarioResult, StageColumn, Subject, WarmUp,
};
use crate::machine::{MachineInfo, Processor};

/// A name that is a script where it is not escaped.
pub(super) const MARKUP: &str = "served <script>alert(1)</script>";

/// Its last run has the only unstable point.
pub(super) fn report() -> BenchReport {
    let clients = |clients| Scenario::Clients { clients };
    let server = |rate| Scenario::Server { rate };
    let mut fp32 = run(
        "street fp32",
        40.0,
        &[
            (Scenario::SingleStream, 600),
            (clients(2), 500),
            (clients(4), 500),
            (clients(8), 500),
            (Scenario::MultiStream { samples: 4 }, 150),
            (Scenario::Offline, 256),
        ],
    );
    fp32.points[5].latency = None;
    fp32.points[5].energy = Some(Energy { joules_per_image: 1.87, watts: 61.2 });
    let mut int8 = run(
        "street int8",
        17.0,
        &[(Scenario::SingleStream, 1200), (clients(2), 900), (clients(4), 900), (clients(8), 900)],
    );
    int8.subject.precision = Some("int8".to_owned());
    int8.subject.file = Some("model.int8.onnx".to_owned());
    int8.subject.accuracy.probe_agreement = Some(0.987_654);
    int8.subject.options = [("graph-level".to_owned(), "basic".to_owned())].into();
    let mut served =
        run(MARKUP, 12.0, &[(server(10.0), 300), (server(25.0), 20_000), (server(40.0), 1200)]);
    served.subject.bundle = None;
    served.subject.url = Some("http://127.0.0.1:8080".to_owned());
    served.subject.accuracy = Accuracy {
        missing: Some("the server does not tell its labels".to_owned()),
        ..Accuracy::default()
    };
    let unstable = &mut served.points[2];
    let ms = unstable.samples.latency_ms.iter().enumerate();
    // Grows all the time, with stalls.
    let grown: Vec<f64> = ms
        .map(|(index, ms)| {
            ms * (1.0 + index as f64 / 600.0) + if index % 290 == 250 { 700.0 } else { 0.0 }
        })
        .collect();
    unstable.latency = Some(latency(&grown));
    unstable.samples.latency_ms = grown;
    unstable.unstable = Some(
        "latency grew by 38 % from the first third to the last: more comes in than is answered"
            .to_owned(),
    );
    unstable.failed = 3;
    unstable.first_error = Some("HTTP status 503: the queue is full & <busy>".to_owned());
    BenchReport {
        version: BenchReport::VERSION,
        program: "protoseg 0.1.0".to_owned(),
        began: 1_785_412_800,
        machine: MachineInfo {
            version: "0.1.0".to_owned(),
            processor: Processor {
                name: Some("A processor".to_owned()),
                cores: 2,
                ..Processor::default()
            },
            load: Some([0.25, 0.5, 0.75]),
            ..MachineInfo::default()
        },
        runs: vec![fp32, int8, served],
        against: Vec::new(),
    }
}

fn run(name: &str, ms: f64, scenarios: &[(Scenario, usize)]) -> BenchRun {
    BenchRun {
        subject: Subject {
            name: name.to_owned(),
            bundle: Some("runs/street/bundle".into()),
            url: None,
            model: "3f2a91c0d4e5".to_owned(),
            file: Some("model.onnx".to_owned()),
            precision: Some("fp32".to_owned()),
            device: Some("cpu".to_owned()),
            options: BTreeMap::new(),
            images: ImageSummary {
                height: 1024,
                width: 2048,
                count: 64,
                source: "synthetic images, seed 1".to_owned(),
            },
            windows: Some(8),
            pixel_ratio: Some(2.25),
            end_to_end: true,
            open_seconds: Some(0.812),
            first_run_seconds: Some(0.0934),
            nodes: [("CPUExecutionProvider".to_owned(), 214)].into(),
            accuracy: Accuracy {
                probe_agreement: Some(0.999_987),
                reference: Some("libtorch".to_owned()),
                mean_iou: Some(62.31),
                data: Some("camvid".to_owned()),
                missing: None,
            },
            peak_host_bytes: Some(812 << 20),
        },
        points: scenarios.iter().map(|&(scenario, count)| point(scenario, count, ms)).collect(),
        within_bound: None,
    }
}

fn point(scenario: Scenario, count: usize, ms: f64) -> ScenarioResult {
    let (at_once, apart) = match scenario {
        Scenario::Clients { clients } => (clients as f64, ms / (clients as f64).min(2.2)),
        Scenario::MultiStream { samples } => (samples as f64 / 2.0, ms * samples as f64 / 2.0),
        Scenario::Server { rate } => (1.0, 1000.0 / rate),
        Scenario::SingleStream | Scenario::Offline => (1.0, ms),
    };
    let slowed = ms * (at_once / 2.2).max(1.0);
    let mut noise = noise();
    let mut sample = || {
        // Skewed to the right, as latencies are, with rare outliers.
        let [first, second, rare] = [noise(), noise(), noise()];
        slowed
            * (0.94 + 0.1 * first * second - 0.03 * (1.0 - first).ln())
            * if rare > 0.996 { 2.6 } else { 1.0 }
    };
    let latency_ms: Vec<f64> = (0..count).map(|_| sample()).collect();
    let images = scenario.images_per_query() as f64;
    let shares = [
        ("decode", 0.11),
        ("queue", 0.02),
        ("prepare", 0.04),
        ("compute", 0.71),
        ("stitch", 0.05),
        ("encode", 0.06),
    ];
    let stage = |(name, share): (&str, f64)| {
        let summed = if images > 1.0 { share * 1.6 } else { share };
        StageColumn { name: name.to_owned(), ms: latency_ms.iter().map(|ms| summed * ms).collect() }
    };
    let seconds = count as f64 * apart / 1000.0;
    let rate = count as f64 * images / seconds;
    ScenarioResult {
        scenario,
        sessions: Some(2),
        threads: Some(1),
        warm_up: WarmUp {
            queries: 60,
            seconds: 60.0 * apart / 1000.0,
            windows: vec![
                MeasurementWindow {
                    latency_ms: slowed,
                    queries_per_second: 1000.0 / apart
                };
                4
            ],
        },
        unstable: None,
        failed: 0,
        first_error: None,
        seconds,
        latency: Some(latency(&latency_ms)),
        images_per_second: rate,
        megapixels_per_second: rate * 1024.0 * 2048.0 / 1e6,
        energy: None,
        peak_device_bytes: None,
        samples: SampleColumns {
            due_ms: (0..count).map(|index| index as f64 * apart).collect(),
            late_ms: vec![0.0; count],
            stages: shares.map(stage).to_vec(),
            latency_ms,
        },
    }
}

/// Pseudo-random numbers from 0 to 1 (linear congruential).
fn noise() -> impl FnMut() -> f64 {
    let mut state = 1_u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24)
    }
}

/// Nearest-rank percentiles with approximate intervals.
fn latency(ms: &[f64]) -> Latency {
    let mut sorted = ms.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len() as f64;
    let percentile = |percent: f64| {
        let share = percent / 100.0;
        let at = |deviations: f64| {
            let rank = (share * count + deviations * (count * share * (1.0 - share)).sqrt()).ceil();
            (1.0..=count).contains(&rank).then(|| sorted[rank as usize - 1])
        };
        Percentile {
            percent,
            ms: at(0.0).unwrap_or(sorted[0]),
            low_ms: at(-1.96),
            high_ms: at(1.96),
            bound_ms: at(2.33),
        }
    };
    Latency {
        mean_ms: sorted.iter().sum::<f64>() / count,
        min_ms: sorted[0],
        max_ms: sorted[sorted.len() - 1],
        percentiles: [50.0, 90.0, 95.0, 99.0].map(percentile).to_vec(),
    }
}
