//! The library of ONNX Runtime: where it is found, and the one environment that a process has of it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use protoseg_models::errors::error_chain;

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
    let name =
        format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    if let Some(named) = std::env::var_os(LIBRARY_VARIABLE).filter(|named| !named.is_empty()) {
        let path = std::path::absolute(&named).unwrap_or_else(|_| named.into());
        return if path.exists() { Ok(path) } else { Err(SessionError::Missing(path)) };
    }
    // `ort` asks for the program's path too, and panics where the system does not tell it.
    let Ok(program) = std::env::current_exe() else {
        return Err(SessionError::Nowhere {
            name,
            reason: "the program does not know where it lies".to_owned(),
        });
    };
    let folder = program.parent().unwrap_or(Path::new("/"));
    let near = [folder.join(&name), folder.join("../lib").join(&name)];
    Ok(near.into_iter().find(|path| path.exists()).unwrap_or_else(|| name.into()))
}

fn load(path: &Path) -> Result<Environment, SessionError> {
    use ort::LoadDynamicError as Load;

    let foreign = |reason: String| SessionError::NotOnnxRuntime { path: path.into(), reason };
    if is_cut_short(path) {
        return Err(foreign("the file is cut short".to_owned()));
    }
    let builder = ort::init_from(path).map_err(|error| match error {
        Load::Dlopen { error, .. } if path.is_relative() => {
            SessionError::Nowhere { name: path.display().to_string(), reason: error_chain(&error) }
        }
        Load::Dlopen { error, .. } => foreign(error_chain(&error)),
        Load::BadVersion { version_str: version, .. } => {
            SessionError::Old { path: path.into(), version }
        }
        error @ (Load::MissingApi { .. } | Load::InvalidVersionString) => {
            foreign(error.to_string())
        }
    })?;
    let environment =
        builder.with_name("protoseg").with_telemetry(false).build().map_err(SessionError::Start)?;
    // What goes wrong comes back as an error too; ONNX Runtime's own lines would stand beside ours.
    environment.set_log_level(LogLevel::Fatal);
    Ok(environment)
}

/// Whether a 64-bit ELF file ends before the table of its sections, its last part, does: the loader maps it all the same, and
/// the process is killed by SIGBUS once it touches what is not there.
fn is_cut_short(path: &Path) -> bool {
    let mut header = [0; 64];
    let read = File::open(path).and_then(|mut file| {
        file.read_exact(&mut header)?;
        Ok(file.metadata()?.len())
    });
    let Ok(length) = read else { return false };
    let number = |place: usize, bytes: usize| {
        header[place..][..bytes]
            .iter()
            .rev()
            .fold(0_u64, |number, &byte| number << 8 | u64::from(byte))
    };
    let [start, size, count] =
        [(0x28, 8), (0x3A, 2), (0x3C, 2)].map(|(place, bytes)| number(place, bytes));
    header.starts_with(b"\x7FELF\x02\x01") && start.saturating_add(size * count) > length
}
