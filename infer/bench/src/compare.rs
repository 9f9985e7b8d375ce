//! Two reports of different times held against each other.

#[cfg(test)]
pub(super) mod tests;
mod worse;

use serde::{Deserialize, Serialize};

use self::worse::{broken, machines, notes};
use super::bootstrap::{self, Statistic};
use super::ratio::{CONFIDENCE, Ratio};
use super::report::{BenchReport, SampleColumns, ScenarioResult, Subject};
use super::scenario::Scenario;

/// What is said beside every comparison of two files.
const CAUTION: &str = "the two were measured at different times, and that the machine drifted or carried other load in between \
                       is not excluded; `protoseg bench A --against B` measures both in turns, which excludes it";

/// What is compared beside the median.
const TAIL: Statistic = Statistic::Percentile(99.0);

/// Two reports held against each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// How much slower is still within: 0.05 is 5 %.
    pub tolerance: f64,
    /// What was measured in both.
    pub points: Vec<PointComparison>,
    /// What was measured before alone.
    pub only_before: Vec<String>,
    /// What was measured after alone.
    pub only_after: Vec<String>,
    /// What became worse and is no matter of time, a sentence each: points that are not there any more, queries that are not
    /// answered, labels that are not right.
    pub broken: Vec<String>,
    /// In what the reports differ besides their figures, a sentence each.
    pub differences: Vec<String>,
    /// What no comparison of two files can exclude.
    pub caution: String,
}

/// One scenario of one way to run a model, before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointComparison {
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
    pub verdict: RegressionVerdict,
    /// The same of the 99th percentile of latency; none where there are too few samples to say.
    pub tail: Option<Ratio>,
    /// What follows of that.
    pub tail_verdict: Option<RegressionVerdict>,
    /// What else is to be known of it, a sentence each.
    pub notes: Vec<String>,
}

/// Whether it became slower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegressionVerdict {
    /// The whole interval lies beyond the tolerance.
    Regression,
    /// It may or may not be slower by more than the tolerance.
    Undecided,
    /// It is not slower by more than the tolerance.
    Within,
    /// The whole interval lies as far on the other side.
    Faster,
}

impl RegressionVerdict {
    /// The word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regression => "REGRESSION",
            Self::Undecided => "undecided",
            Self::Within => "within",
            Self::Faster => "faster",
        }
    }

    fn from_ratio(ratio: &Ratio, tolerance: f64) -> Self {
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
         options and size of pictures must be the same, and so must the rate: name a number with --rate, as a share of what the \
         model can do differs each time",
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
type Measured<'a> = (&'a Subject, &'a ScenarioResult);

/// Holds a report against an earlier one.
pub fn compare(
    before: &BenchReport,
    after: &BenchReport,
    tolerance: f64,
) -> Result<Comparison, CompareError> {
    if !tolerance.is_finite() || tolerance < 0.0 {
        return Err(CompareError::Tolerance(tolerance));
    }
    let (mut only_before, mut only_after) = (measured(before), measured(after));
    let matched = matches(&mut only_before, &mut only_after);
    let texts = |points: &[Measured]| {
        points.iter().map(|(subject, point)| describe(subject, point)).collect()
    };
    if matched.is_empty() {
        return Err(CompareError::NothingMatches {
            before: texts(&only_before),
            after: texts(&only_after),
        });
    }
    let mut comparison = Comparison {
        tolerance,
        points: Vec::new(),
        only_before: texts(&only_before),
        only_after: texts(&only_after),
        broken: Vec::new(),
        differences: Vec::new(),
        caution: CAUTION.to_owned(),
    };
    comparison.broken.extend(
        comparison.only_before.iter().map(|point| format!("{point} is not there any more")),
    );
    comparison.broken.extend(matched.iter().flat_map(|&(before, after)| broken(before, after)));
    let (one, other) = (&before.program, &after.program);
    if one != other {
        comparison.differences.push(format!("the programs differ: {one}, then {other}"));
    }
    comparison.differences.extend(machines(&before.machine, &after.machine));
    for (before, after) in matched {
        match compared(before, after, tolerance) {
            Some(point) => comparison.points.push(point),
            None => {
                let what = describe(after.0, after.1);
                comparison.differences.push(format!(
                    "{what}: no query was answered in one of the two, so no time is known"
                ));
            }
        }
    }
    Ok(comparison)
}

fn measured(report: &BenchReport) -> Vec<Measured<'_>> {
    report
        .runs
        .iter()
        .flat_map(|run| run.points.iter().map(|point| (&run.subject, point)))
        .collect()
}

/// Takes those out of both lists that were measured in the same way. Where several were, as of two models in one report,
/// those of the same name belong together, and the others in their order.
fn matches<'a>(
    before: &mut Vec<Measured<'a>>,
    after: &mut Vec<Measured<'a>>,
) -> Vec<(Measured<'a>, Measured<'a>)> {
    let mut matched = Vec::new();
    for by_name in [true, false] {
        after.retain(|&(subject, point)| {
            let fits = |(of, other): &Measured| {
                alike((of, other), (subject, point)) && (!by_name || of.name == subject.name)
            };
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
        && (one.pictures.height, one.pictures.width)
            == (other.pictures.height, other.pictures.width)
        && one.end_to_end == other.end_to_end
        && one.url.is_some() == other.url.is_some()
}

/// What tells a point from others, in words.
fn describe(subject: &Subject, point: &ScenarioResult) -> String {
    let options = subject.options.iter().map(|(name, value)| format!("{name}={value}"));
    let (height, width) = (subject.pictures.height, subject.pictures.width);
    let parts =
        [subject.precision.clone(), subject.device.clone(), Some(format!("{height}x{width}"))];
    let end_to_end = subject.end_to_end.then(|| "end to end".to_owned());
    let all: Vec<String> = parts.into_iter().flatten().chain(options).chain(end_to_end).collect();
    format!("{} {} ({})", subject.name, point.scenario, all.join(", "))
}

fn compared(
    (one, before): Measured,
    (other, after): Measured,
    tolerance: f64,
) -> Option<PointComparison> {
    let (figure, times): (Statistic, fn(&SampleColumns) -> Vec<f64>) = match after.scenario {
        Scenario::Offline => (Statistic::Mean, between_answers),
        _ => (Statistic::Percentile(50.0), |samples| samples.latency_ms.clone()),
    };
    let (before_times, after_times) = (times(&before.samples), times(&after.samples));
    let ratio = bootstrap::ratio(&before_times, &after_times, figure)?;
    let tails = (after.scenario != Scenario::Offline).then_some([&before_times, &after_times]);
    let tail = tails
        .and_then(|[before, after]| bootstrap::ratio(before, after, TAIL))
        .filter(|tail| tail.interval.is_some());
    Some(PointComparison {
        name: other.name.clone(),
        scenario: after.scenario,
        before_ms: figure.compute(&before_times)?,
        after_ms: figure.compute(&after_times)?,
        ratio,
        verdict: RegressionVerdict::from_ratio(&ratio, tolerance),
        tail,
        tail_verdict: tail.map(|tail| RegressionVerdict::from_ratio(&tail, tolerance)),
        notes: notes((one, before), (other, after)),
    })
}

/// Milliseconds from each answer to the next, the first from when the first query was due.
fn between_answers(samples: &SampleColumns) -> Vec<f64> {
    let mut answers: Vec<f64> = samples
        .due_ms
        .iter()
        .zip(&samples.latency_ms)
        .map(|(due, latency)| due + latency)
        .collect();
    answers.sort_by(f64::total_cmp);
    let mut before = samples.due_ms.iter().copied().fold(f64::INFINITY, f64::min);
    for answer in &mut answers {
        (before, *answer) = (*answer, *answer - before);
    }
    answers
}

impl Comparison {
    /// Whether anything became slower by more than the tolerance, or worse otherwise.
    pub fn has_regression(&self) -> bool {
        let slower = |point: &PointComparison| {
            point.verdict == RegressionVerdict::Regression
                || point.tail_verdict == Some(RegressionVerdict::Regression)
        };
        !self.broken.is_empty() || self.points.iter().any(slower)
    }
}

/// A table, then what is to be known of its rows, and what has no row.
impl std::fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = |point: &PointComparison| {
            let unit =
                if point.scenario == Scenario::Offline { "ms a picture" } else { "ms, median" };
            [
                format!("{} {}", point.name, point.scenario),
                format!("{:.3} -> {:.3} {unit}", point.before_ms, point.after_ms),
                point.ratio.to_string(),
                point.verdict.name().to_owned(),
            ]
        };
        let rows: Vec<[String; 4]> = self.points.iter().map(columns).collect();
        let width =
            |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let [what, times, ratio] = [0, 1, 2].map(width);
        for (row, point) in rows.iter().zip(&self.points) {
            writeln!(
                formatter,
                "{:what$}  {:times$}  {:ratio$}  {}",
                row[0], row[1], row[2], row[3]
            )?;
            if let (Some(tail), Some(verdict)) = (point.tail, point.tail_verdict) {
                writeln!(formatter, "  99th percentile: {tail}  {}", verdict.name())?;
            }
            point.notes.iter().try_for_each(|note| writeln!(formatter, "  {note}"))?;
        }
        self.only_after.iter().try_for_each(|point| writeln!(formatter, "only after: {point}"))?;
        self.broken.iter().try_for_each(|broken| writeln!(formatter, "REGRESSION: {broken}"))?;
        self.differences.iter().try_for_each(|difference| writeln!(formatter, "{difference}"))?;
        let [tolerance, confidence] = [self.tolerance, CONFIDENCE].map(|share| 100.0 * share);
        let caution = &self.caution;
        write!(
            formatter,
            "Tolerance {tolerance:.1} %; an interval holds the true change with {confidence:.0} % confidence. Note: {caution}"
        )
    }
}
