//! `record_step DIR [KEY=VALUE…]`: takes one step and writes its inputs and outputs, against which other implementations
//! are checked.

mod sample_step;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use protoseg_models::classes::IGNORE_INDEX;
use protoseg_train::data::loader::MicroBatch;
use protoseg_train::method::step::{Learner, StepReport};
use sample_step::files::{self, Tensors};
use sample_step::{STEP, SampleStep};

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = PathBuf::from(arguments.next().context("usage: record_step DIR [KEY=VALUE…]")?);
    let settings =
        arguments.map(|setting| setting.into_string().ok().context("a setting is not UTF-8"));
    record(&folder, &settings.collect::<Result<Vec<String>>>()?)
}

fn record(folder: &Path, settings: &[String]) -> Result<()> {
    let sample = SampleStep::new(settings)?;
    let mut learner = sample.learner()?;
    let batches = sample.batches()?;
    files::write_inputs(folder, &sample, &learner, &batches)?;

    let (reports, sums) = learner.gradients(&batches, STEP)?;
    ensure_nothing_idle(&sample, &learner, &batches, &reports)?;
    let mut outputs = Tensors::default();
    outputs.floats("losses", &[reports.len(), 4], &losses(&reports)?);
    for (name, parameter) in learner.student.trainable() {
        outputs.tensor(&format!("gradient.{name}"), &parameter.f_grad()?)?;
    }
    learner.update(sums, STEP)?;
    outputs.learner(&learner)?;
    let prototypes = learner.prototypes.as_ref().context("the sample has prototypes")?;
    let hits: Vec<f32> =
        prototypes.counters().assignments.iter().map(|&hits| hits as f32).collect();
    ensure!(hits.iter().any(|&hits| hits > 0.0), "no point was assigned to a prototype");
    outputs.floats("hits", &[hits.len()], &hits);
    outputs.write(&folder.join("outputs.safetensors"))
}

/// Returns the four terms of each micro-batch.
fn losses(reports: &[StepReport]) -> Result<Vec<f32>> {
    let mut losses = Vec::new();
    for StepReport { terms, .. } in reports {
        for term in [
            Some(terms.labeled),
            terms.unlabeled,
            terms.prototype_labeled,
            terms.prototype_unlabeled,
        ] {
            losses.push(term.context("a term is missing")? as f32);
        }
    }
    Ok(losses)
}

/// Refuses a step that leaves a part of the method unused.
fn ensure_nothing_idle(
    sample: &SampleStep,
    learner: &Learner,
    batches: &[MicroBatch],
    reports: &[StepReport],
) -> Result<()> {
    let mixed = sample.numbers().map(|number| Ok(!learner.boxes(number)?.boxes().is_empty()));
    let mixed = mixed.collect::<Result<Vec<bool>>>()?;
    ensure!(sample.config.cutmix == 0.0 || mixed.contains(&true), "no micro-batch is mixed");
    let ignored = |batch: &MicroBatch| batch.labeled.labels.contains(&IGNORE_INDEX);
    ensure!(batches.iter().any(ignored), "no label is ignored");
    let padded = |batch: &MicroBatch| {
        batch.unlabeled.as_ref().is_some_and(|unlabeled| unlabeled.valid.contains(&0))
    };
    ensure!(batches.iter().any(padded), "no image is padded");
    let dropped =
        |report: &StepReport| report.kept_share.is_some_and(|share| share > 0.0 && share < 1.0);
    ensure!(reports.iter().all(dropped), "no pixel is dropped");
    Ok(())
}
