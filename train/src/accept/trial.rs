//! A network that takes steps on a device.

use std::time::Instant;

use anyhow::{Context, Result};
use protoseg_models::weights::StateDict;
use tch::{Device, Tensor};

use super::setting::{AcceptSetup, InitialState};
use crate::config::options::Precision;
use crate::data::loader::MicroBatch;
use crate::method::step::Learner;

/// A run under way, all of it on one device.
pub(super) struct Trial<'a> {
    pub(super) learner: Learner<'a>,
}

/// What a step gave.
pub(super) struct TimedStep {
    pub(super) loss: f64,
    /// Until the device had done all of it.
    pub(super) seconds: f64,
}

impl<'a> Trial<'a> {
    pub(super) fn new(
        setting: &'a AcceptSetup,
        start: &InitialState,
        device: Device,
        precision: Precision,
    ) -> Result<Self> {
        let AcceptSetup { config, schedule, graph, .. } = setting;
        let mut learner = Learner::new(config, *schedule, graph, &start.weights, device)?;
        learner.student = learner.student.with_precision(precision);
        learner.teacher = learner.teacher.with_precision(precision);
        learner.prototypes = Some(start.prototypes(setting, device)?);
        Ok(Self { learner })
    }

    /// Takes a step for each of some batches.
    pub(super) fn steps(&mut self, batches: &[Vec<MicroBatch>]) -> Result<Vec<TimedStep>> {
        batches.iter().zip(0..).map(|(batches, step)| self.step(batches, step)).collect()
    }

    fn step(&mut self, batches: &[MicroBatch], step: u64) -> Result<TimedStep> {
        let start = Instant::now();
        let report =
            self.learner.step(batches, step).with_context(|| format!("step {}", step + 1))?;
        self.wait()?;
        Ok(TimedStep { loss: report.loss, seconds: start.elapsed().as_secs_f64() })
    }

    /// Waits until the device has done what it was given: a number that is read comes after all that was asked for before.
    fn wait(&self) -> Result<()> {
        let (_, last) =
            self.learner.teacher.trainable().last().context("a network without weights")?;
        first_number(last).map(|_| ())
    }

    /// Every tensor that training changes, by what it is called.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (String, &Tensor)> {
        let Learner { student, teacher, prototypes, .. } = &self.learner;
        let student =
            student.tensors().iter().map(|(name, tensor)| (format!("student's {name}"), tensor));
        let teacher =
            teacher.tensors().iter().map(|(name, tensor)| (format!("teacher's {name}"), tensor));
        let prototypes =
            prototypes.iter().map(|prototypes| ("prototypes".to_owned(), prototypes.values()));
        student.chain(teacher).chain(prototypes)
    }

    /// Copies of the student's weights that gradients move.
    pub(super) fn trainable(&self) -> Result<StateDict> {
        let student = &self.learner.student;
        let mut weights = student.state_dict()?;
        weights.retain(|name, _| student.is_trainable(name));
        Ok(weights)
    }
}

/// The first number of a tensor, once it has been computed.
pub(super) fn first_number(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.f_detach()?.f_flatten(0, -1)?.f_double_value(&[0])?)
}

/// The middle one of some numbers, the upper one of two; none of none.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
