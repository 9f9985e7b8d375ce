//! Segmentation as a service: loaded models, admission of requests by their pixels, batches of windows across requests, and
//! two front ends, HTTP and gRPC, on the Open Inference Protocol.
//!
//! [`Service::label`] is what both front ends come to: it admits a picture, gives it to the model's [`scheduler::Scheduler`] and
//! waits. What is beyond the limits is refused before it costs anything.

pub mod budget;
mod error;
pub mod grpc;
pub mod http;
pub mod listener;
pub mod metrics;
pub mod oip;
mod queue;
pub mod registry;
pub mod scheduler;
mod throughput;
mod tracing_context;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use image::RgbImage;

use self::budget::{Budget, BudgetExceeded, PIXEL_BYTES, Permit};
pub use self::error::ServiceError;
use self::metrics::Metrics;
pub use self::queue::BatchLimit;
use self::registry::{LoadedModel, ModelRegistry};
use self::scheduler::{PredictRequest, PredictResponse};
use protoseg_images::image_file;
use protoseg_infer::{Outputs, Stage};

/// What a service allows.
#[derive(Debug, Clone, Copy)]
pub struct ServiceLimits {
    /// Pixels of one picture.
    pub image_pixels: u64,
    /// Pixels of all pictures that are held: read, waiting, running, being answered.
    pub queue_pixels: u64,
    /// Bytes of one request.
    pub body_bytes: u64,
    /// Bytes of all requests whose pictures are not decoded yet.
    pub bodies_bytes: u64,
    /// Time from the head of a request to its answer.
    pub deadline: Duration,
    /// Time for a request's body to arrive.
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
    /// The models.
    pub models: ModelRegistry,
    /// What is allowed.
    pub limits: ServiceLimits,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    pixels: Arc<Budget>,
    bodies: Arc<Budget>,
    /// Threads for decoding and encoding; more would hold more pictures at once, and be no faster.
    workers: Arc<tokio::sync::Semaphore>,
    draining: AtomicBool,
}

/// A picture that was labelled, with the share of the pixels that it holds until it is dropped.
#[derive(Debug)]
pub struct LabeledImage {
    /// The picture.
    pub image: Arc<RgbImage>,
    /// What the model made of it.
    pub response: PredictResponse,
    permit: Permit,
}

impl LabeledImage {
    /// The parts: the picture, what was made of it, and what must be kept for as long as either is.
    pub fn into_parts(self) -> (Arc<RgbImage>, PredictResponse, Permit) {
        (self.image, self.response, self.permit)
    }
}

/// A picture with its share of the pixels.
#[derive(Debug)]
pub struct AdmittedImage {
    picture: RgbImage,
    permit: Permit,
}

impl AdmittedImage {
    /// Height and width.
    pub fn size(&self) -> [usize; 2] {
        [self.picture.height() as usize, self.picture.width() as usize]
    }
}

impl Service {
    /// Models behind limits.
    pub fn new(models: ModelRegistry, limits: ServiceLimits, metrics: Arc<Metrics>) -> Self {
        Self {
            models,
            limits,
            metrics,
            pixels: Budget::new(limits.queue_pixels),
            bodies: Budget::new(limits.bodies_bytes),
            workers: Arc::new(tokio::sync::Semaphore::new(protoseg_infer::machine::cores())),
            draining: AtomicBool::new(false),
        }
    }

    /// Whether it is ready for requests: all models are, and it is not being stopped.
    pub fn is_ready(&self) -> bool {
        !self.is_draining() && self.models.all_ready()
    }

    /// From now on it is not ready; requests are still answered.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether it is being stopped.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Loads a model on request, anew if it is loaded.
    pub async fn load(self: &Arc<Self>, model: String) -> Result<(), ServiceError> {
        let service = Arc::clone(self);
        // Not among the threads that decode pictures: it takes seconds.
        let loaded = tokio::task::spawn_blocking(move || service.models.load(&model)).await;
        let served = loaded.map_err(|_| {
            ServiceError::Internal("the program failed at loading the model".to_owned())
        })??;
        tracing::info!(model = served.name, version = served.version, "loaded");
        Ok(())
    }

    /// Takes a model away on request.
    pub fn unload(&self, model: &str) -> Result<(), ServiceError> {
        self.models.unload(model)?;
        tracing::info!(model, "unloaded");
        Ok(())
    }

    /// The metrics as text.
    pub fn metrics_text(&self) -> String {
        for listed in self.models.list() {
            self.metrics.ready(&listed.name, listed.is_ready());
        }
        self.metrics.text(self.pixels.held(), self.pixels.limit())
    }

    /// Whether a request may be so long at all.
    pub fn check_length(&self, bytes: u64) -> Result<(), ServiceError> {
        let limit = self.limits.body_bytes;
        if bytes > limit {
            return Err(ServiceError::PayloadTooLarge(format!(
                "the request has {bytes} bytes, more than the limit of {limit}"
            )));
        }
        Ok(())
    }

    /// Room for a request's bytes.
    pub fn acquire_body_bytes(&self, bytes: u64) -> Result<Permit, ServiceError> {
        self.check_length(bytes)?;
        self.bodies.try_acquire(bytes).map_err(|full| self.busy(full, None))
    }

    /// Room for more bytes of a request, of which there are now `sum`.
    pub fn grow_body_bytes(
        &self,
        share: &mut Permit,
        sum: u64,
        more: u64,
    ) -> Result<(), ServiceError> {
        let limit = self.limits.body_bytes;
        if sum > limit {
            return Err(ServiceError::PayloadTooLarge(format!(
                "the request has more bytes than the limit of {limit}"
            )));
        }
        share.grow(more).map_err(|full| self.busy(full, None))
    }

    /// Room for a picture of `[height, width]` pixels, where the model is likely to answer in time.
    pub fn admit(
        &self,
        served: &LoadedModel,
        [height, width]: [usize; 2],
    ) -> Result<Permit, ServiceError> {
        let pixels = (height as u64).saturating_mul(width as u64);
        let limit = self.limits.image_pixels;
        if pixels > limit {
            let why =
                format!("the picture has {width}x{height} pixels, more than the limit of {limit}");
            return Err(ServiceError::PayloadTooLarge(why));
        }
        let outputs = Outputs { logits: served.gives_logits, ..Outputs::default() };
        let cost = served.scheduler.cost([height, width], outputs)?;
        let room = pixels.saturating_add(cost.bytes / PIXEL_BYTES);
        let limit = self.limits.queue_pixels;
        if room > limit {
            let why = format!(
                "a picture of {width}x{height} takes the room of {room} pixels, and the server has {limit}"
            );
            return Err(ServiceError::PayloadTooLarge(why));
        }
        let deadline = self.limits.deadline;
        match served.scheduler.estimate(cost.pixels) {
            Some([own, _]) if own > deadline => {
                let (own, deadline) = (own.as_secs_f64(), deadline.as_secs_f64());
                let why = format!(
                    "a picture of {width}x{height} takes this server about {own:.0} s, and a request may take {deadline} s; send \
                     it in parts"
                );
                return Err(ServiceError::PayloadTooLarge(why));
            }
            Some([_, all]) if all > deadline => {
                return Err(ServiceError::Overloaded {
                    retry: seconds((all - deadline).min(deadline)),
                });
            }
            _ => {}
        }
        self.pixels.try_acquire(room).map_err(|full| self.busy(full, Some(served)))
    }

    fn busy(&self, full: BudgetExceeded, served: Option<&LoadedModel>) -> ServiceError {
        let rate = served.and_then(|served| served.scheduler.pixels_per_second());
        let missing = (full.held + full.asked).saturating_sub(full.limit);
        let wait = rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64((missing as f64 / rate).min(3600.0))
        });
        ServiceError::Overloaded { retry: seconds(wait.min(self.limits.deadline)) }
    }

    /// A picture of pixels, RGB `[height, width, 3]`; its size was checked.
    pub fn admitted_image(
        &self,
        pixels: Vec<u8>,
        [height, width]: [usize; 2],
        share: Permit,
    ) -> Result<AdmittedImage, ServiceError> {
        let picture = RgbImage::from_raw(width as u32, height as u32, pixels);
        let picture =
            picture.ok_or_else(|| ServiceError::bad_request("pixels do not match their shape"))?;
        Ok(AdmittedImage { picture, permit: share })
    }

    /// Decodes a picture file, once its size has been admitted.
    pub async fn decode(
        self: &Arc<Self>,
        served: &Arc<LoadedModel>,
        bytes: bytes::Bytes,
    ) -> Result<AdmittedImage, ServiceError> {
        let (service, owned) = (Arc::clone(self), Arc::clone(served));
        let start = Instant::now();
        let decoded = self.work(move || {
            let encoded = image_file::EncodedImage::new(bytes, service.limits.image_pixels)?;
            let share = service.admit(&owned, encoded.size())?;
            Ok(AdmittedImage { picture: encoded.decode()?, permit: share })
        });
        let admitted = decoded.await?;
        served.metrics.record_stage(Stage::Decode, start.elapsed());
        Ok(admitted)
    }

    /// Labels a picture. Whoever drops the future, as the front ends do at the deadline, takes the picture out of the queue.
    pub async fn label(
        &self,
        served: &LoadedModel,
        admitted: AdmittedImage,
        wanted: Outputs,
    ) -> Result<LabeledImage, ServiceError> {
        let AdmittedImage { picture, permit: share } = admitted;
        let picture = Arc::new(picture);
        let wanted = Outputs { confidence: wanted.confidence && served.gives_confidence, ..wanted };
        let ticket = served
            .scheduler
            .submit(PredictRequest { image: Arc::clone(&picture), outputs: wanted })?;
        let made = ticket
            .await
            .map_err(|_| ServiceError::Internal("the model gave no answer".to_owned()))??;
        let times = made.times;
        for stage in [Stage::Queue, Stage::Compute, Stage::Stitch] {
            served.metrics.record_stage(stage, times[stage]);
        }
        served.metrics.record_prediction(&made.prediction);
        Ok(LabeledImage { image: picture, response: made, permit: share })
    }

    /// Does work that keeps a core busy, away from the threads that wait for the network; as many at once as there are
    /// cores.
    pub async fn work<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<R, ServiceError> + Send + 'static,
    ) -> Result<R, ServiceError> {
        let stopped = || ServiceError::Unavailable("the server stops".to_owned());
        let permit = Arc::clone(&self.workers).acquire_owned().await.map_err(|_| stopped())?;
        // Who leaves does not end work that has begun: until it is done, no other takes its place.
        let work = move || {
            let _permit = permit;
            work()
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|_| ServiceError::Internal("the program failed at this request".to_owned()))?
    }
}

/// Whole seconds, at least one, for `Retry-After`.
fn seconds(wait: Duration) -> u64 {
    (wait.as_secs_f64().ceil() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::registry::ModelOptions;
    use super::*;

    #[tokio::test]
    async fn work_that_has_begun_keeps_its_place_when_nobody_waits_for_it() {
        let limit = BatchLimit { windows: 1, pixels: 1 };
        let options = ModelOptions {
            engine: Default::default(),
            limit,
            delay: Duration::ZERO,
            logits: false,
        };
        let metrics = Arc::new(Metrics::default());
        let models = ModelRegistry::new(Vec::new(), options, Arc::clone(&metrics));
        let service = Service::new(models, ServiceLimits::default(), metrics);
        let go = Arc::new(AtomicBool::new(false));
        for _ in 0..protoseg_infer::machine::cores() {
            let go = Arc::clone(&go);
            let work = service.work(move || {
                while !go.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            });
            assert!(tokio::time::timeout(Duration::from_millis(20), work).await.is_err());
        }
        assert_eq!(service.workers.available_permits(), 0);
        go.store(true, Ordering::Relaxed);
        assert_eq!(service.work(|| Ok(7)).await.unwrap(), 7);
    }
}
