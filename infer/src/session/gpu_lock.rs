//! Which work on GPUs goes side by side, and which alone in the process.
//!
//! While CUDA records launches, no other thread of the process may set up or free memory of a GPU. And TensorRT chooses
//! kernels by timing them, which other work would disturb; what it built lies in its cache when the next session looks.

use std::sync::{PoisonError, RwLock};
use std::thread::ThreadId;

use crate::config::Device;

/// Runs of a thread by the last of which ONNX Runtime has recorded the launches: two that set up memory, then the recording.
const RUNS_TO_RECORD: usize = 3;

static GPUS: RwLock<()> = RwLock::new(());

/// Does some work: on GPUs beside other such work, or with no other going on.
pub(super) fn with_gpu<R>(device: Device, alone: bool, work: impl FnOnce() -> R) -> R {
    if !device.is_gpu() {
        return work();
    }
    if alone {
        let _alone = GPUS.write().unwrap_or_else(PoisonError::into_inner);
        work()
    } else {
        let _beside = GPUS.read().unwrap_or_else(PoisonError::into_inner);
        work()
    }
}

/// Counts the runs that may record launches. Recordings belong to the thread that made them.
#[derive(Debug, Default)]
pub(super) struct GraphRecording {
    thread: Option<ThreadId>,
    runs: usize,
}

impl GraphRecording {
    /// Whether the next run, on this thread, may record.
    pub(super) fn next_may_record(&mut self) -> bool {
        let thread = std::thread::current().id();
        if self.thread.replace(thread) != Some(thread) {
            self.runs = 0;
        }
        self.runs += 1;
        self.runs <= RUNS_TO_RECORD
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn work_goes_side_by_side_but_for_what_goes_alone() {
        let (gpu, at_work) = (Device::Cuda(0), AtomicUsize::new(0));
        // Neither would come through without the other.
        let both = Barrier::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| with_gpu(gpu, false, || both.wait()));
            }
        });
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let at_work = &at_work;
                scope.spawn(move || {
                    for round in 0..200 {
                        let alone = (thread + round) % 4 == 0;
                        with_gpu(if thread < 2 { gpu } else { Device::TensorRt(1) }, alone, || {
                            let others = at_work.fetch_add(1, Ordering::SeqCst);
                            std::thread::yield_now();
                            let with = at_work.fetch_sub(1, Ordering::SeqCst);
                            assert!(
                                !alone || (others, with) == (0, 1),
                                "{others} others, then {with}"
                            );
                        });
                    }
                });
            }
        });
        // The processor takes no turns, and so neither waits nor holds up.
        with_gpu(gpu, true, || with_gpu(Device::Cpu, true, || ()));
    }

    #[test]
    fn each_thread_records_anew() {
        let mut recording = GraphRecording::default();
        let runs = |recording: &mut GraphRecording| [(); 5].map(|()| recording.next_may_record());
        let expected = [true, true, true, false, false];
        assert_eq!(runs(&mut recording), expected);
        assert_eq!(
            std::thread::scope(|scope| scope.spawn(|| runs(&mut recording)).join().unwrap()),
            expected
        );
        assert!(recording.next_may_record());
    }
}
