//! What a segmenter's time is spent on.

use std::time::{Duration, Instant};

use crate::session::{Runner, TransferTimes};

/// Time spent since a [`Segmenter`](super::Segmenter) was opened. No moment is counted twice but that `upload` and `download`
/// are parts of `run`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Cutting windows out of pictures, padding pictures, and turning them into what an adopted file takes.
    pub prepare: Duration,
    /// In the network, with what brings pictures to it and answers back: upload, [compute](Self::compute), download.
    pub run: Duration,
    /// Bringing pictures to where the network reads them, as far as [`TransferTimes::upload`] tells.
    pub upload: Duration,
    /// Copying what came of the network, as far as [`TransferTimes::download`] tells.
    pub download: Duration,
    /// Putting windows together, and in [`Segmenter::predict`](super::Segmenter::predict) upsampling.
    pub stitch: Duration,
}

impl StageTimes {
    /// In the network alone.
    pub fn compute(self) -> Duration {
        self.run.saturating_sub(self.upload).saturating_sub(self.download)
    }

    /// What was spent since an earlier time.
    pub fn since(self, before: Self) -> Self {
        Self {
            prepare: self.prepare - before.prepare,
            run: self.run - before.run,
            upload: self.upload - before.upload,
            download: self.download - before.download,
            stitch: self.stitch - before.stitch,
        }
    }

    /// Runs something, and counts where its time goes.
    pub(super) fn run<R>(&mut self, runner: &mut Runner, work: impl FnOnce(&mut Runner) -> R) -> R {
        let (start, before) = (Instant::now(), runner.transfer_times());
        let result = work(runner);
        let TransferTimes { prepare, upload, download } = runner.transfer_times() - before;
        self.prepare += prepare;
        self.upload += upload;
        self.download += download;
        self.run += start.elapsed().saturating_sub(prepare);
        result
    }
}
