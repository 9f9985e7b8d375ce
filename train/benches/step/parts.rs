//! A step part by part.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use protoseg_train::data::loader::MicroBatch;
use protoseg_train::method::objective::LossWeights;
use protoseg_train::method::step::HeadOutputs;
use protoseg_train::method::targets::Targets;
use protoseg_train::method::teacher;

use crate::sample_step::{STEP, SampleState, SampleStep};
use crate::{UNCOUNTED, median, say};

/// The parts of a step, in their order.
const STEP_PARTS: [&str; 6] = [
    "teacher and its labels",
    "student forward",
    "linear losses",
    "prototype losses",
    "backward",
    "update",
];
/// The prototype branch once more, by itself.
const BRANCH_PARTS: [&str; 3] = ["branch forward", "branch backward", "branch update"];

/// Milliseconds of each part in each step.
#[derive(Default)]
pub(crate) struct Parts(BTreeMap<&'static str, Vec<f64>>);

impl Parts {
    /// Takes steps of one micro-batch, each of other crops.
    pub(crate) fn measure(setting: &SampleStep, steps: usize) -> Result<Self> {
        let mut state = setting.state()?;
        let mut parts = Self::default();
        for step in 0..(UNCOUNTED + steps) as u64 {
            if step == UNCOUNTED as u64 {
                parts = Self::default();
            }
            let number = STEP + step;
            let batches = parts.time("data", || setting.recipe.make(&setting.shelves, number))?;
            parts.step(setting, &mut state, &batches[0], number)?;
        }
        Ok(parts)
    }

    fn step(
        &mut self,
        setting: &SampleStep,
        state: &mut SampleState,
        batch: &MicroBatch,
        number: u64,
    ) -> Result<()> {
        let learner = setting.learner();
        let progress = setting.schedule.progress(STEP);
        let SampleState { prototypes, tally, .. } = &mut *state;
        let mut gathered = prototypes.begin_step()?;
        let lesson = self
            .time("teacher and its labels", || learner.targets(batch, number, progress, tally))?;
        let outputs =
            self.time("student forward", || learner.forward(&lesson.images, true, number))?;
        let mut terms =
            self.time("linear losses", || learner.terms(&outputs, &lesson, number, None, tally))?;
        let taught = lesson.pseudo_labels.as_ref().context("nothing is taught")?;
        let labels = [&lesson.labels, &taught.labels];
        let [labeled, unlabeled] = self.time("prototype losses", || {
            let predictor = (&*prototypes, &mut gathered);
            learner.prototype_terms(&outputs, labels, &taught.confidence, number, predictor, tally)
        })?;
        (terms.prototype_labeled, terms.prototype_unlabeled) = (Some(labeled), Some(unlabeled));
        terms.values()?;
        let total = terms.total(LossWeights::at_progress(&setting.config, progress))?;
        self.time("backward", || Ok(total.f_backward()?))?;
        self.branch(setting, state, &lesson, &outputs, number)?;
        let SampleState { sgd, prototypes, .. } = state;
        self.time("update", || {
            learner.update(sgd, Some((prototypes, gathered)), STEP)?;
            teacher::update_ema(&setting.teacher, &setting.student, setting.decay(), true)
        })
    }

    /// The prototype branch on the step's own features, of which the linear head has left a gradient already.
    fn branch(
        &mut self,
        setting: &SampleStep,
        state: &mut SampleState,
        lesson: &Targets,
        outputs: &HeadOutputs,
        number: u64,
    ) -> Result<()> {
        let SampleState { prototypes, tally, .. } = state;
        let learner = setting.learner();
        let taught = lesson.pseudo_labels.as_ref().context("nothing is taught")?;
        let map = outputs.features.as_ref().context("there are no features")?;
        let map = map.f_detach()?.f_set_requires_grad(true)?;
        map.f_sum(tch::Kind::Float)?.f_backward()?;
        let alone = HeadOutputs {
            logits: outputs.logits.shallow_clone(),
            auxiliary: None,
            features: Some(map),
        };
        let mut gathered = prototypes.begin_step()?;
        let [labeled, unlabeled] = self.time("branch forward", || {
            let labels = [&lesson.labels, &taught.labels];
            let predictor = (&*prototypes, &mut gathered);
            learner.prototype_terms(&alone, labels, &taught.confidence, number, predictor, tally)
        })?;
        self.time("branch backward", || Ok(labeled.f_add(&unlabeled)?.f_backward()?))?;
        self.time("branch update", || prototypes.update(gathered, STEP))
    }

    fn time<T>(&mut self, part: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let result = work()?;
        self.0.entry(part).or_default().push(start.elapsed().as_secs_f64() * 1e3);
        Ok(result)
    }

    /// Sorted sums of some parts over the steps.
    fn sums(&self, parts: &[&'static str]) -> Vec<f64> {
        let steps = self.0.values().map(Vec::len).min().unwrap_or(0);
        let sum = |step: usize| parts.iter().map(|part| self.0[part][step]).sum::<f64>();
        let mut sums: Vec<f64> = (0..steps).map(sum).collect();
        sums.sort_by(f64::total_cmp);
        sums
    }

    /// Medians, with the least and the most.
    pub(crate) fn print(&self) {
        let whole = median(&self.sums(&STEP_PARTS));
        say("part                      median, ms   from     to  of the step");
        let line = |title: &str, parts: &[&'static str]| {
            let sums = self.sums(parts);
            let (middle, least, most) = (median(&sums), sums[0], sums[sums.len() - 1]);
            let share = 100.0 * middle / whole;
            say(&format!("{title:24}  {middle:10.1} {least:6.0} {most:6.0}  {share:6.1} %"));
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
