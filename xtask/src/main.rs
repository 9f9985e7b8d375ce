//! `cargo xtask …`: fetches the native runtimes, then builds, tests, demonstrates and proves the workspace.

mod accuracy;
mod ci;
mod compiler;
mod component;
mod demo;
mod external;
mod fresh;
mod host;
mod peers;
mod prove;
mod python;
mod run;
mod setup;
mod stamp;
mod steps;
mod test;
mod wheel;

use std::process::ExitCode;

use anyhow::Result;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

Commands:
  setup [--cpu | --cuda] [NAME…]
                           fetch libtorch, ONNX Runtime and the backbone weights into .runtime/, or those of them
                           that are named: libtorch, onnxruntime, weights
                           (without an option: CUDA where there is an NVIDIA driver, else CPU)
  demo [--data DIR]        build, then train, export and run a small model
  test [ARGS…]             build the programs and run every test; ARGS go to `cargo test`
  ci                       what the CI runs: fmt, clippy, doc, test, every bench once
  prove NAME… [ARGS…]      run long proofs by name; without a name: list them

Each command runs `setup` first; it is done in an instant where nothing is missing.";

/// A call that makes no sense: exit status 2, where a failure is 1.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let Some((command, rest)) = arguments.split_first() else {
        return Err(Usage(format!("no command given\n\n{USAGE}")).into());
    };
    if ["help", "--help", "-h"].contains(&command.as_str())
        || rest.first().is_some_and(|word| word == "--help")
    {
        print_usage();
        return Ok(());
    }
    let root = run::root()?;
    match command.as_str() {
        "setup" => setup::command(&root, rest),
        "demo" => demo::command(&root, rest),
        "test" => test::command(&root, rest),
        "ci" => ci::command(&root, rest),
        "prove" => prove::command(&root, rest),
        _ => Err(Usage(format!("unknown command {command:?}\n\n{USAGE}")).into()),
    }
}

#[expect(clippy::print_stdout, reason = "help that was asked for is a result")]
fn print_usage() {
    println!("{USAGE}");
}
