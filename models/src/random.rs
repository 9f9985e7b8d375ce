//! Counter-based random numbers: every number is a function of a key and an index.
//!
//! SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), read at a position instead of advanced, so that no
//! number depends on those drawn before: resuming a run or drawing in another order changes
//! nothing.

use crate::digest;

const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// A stream of random numbers, selected by a key.
///
/// ```
/// use protoseg_models::random::Stream;
///
/// let stream = Stream::named("encoder.conv1.0.weight");
/// assert_eq!(stream.signed_unit(0), -0.33716948105719347);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    key: u64,
}

impl Stream {
    /// Returns the stream of a name; its key is the 64-bit FNV-1a hash.
    pub fn named(name: &str) -> Self {
        Self { key: digest::fnv1a64(name.as_bytes()) }
    }

    /// Returns the stream of a list of numbers, such as (seed, purpose, step, index), in order.
    pub fn keyed(numbers: &[u64]) -> Self {
        let key = numbers
            .iter()
            .fold(0, |key, &number| mix(key ^ mix(number.wrapping_add(GOLDEN_GAMMA))));
        Self { key }
    }

    /// Returns an independent stream below this one.
    pub fn child(self, number: u64) -> Self {
        Self::keyed(&[self.key, number])
    }

    /// Returns 64 random bits.
    pub fn bits(self, index: u64) -> u64 {
        mix(self.key.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN_GAMMA)))
    }

    /// Returns a uniform number in [0, 1) with 53 random bits.
    pub fn unit(self, index: u64) -> f64 {
        (self.bits(index) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a uniform number in [-1, 1).
    pub fn signed_unit(self, index: u64) -> f64 {
        (self.bits(index) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    /// Returns a uniform number in [low, high).
    pub fn range(self, index: u64, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit(index)
    }

    /// Returns a uniform integer in [0, count), with a bias below count / 2^64; 0 if `count` is 0.
    pub fn below(self, index: u64, count: usize) -> usize {
        ((u128::from(self.bits(index)) * count as u128) >> 64) as usize
    }

    /// Returns a standard normal number (Box-Muller).
    pub fn normal(self, index: u64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit(2 * index)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit(2 * index + 1)).cos()
    }

    /// Returns a permutation of 0..count (Fisher-Yates).
    pub fn permutation(self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, self.below(last as u64, last + 1));
        }
        order
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_stream_equals_that_of_the_reference_outputs() {
        let stream = Stream::named("encoder.conv1.0.weight");
        let first: Vec<f64> = (0..3).map(|index| stream.signed_unit(index)).collect();
        assert_eq!(
            first,
            [-0.337_169_481_057_193_47, 0.186_151_924_280_211, 0.783_928_813_830_833_8]
        );
    }

    #[test]
    fn numbers_are_uniform_and_normal_ones_have_unit_variance() {
        let stream = Stream::keyed(&[7, 1]);
        let mut counts = [0_usize; 10];
        let (mut sum, mut squares) = (0.0, 0.0);
        for index in 0..20_000 {
            counts[stream.below(index, 10)] += 1;
            let normal = stream.normal(index);
            sum += normal;
            squares += normal * normal;
        }
        assert!(counts.iter().all(|&count| (1850..2150).contains(&count)), "{counts:?}");
        assert!((sum / 20_000.0).abs() < 0.03 && (squares / 20_000.0 - 1.0).abs() < 0.05);
    }

    #[test]
    fn a_permutation_holds_every_number_once() {
        let mut order = Stream::keyed(&[3]).permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn the_order_of_key_numbers_matters() {
        assert_ne!(Stream::keyed(&[1, 2]), Stream::keyed(&[2, 1]));
        assert_ne!(Stream::keyed(&[0]), Stream::keyed(&[0, 0]));
    }
}
