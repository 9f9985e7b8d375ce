//! Reports as HTML pages that need nothing else to be read: no network, no other file, light and dark, on a screen and on a
//! phone.
//!
//! ```
//! use protoseg_pages::html::{Page, Section};
//! use protoseg_pages::plot::{Axis, Plot, path};
//! use protoseg_pages::scale::Scale;
//!
//! let (time, loss) = (Scale::steps(40, 5), Scale::around(0.0, 1.0, 5));
//! let plot = Plot { title: "Loss", unit: "nats", label: "loss against steps",
//!     across: Axis { name: "step", scale: &time }, upwards: &loss };
//! let line = format!("<path class=\"line c0\" d=\"{}\"/>\n", path(&[(10.0, 0.9), (40.0, 0.25)]));
//! let sections = [Section { anchor: "loss", title: "Loss", body: plot.draw(&line, "") }];
//! let page = Page { title: "A run", head: "", sections: &sections, style: "" }.draw();
//! assert!(page.contains("M10 0.9L40 0.25"));
//! ```
//!
//! [`html`] is the page around its sections, [`plot`] the frame of a chart, [`scale`] its axes and how numbers are written.
//!
//! **Invariant:** nothing here knows what a report is about, and a page asks nobody for anything.

pub mod html;
pub mod plot;
pub mod scale;
