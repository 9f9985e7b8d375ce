//! `run.json`: versions, command line, device and threads of a run.

use std::path::Path;

use anyhow::Result;
use protoseg_models::atomic;
use serde::Serialize;
use tch::Device;

/// Version of libtorch, which torch-sys checks at build time.
pub(crate) const LIBTORCH: &str = "2.11.0";

#[derive(Serialize)]
struct Provenance {
    protoseg: &'static str,
    libtorch: &'static str,
    command: Vec<String>,
    device: String,
    threads: i32,
}

/// Writes `run.json` into a run's folder.
pub fn write(folder: &Path, device: Device) -> Result<()> {
    let provenance = Provenance {
        protoseg: env!("CARGO_PKG_VERSION"),
        libtorch: LIBTORCH,
        command: std::env::args_os()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect(),
        device: format!("{device:?}"),
        threads: tch::get_num_threads(),
    };
    Ok(atomic::write(&folder.join("run.json"), &serde_json::to_vec_pretty(&provenance)?)?)
}
