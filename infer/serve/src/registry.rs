//! Registry of the models by name: loading, reloading without a failed request, unloading.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use protoseg_infer::EngineConfig;
use protoseg_infer::pipeline::{Pipeline, PipelineSetup};
use protoseg_infer::segmenter::{SegmentError, Segmenter};
use protoseg_models::bundle::{BundleError, Model};
use protoseg_models::errors::FileError;
use serde::Serialize;

use super::ServiceError;
use super::metrics::{Metrics, ModelMetrics};
use super::queue::BatchLimit;
use super::scheduler::{Scheduler, SchedulerOptions};

/// Suffix of the name under which a model takes image files instead of pixels.
pub const ENCODED_SUFFIX: &str = ".encoded";

#[derive(Debug, Clone)]
pub struct ModelOptions {
    pub engine: EngineConfig,
    pub limit: BatchLimit,
    /// Time that a batch that is not full waits for more windows.
    pub delay: Duration,
    /// Offers logits as an output.
    pub logits: bool,
}

/// Source of the options of a bundle; asked at every load, as the bundle may have changed.
pub trait ModelOptionsSource: std::fmt::Debug + Send + Sync {
    fn options(&self, bundle: &Path) -> ModelOptions;
}

/// The same options for all bundles.
impl ModelOptionsSource for ModelOptions {
    fn options(&self, _bundle: &Path) -> ModelOptions {
        self.clone()
    }
}

#[derive(Debug)]
pub struct LoadedModel {
    pub name: String,
    /// First 12 characters of the fingerprint.
    pub version: String,
    pub model: Model,
    pub scheduler: Scheduler,
    pub setup: PipelineSetup,
    pub metrics: ModelMetrics,
    pub gives_confidence: bool,
    pub gives_logits: bool,
    /// Height and width of all images, where they are fixed.
    pub only_size: Option<[usize; 2]>,
    /// Sizes that a body of pixels without a shape may have.
    pub raw_sizes: Vec<[usize; 2]>,
}

/// Entry of the repository index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelStatus {
    pub name: String,
    /// While it is loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `READY` or `UNAVAILABLE`.
    pub state: &'static str,
    /// Why it is not ready.
    pub reason: String,
}

impl ModelStatus {
    pub fn is_ready(&self) -> bool {
        self.state == READY
    }
}

const READY: &str = "READY";

#[derive(Debug)]
struct ModelSlot {
    name: String,
    path: PathBuf,
    model: Option<Arc<LoadedModel>>,
    reason: String,
}

impl ModelSlot {
    fn healthy(&self) -> Option<&Arc<LoadedModel>> {
        self.model.as_ref().filter(|model| model.scheduler.is_healthy())
    }
}

#[derive(Debug)]
pub struct ModelRegistry {
    /// In the order of the command line.
    slots: RwLock<Vec<ModelSlot>>,
    options: Box<dyn ModelOptionsSource>,
    metrics: Arc<Metrics>,
    /// One model is opened at a time.
    opening: Mutex<()>,
}

impl ModelRegistry {
    /// Registers bundles without loading them.
    pub fn new(
        bundles: Vec<(String, PathBuf)>,
        options: impl ModelOptionsSource + 'static,
        metrics: Arc<Metrics>,
    ) -> Self {
        let slot = |(name, path)| ModelSlot {
            name,
            path,
            model: None,
            reason: "not loaded yet".to_owned(),
        };
        let slots = RwLock::new(bundles.into_iter().map(slot).collect());
        Self { slots, options: Box::new(options), metrics, opening: Mutex::new(()) }
    }

    pub fn names(&self) -> Vec<String> {
        self.read(|slots| slots.iter().map(|slot| slot.name.clone()).collect())
    }

    fn read<R>(&self, look: impl FnOnce(&[ModelSlot]) -> R) -> R {
        look(&self.slots.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<ModelSlot>> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a loaded model, of any version unless one is given.
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<Arc<LoadedModel>, ServiceError> {
        self.read(|slots| {
            let slot = slots.iter().find(|slot| slot.name == name).ok_or_else(|| {
                let known = slots.iter().map(|slot| slot.name.as_str()).collect::<Vec<_>>();
                let known = known.join(", ");
                ServiceError::NotFound(format!("no model of that name; there are: {known}"))
            })?;
            let model = slot.model.as_ref().ok_or_else(|| {
                let reason = &slot.reason;
                ServiceError::Unavailable(format!("the model {name} is not ready: {reason}"))
            })?;
            if version.is_some_and(|version| version != model.version) {
                return Err(ServiceError::NotFound(format!(
                    "the model {name} has the version {} and no other",
                    model.version
                )));
            }
            Ok(Arc::clone(model))
        })
    }

    /// Returns the model of requests that name none.
    pub fn first(&self) -> Result<Arc<LoadedModel>, ServiceError> {
        let name = self
            .read(|slots| slots.first().map(|slot| slot.name.clone()))
            .ok_or_else(|| ServiceError::Unavailable("the server has no model".to_owned()))?;
        self.get(&name, None)
    }

    /// Returns true if every model is loaded and none has lost its device.
    pub fn all_ready(&self) -> bool {
        self.read(|slots| slots.iter().all(|slot| slot.healthy().is_some()))
    }

    /// Returns the repository index.
    pub fn list(&self) -> Vec<ModelStatus> {
        let status = |slot: &ModelSlot| {
            let is_healthy = slot.healthy().is_some();
            let is_lost = slot.model.is_some() && !is_healthy;
            ModelStatus {
                name: slot.name.clone(),
                version: slot.model.as_ref().map(|model| model.version.clone()),
                state: if is_healthy { READY } else { "UNAVAILABLE" },
                reason: if is_lost { "its device is lost".into() } else { slot.reason.clone() },
            }
        };
        self.read(|slots| slots.iter().map(status).collect())
    }

    /// Loads or reloads a model, which takes seconds.
    ///
    /// The model loaded before answers until the new one is ready, finishes what it has begun, and
    /// stays if the new one cannot be loaded.
    pub fn load(&self, name: &str) -> Result<Arc<LoadedModel>, ServiceError> {
        let find = |slots: &[ModelSlot]| slots.iter().position(|slot| slot.name == name);
        let (index, path) = self
            .read(|slots| find(slots).map(|index| (index, slots[index].path.clone())))
            .ok_or_else(unknown_model)?;
        let _one = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = self.open(name, &path);
        // Slots are never added or removed.
        let slot = &mut self.write()[index];
        match opened {
            Ok(model) => {
                let model = Arc::new(model);
                slot.model = Some(Arc::clone(&model));
                slot.reason.clear();
                Ok(model)
            }
            Err(error) => {
                slot.reason = format!("{}: {error}", path.display());
                Err(ServiceError::Unavailable(slot.reason.clone()))
            }
        }
    }

    /// Loads or reloads every model, and returns the errors.
    pub fn load_all(&self) -> Vec<ServiceError> {
        self.names().iter().filter_map(|name| self.load(name).err()).collect()
    }

    /// Unloads a model, which finishes what it has begun.
    pub fn unload(&self, name: &str) -> Result<(), ServiceError> {
        let mut slots = self.write();
        let slot = slots.iter_mut().find(|slot| slot.name == name).ok_or_else(unknown_model)?;
        slot.model = None;
        "unloaded on request".clone_into(&mut slot.reason);
        Ok(())
    }

    fn open(&self, name: &str, path: &Path) -> Result<LoadedModel, SegmentError> {
        let ModelOptions { engine, limit, delay, logits } = self.options.options(path);
        let (mut segmenters, setup) = Pipeline::open(path, &engine, None)?.into_segmenters();
        segmenters.iter_mut().try_for_each(|segmenter| segmenter.warm_up().map(drop))?;
        let start = Instant::now();
        let pixels = segmenters.first_mut().map_or(Ok(0), Segmenter::warm_up)?;
        let elapsed = start.elapsed();
        let Some(first) = segmenters.first() else {
            return Err(SegmentError::NoModelFile(path.into()));
        };
        let model = first.model().clone();
        let version = first.fingerprint().chars().take(12).collect();
        let has_logits = first.has_logits();
        let gives_confidence = first.lacks_confidence().is_none();
        let only_size = first.only_size();
        let raw_sizes = only_size.into_iter().chain(first.frame_sizes()).collect();
        let metrics = self.metrics.for_model(name, &model.classes);
        let options = SchedulerOptions { limit, delay, threads: setup.threads };
        let scheduler = Scheduler::start(segmenters, options, metrics.clone())
            .map_err(|source| BundleError::File(FileError { path: path.into(), source }))?;
        // Deadlines are judged from the first request on.
        scheduler.seed_throughput(pixels, elapsed);
        Ok(LoadedModel {
            name: name.to_owned(),
            version,
            model,
            scheduler,
            setup,
            metrics,
            gives_confidence,
            gives_logits: logits && has_logits,
            only_size,
            raw_sizes,
        })
    }
}

fn unknown_model() -> ServiceError {
    ServiceError::NotFound("no model of that name".to_owned())
}

/// Returns the default name of a model: its folder, or for a folder called `bundle` the one above
/// it.
pub fn name_of(bundle: &Path) -> Option<String> {
    let stem = |path: &Path| path.file_stem().map(|name| name.to_string_lossy().into_owned());
    let own = stem(bundle)?;
    if own == "bundle" { bundle.parent().and_then(stem).or(Some(own)) } else { Some(own) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_named_by_their_folders() {
        let name = |path: &str| name_of(Path::new(path));
        assert_eq!(name("runs/street/bundle").as_deref(), Some("street"));
        assert_eq!(name("bundles/street").as_deref(), Some("street"));
        assert_eq!(name("a/model.onnx").as_deref(), Some("model"));
        assert_eq!(name("bundle").as_deref(), Some("bundle"));
        assert_eq!(name("/"), None);
    }
}
