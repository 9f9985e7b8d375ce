//! How many sessions a pipeline gets, on which devices, and how many threads each.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::{Pipeline, room};
use crate::machine::{Memory, cores, resident};
use crate::segmenter::{SegmentError, Segmenter, SegmenterOptions};
use crate::session::{Device, Devices};

/// Pictures for each core from which on throughput counts. Of n pictures on c single-threaded sessions the last round may
/// leave all cores but one idle: up to `(n + c - 1) / n` of the work's time passes, from four pictures a core on 1.25 at worst
/// and nearer to 1 on average. Threads inside a session lose nothing to a third of their time, and more the more they are.
/// Fewer pictures are soon done either way, and one is done sooner with all cores.
const PICTURES_A_CORE: usize = 4;

/// Sessions of a GPU where nobody says otherwise: while it computes for one, pictures and answers of the other are copied.
const SESSIONS_A_GPU: usize = 2;

/// What the cores of a processor are used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutionMode {
    /// One session with all cores: each picture is done soonest.
    Latency,
    /// A session with one core for each core, as far as memory goes: most pictures are done in an hour.
    Throughput,
}

/// How a [`Pipeline`] is opened.
#[derive(Debug, Clone, Default)]
pub struct PipelineOptions {
    /// How each segmenter works. Its threads are those of all sessions together, its device is not looked at.
    pub segmenter: SegmenterOptions,
    /// What computes.
    pub devices: Devices,
    /// Sessions of each GPU, which each hold the weights and what a run needs; two where nobody says otherwise, and fewer
    /// where there are fewer pictures.
    pub gpu_sessions: Option<NonZeroUsize>,
    /// What cores are used for; by the number of pictures where nobody says otherwise.
    pub mode: Option<ExecutionMode>,
    /// Bytes that sessions on the processor may occupy together; half of what is available where nobody says otherwise. One
    /// session is always opened.
    pub memory: Option<u64>,
    /// Pixels of pictures that may be on their way at once, beside which one picture always may; by the available memory where
    /// nobody says otherwise.
    pub pixels: Option<u64>,
    /// How many pictures there will be; 0 where that is not known.
    pub pictures: usize,
}

/// What a pipeline runs on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PipelineSetup {
    /// What cores are used for.
    pub mode: ExecutionMode,
    /// The devices.
    pub devices: Vec<Device>,
    /// Open sessions.
    pub sessions: usize,
    /// Threads of each.
    pub threads: usize,
    /// Bytes that one occupies, measured on the first; none where it was not needed or the system does not say.
    pub session_bytes: Option<u64>,
    /// Bytes that they may occupy together, if that was looked at.
    pub memory: Option<u64>,
    /// Pixels of pictures that may be on their way at once, beside which one picture always may.
    pub pixels: u64,
    /// Seconds that opening took.
    pub seconds: f64,
}

impl Pipeline {
    /// Opens a bundle folder, or a single ONNX file that `protoseg export` wrote, as often as pays.
    pub fn open(path: impl AsRef<Path>, options: &PipelineOptions) -> Result<Self, SegmentError> {
        let start = Instant::now();
        let path = path.as_ref();
        let devices = options.devices.all().to_vec();
        let cores = options.segmenter.runner.threads.map_or_else(cores, NonZeroUsize::get);
        let open = |device: Device, threads: usize| {
            let mut segmenter = options.segmenter.clone();
            segmenter.runner.device = device;
            segmenter.runner.threads = NonZeroUsize::new(threads);
            Segmenter::open_with(path, &segmenter)
        };
        let many = options.pictures >= PICTURES_A_CORE * cores && devices == [Device::Cpu];
        let mode = options.mode.unwrap_or(if many {
            ExecutionMode::Throughput
        } else {
            ExecutionMode::Latency
        });
        let pixels = options.pixels.unwrap_or_else(|| room::most(Memory::now().available));
        let [session_bytes, memory] = [None; 2];
        let mut setup = PipelineSetup {
            mode,
            devices,
            sessions: 1,
            threads: cores,
            session_bytes,
            memory,
            pixels,
            seconds: 0.0,
        };
        let (first, others) = match setup.devices[..] {
            [device] if !device.is_gpu() && mode == ExecutionMode::Throughput && cores > 1 => {
                let before = resident();
                let mut first = open(device, 1)?;
                first.warm_up()?;
                setup.session_bytes =
                    resident().zip(before).map(|(now, before)| now.saturating_sub(before).max(1));
                setup.memory = options
                    .memory
                    .or_else(|| Memory::now().available.map(|available| available / 2));
                let fit =
                    setup.memory.zip(setup.session_bytes).map(|(memory, bytes)| memory / bytes);
                let sessions =
                    fit.and_then(|fit| usize::try_from(fit).ok()).unwrap_or(cores).clamp(1, cores);
                setup.threads = cores / sessions;
                if setup.threads > 1 {
                    first = open(device, setup.threads)?;
                }
                (first, side_by_side(sessions - 1, |_| open(device, setup.threads))?)
            }
            _ => {
                let places = places(&setup.devices, options.gpu_sessions, options.pictures);
                let mut all = side_by_side(places.len(), |index| open(places[index], cores))?;
                let others = all.split_off(1);
                (all.remove(0), others)
            }
        };
        setup.sessions = 1 + others.len();
        setup.seconds = start.elapsed().as_secs_f64();
        Ok(Self { first, others, threads: cores, setup })
    }
}

/// The device of each session. GPUs come up in turns, as often as there are sessions for each and pictures for all.
fn places(devices: &[Device], gpu_sessions: Option<NonZeroUsize>, pictures: usize) -> Vec<Device> {
    let wanted = if devices.iter().all(|device| device.is_gpu()) {
        gpu_sessions.map_or(SESSIONS_A_GPU, NonZeroUsize::get)
    } else {
        1
    };
    let most = if pictures == 0 { usize::MAX } else { pictures.div_ceil(devices.len().max(1)) };
    let rounds = wanted.min(most).max(1);
    devices.repeat(rounds)
}

/// Opens several at once: most of opening is work for one core.
fn side_by_side(
    count: usize,
    open: impl Fn(usize) -> Result<Segmenter, SegmentError> + Sync,
) -> Result<Vec<Segmenter>, SegmentError> {
    let open = &open;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|index| scope.spawn(move || open(index))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gpu_gets_two_sessions_or_as_many_as_were_asked_for() {
        let [zero, one] = [Device::Cuda(0), Device::Cuda(1)];
        assert_eq!(places(&[zero], None, 100), [zero, zero]);
        assert_eq!(places(&[zero, one], None, 100), [zero, one, zero, one]);
        assert_eq!(places(&[zero], NonZeroUsize::new(1), 100), [zero]);
        assert_eq!(
            places(&[zero, one], NonZeroUsize::new(3), 100),
            [zero, one, zero, one, zero, one]
        );
        // Not more than there are pictures for.
        assert_eq!(places(&[zero, one], None, 2), [zero, one]);
        assert_eq!(places(&[zero, one], None, 3), [zero, one, zero, one]);
        assert_eq!(places(&[zero], None, 1), [zero]);
        // It is not known how many there are.
        assert_eq!(places(&[zero], None, 0), [zero, zero]);
        for device in [Device::Cpu, Device::OpenVino] {
            assert_eq!(places(&[device], NonZeroUsize::new(2), 100), [device]);
        }
    }
}
