//! `protoseg`: labels, scores, checks and serves a bundle; starts `protoseg-train` and
//! `protoseg-export`.

#![warn(clippy::print_stderr)]

mod allocator;
mod commands;
mod telemetry;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use commands::{
    CommandError, CommandOutcome, OrUsage, accept, bench, check, convert, doctor, eval, import,
    label, merge, print, print_stderr, serve, synth, tune,
};
use protoseg_models::errors::error_chain;
use protoseg_program::manual::{self, Shell};
use protoseg_program::sibling;

/// Semantic segmentation: train on few labels, export to ONNX, run anywhere
///
/// Exit status: 0 success; 1 failure; 2 not started (arguments, bundle, ONNX Runtime or inputs are
/// wrong); 3 finished, but some inputs failed; 143, 129, 130 stopped by SIGTERM, SIGHUP or Ctrl-C,
/// with finished results kept.
#[derive(Debug, Parser)]
#[command(name = "protoseg", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    Label(label::LabelArgs),
    Eval(eval::EvalArgs),
    Serve(serve::ServeArgs),
    Bench(Box<bench::BenchArgs>),
    Tune(tune::TuneArgs),
    Merge(merge::MergeArgs),
    Check(check::CheckArgs),
    #[command(alias = "adopt")]
    Import(import::ImportArgs),
    Convert(convert::ConvertArgs),
    #[command(alias = "scenes")]
    Synth(synth::SynthArgs),
    Doctor(doctor::DoctorArgs),
    Accept(accept::AcceptArgs),
    /// Train a network (starts protoseg-train)
    #[command(disable_help_flag = true)]
    Train {
        /// Passed on to protoseg-train
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Export a checkpoint to a bundle and check it (starts protoseg-export)
    #[command(disable_help_flag = true)]
    Export {
        /// Passed on to protoseg-export
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Print the completions of a shell
    Completions {
        shell: Shell,
    },
}

/// Printed after a panic's own lines.
const PANIC_MESSAGE: &str =
    "internal error: this is a bug in protoseg, please report it; finished results are kept";

fn main() -> ExitCode {
    allocator::use_one_arena();
    telemetry::opt_out();
    let outcome = std::panic::catch_unwind(|| {
        if manual::write_if_asked(command).map_err(anyhow::Error::from)? {
            return Ok(CommandOutcome::Success);
        }
        let cli = Cli::from_arg_matches(&command().get_matches());
        run(&cli.unwrap_or_else(|error| error.exit()).command)
    });
    let (error, status) =
        match outcome.unwrap_or_else(|_| Err(CommandError::Runtime(anyhow!(PANIC_MESSAGE)))) {
            Ok(CommandOutcome::Success) => return ExitCode::SUCCESS,
            Ok(CommandOutcome::Failed) => return ExitCode::from(1),
            Ok(CommandOutcome::SomeInputsFailed) => return ExitCode::from(3),
            Ok(CommandOutcome::ExitCode(status)) => return ExitCode::from(status),
            Err(CommandError::Runtime(error)) => (error, 1),
            Err(CommandError::Usage(error)) => (error, 2),
        };
    print_stderr(format_args!("error: {}", error_chain(error.as_ref())));
    ExitCode::from(status)
}

/// The command line; options of `serve` may also come from environment variables.
fn command() -> Command {
    Cli::command().mut_subcommand("serve", serve::with_env_vars)
}

fn run(chosen: &CliCommand) -> Result<CommandOutcome, CommandError> {
    match chosen {
        CliCommand::Label(arguments) => label::run(arguments),
        CliCommand::Eval(arguments) => eval::run(arguments),
        CliCommand::Serve(arguments) => serve::run(arguments),
        CliCommand::Bench(arguments) => bench::run(arguments),
        CliCommand::Tune(arguments) => tune::run(arguments),
        CliCommand::Merge(arguments) => merge::run(arguments),
        CliCommand::Check(arguments) => check::run(arguments),
        CliCommand::Import(arguments) => import::run(arguments),
        CliCommand::Convert(arguments) => convert::run(arguments),
        CliCommand::Synth(arguments) => synth::run(arguments),
        CliCommand::Doctor(arguments) => doctor::run(arguments),
        CliCommand::Accept(arguments) => accept::run(arguments),
        CliCommand::Train { arguments } => start("protoseg-train", arguments),
        CliCommand::Export { arguments } => start("protoseg-export", arguments),
        CliCommand::Completions { shell } => {
            print(manual::completions(command(), *shell).trim_end())?;
            Ok(CommandOutcome::Success)
        }
    }
}

/// Becomes another program.
fn start(program: &str, arguments: &[OsString]) -> Result<CommandOutcome, CommandError> {
    match sibling::exec(program, arguments).or_usage()? {}
}
