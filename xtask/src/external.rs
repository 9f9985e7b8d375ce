//! Python environments of `tests/external/requirements/`, and pytest on `tests/external/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::python::Python;
use crate::{run, setup};

/// Requirements with PyTorch and the libraries of models that build on it.
pub(crate) const MODELS: &str = "models";

/// Variable that names a Python with the packages of `requirements/torch.txt` or, for that proof, of
/// `requirements/models.txt` (3 GB each).
const TORCH_PYTHON: &str = "PROTOSEG_TORCH_PYTHON";

/// Installs the packages of `requirements/NAME.txt` below `.runtime/` and returns their folder.
pub(crate) fn packages(root: &Path, python: &Python, name: &str) -> Result<PathBuf> {
    let list = root.join(format!("tests/external/requirements/{name}.txt"));
    let text = std::fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    let requirements: Vec<&str> = text.lines().collect();
    setup::ensure_python_packages(root, &format!("python-{name}"), python, &requirements)
}

/// Python with the packages of a requirements file.
pub(crate) fn python(root: &Path, name: &str) -> Result<Command> {
    let python = Python::find()?;
    let mut command = python.command();
    command.env("PYTHONPATH", packages(root, &python, name)?);
    Ok(prepare(root, command))
}

/// Python with PyTorch.
pub(crate) fn torch_python(root: &Path) -> Result<Command> {
    named_python(root).map_or_else(|| python(root, "torch"), Ok)
}

/// The Python that the environment names.
fn named_python(root: &Path) -> Option<Command> {
    let mut command = Command::new(std::env::var_os(TORCH_PYTHON)?);
    command.env_remove("LD_LIBRARY_PATH");
    Some(prepare(root, command))
}

fn prepare(root: &Path, mut command: Command) -> Command {
    command.current_dir(root);
    // Bytecode in the folder of packages would contradict its stamp.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        command.env("ORT_DYLIB_PATH", root.join(".runtime/onnxruntime/libonnxruntime.so"));
    }
    command
}

/// Runs pytest on files of `tests/external/` with the packages of a requirements file. A single
/// argument that is a folder is the bundle; other arguments go to pytest.
pub(crate) fn pytest(
    root: &Path,
    requirements: &str,
    selection: &[&str],
    arguments: &[String],
) -> Result<()> {
    let named = (requirements == MODELS).then(|| named_python(root)).flatten();
    let mut command = named.map_or_else(|| python(root, requirements), Ok)?;
    command.args([
        "-m",
        "pytest",
        "-c",
        "tests/external/pytest.ini",
        "--rootdir",
        "tests/external",
    ]);
    command.arg("--programs").arg(run::programs()?);
    let (files, options): (Vec<&str>, Vec<&str>) =
        selection.iter().partition(|word| word.ends_with(".py"));
    command.args(files.iter().map(|file| format!("tests/external/{file}"))).args(options);
    match arguments {
        [bundle] if Path::new(bundle).is_dir() => command.arg("--bundle").arg(bundle),
        others => command.args(others),
    };
    run::execute(&mut command)
}

/// Builds the book in `docs/` into `target/book`.
pub(crate) fn book(root: &Path) -> Result<()> {
    let mdbook = packages(root, &Python::find()?, "docs")?.join("bin/mdbook");
    run::execute(Command::new(mdbook).args(["build", "docs"]).current_dir(root))
}
