//! A bar for each point, divided as its time is.

use protoseg_pages::html::{escape, note};

use super::super::report::{BenchReport, ScenarioResult};
use super::super::statistics::{Share, shares};
use super::super::words::{milliseconds, percent};

/// A part of a bar as wide as this share has room for the stage's name.
const NAMED: f64 = 0.12;

/// A bar a point whose stages were timed; nothing where there is none.
pub(super) fn section(report: &BenchReport) -> String {
    let several = report.runs.len() > 1;
    let bars = report
        .runs
        .iter()
        .flat_map(|run| run.points.iter().map(move |point| (&run.subject.name, point)));
    let bar = |(name, point): (&String, &ScenarioResult)| {
        let name = if several {
            format!("{name}, {}", point.scenario)
        } else {
            point.scenario.to_string()
        };
        bar(&name, &shares(point), point)
    };
    let bars: String = bars.map(bar).collect();
    if bars.is_empty() {
        bars
    } else {
        note("Mean of each stage of a query, in the order in which they happen.") + &bars
    }
}

fn bar(name: &str, shares: &[Share], point: &ScenarioResult) -> String {
    if shares.is_empty() {
        return String::new();
    }
    let part = |share: &Share| {
        let width = 100.0 * share.share;
        let text = if share.share >= NAMED { escape(&share.name) } else { String::new() };
        let title = escape(&format!("{}: {}", share.name, milliseconds(share.ms)));
        format!(
            "<i class=\"{}\" style=\"width:{width:.2}%\" title=\"{title}\">{text}</i>",
            color(&share.name)
        )
    };
    let entry = |share: &Share| {
        format!(
            "<li><i class=\"key square {}\"></i>{} <b>{}</b> <span>{}</span></li>",
            color(&share.name),
            escape(&share.name),
            milliseconds(share.ms),
            percent(share.share)
        )
    };
    let latency = point
        .latency
        .as_ref()
        .map(|latency| format!("mean latency {}", milliseconds(latency.mean_ms)));
    format!(
        "<figure class=\"stages\"><figcaption>{}<span>{}</span></figcaption>\n<div class=\"stack\">{}</div>\n\
         <ul class=\"legend\">{}</ul></figure>\n",
        escape(name),
        latency.unwrap_or_default(),
        shares.iter().map(part).collect::<String>(),
        shares.iter().map(entry).collect::<String>()
    )
}

/// The same colour for the same stage everywhere. A client's stages have those of what they are like.
fn color(stage: &str) -> &'static str {
    match stage {
        "decode" => "c4",
        "queue" | "wait" => "c5",
        "prepare" => "c2",
        "upload" | "send" => "c6",
        "compute" => "c0",
        "download" | "receive" => "c7",
        "stitch" => "c1",
        "encode" => "c3",
        _ => "c8",
    }
}
