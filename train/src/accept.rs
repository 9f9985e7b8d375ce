//! Whether training works on a device, and how near it comes to what the device can do.
//!
//! Each network takes a few semi-supervised steps on drawn scenes, in 32-bit floats and with convolutions in bfloat16. They
//! are held against the same steps on the CPU, and how fast they are against how fast the device multiplies and copies.
//! Nothing is read but the program.

use std::time::Instant;

use anyhow::{Context, Result};
use protoseg_models::arch::Preset;
use protoseg_models::weights::StateDict;
use tch::Device;

mod checks;
mod report;
mod roofline;
mod setting;
mod trial;

pub use checks::{Check, CheckOutcome};
pub use report::{AcceptReport, Losses, Memory, NetworkReport, Speed};
pub use roofline::{Ceilings, Roofline, Work};

use self::setting::{AcceptSetup, InitialState, StepSize};
use self::trial::{Trial, median};
use crate::config::options::Precision;
use crate::data::loader::MicroBatch;
use crate::run::{memory, provenance};

/// Keeps NVIDIA's libraries from rounding 32-bit floats to 19 bits where it is 0. It must be there before they are loaded:
/// [`environment::reexec_with_env`](crate::run::environment::reexec_with_env).
pub const TF32: &str = "NVIDIA_TF32_OVERRIDE";

const PRECISIONS: [Precision; 2] = [Precision::Float32, Precision::Bfloat16];
/// One network for the edge, and the paper's.
const PRESETS: [Preset; 2] =
    [Preset::DeepLabV3PlusEfficientNetLite0, Preset::DeepLabV3PlusResNet101];

/// What is to be tried.
#[derive(Debug, Clone, Copy)]
pub struct AcceptOptions {
    /// Where.
    pub device: Device,
    /// Every network, not only two.
    pub all: bool,
    /// Small crops and few steps, as on the CPU.
    pub brief: bool,
}

/// How large everything is.
struct Sizes {
    compared: StepSize,
    timed: StepSize,
    matrix: usize,
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

/// The steps on the CPU.
struct Reference {
    losses: Vec<f64>,
    learned: StateDict,
}

/// Tries the networks, and says which is being tried.
pub fn run(options: AcceptOptions, say: impl Fn(&str)) -> Result<AcceptReport> {
    let AcceptOptions { device, all, brief } = options;
    let begun = Instant::now();
    let brief = brief || device == Device::Cpu;
    let sizes = if brief { BRIEF } else { FULL };
    let threads = tch::get_num_threads();
    // On the CPU itself, sums of one thread are in another order than those of many.
    let reference_threads = if device == Device::Cpu { 1 } else { threads };
    say("what the device can do");
    let ceilings =
        memory::explain_out_of_memory(Ceilings::measure(device, sizes.matrix, sizes.copied))?;
    let mut trials = Vec::new();
    for &network in if all { &Preset::ALL[..] } else { &PRESETS } {
        say(&format!("{network} on the CPU"));
        let compared = AcceptSetup::new(network, sizes.compared)?.without_dropout();
        let start = InitialState::new(&compared)?;
        let batches = compared.batches(sizes.compared.steps)?;
        tch::set_num_threads(reference_threads);
        let reference = reference(&compared, &start, &batches);
        tch::set_num_threads(threads);
        let reference = reference.with_context(|| format!("{network} on the CPU"))?;
        let timed = AcceptSetup::new(network, sizes.timed)?;
        for precision in PRECISIONS {
            say(&format!("{network} on {device:?}, {}", precision.name()));
            let mut report = NetworkReport {
                network,
                precision,
                losses: Vec::new(),
                speed: None,
                peak_memory: peak_memory(device),
                checks: Vec::new(),
            };
            let tried = compare(&mut report, &compared, &start, &batches, &reference, device);
            if let Err(error) = memory::explain_out_of_memory(tried) {
                report.checks.push(Check::failed("steps as on the CPU", &error));
            }
            match memory::explain_out_of_memory(time(
                &timed,
                &start,
                sizes.timed,
                device,
                precision,
                &ceilings,
            )) {
                Ok(speed) => report.speed = Some(speed),
                Err(error) => report.checks.push(Check::failed("steps in time", &error)),
            }
            report.peak_memory = peak_memory(device);
            trials.push(report);
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
        reference: format!(
            "the same steps on the CPU in 32-bit floats, threads: {reference_threads}"
        ),
        ceilings,
        passed: trials.iter().all(NetworkReport::passed),
        trials,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

fn reference(
    setting: &AcceptSetup,
    start: &InitialState,
    batches: &[Vec<MicroBatch>],
) -> Result<Reference> {
    let mut trial = Trial::new(setting, start, Device::Cpu, Precision::Float32)?;
    let losses = trial.steps(batches)?.into_iter().map(|taken| taken.loss).collect();
    Ok(Reference { losses, learned: trial.trainable()? })
}

/// Takes the steps on the device and holds them against those on the CPU.
fn compare(
    report: &mut NetworkReport,
    setting: &AcceptSetup,
    start: &InitialState,
    batches: &[Vec<MicroBatch>],
    reference: &Reference,
    device: Device,
) -> Result<()> {
    let precision = report.precision;
    let mut trial = Trial::new(setting, start, device, precision)?;
    let taken = trial.steps(batches)?;
    let losses = taken.iter().zip(&reference.losses);
    report.losses =
        losses.map(|(taken, &reference)| Losses { device: taken.loss, reference }).collect();
    let apart = report.losses.iter().map(|losses| (losses.device / losses.reference - 1.0).abs());
    report.checks.push(Check::within(
        "losses are those on the CPU",
        apart.fold(0.0, f64::max),
        checks::loss_limit(precision),
    ));
    report.checks.extend(checks::same_direction(
        setting,
        precision,
        &trial.trainable()?,
        &reference.learned,
        &start.weights,
    )?);
    report.checks.extend(checks::state(&trial, device)?);
    let folder = tempfile::tempdir().context("a folder for a checkpoint")?;
    report.checks.push(checks::checkpoint(&trial, setting, &folder.path().join("checkpoint"))?);
    Ok(())
}

/// Takes steps that are timed.
fn time(
    setting: &AcceptSetup,
    start: &InitialState,
    size: StepSize,
    device: Device,
    precision: Precision,
    ceilings: &Ceilings,
) -> Result<Speed> {
    let mut trial = Trial::new(setting, start, device, precision)?;
    let taken = trial.steps(&setting.batches(size.warmup + size.steps)?)?;
    let seconds: Vec<f64> =
        taken.iter().skip(size.warmup as usize).map(|taken| taken.seconds).collect();
    let step = median(seconds.iter().copied()).context("no step was timed")?;
    let crops = 2 * setting.config.batch * setting.config.accumulate;
    Ok(Speed {
        crop: setting.config.crop,
        crops,
        seconds,
        steps_per_second: 1.0 / step,
        images_per_second: crops as f64 / step,
        roofline: Work::from_setup(setting)?.against(ceilings, precision, step),
    })
}

fn peak_memory(device: Device) -> Memory {
    if device == Device::Cpu {
        return Memory {
            bytes: memory::peak(),
            what: "main memory of the process, from its start",
        };
    }
    Memory { bytes: None, what: "tch reads no statistics of libtorch's allocator on a GPU" }
}

/// What the driver calls the machine's GPUs, in the order of their places on the bus.
fn gpus() -> Vec<String> {
    let Ok(folders) = std::fs::read_dir("/proc/driver/nvidia/gpus") else { return Vec::new() };
    let mut files: Vec<_> =
        folders.filter_map(|folder| Some(folder.ok()?.path().join("information"))).collect();
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
    fn steps_that_are_others_are_not_accepted() {
        let setting = AcceptSetup::new(PRESETS[0], BRIEF.compared).unwrap().without_dropout();
        let start = InitialState::new(&setting).unwrap();
        let batches = setting.batches(3).unwrap();
        let right = reference(&setting, &start, &batches[..1]).unwrap();
        let failed = |batches: &[Vec<MicroBatch>], reference: &Reference| -> Vec<&str> {
            let mut report = NetworkReport {
                network: PRESETS[0],
                precision: Precision::Float32,
                losses: Vec::new(),
                speed: None,
                peak_memory: peak_memory(Device::Cpu),
                checks: Vec::new(),
            };
            compare(&mut report, &setting, &start, batches, reference, Device::Cpu).unwrap();
            assert_eq!(
                report.passed(),
                report.checks.iter().all(|check| check.outcome == CheckOutcome::Passed)
            );
            report
                .checks
                .iter()
                .filter(|check| check.outcome == CheckOutcome::Failed)
                .map(|check| check.what)
                .collect()
        };
        assert_eq!(failed(&batches[..1], &right), [""; 0]);
        // Crops of other scenes.
        let others = failed(&batches[1..2], &right);
        assert!(
            others.len() == 3 && others[0].contains("losses") && others[2].contains("weights"),
            "{others:?}"
        );
        // The right losses, and gradients of the wrong sign.
        let mirrored =
            Reference { losses: right.losses.clone(), learned: mirrored(&start, &right) };
        assert_eq!(failed(&batches[..1], &mirrored).len(), 2);
    }

    /// Weights as far from the start as those of a reference, in the opposite direction.
    fn mirrored(start: &InitialState, reference: &Reference) -> StateDict {
        let mut learned = reference.learned.clone();
        for (name, tensor) in &mut learned {
            for (value, start) in tensor.data.iter_mut().zip(&start.weights[name].data) {
                *value = 2.0 * start - *value;
            }
        }
        learned
    }
}
