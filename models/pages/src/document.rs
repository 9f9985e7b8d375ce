//! The content of a report, and the template around it. `report.js` draws every type of this file.

use serde::Serialize;

use crate::Values;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("report.js");

#[derive(Debug, Clone, Default, Serialize)]
pub struct Document {
    pub title: String,
    /// Plain text for readers without JavaScript.
    #[serde(skip)]
    pub summary: String,
    /// Between the title and the links to the sections.
    pub head: Vec<Block>,
    pub sections: Vec<Section>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Section {
    /// Fragment of the section's link.
    pub id: String,
    pub title: String,
    pub blocks: Vec<Block>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    Heading { text: String, stable: Option<bool> },
    Note(String),
    Warning(String),
    List(Vec<String>),
    Verdict { text: String, stable: bool, reasons: Vec<String> },
    Tiles(Vec<Tile>),
    Facts(Vec<(&'static str, String)>),
    Tables(Vec<Table>),
    Legend(Vec<(String, Swatch)>),
    Charts(ChartSize, Vec<Chart>),
    HeatMaps(Vec<HeatMap>),
    Stacks(Vec<Stack>),
    Images(Vec<Image>),
    Code(String),
}

/// A key figure.
#[derive(Debug, Clone, Serialize)]
pub struct Tile {
    pub label: String,
    pub value: String,
    pub details: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Table {
    pub caption: Option<String>,
    /// As wide as the page; else only as wide as numbers need.
    pub wide: bool,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Cell>>,
    pub footer: Vec<Vec<Cell>>,
}

/// A cell of a [`Table`]; the first one of a row is its heading.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// Right-aligned, unless it is a heading.
    Number(String),
    /// Left-aligned.
    Text(String),
    /// Stands for a missing number.
    Absent(&'static str),
    /// A percentage, with a bar behind it.
    Meter {
        percent: f64,
        text: String,
    },
    Class(String, Option<[u8; 3]>),
    Link {
        text: String,
        section: String,
    },
    Stable(bool),
}

/// A color of a legend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Swatch {
    /// Index into the colors of lines.
    Line(usize),
    Rgb([u8; 3]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChartSize {
    /// One of many.
    Small,
    Large,
    /// The only one of its section.
    Tall,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Chart {
    pub title: String,
    /// Unit of the y axis.
    pub unit: String,
    pub x: Axis,
    pub y: Axis,
    pub marks: Vec<Mark>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Axis {
    pub name: &'static str,
    pub scale: Scale,
    /// The values to show; those of the marks where there is none.
    pub range: Option<[f64; 2]>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Between the round numbers around the range.
    #[default]
    Linear,
    /// Linear, and extended to 0.
    FromZero,
    /// Whole numbers from 0 to the end of the range, which need not be round.
    Counts,
    Logarithmic,
}

impl Axis {
    /// Whole numbers from 0 to `last`.
    pub fn counts(name: &'static str, last: f64) -> Self {
        Self { name, scale: Scale::Counts, range: Some([0.0, last]) }
    }

    pub fn percent() -> Self {
        Self { range: Some([0.0, 100.0]), ..Self::default() }
    }
}

/// One kind of drawing in a [`Chart`]. Columns of one mark have the same length.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    Line(Line),
    Points {
        name: String,
        color: usize,
        /// Large dots for a few points; else small, translucent ones for thousands.
        large: bool,
        x: Values,
        y: Values,
    },
    /// A histogram: one more edge than counts.
    Bars {
        name: String,
        centers: Values,
        edges: Values,
        counts: Values,
    },
    /// Horizontal bars from `low` to `high`.
    Intervals {
        low: Values,
        high: Values,
        y: Values,
    },
    /// Vertical rules with a text each.
    Verticals {
        x: Values,
        texts: Vec<String>,
    },
    /// Horizontal rules.
    Levels {
        y: Values,
    },
    /// Texts beside points.
    Labels {
        x: Values,
        y: Values,
        labels: Vec<PointLabel>,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Line {
    pub name: String,
    pub color: usize,
    pub dashed: bool,
    /// Shows every point.
    pub dots: bool,
    pub x: Values,
    pub y: Values,
    /// Least and greatest of the values of which each point is the mean.
    pub band: Option<[Values; 2]>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct PointLabel {
    pub strong: String,
    pub text: String,
    pub unstable: bool,
}

/// Shares of rows over intervals of steps.
#[derive(Debug, Clone, Default, Serialize)]
pub struct HeatMap {
    pub title: String,
    pub rows: usize,
    pub row_name: &'static str,
    pub last_step: u64,
    /// Where each interval ends; the first one begins at 0.
    pub steps: Values,
    /// In [0, 1], one row of shares per interval.
    pub shares: Vec<Values>,
}

/// A bar divided into parts.
#[derive(Debug, Clone, Serialize)]
pub struct Stack {
    pub title: String,
    pub note: String,
    pub parts: Vec<StackPart>,
}

#[derive(Debug, Clone, Serialize)]
pub struct StackPart {
    pub name: String,
    /// In [0, 1].
    pub share: f64,
    pub color: usize,
    pub value: String,
    pub percent: String,
}

/// Views of one image side by side.
#[derive(Debug, Clone, Serialize)]
pub struct Image {
    pub name: String,
    pub note: String,
    /// Names and `data:` URLs; no URL for bytes in an unknown format.
    pub views: Vec<(&'static str, Option<String>)>,
}

impl Document {
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// Adds a section, unless it would be empty.
    pub fn section(&mut self, id: impl Into<String>, title: impl Into<String>, blocks: Vec<Block>) {
        if !blocks.is_empty() {
            self.sections.push(Section { id: id.into(), title: title.into(), blocks });
        }
    }

    /// The page as one HTML file. Its content security policy forbids requests, whatever the document holds.
    pub fn to_html(&self) -> String {
        // Within a script element, only `<` can end the JSON early.
        let document = serde_json::json!(self).to_string().replace('<', "\\u003c");
        format!(
            include_str!("report.html"),
            title = escape(&self.title),
            style = STYLE,
            summary = escape(&self.summary),
            document = document,
            script = SCRIPT,
        )
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        let mut document = Document::new("<a> & {b}");
        document.summary = "</noscript><b>&".to_owned();
        document.head.push(Block::Note("<!-- </script><script>alert(1)</script>".to_owned()));
        let page = document.to_html();
        assert!(page.contains("<title>&lt;a> &amp; {b}</title>"));
        assert!(page.contains("<pre>\n&lt;/noscript>&lt;b>&amp;</pre>"));
        assert_eq!((page.matches("<script").count(), page.matches("</script").count()), (2, 2));
        assert!(page.contains(r#"{"note":"\u003c!-- \u003c/script>"#) && !page.contains("<!--"));
        assert!(page.contains("content=\"default-src 'none'; img-src data:;"));
    }

    #[test]
    fn empty_sections_are_left_out() {
        let mut document = Document::new("title");
        document.section("here", "Title", vec![Block::Note("text".to_owned())]);
        document.section("nowhere", "Title", Vec::new());
        let page = document.to_html();
        assert!(page.contains(r#""id":"here""#) && !page.contains("nowhere"));
    }
}
