//! The state of a run, in `state/` of its folder, from which it resumes; export never reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use protoseg_models::graph::Graph;
use protoseg_models::weights::{StateDict, Tensor};
use protoseg_models::{atomic, versioned, weights};
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::config::Config;
use crate::config::resume::{self, changes};
use crate::data::lists::ListDigests;
use crate::data::stored_path::StoredPath;
use crate::method::prototypes::{PrototypeCounters, PrototypeSettings, Prototypes};
use crate::method::schedule::Schedule;
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

/// Tensors of `prototypes.safetensors`: values `[classes * per_class, channels]`, running mean of the features `[channels]`.
const VALUES: &str = "values";
const MEAN: &str = "mean";

/// `position.json`: everything of a state but its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    version: String,
    /// Steps done.
    pub step: u64,
    /// Best mean IoU so far, in percent.
    pub best: Option<f64>,
    prototypes: Option<PrototypeCounters>,
    config: Config,
    /// Absent in version 1.0.
    #[serde(default)]
    #[serde(alias = "taught")]
    teacher_ready: bool,
    /// Digests of the training data; absent for synthetic scenes, and in states of earlier versions, which have one of
    /// everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lists: Option<ListDigests>,
    /// Unlabeled images that are left out as they are broken; None if the lists have not been looked at for this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skipped: Option<BTreeSet<StoredPath>>,
}

/// Writes the state of a learner after `step` steps atomically: a failure keeps the previous state.
pub fn save(
    folder: &Path,
    learner: &Learner,
    step: u64,
    best: Option<f64>,
    lists: Option<ListDigests>,
    skipped: &BTreeSet<PathBuf>,
) -> Result<()> {
    let student = learner.student.state_dict()?;
    ensure_finite(&student)?;
    let mut files = vec![(STUDENT, student), (VELOCITY, learner.optimizer.state_dict()?)];
    if learner.teacher_ready {
        files.push((TEACHER, learner.teacher.state_dict()?));
    }
    if let Some(prototypes) = &learner.prototypes {
        let values = net::from_torch(prototypes.values())?;
        let mean = net::from_torch(prototypes.mean())?;
        let tensors = [(VALUES.to_owned(), values), (MEAN.to_owned(), mean)];
        files.push((PROTOTYPES, tensors.into()));
    }
    let state = RunState {
        version: VERSION.to_owned(),
        step,
        best,
        prototypes: learner.prototypes.as_ref().map(|prototypes| prototypes.counters().clone()),
        config: learner.config.clone(),
        teacher_ready: learner.teacher_ready,
        lists,
        skipped: Some(skipped.iter().cloned().map(StoredPath).collect()),
    };
    let written = atomic::write_folder(folder, &FILES, |folder| -> Result<(), WriteError> {
        versioned::write(&folder.join(POSITION), &state)?;
        for (name, tensors) in &files {
            weights::write(&folder.join(name), tensors, &BTreeMap::new())?;
        }
        Ok(())
    });
    written
        .with_context(|| format!("cannot save {}; the state before it is kept", folder.display()))
}

impl RunState {
    /// The folder of the data set when the state was saved, if `config` names another one.
    pub fn moved_from(&self, config: &Config) -> Option<&Path> {
        self.config.root.as_deref().filter(|root| Some(*root) != config.root.as_deref())
    }

    /// Returns the unlabeled images that are left out; None if the lists have not been looked at for this run.
    pub fn skipped(&self) -> Option<BTreeSet<PathBuf>> {
        let skipped = self.skipped.as_ref()?;
        Some(skipped.iter().map(|path| path.0.clone()).collect())
    }

    /// Reads the state of a run with this configuration, but for keys that [change no weight](resume::CHANGE_NO_WEIGHT).
    pub fn read(folder: &Path, config: &Config) -> Result<Self> {
        let path = folder.join(POSITION);
        let Some(state) = read_any(folder)? else {
            bail!("{} holds no saved state; start the run without --resume", folder.display());
        };
        let changed = resume::blocking_changes(&state.config, config)?;
        ensure!(
            changed.is_empty(),
            "the configuration has changed since {}: {changed}; give back the old values, or start another run, which may \
             begin with these weights by --init-from",
            path.display()
        );
        let teacher = folder.join(TEACHER);
        ensure!(
            teacher.is_file() || !(state.teacher_ready || state.prototypes.is_some()),
            "{} is missing: the run cannot be resumed",
            teacher.display()
        );
        Ok(state)
    }

    /// Restores the learner from the folder that the state was read from.
    pub fn restore<'a>(
        self,
        folder: &Path,
        config: &'a Config,
        schedule: Schedule,
        graph: &Graph,
        device: Device,
    ) -> Result<Learner<'a>> {
        let student = weights::read(&folder.join(STUDENT))?;
        let mut learner = Learner::new(config, schedule, graph, &student, device)?;
        let teacher = folder.join(TEACHER);
        if teacher.is_file() {
            let teacher = Net::new(graph.clone(), &weights::read(&teacher)?, device)?;
            let teacher = teacher.with_precision(config.precision);
            learner.teacher =
                if config.freeze_encoder { teacher.freeze("encoder.")? } else { teacher };
            learner.teacher_ready = true;
        }
        if self.step > 0 {
            let path = folder.join(VELOCITY);
            let velocity = weights::read(&path)?;
            learner
                .optimizer
                .load(&velocity, &learner.student)
                .with_context(|| path.display().to_string())?;
        }
        if let Some(counters) = self.prototypes {
            let path = folder.join(PROTOTYPES);
            let tensors = weights::read(&path)?;
            let tensor = |name: &str| -> Result<tch::Tensor> {
                let tensor = tensors.get(name);
                let tensor = tensor.with_context(|| format!("{} has no {name}", path.display()))?;
                net::to_torch(tensor, device)
            };
            let settings = PrototypeSettings::from_config(config, learner.classes());
            learner.prototypes =
                Some(Prototypes::from_saved(settings, tensor(VALUES)?, tensor(MEAN)?, counters));
        }
        Ok(learner)
    }
}

/// Returns the steps done by the state in a folder; None without a state.
pub fn steps_done(folder: &Path) -> Result<Option<u64>> {
    Ok(read_any(folder)?.map(|state| state.step))
}

/// Copies a warm-up state for a run whose configuration differs only in what the warm-up does not depend on.
pub fn fork(from: &Path, to: &Path, config: &Config) -> Result<()> {
    let state = read_any(from)?.with_context(|| format!("{} holds no state", from.display()))?;
    let changed = changes(&state.config.warmup_keys()?, &config.warmup_keys()?);
    ensure!(
        changed.is_empty() && state.prototypes.is_none(),
        "{} cannot be forked: {changed}",
        from.display()
    );
    // The warm-up has no unlabeled list.
    let state = RunState {
        version: VERSION.to_owned(),
        config: config.clone(),
        lists: None,
        skipped: None,
        ..state
    };
    let written = atomic::write_folder(to, &FILES, |to| -> Result<(), WriteError> {
        versioned::write(&to.join(POSITION), &state)?;
        for name in
            [STUDENT, VELOCITY, TEACHER].into_iter().filter(|name| from.join(name).is_file())
        {
            std::fs::copy(from.join(name), to.join(name))?;
        }
        Ok(())
    });
    written.with_context(|| format!("cannot save {}", to.display()))
}

/// Reads the state of any configuration; None without a state.
fn read_any(folder: &Path) -> Result<Option<RunState>> {
    atomic::recover(folder).with_context(|| folder.display().to_string())?;
    let path = folder.join(POSITION);
    if !path.is_file() {
        return Ok(None);
    }
    Ok(Some(versioned::read(&path, VERSION)?.value))
}

/// Refuses weights that have diverged.
pub(super) fn ensure_finite(weights: &StateDict) -> Result<()> {
    let finite = |tensor: &Tensor| tensor.data.iter().all(|value| value.is_finite());
    if let Some((name, _)) = weights.iter().find(|(_, tensor)| !finite(tensor)) {
        bail!("`{name}` is not finite: lower `learning_rate` or `head_multiplier`");
    }
    Ok(())
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
