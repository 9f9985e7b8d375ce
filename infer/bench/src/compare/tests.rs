//! Comparisons of reports that differ by a known amount.

use protoseg_models::random::Stream;
use serde_json::json;

use super::*;
use crate::machine::MachineInfo;

/// A report of one run under two scenarios with about `ms` an image.
pub(crate) fn report(model: &str, ms: f64, seed: u64) -> BenchReport {
    let draws = Stream::keyed(&[9, seed]);
    // Exact in few decimal digits, so that it survives a file.
    let step = |ms: f64| (ms * 1024.0).round() / 1024.0;
    let latencies: Vec<f64> =
        (0..300).map(|at| step(ms * (0.05 * draws.normal(at)).exp())).collect();
    let ends: Vec<f64> = latencies
        .iter()
        .scan(0.0, |end, latency| {
            *end += latency;
            Some(*end)
        })
        .collect();
    let starts: Vec<f64> =
        ends.iter().zip(&latencies).map(|(end, latency)| end - latency).collect();
    let point = |scenario: &str, due: Vec<f64>, latency: &[f64]| {
        json!({
            "scenario": {"kind": scenario}, "warm_up": {"queries": 3, "seconds": 0.5, "stretches": []}, "unstable": null,
            "samples": {"due_ms": due, "late_ms": vec![0.0; 300], "latency_ms": latency, "stages": []},
            "failed": 0, "first_error": null, "seconds": 6.0, "latency": null, "images_a_second": 50.0,
            "megapixels_a_second": 5.0, "energy": null, "peak_device_bytes": null, "sessions": 1, "threads": 1,
        })
    };
    let subject = json!({
        "name": "colors", "bundle": "bundle", "url": null, "model": model, "file": "model.onnx", "precision": "fp32",
        "device": "cpu", "options": {"threads": "1"},
        "pictures": {"height": 256, "width": 512, "count": 8, "source": "drawn"}, "windows": 1, "pixel_ratio": 1.0,
        "end_to_end": false, "open_seconds": 0.5, "first_seconds": 0.25, "nodes": {},
        "accuracy": {"probe_agreement": 1.0, "reference": null, "mean_iou": null, "data": null, "missing": null},
        "peak_host_bytes": null,
    });
    let points =
        [point("single-stream", starts, &latencies), point("offline", vec![0.0; 300], &ends)];
    let report = json!({
        "version": BenchReport::VERSION, "program": "protoseg 0.1.0", "began": 1_750_000_000, "machine": MachineInfo::default(),
        "runs": [{"subject": subject, "points": points}],
    });
    serde_json::from_value(report).unwrap()
}

fn verdicts(after_ms: f64, seed: u64) -> Vec<RegressionVerdict> {
    let compared = compare(&report("m", 20.0, 0), &report("m", after_ms, seed), 0.05).unwrap();
    compared.points.iter().map(|point| point.verdict).collect()
}

#[test]
fn changes_count_beyond_the_tolerance() {
    assert_eq!(verdicts(20.0, 1), [RegressionVerdict::Within; 2]);
    assert_eq!(verdicts(22.0, 2), [RegressionVerdict::Regression; 2]);
    assert_eq!(verdicts(18.0, 3), [RegressionVerdict::Faster; 2]);
    assert_eq!(verdicts(20.6, 4), [RegressionVerdict::Within; 2]);
    assert_eq!(verdicts(21.0, 5), [RegressionVerdict::Undecided; 2]);
    let compared = compare(&report("m", 20.0, 0), &report("m", 22.0, 2), 0.05).unwrap();
    assert!(compared.has_regression());
    for point in &compared.points {
        assert!(point.ratio.interval.unwrap().contains(1.1), "{point:?}");
        assert!(
            (point.before_ms - 20.0).abs() < 0.3 && (point.after_ms - 22.0).abs() < 0.3,
            "{point:?}"
        );
    }
    assert!(!compare(&report("m", 20.0, 0), &report("m", 22.0, 2), 0.2).unwrap().has_regression());
}

#[test]
fn verdicts_follow_from_the_interval() {
    let verdict = |low: f64, high: f64| {
        let interval = Some(super::super::ab::Interval { low, high });
        RegressionVerdict::from_ratio(&Ratio { ratio: f64::midpoint(low, high), interval }, 0.25)
    };
    assert_eq!(verdict(1.26, 1.5), RegressionVerdict::Regression);
    assert_eq!(verdict(1.25, 1.5), RegressionVerdict::Undecided);
    assert_eq!(verdict(0.5, 1.5), RegressionVerdict::Undecided);
    assert_eq!(verdict(0.5, 1.25), RegressionVerdict::Within);
    assert_eq!(verdict(0.8, 0.9), RegressionVerdict::Within);
    assert_eq!(verdict(0.5, 0.79), RegressionVerdict::Faster);
    assert_eq!(
        RegressionVerdict::from_ratio(&Ratio { ratio: 3.0, interval: None }, 0.25),
        RegressionVerdict::Undecided
    );
}

#[test]
fn points_of_different_setups_are_not_compared() {
    let before = report("m", 20.0, 0);
    let change: [fn(&mut Subject); 5] = [
        |subject| subject.precision = Some("int8".to_owned()),
        |subject| subject.device = Some("cuda:0".to_owned()),
        |subject| drop(subject.options.insert("batch".to_owned(), "4".to_owned())),
        |subject| subject.images.width = 1024,
        |subject| subject.end_to_end = true,
    ];
    for change in change {
        let mut after = report("m", 20.0, 1);
        change(&mut after.runs[0].subject);
        let error = compare(&before, &after, 0.05).unwrap_err();
        assert!(error.to_string().starts_with(
            "the reports have no measurement in common: before colors single-stream (fp32"
        ));
    }
    let mut after = report("m", 20.0, 1);
    after.runs[0].points[0].scenario = Scenario::Clients { clients: 4 };
    let compared = compare(&before, &after, 0.05).unwrap();
    assert_eq!(
        (compared.points.len(), compared.only_before.len(), compared.only_after.len()),
        (1, 1, 1)
    );
    assert_eq!(compared.only_after[0], "colors clients 4 (fp32, cpu, 256x512, threads=1)");
    for tolerance in [-0.1, f64::NAN, f64::INFINITY] {
        assert!(matches!(compare(&before, &after, tolerance), Err(CompareError::Tolerance(_))));
    }
    let nothing = BenchReport { runs: Vec::new(), ..before.clone() };
    assert!(
        compare(&nothing, &before, 0.05).unwrap_err().to_string().contains("before nothing; after")
    );
}

#[test]
fn points_of_one_setup_match_by_name() {
    let two = |names: [&str; 2], ms: [f64; 2]| {
        let mut both = report("m", ms[0], 1);
        both.runs.extend(report("m", ms[1], 2).runs);
        both.runs.iter_mut().zip(names).for_each(|(run, name)| run.subject.name = name.to_owned());
        both
    };
    let before = two(["one", "other"], [20.0, 40.0]);
    let compared = compare(&before, &two(["other", "new"], [40.0, 20.0]), 0.05).unwrap();
    assert_eq!(compared.points.len(), 4);
    assert!(
        compared.points.iter().all(|point| point.verdict == RegressionVerdict::Within),
        "{compared}"
    );
    assert!(compared.to_string().contains("the names differ: one, then new"), "{compared}");
}

#[test]
fn other_differences_are_reported() {
    let (before, mut after) = (report("m", 20.0, 0), report("n", 20.0, 1));
    after.program = "protoseg 0.2.0".to_owned();
    after.runs[0].subject.images.source = "street".to_owned();
    after.runs[0].points[0].unstable = Some("it drifts".to_owned());
    after.runs[0].points[1].failed = 7;
    let text = compare(&before, &after, 0.05).unwrap().to_string();
    for words in [
        "the programs differ: protoseg 0.1.0, then protoseg 0.2.0",
        "the models differ: m, then n",
        "the images differ: 8 from drawn, then 8 from street",
        "unstable after: it drifts",
        "after, 7 queries were not answered, and 300 were",
        "drift of the machine or other load",
        "`protoseg bench A --against B`",
        "tolerance 5.0 %",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    after.runs[0].points[0].samples = SampleColumns::default();
    let compared = compare(&before, &after, 0.05).unwrap();
    assert_eq!(compared.points.len(), 1);
    assert!(
        compared.differences[1].contains("no query was answered in one of the two"),
        "{compared}"
    );
}

#[test]
fn unanswered_queries_missing_points_and_wrong_labels_are_regressions() {
    let before = report("m", 20.0, 0);
    let worse = |change: &dyn Fn(&mut BenchReport)| {
        let mut after = report("m", 20.0, 1);
        change(&mut after);
        let compared = compare(&before, &after, 0.05).unwrap();
        assert_eq!(compared.has_regression(), !compared.broken.is_empty(), "{compared}");
        compared.broken.join("\n")
    };
    assert_eq!(worse(&|_| ()), "");
    assert!(
        worse(&|after| after.runs[0].points[1].failed = 1)
            .contains("1 queries were not answered, and 300 were")
    );
    let gone = worse(&|after| {
        after.runs[0].points[0].samples = SampleColumns::default();
        after.runs[0].points[0].failed = 300;
    });
    assert!(gone.contains("300 queries were not answered, and 0 were"), "{gone}");
    let missing = worse(&|after| drop(after.runs[0].points.pop()));
    assert!(missing.contains("offline") && missing.contains("is missing"), "{missing}");
    let labels = worse(&|after| after.runs[0].subject.accuracy.probe_agreement = Some(0.9));
    assert!(labels.starts_with("label agreement fell from 100.00 to 90.00 %"), "{labels}");
    assert_eq!(worse(&|after| after.runs[0].subject.accuracy.probe_agreement = Some(0.99995)), "");
}

#[test]
fn a_slower_tail_is_a_regression() {
    let long = |seed: u64, slow: f64| {
        let mut report = report("m", 20.0, seed);
        let point = &mut report.runs[0].points[0];
        let draws = Stream::keyed(&[11, seed]);
        let latency = |at: u64| {
            20.0 * (0.05 * draws.normal(at)).exp() * if at % 20 == 7 { slow } else { 1.0 }
        };
        point.samples.latency_ms = (0..4000).map(latency).collect();
        point.samples.due_ms = (0..4000).map(|at| 40.0 * f64::from(at)).collect();
        report
    };
    let verdicts = |slow: f64| {
        let compared = compare(&long(0, 1.0), &long(1, slow), 0.05).unwrap();
        (compared.points[0].verdict, compared.points[0].tail_verdict, compared.has_regression())
    };
    assert_eq!(verdicts(1.0), (RegressionVerdict::Within, Some(RegressionVerdict::Within), false));
    assert_eq!(
        verdicts(3.0),
        (RegressionVerdict::Within, Some(RegressionVerdict::Regression), true)
    );
}
