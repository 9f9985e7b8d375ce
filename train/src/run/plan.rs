//! The plan of a run, printed before its first step: data, schedule, measured cost.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use protoseg_images::labeled::LabeledDataset;
use protoseg_models::classes::Class;
use protoseg_models::graph::Tag;
use protoseg_models::random::Stream;
use tch::{Kind, Tensor};

use crate::config::Config;
use crate::config::options::TrainingMode;
use crate::data::census::{Census, ListFacts};
use crate::data::label_check::LabelCheck;
use crate::data::lists::Lists;
use crate::data::loader::{BatchBuilder, ImageCaches};
use crate::data::read;
use crate::evaluate::Protocol;
use crate::interrupt::Interrupt;
use crate::method::prototype_init::feature_node;
use crate::method::prototypes::{PrototypeSettings, Prototypes};
use crate::method::schedule::Schedule;
use crate::method::step::Learner;
use crate::run::distill::FinishedTeacher;
use crate::run::memory::{Phase, in_phase};
use crate::run::rehearsal::{PhaseCosts, Rehearsal};
use crate::streams::PROTOTYPE_INIT;

/// Trial steps of each kind, of which the last is timed: the first ones fill libtorch's caches.
const TRIAL_STEPS: u64 = 2;

/// Measured cost of a run.
#[derive(Debug, Clone, Copy)]
pub struct RunCost {
    warmup: Duration,
    after_warmup: Duration,
    /// Seconds of a frozen encoder whose outputs are kept, for all training images.
    features: f64,
    /// Seconds of a finished teacher's labels, for all unlabeled images.
    labeling: f64,
    phases: PhaseCosts,
    /// Peak resident memory in bytes.
    pub memory: Option<u64>,
}

/// Images of a run, and the way to process them beside the steps.
pub struct PlannedImages<'a> {
    pub lists: &'a Lists,
    pub census: &'a Census,
    pub builder: &'a BatchBuilder,
    pub caches: &'a ImageCaches,
    pub protocol: Protocol,
    /// Network that labels the unlabeled images before the first step.
    pub teacher: Option<&'a FinishedTeacher>,
    pub interrupt: Interrupt,
}

/// Times steps of the warm-up and after it, and everything beside the steps, on copies of the networks.
pub fn measure_cost(learner: &Learner, images: &PlannedImages) -> Result<RunCost> {
    let PlannedImages { lists, census, builder, caches, protocol, teacher, interrupt } = images;
    let Learner { config, schedule, student, .. } = learner;
    let weights = student.state_dict()?;
    let mut trial = Learner::new(config, *schedule, student.graph(), &weights, student.device())?;
    trial.student = trial.student.sharing_cache(student);
    trial.teacher = trial.teacher.sharing_cache(student);
    let supervised = config.mode == TrainingMode::Supervised;
    let mut images_per_second = f64::INFINITY;
    let warmup = if schedule.warmup > 0 || supervised {
        let StepTimes { first, again } = time_steps(&mut trial, builder, caches, 0)?;
        if student.has_cache() {
            let labeled = (config.batch * config.accumulate) as f64;
            images_per_second = labeled / first.saturating_sub(again).as_secs_f64();
        }
        again
    } else {
        Duration::ZERO
    };
    if config.mode == TrainingMode::Prototype {
        trial.prototypes = Some(random_prototypes(&trial)?);
    }
    let after_warmup = if supervised {
        warmup
    } else {
        time_steps(&mut trial, builder, caches, schedule.warmup)?.again
    };
    let views = match config.crops_per_image {
        0 if config.flip => 2,
        0 => 1,
        crops => crops,
    };
    let features = views as f64
        * (lists.labeled.count() + lists.unlabeled.as_ref().map_or(0, |images| images.count()))
            as f64
        / images_per_second;
    interrupt.check()?;
    trial.teacher_ready = true;
    let interrupt = interrupt.clone();
    let labeling = match (teacher, &lists.unlabeled) {
        (Some(teacher), Some(unlabeled)) => labeling_seconds(teacher, unlabeled)?,
        _ => 0.0,
    };
    let rehearsal = Rehearsal { trial: &trial, lists, census, protocol: *protocol, interrupt };
    let phases = rehearsal.measure()?;
    // Decoded images fill their caches in the first pass.
    let unlabeled = caches.unlabeled.as_ref().zip(census.unlabeled.as_ref());
    let growth = caches.labeled.growth(&census.labeled.sizes)
        + unlabeled.map_or(0, |(cache, facts)| cache.growth(&facts.sizes));
    let memory = phases.memory.map(|peak| peak + growth as u64);
    Ok(RunCost { warmup, after_warmup, features, labeling, phases, memory })
}

/// Estimates the time of a finished teacher's labels from one image.
fn labeling_seconds(teacher: &FinishedTeacher, images: &LabeledDataset) -> Result<f64> {
    let sample = read::read(images, 0)?;
    let start = Instant::now();
    in_phase(Phase::Labeling, || teacher.label(&sample))?;
    Ok(start.elapsed().as_secs_f64() * images.count() as f64)
}

/// Times of a step.
struct StepTimes {
    /// On new images.
    first: Duration,
    /// On images of which a frozen encoder's outputs are known; else the same.
    again: Duration,
}

/// Takes [`TRIAL_STEPS`] steps and returns the times of the last one.
fn time_steps(
    trial: &mut Learner,
    builder: &BatchBuilder,
    caches: &ImageCaches,
    first: u64,
) -> Result<StepTimes> {
    let mut times = StepTimes { first: Duration::ZERO, again: Duration::ZERO };
    for step in first..first + TRIAL_STEPS {
        let batches = builder.make(caches, step)?;
        let start = Instant::now();
        trial.step(&batches, step)?;
        times = StepTimes { first: start.elapsed(), again: start.elapsed() };
        if trial.student.has_cache() {
            let start = Instant::now();
            trial.step(&batches, step)?;
            times.again = start.elapsed();
        }
    }
    Ok(times)
}

/// Returns prototypes in random directions, which cost as much as fitted ones.
fn random_prototypes(learner: &Learner) -> Result<Prototypes> {
    let settings = PrototypeSettings::from_config(learner.config, learner.classes());
    let graph = learner.student.graph();
    let channels = graph.node(feature_node(graph, learner.config.features)?).channels as i64;
    let rows = (settings.classes * settings.per_class) as i64;
    let stream = Stream::keyed(&[learner.config.seed, PROTOTYPE_INIT, 2]);
    let values: Vec<f32> =
        (0..(rows * channels) as u64).map(|index| stream.normal(index) as f32).collect();
    let values =
        Tensor::f_from_slice(&values)?.f_view([rows, channels])?.f_to_device(learner.device())?;
    let mean = Tensor::f_zeros([channels], (Kind::Float, learner.device()))?;
    Ok(Prototypes::new(settings, values, mean, vec![true; settings.classes]))
}

/// Describes the plan; `pixels` are the labeled pixels of each class.
pub fn describe(
    learner: &Learner,
    images: &PlannedImages,
    labels: &LabelCheck,
    cost: RunCost,
) -> String {
    let Learner { config, schedule, student, .. } = learner;
    let PlannedImages { lists, census, teacher, .. } = images;
    let count = |images: Option<usize>| images.map_or("none".to_owned(), |count| count.to_string());
    let weights: usize = student.trainable().map(|(_, tensor)| tensor.numel()).sum();
    let graph = student.graph();
    let channels = graph.tagged(Tag::Features).map_or(0, |id| graph.node(id).channels);
    let mut lines = vec![
        format!(
            "{} ({:.1} million weights, {channels} feature channels), mode {}, on {:?}",
            config.network,
            weights as f64 / 1e6,
            config.mode.name(),
            student.device(),
        ),
        format!(
            "images: {} labeled, {} unlabeled{}, {} validation",
            lists.labeled.count(),
            count(lists.unlabeled.as_ref().map(|set| set.count())),
            match census.skipped.len() {
                0 => String::new(),
                skipped => format!(" ({skipped} broken ones are left out)"),
            },
            count(lists.validation.as_ref().map(LabeledDataset::count)),
        ),
        format!(
            "{} steps of {} micro-batches of {} crops of {} ({} labeled crops per step), the first {} of \
             them supervised warm-up; {} steps per epoch, {:.1} epochs in all",
            schedule.steps,
            config.accumulate,
            config.batch,
            config.crop,
            config.batch * config.accumulate,
            schedule.warmup,
            schedule.steps_per_epoch,
            schedule.steps as f64 / schedule.steps_per_epoch as f64,
        ),
        format!(
            "learning rate {:.3e}, decoder {:.3e}",
            schedule.base_learning_rate,
            schedule.base_learning_rate * config.head_multiplier,
        ),
    ];
    lines.extend(
        teacher.map(|teacher| format!("labels of the unlabeled images: {}", teacher.description)),
    );
    lines.push(augmentation(config));
    lines.extend(small_images(config, lists, census));
    if config.accumulate > 1 {
        let note = "batch statistics, CutMix and thresholds are per micro-batch, not per step";
        lines.push(note.to_owned());
    }
    lines.extend(class_shares(lists.classes.classes(), &census.labeled.pixels));
    lines.push(expectation(config, *schedule, cost));
    lines.extend(labels.lines());
    lines.join("\n")
}

/// Describes the changes made to training crops.
fn augmentation(config: &Config) -> String {
    let mut changes = Vec::new();
    if config.flip {
        let pairs: Vec<String> = config.flip_pairs.iter().map(|pair| pair.join(" and ")).collect();
        changes.push(if pairs.is_empty() {
            "half of them mirrored".to_owned()
        } else {
            format!("half of them mirrored, which swaps {}", pairs.join(", "))
        });
    }
    match config.scale {
        [low, high] if low == high => changes.push(format!("{low} times as large")),
        [low, high] => changes.push(format!("{low} to {high} times as large")),
    }
    if config.crops_per_image > 0 {
        changes.push(format!("{} different ones of each image", config.crops_per_image));
    }
    match (config.labeled_photometric, config.photometric) {
        (true, true) => changes.push("in other colors".to_owned()),
        (true, false) => changes.push("labeled ones in other colors".to_owned()),
        (false, true) => changes.push("unlabeled ones in other colors".to_owned()),
        (false, false) => {}
    }
    format!("training crops: {}", changes.join(", "))
}

/// Names images that are padded, as they are smaller than a crop.
fn small_images(config: &Config, lists: &Lists, census: &Census) -> Vec<String> {
    let crop = config.crop;
    let described = |list: &str, facts: Option<&ListFacts>, set: Option<&LabeledDataset>| {
        let (facts, set) = (facts?, set?);
        let (count, smallest) = facts.below(crop.sides())?;
        let [height, width] = facts.sizes[smallest];
        Some(format!(
            "{count} of {} {list} images are smaller than a crop of {crop} in height or width, and padded; the \
             smallest is {} ({width}x{height})",
            facts.sizes.len(),
            set.name(smallest)
        ))
    };
    let labeled = described("labeled", Some(&census.labeled), Some(&lists.labeled));
    let unlabeled = described("unlabeled", census.unlabeled.as_ref(), lists.unlabeled.as_deref());
    labeled.into_iter().chain(unlabeled).collect()
}

/// Expected time and memory.
fn expectation(config: &Config, schedule: Schedule, cost: RunCost) -> String {
    let warmup = cost.warmup.as_secs_f64();
    let after_warmup = cost.after_warmup.as_secs_f64();
    let steps =
        warmup * schedule.warmup as f64 + after_warmup * (schedule.steps - schedule.warmup) as f64;
    let PhaseCosts { scoring, prototypes, calibration, .. } = cost.phases;
    let scorings = match config.eval_every {
        0 => 1,
        every => 1 + (schedule.steps - 1) / every,
    };
    // A forward pass takes a third of a step.
    let statistics = config.precise_bn_batches as f64 * warmup / 3.0;
    let rest = scorings as f64 * scoring
        + prototypes
        + calibration
        + statistics
        + cost.features
        + cost.labeling;
    let mut expected = format!(
        "expected: {}: {} of steps ({warmup:.2} s per warm-up step, {after_warmup:.2} s after it), {} of scores",
        clock(steps + rest),
        clock(steps),
        clock(scorings as f64 * scoring),
    );
    // Writing to a string cannot fail.
    if cost.features > 0.0 {
        let _ = write!(expected, ", {} of the frozen encoder", clock(cost.features));
    }
    if cost.labeling > 0.0 {
        let _ = write!(expected, ", {} of the teacher's labels", clock(cost.labeling));
    }
    let _ = write!(expected, ", {} of statistics", clock(statistics));
    if prototypes > 0.0 {
        let _ = write!(expected, ", {} of first prototypes", clock(prototypes));
    }
    let _ = write!(expected, ", {} of calibration", clock(calibration));
    if let Some(memory) = cost.memory {
        let _ = write!(expected, "; {} of main memory", gigabytes(memory));
    }
    expected
}

/// Bytes as a number for people.
pub fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}

/// A line for each class with its share of the labeled pixels.
fn class_shares(classes: &[Class], pixels: &[u64]) -> Vec<String> {
    let all = pixels.iter().sum::<u64>().max(1) as f64;
    let width = classes.iter().map(|class| class.name.len()).max().unwrap_or(0);
    let line = |(class, &pixels): (&Class, &u64)| {
        let share = pixels as f64 / all;
        let bar = "#".repeat((share * 40.0).ceil() as usize);
        let bar = if pixels == 0 { "none" } else { &bar };
        format!("  {:width$} {:5.1} % {bar}", class.name, 100.0 * share)
    };
    let head = "labeled pixels:".to_owned();
    std::iter::once(head).chain(classes.iter().zip(pixels).map(line)).collect()
}

fn clock(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    if minutes < 1 {
        format!("{seconds:.0} s")
    } else {
        format!("{} h {:02} min", minutes / 60, minutes % 60)
    }
}
