//! Comparison of two reports of different times: `protoseg bench compare`.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::{Deserialize, Serialize};

use super::ab::{CONFIDENCE, Ratio};
use super::bootstrap::{self, Statistic};
use super::load::Scenario;
use super::report::{BenchReport, SampleColumns, ScenarioResult, Subject};
use crate::machine::MachineInfo;

#[cfg(test)]
pub(super) mod tests;

/// Printed with every comparison of two files.
const CAUTION: &str = "the two were measured at different times, so drift of the machine or other load in between is not \
                       excluded; `protoseg bench A --against B` interleaves both, which excludes it";

/// Compared beside the median.
const TAIL: Statistic = Statistic::Percentile(99.0);

/// Largest drop of the label agreement that the order of sums on another machine may cause, as in
/// the check of fp32 files.
const LABEL_TOLERANCE: f64 = 1e-4;

/// Largest drop of the mean IoU in percentage points, as in that check.
const MEAN_IOU_TOLERANCE: f64 = 0.1;

/// Comparison of two reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Accepted slowdown: 0.05 is 5 %.
    pub tolerance: f64,
    /// Points that were measured in both reports.
    pub points: Vec<PointComparison>,
    pub only_before: Vec<String>,
    pub only_after: Vec<String>,
    /// Regressions other than of time, a sentence each: missing points, unanswered queries, wrong
    /// labels.
    pub broken: Vec<String>,
    /// Differences of program and machine, a sentence each.
    pub differences: Vec<String>,
    /// Limits of comparing two files.
    pub caution: String,
}

/// One scenario of one subject, before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointComparison {
    /// Name of the subject in the later report.
    pub name: String,
    pub scenario: Scenario,
    /// Median latency; offline the mean time per image.
    pub before_ms: f64,
    pub after_ms: f64,
    /// Time after over time before.
    pub ratio: Ratio,
    pub verdict: RegressionVerdict,
    /// Ratio of the 99th percentiles; `None` of too few samples.
    pub tail: Option<Ratio>,
    pub tail_verdict: Option<RegressionVerdict>,
    /// Sentences.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegressionVerdict {
    /// The whole interval is slower than the tolerance.
    Regression,
    /// The interval contains the tolerance.
    Undecided,
    /// Not slower than the tolerance.
    Within,
    /// The whole interval is faster by more than the tolerance.
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

/// Two reports that cannot be compared.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum CompareError {
    #[error(
        "the reports have no measurement in common: before {}; after {}; scenario, precision, device, windows, options, \
         image size and rate must be the same: give --rate as a number, as a share of the capacity differs each time",
        list(before),
        list(after)
    )]
    NothingMatches { before: Vec<String>, after: Vec<String> },
    #[error("tolerance {0} is not a share; write 0.05 for 5 %")]
    Tolerance(f64),
}

fn list(points: &[String]) -> String {
    if points.is_empty() { "nothing".to_owned() } else { points.join("; ") }
}

type Measured<'a> = (&'a Subject, &'a ScenarioResult);

/// Compares a report with an earlier one.
pub fn compare(
    before: &BenchReport,
    after: &BenchReport,
    tolerance: f64,
) -> Result<Comparison, CompareError> {
    if !tolerance.is_finite() || tolerance < 0.0 {
        return Err(CompareError::Tolerance(tolerance));
    }
    let mut unmatched_before = measured(before);
    let mut unmatched_after = measured(after);
    let matched = take_matches(&mut unmatched_before, &mut unmatched_after);
    let texts = |points: Vec<Measured>| points.into_iter().map(describe).collect::<Vec<_>>();
    let only_before = texts(unmatched_before);
    let only_after = texts(unmatched_after);
    if matched.is_empty() {
        return Err(CompareError::NothingMatches { before: only_before, after: only_after });
    }
    let mut broken: Vec<String> =
        only_before.iter().map(|point| format!("{point} is missing")).collect();
    let mut differences = Vec::new();
    if before.program != after.program {
        differences
            .push(format!("the programs differ: {}, then {}", before.program, after.program));
    }
    differences.extend(machine_differences(&before.machine, &after.machine));
    let mut points = Vec::new();
    for (before, after) in matched {
        broken.extend(find_broken(before, after));
        match compare_point(before, after, tolerance) {
            Some(point) => points.push(point),
            None => differences.push(format!(
                "{}: no query was answered in one of the two, so no time is known",
                describe(after)
            )),
        }
    }
    let caution = CAUTION.to_owned();
    Ok(Comparison { tolerance, points, only_before, only_after, broken, differences, caution })
}

fn measured(report: &BenchReport) -> Vec<Measured<'_>> {
    let mut all = Vec::new();
    for run in &report.runs {
        all.extend(run.points.iter().map(|point| (&run.subject, point)));
    }
    all
}

/// Removes the points that were measured in the same way from both lists. Where there are several,
/// as of two models in one report, those of the same name match first, and the others in their
/// order.
fn take_matches<'a>(
    before: &mut Vec<Measured<'a>>,
    after: &mut Vec<Measured<'a>>,
) -> Vec<(Measured<'a>, Measured<'a>)> {
    let mut matched = Vec::new();
    for by_name in [true, false] {
        after.retain(|&later| {
            let fits = |&earlier: &Measured| {
                is_same_setup(earlier, later) && (!by_name || earlier.0.name == later.0.name)
            };
            let Some(index) = before.iter().position(fits) else { return true };
            matched.push((before.remove(index), later));
            false
        });
    }
    matched
}

/// Returns true where only model, time and machine differ.
fn is_same_setup((one, one_point): Measured, (other, other_point): Measured) -> bool {
    one_point.scenario == other_point.scenario
        && one.precision == other.precision
        && one.device == other.device
        && one.windows == other.windows
        && one.options == other.options
        && (one.images.height, one.images.width) == (other.images.height, other.images.width)
        && one.end_to_end == other.end_to_end
        && one.url.is_some() == other.url.is_some()
}

/// `NAME SCENARIO (fp32, cpu, 1024x2048, threads=1)`.
fn describe((subject, point): Measured) -> String {
    let size = format!("{}x{}", subject.images.height, subject.images.width);
    let mut parts: Vec<String> =
        subject.precision.iter().chain(&subject.device).cloned().chain([size]).collect();
    parts.extend(subject.options.iter().map(|(name, value)| format!("{name}={value}")));
    if subject.end_to_end {
        parts.push("end to end".to_owned());
    }
    format!("{} {} ({})", subject.name, point.scenario, parts.join(", "))
}

fn compare_point(
    (one, before): Measured,
    (other, after): Measured,
    tolerance: f64,
) -> Option<PointComparison> {
    let is_offline = after.scenario == Scenario::Offline;
    let (statistic, before_times, after_times) = if is_offline {
        let [before, after] = [before, after].map(|point| times_between_answers(&point.samples));
        (Statistic::Mean, before, after)
    } else {
        let [before, after] = [before, after].map(|point| point.samples.latency_ms.clone());
        (Statistic::Percentile(50.0), before, after)
    };
    let ratio = bootstrap::ratio(&before_times, &after_times, statistic)?;
    let tail = if is_offline { None } else { bootstrap::ratio(&before_times, &after_times, TAIL) }
        .filter(|tail| tail.interval.is_some());
    Some(PointComparison {
        name: other.name.clone(),
        scenario: after.scenario,
        before_ms: statistic.compute(&before_times)?,
        after_ms: statistic.compute(&after_times)?,
        ratio,
        verdict: RegressionVerdict::from_ratio(&ratio, tolerance),
        tail,
        tail_verdict: tail.map(|tail| RegressionVerdict::from_ratio(&tail, tolerance)),
        notes: notes((one, before), (other, after)),
    })
}

/// Milliseconds from each answer to the next; the first from when the first query was due.
fn times_between_answers(samples: &SampleColumns) -> Vec<f64> {
    let mut times: Vec<f64> = samples
        .due_ms
        .iter()
        .zip(&samples.latency_ms)
        .map(|(due, latency)| due + latency)
        .collect();
    times.sort_by(f64::total_cmp);
    let mut previous = samples.due_ms.iter().copied().fold(f64::INFINITY, f64::min);
    for time in &mut times {
        let answered = *time;
        *time -= previous;
        previous = answered;
    }
    times
}

fn unanswered(point: &ScenarioResult) -> String {
    let answered = point.samples.latency_ms.len();
    format!("{} queries were not answered, and {answered} were", point.failed)
}

/// Regressions other than of time: unanswered queries, wrong labels.
fn find_broken((one, before): Measured, (other, after): Measured) -> Vec<String> {
    let failed_share = |point: &ScenarioResult| {
        let all = point.failed + point.samples.latency_ms.len();
        if all == 0 { 1.0 } else { point.failed as f64 / all as f64 }
    };
    let mut broken = Vec::new();
    if failed_share(after) > failed_share(before) {
        broken.push(format!("{}: {}", describe((other, after)), unanswered(after)));
    }
    let [one, other] = [&one.accuracy, &other.accuracy];
    if let (Some(before), Some(after)) = (one.probe_agreement, other.probe_agreement)
        && before - after > LABEL_TOLERANCE
    {
        broken.push(format!(
            "label agreement fell from {:.2} to {:.2} %",
            100.0 * before,
            100.0 * after
        ));
    }
    if let (Some(before), Some(after)) = (one.mean_iou, other.mean_iou)
        && one.data == other.data
        && before - after > MEAN_IOU_TOLERANCE
    {
        broken.push(format!("mean IoU fell from {before:.2} to {after:.2} %"));
    }
    broken
}

/// Differences of the machines that do not change from hour to hour.
fn machine_differences(before: &MachineInfo, after: &MachineInfo) -> Vec<String> {
    let facts = |machine: &MachineInfo| {
        let text = |text: Option<&str>| text.unwrap_or("none").to_owned();
        let processor = &machine.processor;
        let name = text(processor.name.as_deref());
        let system = text(machine.system.as_deref());
        let gpus: Vec<_> = machine.gpus.gpus.iter().map(|gpu| &gpu.name).collect();
        [
            ("processors", format!("{name}, {} usable cores", processor.cores)),
            (
                "builds of ONNX Runtime",
                text(machine.runtime.as_ref().map(|runtime| runtime.build.as_str())),
            ),
            ("systems", format!("{system}, kernel {}", text(machine.kernel.as_deref()))),
            ("GPUs", format!("{gpus:?}")),
            ("virtual machines", text(machine.virtual_machine.as_deref())),
            ("containers", text(machine.container.as_deref())),
        ]
    };
    differing(facts(before).into_iter().zip(facts(after)))
}

fn differing(
    pairs: impl Iterator<Item = ((&'static str, String), (&'static str, String))>,
) -> Vec<String> {
    pairs
        .filter(|(one, other)| one != other)
        .map(|((what, one), (_, other))| format!("the {what} differ: {one}, then {other}"))
        .collect()
}

fn notes((one, before): Measured, (other, after): Measured) -> Vec<String> {
    let mut notes = Vec::new();
    for (when, point) in [("before", before), ("after", after)] {
        notes.extend(point.unstable.iter().map(|why| format!("unstable {when}: {why}")));
        if point.failed > 0 {
            notes.push(format!("{when}, {}", unanswered(point)));
        }
    }
    let facts = |subject: &Subject| {
        [
            ("names", subject.name.clone()),
            ("models", subject.model.clone()),
            ("images", format!("{} from {}", subject.images.count, subject.images.source)),
        ]
    };
    notes.extend(differing(facts(one).into_iter().zip(facts(other))));
    notes
}

impl Comparison {
    /// Returns true where something is slower than the tolerance, or broken.
    pub fn has_regression(&self) -> bool {
        let is_slower = |point: &PointComparison| {
            point.verdict == RegressionVerdict::Regression
                || point.tail_verdict == Some(RegressionVerdict::Regression)
        };
        !self.broken.is_empty() || self.points.iter().any(is_slower)
    }
}

/// A table with notes below its rows, then what has no row.
impl std::fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        for point in &self.points {
            let unit =
                if point.scenario == Scenario::Offline { "ms an image" } else { "ms, median" };
            table.add_row([
                format!("{} {}", point.name, point.scenario),
                format!("{:.3} -> {:.3} {unit}", point.before_ms, point.after_ms),
                point.ratio.to_string(),
                point.verdict.name().to_owned(),
            ]);
        }
        table.column_iter_mut().for_each(|column| {
            column.set_padding((0, 2));
        });
        for (row, point) in table.lines().zip(&self.points) {
            writeln!(formatter, "{}", row.trim_end())?;
            if let (Some(tail), Some(verdict)) = (point.tail, point.tail_verdict) {
                writeln!(formatter, "  99th percentile: {tail}  {}", verdict.name())?;
            }
            for note in &point.notes {
                writeln!(formatter, "  {note}")?;
            }
        }
        for point in &self.only_after {
            writeln!(formatter, "only after: {point}")?;
        }
        for broken in &self.broken {
            writeln!(formatter, "REGRESSION: {broken}")?;
        }
        for difference in &self.differences {
            writeln!(formatter, "{difference}")?;
        }
        let [tolerance, confidence] = [self.tolerance, CONFIDENCE].map(|share| 100.0 * share);
        let caution = &self.caution;
        write!(
            formatter,
            "tolerance {tolerance:.1} %; an interval holds the true change with {confidence:.0} % confidence; {caution}"
        )
    }
}
