//! Stages of an image on its way through the engine, and the time spent in each.

use std::ops::{Add, AddAssign, Index, IndexMut, Sub};
use std::time::{Duration, Instant};

/// A stage of an image on its way from file to result. Stages are disjoint: no moment counts twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Sending a request to a server.
    Send,
    /// Receiving the body of a request.
    Read,
    /// Decoding the image, and reading its file.
    Decode,
    /// Waiting for the model.
    Queue,
    /// Cutting tiles, padding, and normalizing as an imported file wants it.
    Preprocess,
    /// Copying pixels to where the network reads them; zero on a CPU, which reads them where they
    /// are.
    Upload,
    /// The network. On GPUs it includes what ONNX Runtime copies within a run: images of a shape
    /// that does not repeat, and outputs on their way into bound host memory.
    Compute,
    /// Waiting for outputs on their way back, and copying them out of ONNX Runtime's memory; zero
    /// where they are borrowed.
    Download,
    /// Merging the logits of windows.
    Stitch,
    /// Upsampling logits and choosing labels.
    Upsample,
    /// Encoding the result.
    Encode,
    /// Waiting for a server's response to begin.
    Wait,
    /// Receiving a server's response.
    Receive,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Self; 13] = [
        Self::Send,
        Self::Read,
        Self::Decode,
        Self::Queue,
        Self::Preprocess,
        Self::Upload,
        Self::Compute,
        Self::Download,
        Self::Stitch,
        Self::Upsample,
        Self::Encode,
        Self::Wait,
        Self::Receive,
    ];

    /// Returns the name in reports and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Read => "read",
            Self::Decode => "decode",
            Self::Queue => "queue",
            Self::Preprocess => "prepare",
            Self::Upload => "upload",
            Self::Compute => "compute",
            Self::Download => "download",
            Self::Stitch => "stitch",
            Self::Upsample => "decide",
            Self::Encode => "encode",
            Self::Wait => "wait",
            Self::Receive => "receive",
        }
    }
}

/// Time by stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes([Duration; Stage::ALL.len()]);

impl StageTimes {
    /// Does some work and adds its time to a stage, whether it succeeds or not.
    pub fn timed<R>(&mut self, stage: Stage, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = work();
        self[stage] += start.elapsed();
        result
    }

    /// Returns the time in the network with its transfers: upload, compute and download.
    pub fn run(&self) -> Duration {
        self[Stage::Upload] + self[Stage::Compute] + self[Stage::Download]
    }

    /// Returns the time of all stages.
    pub fn total(&self) -> Duration {
        self.0.iter().sum()
    }

    /// Returns the stages that took any time, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, Duration)> + '_ {
        Stage::ALL.into_iter().zip(self.0).filter(|(_, took)| !took.is_zero())
    }
}

impl Index<Stage> for StageTimes {
    type Output = Duration;

    fn index(&self, stage: Stage) -> &Duration {
        &self.0[stage as usize]
    }
}

impl IndexMut<Stage> for StageTimes {
    fn index_mut(&mut self, stage: Stage) -> &mut Duration {
        &mut self.0[stage as usize]
    }
}

impl AddAssign for StageTimes {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(time, more)| *time += more);
    }
}

impl Add for StageTimes {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl Sub for StageTimes {
    type Output = Self;

    fn sub(mut self, before: Self) -> Self {
        self.0.iter_mut().zip(before.0).for_each(|(time, before)| *time -= before);
        self
    }
}
