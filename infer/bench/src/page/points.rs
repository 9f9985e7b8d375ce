//! One way to run: what it was, and what each scenario showed.

use protoseg_pages::html::{escape, grid, note};

use super::super::report::{BenchRun, Latency, ScenarioResult, WarmUp};
use super::super::words::{self, count, seconds};
use super::{cell, charts, facts, figure, verdict, whole};

/// What was measured and every point of it. `room` is how many windows samples are thinned to.
pub(super) fn run(run: &BenchRun, room: usize) -> String {
    let bound: String =
        run.within_bound.iter().map(|found| note(&words::within_bound(found))).collect();
    facts(&words::facts(&run.subject))
        + &bound
        + &run.points.iter().map(|found| point(found, room)).collect::<String>()
}

fn point(point: &ScenarioResult, room: usize) -> String {
    let heading = format!(
        "<h3>{}: {}</h3>\n",
        escape(&point.scenario.to_string()),
        verdict(point.unstable.is_some())
    );
    let why = point.unstable.as_ref().map(|why| format!("<p class=\"why\">{}</p>\n", escape(why)));
    let mut words = found(point);
    let mut plots = Vec::new();
    let mut table = String::new();
    if let Some(latency) = &point.latency {
        plots = charts::distribution(&point.samples, latency, room);
        if let Some((chart, each)) = charts::over_time(&point.samples, latency, room) {
            plots.push(chart);
            if each > 1 {
                words += &format!(
                    " Over time, of each {} queries in a row the fastest, the middle and the slowest are shown.",
                    whole(each)
                );
            }
        }
        table = percentiles(latency);
    }
    format!("{heading}{}{}{}{table}", why.unwrap_or_default(), note(&words), grid("large", &plots))
}

/// How much was measured, in sentences.
fn found(point: &ScenarioResult) -> String {
    let queries = count(point.samples.latency_ms.len(), "query", "queries");
    let WarmUp { queries: warm, seconds: warmed, windows } = &point.warm_up;
    let before = match warm {
        0 => "without warm-up".to_owned(),
        _ => format!(
            "after a warm-up of {} in {} ({})",
            count(*warm, "query", "queries"),
            seconds(*warmed),
            count(windows.len(), "stretch", "windows")
        ),
    };
    let energy: String = words::device(point).iter().map(|told| format!(" {told}.")).collect();
    let failed = (point.failed > 0).then(|| {
        let error = point.first_error.as_deref().unwrap_or("it is not known why");
        format!(" {} not answered: {error}.", count(point.failed, "query was", "queries were"))
    });
    let sessions =
        words::sessions(point).map_or_else(String::new, |sessions| format!(" by {sessions}"));
    format!(
        "{queries} in {}{sessions}, {before}: {} pictures/s, {} megapixels/s.{}{}",
        seconds(point.seconds),
        figure(point.images_per_second),
        figure(point.megapixels_per_second),
        energy,
        failed.unwrap_or_default()
    )
}

fn percentiles(latency: &Latency) -> String {
    let row = |name: &str, ms: f64, interval: Option<String>, bound: Option<f64>| {
        let bound = cell(bound.map(figure));
        format!(
            "<tr><th scope=\"row\">{name}</th><td>{}</td>{}{bound}</tr>\n",
            figure(ms),
            cell(interval)
        )
    };
    let extreme = |name: &str, ms: f64| {
        format!("<tr><th scope=\"row\">{name}</th><td>{}</td><td></td><td></td></tr>\n", figure(ms))
    };
    let end = |ms: Option<f64>| ms.map_or_else(|| "?".to_owned(), figure);
    let rows = latency.percentiles.iter().map(|percentile| {
        let known = percentile.low_ms.is_some() || percentile.high_ms.is_some();
        let interval =
            known.then(|| format!("{} to {}", end(percentile.low_ms), end(percentile.high_ms)));
        row(&format!("p{}", percentile.percent), percentile.ms, interval, percentile.bound_ms)
    });
    format!(
        "<div class=\"scroll\"><table class=\"percentiles\"><thead><tr><th scope=\"col\">latency</th><th scope=\"col\">ms</th>\
         <th scope=\"col\">95 % interval</th><th scope=\"col\">MLPerf's bound, 99 %</th></tr></thead>\n\
         <tbody>\n{}{}{}{}</tbody></table></div>\n",
        extreme("least", latency.min_ms),
        extreme("mean", latency.mean_ms),
        rows.collect::<String>(),
        extreme("largest", latency.max_ms),
    )
}
