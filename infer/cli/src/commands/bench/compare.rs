//! `protoseg bench compare`: whether a later benchmark shows that something became slower.

use std::path::PathBuf;

use protoseg_bench::compare::compare;
use protoseg_bench::report::BenchReport;

use crate::commands::{CommandError, CommandOutcome, print, print_json};

/// Hold a benchmark's report against an earlier one
///
/// What was measured in both in the same way is compared: median latency, offline the time for a picture, with an interval of
/// 99 % confidence. Exit status 1 says that something became slower by more than the tolerance, beyond doubt; of fewer than 30
/// queries in one of the two nothing can be decided, and they fail nothing: measure with more --queries or a longer --time.
/// Drift of the machine between the two reports is not excluded; `protoseg bench A --against B` measures both in turns.
#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// The earlier report, as JSON
    #[arg(value_name = "BEFORE.json")]
    before: PathBuf,
    /// The later one
    #[arg(value_name = "AFTER.json")]
    after: PathBuf,
    /// How much slower is still well, in percent
    #[arg(long, value_name = "PERCENT", default_value = "5", value_parser = percent)]
    tolerance: f64,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &CompareArgs) -> Result<CommandOutcome, CommandError> {
    let before = BenchReport::read(&arguments.before).map_err(CommandError::usage)?;
    let after = BenchReport::read(&arguments.after).map_err(CommandError::usage)?;
    let comparison = compare(&before, &after, arguments.tolerance / 100.0).map_err(|error| {
        let (before, after) = (arguments.before.display(), arguments.after.display());
        CommandError::Usage(
            anyhow::Error::new(error).context(format!("{before} and {after} cannot be compared")),
        )
    })?;
    if arguments.json {
        print_json(&comparison)?;
    } else {
        print(&comparison)?;
    }
    Ok(if comparison.has_regression() { CommandOutcome::Failed } else { CommandOutcome::Success })
}

/// A share in percent that leaves something to be found.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1000.0).contains(number));
    number.ok_or_else(|| "write a number of percent from 0 to 1000, such as 5".to_owned())
}
