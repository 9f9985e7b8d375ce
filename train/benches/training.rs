//! A semi-supervised step of EfficientNet-Lite0 at a small crop, and its parts beside the network: making a batch, losses,
//! and the update of the prototypes.
//!
//! `cargo bench --workspace --bench training`

#[path = "../examples/sample_step/mod.rs"]
mod sample_step;

use std::hint::black_box;

use anyhow::{Context, Result};
use criterion::Criterion;
use protoseg_train::method::objective::LossWeights;
use protoseg_train::method::prototypes::Prototypes;
use protoseg_train::method::step::{HeadOutputs, Learner};
use protoseg_train::method::targets::Targets;
use protoseg_train::run::environment;
use sample_step::{STEP, SampleStep};

/// Two labeled and two unlabeled crops, all of them mixed.
const SETTINGS: [&str; 4] = ["crop=96", "batch=2", "accumulate=1", "cutmix=1"];

fn main() -> Result<()> {
    environment::set_passive_waiting();
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let sample = SampleStep::new(&SETTINGS.map(str::to_owned))?;
    // The scenes are cached: rendering them is not measured.
    criterion.bench_function("batch of 2+2 crops of 96", |bencher| {
        bencher.iter(|| black_box(&sample).batches());
    });
    let mut learner = sample.learner()?;
    let batches = sample.batches()?;
    criterion.bench_function("step, EfficientNet-Lite0, 2+2 crops of 96", |bencher| {
        bencher.iter(|| learner.step(&batches, STEP).expect("the step succeeds"));
    });
    bench_parts(&mut criterion, &sample)?;
    criterion.final_summary();
    Ok(())
}

fn bench_parts(criterion: &mut Criterion, sample: &SampleStep) -> Result<()> {
    let mut learner = sample.learner()?;
    let progress = sample.schedule.progress(STEP);
    let batch = sample.batches()?.into_iter().next().context("a step has a micro-batch")?;
    let targets = learner.targets(&batch, STEP, progress)?;
    let outputs = learner.forward(&targets, STEP)?;
    let weights = LossWeights::at_progress(&sample.config, progress);
    criterion.bench_function("losses, 2+2 crops of 96", |bencher| {
        bencher.iter(|| total_loss(&learner, &targets, &outputs, weights).expect("finite losses"));
    });

    let points = learner.points(&targets.labels, STEP, 0)?;
    let map = outputs.features.as_ref().context("there are no features")?;
    let labeled = map.f_narrow(0, 0, targets.labels.size()[0])?;
    let features = points.features(&labeled, learner.align_corners())?.f_detach()?;
    let labels = points.labels(&targets.labels)?;
    let prototypes = learner.prototypes.as_mut().context("the sample has prototypes")?;
    let similarity = prototypes.compare(&features)?;
    let update = |prototypes: &mut Prototypes| -> Result<()> {
        let mut sums = prototypes.begin_step()?;
        prototypes.accumulate(&mut sums, &similarity, &labels)?;
        prototypes.update(sums, STEP)
    };
    criterion.bench_function("update of the prototypes", |bencher| {
        bencher.iter(|| update(prototypes).expect("the update succeeds"));
    });
    Ok(())
}

/// Returns the weighted sum of all terms of the objective.
fn total_loss(
    learner: &Learner,
    targets: &Targets,
    outputs: &HeadOutputs,
    weights: LossWeights,
) -> Result<f64> {
    let mut sums = learner.prototypes.as_ref().map(Prototypes::begin_step).transpose()?;
    let terms = learner.terms(outputs, targets, STEP, sums.as_mut())?;
    Ok(terms.total(weights)?.f_double_value(&[])?)
}
