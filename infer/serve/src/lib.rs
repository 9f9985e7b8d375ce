//! Segmentation service: admission by pixels, batching across requests, and two front ends, HTTP
//! and gRPC, for the Open Inference Protocol.
//!
//! Both front ends end in [`Service::label`], which hands an admitted image to the
//! [`scheduler::Scheduler`] of its model and awaits the prediction. Requests beyond the limits are
//! refused before they cost memory or time.
//!
//! **Invariant:** nothing here knows the command line.

mod body;
pub mod budget;
mod error;
pub mod grpc;
pub mod http;
mod limited_body;
pub mod listener;
pub mod metrics;
mod middleware;
pub mod oip;
mod queue;
pub mod registry;
pub mod scheduler;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use image::RgbImage;
use protoseg_images::image_file::{EncodedImage, NotedImage};
use protoseg_images::notes::NoteCollector;
use protoseg_infer::{Outputs, Stage, machine};
use tokio::sync::Semaphore;

use self::budget::{Budget, BudgetExceeded, MAX_PERMIT, PIXEL_BYTES, Permit};
pub use self::error::ServiceError;
use self::error::{bad_request, too_large};
use self::metrics::Metrics;
pub use self::middleware::ApiKey;
pub use self::queue::BatchLimit;
use self::registry::{LoadedModel, ModelRegistry};
use self::scheduler::{PredictRequest, PredictResponse};

/// Shared state of both front ends.
#[derive(Debug, Clone)]
pub struct AppState {
    pub service: Arc<Service>,
    /// Key that requests must carry.
    pub key: Option<ApiKey>,
    /// Allows requests to load and unload models.
    pub repository: bool,
    /// Origins that browsers may call the HTTP front end from, beside its own page; `*` for all.
    pub origins: Vec<axum::http::HeaderValue>,
}

#[derive(Debug, Clone, Copy)]
pub struct ServiceLimits {
    /// Pixels of one image.
    pub image_pixels: u64,
    /// Pixels of all admitted images: decoded, queued, running, being answered.
    pub queue_pixels: u64,
    /// Bytes of one request.
    pub body_bytes: u64,
    /// Bytes of all requests whose images are not decoded yet.
    pub bodies_bytes: u64,
    /// From the head of a request to its response.
    pub deadline: Duration,
    /// For the body of a request to arrive.
    pub body_timeout: Duration,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            image_pixels: 40_000_000,
            queue_pixels: 64_000_000,
            body_bytes: 64 << 20,
            bodies_bytes: 256 << 20,
            deadline: Duration::from_secs(30),
            body_timeout: Duration::from_secs(20),
        }
    }
}

/// Models behind limits.
#[derive(Debug)]
pub struct Service {
    pub models: ModelRegistry,
    pub limits: ServiceLimits,
    pub metrics: Arc<Metrics>,
    pixels: Budget,
    bodies: Budget,
    notes: NoteCollector,
    /// Limits concurrent decoding and encoding to the cores: more would hold more images and be no
    /// faster.
    cpu_permits: Arc<Semaphore>,
    draining: AtomicBool,
}

/// A decoded image with its permit.
#[derive(Debug)]
pub struct AdmittedImage {
    image: RgbImage,
    permit: Permit,
}

impl AdmittedImage {
    /// Takes the pixels of an image, RGB `[height, width, 3]`.
    pub fn from_pixels(
        pixels: Vec<u8>,
        [height, width]: [usize; 2],
        permit: Permit,
    ) -> Result<Self, ServiceError> {
        let image = RgbImage::from_raw(width as u32, height as u32, pixels)
            .ok_or_else(|| bad_request("pixels do not match their shape"))?;
        Ok(Self { image, permit })
    }

    /// Height and width.
    pub fn size(&self) -> [usize; 2] {
        [self.image.height() as usize, self.image.width() as usize]
    }
}

/// An image and its prediction, with the permit to be kept until the response is sent.
#[derive(Debug)]
pub struct LabeledImage {
    pub image: Arc<RgbImage>,
    pub response: PredictResponse,
    pub permit: Permit,
}

impl Service {
    pub fn new(models: ModelRegistry, mut limits: ServiceLimits, metrics: Arc<Metrics>) -> Self {
        limits.body_bytes = limits.body_bytes.min(MAX_PERMIT);
        Self {
            models,
            limits,
            metrics,
            pixels: Budget::new(limits.queue_pixels),
            bodies: Budget::new(limits.bodies_bytes),
            notes: NoteCollector::default(),
            cpu_permits: Arc::new(Semaphore::new(machine::cores())),
            draining: AtomicBool::new(false),
        }
    }

    /// True while all models are ready and the server is not draining.
    pub fn is_ready(&self) -> bool {
        !self.is_draining() && self.models.all_ready()
    }

    /// Reports not ready from now on; requests are still answered.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Loads or reloads a model.
    pub async fn load(self: &Arc<Self>, model: String) -> Result<(), ServiceError> {
        let service = Arc::clone(self);
        // Takes seconds, so without a permit of `cpu_permits`.
        let loaded =
            tokio::task::spawn_blocking(move || service.models.load(&model)).await.map_err(
                |_| ServiceError::Internal("internal error: loading the model panicked".into()),
            )?;
        let LoadedModel { name, version, .. } = &*loaded?;
        tracing::info!(model = name, version, "loaded");
        Ok(())
    }

    pub fn unload(&self, model: &str) -> Result<(), ServiceError> {
        self.models.unload(model)?;
        tracing::info!(model, "unloaded");
        Ok(())
    }

    /// Renders the metrics in the OpenMetrics text format.
    pub fn metrics_text(&self) -> String {
        for status in self.models.list() {
            self.metrics.record_ready(&status.name, status.is_ready());
        }
        self.metrics.text(self.pixels.held(), self.pixels.limit())
    }

    /// Refuses a request of so many bytes where it exceeds the limit.
    pub(crate) fn check_length(&self, bytes: u64) -> Result<(), ServiceError> {
        let limit = self.limits.body_bytes;
        if bytes > limit {
            let why = format!("the request has {bytes} bytes, more than the limit of {limit}");
            return Err(too_large(why));
        }
        Ok(())
    }

    pub(crate) fn acquire_body_bytes(&self, bytes: u64) -> Result<Permit, ServiceError> {
        self.check_length(bytes)?;
        self.bodies.try_acquire(bytes).map_err(|exceeded| self.overloaded(exceeded, None))
    }

    /// Grows the permit of a request that has `sum` bytes by now.
    pub(crate) fn grow_body_bytes(
        &self,
        permit: &mut Permit,
        sum: u64,
    ) -> Result<(), ServiceError> {
        let limit = self.limits.body_bytes;
        if sum > limit {
            return Err(too_large(format!("the request has more bytes than the limit of {limit}")));
        }
        let more = sum.saturating_sub(permit.amount());
        permit.grow(more).map_err(|exceeded| self.overloaded(exceeded, None))
    }

    /// Admits an image of `[height, width]` pixels if it fits the limits and the model is likely to
    /// answer in time.
    pub fn admit(
        &self,
        model: &LoadedModel,
        [height, width]: [usize; 2],
    ) -> Result<Permit, ServiceError> {
        let pixels = (height as u64).saturating_mul(width as u64);
        let limit = self.limits.image_pixels;
        if pixels > limit {
            return Err(too_large(format!(
                "the image has {width}x{height} pixels, more than the limit of {limit}"
            )));
        }
        let outputs = Outputs { logits: model.gives_logits, ..Outputs::default() };
        let cost = model.scheduler.cost([height, width], outputs)?;
        let budget = pixels.saturating_add(cost.bytes / PIXEL_BYTES);
        let limit = self.limits.queue_pixels.min(MAX_PERMIT);
        if budget > limit {
            return Err(too_large(format!(
                "an image of {width}x{height} takes the memory of {budget} pixels, and the server has that of {limit}"
            )));
        }
        let deadline = self.limits.deadline;
        if let Some(estimate) = model.scheduler.estimate(cost.pixels) {
            if estimate.run > deadline {
                let (run, deadline) = (estimate.run.as_secs_f64(), deadline.as_secs_f64());
                return Err(too_large(format!(
                    "an image of {width}x{height} takes this server about {run:.0} s, and a request may take {deadline} s; \
                     send it in parts"
                )));
            }
            if estimate.done > deadline {
                let wait = (estimate.done - deadline).min(deadline);
                return Err(ServiceError::Overloaded { retry: retry_seconds(wait) });
            }
        }
        self.pixels.try_acquire(budget).map_err(|exceeded| self.overloaded(exceeded, Some(model)))
    }

    /// Estimates the wait for the missing pixels from the model's throughput.
    fn overloaded(&self, exceeded: BudgetExceeded, model: Option<&LoadedModel>) -> ServiceError {
        let rate = model.and_then(|model| model.scheduler.pixels_per_second());
        let wait = rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64((exceeded.missing as f64 / rate).min(3600.0))
        });
        ServiceError::Overloaded { retry: retry_seconds(wait.min(self.limits.deadline)) }
    }

    /// Decodes an image file once its size is admitted.
    pub async fn decode(
        self: &Arc<Self>,
        model: &Arc<LoadedModel>,
        bytes: bytes::Bytes,
    ) -> Result<AdmittedImage, ServiceError> {
        let (service, admitting) = (Arc::clone(self), Arc::clone(model));
        let start = Instant::now();
        let decode = move || {
            let encoded = EncodedImage::new(bytes, service.limits.image_pixels)?;
            let permit = service.admit(&admitting, encoded.size())?;
            let reading = admitting.model.reading;
            let NotedImage { image, notes, .. } = encoded.decode_as(reading)?;
            for warning in service.notes.add_once("a request's image", &notes) {
                tracing::warn!(model = admitting.name, "{warning} (told once)");
            }
            Ok(AdmittedImage { image, permit })
        };
        let admitted = self.run_blocking(decode).await?;
        model.metrics.record_stage(Stage::Decode, start.elapsed());
        Ok(admitted)
    }

    /// Labels an image. Dropping the future, as the front ends do at the deadline, removes the
    /// image from the queue.
    pub async fn label(
        &self,
        model: &LoadedModel,
        AdmittedImage { image, permit }: AdmittedImage,
        outputs: Outputs,
    ) -> Result<LabeledImage, ServiceError> {
        let image = Arc::new(image);
        let outputs =
            Outputs { confidence: outputs.confidence && model.gives_confidence, ..outputs };
        let request = PredictRequest { image: Arc::clone(&image), outputs };
        let response = model
            .scheduler
            .submit(request)?
            .await
            .map_err(|_| ServiceError::Internal("the model gave no answer".to_owned()))??;
        let times = response.times;
        for stage in [Stage::Queue, Stage::Compute, Stage::Stitch] {
            model.metrics.record_stage(stage, times[stage]);
        }
        model.metrics.record_prediction(&response.prediction);
        Ok(LabeledImage { image, response, permit })
    }

    /// Runs CPU-bound work away from the async threads, as much at once as there are cores.
    pub async fn run_blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<R, ServiceError> + Send + 'static,
    ) -> Result<R, ServiceError> {
        let permit = Arc::clone(&self.cpu_permits)
            .acquire_owned()
            .await
            .map_err(|_| ServiceError::Unavailable("the server stops".to_owned()))?;
        // Work that has begun keeps its permit even where nobody awaits it any more.
        let work = move || {
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| {
            ServiceError::Internal("internal error: this request made the server panic".to_owned())
        })?
    }
}

/// Whole seconds, at least one, for `Retry-After`.
fn retry_seconds(wait: Duration) -> u64 {
    (wait.as_secs_f64().ceil() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Service {
        /// A service without models.
        pub(crate) fn empty() -> Self {
            let metrics = Arc::new(Metrics::default());
            let options = registry::ModelOptions {
                engine: Default::default(),
                limit: BatchLimit { windows: 1, pixels: 1 },
                delay: Duration::ZERO,
                logits: false,
            };
            let models = ModelRegistry::new(Vec::new(), options, Arc::clone(&metrics));
            Self::new(models, ServiceLimits::default(), metrics)
        }
    }

    #[tokio::test]
    async fn work_that_has_begun_keeps_its_permit_when_nobody_awaits_it() {
        let service = Service::empty();
        let go = Arc::new(AtomicBool::new(false));
        for _ in 0..machine::cores() {
            let go = Arc::clone(&go);
            let work = service.run_blocking(move || {
                while !go.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            });
            assert!(tokio::time::timeout(Duration::from_millis(20), work).await.is_err());
        }
        assert_eq!(service.cpu_permits.available_permits(), 0);
        go.store(true, Ordering::Relaxed);
        assert_eq!(service.run_blocking(|| Ok(7)).await.unwrap(), 7);
    }
}
