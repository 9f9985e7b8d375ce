//! The models of a service: which are loaded, by name, and how one takes the place of another without a request noticing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use protoseg_models::bundle::Model;
use protoseg_models::errors::FileError;
use serde::Serialize;

use super::ServiceError;
use super::metrics::{Metrics, ModelMetrics};
use super::queue::BatchLimit;
use super::scheduler::{Scheduler, SchedulerOptions};
use protoseg_infer::EngineConfig;
use protoseg_infer::pipeline::{Pipeline, PipelineSetup};
use protoseg_infer::segmenter::SegmentError;

/// Ends the name under which a model takes encoded pictures instead of pixels.
pub const ENCODED_SUFFIX: &str = ".encoded";

/// How models are opened.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// How segmenters are opened.
    pub engine: EngineConfig,
    /// What one run of the network takes at most.
    pub limit: BatchLimit,
    /// How long a run that is not full waits for more.
    pub delay: Duration,
    /// Whether scores can be asked for.
    pub logits: bool,
}

/// Says how a bundle is opened; asked whenever one is loaded, as another may lie there by then.
pub trait ModelOptionsSource: std::fmt::Debug + Send + Sync {
    /// How the bundle at a place is opened.
    fn options(&self, bundle: &Path) -> ModelOptions;
}

/// All bundles alike.
impl ModelOptionsSource for ModelOptions {
    fn options(&self, _bundle: &Path) -> ModelOptions {
        self.clone()
    }
}

/// A loaded model.
#[derive(Debug)]
pub struct LoadedModel {
    /// Its name.
    pub name: String,
    /// Tells its weights from others: the start of its fingerprint.
    pub version: String,
    /// What it is.
    pub model: Model,
    /// What runs it.
    pub scheduler: Scheduler,
    /// What it runs on.
    pub setup: PipelineSetup,
    /// What is counted of it.
    pub metrics: ModelMetrics,
    /// Whether it tells how sure it is.
    pub gives_confidence: bool,
    /// Whether its scores can be asked for.
    pub gives_logits: bool,
    /// The only size of pictures, height and width, that it takes.
    only_size: Option<[usize; 2]>,
    /// Sizes of pictures that a request of pixels alone may have.
    pub raw_sizes: Vec<[usize; 2]>,
}

impl LoadedModel {
    /// Height and width of the only pictures that it takes; none where it takes others too.
    pub fn only_size(&self) -> Option<[usize; 2]> {
        self.only_size
    }
}

/// What became of a model, for the index of the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelStatus {
    /// Its name.
    pub name: String,
    /// Its version, while it is loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `READY` or `UNAVAILABLE`.
    pub state: &'static str,
    /// Why it is not ready.
    pub reason: String,
}

impl ModelStatus {
    /// Whether it answers.
    pub fn is_ready(&self) -> bool {
        self.state == READY
    }
}

const READY: &str = "READY";

#[derive(Debug)]
struct ModelSlot {
    name: String,
    path: PathBuf,
    served: Option<Arc<LoadedModel>>,
    reason: String,
}

/// Loaded models by name, in the order in which they were named.
#[derive(Debug)]
pub struct ModelRegistry {
    slots: RwLock<Vec<ModelSlot>>,
    options: Box<dyn ModelOptionsSource>,
    metrics: Arc<Metrics>,
    /// One is opened at a time.
    opening: Mutex<()>,
}

impl ModelRegistry {
    /// Names for bundles, none of them loaded yet.
    pub fn new(
        bundles: Vec<(String, PathBuf)>,
        options: impl ModelOptionsSource + 'static,
        metrics: Arc<Metrics>,
    ) -> Self {
        let slot = |(name, path)| ModelSlot {
            name,
            path,
            served: None,
            reason: "not loaded yet".to_owned(),
        };
        let slots = RwLock::new(bundles.into_iter().map(slot).collect());
        Self { slots, options: Box::new(options), metrics, opening: Mutex::new(()) }
    }

    /// The names.
    pub fn names(&self) -> Vec<String> {
        self.read(|slots| slots.iter().map(|slot| slot.name.clone()).collect())
    }

    fn read<R>(&self, look: impl FnOnce(&[ModelSlot]) -> R) -> R {
        look(&self.slots.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A loaded model, of a version where one is asked for.
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<Arc<LoadedModel>, ServiceError> {
        self.read(|slots| {
            let slot = slots.iter().find(|slot| slot.name == name);
            let slot = slot.ok_or_else(|| {
                let known =
                    slots.iter().map(|slot| slot.name.as_str()).collect::<Vec<_>>().join(", ");
                ServiceError::NotFound(format!(
                    "there is no model of that name; there are: {known}"
                ))
            })?;
            let Some(served) = &slot.served else {
                return Err(ServiceError::Unavailable(format!(
                    "the model {name} is not ready: {}",
                    slot.reason
                )));
            };
            match version {
                Some(version) if version != served.version => Err(ServiceError::NotFound(format!(
                    "the model {name} has the version {} and no other",
                    served.version
                ))),
                _ => Ok(Arc::clone(served)),
            }
        })
    }

    /// The model for requests that name none: the first.
    pub fn first(&self) -> Result<Arc<LoadedModel>, ServiceError> {
        let name = self.read(|slots| slots.first().map(|slot| slot.name.clone()));
        self.get(
            &name.ok_or_else(|| ServiceError::Unavailable("there is no model".to_owned()))?,
            None,
        )
    }

    /// Whether every model is loaded and its device there.
    pub fn all_ready(&self) -> bool {
        self.read(|slots| {
            slots.iter().all(|slot| {
                slot.served.as_ref().is_some_and(|served| served.scheduler.is_healthy())
            })
        })
    }

    /// What became of each.
    pub fn list(&self) -> Vec<ModelStatus> {
        let listed = |slot: &ModelSlot| {
            let well = slot.served.as_ref().filter(|served| served.scheduler.is_healthy());
            let lost = slot.served.is_some() && well.is_none();
            let reason = if lost { "its device is lost".to_owned() } else { slot.reason.clone() };
            ModelStatus {
                name: slot.name.clone(),
                version: slot.served.as_ref().map(|served| served.version.clone()),
                state: if well.is_some() { READY } else { "UNAVAILABLE" },
                reason,
            }
        };
        self.read(|slots| slots.iter().map(listed).collect())
    }

    /// Loads a model from its bundle, or what lies there now in place of what was loaded before; that one answers until the
    /// other is ready, and finishes what it has begun. If the new one cannot be loaded, the old one stays. Takes seconds.
    pub fn load(&self, name: &str) -> Result<Arc<LoadedModel>, ServiceError> {
        let path = self.read(|slots| {
            slots.iter().find(|slot| slot.name == name).map(|slot| slot.path.clone())
        });
        let path = path
            .ok_or_else(|| ServiceError::NotFound("there is no model of that name".to_owned()))?;
        let _one = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = self.open(name, &path).map_err(|error| format!("{}: {error}", path.display()));
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.iter_mut().find(|slot| slot.name == name);
        let slot = slot
            .ok_or_else(|| ServiceError::NotFound("there is no model of that name".to_owned()))?;
        match opened {
            Ok(served) => {
                let served = Arc::new(served);
                slot.served = Some(Arc::clone(&served));
                slot.reason = String::new();
                Ok(served)
            }
            Err(why) => {
                slot.reason = why.clone();
                Err(ServiceError::Unavailable(why))
            }
        }
    }

    /// Loads every model anew; the errors of those that could not be.
    pub fn load_all(&self) -> Vec<ServiceError> {
        self.names().iter().filter_map(|name| self.load(name).err()).collect()
    }

    /// Takes a model away; what it has begun it finishes.
    pub fn unload(&self, name: &str) -> Result<(), ServiceError> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.iter_mut().find(|slot| slot.name == name);
        let slot = slot
            .ok_or_else(|| ServiceError::NotFound("there is no model of that name".to_owned()))?;
        slot.served = None;
        "unloaded on request".clone_into(&mut slot.reason);
        Ok(())
    }

    fn open(&self, name: &str, path: &Path) -> Result<LoadedModel, SegmentError> {
        let ModelOptions { engine, limit, delay, logits: scores } = self.options.options(path);
        let (mut segmenters, setup) = Pipeline::open(path, &engine, None)?.into_segmenters();
        segmenters.iter_mut().try_for_each(|segmenter| segmenter.warm_up().map(drop))?;
        let begun = Instant::now();
        let pixels =
            segmenters.first_mut().map_or(Ok(0), protoseg_infer::segmenter::Segmenter::warm_up)?;
        let took = begun.elapsed();
        let Some(first) = segmenters.first() else {
            return Err(SegmentError::NoModelFile(path.into()));
        };
        let (model, version) =
            (first.model().clone(), first.fingerprint().chars().take(12).collect());
        let gives_confidence = first.has_logits();
        let only_size = first.only_size();
        let raw_sizes = only_size.into_iter().chain(first.frame_sizes()).collect();
        let metrics = self.metrics.for_model(name, &model.classes);
        let options = SchedulerOptions { limit, delay, threads: setup.threads };
        let scheduler =
            Scheduler::start(segmenters, options, metrics.clone()).map_err(|source| {
                protoseg_models::bundle::BundleError::File(FileError { path: path.into(), source })
            })?;
        // So that from the first request on it is known what can be done in time.
        scheduler.seed_throughput(pixels, took);
        let name = name.to_owned();
        let gives_logits = scores && gives_confidence;
        Ok(LoadedModel {
            name,
            version,
            model,
            scheduler,
            setup,
            metrics,
            gives_confidence,
            gives_logits,
            only_size,
            raw_sizes,
        })
    }
}

/// The name of a model by the folder of its bundle: of `runs/street/bundle` it is `street`.
pub fn name_of(bundle: &Path) -> Option<String> {
    let named = |path: &Path| path.file_stem().map(|name| name.to_string_lossy().into_owned());
    let own = named(bundle)?;
    if own == "bundle" { bundle.parent().and_then(named).or(Some(own)) } else { Some(own) }
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
