//! Progress of a pipeline run on the standard error.

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

/// Advances the bar; prints the error of a failed image.
pub(crate) fn show(bar: &ProgressBar, event: &PipelineEvent<'_, anyhow::Error>) {
    if let PipelineEvent::Failed(_, error) = event {
        show_error(bar, error);
    }
    bar.inc(1);
}

/// Prints an error above the bar.
pub(crate) fn show_error(bar: &ProgressBar, error: &anyhow::Error) {
    bar.suspend(|| print_stderr(format_args!("error: {}", error_chain(error.as_ref()))));
}
