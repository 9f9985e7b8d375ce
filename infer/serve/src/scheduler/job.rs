//! A picture on its way through an engine: what was asked, how far it is, and who waits for it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use super::{JobResult, PredictRequest};
use protoseg_infer::segmenter::{TileGrid, TileMerger};
use protoseg_infer::{Stage, StageTimes};

/// A picture on its way.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: PredictRequest,
    /// None where the model takes it at once.
    pub(super) cut: Option<TileGrid>,
    pub(super) submitted: Instant,
    pub(super) reply: Mutex<Option<oneshot::Sender<JobResult>>>,
    pub(super) progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) mosaic: Option<TileMerger>,
    pub(super) times: StageTimes,
    pub(super) begun: bool,
}

impl Job {
    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody waits for it, or it has failed already.
    pub(super) fn is_gone(&self) -> bool {
        let reply = self.reply.lock().unwrap_or_else(PoisonError::into_inner);
        reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    pub(super) fn begin(&self, now: Instant) {
        let mut progress = self.progress();
        if !progress.begun {
            progress.begun = true;
            progress.times[Stage::Queue] = now.saturating_duration_since(self.submitted);
        }
    }

    pub(super) fn pixels(&self) -> u64 {
        u64::from(self.request.image.width()) * u64::from(self.request.image.height())
    }
}
