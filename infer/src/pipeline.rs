//! From many pictures to what is made of them: readers decode, one thread for each session runs its model, writers upsample
//! and encode, side by side, who hand over to each other.
//!
//! ```
//! use protoseg_images::image_file::{MAX_PIXELS, ImageFile, ImageFileError};
//! use protoseg_infer::pipeline::{RunControl, DecodedImage, PendingImage, Pipeline};
//! use protoseg_infer::segmenter::{SegmentError, Segmenter};
//! use protoseg_infer::upsample::Prediction;
//!
//! # let (bundle, folder) = ("tests/fixtures/colors", "tests/fixtures/pictures");
//! # #[derive(Debug, thiserror::Error)]
//! # enum Error { #[error(transparent)] Segment(#[from] SegmentError), #[error(transparent)] Read(#[from] ImageFileError) }
//! let pictures: Vec<_> = std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
//! let mut pipeline = Pipeline::new(Segmenter::open(bundle)?, Vec::new());
//! let report = pipeline.run(
//!     pictures.len(),
//!     &RunControl::default(),
//!     |index| {
//!         let file = ImageFile::read(&pictures[index], MAX_PIXELS)?;
//!         let pixels = file.pixels();
//!         Ok::<_, Error>(PendingImage { pixels, decode: move || Ok(DecodedImage { image: file.decode()?, extra: () }) })
//!     },
//!     |index, _, decided: Prediction| {
//!         println!("{}: {} pixels", pictures[index].display(), decided.labels.len());
//!         Ok(())
//!     },
//! );
//! println!("{} done, {} failed; {}", report.done, report.failed.len(), report.stages.bottleneck);
//! # // One of them is a JPEG whose colours are not known.
//! # assert_eq!((report.done, report.failed.len()), (pictures.len() - 1, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod open;
mod report;
mod room;
mod stages;

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use image::RgbImage;
use rayon::ThreadPool;

pub use self::open::PipelineSetup;
use self::report::Threads;
pub use self::report::{PipelineReport, StageReport, StageWork};
use self::room::{PixelBudget, PixelPermit};
use self::stages::{RunState, take};
use crate::config::ExecutionMode;
use crate::machine::{Memory, cores};
use crate::segmenter::{RawPrediction, SegmentError, Segmenter};
use crate::upsample::{Outputs, Prediction};

/// Pictures that wait between two stages. None: a reader holds the next one ready while the network runs, and a writer has
/// taken over the one before, so that a queue would hold more pictures in memory and no more in motion.
const QUEUE: usize = 0;

/// Most threads that read, and that write, where the processor runs the network, and where it does nothing else. Their
/// number bounds the pictures in memory, and [`PipelineSetup::pixels`] where these are large.
const HELPERS: [usize; 2] = [4, 16];

/// A picture of which is known how much room it needs.
#[derive(Debug)]
pub struct PendingImage<D> {
    /// How many pixels it has.
    pub pixels: u64,
    /// Decodes it.
    pub decode: D,
}

/// A picture on its way, with what its reader keeps for the end.
#[derive(Debug)]
pub struct DecodedImage<T> {
    /// The picture.
    pub image: RgbImage,
    /// Whatever belongs to it.
    pub extra: T,
}

/// Something that happened to an item, named by its index.
#[derive(Debug)]
pub enum PipelineEvent<'a, E> {
    /// It went through all stages.
    Done(usize),
    /// It could not be read or run; the others go on.
    Failed(usize, &'a E),
}

/// What a caller decides about a run.
pub struct RunControl<'a, E> {
    /// Outputs beside labels.
    pub outputs: Outputs,
    /// Once true, no more items are begun; those on their way are finished.
    pub stop: &'a AtomicBool,
    /// Hears what happens, from any of the threads, as it happens.
    pub observe: &'a (dyn Fn(PipelineEvent<'_, E>) + Sync),
}

impl<E> Default for RunControl<'_, E> {
    fn default() -> Self {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Self { outputs: Outputs::default(), stop: &NEVER, observe: &|_| () }
    }
}

/// Segmenters side by side, each owned by one thread while pictures run.
#[derive(Debug)]
pub struct Pipeline {
    first: Segmenter,
    others: Vec<Segmenter>,
    threads: usize,
    setup: PipelineSetup,
}

impl Pipeline {
    /// Of one segmenter, or of several of the same model.
    pub fn new(first: Segmenter, others: Vec<Segmenter>) -> Self {
        let (threads, sessions) = (cores(), 1 + others.len());
        let mode = if sessions > 1 { ExecutionMode::Throughput } else { ExecutionMode::Latency };
        let devices = std::iter::once(&first).chain(&others).map(Segmenter::device).collect();
        let pixels = room::most(Memory::now().available);
        let [session_bytes, memory] = [None; 2];
        let setup = PipelineSetup {
            mode,
            devices,
            sessions,
            threads,
            session_bytes,
            memory,
            pixels,
            seconds: 0.0,
        };
        Self { first, others, threads, setup }
    }

    /// What it runs on.
    pub fn setup(&self) -> &PipelineSetup {
        &self.setup
    }

    /// The segmenters, and what they run on.
    pub fn into_segmenters(self) -> (Vec<Segmenter>, PipelineSetup) {
        let Self { first, mut others, setup, .. } = self;
        others.insert(0, first);
        (others, setup)
    }

    /// Does something with each of the segmenters, in turn.
    pub fn for_each_segmenter<E>(
        &mut self,
        work: impl FnMut(&mut Segmenter) -> Result<(), E>,
    ) -> Result<(), E> {
        std::iter::once(&mut self.first).chain(&mut self.others).try_for_each(work)
    }

    /// One of the segmenters: what they share can be asked of it.
    pub fn segmenter(&self) -> &Segmenter {
        &self.first
    }

    /// Takes `count` items through the stages, in no fixed order. `open` gets an item's index and says how large it is and
    /// how it is decoded, which happens once there is room for it; `encode` gets the index back with what was decoded and
    /// what the model made of it. An item that cannot be read or run is counted and the others go on; one that fails in
    /// `encode` ends the run, as the next would fail there too, and so does a device that is lost.
    ///
    /// Memory does not grow with `count`, but for the errors of items that fail: each thread holds one picture, and together
    /// they hold no more than [`PipelineSetup::pixels`], or one picture that is larger.
    ///
    /// # Panics
    ///
    /// Where one of the functions given does, once the pictures on their way are given up.
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
        let owners = segmenters.len();
        let gpu = segmenters.iter().any(|segmenter| segmenter.device().is_gpu());
        // Beside one session that has all cores, one reader and one writer keep up with it, and upsampling on another thread
        // would only take cores from it, and memory for all scores of a picture.
        let alone = owners == 1 && !gpu;
        let helpers = if alone { 1 } else { self.threads.min(HELPERS[usize::from(gpu)]) };
        let threads = Threads { readers: helpers, owners, writers: helpers };
        let work = RunState::new(count, control);
        let room = PixelBudget::new(self.setup.pixels);
        let (decoded, to_run) = sync_channel::<(InFlight<'_>, DecodedImage<T>)>(QUEUE);
        let (ran, to_encode) =
            sync_channel::<(InFlight<'_>, DecodedImage<T>, RawPrediction)>(QUEUE);
        let (to_run, to_encode) = (Mutex::new(to_run), Mutex::new(to_encode));
        // One session has all threads, and so have the kernels after it. Of several each keeps to its own share, or there
        // would be many more threads at work than cores.
        let each = (self.threads / owners).max(1);
        let shared = if owners > 1 || gpu { None } else { thread_pool(self.threads) };
        std::thread::scope(|scope| {
            for _ in 0..threads.readers {
                let (decoded, work, open, room) = (decoded.clone(), &work, &open, &room);
                scope.spawn(move || {
                    while let Some(index) = work.next() {
                        let read = work.catch_panic(|| {
                            let opened = work.timed(|seconds| &mut seconds.decode, || open(index));
                            let PendingImage { pixels, decode } = work.keep(index, opened)?;
                            let held = room.enter(pixels);
                            if !work.may_start() {
                                return None;
                            }
                            let item = work.timed(|seconds| &mut seconds.decode, decode);
                            Some((InFlight { index, held }, work.keep(index, item)?))
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
                let (ran, work, to_run, shared) = (ran.clone(), &work, &to_run, shared.as_ref());
                scope.spawn(move || {
                    let own = if shared.is_none() { thread_pool(each) } else { None };
                    // The queue is emptied whatever happens, so that nobody waits for room in it.
                    while let Some((place, item)) = take(to_run) {
                        if work.is_stopped() {
                            continue;
                        }
                        let answer = work.catch_panic(|| {
                            let answer = install(shared.or(own.as_ref()), || {
                                if alone {
                                    segmenter
                                        .predict(&item.image, control.outputs)
                                        .map(RawPrediction::Final)
                                } else {
                                    segmenter.predict_deferred(&item.image, control.outputs)
                                }
                            });
                            work.record_prediction(place.index, answer)
                        });
                        if let Some(answer) = answer {
                            drop(ran.send((place, item, answer)));
                        }
                    }
                });
            }
            drop(ran);
            for _ in 0..threads.writers {
                let (work, to_encode, encode, shared) =
                    (&work, &to_encode, &encode, shared.as_ref());
                scope.spawn(move || {
                    let own = if shared.is_none() { thread_pool(1) } else { None };
                    while let Some((InFlight { index, held }, item, answer)) = take(to_encode) {
                        if work.is_unwritable() {
                            continue;
                        }
                        work.catch_panic(|| {
                            let decide = || {
                                install(shared.or(own.as_ref()), || answer.predict(control.outputs))
                            };
                            let decided = work.timed(|seconds| &mut seconds.decide, decide);
                            let encoded = work.timed(
                                |seconds| &mut seconds.encode,
                                || encode(index, item, decided),
                            );
                            work.finish(index, encoded);
                            Some(())
                        });
                        drop(held);
                    }
                });
            }
        });
        let times =
            segmenters.iter().zip(before).map(|(segmenter, before)| segmenter.times() - before);
        work.report(times, threads, start.elapsed())
    }
}

/// Which item is on its way, and the room that it takes.
struct InFlight<'a> {
    index: usize,
    held: PixelPermit<'a>,
}

/// Threads for what runs in parallel inside a stage; none where the system has no more, and then the process's own are used.
pub fn thread_pool(threads: usize) -> Option<ThreadPool> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok()
}

/// Runs `work` in the pool, or on the calling thread where there is none.
pub fn install<R: Send>(team: Option<&ThreadPool>, work: impl FnOnce() -> R + Send) -> R {
    match team {
        Some(team) => team.install(work),
        None => work(),
    }
}
