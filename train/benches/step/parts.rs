//! Time of each part of a step.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use protoseg_train::data::loader::MicroBatch;
use protoseg_train::method::objective::LossWeights;
use protoseg_train::method::prototypes::Prototypes;
use protoseg_train::method::step::{HeadOutputs, Learner};
use protoseg_train::method::targets::Targets;

use crate::sample_step::{STEP, SampleStep};
use crate::{WARMUP_STEPS, median, say};

/// Parts of a step, in their order.
const STEP_PARTS: [&str; 6] = [
    "teacher and pseudo-labels",
    "student forward",
    "linear losses",
    "prototype losses",
    "backward",
    "update",
];
/// The prototype branch again, by itself.
const BRANCH_PARTS: [&str; 3] = ["branch forward", "branch backward", "branch update"];

/// Milliseconds of each part in each step.
#[derive(Default)]
pub(crate) struct Parts(BTreeMap<&'static str, Vec<f64>>);

impl Parts {
    /// Takes steps of one micro-batch, each on other crops.
    pub(crate) fn measure(sample: &SampleStep, steps: usize) -> Result<Self> {
        let mut learner = sample.learner()?;
        let mut parts = Self::default();
        for step in 0..(WARMUP_STEPS + steps) as u64 {
            if step == WARMUP_STEPS as u64 {
                parts = Self::default();
            }
            let number = STEP + step;
            let batches = parts.time("data", || sample.builder.make(&sample.caches, number))?;
            parts.step(&mut learner, &batches[0], number)?;
        }
        Ok(parts)
    }

    fn step(&mut self, learner: &mut Learner, batch: &MicroBatch, number: u64) -> Result<()> {
        let progress = learner.schedule.progress(STEP);
        let prototypes = learner.prototypes.as_ref().context("the sample has prototypes")?;
        let mut sums = prototypes.begin_step()?;
        let targets = self.time(STEP_PARTS[0], || learner.targets(batch, number, progress))?;
        let outputs = self.time(STEP_PARTS[1], || learner.forward(&targets, number))?;
        let mut terms =
            self.time(STEP_PARTS[2], || learner.terms(&outputs, &targets, number, None))?;
        let [labeled, unlabeled] = self.time(STEP_PARTS[3], || {
            learner.prototype_terms(prototypes, &outputs, &targets, number, &mut sums)
        })?;
        terms.prototype_labeled = Some(labeled);
        terms.prototype_unlabeled = Some(unlabeled);
        terms.values()?;
        let total = terms.total(LossWeights::at_progress(learner.config, progress))?;
        self.time(STEP_PARTS[4], || Ok(total.f_backward()?))?;
        self.branch(learner, &targets, &outputs, number)?;
        self.time(STEP_PARTS[5], || learner.update(Some(sums), STEP))
    }

    /// Runs the prototype branch on the step's own features, which already hold a gradient of the linear head.
    fn branch(
        &mut self,
        learner: &mut Learner,
        targets: &Targets,
        outputs: &HeadOutputs,
        number: u64,
    ) -> Result<()> {
        let map = outputs.features.as_ref().context("there are no features")?;
        let map = map.f_detach()?.f_set_requires_grad(true)?;
        map.f_sum(tch::Kind::Float)?.f_backward()?;
        let alone = HeadOutputs {
            logits: outputs.logits.shallow_clone(),
            auxiliary: None,
            features: Some(map),
        };
        let prototypes = learner.prototypes.as_ref().context("the sample has prototypes")?;
        let mut sums = prototypes.begin_step()?;
        let [labeled, unlabeled] = self.time(BRANCH_PARTS[0], || {
            learner.prototype_terms(prototypes, &alone, targets, number, &mut sums)
        })?;
        self.time(BRANCH_PARTS[1], || Ok(labeled.f_add(&unlabeled)?.f_backward()?))?;
        let update = |prototypes: &mut Prototypes| prototypes.update(sums, STEP);
        self.time(BRANCH_PARTS[2], || learner.prototypes.as_mut().map_or(Ok(()), update))
    }

    fn time<T>(&mut self, part: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let result = work()?;
        self.0.entry(part).or_default().push(start.elapsed().as_secs_f64() * 1e3);
        Ok(result)
    }

    /// Returns the sums of some parts in each step, sorted.
    fn sums(&self, parts: &[&'static str]) -> Vec<f64> {
        let steps = self.0.values().map(Vec::len).min().unwrap_or(0);
        let sum = |step: usize| parts.iter().map(|part| self.0[part][step]).sum::<f64>();
        let mut sums: Vec<f64> = (0..steps).map(sum).collect();
        sums.sort_by(f64::total_cmp);
        sums
    }

    /// Prints medians and ranges.
    pub(crate) fn print(&self) {
        let whole = median(&self.sums(&STEP_PARTS));
        say("part                       median, ms   from     to  of the step");
        let line = |title: &str, parts: &[&'static str]| {
            let sums = self.sums(parts);
            let middle = median(&sums);
            let share = 100.0 * middle / whole;
            let (least, most) = (sums[0], sums[sums.len() - 1]);
            say(&format!("{title:25}  {middle:10.1} {least:6.0} {most:6.0}  {share:6.1} %"));
        };
        line("data, beside the step", &["data"]);
        for part in STEP_PARTS {
            line(part, &[part]);
        }
        line("the step", &STEP_PARTS);
        for part in BRANCH_PARTS {
            line(part, &[part]);
        }
        line("the prototype branch", &BRANCH_PARTS);
    }
}
