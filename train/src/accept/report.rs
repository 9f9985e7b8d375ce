//! What an acceptance found, as JSON and as a table.

use std::fmt;

use protoseg_models::arch::Preset;
use serde::Serialize;

use super::checks::{Check, CheckOutcome};
use super::roofline::{Ceilings, Roofline};
use crate::config::options::Precision;

/// Whether training works on a device, and how fast.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AcceptReport {
    /// Version of the report.
    pub version: &'static str,
    /// Version of the program.
    pub protoseg: &'static str,
    /// Version of libtorch.
    pub libtorch: &'static str,
    /// Where the steps were taken.
    pub device: String,
    /// The GPUs of the machine, by what the driver calls them.
    pub gpus: Vec<String>,
    /// Threads of libtorch.
    pub threads: i32,
    /// Whether crops were small and steps few.
    pub brief: bool,
    /// Whether 32-bit floats may be rounded to 19 bits in products on the device.
    pub tf32: bool,
    /// What the losses were compared with.
    pub reference: String,
    /// What the device reaches at best.
    pub ceilings: Ceilings,
    /// Each network in each precision.
    pub trials: Vec<NetworkReport>,
    /// How long it all took.
    pub seconds: f64,
    /// Whether no check failed.
    pub passed: bool,
}

/// A network in a precision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NetworkReport {
    /// The network.
    pub network: Preset,
    /// Numbers of its convolutions.
    pub precision: Precision,
    /// The loss of each step that was compared.
    pub losses: Vec<Losses>,
    /// How fast steps were; none where they failed.
    pub speed: Option<Speed>,
    /// Memory that was held at most so far.
    pub peak_memory: Memory,
    /// What must hold.
    pub checks: Vec<Check>,
}

/// The loss of a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Losses {
    /// On the device.
    pub device: f64,
    /// Of the same step on the CPU, in 32-bit floats.
    pub reference: f64,
}

/// How fast steps were.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speed {
    /// Side of the crops in pixels.
    pub crop: usize,
    /// Labelled and unlabelled crops of a step.
    pub crops: usize,
    /// Each step, until the device had done it.
    pub seconds: Vec<f64>,
    /// One over their median.
    pub steps_per_second: f64,
    /// Labelled and unlabelled crops.
    pub images_per_second: f64,
    /// Held against the ceilings of the device.
    pub roofline: Roofline,
}

/// Memory that was held at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// How much; none where it cannot be known.
    pub bytes: Option<u64>,
    /// Which memory, or why it cannot be known.
    pub what: &'static str,
}

impl AcceptReport {
    /// Version written.
    pub const VERSION: &str = "1.0";
}

impl NetworkReport {
    /// Whether no check failed.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.outcome != CheckOutcome::Failed)
    }
}

impl fmt::Display for AcceptReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ceilings { matrix, float32, bfloat16, copied_bytes } = self.ceilings;
        writeln!(
            formatter,
            "{}{}, {} threads; TF32 {}",
            self.device,
            self.gpus.iter().map(|gpu| format!(" ({gpu})")).collect::<String>(),
            self.threads,
            if self.tf32 { "on" } else { "off" }
        )?;
        writeln!(
            formatter,
            "ceilings: {:.1} G multiply-adds/s in float32 and {:.1} in bfloat16 (product of {matrix}x{matrix}), {:.1} GB/s copied",
            float32 / 1e9,
            bfloat16 / 1e9,
            copied_bytes / 1e9
        )?;
        writeln!(formatter, "losses against {}", self.reference)?;
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
            write!(
                formatter,
                "  {what:42} {outcome:7}  {:>9} of {:>9}",
                number(measured),
                number(limit)
            )?;
            writeln!(
                formatter,
                "{}",
                reason.as_ref().map_or_else(String::new, |reason| format!("  {reason}"))
            )?;
        }
        if let Some(Speed { crop, crops, steps_per_second, images_per_second, roofline, seconds }) =
            &self.speed
        {
            writeln!(
                formatter,
                "  {steps_per_second:.2} steps/s, {images_per_second:.1} images/s: {crops} crops of {crop}x{crop}, median of {}",
                seconds.len()
            )?;
            writeln!(
                formatter,
                "  {:.1} % of the roofline: {:.1} % of the product, {:.1} % of the copy ({:.1} G multiply-adds, {:.2} GB)",
                100.0 * roofline.share,
                100.0 * roofline.share_of_product,
                100.0 * roofline.share_of_copy,
                roofline.work.multiply_adds / 1e9,
                roofline.work.bytes / 1e9
            )?;
        }
        let Memory { bytes, what } = self.peak_memory;
        match bytes {
            Some(bytes) => writeln!(formatter, "  at most {:.2} GB: {what}", bytes as f64 / 1e9),
            None => writeln!(formatter, "  memory not known: {what}"),
        }
    }
}
