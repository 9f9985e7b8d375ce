//! Opens sessions.

use std::num::NonZeroUsize;
use std::path::Path;

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use super::engines::{EngineCache, ModelSource};
use super::library::environment;
use super::{SessionError, failure, gpu_lock, provider};
use crate::config::{Device, EngineConfig};
use crate::machine::cores;

/// Opens a session; `path` is for messages where it is not what is opened.
pub(super) fn commit(
    path: &Path,
    config: &EngineConfig,
    source: ModelSource<'_>,
) -> Result<Session, SessionError> {
    commit_with(path, config, source, None)
}

/// The same, where the session may record what it does, in a file whose name begins with `record`.
pub(super) fn commit_with(
    path: &Path,
    config: &EngineConfig,
    source: ModelSource<'_>,
    record: Option<&Path>,
) -> Result<Session, SessionError> {
    let environment = environment()?;
    let device = config.first_device();
    let failed = |source: ort::Error| failure::open_error(path, device, &source);
    // TensorRT builds engines here where the file leaves no size open.
    gpu_lock::with_gpu(device, matches!(device, Device::TensorRt(_)), || {
        let engines = EngineCache::open(source, path, config)?;
        let mut builder = builder(environment, config).map_err(failed)?;
        if let Some(record) = record {
            builder = builder.with_profiling(record).map_err(|error| failed(error.into()))?;
        }
        let builder = provider::place(builder, config, engines)?;
        source.commit(path, builder).map_err(failed)
    })
}

fn builder(environment: &Environment, config: &EngineConfig) -> ort::Result<SessionBuilder> {
    let threads = config.threads.map_or_else(cores, NonZeroUsize::get);
    let level = if config.unoptimized {
        GraphOptimizationLevel::Disable
    } else {
        GraphOptimizationLevel::All
    };
    // Spinning threads take the cores from decoding and stitching; memory patterns pay only where sizes repeat.
    Ok(Session::builder(environment)?
        .with_optimization_level(level)?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(config.spin)?
        .with_inter_op_spinning(false)?
        .with_memory_pattern(false)?)
}
