//! The last scores: the teacher's in large figures, everyone's class by class.

use std::collections::BTreeMap;

use protoseg_pages::html::{self, escape, tiles};
use protoseg_pages::scale::{duration, fixed, whole};

use super::log::{ParsedLog, ScoreLine, distinct};

/// RGB of classes by name, as far as they are known.
pub(super) type Colors = BTreeMap<String, [u8; 3]>;

/// What stands below the title: how far the run went, and a figure for each kind of data.
pub(super) fn head(log: &ParsedLog) -> String {
    let mut words = match log.last_step() {
        0 => "The log holds neither steps nor scores.".to_owned(),
        last => format!("Logged up to step {}.", whole(last)),
    };
    if log.seconds() > 0.0 {
        words = format!(
            "{words} The steps took {}, scoring and saving left out.",
            duration(log.seconds())
        );
    }
    let parts: Vec<String> = log.data().into_iter().filter_map(|data| tile(log, data)).collect();
    html::note(&words) + &tiles(&parts)
}

/// The teacher's last score on some data; another's where the teacher has none.
fn tile(log: &ParsedLog, data: &str) -> Option<String> {
    let scores = log
        .scored()
        .into_iter()
        .map(|which| log.scores_of(which, data))
        .find(|scores| !scores.is_empty())?;
    let last = scores.last()?;
    let percent = |value: Option<f64>| {
        value.map_or_else(|| "none".to_owned(), |value| format!("{} %", fixed(value, 1)))
    };
    let metrics = &last.metrics;
    let best = scores.iter().max_by(|left, right| mean_iou(left).total_cmp(&mean_iou(right)))?;
    let best = if mean_iou(best) > mean_iou(last) {
        format!("; best {} at step {}", fixed(mean_iou(best), 1), whole(best.step))
    } else {
        String::new()
    };
    let under = [
        format!("step {}{best}", whole(last.step)),
        format!("pixel accuracy {}", percent(metrics.scores.pixel_accuracy)),
        format!("{} pictures, protocol {}", whole(metrics.images as u64), metrics.protocol),
    ];
    Some(html::tile(
        &format!("mIoU of the {}, {data}", last.which),
        &percent(metrics.scores.mean_iou),
        &under,
    ))
}

fn mean_iou(line: &ScoreLine) -> f64 {
    line.metrics.scores.mean_iou.unwrap_or(-1.0)
}

/// A table for each kind of data: a row a class, a column for each whose scores there are.
pub(super) fn tables(log: &ParsedLog, colors: &Colors) -> String {
    let tables: Vec<String> = log.data().into_iter().map(|data| table(log, data, colors)).collect();
    html::grid("large", &tables)
}

fn table(log: &ParsedLog, data: &str, colors: &Colors) -> String {
    let scored = log.scored();
    let columns: Vec<&ScoreLine> =
        scored.into_iter().filter_map(|which| log.scores_of(which, data).last().copied()).collect();
    let head = |line: &&ScoreLine| {
        format!(
            "<th scope=\"col\">{}<br><span>step {}</span></th>",
            escape(&line.which),
            whole(line.step)
        )
    };
    let names = distinct(
        columns
            .iter()
            .flat_map(|line| &line.metrics.scores.classes)
            .map(|class| class.name.as_str()),
    );
    let row = |name: &&str| {
        let iou = |line: &&ScoreLine| {
            let class = line.metrics.scores.classes.iter().find(|class| class.name == *name);
            meter(class.and_then(|class| class.iou), "absent")
        };
        format!(
            "<tr><th scope=\"row\">{}</th>{}</tr>\n",
            class_name(name, colors),
            cells(&columns, iou)
        )
    };
    let number = |value: Option<f64>| {
        format!("<td>{}</td>", value.map_or_else(|| "none".to_owned(), |value| fixed(value, 1)))
    };
    let mean = cells(&columns, |line| number(line.metrics.scores.mean_iou));
    let accuracy = cells(&columns, |line| number(line.metrics.scores.pixel_accuracy));
    format!(
        "<div class=\"scroll\"><table><caption>{}</caption>\n<thead><tr><th scope=\"col\">IoU, %</th>{}</tr></thead>\n\
         <tbody>\n{}</tbody>\n<tfoot><tr><th scope=\"row\">mIoU</th>{mean}</tr>\n\
         <tr><th scope=\"row\">pixel accuracy</th>{accuracy}</tr></tfoot></table></div>\n",
        escape(data),
        columns.iter().map(head).collect::<String>(),
        names.iter().map(row).collect::<String>(),
    )
}

fn cells(columns: &[&ScoreLine], cell: impl Fn(&&ScoreLine) -> String) -> String {
    columns.iter().map(cell).collect()
}

/// A table's cell that is filled as far as its percentage says. `none` is the word where there is none.
pub(super) fn meter(percent: Option<f64>, none: &str) -> String {
    match percent {
        Some(percent) => {
            let filled = percent.clamp(0.0, 100.0);
            format!("<td class=\"meter\" style=\"--share:{filled:.1}%\">{}</td>", fixed(percent, 1))
        }
        None => format!("<td class=\"absent\">{none}</td>"),
    }
}

/// A class's name, behind its colour where that is known.
pub(super) fn class_name(name: &str, colors: &Colors) -> String {
    let swatch = |[red, green, blue]: &[u8; 3]| {
        format!("<i class=\"swatch\" style=\"background:rgb({red} {green} {blue})\"></i>")
    };
    format!("{}{}", colors.get(name).map(swatch).unwrap_or_default(), escape(name))
}
