//! Runs cargo and the workspace's programs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The variables of `.cargo/config.toml` and the paths in `.runtime/` they name.
const RUNTIME_VARIABLES: [(&str, &str); 2] = [
    ("LIBTORCH", ".runtime/libtorch"),
    ("ORT_DYLIB_PATH", ".runtime/onnxruntime/libonnxruntime.so"),
];

/// The repository.
pub(crate) fn root() -> Result<PathBuf> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(package.parent().context("xtask lies in no repository")?.to_owned())
}

/// The folder of the built programs, this one among them.
pub(crate) fn programs() -> Result<PathBuf> {
    let this = std::env::current_exe().context("finding xtask's own program")?;
    Ok(this.parent().context("xtask's own program lies in no folder")?.to_owned())
}

/// `cargo SUBCOMMAND --release --workspace`: always both, so that one build of torch-sys serves every call.
pub(crate) fn cargo(root: &Path, subcommand: &str) -> Command {
    let mut command = bare_cargo(root);
    command.args([subcommand, "--release", "--workspace"]);
    command
}

/// cargo as a user would call it: without what the cargo that runs xtask has put into the environment, as that could
/// make build scripts run again. `LD_LIBRARY_PATH` goes too: programs must find their libraries without it.
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

/// Builds every program. The one small test keeps the features of common dependencies as `cargo test` has them (cargo
/// joins those of dev-dependencies only where a test is asked for), so that nothing is compiled twice.
pub(crate) fn build_programs(root: &Path) -> Result<()> {
    execute(cargo(root, "build").args(["--bins", "--test", "layering"]))
}

/// A program of the workspace, run in the repository.
pub(crate) fn program(root: &Path, name: &str) -> Result<Command> {
    let mut command = Command::new(programs()?.join(name));
    command.current_dir(root).env_remove("LD_LIBRARY_PATH");
    for (variable, path) in RUNTIME_VARIABLES {
        if std::env::var_os(variable).is_none() {
            command.env(variable, root.join(path));
        }
    }
    Ok(command)
}

/// Shows the command, runs it, and makes a failure of it an error.
pub(crate) fn execute(command: &mut Command) -> Result<()> {
    let line = line(command);
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("`{line}` could not be started"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// The command as one would type it.
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
