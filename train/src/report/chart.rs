//! Charts of lines against steps.

use protoseg_pages::html::escape;
use protoseg_pages::plot::{Axis, Plot, dots, path};
use protoseg_pages::scale::Scale;

use super::series::Series;

/// Charts whose lines have at most so many points show each of them.
const DOTS: usize = 60;

/// How far the vertical axis reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Range {
    /// From 0 to 100.
    Percent,
    /// From 0, or below where values are.
    FromZero,
    /// As far as the values do.
    Values,
}

/// How large a chart is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChartSize {
    /// One of a few.
    Large,
    /// One of many.
    Small,
}

impl ChartSize {
    /// The most ticks across and upwards.
    fn ticks(self) -> (usize, usize) {
        match self {
            Self::Large => (5, 5),
            Self::Small => (2, 2),
        }
    }
}

/// A chart of values against steps.
pub(super) struct Chart<'a> {
    /// What is shown.
    pub(super) title: &'a str,
    /// Of the vertical axis.
    pub(super) unit: &'a str,
    pub(super) size: ChartSize,
    pub(super) range: Range,
    /// Where the horizontal axis ends.
    pub(super) last_step: u64,
}

impl Chart<'_> {
    /// The chart of these lines; nothing where there is none.
    pub(super) fn draw(&self, lines: &[Series]) -> String {
        if lines.is_empty() {
            return String::new();
        }
        let (across, upwards) = self.size.ticks();
        let (steps, values) = (Scale::steps(self.last_step, across), self.values(lines, upwards));
        let dotted = lines.iter().all(|line| line.points.len() <= DOTS);
        let drawn: String = lines.iter().map(|line| draw_line(line, dotted)).collect();
        let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
        let label = format!("{}: {} against steps ({})", self.title, self.unit, names.join(", "));
        let across = Axis { name: "step", scale: &steps };
        Plot { title: self.title, unit: self.unit, label: &label, across, upwards: &values }
            .draw(&drawn, "")
    }

    fn values(&self, lines: &[Series], most: usize) -> Scale {
        // The lines count, not their bands: one odd value would press the line flat.
        let all = || {
            lines
                .iter()
                .flat_map(|line| &line.points)
                .filter_map(|point| point.value)
                .map(|[mean, ..]| mean)
        };
        let (low, high) =
            (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        match self.range {
            Range::Percent => Scale::percent(most),
            Range::FromZero if high <= 0.0 && low >= 0.0 => Scale::around(0.0, 1.0, most),
            Range::FromZero => Scale::around(low.min(0.0), high.max(0.0), most),
            Range::Values => Scale::around(low, high, most),
        }
    }
}

/// A line, the band of the values that it is the mean of, and with `dotted` its points.
fn draw_line(line: &Series, dotted: bool) -> String {
    let (mut drawn, mut band, mut marks) = (String::new(), String::new(), String::new());
    for stretch in line.stretches() {
        let means: Vec<(f64, f64)> =
            stretch.iter().map(|(step, [mean, ..])| (*step, *mean)).collect();
        drawn.push_str(&path(&means));
        if line.thinned {
            let above = stretch.iter().map(|(step, [_, _, greatest])| (*step, *greatest));
            let below = stretch.iter().rev().map(|(step, [_, least, _])| (*step, *least));
            band.push_str(&path(&above.chain(below).collect::<Vec<_>>()));
            band.push('Z');
        } else if dotted {
            marks.push_str(&dots(&means));
        }
    }
    let color = line.color;
    let extra = |class: &str, path: &str| match path {
        "" => String::new(),
        path => format!("<path class=\"{class} c{color}\" d=\"{path}\"/>\n"),
    };
    format!(
        "{}<path class=\"line c{color}\" data-name=\"{}\" d=\"{drawn}\"/>\n{}",
        extra("band", &band),
        escape(&line.name),
        extra("dots", &marks),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(range: Range) -> Chart<'static> {
        Chart { title: "Loss <1>", unit: "nats", size: ChartSize::Large, range, last_step: 40 }
    }

    #[test]
    fn a_line_has_gaps_and_points() {
        let values = [(10, Some(1.0)), (20, None), (30, Some(0.25)), (40, Some(0.5))];
        let line = Series::new("a & b", 2, &values, 10).unwrap();
        let html = chart(Range::FromZero).draw(&[line]);
        assert!(
            html.contains("class=\"line c2\" data-name=\"a &amp; b\" d=\"M10 1h0M30 0.25L40 0.5\""),
            "{html}"
        );
        assert!(html.contains("class=\"dots c2\" d=\"M10 1h0M30 0.25h0M40 0.5h0\""), "{html}");
        assert!(
            html.contains("viewBox=\"0 -1 40 1\"") && html.contains("Loss &lt;1&gt;"),
            "{html}"
        );
        assert!(html.contains("style=\"top:60.00%\">0.4</span>"), "{html}");
        assert_eq!(chart(Range::Values).draw(&[]), "");
    }

    #[test]
    fn thinned_lines_have_a_band() {
        let values: Vec<(u64, Option<f64>)> =
            (1..=4).map(|step| (10 * step, Some(step as f64))).collect();
        let html = chart(Range::Values).draw(&[Series::new("a", 0, &values, 2).unwrap()]);
        assert!(html.contains("class=\"band c0\" d=\"M15 2L35 4L35 3L15 1Z\""), "{html}");
    }

    #[test]
    fn constant_series_have_an_axis() {
        for value in [0.0, 5.0, -5.0] {
            let line = Series::new("a", 0, &[(1, Some(value))], 2).unwrap();
            for range in [Range::Percent, Range::FromZero, Range::Values] {
                let html = chart(range).draw(std::slice::from_ref(&line));
                assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
            }
        }
    }
}
