//! `cargo xtask demo`: from a fresh clone to a trained, exported and running model, each step timed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::steps::Steps;
use crate::{Usage, run, setup};

/// `cargo xtask demo [--data DIR]`.
pub(crate) fn command(root: &Path, arguments: &[String]) -> Result<()> {
    let data = match arguments {
        [] => None,
        [option, folder] if option == "--data" => Some(std::path::absolute(folder)?),
        _ => return Err(Usage(format!("demo takes --data DIR or nothing, not {arguments:?}")).into()),
    };
    let mut demo = Demo { root, data, steps: Steps::default() };
    let outcome = demo.run();
    eprint!("\n{}", demo.steps.table());
    outcome
}

struct Demo<'a> {
    root: &'a Path,
    /// Where the data sets lie; the programs are told by `PROTOSEG_DATA`.
    data: Option<PathBuf>,
    steps: Steps,
}

impl Demo<'_> {
    fn run(&mut self) -> Result<()> {
        self.steps.run("setup", || setup::ensure_runtimes(self.root))?;
        self.steps.run("build the programs", || run::build_programs(self.root))
    }

    /// Runs a program of the workspace as one step.
    #[expect(dead_code, reason = "the programs are not there yet")]
    fn step(&mut self, title: &str, program: &str, arguments: &[OsString]) -> Result<()> {
        let mut command = run::program(self.root, program)?;
        command.args(arguments);
        if let Some(data) = &self.data {
            command.env("PROTOSEG_DATA", data);
        }
        self.steps.run(title, || run::execute(&mut command))
    }
}
