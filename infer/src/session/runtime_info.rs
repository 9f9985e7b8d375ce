//! What ONNX Runtime there is, and whether a device works with it.

use std::path::{Path, PathBuf};

use ort::session::SessionInputValue;
use ort::value::TensorRef;
use serde::{Deserialize, Serialize};

use super::engines::ModelSource;
use super::library::environment;
use super::{SessionError, commit, failure, provider, run_session};
use crate::config::{Device, EngineConfig};

/// An ONNX file by itself: y = Relu(x), of two 32-bit floats.
const RELU: &[u8] =
    b"\x08\x08:3\n\x0c\n\x01x\x12\x01y\"\x04Relu\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02b\x0f\n\
\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02B\x02\x10\x11";

/// The ONNX Runtime that this process has loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// Its file; none where the system does not say.
    pub path: Option<PathBuf>,
    /// What it says of itself: its release, commit and kind of build.
    pub build: String,
}

/// Loads ONNX Runtime, if that has not happened yet, and says which it is.
pub fn runtime() -> Result<Runtime, SessionError> {
    environment()?;
    let build = ort::info();
    // What follows are the flags of its compiler, hundreds of them.
    let build = build.split(", cmake").next().unwrap_or(build);
    let build = build.trim_start_matches("ORT Build Info: ").to_owned();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut files = maps.lines().filter_map(|line| Some(Path::new(&line[line.find('/')?..])));
    let ours = |path: &&Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so"))
    };
    Ok(Runtime { path: files.find(ours).map(Path::to_owned), build })
}

impl Device {
    /// Whether ONNX Runtime can be loaded and was built with what runs on this device, which does not mean that it can here.
    pub fn is_built_in(self) -> bool {
        environment().is_ok() && provider::is_built_in(self)
    }

    /// Runs a network of one operation on this device: whether its libraries load and it answers.
    pub fn check(self) -> Result<(), SessionError> {
        let name = Path::new("a trial of one operation");
        let mut session = commit(name, &EngineConfig::on(self), ModelSource::Bytes(RELU))?;
        let values = [-1.0_f32, 2.0];
        let mut run = || {
            let input =
                SessionInputValue::from(TensorRef::from_array_view(([2_usize], &values[..]))?);
            run_session(&mut session, input, &["y"], |outputs| {
                Ok(outputs[0].try_extract_tensor::<f32>()?.1.to_vec())
            })
        };
        let found = run().map_err(|source| failure::run_error(name, self, &source))?;
        if found == [0.0, 2.0] {
            return Ok(());
        }
        let reason = format!("it counts wrongly: {found:?} where [0.0, 2.0] was expected");
        Err(SessionError::Device {
            device: self,
            reason,
            help: "look for a newer driver".to_owned(),
        })
    }
}
