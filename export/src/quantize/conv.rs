//! Convolutions in integers: kernels of 8 bits, each output channel in steps of its own, and biases of 32.

use crate::quantize::range::SMALLEST;

/// Largest integer of a bias. Sums of products take less than as much again of an `int32`, up to kernels of 33,000 weights.
const LARGEST_BIAS: f64 = (1 << 30) as f64;

/// The kernels of a convolution in 8 bits, with its bias in 32 bits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct QuantizedConv {
    /// Step of each output channel's kernel.
    pub(crate) sizes: Vec<f32>,
    /// The kernels, zero at 0.
    pub(crate) weights: Vec<i8>,
    /// Step of each bias: that of the input times that of the kernel, which makes it a summand of their products.
    pub(crate) bias_sizes: Vec<f32>,
    /// The biases.
    pub(crate) biases: Vec<i32>,
}

impl QuantizedConv {
    /// The kernels that stand one after the other in `weights`, one for each bias, for an input in steps of `input`. A
    /// channel's largest weight becomes the largest integer of `bits` bits, unless its bias would then need more than 32.
    pub(crate) fn new(weights: &[f32], biases: &[f32], input: f32, bits: u8) -> Self {
        let largest = f64::from((1_i32 << (bits - 1)) - 1);
        let mut kernels =
            Self { sizes: vec![], weights: vec![], bias_sizes: vec![], biases: vec![] };
        for (kernel, &bias) in weights.chunks(weights.len() / biases.len().max(1)).zip(biases) {
            let reach =
                kernel.iter().fold(0.0, |reach: f64, weight| reach.max(f64::from(weight.abs())));
            let least = f64::from(bias.abs()) / f64::from(input) / LARGEST_BIAS;
            let size = (reach / largest).max(least).max(SMALLEST) as f32;
            let integer = |weight: &f32| {
                (f64::from(*weight) / f64::from(size)).round_ties_even().clamp(-largest, largest)
                    as i8
            };
            kernels.weights.extend(kernel.iter().map(integer));
            let bias_size = size * input;
            kernels.sizes.push(size);
            kernels.bias_sizes.push(bias_size);
            kernels.biases.push((f64::from(bias) / f64::from(bias_size)).round_ties_even() as i32);
        }
        kernels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_rounded_channel_by_channel() {
        let weights = [0.5, -1.26, 0.0, 0.01, 0.02, -0.03];
        let kernels = QuantizedConv::new(&weights, &[0.25, -3.0], 0.1, 7);
        assert_eq!(kernels.weights, [25, -63, 0, 21, 42, -63]);
        assert_eq!(
            kernels.sizes,
            [(f64::from(1.26_f32) / 63.0) as f32, (f64::from(0.03_f32) / 63.0) as f32]
        );
        for (channel, bias) in [0.25, -3.0].into_iter().enumerate() {
            let size = kernels.bias_sizes[channel];
            assert_eq!(size, kernels.sizes[channel] * 0.1);
            assert!((kernels.biases[channel] as f32 * size - bias).abs() <= size / 2.0);
        }
        assert_eq!(
            QuantizedConv::new(&weights, &[0.0, 0.0], 0.1, 8).weights,
            [50, -127, 0, 42, 85, -127]
        );
    }

    #[test]
    fn a_bias_fits_its_bits_however_small_the_kernel() {
        for weight in [0.0, 1e-30, 1e-9] {
            let kernels = QuantizedConv::new(&[weight; 4], &[2.0, 0.0], 0.01, 7);
            let found = f64::from(kernels.biases[0]) * f64::from(kernels.bias_sizes[0]);
            assert!((found - 2.0).abs() < 1e-6 && kernels.biases[0] <= 1 << 30, "{kernels:?}");
            assert!(kernels.sizes.iter().all(|&size| size > 0.0) && kernels.biases[1] == 0);
        }
    }
}
