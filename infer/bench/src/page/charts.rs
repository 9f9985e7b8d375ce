//! Charts of one point's latency: how it is distributed, and how it goes over time.

use protoseg_pages::html::escape;
use protoseg_pages::plot::{Axis, Plot, dots, path};
use protoseg_pages::scale::{Scale, is_plottable};

use super::super::report::{Latency, Percentile, SampleColumns};
use super::super::words::figure;
use super::thinned::{self, Thinned};

/// Ticks of an axis, about.
const TICKS: usize = 5;
/// Axes over which values grow by more than this factor are logarithmic, or rare long latencies would press the rest flat.
const LINEAR: f64 = 2.5;
/// The most bars of a histogram.
const BARS: usize = 48;
/// Part of a histogram's height that is left to the names of percentiles.
const HEADROOM: f64 = 0.36;

/// Histogram and cumulative curve of latencies in milliseconds; none where there are fewer than two.
pub(super) fn distribution(samples: &SampleColumns, latency: &Latency, room: usize) -> Vec<String> {
    let mut sorted: Vec<f64> = samples.latency_ms.iter().copied().filter(is_plottable).collect();
    sorted.sort_by(f64::total_cmp);
    let (Some(&least), Some(&most)) = (sorted.first(), sorted.last()) else { return Vec::new() };
    if sorted.len() < 2 {
        return Vec::new();
    }
    let across = scale(least, most);
    vec![histogram(&sorted, &across, latency), cumulative(&sorted, &across, latency, room)]
}

/// An axis from the least to the greatest value, whichever kind shows both.
pub(super) fn scale(least: f64, most: f64) -> Scale {
    if least > 0.0 && most / least > LINEAR {
        Scale::logarithmic(least, most, TICKS)
    } else {
        Scale::around(least, most, TICKS)
    }
}

/// How many latencies fall into each of stretches of the same length on the axis.
fn histogram(sorted: &[f64], across: &Scale, latency: &Latency) -> String {
    let place = |ms: f64| across.place(ms);
    let (low, high) = (place(sorted[0]), place(sorted[sorted.len() - 1]));
    let bars = ((sorted.len() as f64).sqrt() as usize * 2).clamp(8, BARS);
    let width = ((high - low) / bars as f64).max(f64::MIN_POSITIVE);
    let mut counts = vec![0_usize; bars];
    for ms in sorted {
        counts[(((place(*ms) - low) / width) as usize).min(bars - 1)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(1) as f64;
    let mut upwards = Scale::around(0.0, most, 4);
    upwards.high = most / (1.0 - HEADROOM);
    upwards.ticks.retain(|tick| *tick <= upwards.high);
    let bar = |(index, count): (usize, &usize)| {
        let corner = low + index as f64 * width;
        path(&[
            (corner, 0.0),
            (corner, *count as f64),
            (corner + width, *count as f64),
            (corner + width, 0.0),
        ]) + "Z"
    };
    let drawn: String =
        counts.iter().enumerate().filter(|(_, count)| **count > 0).map(bar).collect();
    let centres: Vec<(f64, f64)> = counts
        .iter()
        .enumerate()
        .map(|(index, count)| (low + (index as f64 + 0.5) * width, *count as f64))
        .collect();
    let marks: String = latency
        .percentiles
        .iter()
        .map(|percentile| {
            path(&[(place(percentile.ms), 0.0), (place(percentile.ms), upwards.high)])
        })
        .collect();
    let names = latency
        .percentiles
        .iter()
        .enumerate()
        .map(|(row, percentile)| name(percentile, row, across));
    let label = format!("histogram of {} latencies in milliseconds", sorted.len());
    Plot {
        title: "Distribution",
        unit: "queries",
        label: &label,
        across: Axis { name: "latency in ms", scale: across },
        upwards: &upwards,
    }
    .draw(
        &format!(
            "<path class=\"bars c0\" d=\"{drawn}\"/>\n<path class=\"mark\" d=\"{marks}\"/>\n\
             <path class=\"unseen c0\" data-name=\"queries\" d=\"{}\"/>\n",
            path(&centres)
        ),
        &names.collect::<String>(),
    )
}

/// A percentile's name beside its line, each in a row of its own so that none covers another.
fn name(percentile: &Percentile, row: usize, across: &Scale) -> String {
    let along = across.percent_along(percentile.ms);
    // Where there is no room on the right of the line, the name stands on its left.
    let side = if along > 60.0 { " left" } else { "" };
    let text = escape(&format!("p{} {}", percentile.percent, figure(percentile.ms)));
    format!(
        "<span class=\"name{side}\" style=\"left:{along:.2}%;top:{}px\">{text}</span>",
        14 * row
    )
}

/// The share of latencies up to each, with percentiles and their intervals.
fn cumulative(sorted: &[f64], across: &Scale, latency: &Latency, room: usize) -> String {
    let upwards = Scale::percent(TICKS);
    let place = |ms: f64| across.place(ms);
    let (count, stride) = (sorted.len(), sorted.len().div_ceil(room));
    // The slow end is what one looks for: there, none is left out.
    let shown = |rank: &usize| rank.is_multiple_of(stride) || rank + 16 > count;
    let curve: Vec<(f64, f64)> = (0..count)
        .filter(shown)
        .map(|rank| (place(sorted[rank]), 100.0 * (rank + 1) as f64 / count as f64))
        .collect();
    let interval = |percentile: &Percentile| {
        let ends =
            [percentile.low_ms, percentile.high_ms].map(|end| place(end.unwrap_or(percentile.ms)));
        path(&ends.map(|end| (end, percentile.percent)))
    };
    let intervals: String = latency.percentiles.iter().map(interval).collect();
    let marks: Vec<(f64, f64)> = latency
        .percentiles
        .iter()
        .map(|percentile| (place(percentile.ms), percentile.percent))
        .collect();
    Plot {
        title: "Cumulative",
        unit: "% of queries",
        label: "share of queries up to each latency, with percentiles and their intervals",
        across: Axis { name: "latency in ms", scale: across },
        upwards: &upwards,
    }
    .draw(
        &format!(
            "<path class=\"line c0\" data-name=\"% up to it:\" d=\"{}\"/>\n<path class=\"interval\" d=\"{intervals}\"/>\n\
             <path class=\"spot c1\" data-name=\"percentile\" d=\"{}\"/>\n",
            path(&curve),
            dots(&marks)
        ),
        "",
    )
}

/// Latency of each query against when it was due, with a line through the middle of stretches. Also says how many samples in
/// a row the points were taken from.
pub(super) fn over_time(
    samples: &SampleColumns,
    latency: &Latency,
    room: usize,
) -> Option<(String, usize)> {
    let pairs: Vec<(f64, f64)> = samples
        .due_ms
        .iter()
        .zip(&samples.latency_ms)
        .map(|(due, ms)| (due / 1000.0, *ms))
        .collect();
    let Thinned { points, each, middle } = thinned::samples(&pairs, room);
    let last = points.iter().map(|(when, _)| *when).fold(0.0, f64::max);
    let bounds = |bound: fn(f64, f64) -> f64, start: f64| {
        points.iter().map(|(_, ms)| *ms).fold(start, bound)
    };
    let (least, most) = (bounds(f64::min, f64::INFINITY), bounds(f64::max, 0.0));
    if points.is_empty() {
        return None;
    }
    let (across, mut upwards) = (Scale::around(0.0, last, TICKS), scale(least, most));
    if !upwards.is_logarithmic() {
        upwards = Scale::around(0.0, most, TICKS);
    }
    let placed = |points: &[(f64, f64)]| {
        points.iter().map(|(when, ms)| (*when, upwards.place(*ms))).collect::<Vec<_>>()
    };
    let level = |percent: f64| {
        let percentile =
            latency.percentiles.iter().find(|percentile| percentile.percent == percent)?;
        let at = upwards.place(percentile.ms);
        Some(path(&[(across.low, at), (across.high, at)]))
    };
    let levels: String = [50.0, 99.0].into_iter().filter_map(level).collect();
    let line = match path(&placed(&middle)) {
        line if line.is_empty() => line,
        line => format!("<path class=\"line c1\" d=\"{line}\"/>\n"),
    };
    let html = Plot {
        title: "Over time",
        unit: "latency in ms",
        label: "latency of queries against the time at which they were due",
        across: Axis { name: "seconds", scale: &across },
        upwards: &upwards,
    }
    .draw(
        &format!(
            "<path class=\"level\" d=\"{levels}\"/>\n<path class=\"sample c0\" data-name=\"latency in ms:\" d=\"{}\"/>\n{line}",
            dots(&placed(&points))
        ),
        "",
    );
    Some((html, each))
}
