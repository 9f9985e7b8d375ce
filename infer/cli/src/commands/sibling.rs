//! Sibling programs: `protoseg train` starts `protoseg-train`.

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, anyhow};

/// Replaces this process with `protoseg-NAME` and its arguments.
pub(crate) fn exec(name: &str, arguments: &[OsString]) -> anyhow::Result<Infallible> {
    let mut command = command(name)?;
    let path = PathBuf::from(command.get_program());
    command.args(arguments);
    become_program(command).with_context(|| path.display().to_string())
}

/// `protoseg-NAME` without arguments, from the folder of this program or from PATH.
pub(super) fn command(name: &str) -> anyhow::Result<Command> {
    let program = format!("protoseg-{name}{}", std::env::consts::EXE_SUFFIX);
    let path = find(&program).ok_or_else(|| {
        anyhow!(
            "{program} is neither beside this program nor on PATH; build it with `cargo build --release --package \
             protoseg-{name}`, or use a container image that holds it"
        )
    })?;
    Ok(Command::new(path))
}

fn find(program: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(program)));
    let search = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&search).map(|folder| folder.join(program));
    beside.into_iter().chain(on_path).find(|path| path.is_file())
}

#[cfg(unix)]
fn become_program(mut command: Command) -> std::io::Result<Infallible> {
    Err(std::os::unix::process::CommandExt::exec(&mut command))
}

#[cfg(not(unix))]
fn become_program(mut command: Command) -> std::io::Result<Infallible> {
    let status = command.status()?;
    std::process::exit(status.code().unwrap_or(1))
}
