//! Two reports of different times held against each other.

use serde::{Deserialize, Serialize};

use super::bootstrap::{self, Figure};
use super::ratio::{CONFIDENCE, Ratio};
use super::report::{Point, Report, Samples, Subject};
use super::scenario::Scenario;

/// What is said beside every comparison of two files.
const CAUTION: &str = "the two were measured at different times, and that the machine drifted or carried other load in between \
                       is not excluded; `protoseg bench A --against B` measures both in turns, which excludes it";

/// Two reports held against each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// How much slower is still within: 0.05 is 5 %.
    pub tolerance: f64,
    /// What was measured in both.
    pub points: Vec<Compared>,
    /// What was measured before alone.
    pub only_before: Vec<String>,
    /// What was measured after alone.
    pub only_after: Vec<String>,
    /// In what the reports differ besides their figures, a sentence each.
    pub differences: Vec<String>,
    /// What no comparison of two files can exclude.
    pub caution: String,
}

/// One scenario of one way to run a model, before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// Its name after.
    pub name: String,
    /// How requests came.
    pub scenario: Scenario,
    /// Milliseconds before: median latency, offline the mean time for a picture.
    pub before_ms: f64,
    /// The same after.
    pub after_ms: f64,
    /// Time after over time before.
    pub ratio: Ratio,
    /// What follows.
    pub verdict: Verdict,
    /// What else is to be known of it, a sentence each.
    pub notes: Vec<String>,
}

/// Whether it became slower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The whole interval lies beyond the tolerance.
    Regression,
    /// It may or may not be slower by more than the tolerance.
    Undecided,
    /// It is not slower by more than the tolerance.
    Within,
    /// The whole interval lies as far on the other side.
    Faster,
}

impl Verdict {
    /// The word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regression => "REGRESSION",
            Self::Undecided => "undecided",
            Self::Within => "within",
            Self::Faster => "faster",
        }
    }

    fn of(ratio: &Ratio, tolerance: f64) -> Self {
        let most = 1.0 + tolerance;
        match ratio.interval {
            Some(interval) if interval.low > most => Self::Regression,
            Some(interval) if interval.high < 1.0 / most => Self::Faster,
            Some(interval) if interval.high <= most => Self::Within,
            _ => Self::Undecided,
        }
    }
}

/// Why two reports cannot be compared.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum CompareError {
    /// Nothing was measured in both in the same way.
    #[error(
        "nothing was measured in both: before there is {}, and after there is {}; scenario, precision, device, windows, \
         options and size of pictures must be the same",
        list(before),
        list(after)
    )]
    NothingMatches {
        /// What was measured before.
        before: Vec<String>,
        /// What was measured after.
        after: Vec<String>,
    },
    /// No share.
    #[error("a tolerance of {0} is no share; write 0.05 for 5 %")]
    Tolerance(f64),
}

fn list(points: &[String]) -> String {
    if points.is_empty() { "nothing".to_owned() } else { points.join("; ") }
}

/// A point and what it belongs to.
type Measured<'a> = (&'a Subject, &'a Point);

/// Holds a report against an earlier one.
pub fn compare(before: &Report, after: &Report, tolerance: f64) -> Result<Comparison, CompareError> {
    if !tolerance.is_finite() || tolerance < 0.0 {
        return Err(CompareError::Tolerance(tolerance));
    }
    let (mut only_before, mut only_after) = (measured(before), measured(after));
    let matched = matches(&mut only_before, &mut only_after);
    let texts = |points: &[Measured]| points.iter().map(|(subject, point)| describe(subject, point)).collect();
    if matched.is_empty() {
        return Err(CompareError::NothingMatches { before: texts(&only_before), after: texts(&only_after) });
    }
    let mut comparison = Comparison {
        tolerance,
        points: Vec::new(),
        only_before: texts(&only_before),
        only_after: texts(&only_after),
        differences: Vec::new(),
        caution: CAUTION.to_owned(),
    };
    let (one, other) = (&before.program, &after.program);
    if one != other {
        comparison.differences.push(format!("the programs differ: {one}, then {other}"));
    }
    for (before, after) in matched {
        match compared(before, after, tolerance) {
            Some(point) => comparison.points.push(point),
            None => {
                let what = describe(after.0, after.1);
                comparison
                    .differences
                    .push(format!("{what}: no query was answered in one of the two, so no time is known"));
            }
        }
    }
    Ok(comparison)
}

fn measured(report: &Report) -> Vec<Measured<'_>> {
    report.runs.iter().flat_map(|run| run.points.iter().map(|point| (&run.subject, point))).collect()
}

/// Takes those out of both lists that were measured in the same way. Where several were, as of two models in one report,
/// those of the same name belong together, and the others in their order.
fn matches<'a>(before: &mut Vec<Measured<'a>>, after: &mut Vec<Measured<'a>>) -> Vec<(Measured<'a>, Measured<'a>)> {
    let mut matched = Vec::new();
    for by_name in [true, false] {
        after.retain(|&(subject, point)| {
            let fits =
                |(of, other): &Measured| alike((of, other), (subject, point)) && (!by_name || of.name == subject.name);
            let Some(index) = before.iter().position(fits) else { return true };
            matched.push((before.remove(index), (subject, point)));
            false
        });
    }
    matched
}

/// Whether nothing tells two points apart but the model, the time and the machine.
fn alike((one, of_one): Measured, (other, of_other): Measured) -> bool {
    of_one.scenario == of_other.scenario
        && one.precision == other.precision
        && one.device == other.device
        && one.windows == other.windows
        && one.options == other.options
        && (one.pictures.height, one.pictures.width) == (other.pictures.height, other.pictures.width)
        && one.end_to_end == other.end_to_end
        && one.url.is_some() == other.url.is_some()
}

/// What tells a point from others, in words.
fn describe(subject: &Subject, point: &Point) -> String {
    let options = subject.options.iter().map(|(name, value)| format!("{name}={value}"));
    let (height, width) = (subject.pictures.height, subject.pictures.width);
    let parts = [subject.precision.clone(), subject.device.clone(), Some(format!("{height}x{width}"))];
    let end_to_end = subject.end_to_end.then(|| "end to end".to_owned());
    let all: Vec<String> = parts.into_iter().flatten().chain(options).chain(end_to_end).collect();
    format!("{} {} ({})", subject.name, point.scenario, all.join(", "))
}

fn compared((one, before): Measured, (other, after): Measured, tolerance: f64) -> Option<Compared> {
    let (figure, times): (Figure, fn(&Samples) -> Vec<f64>) = match after.scenario {
        Scenario::Offline => (Figure::Mean, between_answers),
        _ => (Figure::Percentile(50.0), |samples| samples.latency_ms.clone()),
    };
    let (before_times, after_times) = (times(&before.samples), times(&after.samples));
    let ratio = bootstrap::ratio(&before_times, &after_times, figure)?;
    Some(Compared {
        name: other.name.clone(),
        scenario: after.scenario,
        before_ms: figure.of(&before_times)?,
        after_ms: figure.of(&after_times)?,
        ratio,
        verdict: Verdict::of(&ratio, tolerance),
        notes: notes((one, before), (other, after)),
    })
}

/// Milliseconds from each answer to the next, the first from when the first query was due.
fn between_answers(samples: &Samples) -> Vec<f64> {
    let mut answers: Vec<f64> =
        samples.due_ms.iter().zip(&samples.latency_ms).map(|(due, latency)| due + latency).collect();
    answers.sort_by(f64::total_cmp);
    let mut before = samples.due_ms.iter().copied().fold(f64::INFINITY, f64::min);
    for answer in &mut answers {
        (before, *answer) = (*answer, *answer - before);
    }
    answers
}

fn notes((one, before): Measured, (other, after): Measured) -> Vec<String> {
    let mut notes = Vec::new();
    for (when, point) in [("before", before), ("after", after)] {
        notes.extend(point.unstable.iter().map(|why| format!("unstable {when}: {why}")));
        if point.failed > 0 {
            let (failed, answered) = (point.failed, point.samples.latency_ms.len());
            notes.push(format!("{when}, {failed} queries were not answered, and {answered} were"));
        }
    }
    let told = |subject: &Subject| format!("{} from {}", subject.pictures.count, subject.pictures.source);
    let differing = [
        ("names", one.name.clone(), other.name.clone()),
        ("models", one.model.clone(), other.model.clone()),
        ("pictures", told(one), told(other)),
    ];
    let differing = differing.into_iter().filter(|(_, one, other)| one != other);
    notes.extend(differing.map(|(what, one, other)| format!("the {what} differ: {one}, then {other}")));
    notes
}

impl Comparison {
    /// Whether anything became slower by more than the tolerance.
    pub fn has_regression(&self) -> bool {
        self.points.iter().any(|point| point.verdict == Verdict::Regression)
    }
}

/// A table, then what is to be known of its rows, and what has no row.
impl std::fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = |point: &Compared| {
            let unit = if point.scenario == Scenario::Offline { "ms a picture" } else { "ms, median" };
            [
                format!("{} {}", point.name, point.scenario),
                format!("{:.3} -> {:.3} {unit}", point.before_ms, point.after_ms),
                point.ratio.to_string(),
                point.verdict.name().to_owned(),
            ]
        };
        let rows: Vec<[String; 4]> = self.points.iter().map(columns).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let [what, times, ratio] = [0, 1, 2].map(width);
        for (row, point) in rows.iter().zip(&self.points) {
            writeln!(formatter, "{:what$}  {:times$}  {:ratio$}  {}", row[0], row[1], row[2], row[3])?;
            point.notes.iter().try_for_each(|note| writeln!(formatter, "  {note}"))?;
        }
        for (when, only) in [("before", &self.only_before), ("after", &self.only_after)] {
            only.iter().try_for_each(|point| writeln!(formatter, "only {when}: {point}"))?;
        }
        self.differences.iter().try_for_each(|difference| writeln!(formatter, "{difference}"))?;
        let [tolerance, confidence] = [self.tolerance, CONFIDENCE].map(|share| 100.0 * share);
        let caution = &self.caution;
        write!(
            formatter,
            "Tolerance {tolerance:.1} %; an interval holds the true change with {confidence:.0} % confidence. Note: {caution}"
        )
    }
}

#[cfg(test)]
pub(super) mod tests {
    use protoseg_models::random::Stream;
    use serde_json::json;

    use super::*;

    /// A report of one run under two scenarios, whose pictures take about so many milliseconds each.
    pub(in crate::benchmark) fn report(model: &str, ms: f64, seed: u64) -> Report {
        let draws = Stream::keyed(&[9, seed]);
        // In steps of so few digits that a file gives back the same.
        let step = |ms: f64| (ms * 1024.0).round() / 1024.0;
        let latencies: Vec<f64> = (0..300).map(|at| step(ms * (0.05 * draws.normal(at)).exp())).collect();
        let ends: Vec<f64> = latencies
            .iter()
            .scan(0.0, |end, latency| {
                *end += latency;
                Some(*end)
            })
            .collect();
        let starts: Vec<f64> = ends.iter().zip(&latencies).map(|(end, latency)| end - latency).collect();
        let point = |scenario: &str, due: Vec<f64>, latency: &[f64]| {
            json!({
                "scenario": {"kind": scenario}, "warm_up": {"queries": 3, "seconds": 0.5, "stretches": []}, "unstable": null,
                "samples": {"due_ms": due, "late_ms": vec![0.0; 300], "latency_ms": latency, "stages": []},
                "failed": 0, "first_error": null, "seconds": 6.0, "latency": null, "images_a_second": 50.0,
                "megapixels_a_second": 5.0, "energy": null, "sessions": 1, "threads": 1,
            })
        };
        let subject = json!({
            "name": "colors", "bundle": "bundle", "url": null, "model": model, "file": "model.onnx", "precision": "fp32",
            "device": "cpu", "options": {"threads": "1"},
            "pictures": {"height": 256, "width": 512, "count": 8, "source": "drawn"}, "windows": 1, "pixel_ratio": 1.0,
            "end_to_end": false, "sessions": 1, "threads": 1, "open_seconds": 0.5, "first_seconds": 0.25, "nodes": {},
            "accuracy": {"probe_agreement": 1.0, "reference": null, "mean_iou": null, "data": null, "missing": null},
            "peak_host_bytes": null, "peak_device_bytes": null,
        });
        let points = [point("single-stream", starts, &latencies), point("offline", vec![0.0; 300], &ends)];
        let report = json!({
            "version": Report::VERSION, "program": "protoseg 0.1.0", "began": 1_750_000_000,
            "runs": [{"subject": subject, "points": points}],
        });
        serde_json::from_value(report).unwrap()
    }

    fn verdicts(after_ms: f64, seed: u64) -> Vec<Verdict> {
        let compared = compare(&report("m", 20.0, 0), &report("m", after_ms, seed), 0.05).unwrap();
        compared.points.iter().map(|point| point.verdict).collect()
    }

    #[test]
    fn slower_and_faster_are_told_beyond_the_tolerance_alone() {
        assert_eq!(verdicts(20.0, 1), [Verdict::Within; 2]);
        assert_eq!(verdicts(22.0, 2), [Verdict::Regression; 2]);
        assert_eq!(verdicts(18.0, 3), [Verdict::Faster; 2]);
        assert_eq!(verdicts(20.6, 4), [Verdict::Within; 2]);
        assert_eq!(verdicts(21.0, 5), [Verdict::Undecided; 2]);
        let compared = compare(&report("m", 20.0, 0), &report("m", 22.0, 2), 0.05).unwrap();
        assert!(compared.has_regression());
        for point in &compared.points {
            assert!(point.ratio.interval.unwrap().holds(1.1), "{point:?}");
            assert!((point.before_ms - 20.0).abs() < 0.3 && (point.after_ms - 22.0).abs() < 0.3, "{point:?}");
        }
        assert!(!compare(&report("m", 20.0, 0), &report("m", 22.0, 2), 0.2).unwrap().has_regression());
    }

    #[test]
    fn verdicts_follow_from_the_interval() {
        let verdict = |low: f64, high: f64| {
            let interval = Some(super::super::ratio::Interval { low, high });
            Verdict::of(&Ratio { ratio: f64::midpoint(low, high), interval }, 0.25)
        };
        assert_eq!(verdict(1.26, 1.5), Verdict::Regression);
        assert_eq!(verdict(1.25, 1.5), Verdict::Undecided);
        assert_eq!(verdict(0.5, 1.5), Verdict::Undecided);
        assert_eq!(verdict(0.5, 1.25), Verdict::Within);
        assert_eq!(verdict(0.8, 0.9), Verdict::Within);
        assert_eq!(verdict(0.5, 0.79), Verdict::Faster);
        assert_eq!(Verdict::of(&Ratio { ratio: 3.0, interval: None }, 0.25), Verdict::Undecided);
    }

    #[test]
    fn what_was_measured_otherwise_is_not_compared() {
        let before = report("m", 20.0, 0);
        let change: [fn(&mut Subject); 5] = [
            |subject| subject.precision = Some("int8".to_owned()),
            |subject| subject.device = Some("cuda:0".to_owned()),
            |subject| drop(subject.options.insert("batch".to_owned(), "4".to_owned())),
            |subject| subject.pictures.width = 1024,
            |subject| subject.end_to_end = true,
        ];
        for change in change {
            let mut after = report("m", 20.0, 1);
            change(&mut after.runs[0].subject);
            let error = compare(&before, &after, 0.05).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with("nothing was measured in both: before there is colors single-stream (fp32")
            );
        }
        let mut after = report("m", 20.0, 1);
        after.runs[0].points[0].scenario = Scenario::Clients { clients: 4 };
        let compared = compare(&before, &after, 0.05).unwrap();
        assert_eq!((compared.points.len(), compared.only_before.len(), compared.only_after.len()), (1, 1, 1));
        assert_eq!(compared.only_after[0], "colors clients 4 (fp32, cpu, 256x512, threads=1)");
        for tolerance in [-0.1, f64::NAN, f64::INFINITY] {
            assert!(matches!(compare(&before, &after, tolerance), Err(CompareError::Tolerance(_))));
        }
        let nothing = Report { runs: Vec::new(), ..before.clone() };
        assert!(
            compare(&nothing, &before, 0.05).unwrap_err().to_string().contains("before there is nothing, and after")
        );
    }

    #[test]
    fn of_two_that_were_measured_alike_the_names_decide() {
        let two = |names: [&str; 2], ms: [f64; 2]| {
            let mut both = report("m", ms[0], 1);
            both.runs.extend(report("m", ms[1], 2).runs);
            both.runs.iter_mut().zip(names).for_each(|(run, name)| run.subject.name = name.to_owned());
            both
        };
        let before = two(["one", "other"], [20.0, 40.0]);
        let compared = compare(&before, &two(["other", "new"], [40.0, 20.0]), 0.05).unwrap();
        assert_eq!(compared.points.len(), 4);
        assert!(compared.points.iter().all(|point| point.verdict == Verdict::Within), "{compared}");
        assert!(compared.to_string().contains("the names differ: one, then new"), "{compared}");
    }

    #[test]
    fn what_else_differs_is_said() {
        let (before, mut after) = (report("m", 20.0, 0), report("n", 20.0, 1));
        after.program = "protoseg 0.2.0".to_owned();
        after.runs[0].subject.pictures.source = "street".to_owned();
        after.runs[0].points[0].unstable = Some("it drifts".to_owned());
        after.runs[0].points[1].failed = 7;
        let text = compare(&before, &after, 0.05).unwrap().to_string();
        for said in [
            "the programs differ: protoseg 0.1.0, then protoseg 0.2.0",
            "the models differ: m, then n",
            "the pictures differ: 8 from drawn, then 8 from street",
            "unstable after: it drifts",
            "after, 7 queries were not answered, and 300 were",
            "drifted or carried other load",
            "`protoseg bench A --against B`",
            "Tolerance 5.0 %",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
        after.runs[0].points[0].samples = Samples::default();
        let compared = compare(&before, &after, 0.05).unwrap();
        assert_eq!(compared.points.len(), 1);
        assert!(compared.differences[1].contains("no query was answered in one of the two"), "{compared}");
    }
}
