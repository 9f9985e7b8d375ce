//! Progress of a pipeline run on the standard error.

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use protoseg_infer::pipeline::PipelineEvent;
use protoseg_models::errors::error_chain;

use super::print_stderr;

/// Progress bar; hidden unless the standard error is a terminal.
pub(crate) fn bar(count: usize) -> ProgressBar {
    let bar = ProgressBar::new(count as u64);
    match ProgressStyle::with_template("{bar:40} {pos}/{len} images, {per_sec}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Advances the bar; prints the error of a failed image with its file.
pub(crate) fn show<'p>(
    bar: &ProgressBar,
    event: &PipelineEvent<'_, anyhow::Error>,
    path: impl Fn(usize) -> &'p Path,
) {
    if let PipelineEvent::Failed(index, error) = event {
        let text = error_chain(error.as_ref());
        let path = path(*index).display().to_string();
        if text.contains(&path) {
            show_error(bar, error);
        } else {
            bar.suspend(|| print_stderr(format_args!("error: {path}: {text}")));
        }
    }
    bar.inc(1);
}

/// Prints an error above the bar.
pub(crate) fn show_error(bar: &ProgressBar, error: &anyhow::Error) {
    bar.suspend(|| print_stderr(format_args!("error: {}", error_chain(error.as_ref()))));
}
