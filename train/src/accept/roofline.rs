//! How much work a step is, and how fast the device could do it at best (Williams, Waterman, Patterson, Roofline, 2009).

use std::time::Instant;

use anyhow::{Context, Result};
use protoseg_models::graph::Graph;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::setting::AcceptSetup;
use super::trial::{first_number, median};
use crate::config::options::Precision;

/// How often a ceiling is measured, after once that does not count.
const MEASURED: usize = 5;

/// What the device reaches where nothing but the one thing is done.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ceilings {
    /// Side of the square matrices that are multiplied.
    pub matrix: usize,
    /// Multiply-adds a second of their product in 32-bit floats.
    pub float32: f64,
    /// The same in bfloat16.
    pub bfloat16: f64,
    /// Bytes a second that a copy within the device's memory reads and writes.
    pub copied_bytes: f64,
}

/// What a step has to do at least.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Work {
    /// Of convolutions and linear layers: three times a forward pass for the student on all crops (forward, gradients of the
    /// values, gradients of the weights), and one for the teacher on the unlabelled ones.
    pub multiply_adds: f64,
    /// Every node's output, 4 bytes a number: written and read in a forward pass; read again, and its gradient written and
    /// read, in the backward pass. Caches may spare some of it; weights are left out.
    pub bytes: f64,
}

/// A step held against the ceilings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Roofline {
    /// The step's work.
    pub work: Work,
    /// Multiply-adds a second over those of the matrix product in the same precision.
    pub share_of_product: f64,
    /// Bytes a second over those of the copy.
    pub share_of_copy: f64,
    /// The time of whichever of the two takes longer at its ceiling, over the time that the step took.
    pub share: f64,
}

impl Ceilings {
    /// Measures a device; `matrix` is the side of the matrices, and `numbers` how many 32-bit numbers are copied.
    pub(super) fn measure(device: Device, matrix: usize, numbers: usize) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let product = |kind: Kind| -> Result<f64> {
            let shape = [matrix as i64; 2];
            let [left, right] = [0, 1].map(|_| Tensor::f_rand(shape, (Kind::Float, device)));
            let (left, right) = (left?.f_to_kind(kind)?, right?.f_to_kind(kind)?);
            let seconds = time(|| Ok(left.f_matmul(&right)?))?;
            Ok((matrix as f64).powi(3) / seconds)
        };
        let source = Tensor::f_ones([numbers as i64], (Kind::Float, device))?;
        let mut target = source.f_zeros_like()?;
        let seconds = time(|| {
            target.f_copy_(&source)?;
            Ok(target.shallow_clone())
        })?;
        Ok(Self {
            matrix,
            float32: product(Kind::Float).context("a product of matrices in 32-bit floats")?,
            bfloat16: product(Kind::BFloat16).context("a product of matrices in bfloat16")?,
            copied_bytes: 2.0 * 4.0 * numbers as f64 / seconds,
        })
    }

    /// Multiply-adds a second in a precision.
    pub fn product(&self, precision: Precision) -> f64 {
        match precision {
            Precision::Float32 => self.float32,
            Precision::Bfloat16 => self.bfloat16,
        }
    }
}

/// Median seconds of some work, until the device has done it.
fn time(mut work: impl FnMut() -> Result<Tensor>) -> Result<f64> {
    let mut times = Vec::with_capacity(MEASURED);
    for _ in 0..=MEASURED {
        let start = Instant::now();
        first_number(&work()?)?;
        times.push(start.elapsed().as_secs_f64());
    }
    median(times.into_iter().skip(1)).context("nothing was measured")
}

impl Work {
    /// The work of a step.
    pub(super) fn from_setup(setting: &AcceptSetup) -> Result<Self> {
        let config = &setting.config;
        Self::from_crops(&setting.graph, config.batch * config.accumulate, config.crop)
    }

    /// The work of a step on so many labelled crops and as many unlabelled ones.
    fn from_crops(graph: &Graph, crops: usize, side: usize) -> Result<Self> {
        let pass = graph.multiply_adds(side, side)? as f64;
        let outputs = graph.shapes(1, side, side)?;
        let values: usize =
            outputs.iter().skip(1).map(|shape| shape.iter().product::<usize>()).sum();
        let (student, teacher) = (2.0 * crops as f64, crops as f64);
        Ok(Self {
            multiply_adds: pass * (3.0 * student + teacher),
            bytes: 4.0 * values as f64 * (5.0 * student + 2.0 * teacher),
        })
    }

    /// Held against ceilings, where the step takes so many seconds.
    pub(super) fn against(
        self,
        ceilings: &Ceilings,
        precision: Precision,
        seconds: f64,
    ) -> Roofline {
        let share_of_product = self.multiply_adds / seconds / ceilings.product(precision);
        let share_of_copy = self.bytes / seconds / ceilings.copied_bytes;
        Roofline {
            work: self,
            share_of_product,
            share_of_copy,
            share: share_of_product.max(share_of_copy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protoseg_models::graph::{Conv, Op};

    #[test]
    fn the_work_of_one_convolution_is_that_counted_by_hand() {
        let mut graph = Graph::new();
        let pixels = graph.push(
            "normalize",
            Op::Normalize { mean: [0.0; 3], std: [1.0; 3] },
            &[graph.input()],
        );
        graph.push("point", Op::Conv(Conv::new(7, 1)), &[pixels]);
        // Three student passes over four crops and one of the teacher over two; 16 positions of 3 x 7 weights.
        let work = Work::from_crops(&graph, 2, 4).unwrap();
        assert_eq!(work.multiply_adds, f64::from((3 * 4 + 2) * 16 * 3 * 7));
        // 3 + 7 numbers a position, five times for the student and twice for the teacher.
        assert_eq!(work.bytes, f64::from(4 * 16 * (3 + 7) * (5 * 4 + 2 * 2)));
    }

    #[test]
    fn shares_are_of_the_ceiling_that_binds() {
        let ceilings = Ceilings { matrix: 1, float32: 100.0, bfloat16: 400.0, copied_bytes: 10.0 };
        let work = Work { multiply_adds: 100.0, bytes: 5.0 };
        let Roofline { share_of_product, share_of_copy, share, .. } =
            work.against(&ceilings, Precision::Float32, 2.0);
        assert_eq!([share_of_product, share_of_copy, share], [0.5, 0.25, 0.5]);
        assert_eq!(work.against(&ceilings, Precision::Bfloat16, 2.0).share, 0.25);
    }

    #[test]
    fn ceilings_of_the_processor_are_positive() {
        let Ceilings { float32, bfloat16, copied_bytes, .. } =
            Ceilings::measure(Device::Cpu, 64, 1 << 12).unwrap();
        assert!(
            [float32, bfloat16, copied_bytes].iter().all(|rate| rate.is_finite() && *rate > 0.0)
        );
    }
}
