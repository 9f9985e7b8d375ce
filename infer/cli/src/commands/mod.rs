//! The commands of `protoseg` and their shared helpers.

pub(crate) mod accept;
mod accept_failed;
mod annotation_args;
pub(crate) mod bench;
mod bench_compare;
pub(crate) mod check;
mod contact_sheet;
pub(crate) mod convert;
mod data;
pub(crate) mod doctor;
mod engine_args;
pub(crate) mod eval;
mod format;
mod image_args;
pub(crate) mod import;
mod inputs;
pub(crate) mod label;
mod lists;
pub(crate) mod merge;
mod output_file;
mod pattern;
mod progress;
mod reading_args;
mod run_args;
pub(crate) mod serve;
pub(crate) mod synth;
pub(crate) mod tune;
mod tuned;

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::Context;
use clap::builder::RangedU64ValueParser;

use run_args::RunArgs;

/// Result of a command that ran to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandOutcome {
    Success,
    /// A check did not pass.
    Failed,
    SomeInputsFailed,
    /// Exit status of a child program or after a signal; the reason is already printed.
    ExitCode(u8),
}

/// Error of a command, by exit status.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// Nothing was started: arguments, bundle, runtime or inputs are wrong (status 2).
    Usage(anyhow::Error),
    /// The work failed (status 1).
    Runtime(anyhow::Error),
}

impl From<anyhow::Error> for CommandError {
    fn from(error: anyhow::Error) -> Self {
        Self::Runtime(error)
    }
}

impl CommandError {
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }
}

/// Turns the error of a result into [`CommandError::Usage`].
pub(crate) trait OrUsage<T> {
    fn or_usage(self) -> Result<T, CommandError>;
}

impl<T, E: Into<anyhow::Error>> OrUsage<T> for Result<T, E> {
    fn or_usage(self) -> Result<T, CommandError> {
        self.map_err(CommandError::usage)
    }
}

/// Warns of manifest fields that this version does not know.
fn warn_newer_version(bundle: &Path, unknown_fields: &[String]) {
    if !unknown_fields.is_empty() {
        let (bundle, fields) = (bundle.display(), unknown_fields.join(", "));
        print_stderr(format_args!(
            "warning: {bundle} was written by a newer version; ignored fields: {fields}"
        ));
    }
}

/// Writes a line to the standard error; failures are ignored, as there is nowhere to report them.
pub(crate) fn print_stderr(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes warnings to the standard error.
fn print_warnings(warnings: impl IntoIterator<Item = String>) {
    for warning in warnings {
        print_stderr(format_args!("warning: {warning}"));
    }
}

/// Writes a line to the standard output.
pub(crate) fn print(text: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("cannot write to the standard output")
}

/// Writes a value as JSON to the standard output.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(serde_json::to_string_pretty(value).context("cannot encode the summary as JSON")?)
}

/// Largest side of a synthetic scene in pixels.
const MAX_SIDE: usize = 8192;

/// Parses `HEIGHTxWIDTH` as `[height, width]`.
fn parse_size(text: &str) -> Result<[usize; 2], String> {
    let sides = text
        .split_once('x')
        .and_then(|(height, width)| Some([height.parse().ok()?, width.parse().ok()?]));
    sides.filter(|sides| sides.iter().all(|side| (1..=MAX_SIDE).contains(side))).ok_or_else(|| {
        format!("write HEIGHTxWIDTH in pixels, such as 512x1024, each from 1 to {MAX_SIDE}")
    })
}

/// Parses a number of threads or windows, at most 1024.
fn parse_count(text: &str) -> Result<NonZeroUsize, String> {
    let number = text.parse().ok().filter(|number: &NonZeroUsize| number.get() <= 1024);
    number.ok_or_else(|| "write a number from 1 to 1024".to_owned())
}

/// Parser of a number of images, 1 to 1 000 000.
fn image_count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_bounded() {
        assert_eq!(parse_size("1x8192"), Ok([1, 8192]));
        for text in ["0x5", "5x0", "8193x5", "5x99999999999999999999", "5", "x", "-1x5"] {
            assert!(parse_size(text).unwrap_err().contains("from 1 to 8192"), "{text}");
        }
        assert_eq!(parse_count("1024").map(NonZeroUsize::get), Ok(1024));
        for text in ["0", "1025", "-1", "99999999999999999999", "many"] {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }
}
