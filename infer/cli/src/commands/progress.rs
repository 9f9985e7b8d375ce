//! Progress of a pipeline run on the standard error.

use std::path::{Path, PathBuf};

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

/// Progress bar over the windows of one image; hidden unless the standard error is a terminal.
pub(crate) fn window_bar(count: usize, path: &Path) -> ProgressBar {
    let bar = ProgressBar::new(count as u64).with_message(path.display().to_string());
    let template = "{bar:40} {pos}/{len} windows of {msg}, {per_sec}, {eta} left";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Advances the bar; prints the error of a failed image, of which `path` gives the file.
pub(crate) fn show(
    bar: &ProgressBar,
    event: &PipelineEvent<'_, anyhow::Error>,
    path: impl Fn(usize) -> PathBuf,
) {
    if let PipelineEvent::Failed(index, error) = event {
        show_error(bar, &path(*index), error);
    }
    bar.inc(1);
}

/// Prints an image's error above the bar.
pub(crate) fn show_error(bar: &ProgressBar, path: &Path, error: &anyhow::Error) {
    bar.suspend(|| print_stderr(format_args!("error: {}", named_error(path, error))));
}

/// The message of an image's error, with the file's path before it unless it names it.
pub(crate) fn named_error(path: &Path, error: &anyhow::Error) -> String {
    named_text(&path.display().to_string(), &error_chain(error.as_ref()))
}

/// A message with a name before it, unless it holds the name.
pub(crate) fn named_text(name: &str, message: &str) -> String {
    // As messages are written: without control characters.
    let name = error_chain(&std::io::Error::other(name.to_owned()));
    if message.contains(&name) { message.to_owned() } else { format!("{name}: {message}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_names_its_file_once() {
        let named = |message: &str| named_text("in/a\nb.jpg", message);
        assert_eq!(named("does not fit"), "in/a\\nb.jpg: does not fit");
        assert_eq!(named("in/a\\nb.jpg: cut short"), "in/a\\nb.jpg: cut short");
    }
}
