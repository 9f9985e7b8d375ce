//! A model in this process as a target: one segmenter that is asked directly, the service's engine with its queue, or the
//! pipeline that labels folders.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use image::RgbImage;
use protoseg_images::label_map::LabelMap;
use protoseg_models::variant::Precision;
use rayon::ThreadPool;

use super::images::{BenchImage, BenchImages};
use super::load::Scenario;
use super::load::{LoadResult, QuerySample};
use super::load::{RequestError, RequestStages, Target};
use protoseg_images::image_file;
use protoseg_infer::config::ExecutionMode;
use protoseg_infer::pipeline::{
    DecodedImage, PendingImage, Pipeline, PipelineSetup, RunControl, StageReport, install,
    thread_pool,
};
use protoseg_infer::segmenter::{SegmentError, Segmenter};
use protoseg_infer::{EngineConfig, Outputs, Prediction, Stage, StageTimes};
use protoseg_serve::BatchLimit;
use protoseg_serve::metrics::Metrics;
use protoseg_serve::scheduler::{PredictRequest, Scheduler, SchedulerOptions};

/// How a model is opened and asked.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// How it is opened.
    pub config: EngineConfig,
    /// Whether picture files are decoded and label files encoded.
    pub end_to_end: bool,
    /// Once true, pictures that are all there from the start are not begun any more.
    pub stop: Arc<AtomicBool>,
}

/// A model that is open.
#[derive(Debug)]
pub struct InProcessTarget {
    way: Way,
    images: BenchImages,
    end_to_end: bool,
    stop: Arc<AtomicBool>,
    facts: ModelFacts,
}

/// What is known of it once it is open.
#[derive(Debug, Clone)]
pub struct ModelFacts {
    /// What it runs on.
    pub setup: PipelineSetup,
    /// Seconds of the first run.
    pub first_run_seconds: f64,
    /// SHA-256 of what it computes.
    pub fingerprint: String,
    /// The ONNX file that runs the first picture.
    pub file: String,
    /// Its number format, where the bundle tells.
    pub precision: Option<Precision>,
    /// In how many pieces the first picture is run, and how many pixels these have for each of its own.
    pub pieces: (usize, f64),
}

#[derive(Debug)]
enum Way {
    Direct(Mutex<Segmenter>, Option<ThreadPool>),
    Scheduler(Scheduler),
    Pipeline(Mutex<Pipeline>),
}

impl InProcessTarget {
    /// Opens a bundle as a scenario asks for it. Where the options do not say what cores are used for, one picture at a time
    /// has all of them, and many at a time have a session for each core.
    pub fn open(
        bundle: &Path,
        scenario: Scenario,
        images: &BenchImages,
        how: &OpenOptions,
    ) -> Result<Self, SegmentError> {
        let mut options = how.config.clone();
        let one = scenario == Scenario::SingleStream;
        options.mode = options.mode.or(Some(if one {
            ExecutionMode::Latency
        } else {
            ExecutionMode::Throughput
        }));
        if one {
            options.gpu_sessions = NonZeroUsize::new(1);
        }
        let pipeline = Pipeline::open(bundle, &options, None)?;
        let setup = pipeline.setup().clone();
        let segmenter = pipeline.segmenter();
        let picture = &images.get(0).image;
        let size = [picture.height() as usize, picture.width() as usize];
        let (fingerprint, file) = (
            segmenter.fingerprint().to_owned(),
            segmenter.file_name_for(size, Outputs::default()).to_owned(),
        );
        let precision = segmenter.precision();
        let pieces = segmenter.tiling(size)?;
        let (way, first_run_seconds) = Way::new(scenario, pipeline, &options, picture)?;
        let facts = ModelFacts { setup, first_run_seconds, fingerprint, file, precision, pieces };
        let stop = Arc::clone(&how.stop);
        Ok(Self { way, images: images.clone(), end_to_end: how.end_to_end, stop, facts })
    }

    /// What is known of it.
    pub fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    /// What a pipeline makes of pictures that are all there from the start.
    fn all_at_once(&self, pipeline: &Mutex<Pipeline>, first: usize, count: usize) -> LoadResult {
        let mut pipeline = pipeline.lock().unwrap_or_else(PoisonError::into_inner);
        let start = Instant::now();
        let samples = Mutex::new(Vec::new());
        let open = |index: usize| {
            let sheet = self.images.get(first + index);
            let pixels = u64::from(sheet.image.width()) * u64::from(sheet.image.height());
            let decode = move || {
                let image =
                    if self.end_to_end { decode(sheet)? } else { sheet.image.as_ref().clone() };
                Ok(DecodedImage { image, extra: () })
            };
            Ok(PendingImage { pixels, decode })
        };
        let encode = |_, _: DecodedImage<()>, decided: Prediction| {
            if self.end_to_end {
                encode(decided)?;
            }
            let sample = QuerySample {
                due: Duration::ZERO,
                late: Duration::ZERO,
                latency: start.elapsed(),
                stages: Vec::new(),
            };
            samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
            Ok(())
        };
        let control = RunControl::<RequestError> { stop: &self.stop, ..RunControl::default() };
        let report = pipeline.run(count, &control, open, encode);
        let elapsed = start.elapsed();
        let mut samples: Vec<QuerySample> =
            samples.into_inner().unwrap_or_else(PoisonError::into_inner);
        let parts = shares(&report.stages, samples.len().max(1), self.end_to_end);
        samples.iter_mut().for_each(|sample| sample.stages.clone_from(&parts));
        let errors = report.failed.into_iter().map(|(_, error)| error).chain(report.stopped);
        LoadResult {
            failed: count - samples.len(),
            first_error: errors.into_iter().next(),
            samples,
            elapsed,
        }
    }

    fn ask_directly(
        &self,
        segmenter: &Mutex<Segmenter>,
        team: Option<&ThreadPool>,
        number: usize,
    ) -> Result<RequestStages, RequestError> {
        let mut segmenter = segmenter.lock().unwrap_or_else(PoisonError::into_inner);
        let segmenter = &mut *segmenter;
        let sheet = self.images.get(number);
        let mut parts = RequestStages::new();
        install(team, || {
            let decoded = if self.end_to_end {
                Some(timed(&mut parts, "decode", || decode(sheet))?)
            } else {
                None
            };
            let before = segmenter.times();
            let image = decoded.as_ref().unwrap_or(&*sheet.image);
            let decided = segmenter
                .predict(image, Outputs::default())
                .map_err(|error| RequestError::from_error(&error))?;
            parts.extend(named(segmenter.times() - before));
            if self.end_to_end {
                timed(&mut parts, "encode", || encode(decided))?;
            }
            Ok(parts)
        })
    }

    async fn ask_engine(
        &self,
        engine: &Scheduler,
        number: usize,
    ) -> Result<RequestStages, RequestError> {
        let sheet = self.images.get(number).clone();
        let mut parts = RequestStages::new();
        let picture = if self.end_to_end {
            let start = Instant::now();
            let image = aside(move || decode(&sheet)).await?;
            parts.push(("decode", start.elapsed()));
            Arc::new(image)
        } else {
            sheet.image
        };
        let ask = PredictRequest { image: picture, outputs: Outputs::default() };
        let ticket = engine.submit(ask).map_err(|error| RequestError::from_error(&error))?;
        let made = ticket.await.map_err(|_| RequestError("the engine was closed".to_owned()))?;
        let made = made.map_err(|error| RequestError::from_error(&error))?;
        parts.extend([
            ("queue", made.times[Stage::Queue]),
            ("compute", made.times.run()),
            ("stitch", made.times[Stage::Stitch]),
        ]);
        if self.end_to_end {
            let start = Instant::now();
            aside(move || encode(made.prediction)).await?;
            parts.push(("encode", start.elapsed()));
        }
        Ok(parts)
    }
}

impl Way {
    /// Makes it ready for pictures such as one, and says how many seconds the first run took.
    fn new(
        scenario: Scenario,
        mut pipeline: Pipeline,
        options: &EngineConfig,
        picture: &RgbImage,
    ) -> Result<(Self, f64), SegmentError> {
        let start = Instant::now();
        let mut first = None;
        if scenario == Scenario::Offline {
            pipeline.for_each_segmenter(|segmenter| {
                segmenter.predict(picture, Outputs::default())?;
                first.get_or_insert_with(|| start.elapsed().as_secs_f64());
                Ok::<(), SegmentError>(())
            })?;
            return Ok((Self::Pipeline(Mutex::new(pipeline)), first.unwrap_or_default()));
        }
        let (mut segmenters, setup) = pipeline.into_segmenters();
        for segmenter in &mut segmenters {
            segmenter.predict(picture, Outputs::default())?;
            first.get_or_insert_with(|| start.elapsed().as_secs_f64());
        }
        let first = first.unwrap_or_default();
        if scenario == Scenario::SingleStream {
            return Ok((
                Self::Direct(Mutex::new(segmenters.swap_remove(0)), thread_pool(setup.threads)),
                first,
            ));
        }
        let gpu = setup.devices.iter().all(|device| device.is_gpu());
        let limit = BatchLimit::default_for(options.batch, gpu);
        let options = SchedulerOptions { limit, delay: Duration::ZERO, threads: setup.threads };
        let metrics = Metrics::default().for_model("bench", &segmenters[0].model().classes);
        let engine =
            Scheduler::start(segmenters, options, metrics).map_err(SegmentError::Threads)?;
        Ok((Self::Scheduler(engine), first))
    }
}

impl Target for InProcessTarget {
    async fn request(&self, picture: usize) -> Result<RequestStages, RequestError> {
        match &self.way {
            Way::Direct(segmenter, team) => self.ask_directly(segmenter, team.as_ref(), picture),
            Way::Scheduler(engine) => self.ask_engine(engine, picture).await,
            Way::Pipeline(pipeline) => {
                let LoadResult { first_error, .. } = self.all_at_once(pipeline, picture, 1);
                first_error.map_or(Ok(RequestStages::new()), Err)
            }
        }
    }

    async fn request_all(&self, first: usize, count: usize) -> LoadResult {
        match &self.way {
            Way::Pipeline(pipeline) => self.all_at_once(pipeline, first, count),
            Way::Direct(..) | Way::Scheduler(_) => {
                super::load::request_concurrently(self, first, count).await
            }
        }
    }
}

impl From<SegmentError> for RequestError {
    fn from(error: SegmentError) -> Self {
        Self::from_error(&error)
    }
}

/// Parts of a segmenter's work; those that took no time do not happen on its device.
fn named(times: StageTimes) -> RequestStages {
    times.iter().map(|(stage, took)| (stage.name(), took)).collect()
}

/// Each picture's share of the stages of a run. From pixels to labels nothing is decoded or encoded, and what readers and
/// writers do then, copying pixels, is no stage.
fn shares(stages: &StageReport, pictures: usize, end_to_end: bool) -> RequestStages {
    let StageReport { decode, run, stitch, decide, encode, .. } = stages;
    let stitch = stitch.seconds + decide.seconds;
    let all = [
        ("decode", decode.seconds),
        ("compute", run.seconds),
        ("stitch", stitch),
        ("encode", encode.seconds),
    ];
    let share = |(name, seconds): (&'static str, f64)| {
        (name, Duration::from_secs_f64(seconds / pictures as f64))
    };
    let counts =
        |(name, _): &(&'static str, f64)| end_to_end || !["decode", "encode"].contains(name);
    all.into_iter().filter(counts).map(share).collect()
}

fn timed<R>(
    parts: &mut RequestStages,
    name: &'static str,
    work: impl FnOnce() -> Result<R, RequestError>,
) -> Result<R, RequestError> {
    let start = Instant::now();
    let result = work()?;
    parts.push((name, start.elapsed()));
    Ok(result)
}

fn decode(sheet: &BenchImage) -> Result<RgbImage, RequestError> {
    image_file::decode(&sheet.file, image_file::MAX_PIXELS)
        .map_err(|error| RequestError::from_error(&error))
}

fn encode(decided: Prediction) -> Result<Vec<u8>, RequestError> {
    LabelMap::from(decided).ids_png().map_err(|error| RequestError::from_error(&error))
}

/// Does work that keeps a core busy away from the threads that wait.
async fn aside<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, RequestError> + Send + 'static,
) -> Result<R, RequestError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| RequestError("the program failed at this picture".to_owned()))?
}
