//! `cargo xtask test`: builds the programs, runs every test, and lists the skipped checks.
//!
//! A check without the real data it needs appends a line, `NAME: MISSING DATA`, to the file
//! `PROTOSEG_SKIPPED` and passes; with `PROTOSEG_REQUIRE_DATA=1` it fails instead.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::python::Python;
use crate::steps::Steps;
use crate::{external, run, setup};

/// `cargo xtask test [ARGS…]`.
pub(crate) fn command(root: &Path, arguments: &[String]) -> Result<()> {
    setup::ensure_runtimes(root)?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run(root, &arguments, &mut Steps::default())
}

/// Builds, passes `arguments` to `cargo test`, and lists the skipped checks even if a test fails.
#[expect(clippy::print_stdout, reason = "the skipped checks are a result")]
pub(crate) fn run(root: &Path, arguments: &[&str], steps: &mut Steps) -> Result<()> {
    steps.run("build the programs", || run::build_programs(root))?;
    let list = run::programs()?.join(format!("skipped-{}.txt", std::process::id()));
    fs::write(&list, "").with_context(|| format!("writing {}", list.display()))?;
    let own = steps.run("test", || {
        let python = Python::find()?;
        let packages = external::packages(root, &python, "common")?;
        let mut tests = run::cargo(root, "test");
        // A failure must not hide those of later test programs.
        if !arguments.contains(&"--no-fail-fast") {
            tests.arg("--no-fail-fast");
        }
        tests.args(arguments).env("PROTOSEG_SKIPPED", &list);
        // Bytecode in the folder of packages would contradict its stamp.
        tests
            .env("PROTOSEG_PYTHON", "python3")
            .env("PYTHONPATH", packages)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        run::execute(&mut tests)
    });
    // Arguments select Rust tests; external ones are selected by `cargo xtask prove`.
    let external = if arguments.is_empty() {
        let common = [
            "test_onnx_files.py",
            "test_annotation_formats.py",
            "test_conversions.py",
            "-m",
            "common",
        ];
        steps.run("external tests", || external::pytest(root, "common", &common, &[]))
    } else {
        Ok(())
    };
    let skipped =
        fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
    fs::remove_file(&list).with_context(|| format!("removing {}", list.display()))?;
    print!("\n{}", describe(&skipped));
    own.and(external)
}

/// Formats the list of skipped checks from the lines of `PROTOSEG_SKIPPED`.
fn describe(lines: &str) -> String {
    let skipped: BTreeSet<&str> = lines.lines().filter(|line| !line.trim().is_empty()).collect();
    let head = match skipped.len() {
        0 => return "No check was skipped.\n".to_owned(),
        1 => "1 check was skipped for lack of real data:\n".to_owned(),
        count => format!("{count} checks were skipped for lack of real data:\n"),
    };
    skipped.iter().fold(head, |mut text, line| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {line}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_each_skipped_check_once() {
        assert_eq!(describe(""), "No check was skipped.\n");
        assert_eq!(describe("b: x\n"), "1 check was skipped for lack of real data:\n  b: x\n");
        assert_eq!(
            describe("b: x\na: CamVid\nb: x\n"),
            "2 checks were skipped for lack of real data:\n  a: CamVid\n  b: x\n"
        );
    }
}
