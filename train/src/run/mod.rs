//! A training run: loop, scores, files, resuming.

use std::path::PathBuf;

use protoseg_models::errors::error_chain;
use protoseg_models::metrics::Metrics;
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::run::stop::{StopMonitor, StopReason};

pub mod ablate;
pub mod checkpoint;
pub mod distill;
pub mod environment;
mod finish;
pub mod fit;
mod folder;
pub mod init;
pub mod log;
pub mod memory;
pub mod plan;
pub mod provenance;
pub mod recalibrate;
pub mod rehearsal;
pub mod sample_images;
pub mod scoring;
pub mod state;
pub mod stop;
pub mod tensorboard;
pub mod warmup_end;

/// Options of a run beside its configuration.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Folder of everything that the run writes.
    pub out: PathBuf,
    /// Folder that remembers the listed files that have been read: `out`, or that of the grid.
    pub census: PathBuf,
    /// Continues from `out/state`.
    pub resume: bool,
    /// Continues though listed files have changed.
    pub accept_changes: bool,
    /// Step after which to save and stop; the schedule stays that of the whole run.
    pub stop_after: Option<u64>,
    /// Checkpoint folder of the initial weights.
    pub init_from: Option<PathBuf>,
    /// Ends once every listed file has been read and the plan is printed.
    pub dry_run: bool,
    pub device: Device,
    /// Threads that make batches.
    pub loader_threads: usize,
    pub monitor: StopMonitor,
}

/// An error before the first step, after which nothing is begun; exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{}", error_chain(.0.as_ref()))]
pub struct NothingBegun(pub anyhow::Error);

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum RunOutcome {
    /// After its last step, with the scores on all lists, the teacher's first.
    Finished(Vec<Score>),
    /// Before its first step (`dry_run`).
    Planned,
    /// Earlier, with its state saved.
    Stopped(StopReason),
}

/// Metrics of one predictor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// `teacher`, `student` or `prototype head`.
    pub which: String,
    pub metrics: Metrics,
}
