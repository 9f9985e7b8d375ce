//! Self-contained HTML report pages: no network, no other file, light and dark, desktop and phone.
//!
//! A report is a [`Document`]: texts, tables and the data of charts. It is written as JSON into one template, whose script
//! draws it.
//!
//! ```
//! use protoseg_pages::{Axis, Block, Chart, ChartSize, Document, Line, Mark};
//!
//! let (x, y) = [(10.0, 0.9), (40.0, 0.25)].into_iter().unzip();
//! let loss = Chart {
//!     title: "Loss".to_owned(),
//!     unit: "nats".to_owned(),
//!     x: Axis::counts("step", 40.0),
//!     y: Axis::default(),
//!     marks: vec![Mark::Line(Line { name: "loss".to_owned(), x, y, ..Line::default() })],
//! };
//! let mut document = Document::new("A run");
//! document.section("loss", "Loss", vec![Block::Charts(ChartSize::Large, vec![loss])]);
//! assert!(document.to_html().contains(r#""x":[10,40],"y":[0.9,0.25]"#));
//! ```
//!
//! **Invariant:** nothing here knows what a report is about, and a page makes no request.

mod document;
mod numbers;

pub use document::{
    Axis, Block, Cell, Chart, ChartSize, Document, HeatMap, Image, Line, Mark, PointLabel, Scale,
    Section, Stack, StackPart, Swatch, Table, Tile,
};
pub use numbers::{Values, duration, fixed, is_plottable, whole};
