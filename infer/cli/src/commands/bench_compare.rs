//! `protoseg bench compare`: regressions between two reports.

use std::path::PathBuf;

use anyhow::Context;
use protoseg_bench::compare::compare;
use protoseg_bench::report::BenchReport;

use super::{CommandError, CommandOutcome, print, print_json};

/// Compare a report with an earlier one
///
/// Points that were measured in the same way are compared: median latency, offline the time per
/// image, with an interval of 99 % confidence. Exit status 1 means that something is slower than
/// the tolerance beyond doubt, or broken. Fewer than 30 queries in one of the two decide nothing
/// and fail nothing: measure with more --queries or a longer --time. Drift of the machine between
/// the reports is not excluded; `protoseg bench A --against B` interleaves both.
#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// The earlier report, as JSON
    #[arg(value_name = "BEFORE.json")]
    before: PathBuf,
    /// The later report
    #[arg(value_name = "AFTER.json")]
    after: PathBuf,
    /// Accepted slowdown in percent
    #[arg(long, value_name = "PERCENT", default_value = "5", value_parser = parse_percent)]
    tolerance: f64,
    /// Print the comparison as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &CompareArgs) -> Result<CommandOutcome, CommandError> {
    let before = BenchReport::read(&arguments.before).map_err(CommandError::usage)?;
    let after = BenchReport::read(&arguments.after).map_err(CommandError::usage)?;
    let comparison = compare(&before, &after, arguments.tolerance / 100.0)
        .with_context(|| {
            let (before, after) = (arguments.before.display(), arguments.after.display());
            format!("{before} and {after} cannot be compared")
        })
        .map_err(CommandError::Usage)?;
    if arguments.json {
        print_json(&comparison)?;
    } else {
        print(&comparison)?;
    }
    Ok(if comparison.has_regression() { CommandOutcome::Failed } else { CommandOutcome::Success })
}

fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1000.0).contains(number));
    number.ok_or_else(|| "write a number of percent from 0 to 1000, such as 5".to_owned())
}
