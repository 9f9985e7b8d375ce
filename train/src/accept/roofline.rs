//! Roofline model of a training step (Williams, Waterman, Patterson, 2009): its work against the
//! measured ceilings of the device.

use std::time::Instant;

use anyhow::{Context, Result};
use protoseg_models::graph::Graph;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::{first_number, median};
use crate::config::crop_size::CropSize;
use crate::config::options::Precision;

/// Timed repetitions of a measurement, after one that is not timed.
const REPETITIONS: usize = 5;

/// Rates that the device reaches in a matrix product and in a copy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ceilings {
    /// Side of the square matrices.
    pub matrix: usize,
    /// Multiply-adds per second of their product in float32.
    pub float32: f64,
    /// The same in bfloat16.
    pub bfloat16: f64,
    /// Bytes per second that a copy within the device's memory reads and writes.
    pub copied_bytes: f64,
}

/// Minimal work of a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Work {
    /// Of convolutions and linear layers: three forward passes for the student on all crops
    /// (forward, gradients of activations, gradients of weights), and one for the teacher on the
    /// unlabeled ones.
    pub multiply_adds: f64,
    /// Every node's output at 4 bytes a value: written and read in a forward pass; read again, and
    /// its gradient written and read, in the backward pass. Ignores caches and weights.
    pub bytes: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Roofline {
    pub work: Work,
    /// Multiply-adds per second over those of the matrix product in the same precision.
    pub share_of_product: f64,
    /// Bytes per second over those of the copy.
    pub share_of_copy: f64,
    /// The larger of the two shares, that of the binding ceiling.
    pub share: f64,
}

impl Ceilings {
    /// Measures a device with a product of `matrix` x `matrix` matrices and a copy of `floats`
    /// 32-bit floats.
    pub(super) fn measure(device: Device, matrix: usize, floats: usize) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let product = |kind: Kind| -> Result<f64> {
            let shape = [matrix as i64; 2];
            let left = Tensor::f_rand(shape, (Kind::Float, device))?.f_to_kind(kind)?;
            let right = Tensor::f_rand(shape, (Kind::Float, device))?.f_to_kind(kind)?;
            let seconds = median_seconds(|| Ok(left.f_matmul(&right)?))?;
            Ok((matrix as f64).powi(3) / seconds)
        };
        let source = Tensor::f_ones([floats as i64], (Kind::Float, device))?;
        let mut target = source.f_zeros_like()?;
        let copy_seconds = median_seconds(|| {
            target.f_copy_(&source)?;
            Ok(target.shallow_clone())
        })?;
        Ok(Self {
            matrix,
            float32: product(Kind::Float).context("matrix product in float32")?,
            bfloat16: product(Kind::BFloat16).context("matrix product in bfloat16")?,
            copied_bytes: 2.0 * 4.0 * floats as f64 / copy_seconds,
        })
    }
}

/// Median time of some work until the device has finished it.
fn median_seconds(mut work: impl FnMut() -> Result<Tensor>) -> Result<f64> {
    let mut seconds = Vec::with_capacity(1 + REPETITIONS);
    for _ in 0..=REPETITIONS {
        let start = Instant::now();
        first_number(&work()?)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    median(seconds.into_iter().skip(1)).context("nothing was measured")
}

impl Work {
    /// Work of a step on `crops` labeled and as many unlabeled crops.
    pub(super) fn of_step(graph: &Graph, crops: usize, crop: CropSize) -> Result<Self> {
        let [height, width] = crop.sides();
        let forward_pass = graph.multiply_adds(height, width)? as f64;
        let outputs = graph.shapes(1, height, width)?;
        let values: usize =
            outputs.iter().skip(1).map(|shape| shape.iter().product::<usize>()).sum();
        let student_crops = 2.0 * crops as f64;
        let teacher_crops = crops as f64;
        Ok(Self {
            multiply_adds: forward_pass * (3.0 * student_crops + teacher_crops),
            bytes: 4.0 * values as f64 * (5.0 * student_crops + 2.0 * teacher_crops),
        })
    }

    /// Shares of the ceilings for a step of so many seconds.
    pub(super) fn roofline(self, ceilings: &Ceilings, precision: Precision, step: f64) -> Roofline {
        let product = match precision {
            Precision::Float32 => ceilings.float32,
            Precision::Bfloat16 => ceilings.bfloat16,
        };
        let share_of_product = self.multiply_adds / step / product;
        let share_of_copy = self.bytes / step / ceilings.copied_bytes;
        let share = share_of_product.max(share_of_copy);
        Roofline { work: self, share_of_product, share_of_copy, share }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protoseg_models::graph::{Conv, Op};

    #[test]
    fn the_work_of_one_convolution_equals_that_counted_by_hand() {
        let mut graph = Graph::new();
        let pixels = graph.push(
            "normalize",
            Op::Normalize { mean: [0.0; 3], std: [1.0; 3] },
            &[graph.input()],
        );
        graph.push("point", Op::Conv(Conv::new(7, 1)), &[pixels]);
        // Three student passes over four crops and one of the teacher over two; 16 positions of 3 x
        // 7 weights.
        let work = Work::of_step(&graph, 2, CropSize::square(4)).unwrap();
        assert_eq!(work.multiply_adds, f64::from((3 * 4 + 2) * 16 * 3 * 7));
        // 3 + 7 values a position, five times for the student and twice for the teacher.
        assert_eq!(work.bytes, f64::from(4 * 16 * (3 + 7) * (5 * 4 + 2 * 2)));
    }

    #[test]
    fn the_share_is_that_of_the_binding_ceiling() {
        let ceilings = Ceilings { matrix: 1, float32: 100.0, bfloat16: 400.0, copied_bytes: 10.0 };
        let work = Work { multiply_adds: 100.0, bytes: 5.0 };
        let Roofline { share_of_product, share_of_copy, share, .. } =
            work.roofline(&ceilings, Precision::Float32, 2.0);
        assert_eq!([share_of_product, share_of_copy, share], [0.5, 0.25, 0.5]);
        assert_eq!(work.roofline(&ceilings, Precision::Bfloat16, 2.0).share, 0.25);
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
