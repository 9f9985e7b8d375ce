//! A network that takes steps on a device.

use std::time::Instant;

use anyhow::{Context, Result};
use protoseg_models::weights::StateDict;
use tch::{Device, Tensor};

use super::setting::{AcceptSetup, InitialState};
use crate::config::options::Precision;
use crate::data::loader::MicroBatch;
use crate::method::class_counters::ClassCounters;
use crate::method::optimizer::Sgd;
use crate::method::prototypes::Prototypes;
use crate::method::step::{Learner, StepState};
use crate::method::teacher;
use crate::net::Net;

/// A run under way, all of it on one device.
pub(super) struct Trial<'a> {
    setting: &'a AcceptSetup,
    pub(super) student: Net,
    pub(super) teacher: Net,
    pub(super) prototypes: Prototypes,
    sgd: Sgd,
    tally: ClassCounters,
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
        let network = || -> Result<Net> {
            Ok(Net::new(setting.graph.clone(), &start.weights, device)?.with_precision(precision))
        };
        Ok(Self {
            student: network()?,
            teacher: network()?,
            prototypes: start.prototypes(setting, device)?,
            sgd: Sgd::new(setting.config.momentum, setting.config.weight_decay),
            tally: ClassCounters::new(setting.lists.classes.count(), device)?,
            setting,
        })
    }

    /// Takes a step for each of some batches.
    pub(super) fn steps(&mut self, batches: &[Vec<MicroBatch>]) -> Result<Vec<TimedStep>> {
        batches.iter().zip(0..).map(|(batches, step)| self.step(batches, step)).collect()
    }

    fn step(&mut self, batches: &[MicroBatch], step: u64) -> Result<TimedStep> {
        let AcceptSetup { config, schedule, .. } = self.setting;
        let learner = Learner {
            config,
            schedule: *schedule,
            student: &self.student,
            teacher: &self.teacher,
            class_weights: None,
            align_corners: self.setting.grid().align_corners,
        };
        let start = Instant::now();
        let moving = StepState {
            sgd: &mut self.sgd,
            prototypes: Some(&mut self.prototypes),
            tally: &mut self.tally,
        };
        let report =
            learner.step(moving, batches, step).with_context(|| format!("step {}", step + 1))?;
        teacher::update_after_step(&self.teacher, &self.student, config, *schedule, step)?;
        self.wait()?;
        Ok(TimedStep { loss: report.loss, seconds: start.elapsed().as_secs_f64() })
    }

    /// Waits until the device has done what it was given: a number that is read comes after all that was asked for before.
    fn wait(&self) -> Result<()> {
        let (_, last) = self.teacher.trainable().last().context("a network without weights")?;
        first_number(last).map(|_| ())
    }

    /// Every tensor that training changes, by what it is called.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (String, &Tensor)> {
        let student = self
            .student
            .tensors()
            .iter()
            .map(|(name, tensor)| (format!("student's {name}"), tensor));
        let teacher = self
            .teacher
            .tensors()
            .iter()
            .map(|(name, tensor)| (format!("teacher's {name}"), tensor));
        student.chain(teacher).chain([("prototypes".to_owned(), self.prototypes.values())])
    }

    /// Copies of the student's weights that gradients move.
    pub(super) fn trainable(&self) -> Result<StateDict> {
        let mut weights = self.student.state_dict()?;
        weights.retain(|name, _| self.student.is_trainable(name));
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
