//! How the points of each class are shared out among its prototypes, over time.

use protoseg_pages::html::{escape, grid, note};
use protoseg_pages::plot::Axis;
use protoseg_pages::scale::{Scale, is_plottable, short};

use super::log::ParsedLog;

/// Shades of the map, by the least share of the class's points that each stands for.
const SHADES: [(f64, f64); 7] =
    [(0.001, 0.1), (0.05, 0.22), (0.1, 0.36), (0.2, 0.52), (0.35, 0.68), (0.5, 0.84), (0.75, 1.0)];
/// Cells on the page, about.
const CELLS: usize = 30_000;

/// Hits of each prototype in stretches of time: the step where each ends, and the points of each prototype.
type Interval = (u64, Vec<f64>);

/// A map a class: a row a prototype, shaded by its share of the class's points.
pub(super) fn hits(log: &ParsedLog) -> String {
    let names = log.class_names();
    let count = |hits: &[Option<f64>]| hits.len();
    let most = |name: &&str| {
        log.of_class(name, |class| class.hits.as_deref().map(count))
            .into_iter()
            .filter_map(|(_, count)| count)
            .max()
    };
    let rows: usize = names.iter().filter_map(most).sum();
    let room = (CELLS / rows.max(1)).clamp(10, 60);
    let map = |name: &&str| {
        let hits: Vec<(u64, Option<&[Option<f64>]>)> =
            log.of_class(name, |class| class.hits.as_deref());
        map(name, &stretches(&hits, room), log.last_step())
    };
    let maps: Vec<String> = names.iter().filter_map(map).collect();
    if maps.is_empty() {
        return String::new();
    }
    let words = "Points assigned to each prototype of a class, as a share of all that were assigned to the class since \
                 the line of the log before. An empty row is a prototype without points.";
    note(words) + &shades() + &grid("small", &maps)
}

/// What the shades stand for.
fn shades() -> String {
    let entry = |index: usize| {
        let (from, opacity) = SHADES[index];
        let to = SHADES.get(index + 1).map_or(1.0, |(from, _)| *from);
        format!(
            "<li><i class=\"key block\" style=\"opacity:{opacity}\"></i>{}–{} %</li>",
            short(100.0 * from),
            short(100.0 * to)
        )
    };
    format!("<ul class=\"legend\">{}</ul>\n", (0..SHADES.len()).map(entry).collect::<String>())
}

/// Sums of neighbouring lines, at most `most` of them.
fn stretches(lines: &[(u64, Option<&[Option<f64>]>)], most: usize) -> Vec<Interval> {
    let size = lines.len().div_ceil(most.max(1)).max(1);
    let sum = |lines: &[(u64, Option<&[Option<f64>]>)]| {
        let mut sums = Vec::new();
        for hits in lines.iter().filter_map(|(_, hits)| *hits) {
            sums.resize(sums.len().max(hits.len()), 0.0);
            for (sum, hits) in sums.iter_mut().zip(hits) {
                *sum += hits.filter(is_plottable).unwrap_or(0.0).max(0.0);
            }
        }
        (lines.last().map_or(0, |(step, _)| *step), sums)
    };
    lines.chunks(size).map(sum).collect()
}

/// The map of a class; none where it has no prototypes.
fn map(name: &str, stretches: &[Interval], last_step: u64) -> Option<String> {
    let rows = stretches.iter().map(|(_, hits)| hits.len()).max().filter(|&rows| rows > 0)?;
    let mut paths = vec![String::new(); SHADES.len()];
    let mut before = 0;
    for (step, hits) in stretches {
        let all: f64 = hits.iter().sum();
        for (row, hits) in hits.iter().enumerate() {
            let shade = SHADES.iter().rposition(|(from, _)| all > 0.0 && hits / all >= *from);
            if let Some(path) = shade.and_then(|shade| paths.get_mut(shade)) {
                let width = step.saturating_sub(before);
                path.push_str(&format!("M{before} {row}h{width}v.9h-{width}z"));
            }
        }
        before = *step;
    }
    let shaded = |(path, (_, opacity)): (&String, (f64, f64))| match path.as_str() {
        "" => String::new(),
        path => format!("<path class=\"cell\" fill-opacity=\"{opacity}\" d=\"{path}\"/>\n"),
    };
    let cells: String = paths.iter().zip(SHADES).map(shaded).collect();
    let steps = Scale::steps(last_step, 2);
    let label = format!("{name}: share of points of each of {rows} prototypes against steps");
    Some(format!(
        "<figure><figcaption>{}<span>{rows} prototypes</span></figcaption>\n\
         <div class=\"plot heat\" style=\"height:{}px\"><svg viewBox=\"0 0 {} {rows}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">\n{cells}</svg>\
         {}</div></figure>\n",
        escape(name),
        (rows * 12).min(240),
        steps.high,
        escape(&label),
        Axis { name: "step", scale: &steps }.labels(),
    ))
}
