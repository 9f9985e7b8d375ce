//! How far a run of the pipeline is, on the standard error.

use indicatif::{ProgressBar, ProgressStyle};
use protoseg_infer::pipeline::Event;
use protoseg_models::errors::sentence;

use super::say;

/// Progress where the standard error is a terminal.
pub(crate) fn bar(count: usize) -> ProgressBar {
    let bar = ProgressBar::new(count as u64);
    match ProgressStyle::with_template("{bar:40} {pos}/{len} pictures, {per_sec}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Counts an item, and says at once why it failed if it did.
pub(crate) fn show(bar: &ProgressBar, event: &Event<'_, anyhow::Error>) {
    if let Event::Failed(_, error) = event {
        complain(bar, error);
    }
    bar.inc(1);
}

/// Says why something failed, above the bar.
pub(crate) fn complain(bar: &ProgressBar, error: &anyhow::Error) {
    bar.suspend(|| say(format_args!("error: {}", sentence(error.as_ref()))));
}
