//! The state of a run, in `state/` of its folder, from which it resumes; export never reads it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use protoseg_models::{atomic, versioned, weights};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weights::{StateDict, Tensor};

use crate::config::Config;
use crate::method::prototypes::{PrototypeCounters, PrototypeSettings, Prototypes};
use crate::method::step::Learner;
use crate::net::{self, Net};

const VERSION: &str = "1.1";

/// The folder's name in that of a run.
pub(crate) const FOLDER: &str = "state";
const POSITION: &str = "position.json";
const STUDENT: &str = "student.safetensors";
const TEACHER: &str = "teacher.safetensors";
const VELOCITY: &str = "velocity.safetensors";
const PROTOTYPES: &str = "prototypes.safetensors";
/// Every file that the folder may hold.
pub const FILES: [&str; 5] = [POSITION, STUDENT, TEACHER, VELOCITY, PROTOTYPES];

/// Tensors of `prototypes.safetensors`.
const VALUES: &str = "values";
const MEAN: &str = "mean";

/// `position.json`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RunPosition {
    version: String,
    step: u64,
    best: Option<f64>,
    prototypes: Option<PrototypeCounters>,
    config: Config,
    /// Absent in version 1.0.
    #[serde(default)]
    #[serde(alias = "taught")]
    teacher_ready: bool,
    #[serde(default)]
    data: Option<String>,
}

/// Everything that a run resumes from.
pub struct RunState {
    /// Steps done.
    pub step: u64,
    /// Best mean IoU so far, in percent.
    pub best: Option<f64>,
    pub student: StateDict,
    /// None until the end of the warm-up.
    pub teacher: Option<StateDict>,
    /// Momentum buffers of the optimizer.
    pub velocity: StateDict,
    pub prototypes: Option<SavedPrototypes>,
    /// [`Lists::digest`](crate::data::lists::Lists::digest) of the training data.
    pub data: Option<String>,
}

/// Prototypes on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedPrototypes {
    /// `[classes * per_class, channels]`
    pub values: Tensor,
    /// Running mean of the features `[channels]`.
    pub mean: Tensor,
    pub counters: PrototypeCounters,
}

impl RunState {
    /// Copies a learner after `step` steps; its weights must be finite.
    pub fn from_learner(
        learner: &Learner,
        step: u64,
        best: Option<f64>,
        data: Option<String>,
    ) -> Result<Self> {
        let student = learner.student.state_dict()?;
        ensure_finite(&student)?;
        let teacher = learner.teacher_ready.then(|| learner.teacher.state_dict()).transpose()?;
        let prototypes = match &learner.prototypes {
            Some(prototypes) => Some(SavedPrototypes {
                values: net::from_torch(prototypes.values())?,
                mean: net::from_torch(prototypes.mean())?,
                counters: prototypes.counters(),
            }),
            None => None,
        };
        let velocity = learner.sgd.state_dict()?;
        Ok(Self { step, best, student, teacher, velocity, prototypes, data })
    }

    /// Restores teacher, optimizer and prototypes of a learner that was made of the state's student.
    pub fn restore(self, learner: &mut Learner) -> Result<()> {
        let device = learner.device();
        if let Some(teacher) = &self.teacher {
            let graph = learner.student.graph().clone();
            let teacher = Net::new(graph, teacher, device)?;
            learner.teacher = teacher.with_precision(learner.config.precision);
            learner.teacher_ready = true;
        }
        if self.step > 0 {
            learner.sgd.load(&self.velocity, &learner.student)?;
        }
        if let Some(SavedPrototypes { values, mean, counters }) = self.prototypes {
            let settings = PrototypeSettings::from_config(learner.config, learner.classes());
            let values = net::to_torch(&values, device)?;
            let mean = net::to_torch(&mean, device)?;
            learner.prototypes = Some(Prototypes::from_saved(settings, values, mean, counters));
        }
        Ok(())
    }

    /// Writes the folder atomically: a failure keeps the previous state.
    pub fn write(&self, folder: &Path, config: &Config) -> Result<()> {
        let position = RunPosition {
            version: VERSION.to_owned(),
            step: self.step,
            best: self.best,
            prototypes: self.prototypes.as_ref().map(|prototypes| prototypes.counters.clone()),
            config: config.clone(),
            teacher_ready: self.teacher.is_some(),
            data: self.data.clone(),
        };
        let written = atomic::write_folder(folder, &FILES, |folder| -> Result<(), WriteError> {
            let save = |name: &str, weights: &StateDict| {
                weights::write(&folder.join(name), weights, &BTreeMap::new())
            };
            versioned::write(&folder.join(POSITION), &position)?;
            save(STUDENT, &self.student)?;
            save(VELOCITY, &self.velocity)?;
            if let Some(teacher) = &self.teacher {
                save(TEACHER, teacher)?;
            }
            if let Some(SavedPrototypes { values, mean, .. }) = &self.prototypes {
                let tensors = [(VALUES, values), (MEAN, mean)]
                    .map(|(name, tensor)| (name.to_owned(), tensor.clone()));
                save(PROTOTYPES, &tensors.into())?;
            }
            Ok(())
        });
        written.with_context(|| {
            format!("cannot save {}; the state before it is kept", folder.display())
        })
    }

    /// Returns the steps done by the state in a folder; None without a state.
    pub fn step(folder: &Path) -> Result<Option<u64>> {
        atomic::recover(folder).with_context(|| folder.display().to_string())?;
        let path = folder.join(POSITION);
        if !path.is_file() {
            return Ok(None);
        }
        Ok(Some(versioned::read::<RunPosition>(&path, VERSION)?.value.step))
    }

    /// Copies a warm-up state for a run whose configuration differs only in what the warm-up does not depend on.
    pub fn fork(from: &Path, to: &Path, config: &Config) -> Result<()> {
        let path = from.join(POSITION);
        let position: RunPosition = versioned::read(&path, VERSION)?.value;
        let changed = changes(&position.config.warmup_keys()?, &config.warmup_keys()?);
        ensure!(
            changed.is_empty() && position.prototypes.is_none(),
            "{} cannot be forked: {changed}",
            path.display()
        );
        Self::read(from, &position.config)?.write(to, config)
    }

    /// Reads the state of a run with this very configuration.
    pub fn read(folder: &Path, config: &Config) -> Result<Self> {
        atomic::recover(folder).with_context(|| folder.display().to_string())?;
        let path = folder.join(POSITION);
        if !path.is_file() {
            bail!("{} holds no saved state; start the run without --resume", folder.display());
        }
        let position: RunPosition = versioned::read(&path, VERSION)?.value;
        if position.config != *config {
            bail!(
                "the configuration has changed since {}: {}",
                path.display(),
                changes(&serde_json::to_value(&position.config)?, &serde_json::to_value(config)?)
            );
        }
        let teacher = folder.join(TEACHER);
        let teacher_ready = position.teacher_ready || position.prototypes.is_some();
        ensure!(
            !teacher_ready || teacher.is_file(),
            "{} is missing: the run cannot be resumed",
            teacher.display()
        );
        let prototypes = position.prototypes.map(|counters| -> Result<SavedPrototypes> {
            let path = folder.join(PROTOTYPES);
            let mut tensors = weights::read(&path)?;
            let mut take = |name: &str| {
                tensors.remove(name).with_context(|| format!("{} has no {name}", path.display()))
            };
            Ok(SavedPrototypes { values: take(VALUES)?, mean: take(MEAN)?, counters })
        });
        Ok(Self {
            prototypes: prototypes.transpose()?,
            step: position.step,
            best: position.best,
            student: weights::read(&folder.join(STUDENT))?,
            teacher: teacher.is_file().then(|| weights::read(&teacher)).transpose()?,
            velocity: weights::read(&folder.join(VELOCITY))?,
            data: position.data,
        })
    }
}

/// Refuses weights that have diverged.
pub(super) fn ensure_finite(weights: &StateDict) -> Result<()> {
    let finite = |tensor: &Tensor| tensor.data.iter().all(|value| value.is_finite());
    if let Some((name, _)) = weights.iter().find(|(_, tensor)| !finite(tensor)) {
        bail!("`{name}` is not finite: lower `learning_rate` or `head_multiplier`");
    }
    Ok(())
}

/// Lists the keys of two JSON objects that differ, with both values.
pub(crate) fn changes(old: &Value, new: &Value) -> String {
    let keys = new.as_object().into_iter().flatten();
    let changed = keys.filter(|(key, value)| old.get(key.as_str()) != Some(value));
    let named: Vec<String> = changed
        .map(|(key, value)| format!("`{key}` was {}, is {value}", old[key.as_str()]))
        .collect();
    named.join("; ")
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Json(#[from] versioned::JsonError),
    #[error(transparent)]
    Weights(#[from] weights::WeightsError),
}
