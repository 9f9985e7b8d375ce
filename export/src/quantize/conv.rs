//! Convolutions in integers: 8-bit weights with one scale for each output channel, 32-bit biases.

use crate::quantize::range::MIN_SCALE;

/// Largest integer of a bias. Sums of products take less than as much again of an `i32`, for
/// kernels of up to 33,000 weights.
const MAX_BIAS: f64 = (1 << 30) as f64;

/// Weights and bias of a convolution in integers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct QuantizedConv {
    /// Scale of each output channel's weights.
    pub(crate) scales: Vec<f32>,
    /// Weights with zero point 0.
    pub(crate) weights: Vec<i8>,
    /// Scale of each bias: that of the input times that of the weights, as in their products.
    pub(crate) bias_scales: Vec<f32>,
    pub(crate) biases: Vec<i32>,
}

impl QuantizedConv {
    /// Quantizes one kernel for each bias, concatenated in `weights`, for an input of scale
    /// `input`. The largest weight of a channel becomes the largest integer of `bits` bits, unless
    /// the bias would then overflow.
    pub(crate) fn new(weights: &[f32], biases: &[f32], input: f32, bits: u8) -> Self {
        let mut conv =
            Self { scales: vec![], weights: vec![], bias_scales: vec![], biases: vec![] };
        for (kernel, &bias) in weights.chunks(weights.len() / biases.len().max(1)).zip(biases) {
            let least = f64::from(bias.abs()) / f64::from(input) / MAX_BIAS;
            let (scale, integers) = round_channel(kernel, least, bits);
            conv.weights.extend(integers);
            conv.scales.push(scale);
            let bias_scale = scale * input;
            conv.bias_scales.push(bias_scale);
            conv.biases.push(round(bias, bias_scale) as i32);
        }
        conv
    }
}

/// Returns the scale and the integers of `bits` bits of an output channel's weights. The largest
/// weight becomes the largest integer, unless `least` is a larger scale.
pub(crate) fn round_channel(
    weights: &[f32],
    least: f64,
    bits: u8,
) -> (f32, impl Iterator<Item = i8>) {
    let largest = f64::from((1_i32 << (bits - 1)) - 1);
    let reach = weights.iter().fold(0.0, |reach: f64, weight| reach.max(f64::from(weight.abs())));
    let scale = (reach / largest).max(least).max(MIN_SCALE) as f32;
    let integer = move |&weight: &f32| round(weight, scale).clamp(-largest, largest) as i8;
    (scale, weights.iter().map(integer))
}

fn round(value: f32, scale: f32) -> f64 {
    (f64::from(value) / f64::from(scale)).round_ties_even()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_rounded_channel_by_channel() {
        let weights = [0.5, -1.26, 0.0, 0.01, 0.02, -0.03];
        let conv = QuantizedConv::new(&weights, &[0.25, -3.0], 0.1, 7);
        assert_eq!(conv.weights, [25, -63, 0, 21, 42, -63]);
        assert_eq!(
            conv.scales,
            [(f64::from(1.26_f32) / 63.0) as f32, (f64::from(0.03_f32) / 63.0) as f32]
        );
        for (channel, bias) in [0.25, -3.0].into_iter().enumerate() {
            let scale = conv.bias_scales[channel];
            assert_eq!(scale, conv.scales[channel] * 0.1);
            assert!((conv.biases[channel] as f32 * scale - bias).abs() <= scale / 2.0);
        }
        assert_eq!(
            QuantizedConv::new(&weights, &[0.0, 0.0], 0.1, 8).weights,
            [50, -127, 0, 42, 85, -127]
        );
    }

    #[test]
    fn a_bias_fits_its_bits_however_small_the_kernel() {
        for weight in [0.0, 1e-30, 1e-9] {
            let conv = QuantizedConv::new(&[weight; 4], &[2.0, 0.0], 0.01, 7);
            let found = f64::from(conv.biases[0]) * f64::from(conv.bias_scales[0]);
            assert!((found - 2.0).abs() < 1e-6 && conv.biases[0] <= 1 << 30, "{conv:?}");
            assert!(conv.scales.iter().all(|&scale| scale > 0.0) && conv.biases[1] == 0);
        }
    }
}
