//! Decode, run, encode, side by side: threads that read, the one that owns the model, threads that write, with short queues
//! between them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use image::RgbImage;
use indicatif::{ProgressBar, ProgressStyle};
use protoseg_infer::label_map::LabelMap;
use protoseg_infer::segmenter::{Answer, Segmenter};
use protoseg_infer::upsample::Wanted;
use protoseg_models::errors::sentence;
use serde::Serialize;

/// Pictures that wait between two stages.
const QUEUE: usize = 2;

/// Seconds of work in each stage. Stages overlap, and some have several threads, so the sum may exceed the time that passed.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct StageSeconds {
    /// Reading and decoding pictures.
    pub(crate) decode: f64,
    /// The network.
    pub(crate) run: f64,
    /// Putting windows together, upsampling and argmax.
    pub(crate) stitch: f64,
    /// What is done with the labels.
    pub(crate) encode: f64,
}

/// A picture on its way, with what its reader keeps for the end.
#[derive(Debug)]
pub(crate) struct Decoded<T> {
    /// The picture.
    pub(crate) image: RgbImage,
    /// Whatever belongs to it.
    pub(crate) extra: T,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Report {
    /// The items that failed, by index, and why.
    pub(crate) failed: Vec<(usize, anyhow::Error)>,
    /// Why the run stopped before its end, if it did.
    pub(crate) stopped: Option<anyhow::Error>,
    /// Work by stage.
    pub(crate) seconds: StageSeconds,
    /// Time that passed.
    pub(crate) elapsed: Duration,
}

/// Takes `count` items through the stages. An item that cannot be read or run is reported at once and counted, and the
/// others go on; one that fails in `encode` stops the run, as the next would fail there too.
pub(crate) fn run<T: Send>(
    segmenter: &mut Segmenter,
    count: usize,
    decode: impl Fn(usize) -> anyhow::Result<Decoded<T>> + Sync,
    encode: impl Fn(usize, Decoded<T>, LabelMap) -> anyhow::Result<()> + Sync,
) -> Report {
    let start = Instant::now();
    let before = segmenter.times();
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let kept =
        Stages { seconds: Mutex::default(), failed: Mutex::default(), stopped: OnceLock::new(), bar: bar(count) };
    let next = AtomicUsize::new(0);
    let (decoded, to_run) = sync_channel(QUEUE);
    let (ran, to_encode) = sync_channel::<(usize, Decoded<T>, Answer)>(QUEUE);
    let to_encode = Mutex::new(to_encode);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let (decoded, next, stages, decode) = (decoded.clone(), &next, &kept, &decode);
            scope.spawn(move || {
                while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&index| index < count) {
                    if stages.stopped.get().is_some() {
                        break;
                    }
                    let start = Instant::now();
                    let item = decode(index);
                    stages.add(|seconds| &mut seconds.decode, start);
                    let Some(item) = stages.keep(index, item) else { continue };
                    if decoded.send((index, item)).is_err() {
                        break;
                    }
                }
            });
            let (to_encode, stages, encode) = (&to_encode, &kept, &encode);
            scope.spawn(move || {
                while let Some((index, item, answer)) = take(to_encode) {
                    // The queue is emptied all the same, so that nobody waits for room in it.
                    if stages.stopped.get().is_some() {
                        continue;
                    }
                    let start = Instant::now();
                    let labels = answer.labels();
                    stages.add(|seconds| &mut seconds.stitch, start);
                    let start = Instant::now();
                    let encoded = encode(index, item, labels);
                    stages.add(|seconds| &mut seconds.encode, start);
                    match encoded {
                        Ok(()) => stages.bar.inc(1),
                        // Of several, the first is the one to report.
                        Err(error) => drop(stages.stopped.set(error)),
                    }
                }
            });
        }
        drop(decoded);
        for (index, item) in to_run {
            if kept.stopped.get().is_some() {
                break;
            }
            let answer = segmenter.answer_or_decide(&item.image, Wanted::default()).map_err(anyhow::Error::from);
            let Some(answer) = kept.keep(index, answer) else { continue };
            if ran.send((index, item, answer)).is_err() {
                break;
            }
        }
        drop(ran);
    });
    kept.bar.finish_and_clear();
    let mut seconds = kept.seconds.into_inner().unwrap_or_default();
    let times = segmenter.times();
    seconds.run += (times.run - before.run).as_secs_f64();
    seconds.stitch += (times.stitch - before.stitch).as_secs_f64();
    let mut failed = kept.failed.into_inner().unwrap_or_default();
    failed.sort_by_key(|(index, _)| *index);
    Report { failed, stopped: kept.stopped.into_inner(), seconds, elapsed: start.elapsed() }
}

struct Stages {
    seconds: Mutex<StageSeconds>,
    failed: Mutex<Vec<(usize, anyhow::Error)>>,
    stopped: OnceLock<anyhow::Error>,
    bar: ProgressBar,
}

impl Stages {
    fn add(&self, stage: impl Fn(&mut StageSeconds) -> &mut f64, start: Instant) {
        if let Ok(mut seconds) = self.seconds.lock() {
            *stage(&mut seconds) += start.elapsed().as_secs_f64();
        }
    }

    fn keep<T>(&self, index: usize, result: anyhow::Result<T>) -> Option<T> {
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        self.bar.suspend(|| eprintln!("error: {}", sentence(error.as_ref())));
        self.bar.inc(1);
        if let Ok(mut failed) = self.failed.lock() {
            failed.push((index, error));
        }
        None
    }
}

fn take<T>(queue: &Mutex<Receiver<T>>) -> Option<T> {
    queue.lock().ok()?.recv().ok()
}

/// Progress on the standard error, where that is a terminal.
pub(crate) fn bar(count: usize) -> ProgressBar {
    let bar = ProgressBar::new(count as u64);
    match ProgressStyle::with_template("{bar:40} {pos}/{len} pictures, {per_sec}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
