//! The library of ONNX Runtime: where it is found, and the one environment that a process has of it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;

use super::{LIBRARY_VARIABLE, SessionError};

/// The environment of this process. ONNX Runtime allows one, and it must outlive every session.
pub(super) fn environment() -> Result<&'static Environment, SessionError> {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = ENVIRONMENT.get() {
        return Ok(environment);
    }
    let environment = load(&library()?)?;
    Ok(ENVIRONMENT.get_or_init(|| environment))
}

/// Where ONNX Runtime's library is: what the environment variable names, else beside the program or in `../lib`, else a
/// bare name, which the system's loader looks up.
fn library() -> Result<PathBuf, SessionError> {
    let name = format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    if let Some(named) = std::env::var_os(LIBRARY_VARIABLE).filter(|named| !named.is_empty()) {
        let path = std::path::absolute(&named).unwrap_or_else(|_| named.into());
        return if path.exists() { Ok(path) } else { Err(SessionError::Missing(path)) };
    }
    // `ort` asks for the program's path too, and panics where the system does not tell it.
    let Ok(program) = std::env::current_exe() else { return Err(SessionError::Nowhere { name }) };
    let folder = program.parent().unwrap_or(Path::new("/"));
    let near = [folder.join(&name), folder.join("../lib").join(&name)];
    Ok(near.into_iter().find(|path| path.exists()).unwrap_or_else(|| name.into()))
}

fn load(path: &Path) -> Result<Environment, SessionError> {
    use ort::LoadDynamicError as Load;

    let foreign = |reason: String| SessionError::Foreign { path: path.into(), reason };
    let builder = ort::init_from(path).map_err(|error| match error {
        Load::Dlopen { .. } if path.is_relative() => SessionError::Nowhere { name: path.display().to_string() },
        Load::Dlopen { error, .. } => foreign(error.to_string()),
        Load::BadVersion { version_str: version, .. } => SessionError::Old { path: path.into(), version },
        error @ (Load::MissingApi { .. } | Load::InvalidVersionString) => foreign(error.to_string()),
    })?;
    let environment = builder.with_name("protoseg").with_telemetry(false).build().map_err(SessionError::Start)?;
    // What goes wrong comes back as an error too; ONNX Runtime's own lines would stand beside ours.
    environment.set_log_level(LogLevel::Fatal);
    Ok(environment)
}
