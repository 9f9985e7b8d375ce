//! How many sessions a pipeline gets, on which devices, and how many threads each.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::{Pipeline, room};
use crate::config::{Device, EngineConfig, ExecutionMode};
use crate::machine::{Memory, cores, resident};
use crate::segmenter::{SegmentError, Segmenter};

/// Pictures for each core from which on throughput counts. Of n pictures on c single-threaded sessions the last round may
/// leave all cores but one idle: up to `(n + c - 1) / n` of the work's time passes, from four pictures a core on 1.25 at worst
/// and nearer to 1 on average. Threads inside a session lose nothing to a third of their time, and more the more they are.
/// Fewer pictures are soon done either way, and one is done sooner with all cores.
const IMAGES_PER_CORE: usize = 4;

/// Sessions of a GPU where nobody says otherwise: while it computes for one, pictures and answers of the other are copied.
const SESSIONS_A_GPU: usize = 2;

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
    /// Opens a bundle folder, or a single ONNX file that `protoseg export` wrote, in as many sessions as pay for this number
    /// of images, where it is known.
    pub fn open(
        path: impl AsRef<Path>,
        config: &EngineConfig,
        images: Option<usize>,
    ) -> Result<Self, SegmentError> {
        let start = Instant::now();
        let path = path.as_ref();
        let devices = config.devices().to_vec();
        let cores = config.threads.map_or_else(cores, NonZeroUsize::get);
        let open = |device: Device, threads: usize| {
            let device = Some(device.into());
            let threads = NonZeroUsize::new(threads);
            Segmenter::open_with(path, &EngineConfig { device, threads, ..config.clone() })
        };
        let many = images.is_some_and(|images| images >= IMAGES_PER_CORE * cores);
        let mode = config.mode.unwrap_or(if many && devices == [Device::Cpu] {
            ExecutionMode::Throughput
        } else {
            ExecutionMode::Latency
        });
        let pixels = config.pixel_budget.unwrap_or_else(|| room::most(Memory::now().available));
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
                setup.memory = config
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
                let places = places(&setup.devices, config.gpu_sessions, images);
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
fn places(
    devices: &[Device],
    gpu_sessions: Option<NonZeroUsize>,
    images: Option<usize>,
) -> Vec<Device> {
    let wanted = if devices.iter().all(|device| device.is_gpu()) {
        gpu_sessions.map_or(SESSIONS_A_GPU, NonZeroUsize::get)
    } else {
        1
    };
    let most = images.map_or(usize::MAX, |images| images.div_ceil(devices.len().max(1)));
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
        assert_eq!(places(&[zero], None, Some(100)), [zero, zero]);
        assert_eq!(places(&[zero, one], None, Some(100)), [zero, one, zero, one]);
        assert_eq!(places(&[zero], NonZeroUsize::new(1), Some(100)), [zero]);
        assert_eq!(
            places(&[zero, one], NonZeroUsize::new(3), Some(100)),
            [zero, one, zero, one, zero, one]
        );
        // Not more than there are pictures for.
        assert_eq!(places(&[zero, one], None, Some(2)), [zero, one]);
        assert_eq!(places(&[zero, one], None, Some(3)), [zero, one, zero, one]);
        assert_eq!(places(&[zero], None, Some(1)), [zero]);
        // It is not known how many there are.
        assert_eq!(places(&[zero], None, None), [zero, zero]);
        for device in [Device::Cpu, Device::OpenVino] {
            assert_eq!(places(&[device], NonZeroUsize::new(2), Some(100)), [device]);
        }
    }
}
