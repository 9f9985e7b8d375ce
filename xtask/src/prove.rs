//! `cargo xtask prove`: proofs that take too long or need too much for the CI, each under a name.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::python::Python;
use crate::steps::Steps;
use crate::{Usage, run, setup};

struct Proof {
    name: &'static str,
    about: &'static str,
    /// Takes the repository and the arguments after the names.
    run: fn(&Path, &[String]) -> Result<()>,
}

const PROOFS: &[Proof] = &[
    Proof {
        name: "tests", about: "every test, with real data required: nothing is skipped [ARGS…]", run: prove_tests
    },
    Proof {
        name: "onnx-checker",
        about: "the ONNX project's own checker accepts the files, shape inference included FILES…",
        run: check_onnx,
    },
];

/// `cargo xtask prove NAME… [ARGS…]`: the leading words that are names, or `all`, say which; each gets the rest.
pub(crate) fn command(root: &Path, arguments: &[String]) -> Result<()> {
    let Some(first) = arguments.first() else {
        print_list();
        return Ok(());
    };
    let (chosen, rest) = if first == "all" { (PROOFS.iter().collect(), &arguments[1..]) } else { select(arguments) };
    if chosen.is_empty() {
        return Err(Usage(format!("there is no proof {first:?}\n\n{}", list())).into());
    }
    setup::ensure_runtimes(root)?;
    let mut steps = Steps::default();
    let outcome = chosen.iter().try_for_each(|proof| steps.run(proof.name, || (proof.run)(root, rest)));
    eprint!("\n{}", steps.table());
    outcome
}

/// The proofs named by the leading words, and the words after them.
fn select(arguments: &[String]) -> (Vec<&'static Proof>, &[String]) {
    let find = |word: &String| PROOFS.iter().find(|proof| proof.name == word);
    let chosen: Vec<_> = arguments.iter().map_while(find).collect();
    let rest = &arguments[chosen.len()..];
    (chosen, rest)
}

fn list() -> String {
    let width = PROOFS.iter().map(|proof| proof.name.len()).max().unwrap_or(0);
    let lines: Vec<_> = PROOFS.iter().map(|proof| format!("  {:width$}  {}", proof.name, proof.about)).collect();
    format!("Proofs (or `all`):\n{}", lines.join("\n"))
}

#[expect(clippy::print_stdout, reason = "the list is a result")]
fn print_list() {
    println!("{}", list());
}

fn prove_tests(root: &Path, arguments: &[String]) -> Result<()> {
    run::build_programs(root)?;
    run::execute(run::cargo(root, "test").args(arguments).env("PROTOSEG_REQUIRE_DATA", "1"))
}

const CHECK_ONNX: &str = "
import sys
import onnx

failed = False
for path in sys.argv[1:]:
    try:
        onnx.checker.check_model(path, full_check=True)
        print(f'{path}: accepted by onnx {onnx.__version__}')
    except Exception as error:
        failed = True
        print(f'{path}: {error}')
sys.exit(failed)
";

fn check_onnx(root: &Path, files: &[String]) -> Result<()> {
    ensure!(!files.is_empty(), "name the ONNX files to check");
    let python = Python::find()?;
    let packages = setup::ensure_python_packages(root, &python, &["onnx==1.23.2", "numpy"])?;
    let mut command = python.command();
    // Bytecode written into the folder would not agree with its stamp.
    command.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1").args(["-c", CHECK_ONNX]).args(files);
    let status = command.status()?;
    ensure!(status.success(), "the checker refuses some of the files ({status})");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_names_select_proofs_and_the_rest_is_theirs() {
        let words: Vec<String> = ["onnx-checker", "tests", "a.onnx", "tests"].map(str::to_owned).to_vec();
        let (chosen, rest) = select(&words);
        assert_eq!(chosen.iter().map(|proof| proof.name).collect::<Vec<_>>(), ["onnx-checker", "tests"]);
        assert_eq!(rest, ["a.onnx", "tests"]);
        assert!(select(&words[2..]).0.is_empty());
    }
}
