//! `record_step DIR [KEY=VALUE…]`: takes a step and writes what went in and what came out, for another implementation to
//! check itself against, or this one.

mod sample_step;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use protoseg_models::classes::IGNORE_INDEX;
use protoseg_train::data::loader::MicroBatch;
use protoseg_train::method::step::StepReport;
use protoseg_train::method::teacher;
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
    let setting = SampleStep::new(settings)?;
    let (mut state, batches) = (setting.state()?, setting.batches()?);
    files::write_inputs(folder, &setting, &state, &batches)?;

    let learner = setting.learner();
    let (reports, gathered) =
        learner.gradients(Some(&state.prototypes), &mut state.tally, &batches, STEP)?;
    ensure_nothing_idle(&setting, &batches, &reports)?;
    let mut outputs = Tensors::default();
    outputs.floats("losses", &[reports.len(), 4], &losses(&reports)?);
    for (name, parameter) in setting.student.trainable() {
        outputs.tensor(&format!("gradient.{name}"), &parameter.f_grad()?)?;
    }
    learner.update(&mut state.sgd, Some(&mut state.prototypes).zip(gathered), STEP)?;
    teacher::update_ema(&setting.teacher, &setting.student, setting.decay(), true)?;
    outputs.network("student", &setting.student)?;
    outputs.network("teacher", &setting.teacher)?;
    outputs.velocity(&state)?;
    outputs.tensor("prototypes", state.prototypes.values())?;
    let hits: Vec<f32> =
        state.prototypes.counters().assignments.iter().map(|&hits| hits as f32).collect();
    ensure!(hits.iter().any(|&hits| hits > 0.0), "no point moved a prototype");
    outputs.floats("hits", &[hits.len()], &hits);
    outputs.write(&folder.join("outputs.safetensors"))
}

/// The terms of each micro-batch.
fn losses(reports: &[StepReport]) -> Result<Vec<f32>> {
    let mut losses = Vec::new();
    for report in reports {
        let terms = &report.terms;
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

/// Refuses a step in which something that should be compared does not happen.
fn ensure_nothing_idle(
    setting: &SampleStep,
    batches: &[MicroBatch],
    reports: &[StepReport],
) -> Result<()> {
    let learner = setting.learner();
    let mixed = setting.numbers().map(|number| Ok(!learner.boxes(number)?.boxes().is_empty()));
    let mixed = mixed.collect::<Result<Vec<bool>>>()?;
    ensure!(setting.config.cutmix == 0.0 || mixed.contains(&true), "no micro-batch is mixed");
    let has = |bytes: &dyn Fn(&MicroBatch) -> bool| batches.iter().any(bytes);
    ensure!(has(&|batch| batch.labeled.labels.contains(&IGNORE_INDEX)), "no label is ignored");
    ensure!(
        has(&|batch| batch.unlabeled.as_ref().is_some_and(|part| part.valid.contains(&0))),
        "nothing is padded"
    );
    ensure!(
        reports
            .iter()
            .all(|report| report.kept_share.is_some_and(|share| share > 0.0 && share < 1.0)),
        "no pixel is dropped"
    );
    Ok(())
}
