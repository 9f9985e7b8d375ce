//! Calls of cargo and of the programs of the workspace.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Variables of `.cargo/config.toml` and their paths.
const RUNTIME_VARIABLES: [(&str, &str); 2] = [
    ("LIBTORCH", ".runtime/libtorch"),
    ("ORT_DYLIB_PATH", ".runtime/onnxruntime/libonnxruntime.so"),
];

/// Returns the root of the repository.
pub(crate) fn root() -> Result<PathBuf> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(package.parent().context("xtask is outside the repository")?.to_owned())
}

/// Returns the folder of the built programs, including xtask.
pub(crate) fn programs() -> Result<PathBuf> {
    let this = std::env::current_exe().context("finding the program of xtask")?;
    Ok(this.parent().context("the program of xtask has no parent folder")?.to_owned())
}

/// `cargo SUBCOMMAND --release --workspace`: always both, so that one build of torch-sys serves
/// every call.
pub(crate) fn cargo(root: &Path, subcommand: &str) -> Command {
    let mut command = bare_cargo(root);
    command.args([subcommand, "--release", "--workspace"]);
    command
}

/// cargo without the variables that the outer cargo has set, which could make build scripts run
/// again, and without `LD_LIBRARY_PATH`: programs must find their libraries without it.
pub(crate) fn bare_cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).env_remove("LD_LIBRARY_PATH");
    for (name, _) in std::env::vars_os() {
        let set_by_cargo = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        if set_by_cargo.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    for (variable, path) in RUNTIME_VARIABLES {
        if std::env::var_os(variable).is_some_and(|value| value == root.join(path)) {
            command.env_remove(variable);
        }
    }
    command
}

/// Builds every program, and one small test without further dependencies: with it, common ones get
/// the features that `cargo test` gives them, so that nothing is compiled twice.
pub(crate) fn build_programs(root: &Path) -> Result<()> {
    execute(cargo(root, "build").args(["--bins", "--test", "fingerprint"]))
}

/// A program of the workspace with the root as its working directory.
pub(crate) fn program(root: &Path, name: &str) -> Result<Command> {
    let mut command = Command::new(programs()?.join(name));
    command.current_dir(root).env_remove("LD_LIBRARY_PATH");
    for (variable, _) in RUNTIME_VARIABLES {
        command.env(variable, runtime(root, variable));
    }
    Ok(command)
}

/// Returns the path that a variable of `.cargo/config.toml` has, or would have.
pub(crate) fn runtime(root: &Path, variable: &str) -> PathBuf {
    let own = std::env::var_os(variable).map(PathBuf::from);
    let path = RUNTIME_VARIABLES.iter().find(|(name, _)| *name == variable).map(|(_, path)| path);
    own.unwrap_or_else(|| root.join(path.unwrap_or(&"")))
}

/// Prints and runs a command; a status other than 0 is an error.
pub(crate) fn execute(command: &mut Command) -> Result<()> {
    let line = line(command);
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("`{line}` could not be started"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Formats a command as one would type it.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words: Vec<_> =
        std::iter::once(program).chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_called_for_the_whole_workspace_without_a_library_path() {
        let command = cargo(Path::new("/"), "clippy");
        assert!(line(&command).ends_with(" clippy --release --workspace"), "{}", line(&command));
        assert!(
            command.get_envs().any(|(name, value)| name == "LD_LIBRARY_PATH" && value.is_none())
        );
    }

    #[test]
    fn a_failure_names_the_command() {
        let error = execute(&mut Command::new("false")).unwrap_err().to_string();
        assert_eq!(error, "`false` failed (exit status: 1)");
    }
}
