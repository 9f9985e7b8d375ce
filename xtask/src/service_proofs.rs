//! `cargo xtask prove openapi` and `prove page`: others' programs talk to `protoseg serve`.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::python::Python;
use crate::{run, setup};

/// A bundle of a kilobyte that tells colours apart.
const BUNDLE: &str = "infer/tests/fixtures/colors";

/// Names the browser where it is not called `chromium`.
const BROWSER: &str = "PROTOSEG_CHROMIUM";

/// The description is valid, and schemathesis finds no answer that it does not know.
pub(crate) fn openapi(root: &Path, arguments: &[String]) -> Result<()> {
    let packages = ["openapi-spec-validator==0.9.0", "schemathesis==4.32.5"];
    talk(root, "python-openapi", &packages, "test_openapi.py", arguments)
        .context("the service and its description differ, or one of them is wrong")
}

/// The page does in a browser what it is there for.
pub(crate) fn page(root: &Path, arguments: &[String]) -> Result<()> {
    ensure!(arguments.is_empty(), "the proof `page` takes no arguments");
    let browser = std::env::var(BROWSER).unwrap_or_else(|_| "chromium".to_owned());
    let found = std::process::Command::new(&browser).arg("--version").output();
    ensure!(
        found.is_ok_and(|output| output.status.success()),
        "there is no {browser}: `apt-get install chromium` provides it, or name another Chromium by {BROWSER}"
    );
    let packages = ["playwright==1.65.2", "pillow"];
    talk(root, "python-page", &packages, "test_page.py", &[browser])
        .context("the page does not do what it should")
}

/// Runs a script of `tests/` with the program, the bundle, and what else it takes.
fn talk(
    root: &Path,
    folder: &str,
    packages: &[&str],
    script: &str,
    arguments: &[String],
) -> Result<()> {
    run::build_programs(root)?;
    let python = Python::find()?;
    let packages = setup::ensure_python_packages_in(root, folder, &python, packages)?;
    let mut command = python.command();
    // Bytecode written into the folder would not agree with its stamp.
    command.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(root);
    command.env("ORT_DYLIB_PATH", root.join(".runtime/onnxruntime/libonnxruntime.so"));
    command
        .arg(root.join("tests/external").join(script))
        .arg(run::programs()?.join("protoseg"))
        .arg(root.join(BUNDLE));
    run::execute(command.args(arguments))
}
