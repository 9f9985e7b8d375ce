//! The program's commands, and what they have in common.

pub(crate) mod accept;
pub(crate) mod adopt;
pub(crate) mod bench;
pub(crate) mod check;
mod data;
pub(crate) mod doctor;
mod engine_arguments;
mod engine_options;
pub(crate) mod eval;
pub(crate) mod export;
mod format;
mod inputs;
pub(crate) mod label;
mod lists;
pub(crate) mod merge;
mod output_file;
mod picture_arguments;
mod progress;
mod run_arguments;
pub(crate) mod scenes;
pub(crate) mod serve;
mod sheet;
pub(crate) mod sibling;
mod signals;
pub(crate) mod tune;
mod tuned;

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::Context;
use clap::builder::RangedU64ValueParser;

use run_arguments::RunArguments;

/// How a command that ran to its end came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is well.
    Done,
    /// What was judged did not pass.
    Failed,
    /// Finished, but for some inputs.
    SomeInputsFailed,
    /// With this exit status: of a program that was started, or after a signal; why has been said.
    Status(u8),
}

/// Why a command stopped.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for cannot be begun: arguments, bundle, runtime or inputs are wrong.
    Usage(anyhow::Error),
    /// The work failed.
    Work(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Work(error)
    }
}

impl Failure {
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }
}

/// A description written by a newer version may hold fields that this one does not know.
fn warn_of_newer(bundle: &Path, passed_over: &[String]) {
    if !passed_over.is_empty() {
        let (bundle, fields) = (bundle.display(), passed_over.join(", "));
        say(format_args!("warning: {bundle} was written by a newer version; passed over: {fields}"));
    }
}

/// Writes a line for people to the standard error. Where that cannot be written, the work goes on: there is nobody to tell.
pub(crate) fn say(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes results to the standard output.
fn print(text: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("the standard output")
}

/// Writes a value as JSON to the standard output.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(serde_json::to_string_pretty(value).context("the summary")?)
}

/// Largest height and width that is drawn.
const MAX_SIDE: usize = 8192;

/// Height and width from `HEIGHTxWIDTH`.
fn size(text: &str) -> Result<[usize; 2], String> {
    let sides = text.split_once('x').and_then(|(height, width)| Some([height.parse().ok()?, width.parse().ok()?]));
    sides
        .filter(|sides| sides.iter().all(|side| (1..=MAX_SIDE).contains(side)))
        .ok_or_else(|| format!("write HEIGHTxWIDTH in pixels, such as 512x1024, each from 1 to {MAX_SIDE}"))
}

/// How many threads or windows at once: at most as many as large machines use.
fn few(text: &str) -> Result<NonZeroUsize, String> {
    let number = text.parse().ok().filter(|number: &NonZeroUsize| number.get() <= 1024);
    number.ok_or_else(|| "write a number from 1 to 1024".to_owned())
}

/// How many pictures: at least one, at most a million.
fn pictures() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_bounds() {
        assert_eq!(size("1x8192"), Ok([1, 8192]));
        for text in ["0x5", "5x0", "8193x5", "5x99999999999999999999", "5", "x", "-1x5"] {
            assert!(size(text).unwrap_err().contains("from 1 to 8192"), "{text}");
        }
        assert_eq!(few("1024").map(NonZeroUsize::get), Ok(1024));
        for text in ["0", "1025", "-1", "99999999999999999999", "many"] {
            assert!(few(text).is_err(), "{text}");
        }
    }
}
