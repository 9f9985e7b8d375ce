//! Numbers, units and sentences of a report, the same on its page and in a terminal.

use jiff::Timestamp;
use protoseg_pages::fixed;

use super::report::{Accuracy, BenchReport, RateWithinBound, ScenarioResult, Subject};
use super::statistics;
use crate::machine::MachineInfo;

/// A number of three significant digits, or its whole part.
pub(super) fn figure(value: f64) -> String {
    rounded(value, 3)
}

/// A number of this many significant digits, or its whole part.
pub(super) fn rounded(value: f64, digits: i32) -> String {
    let most = f64::from(digits - 1);
    let magnitude = if value == 0.0 { most } else { value.abs().log10().floor() };
    let decimals = (most - magnitude).clamp(0.0, 6.0);
    // A number that rounds up to the next power of ten has a digit more than its logarithm says.
    let is_longer = (value.abs() * 10_f64.powf(decimals)).round() >= 10_f64.powi(digits);
    let decimals = if decimals > 0.0 && is_longer { decimals - 1.0 } else { decimals };
    fixed(value, decimals as usize)
}

/// Milliseconds with their unit; seconds from 10 000 ms on.
pub(super) fn milliseconds(ms: f64) -> String {
    if ms.abs() < 10_000.0 { format!("{} ms", figure(ms)) } else { seconds(ms / 1000.0) }
}

/// Seconds with their unit; milliseconds below 1 s.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds.abs() < 1.0 {
        format!("{} ms", figure(seconds * 1000.0))
    } else {
        format!("{} s", figure(seconds))
    }
}

/// Bytes in the largest fitting unit of 1024.
pub(super) fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", if unit == 0 { fixed(value, 0) } else { figure(value) }, units[unit])
}

/// A share as a percentage, rounded down so that only 1 gives 100 %.
pub(super) fn share(share: f64) -> String {
    let percent = (share * 100_000.0 + 1e-7).floor() / 1000.0;
    format!("{} %", if percent >= 100.0 { "100".to_owned() } else { fixed(percent, 3) })
}

/// A share as a percentage of two digits.
pub(super) fn percent(share: f64) -> String {
    format!("{} %", rounded(100.0 * share, 2))
}

/// A count with its noun.
pub(super) fn count(number: usize, one: &str, more: &str) -> String {
    format!("{} {}", fixed(number as f64, 0), if number == 1 { one } else { more })
}

/// Unix time as `2026-11-27 12:00 UTC`.
pub(super) fn moment(unix_seconds: u64) -> String {
    utc_time(unix_seconds, "%Y-%m-%d %H:%M UTC")
}

/// Unix time in a format of strftime; beyond the year 9999 the number itself.
pub(crate) fn utc_time(unix_seconds: u64, format: &str) -> String {
    let seconds = i64::try_from(unix_seconds).ok();
    let timestamp = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    timestamp.map_or_else(
        || format!("{unix_seconds} s since 1970"),
        |timestamp| timestamp.strftime(format).to_string(),
    )
}

/// Characters of a model's fingerprint that are shown.
const FINGERPRINT: usize = 12;

/// Labeled facts, without those that are unknown.
fn known(rows: Vec<(&'static str, Option<String>)>) -> Vec<(&'static str, String)> {
    rows.into_iter().filter_map(|(label, text)| Some((label, text?))).collect()
}

fn joined(texts: impl IntoIterator<Item = Option<String>>) -> Option<String> {
    let texts: Vec<String> = texts.into_iter().flatten().collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// Facts of a subject, each a label and a text.
pub(super) fn facts(subject: &Subject) -> Vec<(&'static str, String)> {
    let images = &subject.images;
    let size = format!("{} x {}", images.height, images.width);
    let options = subject.options.iter().map(|(name, value)| Some(format!("{name}={value}")));
    let nodes = subject.nodes.iter().map(|(provider, nodes)| Some(format!("{provider} {nodes}")));
    let span = if subject.end_to_end {
        "file to file, including decoding and encoding"
    } else {
        "pixels to labels in memory"
    };
    known(vec![
        ("model", Some(subject.model.chars().take(FINGERPRINT).collect())),
        ("bundle", subject.bundle.as_ref().map(|path| path.display().to_string())),
        ("server", subject.url.clone()),
        ("file", subject.file.clone()),
        ("precision", subject.precision.clone()),
        ("device", subject.device.clone()),
        ("options", joined(options)),
        ("images", Some(format!("{} of {size}, {}", images.count, images.source))),
        ("windows per image", subject.windows.map(|windows| fixed(windows as f64, 0))),
        ("pixel ratio", subject.pixel_ratio.map(figure)),
        ("latency", Some(span.to_owned())),
        ("opened in", subject.open_seconds.map(seconds)),
        ("first run", subject.first_run_seconds.map(seconds)),
        ("nodes", joined(nodes)),
        ("host memory", subject.peak_host_bytes.map(bytes)),
        ("accuracy", Some(accuracy(&subject.accuracy))),
    ])
}

/// Sessions and threads of a point; `None` for a server.
pub(super) fn sessions(point: &ScenarioResult) -> Option<String> {
    let threads = count(point.threads?, "thread", "threads");
    Some(format!("{} of {threads}", count(point.sessions?, "session", "sessions")))
}

/// Result of the search for the largest rate within a latency bound, as a sentence.
pub(super) fn within_bound(found: &RateWithinBound) -> String {
    let RateWithinBound { bound_ms, rate, beyond, sure } = *found;
    let bound = milliseconds(bound_ms);
    let Some(rate) = rate else {
        return format!("no measured rate keeps the 99th percentile to {bound}");
    };
    let confidence = if sure { "with 99 % confidence" } else { "by few queries" };
    let beyond = beyond.map_or_else(
        || "and no measured rate exceeds it".to_owned(),
        |beyond| format!("{} images/s do not", figure(beyond)),
    );
    format!("{} images/s keep the 99th percentile to {bound} {confidence}, {beyond}", figure(rate))
}

/// Energy and memory of the device; empty where unknown.
pub(super) fn device(point: &ScenarioResult) -> Vec<String> {
    let energy = point.energy.map(|energy| {
        format!("{} J an image at {} W", figure(energy.joules_per_image), figure(energy.watts))
    });
    let memory = point.peak_device_bytes.map(|peak| format!("{} of device memory", bytes(peak)));
    energy.into_iter().chain(memory).collect()
}

/// Facts of a machine, each a label and a text.
pub(super) fn machine(machine: &MachineInfo) -> Vec<(&'static str, String)> {
    let processor = &machine.processor;
    let extensions = Some(processor.vector_extensions.join(" ")).filter(|names| !names.is_empty());
    let clock = processor.mhz.map(|mhz| match processor.max_mhz {
        Some(most) => format!("{mhz:.0} of {most:.0} MHz"),
        None => format!("{mhz:.0} MHz"),
    });
    let governor = processor.governor.as_ref().map(|governor| format!("governor {governor}"));
    let kernel = machine.kernel.as_ref().map(|kernel| format!("kernel {kernel}"));
    let gpus = machine.gpus.gpus.iter().map(|gpu| gpu.name.clone());
    known(vec![
        ("processor", joined([processor.name.clone(), extensions])),
        ("usable cores", Some(processor.cores.to_string())),
        ("quota", processor.quota.map(|quota| format!("time of {quota:.2} cores"))),
        ("clock", joined([clock, governor])),
        ("memory", machine.memory.limit.map(bytes)),
        ("system", joined([machine.system.clone(), kernel])),
        ("inside of", joined([machine.virtual_machine.clone(), machine.container.clone()])),
        ("load before", machine.load.map(|[minute, ..]| format!("{minute:.2} over a minute"))),
        ("GPUs", joined(gpus)),
        ("driver", machine.gpus.driver.clone()),
        ("ONNX Runtime", machine.runtime.as_ref().map(|runtime| runtime.build.clone())),
    ])
}

/// Accuracy as a sentence.
pub(super) fn accuracy(accuracy: &Accuracy) -> String {
    let reference =
        accuracy.reference.as_ref().map_or_else(String::new, |source| format!(" ({source})"));
    let agreement = accuracy
        .probe_agreement
        .map(|agreement| format!("label agreement {}{reference}", share(agreement)));
    let data = accuracy.data.as_ref().map_or_else(String::new, |data| format!(" on {data}"));
    let mean_iou = accuracy.mean_iou.map(|percent| format!("mIoU {} %{data}", fixed(percent, 2)));
    let missing = accuracy.missing.as_ref().map(|why| format!("unknown: {why}"));
    let parts: Vec<String> = [agreement, mean_iou, missing].into_iter().flatten().collect();
    if parts.is_empty() { "unknown".to_owned() } else { parts.join("; ") }
}

/// Sentence on percentiles that equal the largest sample because there are too few; `None` where
/// there are none.
pub(super) fn largest(report: &BenchReport) -> Option<String> {
    let mut percents: Vec<f64> = Vec::new();
    for point in report.runs.iter().flat_map(|run| &run.points) {
        let count = point.samples.latency_ms.len();
        for percentile in point.latency.iter().flat_map(|latency| &latency.percentiles) {
            let percent = percentile.percent;
            if statistics::rank(count, percent) == count && !percents.contains(&percent) {
                percents.push(percent);
            }
        }
    }
    percents.sort_by(f64::total_cmp);
    // From this number of samples on, one is expected beyond the percentile, and the rank is not
    // the last.
    let needed = |percent: &f64| rounded(100.0 / (100.0 - percent), 1);
    let list: Vec<String> = percents
        .iter()
        .map(|percent| format!("p{percent} of fewer than {} queries", needed(percent)))
        .collect();
    let verb = if percents.len() == 1 { "is" } else { "are" };
    (!percents.is_empty()).then(|| format!("{} {verb} the largest latency.", list.join(", ")))
}

/// Stability of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReportVerdict {
    /// `STABLE`, or `UNSTABLE` with the number of points.
    pub(super) words: String,
    /// Unstable figures and unanswered queries, a sentence each.
    pub(super) reasons: Vec<String>,
    pub(super) stable: bool,
}

pub(super) fn verdict(report: &BenchReport) -> ReportVerdict {
    let mut all = 0;
    let mut unstable = 0;
    let mut reasons = Vec::new();
    for run in &report.runs {
        for point in &run.points {
            all += 1;
            let what = format!("{}, {}", run.subject.name, point.scenario);
            if let Some(why) = &point.unstable {
                unstable += 1;
                reasons.push(format!("{what}: {why}"));
            }
            reasons.extend(failure(point).map(|failure| format!("{what}: {failure}")));
        }
    }
    let words = match (all, unstable) {
        (0, _) => "UNSTABLE: nothing was measured".to_owned(),
        (_, 0) => "STABLE".to_owned(),
        (1, _) => "UNSTABLE".to_owned(),
        _ => format!("UNSTABLE: {unstable} of {all} points"),
    };
    ReportVerdict { words, reasons, stable: all > 0 && unstable == 0 }
}

/// Unanswered queries with the first error; `None` where there are none.
pub(super) fn failure(point: &ScenarioResult) -> Option<String> {
    let error = point.first_error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
    let failed = count(point.failed, "query was", "queries were");
    (point.failed > 0).then(|| format!("{failed} not answered{error}"))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let written =
            [0.0, 0.01234, 0.2126, 1.0, 9.999, 41.25, 99.96, 412.4, 1234.4, 12_345.6].map(figure);
        assert_eq!(
            written,
            ["0", "0.0123", "0.213", "1.00", "10.0", "41.2", "100", "412", "1234", "12\u{202f}346"]
        );
        assert_eq!(
            [0.997, 0.71, 0.054, 0.00206].map(percent),
            ["100 %", "71 %", "5.4 %", "0.21 %"]
        );
        assert_eq!([milliseconds(41.0), milliseconds(12_000.0)], ["41.0 ms", "12.0 s"]);
        assert_eq!([seconds(0.41), seconds(3.0)], ["410 ms", "3.00 s"]);
        assert_eq!([bytes(17), bytes(1 << 10), bytes(3 << 29)], ["17 B", "1.00 KiB", "1.50 GiB"]);
    }

    #[test]
    fn only_1_is_a_hundred_percent() {
        assert_eq!(
            [1.0, 0.999_999_9, 0.999_98, 0.57].map(share),
            ["100 %", "99.999 %", "99.998 %", "57.000 %"]
        );
    }

    #[test]
    fn percentiles_of_few_queries_are_the_largest() {
        let mut report = sample::report();
        let mut sentence = |count: usize| {
            let points = report.runs.iter_mut().flat_map(|run| &mut run.points);
            points.for_each(|point| point.samples.latency_ms.resize(count, 41.0));
            largest(&report)
        };
        assert_eq!(sentence(100), None);
        assert_eq!(
            sentence(99).as_deref(),
            Some("p99 of fewer than 100 queries is the largest latency.")
        );
        let two =
            "p95 of fewer than 20 queries, p99 of fewer than 100 queries are the largest latency.";
        assert_eq!(sentence(19).as_deref(), Some(two));
        assert_eq!(sentence(20), sentence(99));
    }

    #[test]
    fn times_are_utc() {
        let written = [0, 951_782_400, 951_868_799, 1_709_164_740, 4_107_542_399].map(moment);
        let expected = [
            "1970-01-01 00:00",
            "2000-02-29 00:00",
            "2000-02-29 23:59",
            "2024-02-28 23:59",
            "2100-02-28 23:59",
        ];
        assert_eq!(written, expected.map(|text| format!("{text} UTC")));
        for (seconds, day) in [
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_795_824_000, "2026-11-28"),
            (1_795_823_999, "2026-11-27"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(utc_time(seconds, "%Y-%m-%d"), day);
        }
        assert!(!utc_time(u64::MAX, "%Y-%m-%d").is_empty());
    }
}
