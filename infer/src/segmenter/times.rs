//! What a segmenter's time is spent on.

use std::time::{Duration, Instant};

use crate::session::{Runner, Spent};

/// Time spent since a [`Segmenter`](super::Segmenter) was opened. No moment is counted twice but that `upload` and `download`
/// are parts of `run`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Cutting windows out of pictures, padding pictures, and turning them into what an adopted file takes.
    pub prepare: Duration,
    /// In the network, with what brings pictures to it and answers back: upload, [compute](Self::compute), download.
    pub run: Duration,
    /// Bringing pictures to where the network reads them, as far as [`Spent::upload`] tells.
    pub upload: Duration,
    /// Copying what came of the network, as far as [`Spent::download`] tells.
    pub download: Duration,
    /// Putting windows together, and in [`Segmenter::decide`](super::Segmenter::decide) upsampling.
    pub stitch: Duration,
}

impl Times {
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
        let (start, before) = (Instant::now(), runner.spent());
        let result = work(runner);
        let Spent { prepare, upload, download } = runner.spent() - before;
        self.prepare += prepare;
        self.upload += upload;
        self.download += download;
        self.run += start.elapsed().saturating_sub(prepare);
        result
    }
}
