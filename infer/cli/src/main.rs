//! `protoseg`: labels, scores and checks with a bundle, and the front door to `protoseg-train` and `protoseg-export`.

#![warn(clippy::print_stderr)]

mod allocator;
mod commands;
mod telemetry;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use commands::{
    Failure, Outcome, accept, adopt, bench, check, doctor, eval, export, label, merge, say, scenes, serve, sibling,
    tune,
};
use protoseg_models::errors::sentence;

/// Semantic segmentation: train on few labels, export to ONNX, run anywhere
///
/// Exit status: 0 done, 1 failed, 2 nothing could be begun (arguments, bundle, ONNX Runtime, inputs), 3 finished but for
/// some inputs, 143, 129 and 130 ended by SIGTERM, SIGHUP and Ctrl-C with all that was done kept.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Label(label::Arguments),
    Eval(eval::Arguments),
    Serve(serve::Arguments),
    Bench(Box<bench::Arguments>),
    Tune(tune::Arguments),
    Merge(merge::Arguments),
    Check(check::Arguments),
    Adopt(adopt::Arguments),
    Scenes(scenes::Arguments),
    Doctor(doctor::Arguments),
    Accept(accept::Arguments),
    /// Train a network (starts protoseg-train)
    #[command(disable_help_flag = true)]
    Train {
        /// Passed on to protoseg-train
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Turn a checkpoint into a bundle that passes its check (starts protoseg-export)
    #[command(disable_help_flag = true)]
    Export {
        /// Passed on to protoseg-export, but for those of the check
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// What is said after a panic's own lines.
const PANIC: &str =
    "the program came upon a mistake of its own and stopped; what was finished before is kept. Please report it";

fn main() -> ExitCode {
    allocator::share();
    telemetry::decline();
    let cli = cli();
    let outcome = std::panic::catch_unwind(|| run(&cli.command));
    let (error, status) = match outcome.unwrap_or_else(|_| Err(Failure::Work(anyhow!(PANIC)))) {
        Ok(Outcome::Done) => return ExitCode::SUCCESS,
        Ok(Outcome::Failed) => return ExitCode::from(1),
        Ok(Outcome::SomeInputsFailed) => return ExitCode::from(3),
        Ok(Outcome::Status(status)) => return ExitCode::from(status),
        Err(Failure::Work(error)) => (error, 1),
        Err(Failure::Usage(error)) => (error, 2),
    };
    say(format_args!("error: {}", sentence(error.as_ref())));
    ExitCode::from(status)
}

/// The command line; options of the server come from the environment too.
fn cli() -> Cli {
    let command = Cli::command().mut_subcommand("serve", serve::from_environment);
    Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

fn run(command: &Command) -> Result<Outcome, Failure> {
    match command {
        Command::Label(arguments) => label::run(arguments),
        Command::Eval(arguments) => eval::run(arguments),
        Command::Serve(arguments) => serve::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Tune(arguments) => tune::run(arguments),
        Command::Merge(arguments) => merge::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Adopt(arguments) => adopt::run(arguments),
        Command::Scenes(arguments) => scenes::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Accept(arguments) => accept::run(arguments),
        Command::Train { arguments } => match sibling::run("train", arguments).map_err(Failure::usage)? {},
        Command::Export { arguments } => export::run(arguments),
    }
}
