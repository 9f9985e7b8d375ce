//! Programs that start each other: `protoseg train` is `protoseg-train`, and `protoseg-export` has
//! its bundles checked by `protoseg check`.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum SiblingError {
    #[error(
        "{program} is neither beside this program nor on PATH; build it with `cargo build --release --package {package}`, or \
         use a container image that holds it"
    )]
    Missing { program: String, package: String },
    #[error(
        "{} cannot start without {libraries}: put the libraries (those of libtorch 2.11.0 for protoseg-train) into {}, or name \
         their folder in LD_LIBRARY_PATH", program.display(), place.display()
    )]
    Libraries { program: PathBuf, libraries: String, place: PathBuf },
    #[error("{}: {source}", program.display())]
    Start { program: PathBuf, source: io::Error },
}

/// Replaces this process with a program and its arguments.
pub fn exec(name: &str, arguments: &[OsString]) -> Result<Infallible, SiblingError> {
    let mut command = command(name)?;
    let program = PathBuf::from(command.get_program());
    let libraries = missing_libraries(&program);
    if !libraries.is_empty() {
        let folder = program.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
        let (libraries, place) = (libraries.join(", "), folder.join("lib"));
        return Err(SiblingError::Libraries { program, libraries, place });
    }
    command.args(arguments);
    become_program(command).map_err(|source| SiblingError::Start { program, source })
}

/// A program without arguments, from the folder of this program or from PATH.
pub fn command(name: &str) -> Result<Command, SiblingError> {
    let program = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let Some(path) = find(&program) else {
        let package = if name == "protoseg" { "protoseg-cli" } else { name };
        return Err(SiblingError::Missing { program, package: package.to_owned() });
    };
    Ok(Command::new(path))
}

fn find(program: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(program)));
    let search = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&search).map(|folder| folder.join(program));
    beside.into_iter().chain(on_path).find(|path| path.is_file())
}

/// Libraries that the loader would not find. It lists them instead of starting the program, whose
/// own message would not say where to put them; other loaders than glibc's are not asked.
fn missing_libraries(program: &Path) -> Vec<String> {
    if cfg!(not(all(target_os = "linux", target_env = "gnu"))) {
        return Vec::new();
    }
    let mut command = Command::new(program);
    let listed = command.env("LD_TRACE_LOADED_OBJECTS", "1").stdin(Stdio::null()).output();
    let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let listed = listed.unwrap_or_default();
    let missing = listed.lines().filter_map(|line| line.trim().strip_suffix("=> not found"));
    missing.map(|name| name.trim().to_owned()).collect()
}

#[cfg(unix)]
fn become_program(mut command: Command) -> io::Result<Infallible> {
    Err(std::os::unix::process::CommandExt::exec(&mut command))
}

#[cfg(not(unix))]
fn become_program(mut command: Command) -> io::Result<Infallible> {
    let status = command.status()?;
    std::process::exit(status.code().unwrap_or(1))
}
