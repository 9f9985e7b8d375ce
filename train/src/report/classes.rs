//! What happens to each class on unlabelled pictures: pseudo labels, the gate and the cosines.

use protoseg_pages::html::{grid, legend, note};
use protoseg_pages::scale::{is_plottable, whole};

use super::chart::{Chart, ChartSize, Range};
use super::headline::{Colors, class_name, meter};
use super::log::{ClassLine, ParsedLog};
use super::series::{Series, room_for};

type ClassField = fn(&ClassLine) -> Option<f64>;

/// One small chart a class, of these lines; nothing where no class has any.
fn charts(log: &ParsedLog, unit: &str, range: Range, lines: &[(&str, f64, ClassField)]) -> String {
    let names = log.class_names();
    let room = room_for(names.len() * lines.len());
    let chart = |name: &&str| {
        let series = lines.iter().enumerate().filter_map(|(index, (label, factor, value))| {
            let values = log.of_class(name, |class| value(class).map(|value| factor * value));
            Series::new(label, index, &values, room)
        });
        let chart =
            Chart { title: name, unit, size: ChartSize::Small, range, last_step: log.last_step() };
        chart.draw(&series.collect::<Vec<_>>())
    };
    let charts: Vec<String> = names.iter().map(chart).filter(|chart| !chart.is_empty()).collect();
    if charts.is_empty() {
        return String::new();
    }
    legend(
        &lines.iter().enumerate().map(|(index, (label, ..))| (*label, index)).collect::<Vec<_>>(),
    ) + &grid("small", &charts)
}

/// Pseudo labels class by class: the last values, then accuracy and share above the gate over time.
pub(super) fn pseudo_labels(log: &ParsedLog, colors: &Colors) -> String {
    let lines: [(&str, f64, ClassField); 3] = [
        ("pseudo labels that are right", 100.0, |class| class.pseudo_accuracy),
        ("sampled points above the confidence gate", 100.0, |class| class.gate_share),
        ("share of all pseudo labels", 100.0, |class| class.pseudo_share),
    ];
    let shown: Vec<(&str, f64, ClassField)> =
        lines.into_iter().filter(|(.., value)| any(log, *value)).collect();
    match shown.is_empty() {
        true => String::new(),
        false => charts(log, "%", Range::Percent, &shown) + &last_values(log, &shown, colors),
    }
}

/// Cosines of a class's points to prototypes.
pub(super) fn cosines(log: &ParsedLog) -> String {
    let lines: [(&str, f64, ClassField); 2] = [
        ("to their own prototype", 1.0, |class| class.own_cosine),
        ("to the nearest prototype of another class", 1.0, |class| class.other_cosine),
    ];
    let charts = charts(log, "cosine", Range::FromZero, &lines);
    if charts.is_empty() {
        charts
    } else {
        note("Mean cosine of the sampled points of each class.") + &charts
    }
}

fn any(log: &ParsedLog, value: ClassField) -> bool {
    log.classes
        .iter()
        .flat_map(|line| &line.classes)
        .filter_map(value)
        .any(|value| is_plottable(&value))
}

/// A table of what the last line of the log says.
fn last_values(log: &ParsedLog, columns: &[(&str, f64, ClassField)], colors: &Colors) -> String {
    let Some(line) = log.classes.last() else { return String::new() };
    let head: String =
        columns.iter().map(|(label, ..)| format!("<th scope=\"col\">{label}, %</th>")).collect();
    let row = |class: &ClassLine| {
        let cells: String = columns
            .iter()
            .map(|(_, factor, value)| meter(value(class).map(|value| factor * value), "unknown"))
            .collect();
        format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", class_name(&class.name, colors))
    };
    let rows: String = line.classes.iter().map(row).collect();
    format!(
        "<h3>Last values, step {}</h3>\n<div class=\"scroll\"><table>\n\
         <thead><tr><th scope=\"col\">class</th>{head}</tr></thead>\n\
         <tbody>\n{rows}</tbody></table></div>\n",
        whole(line.step)
    )
}
