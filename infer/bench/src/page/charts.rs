//! Charts of latency: its distribution, its course over time, and its growth with throughput.

use protoseg_pages::{Axis, Chart, Line, Mark, PointLabel, Scale, Values, is_plottable};

use crate::load::Scenario;
use crate::report::{BenchReport, BenchRun, Latency, SampleColumns, ScenarioResult};
use crate::words::figure;

/// Latencies that spread by more than this factor get a logarithmic axis, so that rare long ones do not flatten the rest.
const MAX_LINEAR_SPREAD: f64 = 2.5;
const MAX_BARS: usize = 48;
/// Of a histogram's height, left to the names of the percentiles.
const HEADROOM: f64 = 0.36;
/// Points of the line through medians over time.
const MAX_MEDIANS: usize = 24;
/// The slowest samples that a cumulative curve never leaves out.
const SLOWEST: usize = 16;
/// Loads are written beside their points in charts of up to this many curves.
const MAX_LABELED_CURVES: usize = 4;

/// Chunks that each chart's samples are thinned to, on a page of this many points.
pub(super) fn max_chunks(points: usize) -> usize {
    (3000 / points.max(1)).clamp(20, 150)
}

/// An axis of latencies that holds all of `values`.
fn latency_axis(name: &'static str, linear: Scale, values: impl Iterator<Item = f64>) -> Axis {
    let (least, most) = values
        .fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
    let logarithmic = least > 0.0 && most / least > MAX_LINEAR_SPREAD;
    let scale = if logarithmic { Scale::Logarithmic } else { linear };
    Axis { name, scale, range: least.is_finite().then_some([least, most]) }
}

/// Histogram and cumulative curve; none of fewer than two samples.
pub(super) fn distribution(
    samples: &SampleColumns,
    latency: &Latency,
    max_chunks: usize,
) -> Vec<Chart> {
    let mut sorted: Vec<f64> = samples.latency_ms.iter().copied().filter(is_plottable).collect();
    sorted.sort_by(f64::total_cmp);
    if sorted.len() < 2 {
        return Vec::new();
    }
    let x = latency_axis("latency in ms", Scale::Linear, sorted.iter().copied());
    vec![histogram(&sorted, &x, latency), cumulative(&sorted, x, latency, max_chunks)]
}

/// Counts of sorted latencies in bins that are equally wide on the axis.
fn histogram(sorted: &[f64], x: &Axis, latency: &Latency) -> Chart {
    let logarithmic = x.scale == Scale::Logarithmic;
    let place = |ms: f64| if logarithmic { ms.log10() } else { ms };
    let value = |place: f64| if logarithmic { 10_f64.powf(place) } else { place };
    let (low, high) = (place(sorted[0]), place(sorted[sorted.len() - 1]));
    let bins = ((sorted.len() as f64).sqrt() as usize * 2).clamp(8, MAX_BARS);
    let width = ((high - low) / bins as f64).max(f64::MIN_POSITIVE);
    let mut counts = vec![0_usize; bins];
    for ms in sorted {
        counts[(((place(*ms) - low) / width) as usize).min(bins - 1)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(1) as f64;
    let edge = |bin: f64| value(low + bin * width);
    let bars = Mark::Bars {
        name: "queries".to_owned(),
        centers: (0..bins).map(|bin| edge(bin as f64 + 0.5)).collect(),
        edges: (0..=bins).map(|bin| edge(bin as f64)).collect(),
        counts: counts.iter().map(|count| *count as f64).collect(),
    };
    let percentiles = latency.percentiles.iter();
    let percentiles = Mark::Verticals {
        x: percentiles.clone().map(|percentile| percentile.ms).collect(),
        texts: percentiles
            .map(|found| format!("p{} {}", found.percent, figure(found.ms)))
            .collect(),
    };
    Chart {
        title: "Distribution".to_owned(),
        unit: "queries".to_owned(),
        x: x.clone(),
        y: Axis::counts("", most / (1.0 - HEADROOM)),
        marks: vec![bars, percentiles],
    }
}

/// Share of queries up to each latency, with the percentiles and their intervals.
fn cumulative(sorted: &[f64], x: Axis, latency: &Latency, max_chunks: usize) -> Chart {
    let (count, stride) = (sorted.len(), sorted.len().div_ceil(max_chunks));
    let shown = |rank: &usize| rank.is_multiple_of(stride) || rank + SLOWEST > count;
    let point = |rank: usize| (sorted[rank], 100.0 * (rank + 1) as f64 / count as f64);
    let (curve_x, curve_y) = (0..count).filter(shown).map(point).unzip();
    let percentiles = latency.percentiles.iter();
    let y: Values = percentiles.clone().map(|percentile| percentile.percent).collect();
    let intervals = Mark::Intervals {
        low: percentiles.clone().map(|found| found.low_ms.unwrap_or(found.ms)).collect(),
        high: percentiles.clone().map(|found| found.high_ms.unwrap_or(found.ms)).collect(),
        y: y.clone(),
    };
    let percentiles = Mark::Points {
        name: "percentile".to_owned(),
        color: 1,
        large: true,
        x: percentiles.map(|percentile| percentile.ms).collect(),
        y,
    };
    let curve = Line { name: "% up to it:".to_owned(), x: curve_x, y: curve_y, ..Line::default() };
    Chart {
        title: "Cumulative".to_owned(),
        unit: "% of queries".to_owned(),
        x,
        y: Axis::percent(),
        marks: vec![Mark::Line(curve), intervals, percentiles],
    }
}

/// Latency of queries against the times at which they were due, with a line through medians, and the length of the chunks
/// that the samples were thinned in.
pub(super) fn over_time(
    samples: &SampleColumns,
    latency: &Latency,
    max_chunks: usize,
) -> Option<(Chart, usize)> {
    let pairs = samples.due_ms.iter().zip(&samples.latency_ms);
    let pairs: Vec<(f64, f64)> = pairs.map(|(due, ms)| (due / 1000.0, *ms)).collect();
    let Thinned { points, chunk_len, medians } = Thinned::new(&pairs, max_chunks);
    if points.is_empty() {
        return None;
    }
    let last = points.iter().map(|(seconds, _)| *seconds).fold(0.0, f64::max);
    let shown = latency.percentiles.iter().filter(|found| [50.0, 99.0].contains(&found.percent));
    let mut marks = vec![Mark::Levels { y: shown.map(|percentile| percentile.ms).collect() }];
    let y = latency_axis("", Scale::FromZero, points.iter().map(|(_, ms)| *ms));
    let name = "latency in ms:".to_owned();
    let (x, sample_y) = points.into_iter().unzip();
    marks.push(Mark::Points { name, color: 0, large: false, x, y: sample_y });
    if !medians.is_empty() {
        let (x, y) = medians.into_iter().unzip();
        marks.push(Mark::Line(Line {
            name: "median:".to_owned(),
            color: 1,
            x,
            y,
            ..Line::default()
        }));
    }
    let x = Axis { name: "seconds", range: Some([0.0, last]), ..Axis::default() };
    let (title, unit) = ("Over time".to_owned(), "latency in ms".to_owned());
    Some((Chart { title, unit, x, y, marks }, chunk_len))
}

/// Samples as a chart shows them, each a time and a latency.
#[derive(Debug, Clone, PartialEq)]
struct Thinned {
    /// In their order: of each chunk the fastest, the middle and the slowest, or all samples.
    points: Vec<(f64, f64)>,
    /// 1 where all samples are shown.
    chunk_len: usize,
    /// Mean time and median of longer chunks; none of a few samples.
    medians: Vec<(f64, f64)>,
}

impl Thinned {
    /// Thins samples to three per chunk; drops values that cannot be plotted.
    fn new(samples: &[(f64, f64)], max_chunks: usize) -> Self {
        let samples = samples.iter().copied();
        let known: Vec<(f64, f64)> =
            samples.filter(|(x, y)| is_plottable(x) && is_plottable(y)).collect();
        let all = known.len() <= 3 * max_chunks;
        let chunk_len = if all { 1 } else { known.len().div_ceil(max_chunks) };
        let points =
            if all { known.clone() } else { known.chunks(chunk_len).flat_map(extremes).collect() };
        let median_len = known.len().div_ceil(MAX_MEDIANS);
        let medians = if median_len < 3 {
            Vec::new()
        } else {
            known.chunks(median_len).map(median).collect()
        };
        Self { points, chunk_len, medians }
    }
}

/// The fastest, the middle and the slowest sample, in the order in which they were sent.
fn extremes(chunk: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut ranks: Vec<usize> = (0..chunk.len()).collect();
    ranks.sort_by(|&left, &right| chunk[left].1.total_cmp(&chunk[right].1));
    let mut shown = vec![ranks[0], ranks[ranks.len() / 2], ranks[ranks.len() - 1]];
    shown.sort_unstable();
    shown.dedup();
    shown.into_iter().map(|index| chunk[index]).collect()
}

fn median(chunk: &[(f64, f64)]) -> (f64, f64) {
    let mut ms: Vec<f64> = chunk.iter().map(|(_, ms)| *ms).collect();
    ms.sort_by(f64::total_cmp);
    (chunk.iter().map(|(seconds, _)| seconds).sum::<f64>() / chunk.len() as f64, ms[ms.len() / 2])
}

/// One run under growing load of one kind, least load first.
struct Curve {
    name: String,
    loads: Vec<Load>,
}

struct Load {
    load: f64,
    images_per_second: f64,
    p50: f64,
    p99: f64,
    unstable: bool,
}

impl Load {
    /// `None` without latencies.
    fn new(load: f64, point: &ScenarioResult) -> Option<Self> {
        let (p50, p99) = (point.percentile(50.0)?.ms, point.percentile(99.0)?.ms);
        let images_per_second = point.images_per_second;
        let known = [p50, p99, images_per_second].iter().all(is_plottable);
        let unstable = point.unstable.is_some();
        known.then_some(Self { load, images_per_second, p50, p99, unstable })
    }
}

/// Names of the curves, and p50 and p99 against throughput; none where no run was measured under several loads.
pub(super) fn throughput(report: &BenchReport) -> Option<(Vec<String>, Chart)> {
    let several = report.runs.len() > 1;
    let mut curves: Vec<Curve> = report.runs.iter().flat_map(|run| curves(run, several)).collect();
    for (index, curve) in curves.iter_mut().enumerate() {
        curve.name = format!("{}. {}", index + 1, curve.name);
    }
    let loads = || curves.iter().flat_map(|curve| &curve.loads);
    let fastest = loads().map(|load| load.images_per_second).fold(0.0, f64::max);
    let latencies = loads().flat_map(|load| [load.p50, load.p99]);
    let chart = Chart {
        title: "Latency against throughput".to_owned(),
        unit: "p50 and p99 in ms".to_owned(),
        x: Axis { name: "images/s", range: Some([0.0, fastest]), ..Axis::default() },
        y: latency_axis("", Scale::FromZero, latencies),
        marks: (0..curves.len()).flat_map(|index| marks(&curves, index)).collect(),
    };
    let names: Vec<String> = curves.into_iter().map(|curve| curve.name).collect();
    (!names.is_empty()).then_some((names, chart))
}

/// The curves of a run, one per kind of load. Single-stream is a load of one client.
fn curves(run: &BenchRun, several: bool) -> Vec<Curve> {
    type LoadOf = fn(Scenario) -> Option<f64>;
    let kinds: [(&str, LoadOf); 3] = [
        ("clients", |scenario| match scenario {
            Scenario::SingleStream => Some(1.0),
            Scenario::Clients { clients } => Some(clients as f64),
            _ => None,
        }),
        ("multi-stream", |scenario| match scenario {
            Scenario::MultiStream { samples } => Some(samples as f64),
            _ => None,
        }),
        ("server", |scenario| match scenario {
            Scenario::Server { rate } => Some(rate),
            _ => None,
        }),
    ];
    let curve = |(kind, load_of): (&str, LoadOf)| {
        let loads =
            run.points.iter().filter_map(|point| Load::new(load_of(point.scenario)?, point));
        let mut loads: Vec<Load> = loads.collect();
        loads.sort_by(|left, right| left.load.total_cmp(&right.load));
        let name = if several { format!("{}, {kind}", run.subject.name) } else { kind.to_owned() };
        (loads.len() > 1).then_some(Curve { name, loads })
    };
    kinds.into_iter().filter_map(curve).collect()
}

/// Two lines and the labels of one curve.
fn marks(curves: &[Curve], index: usize) -> Vec<Mark> {
    let Curve { name, loads } = &curves[index];
    let x: Values = loads.iter().map(|load| load.images_per_second).collect();
    let p50: Values = loads.iter().map(|load| load.p50).collect();
    let p99: Values = loads.iter().map(|load| load.p99).collect();
    let line = |percentile: &str, dashed: bool, y: Values| {
        let name = format!("{name}: {percentile} in ms");
        Mark::Line(Line { name, color: index, dashed, dots: true, x: x.clone(), y, band: None })
    };
    let label = |(place, load): (usize, &Load)| {
        let mut label = PointLabel { unstable: load.unstable, ..PointLabel::default() };
        if place + 1 == loads.len() && curves.len() > 1 {
            label.strong = format!("{}.", index + 1);
        }
        if curves.len() <= MAX_LABELED_CURVES {
            let whole = load.load.fract() == 0.0;
            label.text = if whole { load.load.to_string() } else { figure(load.load) };
        }
        label
    };
    let labels = loads.iter().enumerate().map(label).collect();
    let labels = Mark::Labels { x: x.clone(), y: p50.clone(), labels };
    vec![line("p50", false, p50), line("p99", true, p99), labels]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn the_slowest_of_thousands_is_shown() {
        let all: Vec<(f64, f64)> = (0..10_000_u32)
            .map(|index| {
                (f64::from(index), if index == 7777 { 900.0 } else { f64::from(index % 13) })
            })
            .collect();
        let Thinned { points, chunk_len, medians } = Thinned::new(&all, 100);
        assert!(points.len() <= 300 && points.contains(&(7777.0, 900.0)) && chunk_len == 100);
        assert!(points.iter().all(|point| all.contains(point)) && points.is_sorted());
        let fastest = points.iter().filter(|(_, ms)| *ms == 0.0).count();
        assert_eq!(fastest, 100, "the fastest of each chunk");
        assert!(medians.len() <= MAX_MEDIANS, "{medians:?}");
        assert!(medians.iter().all(|(_, ms)| *ms == 6.0), "{medians:?}");
    }

    #[test]
    fn few_samples_are_all_shown() {
        let few = [(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)];
        let points = vec![(0.0, 1.0), (2.0, 3.0)];
        assert_eq!(Thinned::new(&few, 20), Thinned { points, chunk_len: 1, medians: Vec::new() });
        assert_eq!(Thinned::new(&[], 20).points, []);
    }

    /// The lines of a chart by name.
    fn line<'a>(chart: &'a Chart, name: &str) -> &'a Line {
        let mut lines = chart.marks.iter().filter_map(|mark| match mark {
            Mark::Line(line) => Some(line),
            _ => None,
        });
        lines.find(|line| line.name == name).unwrap_or_else(|| panic!("no line {name}"))
    }

    #[test]
    fn curves_go_from_the_least_load_to_the_greatest() {
        let mut report = sample::report();
        let (names, chart) = throughput(&report).unwrap();
        assert_eq!(names[1], "2. street int8, clients");
        assert_eq!(chart.y.scale, Scale::Logarithmic, "from 10 to 1000 ms");
        let points = &report.runs[1].points;
        for (percent, percentile) in [(50.0, "p50"), (99.0, "p99")] {
            let line = line(&chart, &format!("2. street int8, clients: {percentile} in ms"));
            let ms = points.iter().map(|point| point.percentile(percent).unwrap().ms);
            assert_eq!(line.y, ms.collect(), "one client is a load too");
            assert_eq!(line.x, points.iter().map(|point| point.images_per_second).collect());
            assert_eq!(line.dashed, percentile == "p99");
        }
        let labels: Vec<&PointLabel> = chart
            .marks
            .iter()
            .filter_map(
                |mark| if let Mark::Labels { labels, .. } = mark { Some(labels) } else { None },
            )
            .flatten()
            .collect();
        let unstable: Vec<_> = labels.iter().filter(|label| label.unstable).collect();
        assert_eq!((unstable.len(), unstable[0].text.as_str()), (1, "40"));
        report.runs[1].points.reverse();
        let json = |chart: &Chart| serde_json::to_string(chart).unwrap();
        let (_, reversed) = throughput(&report).unwrap();
        assert_eq!(json(&reversed), json(&chart), "in whatever order they were measured");
    }

    #[test]
    fn a_single_load_is_no_curve() {
        let mut report = sample::report();
        for run in &mut report.runs {
            run.points.truncate(1);
        }
        assert!(throughput(&report).is_none());
    }

    #[test]
    fn histograms_hold_every_query() {
        let report = sample::report();
        for point in report.runs.iter().flat_map(|run| &run.points) {
            let Some(latency) = &point.latency else { continue };
            let charts = distribution(&point.samples, latency, 100);
            let Mark::Bars { edges, counts, centers, .. } = &charts[0].marks[0] else { panic!() };
            let counted: f64 = counts.0.iter().flatten().sum();
            assert_eq!(counted, point.samples.latency_ms.len() as f64);
            assert_eq!((edges.0.len(), centers.0.len()), (counts.0.len() + 1, counts.0.len()));
            assert!(edges.0.is_sorted() && counts.0.iter().flatten().all(|count| *count >= 0.0));
            let curve = line(&charts[1], "% up to it:");
            assert_eq!(curve.y.0.last(), Some(&Some(100.0)));
            assert!(curve.x.0.is_sorted() && curve.y.0.is_sorted());
        }
    }
}
