//! `cargo xtask`: setup of the native runtimes, demo, tests, CI, tarball and long proofs.

mod accuracy;
mod ci;
mod component;
mod demo;
mod dist;
mod external;
mod fresh;
mod host;
mod memory;
mod peers;
mod prove;
mod python;
mod run;
mod setup;
mod stamp;
mod steps;
mod test;
mod third_party;
mod wheel;

use std::process::ExitCode;

use anyhow::Result;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

Commands:
  setup [--cpu | --cuda] [NAME…]
                           fetch libtorch, ONNX Runtime and backbone weights into .runtime/, or only those named:
                           libtorch, onnxruntime, weights (default: CUDA if there is an NVIDIA driver, else CPU)
  demo [--data DIR]        build; then train, export and run a small model
  test [ARGS…]             build the programs and run every test; ARGS go to `cargo test`
  ci                       run the checks of the CI: fmt, house rules, clippy, doc, book, test, every bench once
  dist                     write a tarball of the programs with man pages, completions and licenses to dist/
  prove NAME… [ARGS…]      run long proofs; without a name: list them

Each command runs `setup` first, which returns at once if nothing is missing.";

/// Wrong arguments: exit status 2 instead of 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

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
        "dist" => dist::command(&root, rest),
        "prove" => prove::command(&root, rest),
        _ => Err(Usage(format!("unknown command {command:?}\n\n{USAGE}")).into()),
    }
}

#[expect(clippy::print_stdout, reason = "requested help is a result")]
fn print_usage() {
    println!("{USAGE}");
}
