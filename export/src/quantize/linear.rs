//! Linear layers on tokens in integers: 8-bit weights with one scale for each output channel. Their
//! biases stay in floats, which runtimes add to the next operation.

use crate::quantize::conv::round_channel;

/// Weights of a linear layer in integers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct QuantizedLinear {
    /// Scale of each output channel's weights.
    pub(crate) scales: Vec<f32>,
    /// Weights with zero point 0, `[in, out]`: the right factor of a matrix product.
    pub(crate) weights: Vec<i8>,
}

impl QuantizedLinear {
    /// Quantizes a matrix `[out, in]`. The largest weight of a channel becomes the largest integer of
    /// `bits` bits.
    pub(crate) fn new(weights: &[f32], [out, inside]: [usize; 2], bits: u8) -> Self {
        let mut linear = Self { scales: Vec::with_capacity(out), weights: vec![0; out * inside] };
        for (channel, row) in weights.chunks(inside.max(1)).enumerate() {
            let (scale, integers) = round_channel(row, 0.0, bits);
            linear.scales.push(scale);
            for (index, integer) in integers.enumerate() {
                linear.weights[index * out + channel] = integer;
            }
        }
        linear
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_rounded_channel_by_channel_and_transposed() {
        let weights = [0.5, -1.26, 0.0, 0.01, 0.02, -0.03];
        let linear = QuantizedLinear::new(&weights, [2, 3], 7);
        assert_eq!(linear.weights, [25, 21, -63, 42, 0, -63]);
        assert_eq!(
            linear.scales,
            [(f64::from(1.26_f32) / 63.0) as f32, (f64::from(0.03_f32) / 63.0) as f32]
        );
        let linear = QuantizedLinear::new(&weights, [2, 3], 8);
        assert_eq!(linear.weights, [50, 42, -127, 85, 0, -127]);
        let zeros = QuantizedLinear::new(&[0.0; 4], [2, 2], 7);
        assert!(zeros.weights == [0; 4] && zeros.scales.iter().all(|&scale| scale > 0.0));
    }
}
