//! Report of an acceptance test, as JSON and as text.

use std::fmt;

use protoseg_models::arch::Preset;
use serde::Serialize;
use tch::Device;

use super::checks::{Check, CheckOutcome};
use super::roofline::{Ceilings, Roofline};
use crate::config::crop_size::CropSize;
use crate::config::options::Precision;
use crate::run::memory;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AcceptReport {
    /// Version of the report's format.
    pub version: &'static str,
    /// Version of the program.
    pub protoseg: &'static str,
    /// Version of libtorch.
    pub libtorch: &'static str,
    pub device: String,
    /// Model names of the machine's NVIDIA GPUs.
    pub gpus: Vec<String>,
    /// Threads of libtorch.
    pub threads: i32,
    pub brief: bool,
    /// Products of float32 may be rounded to 19 bits on the device.
    pub tf32: bool,
    /// The steps that losses and updates are compared with.
    pub reference: String,
    pub ceilings: Ceilings,
    /// Each network in each precision.
    pub trials: Vec<NetworkReport>,
    /// Duration of the whole test.
    pub seconds: f64,
    pub passed: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NetworkReport {
    pub network: Preset,
    pub precision: Precision,
    /// Of each compared step.
    pub losses: Vec<Losses>,
    /// None if the timed steps failed.
    pub speed: Option<Speed>,
    pub peak_memory: Memory,
    pub checks: Vec<Check>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Losses {
    pub device: f64,
    /// Of the same step on the CPU in float32.
    pub reference: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speed {
    /// Side of the crops in pixels.
    pub crop: CropSize,
    /// Labeled and unlabeled crops of a step.
    pub crops: usize,
    /// Of each timed step.
    pub seconds: Vec<f64>,
    /// Inverse of the median time.
    pub steps_per_second: f64,
    /// Labeled and unlabeled crops per second.
    pub images_per_second: f64,
    pub roofline: Roofline,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// None if unknown.
    pub bytes: Option<u64>,
    /// The kind of memory, or the reason why it is unknown.
    pub what: &'static str,
}

impl Memory {
    /// Peak so far of the memory that training on a device uses.
    pub(super) fn peak(device: Device) -> Self {
        if device == Device::Cpu {
            return Self {
                bytes: memory::peak(),
                what: "main memory of the process since its start",
            };
        }
        Self { bytes: None, what: "tch does not expose the statistics of libtorch's allocator" }
    }
}

impl AcceptReport {
    pub const VERSION: &str = "1.0";
}

impl NetworkReport {
    /// A report without results.
    pub(super) fn new(network: Preset, precision: Precision, device: Device) -> Self {
        Self {
            network,
            precision,
            losses: Vec::new(),
            speed: None,
            peak_memory: Memory::peak(device),
            checks: Vec::new(),
        }
    }

    /// Returns true if no check failed.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.outcome != CheckOutcome::Failed)
    }
}

impl fmt::Display for AcceptReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gpus: String = self.gpus.iter().map(|gpu| format!(" ({gpu})")).collect();
        let tf32 = if self.tf32 { "on" } else { "off" };
        writeln!(formatter, "{}{gpus}, {} threads, TF32 {tf32}", self.device, self.threads)?;
        let Ceilings { matrix, float32, bfloat16, copied_bytes } = self.ceilings;
        writeln!(
            formatter,
            "ceilings: {:.1} G multiply-adds/s in float32 and {:.1} in bfloat16 (product of \
             {matrix}x{matrix}), {:.1} GB/s copied",
            float32 / 1e9,
            bfloat16 / 1e9,
            copied_bytes / 1e9
        )?;
        writeln!(formatter, "compared with {}", self.reference)?;
        for trial in &self.trials {
            write!(formatter, "\n{trial}")?;
        }
        let verdict = if self.passed { "passed" } else { "FAILED" };
        write!(formatter, "\n{verdict} in {:.1} s", self.seconds)
    }
}

impl fmt::Display for NetworkReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}, {}", self.network, self.precision.name())?;
        for Check { what, outcome, measured, limit, reason } in &self.checks {
            let outcome = match outcome {
                CheckOutcome::Passed => "passed",
                CheckOutcome::Failed => "FAILED",
                CheckOutcome::NotRun => "not run",
            };
            let number = |value: &Option<f64>| {
                value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2e}"))
            };
            let (measured, limit) = (number(measured), number(limit));
            let reason = reason.as_deref().unwrap_or_default();
            let line = format!("  {what:48} {outcome:7}  {measured:>9} of {limit:>9}  {reason}");
            writeln!(formatter, "{}", line.trim_end())?;
        }
        if let Some(Speed { crop, crops, steps_per_second, images_per_second, roofline, seconds }) =
            &self.speed
        {
            writeln!(
                formatter,
                "  {steps_per_second:.2} steps/s, {images_per_second:.1} images/s: {crops} crops \
                 of {crop}, median of {}",
                seconds.len()
            )?;
            writeln!(
                formatter,
                "  {:.1} % of the roofline: {:.1} % of the product, {:.1} % of the copy ({:.1} G \
                 multiply-adds, {:.2} GB)",
                100.0 * roofline.share,
                100.0 * roofline.share_of_product,
                100.0 * roofline.share_of_copy,
                roofline.work.multiply_adds / 1e9,
                roofline.work.bytes / 1e9
            )?;
        }
        let Memory { bytes, what } = self.peak_memory;
        match bytes {
            Some(bytes) => writeln!(formatter, "  peak {:.2} GB: {what}", bytes as f64 / 1e9),
            None => writeln!(formatter, "  peak memory unknown: {what}"),
        }
    }
}
