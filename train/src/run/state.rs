//! What resuming a run needs, in `state/` of its folder; export never reads it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use protoseg_models::{atomic, versioned, weights};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weights::{StateDict, Tensor};

use crate::config::Config;
use crate::method::prototypes::PrototypeCounters;

const VERSION: &str = "1.1";
const POSITION: &str = "position.json";
const STUDENT: &str = "student.safetensors";
const TEACHER: &str = "teacher.safetensors";
const VELOCITY: &str = "velocity.safetensors";
const PROTOTYPES: &str = "prototypes.safetensors";

/// Tensors of the prototypes' file.
const VALUES: &str = "values";
const MEAN: &str = "mean";

/// All that a state folder holds.
pub const FILES: [&str; 5] = [POSITION, STUDENT, TEACHER, VELOCITY, PROTOTYPES];

/// Numbers of a run at a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RunPosition {
    version: String,
    step: u64,
    best: Option<f64>,
    prototypes: Option<PrototypeCounters>,
    config: Config,
    /// Whether there is a teacher; not known of states of version 1.0.
    #[serde(default)]
    #[serde(alias = "taught")]
    teacher_ready: bool,
    #[serde(default)]
    data: Option<String>,
}

/// A run at a step.
pub struct RunState {
    /// Steps done.
    pub step: u64,
    /// Best mean IoU so far, in percent.
    pub best: Option<f64>,
    /// The network that learns.
    pub student: StateDict,
    /// Its moving average, once there is one.
    pub teacher: Option<StateDict>,
    /// The optimiser's velocities.
    pub velocity: StateDict,
    /// The prototypes, once there are any.
    pub prototypes: Option<SavedPrototypes>,
    /// [`Lists::digest`](crate::data::lists::Lists::digest) of what is learnt from.
    pub data: Option<String>,
}

/// Prototypes as they are saved.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedPrototypes {
    /// `[classes * each, channels]`.
    pub values: Tensor,
    /// Running mean of the features `[channels]`.
    pub mean: Tensor,
    /// Hits and steps without.
    pub counters: PrototypeCounters,
}

impl RunState {
    /// Writes the state whole or not at all; an older one stays until then.
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

    /// Steps done by the state in a folder; none where there is no state.
    pub fn step(folder: &Path) -> Result<Option<u64>> {
        atomic::recover(folder).with_context(|| folder.display().to_string())?;
        let path = folder.join(POSITION);
        if !path.is_file() {
            return Ok(None);
        }
        Ok(Some(versioned::read::<RunPosition>(&path, VERSION)?.value.step))
    }

    /// Writes the state of a run for another that differs in nothing that the steps so far depend on.
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

    /// Reads a state; the configuration must be the one that it was made under.
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
            "{} is missing, so the run cannot go on",
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

/// The keys that differ, with both values.
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
