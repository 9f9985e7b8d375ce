//! Reports as JSON files.

use std::path::{Path, PathBuf};

use protoseg_models::versioned::{self, JsonError};
use serde::Deserialize;

use super::ab::AbComparison;
use super::report::{Accuracy, BenchReport, Energy, Latency, Percentile, ScenarioResult, Subject};

/// Why a report could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BenchReportError {
    /// The file system refused, or the file is not the JSON that it should be.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// JSON, but none of this kind.
    #[error(
        "{} holds no report of `protoseg bench`; name the JSON file that `protoseg bench … --report FILE` wrote",
        path.display()
    )]
    NotAReport {
        /// The file.
        path: PathBuf,
    },
    /// Of a format that is not understood.
    #[error(
        "{} holds a report of format {found}, and this program reads format {}; measure again with this program, or read \
         it with the one that wrote it",
        path.display(),
        BenchReport::VERSION
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version of its format.
        found: u64,
    },
    /// JSON has no such number: it would be written as if it were missing.
    #[error("{} is not written: the {what} of {subject}, {scenario}, is {value}, which is no number that JSON holds", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Which figure.
        what: &'static str,
        /// Of what.
        subject: String,
        /// Under which scenario.
        scenario: String,
        /// What it is.
        value: f64,
    },
}

/// What tells a report from other JSON files.
#[derive(Deserialize)]
struct Header {
    version: Option<serde_json::Value>,
    program: Option<serde_json::Value>,
    runs: Option<serde::de::IgnoredAny>,
}

impl BenchReport {
    /// Reads a file that [`Self::write`] wrote, or that was printed as JSON.
    pub fn read(path: &Path) -> Result<Self, BenchReportError> {
        let foreign = || BenchReportError::NotAReport { path: path.into() };
        let header: Header = versioned::read_unversioned(path).map_err(|error| match error {
            JsonError::Content { ref source, .. }
                if source.is_data() || begins_otherwise(source) =>
            {
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

    /// Writes it as JSON, whole or not at all. A figure that is infinite or no number is refused.
    pub fn write(&self, path: &Path) -> Result<(), BenchReportError> {
        let wrong = |what, subject: &str, scenario: String, value| BenchReportError::NotFinite {
            path: path.into(),
            what,
            subject: subject.into(),
            scenario,
            value,
        };
        for run in &self.runs {
            let name = &run.subject.name;
            if let Some((what, value)) = not_finite(subject_figures(&run.subject)) {
                return Err(wrong(what, name, "all scenarios".into(), value));
            }
            for point in &run.points {
                if let Some((what, value)) = not_finite(point_figures(point)) {
                    return Err(wrong(what, name, point.scenario.to_string(), value));
                }
            }
        }
        for against in &self.against {
            if let Some((what, value)) = not_finite(against_figures(against)) {
                return Err(wrong(what, &against.b, against.scenario.to_string(), value));
            }
        }
        Ok(versioned::write(path, self)?)
    }
}

/// Whether a file differs from JSON from its first character on, as a page does: then it was never a report.
fn begins_otherwise(error: &serde_json::Error) -> bool {
    error.is_syntax() && error.line() == 1 && error.column() <= 1
}

fn not_finite(figures: Vec<(&'static str, f64)>) -> Option<(&'static str, f64)> {
    figures.into_iter().find(|(_, value)| !value.is_finite())
}

fn subject_figures(subject: &Subject) -> Vec<(&'static str, f64)> {
    let Accuracy { probe_agreement, mean_iou, .. } = subject.accuracy;
    let optional = [
        ("time to open", subject.open_seconds),
        ("time of the first run", subject.first_run_seconds),
        ("pixel ratio", subject.pixel_ratio),
        ("agreement", probe_agreement),
        ("mean IoU", mean_iou),
    ];
    optional.into_iter().filter_map(|(what, value)| Some((what, value?))).collect()
}

fn point_figures(point: &ScenarioResult) -> Vec<(&'static str, f64)> {
    let samples = &point.samples;
    let mut figures = vec![
        ("warm-up", point.warm_up.seconds),
        ("time", point.seconds),
        ("rate", point.images_per_second),
        ("rate in megapixels", point.megapixels_per_second),
    ];
    let mut add = |what: &'static str, values: &[f64]| {
        figures.extend(values.iter().map(|&value| (what, value)))
    };
    add("moment of a query", &samples.due_ms);
    add("delay of a query", &samples.late_ms);
    add("latency of a query", &samples.latency_ms);
    for stage in &samples.stages {
        add("stage of a query", &stage.ms);
    }
    for stretch in &point.warm_up.windows {
        add("warm-up", &[stretch.latency_ms, stretch.queries_per_second]);
    }
    if let Some(Latency { mean_ms, min_ms, max_ms, percentiles }) = &point.latency {
        add("latency", &[*mean_ms, *min_ms, *max_ms]);
        for &Percentile { percent, ms, low_ms, high_ms, bound_ms } in percentiles {
            add("percentile of latency", &[percent, ms]);
            add(
                "interval of latency",
                &[low_ms, high_ms, bound_ms].into_iter().flatten().collect::<Vec<_>>(),
            );
        }
    }
    if let Some(Energy { joules_per_image, watts }) = point.energy {
        add("energy", &[joules_per_image, watts]);
    }
    figures
}

fn against_figures(against: &AbComparison) -> Vec<(&'static str, f64)> {
    let ends = against
        .ratio
        .interval
        .map_or([against.ratio.ratio; 2], |interval| [interval.low, interval.high]);
    let ratio = [against.ratio.ratio, ends[0], ends[1]].map(|value| ("ratio", value));
    against.blocks.iter().map(|block| ("block", block.ms)).chain(ratio).collect()
}

#[cfg(test)]
mod tests {
    use super::super::compare::tests::report;
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("report.json");
        let report = report("main", 20.0, 0);
        report.write(&path).unwrap();
        assert!(BenchReport::read(&path).unwrap() == report);
    }

    #[test]
    fn what_json_cannot_hold_is_refused_and_the_old_file_stays() {
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
    fn other_files_are_told_from_reports() {
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
