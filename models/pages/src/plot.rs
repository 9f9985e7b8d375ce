//! The frame of a chart: SVG in the data's own units, stretched to whatever width there is, with HTML for what is to be read.

use crate::html::escape;
use crate::scale::{Scale, short};

/// A horizontal axis.
#[derive(Debug, Clone, Copy)]
pub struct Axis<'a> {
    /// What stands below it, and before a value that the pointer shows: a quantity and its unit.
    pub name: &'a str,
    /// Where it begins and ends.
    pub scale: &'a Scale,
}

impl Axis<'_> {
    /// The texts below the axis.
    pub fn labels(&self) -> String {
        let label = |&tick: &f64| {
            let along = self.scale.percent_along(tick);
            format!(
                "<span class=\"x\" style=\"left:{along:.2}%\">{}</span>",
                self.scale.label(tick)
            )
        };
        let name = format!("<span class=\"axis\">{}</span>", escape(self.name));
        self.scale.ticks.iter().map(label).chain([name]).collect()
    }
}

/// A chart, but for what is drawn in it.
#[derive(Debug, Clone, Copy)]
pub struct Plot<'a> {
    /// What is shown.
    pub title: &'a str,
    /// Of the vertical axis.
    pub unit: &'a str,
    /// The chart in words, for those who do not see it.
    pub label: &'a str,
    /// The horizontal axis.
    pub across: Axis<'a>,
    /// The vertical axis.
    pub upwards: &'a Scale,
}

impl Plot<'_> {
    /// The chart. `drawn` is SVG whose coordinates are places on the axes ([`Scale::place`]), upwards as the axis goes; the
    /// script shows the points of its paths that have a `data-name`. `over` is HTML above it, in percent of its width and
    /// height.
    pub fn draw(&self, drawn: &str, over: &str) -> String {
        let Self { across: Axis { name, scale: across }, upwards, .. } = self;
        let ends = [across.low, across.high].map(|end| across.place(end));
        let [left, right] = ends.map(number);
        let [bottom, top] = [upwards.low, upwards.high].map(|end| upwards.place(end));
        let ruled = |tick: &f64| format!("M{left} {}H{right}", short(upwards.place(*tick)));
        let rules: String = upwards.ticks.iter().map(ruled).collect();
        let logarithmic = |scale: &Scale, which: &str| match scale.is_logarithmic() {
            true => format!(" data-logarithmic-{which}"),
            false => String::new(),
        };
        format!(
            "<figure><figcaption>{}<span>{}</span></figcaption>\n\
             <div class=\"plot\" data-axis=\"{}\" data-left=\"{left}\" data-right=\"{right}\"{}{}>\
             <svg viewBox=\"{left} {} {} {}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">\
             <g transform=\"scale(1 -1)\">\n<path class=\"rule\" d=\"{rules}\"/>\n{drawn}</g></svg>{}{}{over}</div></figure>\n",
            escape(self.title),
            escape(self.unit),
            escape(name),
            logarithmic(across, "x"),
            logarithmic(upwards, "y"),
            -top,
            number(ends[1] - ends[0]),
            top - bottom,
            escape(self.label),
            self.across.labels(),
            self.upward_labels(),
        )
    }

    fn upward_labels(&self) -> String {
        let label = |&tick: &f64| {
            let down = 100.0 - self.upwards.percent_along(tick);
            format!(
                "<span class=\"y\" style=\"top:{down:.2}%\">{}</span>",
                self.upwards.label(tick)
            )
        };
        self.upwards.ticks.iter().map(label).collect()
    }
}

/// A line through points, as the data of a path; a single point gets a line without length, which round ends show as a dot.
pub fn path(points: &[(f64, f64)]) -> String {
    let line = points.iter().map(at).collect::<Vec<_>>().join("L");
    match points.len() {
        0 => line,
        1 => format!("M{line}h0"),
        _ => format!("M{line}"),
    }
}

/// A dot at each point, as the data of a path.
pub fn dots(points: &[(f64, f64)]) -> String {
    points.iter().map(|point| format!("M{}h0", at(point))).collect()
}

fn at((x, y): &(f64, f64)) -> String {
    format!("{} {}", number(*x), short(*y))
}

/// Counts, such as steps, keep all their digits.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value}") } else { short(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(across: &Scale, upwards: &Scale) -> String {
        let axis = Axis { name: "time, <s>", scale: across };
        let plot = Plot { title: "<1>", unit: "<2>", label: "<3>", across: axis, upwards };
        plot.draw("<path/>", "<b></b>")
    }

    #[test]
    fn a_plot_has_the_units_of_its_axes() {
        let html = drawn(&Scale::around(10.0, 20.0, 5), &Scale::around(-1.0, 1.0, 2));
        assert!(
            html.contains("viewBox=\"10 -1 10 2\"")
                && html.contains("data-left=\"10\" data-right=\"20\""),
            "{html}"
        );
        assert!(
            html.contains("d=\"M10 -1H20M10 0H20M10 1H20\"")
                && html.contains("data-axis=\"time, &lt;s&gt;\""),
            "{html}"
        );
        assert!(
            !html.contains("logarithmic")
                && !html.contains("<1>")
                && !html.contains("<2>")
                && !html.contains("<3>")
        );
        assert!(
            html.contains("<path/></g></svg>") && html.contains("<b></b></div></figure>"),
            "{html}"
        );
    }

    #[test]
    fn logarithmic_axes_are_drawn_in_powers_of_ten() {
        let html = drawn(&Scale::steps(4, 5), &Scale::logarithmic(10.0, 1000.0, 5));
        assert!(
            html.contains("viewBox=\"0 -3 4 2\"") && html.contains(" data-logarithmic-y>"),
            "{html}"
        );
        assert!(
            html.contains("style=\"top:50.00%\">100</span>") && !html.contains("logarithmic-x"),
            "{html}"
        );
    }

    #[test]
    fn paths_keep_the_digits_of_counts() {
        assert_eq!(path(&[(1_234_567.0, 0.123_456), (2e6, 1.0)]), "M1234567 0.12346L2000000 1");
        assert_eq!((path(&[(0.123_456, 2.0)]), path(&[])), ("M0.12346 2h0".into(), String::new()));
        assert_eq!(dots(&[(1.0, 2.0), (3.0, 4.0)]), "M1 2h0M3 4h0");
    }
}
