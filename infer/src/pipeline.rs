//! Pipeline for many images: readers decode, one thread per session runs its model, writers
//! upsample and encode, all side by side.
//!
//! ```
//! use protoseg_images::image_file::{MAX_PIXELS, ImageFile, ImageFileError};
//! use protoseg_infer::pipeline::{RunControl, DecodedImage, PendingImage, Pipeline};
//! use protoseg_infer::segmenter::SegmentError;
//! use protoseg_infer::{Prediction, Segmenter};
//!
//! # let (bundle, folder) = ("tests/fixtures/colors", "tests/fixtures/pictures");
//! # #[derive(Debug, thiserror::Error)]
//! # enum Error {
//! #     #[error(transparent)]
//! #     Segment(#[from] SegmentError),
//! #     #[error(transparent)]
//! #     Read(#[from] ImageFileError),
//! # }
//! let mut images = Vec::new();
//! for entry in std::fs::read_dir(folder)? {
//!     images.push(entry?.path());
//! }
//! let mut pipeline = Pipeline::new(Segmenter::open(bundle)?, Vec::new());
//! let report = pipeline.run(
//!     images.len(),
//!     &RunControl::default(),
//!     |index| {
//!         let file = ImageFile::read(&images[index], MAX_PIXELS)?;
//!         let pixels = file.pixels();
//!         let decode = move || Ok(DecodedImage { image: file.decode()?, extra: () });
//!         Ok::<_, Error>(PendingImage { pixels, decode })
//!     },
//!     |index, _, prediction: Prediction| {
//!         println!("{}: {} pixels", images[index].display(), prediction.labels.len());
//!         Ok(())
//!     },
//! );
//! println!("{} done, {} failed; {}", report.done, report.failed.len(), report.stages.bottleneck);
//! # // One of them is a JPEG whose colors are not known.
//! # assert_eq!((report.done, report.failed.len()), (images.len() - 1, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod state;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use image::RgbImage;
use rayon::ThreadPool;
use serde::Serialize;

pub use self::state::{BYTES_PER_PIXEL, PipelineReport, StageReport, StageWork};
use self::state::{PixelBudget, PixelPermit, RunState, Threads, default_pixels, take};
use crate::config::{Device, EngineConfig, ExecutionMode};
use crate::machine::{Memory, cores, resident};
use crate::segmenter::{RawPrediction, SegmentError, Segmenter};
use crate::stage::Stage;
use crate::upsample::{Outputs, Prediction};

/// Most reader threads, and writer threads, where the CPU runs the network, and on GPUs. Their
/// number bounds the images in memory, as does [`PipelineSetup::pixels`] where these are large.
const MAX_HELPERS: [usize; 2] = [4, 16];

/// Images per core from which on throughput mode is the default. Of n images on c single-threaded
/// sessions the last round may leave all cores but one idle: up to `(n + c - 1) / n` of the work's
/// time passes, from four images per core on 1.25 at worst and nearer to 1 on average. Threads
/// inside a session lose nothing to a third of their time, and more the more they are. Fewer images
/// are soon done either way, and one is done sooner with all cores.
const IMAGES_PER_CORE: usize = 4;

/// Default sessions per GPU: while it computes for one, images and outputs of the other are copied.
const SESSIONS_PER_GPU: usize = 2;

/// An image that is not decoded yet.
#[derive(Debug)]
pub struct PendingImage<D> {
    /// Number of pixels.
    pub pixels: u64,
    /// Decodes it.
    pub decode: D,
}

/// A decoded image.
#[derive(Debug)]
pub struct DecodedImage<T> {
    /// The image.
    pub image: RgbImage,
    /// Data of the caller, handed on to `encode`.
    pub extra: T,
}

/// Progress of an image, named by its index.
#[derive(Debug)]
pub enum PipelineEvent<'a, E> {
    /// It went through all stages.
    Done(usize),
    /// It could not be read or run; the others go on.
    Failed(usize, &'a E),
}

/// Settings of a run.
pub struct RunControl<'a, E> {
    /// Outputs beside labels.
    pub outputs: Outputs,
    /// Once true, no more images are started; those in flight are finished.
    pub stop: &'a AtomicBool,
    /// Returns true for images that the caller runs in another way: they are neither opened nor
    /// counted. Called once for each image, from any of the threads.
    pub leave_out: &'a (dyn Fn(usize) -> bool + Sync),
    /// Called on each event, from any of the threads.
    pub observe: &'a (dyn Fn(PipelineEvent<'_, E>) + Sync),
}

impl<E> Default for RunControl<'_, E> {
    fn default() -> Self {
        static NEVER: AtomicBool = AtomicBool::new(false);
        let leave_out = &|_| false;
        Self { outputs: Outputs::default(), stop: &NEVER, leave_out, observe: &|_| () }
    }
}

/// Sessions, threads and memory of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PipelineSetup {
    /// Use of the cores.
    pub mode: ExecutionMode,
    /// Devices.
    pub devices: Vec<Device>,
    /// Open sessions.
    pub sessions: usize,
    /// Threads of each.
    pub threads: usize,
    /// Bytes that one occupies, measured on the first; None where it was not needed or the system
    /// does not say.
    pub session_bytes: Option<u64>,
    /// Bytes that they may occupy together, if that was needed.
    pub memory: Option<u64>,
    /// Pixels of images in flight, beside which one image of any size is admitted.
    pub pixels: u64,
    /// Seconds that opening took.
    pub seconds: f64,
}

/// Segmenters side by side, each owned by one thread during a run.
#[derive(Debug)]
pub struct Pipeline {
    first: Segmenter,
    others: Vec<Segmenter>,
    threads: usize,
    setup: PipelineSetup,
}

impl Pipeline {
    /// Takes one segmenter, or several of the same model.
    pub fn new(first: Segmenter, others: Vec<Segmenter>) -> Self {
        let (threads, sessions) = (cores(), 1 + others.len());
        let mode = if sessions > 1 { ExecutionMode::Throughput } else { ExecutionMode::Latency };
        let setup = PipelineSetup {
            mode,
            devices: std::iter::once(&first).chain(&others).map(Segmenter::device).collect(),
            sessions,
            threads,
            session_bytes: None,
            memory: None,
            pixels: default_pixels(Memory::now().available),
            seconds: 0.0,
        };
        Self { first, others, threads, setup }
    }

    /// Opens a bundle folder, or a single ONNX file that `protoseg export` wrote, in as many
    /// sessions as pay for this number of images, where it is known.
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
        let pixels = config.pixel_budget.unwrap_or_else(|| default_pixels(Memory::now().available));
        let mut setup = PipelineSetup {
            mode,
            devices,
            sessions: 1,
            threads: cores,
            session_bytes: None,
            memory: None,
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
                (first, open_parallel(sessions - 1, |_| open(device, setup.threads))?)
            }
            _ => {
                let devices = session_devices(&setup.devices, config.gpu_sessions, images);
                let mut all = open_parallel(devices.len(), |index| open(devices[index], cores))?;
                let others = all.split_off(1);
                (all.remove(0), others)
            }
        };
        setup.sessions = 1 + others.len();
        setup.seconds = start.elapsed().as_secs_f64();
        Ok(Self { first, others, threads: cores, setup })
    }

    /// Returns sessions, threads and memory.
    pub fn setup(&self) -> &PipelineSetup {
        &self.setup
    }

    /// Closes all sessions but one, and returns its segmenter.
    pub fn keep_one(&mut self) -> &mut Segmenter {
        self.others.clear();
        &mut self.first
    }

    /// Returns the segmenters and their setup.
    pub fn into_segmenters(self) -> (Vec<Segmenter>, PipelineSetup) {
        let Self { first, mut others, setup, .. } = self;
        others.insert(0, first);
        (others, setup)
    }

    /// Calls a function on each of the segmenters, one after the other.
    pub fn for_each_segmenter<E>(
        &mut self,
        work: impl FnMut(&mut Segmenter) -> Result<(), E>,
    ) -> Result<(), E> {
        std::iter::once(&mut self.first).chain(&mut self.others).try_for_each(work)
    }

    /// Returns one of the segmenters, for what they have in common.
    pub fn segmenter(&self) -> &Segmenter {
        &self.first
    }

    /// Takes `count` images through the stages, in no fixed order. `open` gets an image's index and
    /// returns its size and how it is decoded, which happens once the pixel budget admits it;
    /// `encode` gets the index, the decoded image and the prediction. An image that cannot be read
    /// or run is counted and the others go on; one that fails in `encode` ends the run, as the next
    /// would fail there too, and so does a lost device.
    ///
    /// Memory does not grow with `count`, but for the errors of images that fail: each thread holds
    /// one image, and together they hold no more than [`PipelineSetup::pixels`], or one image that
    /// is larger.
    ///
    /// # Panics
    ///
    /// Where one of the given functions does, once the images in flight are dropped.
    pub fn run<T: Send, E: From<SegmentError> + Send, D: FnOnce() -> Result<DecodedImage<T>, E>>(
        &mut self,
        count: usize,
        control: &RunControl<'_, E>,
        open: impl Fn(usize) -> Result<PendingImage<D>, E> + Sync,
        encode: impl Fn(usize, DecodedImage<T>, Prediction) -> Result<(), E> + Sync,
    ) -> PipelineReport<E> {
        let start = Instant::now();
        let mut segmenters: Vec<&mut Segmenter> =
            std::iter::once(&mut self.first).chain(&mut self.others).collect();
        let before: Vec<_> = segmenters.iter().map(|segmenter| segmenter.times()).collect();
        let workers = segmenters.len();
        let gpu = segmenters.iter().any(|segmenter| segmenter.device().is_gpu());
        // Beside one session that has all cores, one reader and one writer keep up, and upsampling
        // on another thread would only take cores from it, and memory for all logits of an image.
        let alone = workers == 1 && !gpu;
        let helpers = if alone { 1 } else { self.threads.min(MAX_HELPERS[usize::from(gpu)]) };
        let threads = Threads { readers: helpers, workers, writers: helpers };
        let state = RunState::new(count, control);
        let budget = PixelBudget::new(self.setup.pixels);
        let (decoded, to_run) = sync_channel::<(InFlight<'_>, DecodedImage<T>)>(0);
        let (ran, to_encode) = sync_channel::<(InFlight<'_>, DecodedImage<T>, RawPrediction)>(0);
        let (to_run, to_encode) = (Mutex::new(to_run), Mutex::new(to_encode));
        // One session has all threads, and so have the kernels after it. Several keep to a share
        // each, or there would be many more busy threads than cores.
        let each = (self.threads / workers).max(1);
        let shared = if workers > 1 || gpu { None } else { thread_pool(self.threads) };
        std::thread::scope(|scope| {
            for _ in 0..threads.readers {
                let (decoded, state, open, budget) = (decoded.clone(), &state, &open, &budget);
                scope.spawn(move || {
                    while let Some(index) = state.next() {
                        if state.catch_panic(|| Some((control.leave_out)(index))) != Some(false) {
                            continue;
                        }
                        let read = state.catch_panic(|| {
                            let opened = state.timed(Stage::Decode, || open(index));
                            let PendingImage { pixels, decode } = state.keep(index, opened)?;
                            let permit = budget.acquire(pixels);
                            if !state.may_start() {
                                return None;
                            }
                            let item = state.timed(Stage::Decode, decode);
                            Some((InFlight { index, permit }, state.keep(index, item)?))
                        });
                        if let Some(read) = read
                            && decoded.send(read).is_err()
                        {
                            break;
                        }
                    }
                });
            }
            drop(decoded);
            for segmenter in &mut segmenters {
                let (ran, state, to_run, shared) = (ran.clone(), &state, &to_run, shared.as_ref());
                scope.spawn(move || {
                    let own = if shared.is_none() { thread_pool(each) } else { None };
                    // The queue is emptied whatever happens, so that no sender blocks.
                    while let Some((in_flight, item)) = take(to_run) {
                        if state.is_stopped() {
                            continue;
                        }
                        let prediction = state.catch_panic(|| {
                            let prediction = install(shared.or(own.as_ref()), || {
                                if alone {
                                    segmenter
                                        .predict(&item.image, control.outputs)
                                        .map(RawPrediction::Final)
                                } else {
                                    segmenter.predict_deferred(&item.image, control.outputs)
                                }
                            });
                            state.record_prediction(in_flight.index, prediction)
                        });
                        if let Some(prediction) = prediction {
                            drop(ran.send((in_flight, item, prediction)));
                        }
                    }
                });
            }
            drop(ran);
            for _ in 0..threads.writers {
                let (state, to_encode, encode, shared) =
                    (&state, &to_encode, &encode, shared.as_ref());
                scope.spawn(move || {
                    let own = if shared.is_none() { thread_pool(1) } else { None };
                    while let Some((InFlight { index, permit }, item, prediction)) = take(to_encode)
                    {
                        if state.is_unwritable() {
                            continue;
                        }
                        state.catch_panic(|| {
                            let prediction = state.timed(Stage::Upsample, || {
                                install(shared.or(own.as_ref()), || {
                                    prediction.predict(control.outputs)
                                })
                            });
                            let encoded =
                                state.timed(Stage::Encode, || encode(index, item, prediction));
                            state.finish(index, encoded);
                            Some(())
                        });
                        drop(permit);
                    }
                });
            }
        });
        let times =
            segmenters.iter().zip(before).map(|(segmenter, before)| segmenter.times() - before);
        state.report(times, threads, start.elapsed())
    }
}

/// Index of an image in flight, and its permit.
struct InFlight<'a> {
    index: usize,
    permit: PixelPermit<'a>,
}

/// The device of each session. GPUs alternate, as often as there are sessions for each and images
/// for all.
fn session_devices(
    devices: &[Device],
    gpu_sessions: Option<NonZeroUsize>,
    images: Option<usize>,
) -> Vec<Device> {
    let sessions = if devices.iter().all(|device| device.is_gpu()) {
        gpu_sessions.map_or(SESSIONS_PER_GPU, NonZeroUsize::get)
    } else {
        1
    };
    let most = images.map_or(usize::MAX, |images| images.div_ceil(devices.len().max(1)));
    let rounds = sessions.min(most).max(1);
    devices.repeat(rounds)
}

/// Opens several segmenters at once: most of opening is work for one core.
fn open_parallel(
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

/// A pool for parallel work inside a stage; None where the system has no more threads, and then the
/// process's own are used.
pub fn thread_pool(threads: usize) -> Option<ThreadPool> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok()
}

/// Runs work in the pool, or on the calling thread where there is none.
pub fn install<R: Send>(pool: Option<&ThreadPool>, work: impl FnOnce() -> R + Send) -> R {
    match pool {
        Some(pool) => pool.install(work),
        None => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gpu_gets_two_sessions_or_as_many_as_configured() {
        let [zero, one] = [Device::Cuda(0), Device::Cuda(1)];
        assert_eq!(session_devices(&[zero], None, Some(100)), [zero, zero]);
        assert_eq!(session_devices(&[zero, one], None, Some(100)), [zero, one, zero, one]);
        assert_eq!(session_devices(&[zero], NonZeroUsize::new(1), Some(100)), [zero]);
        assert_eq!(
            session_devices(&[zero, one], NonZeroUsize::new(3), Some(100)),
            [zero, one, zero, one, zero, one]
        );
        // Not more than there are images.
        assert_eq!(session_devices(&[zero, one], None, Some(2)), [zero, one]);
        assert_eq!(session_devices(&[zero, one], None, Some(3)), [zero, one, zero, one]);
        assert_eq!(session_devices(&[zero], None, Some(1)), [zero]);
        // An unknown number of images.
        assert_eq!(session_devices(&[zero], None, None), [zero, zero]);
        for device in [Device::Cpu, Device::OpenVino] {
            assert_eq!(session_devices(&[device], NonZeroUsize::new(2), Some(100)), [device]);
        }
    }
}
