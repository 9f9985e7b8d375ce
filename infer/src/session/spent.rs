//! Where the time of runs goes beside computing.

use std::ops::Sub;
use std::time::{Duration, Instant};

/// Time that a [`Runner`](super::Runner) spent since it was opened, beside what its network took.
///
/// What ONNX Runtime copies by itself in the course of a run is part of computing: on GPUs the pictures of a shape that does
/// not repeat, and answers on their way into memory of the host that is bound to the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransferTimes {
    /// Turning pictures into what an adopted file takes.
    pub prepare: Duration,
    /// Bringing pictures to where the network reads them; zero on a CPU, which reads them where they are.
    pub upload: Duration,
    /// Waiting for answers that are on their way back, and copying them out of ONNX Runtime's memory; zero where they are lent.
    pub download: Duration,
}

impl Sub for TransferTimes {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        let Self { prepare, upload, download } = before;
        Self {
            prepare: self.prepare - prepare,
            upload: self.upload - upload,
            download: self.download - download,
        }
    }
}

/// Does some work and adds the time that it took, whatever came of it.
pub(crate) fn timed<R>(total: &mut Duration, work: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = work();
    *total += start.elapsed();
    result
}
