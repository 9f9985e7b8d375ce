//! A model in this process as a target: a segmenter for single images, the server's scheduler with
//! its queue, or the pipeline that labels folders.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use image::RgbImage;
use protoseg_images::image_file::MAX_PIXELS;
use protoseg_images::label_map::LabelMap;
use protoseg_infer::config::ExecutionMode;
use protoseg_infer::pipeline::{
    DecodedImage, PendingImage, Pipeline, PipelineSetup, RunControl, StageReport, install,
    thread_pool,
};
use protoseg_infer::segmenter::{SegmentError, Segmenter};
use protoseg_infer::{EngineConfig, Outputs, Prediction, Stage, StageTimes};
use protoseg_models::variant::Precision;
use protoseg_serve::BatchLimit;
use protoseg_serve::metrics::Metrics;
use protoseg_serve::scheduler::{PredictRequest, Scheduler, SchedulerOptions};
use rayon::ThreadPool;

use super::images::{BenchImage, BenchImages};
use super::load::{
    LoadResult, QuerySample, RequestError, RequestStages, Scenario, Target, request_concurrently,
};

/// How a model is opened and asked.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    pub config: EngineConfig,
    /// Requests include decoding image files and encoding label files.
    pub end_to_end: bool,
    /// Once true, no more offline images are begun.
    pub stop: Arc<AtomicBool>,
}

/// A model that is open.
#[derive(Debug)]
pub struct InProcessTarget {
    engine: TargetEngine,
    images: BenchImages,
    end_to_end: bool,
    stop: Arc<AtomicBool>,
    facts: ModelFacts,
}

/// Facts of an open model.
#[derive(Debug, Clone)]
pub struct ModelFacts {
    pub setup: PipelineSetup,
    pub first_run_seconds: f64,
    /// SHA-256 of what it computes.
    pub fingerprint: String,
    /// The ONNX file that runs the first image.
    pub file: String,
    pub precision: Option<Precision>,
    /// Windows of the first image, and pixels that the network runs per pixel of it.
    pub tiling: (usize, f64),
}

#[derive(Debug)]
enum TargetEngine {
    Segmenter(Mutex<Segmenter>, Option<ThreadPool>),
    Scheduler(Scheduler),
    Pipeline(Mutex<Pipeline>),
}

impl InProcessTarget {
    /// Opens a bundle for a scenario. Unless the options say otherwise, single images use all
    /// cores, and concurrent ones a session per core.
    pub fn open(
        bundle: &Path,
        scenario: Scenario,
        images: &BenchImages,
        options: &OpenOptions,
    ) -> Result<Self, SegmentError> {
        let mut config = options.config.clone();
        if scenario == Scenario::SingleStream {
            config.mode = config.mode.or(Some(ExecutionMode::Latency));
            config.gpu_sessions = NonZeroUsize::new(1);
        } else {
            config.mode = config.mode.or(Some(ExecutionMode::Throughput));
        }
        let pipeline = Pipeline::open(bundle, &config, None)?;
        let image = &images.get(0).image;
        let size = [image.height() as usize, image.width() as usize];
        let segmenter = pipeline.segmenter();
        let mut facts = ModelFacts {
            setup: pipeline.setup().clone(),
            first_run_seconds: 0.0,
            fingerprint: segmenter.fingerprint().to_owned(),
            file: segmenter.file_name_for(size, Outputs::default()).to_owned(),
            precision: segmenter.precision(),
            tiling: segmenter.tiling(size)?,
        };
        let (engine, first_run_seconds) = TargetEngine::new(scenario, pipeline, &config, image)?;
        facts.first_run_seconds = first_run_seconds;
        let stop = Arc::clone(&options.stop);
        Ok(Self { engine, images: images.clone(), end_to_end: options.end_to_end, stop, facts })
    }

    pub fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    /// Runs images through the pipeline.
    fn run_pipeline(&self, pipeline: &Mutex<Pipeline>, first: usize, count: usize) -> LoadResult {
        let mut pipeline = pipeline.lock().unwrap_or_else(PoisonError::into_inner);
        let start = Instant::now();
        let samples = Mutex::new(Vec::new());
        let open = |index: usize| {
            let image = self.images.get(first + index);
            let pixels = u64::from(image.image.width()) * u64::from(image.image.height());
            let decode = move || {
                let image =
                    if self.end_to_end { decode(image)? } else { image.image.as_ref().clone() };
                Ok(DecodedImage { image, extra: () })
            };
            Ok(PendingImage { pixels, decode })
        };
        let encode = |_, _: DecodedImage<()>, prediction: Prediction| {
            if self.end_to_end {
                encode(prediction)?;
            }
            let latency = start.elapsed();
            let (due, late, stages) = (Duration::ZERO, Duration::ZERO, Vec::new());
            let sample = QuerySample { due, late, latency, stages };
            samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
            Ok(())
        };
        let control = RunControl::<RequestError> { stop: &self.stop, ..RunControl::default() };
        let report = pipeline.run(count, &control, open, encode);
        let elapsed = start.elapsed();
        let mut samples = samples.into_inner().unwrap_or_else(PoisonError::into_inner);
        let stages = mean_stages(&report.stages, samples.len().max(1), self.end_to_end);
        for sample in &mut samples {
            sample.stages.clone_from(&stages);
        }
        let mut errors = report.failed.into_iter().map(|(_, error)| error).chain(report.stopped);
        LoadResult { failed: count - samples.len(), first_error: errors.next(), samples, elapsed }
    }

    fn run_segmenter(
        &self,
        segmenter: &Mutex<Segmenter>,
        pool: Option<&ThreadPool>,
        number: usize,
    ) -> Result<RequestStages, RequestError> {
        let mut segmenter = segmenter.lock().unwrap_or_else(PoisonError::into_inner);
        let segmenter = &mut *segmenter;
        let image = self.images.get(number);
        install(pool, || {
            let mut times = StageTimes::default();
            let decoded = if self.end_to_end {
                Some(times.timed(Stage::Decode, || decode(image))?)
            } else {
                None
            };
            let before = segmenter.times();
            let pixels = decoded.as_ref().unwrap_or(&*image.image);
            let prediction = segmenter.predict(pixels, Outputs::default())?;
            times += segmenter.times() - before;
            if self.end_to_end {
                times.timed(Stage::Encode, || encode(prediction))?;
            }
            Ok(request_stages(times))
        })
    }

    async fn run_scheduler(
        &self,
        scheduler: &Scheduler,
        number: usize,
    ) -> Result<RequestStages, RequestError> {
        let image = self.images.get(number).clone();
        let mut decoding = Duration::ZERO;
        let pixels = if self.end_to_end {
            let start = Instant::now();
            let decoded = on_blocking_thread(move || decode(&image)).await?;
            decoding = start.elapsed();
            Arc::new(decoded)
        } else {
            image.image
        };
        let request = PredictRequest { image: pixels, outputs: Outputs::default() };
        let submitted =
            scheduler.submit(request).map_err(|error| RequestError::from_error(&error))?;
        let response =
            submitted.await.map_err(|_| RequestError("the scheduler was closed".to_owned()))?;
        let response = response.map_err(|error| RequestError::from_error(&error))?;
        let mut times = response.times;
        // Transfers belong to runs of several images.
        let run = times.run();
        times[Stage::Upload] = Duration::ZERO;
        times[Stage::Download] = Duration::ZERO;
        times[Stage::Compute] = run;
        times[Stage::Decode] = decoding;
        if self.end_to_end {
            let start = Instant::now();
            on_blocking_thread(move || encode(response.prediction)).await?;
            times[Stage::Encode] = start.elapsed();
        }
        Ok(request_stages(times))
    }
}

impl TargetEngine {
    /// Warms all sessions up with an image, and returns the seconds of the first run.
    fn new(
        scenario: Scenario,
        mut pipeline: Pipeline,
        config: &EngineConfig,
        image: &RgbImage,
    ) -> Result<(Self, f64), SegmentError> {
        let start = Instant::now();
        let mut first = None;
        pipeline.for_each_segmenter(|segmenter| {
            segmenter.predict(image, Outputs::default())?;
            first.get_or_insert_with(|| start.elapsed().as_secs_f64());
            Ok::<(), SegmentError>(())
        })?;
        let first = first.unwrap_or_default();
        if scenario == Scenario::Offline {
            return Ok((Self::Pipeline(Mutex::new(pipeline)), first));
        }
        let (mut segmenters, setup) = pipeline.into_segmenters();
        if scenario == Scenario::SingleStream {
            let segmenter = Mutex::new(segmenters.swap_remove(0));
            return Ok((Self::Segmenter(segmenter, thread_pool(setup.threads)), first));
        }
        let is_gpu = setup.devices.iter().all(|device| device.is_gpu());
        let limit = BatchLimit::default_for(config.batch, is_gpu);
        let options = SchedulerOptions { limit, delay: Duration::ZERO, threads: setup.threads };
        let metrics = Metrics::default().for_model("bench", &segmenters[0].model().classes);
        let scheduler =
            Scheduler::start(segmenters, options, metrics).map_err(SegmentError::Threads)?;
        Ok((Self::Scheduler(scheduler), first))
    }
}

impl Target for InProcessTarget {
    async fn request(&self, image: usize) -> Result<RequestStages, RequestError> {
        match &self.engine {
            TargetEngine::Segmenter(segmenter, pool) => {
                self.run_segmenter(segmenter, pool.as_ref(), image)
            }
            TargetEngine::Scheduler(scheduler) => self.run_scheduler(scheduler, image).await,
            TargetEngine::Pipeline(pipeline) => {
                let result = self.run_pipeline(pipeline, image, 1);
                result.first_error.map_or(Ok(RequestStages::new()), Err)
            }
        }
    }

    async fn request_all(&self, first: usize, count: usize) -> LoadResult {
        match &self.engine {
            TargetEngine::Pipeline(pipeline) => self.run_pipeline(pipeline, first, count),
            TargetEngine::Segmenter(..) | TargetEngine::Scheduler(_) => {
                request_concurrently(self, first, count).await
            }
        }
    }
}

impl From<SegmentError> for RequestError {
    fn from(error: SegmentError) -> Self {
        Self::from_error(&error)
    }
}

/// Stages that took any time, with upsampling as part of stitching.
fn request_stages(mut times: StageTimes) -> RequestStages {
    let upsampling = times[Stage::Upsample];
    times[Stage::Stitch] += upsampling;
    times[Stage::Upsample] = Duration::ZERO;
    times.iter().map(|(stage, took)| (stage.name(), took)).collect()
}

/// Mean stage times per image of a pipeline's run. Without files, readers and writers only copy
/// pixels, which is no stage.
fn mean_stages(stages: &StageReport, images: usize, end_to_end: bool) -> RequestStages {
    let StageReport { decode, run, stitch, decide, encode, .. } = stages;
    let mut all = vec![
        (Stage::Compute.name(), run.seconds),
        (Stage::Stitch.name(), stitch.seconds + decide.seconds),
    ];
    if end_to_end {
        all.insert(0, (Stage::Decode.name(), decode.seconds));
        all.push((Stage::Encode.name(), encode.seconds));
    }
    let mean = |seconds: f64| Duration::from_secs_f64(seconds / images as f64);
    all.into_iter().map(|(name, seconds)| (name, mean(seconds))).collect()
}

fn decode(image: &BenchImage) -> Result<RgbImage, RequestError> {
    image.decode(MAX_PIXELS).map_err(|error| RequestError::from_error(&error))
}

fn encode(prediction: Prediction) -> Result<Vec<u8>, RequestError> {
    LabelMap::from(prediction).ids_png().map_err(|error| RequestError::from_error(&error))
}

/// Keeps work that occupies a core off the threads that wait.
async fn on_blocking_thread<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, RequestError> + Send + 'static,
) -> Result<R, RequestError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| RequestError("the program failed at this image".to_owned()))?
}
