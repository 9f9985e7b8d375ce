//! `protoseg bench compare`: exit status by verdict, and files that are not reports.

use std::path::PathBuf;

use protoseg_bench::machine::MachineInfo;
use protoseg_bench::report::BenchReport;
use protoseg_models::random::Stream;
use serde_json::{Value, json};

use super::common::{ProgramOutput, expect, protoseg};

struct Reports {
    root: tempfile::TempDir,
}

impl Reports {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes the report of one client with about `ms` an image.
    fn write(&self, name: &str, ms: f64) -> Value {
        let draws = Stream::named(name);
        let latencies: Vec<f64> = (0..200).map(|at| ms * (0.05 * draws.normal(at)).exp()).collect();
        let due: Vec<f64> = (0..200).map(|at| 40.0 * f64::from(at)).collect();
        let point = json!({
            "scenario": {"kind": "single-stream"}, "warm_up": {"queries": 3, "seconds": 0.5, "stretches": []},
            "unstable": null, "failed": 0, "first_error": null, "seconds": 8.0, "latency": null, "energy": null, "peak_device_bytes": null,
            "images_a_second": 25.0, "megapixels_a_second": 5.0, "sessions": 1, "threads": 1,
            "samples": {"due_ms": due, "late_ms": vec![0.0; 200], "latency_ms": latencies, "stages": []},
        });
        let subject = json!({
            "name": "colors", "bundle": "bundle", "url": null, "model": "m", "file": "model.onnx", "precision": "fp32",
            "device": "cpu", "options": {}, "windows": 1, "pixel_ratio": 1.0, "end_to_end": false,
            "open_seconds": null, "first_seconds": null, "nodes": {}, "accuracy": {},
            "pictures": {"height": 256, "width": 512, "count": 8, "source": "drawn"}, "peak_host_bytes": null,
        });
        let report = json!({
            "version": BenchReport::VERSION, "program": "protoseg 0.1.0", "began": 1, "machine": MachineInfo::default(), "against": [],
            "runs": [{"subject": subject, "points": [point]}],
        });
        std::fs::write(self.at(name), report.to_string()).unwrap();
        report
    }

    fn compare(&self, before: &str, after: &str, options: &[&str]) -> ProgramOutput {
        let [before, after] = [before, after].map(|name| self.at(name).display().to_string());
        protoseg(["bench", "compare", &before, &after].iter().chain(options))
    }
}

#[test]
fn the_exit_status_depends_on_verdict_and_tolerance() {
    let reports = Reports::new();
    reports.write("before.json", 20.0);
    reports.write("same.json", 20.0);
    reports.write("slower.json", 22.0);
    reports.write("faster.json", 17.0);
    for (after, options, status, verdict) in [
        ("same.json", &[][..], 0, "within"),
        ("slower.json", &[], 1, "REGRESSION"),
        ("slower.json", &["--tolerance", "20"], 0, "within"),
        ("slower.json", &["--tolerance", "9.9"], 0, "undecided"),
        ("faster.json", &[], 0, "faster"),
    ] {
        let answer = reports.compare("before.json", after, options);
        assert_eq!(
            (answer.status, answer.stderr.as_str()),
            (status, ""),
            "{after} {options:?}: {answer:?}"
        );
        let row = answer.stdout.lines().next().unwrap();
        assert!(row.starts_with("colors single-stream  ") && row.ends_with(verdict), "{row}");
        assert!(answer.stdout.contains("protoseg bench A --against B"), "{answer:?}");
    }
}

#[test]
fn json_holds_the_comparison() {
    let reports = Reports::new();
    reports.write("before.json", 20.0);
    reports.write("slower.json", 22.0);
    let answer = reports.compare("before.json", "slower.json", &["--json", "--tolerance", "2.5"]);
    let comparison: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!((answer.status, &comparison["tolerance"]), (1, &json!(0.025)));
    let point = &comparison["points"][0];
    assert_eq!(point["verdict"], "regression");
    let interval = ["low", "high"].map(|end| point["ratio"]["interval"][end].as_f64().unwrap());
    assert!(interval[0] < 1.1 && 1.1 < interval[1], "{point}");
}

#[test]
fn other_files_and_reports_without_a_match_are_refused() {
    let reports = Reports::new();
    let mut other = reports.write("before.json", 20.0);
    other["runs"][0]["subject"]["precision"] = "int8".into();
    std::fs::write(reports.at("int8.json"), other.to_string()).unwrap();
    other["version"] = 2.into();
    std::fs::write(reports.at("newer.json"), other.to_string()).unwrap();
    std::fs::write(reports.at("manifest.json"), r#"{"version": "1.4", "files": []}"#).unwrap();
    std::fs::write(reports.at("text.json"), "no JSON").unwrap();
    for (name, parts) in [
        ("missing.json", &["missing.json: No such file"][..]),
        ("text.json", &["text.json is not valid"]),
        ("manifest.json", &["manifest.json is not a report of `protoseg bench`"]),
        (
            "newer.json",
            &["newer.json: report format 2 is not supported, this program reads format 1"],
        ),
        (
            "int8.json",
            &[
                "int8.json",
                "cannot be compared",
                "the reports have no measurement in common",
                "single-stream (int8",
            ],
        ),
    ] {
        expect(name, &reports.compare("before.json", name, &[]), 2, parts);
        expect(name, &reports.compare(name, "before.json", &[]), 2, &parts[..1]);
    }
    for tolerance in ["-1", "x", "nan", "1e9"] {
        let answer =
            reports.compare("before.json", "int8.json", &[&format!("--tolerance={tolerance}")]);
        assert_eq!(answer.status, 2, "{tolerance}: {answer:?}");
        assert!(answer.stderr.contains("from 0 to 1000"), "{answer:?}");
    }
}
