//! Acceptance test of training on a device: steps against the same steps on the CPU, speed against
//! the device's roofline.
//!
//! Each network takes a few semi-supervised steps on synthetic scenes, in float32 and with bfloat16
//! convolutions. No files are read.

use std::time::Instant;

use anyhow::{Context, Result};
use protoseg_models::arch::Preset;
use protoseg_models::weights::StateDict;
use tch::{Device, Tensor};

mod checks;
mod report;
mod roofline;
mod setup;

pub use checks::{Check, CheckOutcome};
pub use report::{AcceptReport, Losses, Memory, NetworkReport, Speed};
pub use roofline::{Ceilings, Roofline, Work};

use self::setup::{AcceptSetup, InitialState, StepSize};
use crate::config::options::Precision;
use crate::data::loader::MicroBatch;
use crate::method::step::Learner;
use crate::run::memory::{self, Phase};
use crate::run::provenance;

/// Environment variable that, set to 0, forbids NVIDIA's libraries to round float32 products to 19
/// bits. They read it when they are loaded:
/// [`environment::reexec_with_env`](crate::run::environment::reexec_with_env).
pub const TF32: &str = "NVIDIA_TF32_OVERRIDE";

const PRECISIONS: [Precision; 2] = [Precision::Float32, Precision::Bfloat16];
/// A network for edge devices, and the paper's.
const PRESETS: [Preset; 2] =
    [Preset::DeepLabV3PlusEfficientNetLite0, Preset::DeepLabV3PlusResNet101];

#[derive(Debug, Clone, Copy)]
pub struct AcceptOptions {
    pub device: Device,
    /// Tests every network, not only ResNet-101 and EfficientNet-Lite0.
    pub all: bool,
    /// Takes small crops and few steps, as always on the CPU.
    pub brief: bool,
}

struct Sizes {
    compared: StepSize,
    timed: StepSize,
    /// Side of the matrices that measure the product.
    matrix: usize,
    /// Floats that measure the copy.
    copied: usize,
}

const BRIEF: Sizes = Sizes {
    compared: StepSize { cells: 4, batch: 2, warmup: 0, steps: 2 },
    timed: StepSize { cells: 4, batch: 2, warmup: 1, steps: 3 },
    matrix: 1024,
    copied: 1 << 25,
};
const FULL: Sizes = Sizes {
    compared: StepSize { cells: 8, batch: 2, warmup: 0, steps: 4 },
    timed: StepSize { cells: 32, batch: 2, warmup: 3, steps: 10 },
    matrix: 8192,
    copied: 1 << 28,
};

/// Results of the compared steps on the CPU.
struct Reference {
    losses: Vec<f64>,
    trained: StateDict,
}

/// Tests the networks; `progress` is called with a line before each part.
pub fn run(options: AcceptOptions, progress: impl Fn(&str)) -> Result<AcceptReport> {
    let AcceptOptions { device, all, brief } = options;
    let start = Instant::now();
    let brief = brief || device == Device::Cpu;
    let sizes = if brief { BRIEF } else { FULL };
    let threads = tch::get_num_threads();
    // On the CPU itself, one thread sums in another order than many.
    let reference_threads = if device == Device::Cpu { 1 } else { threads };
    progress("ceilings of the device");
    let ceilings = memory::explain_out_of_memory(
        Ceilings::measure(device, sizes.matrix, sizes.copied),
        Phase::Steps,
    )?;
    let mut trials = Vec::new();
    for &network in if all { &Preset::ALL[..] } else { &PRESETS } {
        progress(&format!("{network} on the CPU"));
        let compared = AcceptSetup::new(network, sizes.compared)?.without_dropout();
        let initial = compared.initial_state()?;
        let batches = compared.batches(sizes.compared.steps)?;
        tch::set_num_threads(reference_threads);
        let reference = take_reference_steps(&compared, &initial, &batches);
        tch::set_num_threads(threads);
        let reference = reference.with_context(|| format!("{network} on the CPU"))?;
        let timed = AcceptSetup::new(network, sizes.timed)?;
        for precision in PRECISIONS {
            progress(&format!("{network} on {device:?}, {}", precision.name()));
            let mut trial = NetworkReport::new(network, precision, device);
            let result = compare(&mut trial, &compared, &initial, &batches, &reference, device);
            if let Err(error) = memory::explain_out_of_memory(result, Phase::Steps) {
                trial.checks.push(Check::failed("compared steps", &error));
            }
            let timed = timed.learner(&initial, device, precision).and_then(|learner| {
                measure_speed(learner, &timed, sizes.timed, precision, &ceilings)
            });
            match memory::explain_out_of_memory(timed, Phase::Steps) {
                Ok(speed) => trial.speed = Some(speed),
                Err(error) => trial.checks.push(Check::failed("timed steps", &error)),
            }
            trial.peak_memory = Memory::peak(device);
            trials.push(trial);
        }
    }
    Ok(AcceptReport {
        version: AcceptReport::VERSION,
        protoseg: env!("CARGO_PKG_VERSION"),
        libtorch: provenance::LIBTORCH,
        device: format!("{device:?}"),
        gpus: gpus(),
        threads,
        brief,
        tf32: device.is_cuda() && std::env::var_os(TF32).is_none_or(|value| value != "0"),
        reference: format!("the same steps on the CPU in float32, threads: {reference_threads}"),
        ceilings,
        passed: trials.iter().all(NetworkReport::passed),
        trials,
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn take_reference_steps(
    setup: &AcceptSetup,
    initial: &InitialState,
    batches: &[Vec<MicroBatch>],
) -> Result<Reference> {
    let mut learner = setup.learner(initial, Device::Cpu, Precision::Float32)?;
    let losses = take_steps(&mut learner, batches)?.into_iter().map(|step| step.loss).collect();
    Ok(Reference { losses, trained: trained_weights(&learner)? })
}

/// Takes the steps on the device and compares them with those on the CPU.
fn compare(
    trial: &mut NetworkReport,
    setup: &AcceptSetup,
    initial: &InitialState,
    batches: &[Vec<MicroBatch>],
    reference: &Reference,
    device: Device,
) -> Result<()> {
    let mut learner = setup.learner(initial, device, trial.precision)?;
    let steps = take_steps(&mut learner, batches)?;
    trial.losses = steps
        .iter()
        .zip(&reference.losses)
        .map(|(step, &reference)| Losses { device: step.loss, reference })
        .collect();
    trial.checks.push(checks::losses(&trial.losses, trial.precision));
    trial.checks.extend(checks::updates(
        setup,
        trial.precision,
        &trained_weights(&learner)?,
        &reference.trained,
        &initial.weights,
    )?);
    trial.checks.extend(checks::tensors(&learner, device)?);
    let folder = tempfile::tempdir().context("cannot create a folder for a checkpoint")?;
    trial.checks.push(checks::checkpoint(&learner, setup, &folder.path().join("checkpoint"))?);
    Ok(())
}

fn measure_speed(
    mut learner: Learner,
    setup: &AcceptSetup,
    size: StepSize,
    precision: Precision,
    ceilings: &Ceilings,
) -> Result<Speed> {
    let steps = take_steps(&mut learner, &setup.batches(size.warmup + size.steps)?)?;
    let seconds: Vec<f64> =
        steps.iter().skip(size.warmup as usize).map(|step| step.seconds).collect();
    let step = median(seconds.iter().copied()).context("no step was timed")?;
    let labeled_crops = setup.config.batch * setup.config.accumulate;
    let crops = 2 * labeled_crops;
    let work = Work::of_step(&setup.graph, labeled_crops, setup.config.crop)?;
    Ok(Speed {
        crop: setup.config.crop,
        crops,
        seconds,
        steps_per_second: 1.0 / step,
        images_per_second: crops as f64 / step,
        roofline: work.roofline(ceilings, precision, step),
    })
}

struct TimedStep {
    loss: f64,
    /// Time until the device has finished the step.
    seconds: f64,
}

fn take_steps(learner: &mut Learner, batches: &[Vec<MicroBatch>]) -> Result<Vec<TimedStep>> {
    let mut steps = Vec::with_capacity(batches.len());
    for (batches, step) in batches.iter().zip(0..) {
        let start = Instant::now();
        let report = learner.step(batches, step).with_context(|| format!("step {}", step + 1))?;
        let (_, last) = learner.teacher.trainable().last().context("a network without weights")?;
        first_number(last)?;
        steps.push(TimedStep { loss: report.loss, seconds: start.elapsed().as_secs_f64() });
    }
    Ok(steps)
}

/// Copies of the student's trainable weights.
fn trained_weights(learner: &Learner) -> Result<StateDict> {
    let mut weights = learner.student.state_dict()?;
    weights.retain(|name, _| learner.student.is_trainable(name));
    Ok(weights)
}

/// Reads the first number of a tensor, which waits until the device has computed it.
fn first_number(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.f_detach()?.f_flatten(0, -1)?.f_double_value(&[0])?)
}

/// The upper median; none of no values.
fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Model names of the machine's NVIDIA GPUs, in the order of their PCI addresses.
fn gpus() -> Vec<String> {
    let Ok(folders) = std::fs::read_dir("/proc/driver/nvidia/gpus") else { return Vec::new() };
    let mut files: Vec<_> =
        folders.flatten().map(|folder| folder.path().join("information")).collect();
    files.sort();
    let model = |text: String| {
        Some(text.lines().find_map(|line| line.strip_prefix("Model:"))?.trim().to_owned())
    };
    files.iter().filter_map(|file| model(std::fs::read_to_string(file).ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_steps_are_not_accepted() {
        let setup = AcceptSetup::new(PRESETS[0], BRIEF.compared).unwrap().without_dropout();
        let initial = setup.initial_state().unwrap();
        let batches = setup.batches(3).unwrap();
        let right = take_reference_steps(&setup, &initial, &batches[..1]).unwrap();
        let failed = |batches: &[Vec<MicroBatch>], reference: &Reference| -> Vec<&str> {
            let mut trial = NetworkReport::new(PRESETS[0], Precision::Float32, Device::Cpu);
            compare(&mut trial, &setup, &initial, batches, reference, Device::Cpu).unwrap();
            assert_eq!(
                trial.passed(),
                trial.checks.iter().all(|check| check.outcome == CheckOutcome::Passed)
            );
            let failed = |check: &&Check| check.outcome == CheckOutcome::Failed;
            trial.checks.iter().filter(failed).map(|check| check.what).collect()
        };
        assert_eq!(failed(&batches[..1], &right), [""; 0]);
        // Crops of other scenes.
        let others = failed(&batches[1..2], &right);
        assert!(
            others.len() == 3 && others[0].contains("losses") && others[2].contains("weights"),
            "{others:?}"
        );
        // The right losses, but updates in the opposite direction.
        let mut mirrored =
            Reference { losses: right.losses.clone(), trained: right.trained.clone() };
        for (name, tensor) in &mut mirrored.trained {
            for (value, initial) in tensor.data.iter_mut().zip(&initial.weights[name].data) {
                *value = 2.0 * initial - *value;
            }
        }
        assert_eq!(failed(&batches[..1], &mirrored).len(), 2);
    }
}
