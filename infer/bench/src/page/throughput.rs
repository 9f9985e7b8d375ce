//! How latency grows with throughput: a line for each way to run under growing load.

use protoseg_pages::html::{escape, note};
use protoseg_pages::plot::{Axis, Plot, dots, path};
use protoseg_pages::scale::{Scale, is_plottable};

use super::super::load::Scenario;
use super::super::report::{BenchReport, BenchRun, ScenarioResult};
use super::{COLORS, charts, figure};

/// Loads are written beside their points where there are at most so many lines.
const NAMED: usize = 4;

/// One way to run under a kind of load, least load first.
struct Line {
    name: String,
    points: Vec<LoadPoint>,
}

/// What one load came to.
struct LoadPoint {
    load: f64,
    images_per_second: f64,
    p50: f64,
    p99: f64,
    unstable: bool,
}

/// The chart with its legend; nothing where no way to run has points of several loads.
pub(super) fn section(report: &BenchReport) -> String {
    let lines: Vec<Line> =
        report.runs.iter().flat_map(|run| lines(run, report.runs.len() > 1)).collect();
    if lines.is_empty() {
        return String::new();
    }
    let words = "Each point is a load, written beside it: clients, pictures of a query, or pictures that come in a second. \
                 Its p50 is on the solid line and its p99 on the broken one; further right and further down is better.";
    note(words) + &legend(&lines) + &chart(&lines)
}

/// The lines of one run, a kind of load each. One picture at a time is a load of one client and of queries of one picture.
fn lines(run: &BenchRun, several: bool) -> Vec<Line> {
    type Kind = (&'static str, fn(Scenario) -> Option<f64>);
    let kinds: [Kind; 3] = [
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
    let line = |(kind, load): Kind| {
        let mut points: Vec<LoadPoint> =
            run.points.iter().filter_map(|point| found(point, load(point.scenario)?)).collect();
        points.sort_by(|left, right| left.load.total_cmp(&right.load));
        let name = if several { format!("{}, {kind}", run.subject.name) } else { kind.to_owned() };
        (points.len() > 1).then_some(Line { name, points })
    };
    kinds.into_iter().filter_map(line).collect()
}

fn found(point: &ScenarioResult, load: f64) -> Option<LoadPoint> {
    let (p50, p99) = (point.percentile(50.0)?.ms, point.percentile(99.0)?.ms);
    let (images_per_second, unstable) = (point.images_per_second, point.unstable.is_some());
    [p50, p99, images_per_second].iter().all(is_plottable).then_some(LoadPoint {
        load,
        images_per_second,
        p50,
        p99,
        unstable,
    })
}

fn legend(lines: &[Line]) -> String {
    let entry = |(index, line): (usize, &Line)| {
        format!(
            "<li><i class=\"key c{}\"></i>{}. {}</li>",
            index % COLORS,
            index + 1,
            escape(&line.name)
        )
    };
    format!(
        "<ul class=\"legend\">{}</ul>\n",
        lines.iter().enumerate().map(entry).collect::<String>()
    )
}

fn chart(lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| &line.points);
    let bound = |value: fn(&LoadPoint) -> f64, pick: fn(f64, f64) -> f64, start| {
        all().map(value).fold(start, pick)
    };
    let across = Scale::around(0.0, bound(|load| load.images_per_second, f64::max, 0.0), 5);
    let (least, most) =
        (bound(|load| load.p50, f64::min, f64::INFINITY), bound(|load| load.p99, f64::max, 0.0));
    let upwards = match charts::scale(least, most) {
        scale if scale.is_logarithmic() => scale,
        _ => Scale::around(0.0, most, 5),
    };
    let drawn = lines.iter().enumerate().map(|(index, line)| draw(line, index, &upwards));
    let names = lines
        .iter()
        .enumerate()
        .map(|(index, line)| names(line, index, lines.len(), &across, &upwards));
    let plot = Plot {
        title: "Latency against throughput",
        unit: "p50 and p99 in ms",
        label: "p50 and p99 of latency in milliseconds against pictures a second",
        across: Axis { name: "pictures a second", scale: &across },
        upwards: &upwards,
    };
    format!(
        "<div class=\"tall\">{}</div>\n",
        plot.draw(&drawn.collect::<String>(), &names.collect::<String>())
    )
}

fn draw(line: &Line, index: usize, upwards: &Scale) -> String {
    let points = |value: fn(&LoadPoint) -> f64| -> Vec<(f64, f64)> {
        line.points
            .iter()
            .map(|load| (load.images_per_second, upwards.place(value(load))))
            .collect()
    };
    let (color, name, number) = (index % COLORS, escape(&line.name), index + 1);
    let (p50, p99) = (points(|load| load.p50), points(|load| load.p99));
    format!(
        "<path class=\"line c{color}\" data-name=\"{number}. {name}: p50 in ms\" d=\"{}\"/>\n\
         <path class=\"line broken c{color}\" data-name=\"{number}. {name}: p99 in ms\" d=\"{}\"/>\n\
         <path class=\"dots c{color}\" d=\"{}\"/>\n",
        path(&p50),
        path(&p99),
        dots(&[p50.as_slice(), &p99].concat())
    )
}

/// A line's number at its end, and where there is room the loads at its points.
fn names(line: &Line, index: usize, lines: usize, across: &Scale, upwards: &Scale) -> String {
    let last = line.points.len() - 1;
    let text = |place: usize, load: &LoadPoint| {
        let number = format!("<b>{}.</b>", index + 1);
        let parts = [
            (place == last && lines > 1).then_some(number),
            (lines <= NAMED).then(|| figure_of(load.load)),
            load.unstable.then(|| super::verdict(true).to_owned()),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    let name = |(place, load): (usize, &LoadPoint)| {
        let (left, top) =
            (across.percent_along(load.images_per_second), 100.0 - upwards.percent_along(load.p50));
        match text(place, load) {
            text if text.is_empty() => text,
            text => format!(
                "<span class=\"load\" style=\"left:{left:.2}%;top:{top:.2}%\">{text}</span>"
            ),
        }
    };
    line.points.iter().enumerate().map(name).collect()
}

/// A load: a whole number where it is one.
fn figure_of(load: f64) -> String {
    if load.fract() == 0.0 { format!("{load}") } else { figure(load) }
}

#[cfg(test)]
mod tests {
    use super::super::super::sample;
    use super::*;

    /// The points of the line of that name, as they are drawn.
    fn drawn(html: &str, name: &str) -> Vec<[f64; 2]> {
        let path = html
            .split(&format!("data-name=\"{name}\" d=\"M"))
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        let point = |point: &str| {
            let (x, y) = point.split_once(' ').unwrap();
            [x.parse().unwrap(), y.parse().unwrap()]
        };
        path.unwrap_or_else(|| panic!("no line {name}")).split('L').map(point).collect()
    }

    #[test]
    fn lines_go_from_the_least_load_to_the_greatest() {
        let mut report = sample::report();
        let html = section(&report);
        // From 10 to 1000 ms: a logarithmic axis.
        for (percent, name) in [
            (50.0, "2. street int8, clients: p50 in ms"),
            (99.0, "2. street int8, clients: p99 in ms"),
        ] {
            let points = &report.runs[1].points;
            let line = drawn(&html, name);
            assert_eq!(line.len(), points.len(), "one client is a load too");
            for ([x, y], point) in line.iter().zip(points) {
                let ms = point.percentile(percent).unwrap().ms;
                // Paths have five digits.
                assert!(
                    (x / point.images_per_second - 1.0).abs() < 1e-4,
                    "{x} {}",
                    point.images_per_second
                );
                assert!((10_f64.powf(*y) / ms - 1.0).abs() < 1e-3, "{y} {ms}");
            }
        }
        assert!(
            html.contains("40 <b class=\"bad\">UNSTABLE</b>"),
            "the load that is not to be trusted"
        );
        report.runs[1].points.reverse();
        assert_eq!(section(&report), html, "in whatever order they were measured");
    }

    #[test]
    fn a_single_load_is_no_curve() {
        let mut report = sample::report();
        for run in &mut report.runs {
            run.points.truncate(1);
        }
        assert_eq!(section(&report), "");
    }
}
