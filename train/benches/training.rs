//! A semi-supervised step of EfficientNet-Lite0 at a small crop, and what it is made of besides the network: its batches, its
//! losses, and the update of the prototypes.
//!
//! `cargo bench --workspace --bench training`

#[path = "../examples/sample_step/mod.rs"]
mod sample_step;

use std::hint::black_box;

use anyhow::{Context, Result};
use criterion::Criterion;
use protoseg_train::method::objective::LossWeights;
use protoseg_train::method::prototypes::Prototypes;
use protoseg_train::method::similarity::Similarity;
use protoseg_train::method::step::HeadOutputs;
use protoseg_train::method::targets::Targets;
use protoseg_train::run::openmp;
use sample_step::{STEP, SampleState, SampleStep};
use tch::Tensor;

/// Two labelled and two unlabelled crops, all of them mixed.
const SETTINGS: [&str; 4] = ["crop=96", "batch=2", "accumulate=1", "cutmix=1"];

fn main() -> Result<()> {
    openmp::set_passive_waiting();
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let setting = SampleStep::new(&SETTINGS.map(str::to_owned))?;
    batches(&mut criterion, &setting);
    step(&mut criterion, &setting)?;
    parts(&mut criterion, &setting)?;
    criterion.final_summary();
    Ok(())
}

/// Crops of scenes that have been drawn already.
fn batches(criterion: &mut Criterion, setting: &SampleStep) {
    criterion.bench_function("batch of 2+2 crops of 96", |bencher| {
        bencher.iter(|| black_box(setting).batches())
    });
}

fn step(criterion: &mut Criterion, setting: &SampleStep) -> Result<()> {
    let (mut state, batches) = (setting.state()?, setting.batches()?);
    criterion.bench_function("step, EfficientNet-Lite0, 2+2 crops of 96", |bencher| {
        bencher.iter(|| setting.step(&mut state, &batches).expect("the step can be taken"));
    });
    Ok(())
}

fn parts(criterion: &mut Criterion, setting: &SampleStep) -> Result<()> {
    let mut state = setting.state()?;
    let learner = setting.learner();
    let progress = setting.schedule.progress(STEP);
    let batch = setting.batches()?.into_iter().next().context("a step has a micro-batch")?;
    let lesson = learner.targets(&batch, STEP, progress, &mut state.tally)?;
    let outputs = learner.forward(&lesson.images, true, STEP)?;
    let weights = LossWeights::at_progress(&setting.config, progress);
    criterion.bench_function("losses, 2+2 crops of 96", |bencher| {
        bencher.iter(|| {
            losses(setting, &mut state, &lesson, &outputs, weights).expect("a step has losses")
        });
    });

    let pixels = learner.points(&lesson.labels, setting.classes, STEP, 0)?;
    let map = outputs.features.as_ref().context("there are no features")?;
    let labeled = map.f_narrow(0, 0, lesson.labels.size()[0])?;
    let features = pixels.features(&labeled, setting.align_corners())?.f_detach()?;
    let labels = pixels.labels(&lesson.labels)?;
    let compared = state.prototypes.compare(&features)?;
    criterion.bench_function("update of the prototypes", |bencher| {
        bencher.iter(|| {
            move_prototypes(&mut state.prototypes, &compared, &labels)
                .expect("prototypes can be moved")
        });
    });
    Ok(())
}

fn move_prototypes(
    prototypes: &mut Prototypes,
    compared: &Similarity,
    labels: &Tensor,
) -> Result<()> {
    let mut gathered = prototypes.begin_step()?;
    prototypes.accumulate(&mut gathered, compared, labels)?;
    prototypes.update(gathered, STEP)
}

/// All terms of the objective and their sum, from what the networks have given.
fn losses(
    setting: &SampleStep,
    state: &mut SampleState,
    lesson: &Targets,
    outputs: &HeadOutputs,
    weights: LossWeights,
) -> Result<f64> {
    let SampleState { prototypes, tally, .. } = state;
    let mut gathered = prototypes.begin_step()?;
    let predictor = Some((&*prototypes, &mut gathered));
    let terms = setting.learner().terms(outputs, lesson, STEP, predictor, tally)?;
    Ok(terms.total(weights)?.f_double_value(&[])?)
}
