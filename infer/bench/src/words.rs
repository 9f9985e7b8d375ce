//! How a report's figures are written: digits, units and names, the same on its page and in a terminal.

use protoseg_pages::fixed;

use super::report::{Accuracy, BenchReport, RateWithinBound, ScenarioResult, Subject};
use super::statistics;
use crate::machine::MachineInfo;

/// A number of three digits, or all digits of its whole part.
pub(super) fn figure(value: f64) -> String {
    rounded(value, 3)
}

/// A number of so many digits, or all digits of its whole part.
pub(super) fn rounded(value: f64, digits: i32) -> String {
    let most = f64::from(digits - 1);
    let magnitude = if value == 0.0 { most } else { value.abs().log10().floor() };
    // What is rounded up to the next power of ten has a digit more than its logarithm says.
    let longer =
        |decimals: f64| (value.abs() * 10_f64.powf(decimals)).round() >= 10_f64.powi(digits);
    let decimals = (most - magnitude).clamp(0.0, 6.0);
    let decimals = if decimals > 0.0 && longer(decimals) { decimals - 1.0 } else { decimals };
    fixed(value, decimals as usize)
}

/// Milliseconds with their unit; seconds where there are ten thousand and more.
pub(super) fn milliseconds(ms: f64) -> String {
    if ms.abs() < 10_000.0 { format!("{} ms", figure(ms)) } else { seconds(ms / 1000.0) }
}

/// Seconds with their unit; milliseconds where there is less than one.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds.abs() < 1.0 {
        format!("{} ms", figure(seconds * 1000.0))
    } else {
        format!("{} s", figure(seconds))
    }
}

/// Bytes in the largest unit of 1024 of which there is one.
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

/// A share as percent. Rounded down, so that 100 % is said of the whole alone.
pub(super) fn share(share: f64) -> String {
    let percent = (share * 100_000.0 + 1e-7).floor() / 1000.0;
    format!("{} %", if percent >= 100.0 { "100".to_owned() } else { fixed(percent, 3) })
}

/// A share as percent of two digits.
pub(super) fn percent(share: f64) -> String {
    format!("{} %", rounded(100.0 * share, 2))
}

/// A count with its noun.
pub(super) fn count(number: usize, one: &str, more: &str) -> String {
    format!("{} {}", fixed(number as f64, 0), if number == 1 { one } else { more })
}

/// A moment, given in seconds since 1970, by the Gregorian calendar in UTC.
pub(super) fn moment(since_1970: u64) -> String {
    let (days, seconds) = (since_1970 / 86_400, since_1970 % 86_400);
    // Days since 1 March of the year 0, so that a leap day is the last of its year; 146 097 of them are 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = 400 * era + year + next;
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60)
}

/// Characters of a model's fingerprint that are shown: as many as tell models apart.
const MODEL: usize = 12;

/// What is known of what was measured, a label and a text each.
pub(super) fn facts(subject: &Subject) -> Vec<(&'static str, String)> {
    let pictures = &subject.pictures;
    let joined = |pairs: Vec<String>| (!pairs.is_empty()).then(|| pairs.join(", "));
    let options = subject.options.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let nodes =
        subject.nodes.iter().map(|(provider, nodes)| format!("{provider} {nodes}")).collect();
    let span = if subject.end_to_end {
        "file to file, decoding and encoding too"
    } else {
        "pixels to labels in memory"
    };
    let rows = [
        ("model", Some(subject.model.chars().take(MODEL).collect())),
        ("bundle", subject.bundle.as_ref().map(|path| path.display().to_string())),
        ("server", subject.url.clone()),
        ("file", subject.file.clone()),
        ("precision", subject.precision.clone()),
        ("device", subject.device.clone()),
        ("options", joined(options)),
        (
            "pictures",
            Some(format!(
                "{} of {} x {}, {}",
                pictures.count, pictures.height, pictures.width, pictures.source
            )),
        ),
        ("windows a picture", subject.windows.map(|windows| fixed(windows as f64, 0))),
        ("pixel ratio", subject.pixel_ratio.map(figure)),
        ("latency", Some(span.to_owned())),
        ("opened in", subject.open_seconds.map(seconds)),
        ("first run", subject.first_run_seconds.map(seconds)),
        ("nodes", joined(nodes)),
        ("host memory", subject.peak_host_bytes.map(bytes)),
        ("accuracy", Some(accuracy(&subject.accuracy))),
    ];
    rows.into_iter().filter_map(|(label, text)| text.map(|text| (label, text))).collect()
}

/// How many sessions ran a point; none of a server, which does not tell.
pub(super) fn sessions(point: &ScenarioResult) -> Option<String> {
    let threads = count(point.threads?, "thread", "threads");
    Some(format!("{} of {threads}", count(point.sessions?, "session", "sessions")))
}

/// How many pictures may come in a second within a bound, in a sentence.
pub(super) fn within_bound(found: &RateWithinBound) -> String {
    let RateWithinBound { bound_ms, rate, beyond, sure } = *found;
    let bound = milliseconds(bound_ms);
    let Some(rate) = rate else {
        return format!("no rate that was tried keeps the 99th percentile to {bound}");
    };
    let beyond = beyond.map_or_else(
        || ", and no rate that was tried was too many".to_owned(),
        |beyond| format!(", {} are too many", figure(beyond)),
    );
    let how = if sure { "with 99 % confidence" } else { "as far as so few queries tell" };
    format!("{} pictures/s keep the 99th percentile to {bound}, {how}{beyond}", figure(rate))
}

/// What a point took of the device; empty where the device does not tell.
pub(super) fn device(point: &ScenarioResult) -> Vec<String> {
    let energy = point.energy.map(|energy| {
        format!("{} J a picture at {} W", figure(energy.joules_per_image), figure(energy.watts))
    });
    let memory =
        point.peak_device_bytes.map(|peak| format!("{} of the device's memory", bytes(peak)));
    energy.into_iter().chain(memory).collect()
}

/// The machine that a report is of, a label and a text each.
pub(super) fn machine(facts: &MachineInfo) -> Vec<(&'static str, String)> {
    let MachineInfo {
        runtime,
        processor,
        memory,
        system,
        kernel,
        virtual_machine,
        container,
        load,
        gpus,
        ..
    } = facts;
    let joined = |texts: Vec<Option<String>>| {
        let texts: Vec<String> = texts.into_iter().flatten().collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    };
    let extensions = Some(processor.vector_extensions.join(" ")).filter(|names| !names.is_empty());
    let clock = processor.mhz.map(|mhz| match processor.max_mhz {
        Some(most) => format!("{mhz:.0} of {most:.0} MHz"),
        None => format!("{mhz:.0} MHz"),
    });
    let rows = [
        ("processor", joined(vec![processor.name.clone(), extensions])),
        ("cores to use", Some(processor.cores.to_string())),
        ("quota", processor.quota.map(|quota| format!("time of {quota:.2} cores"))),
        (
            "clock",
            joined(vec![
                clock,
                processor.governor.clone().map(|governor| format!("governor {governor}")),
            ]),
        ),
        ("memory", memory.limit.map(bytes)),
        (
            "system",
            joined(vec![system.clone(), kernel.as_ref().map(|kernel| format!("kernel {kernel}"))]),
        ),
        ("inside of", joined(vec![virtual_machine.clone(), container.clone()])),
        ("load before", load.map(|[minute, ..]| format!("{minute:.2} over a minute"))),
        ("GPUs", joined(gpus.gpus.iter().map(|gpu| gpu.name.clone()).collect())),
        ("driver", gpus.driver.clone()),
        ("ONNX Runtime", runtime.as_ref().map(|runtime| runtime.build.clone())),
    ];
    rows.into_iter().filter_map(|(label, text)| text.map(|text| (label, text))).collect()
}

/// Whether a model computes what it should, in a sentence.
pub(super) fn accuracy(accuracy: &Accuracy) -> String {
    let reference =
        accuracy.reference.as_ref().map_or_else(String::new, |whose| format!(" ({whose})"));
    let agreement = accuracy
        .probe_agreement
        .map(|agreed| format!("label agreement {}{reference}", share(agreed)));
    let data = accuracy.data.as_ref().map_or_else(String::new, |data| format!(" on {data}"));
    let mean_iou = accuracy.mean_iou.map(|percent| format!("mIoU {} %{data}", fixed(percent, 2)));
    let missing = accuracy.missing.as_ref().map(|why| format!("unknown: {why}"));
    let said: Vec<String> = [agreement, mean_iou, missing].into_iter().flatten().collect();
    if said.is_empty() { "unknown".to_owned() } else { said.join("; ") }
}

/// Which percentiles are the largest sample for want of others, in a sentence; none where none is.
pub(super) fn largest(report: &BenchReport) -> Option<String> {
    let points = report.runs.iter().flat_map(|run| &run.points);
    let known =
        points.filter_map(|point| Some((point.samples.latency_ms.len(), point.latency.as_ref()?)));
    let mut percents: Vec<f64> = Vec::new();
    for (count, latency) in known {
        let is_largest = |percent: &f64| {
            statistics::rank(count, *percent) == count && !percents.contains(percent)
        };
        let found: Vec<f64> = latency
            .percentiles
            .iter()
            .map(|percentile| percentile.percent)
            .filter(is_largest)
            .collect();
        percents.extend(found);
    }
    percents.sort_by(f64::total_cmp);
    // Of so many samples as there are in which one is expected beyond the percentile, the rank is the last but one.
    let told = |percent: &f64| {
        format!("p{percent} of fewer than {} queries", rounded(100.0 / (100.0 - percent), 1))
    };
    let told = percents.iter().map(told).collect::<Vec<_>>().join(", ");
    let verb = if percents.len() == 1 { "is" } else { "are" };
    (!percents.is_empty()).then(|| format!("{told} {verb} the largest latency."))
}

/// Whether a report's figures are to be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReportVerdict {
    /// `STABLE` or `UNSTABLE`, and how much of the report that is.
    pub(super) words: String,
    /// What is wrong, a sentence each: of unstable figures, and of queries that were not answered.
    pub(super) reasons: Vec<String>,
    /// Whether all figures are stable.
    pub(super) stable: bool,
}

/// The verdict on all of a report.
pub(super) fn verdict(report: &BenchReport) -> ReportVerdict {
    let points = || {
        report
            .runs
            .iter()
            .flat_map(|run| run.points.iter().map(move |point| (&run.subject.name, point)))
    };
    let (all, unstable) =
        (points().count(), points().filter(|(_, point)| point.unstable.is_some()).count());
    let reasons = points().flat_map(|(name, point)| {
        let why = point.unstable.as_ref().map(|why| format!("{name}, {}: {why}", point.scenario));
        let error =
            point.first_error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
        let failed = count(point.failed, "query was", "queries were");
        let failed = (point.failed > 0)
            .then(|| format!("{name}, {}: {failed} not answered{error}", point.scenario));
        [why, failed].into_iter().flatten()
    });
    let words = match (all, unstable) {
        (0, _) => "UNSTABLE: nothing was measured".to_owned(),
        (_, 0) => "STABLE".to_owned(),
        (1, _) => "UNSTABLE".to_owned(),
        _ => format!("UNSTABLE: {unstable} of {all} points"),
    };
    ReportVerdict { words, reasons: reasons.collect(), stable: all > 0 && unstable == 0 }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn figures_have_three_digits() {
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
    fn only_the_whole_is_a_hundred_percent() {
        assert_eq!(
            [1.0, 0.999_999_9, 0.999_98, 0.57].map(share),
            ["100 %", "99.999 %", "99.998 %", "57.000 %"]
        );
    }

    #[test]
    fn percentiles_of_few_queries_are_said_to_be_the_largest() {
        let mut report = sample::report();
        let mut told = |count: usize| {
            let points = report.runs.iter_mut().flat_map(|run| &mut run.points);
            points.for_each(|point| point.samples.latency_ms.resize(count, 41.0));
            largest(&report)
        };
        assert_eq!(told(100), None);
        assert_eq!(
            told(99).as_deref(),
            Some("p99 of fewer than 100 queries is the largest latency.")
        );
        let two =
            "p95 of fewer than 20 queries, p99 of fewer than 100 queries are the largest latency.";
        assert_eq!(told(19).as_deref(), Some(two));
        assert_eq!(told(20), told(99));
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        let written = [0, 951_782_400, 951_868_799, 1_709_164_740, 4_107_542_399].map(moment);
        let told = [
            "1970-01-01 00:00",
            "2000-02-29 00:00",
            "2000-02-29 23:59",
            "2024-02-28 23:59",
            "2100-02-28 23:59",
        ];
        assert_eq!(written, told.map(|text| format!("{text} UTC")));
    }
}
