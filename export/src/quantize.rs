//! Floats as 8-bit integers: how large a step is and which integer is zero, chosen so that little is lost.
//!
//! Sums, products, quotients and roundings of 64-bit floats in one order: every machine chooses the same numbers.

use protoseg_models::calibration::{BINS, NodeRange};

/// Steps of less than this are none: such values are zero to every network, and products of two sizes stay far above the
/// smallest float.
const SMALLEST: f64 = 1e-12;

/// Largest integer of a bias. Sums of products take less than as much again of an `int32`, up to kernels of 60,000 weights.
const LARGEST_BIAS: f64 = (1 << 30) as f64;

/// How a value is kept in 8 bits: `x` as the integer nearest to `x / size + zero`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step {
    /// From one integer to the next.
    pub(crate) size: f32,
    /// The integer that means zero.
    pub(crate) zero: u8,
}

impl Step {
    /// Unsigned bytes over the part of `[low, high]` that [`Masses`] finds best.
    pub(crate) fn unsigned(range: &NodeRange, bounds: [f64; 2]) -> Self {
        let masses = Masses::new(range, bounds);
        let [low, high] = best(pairs(&masses.edges(bounds)), |range| masses.error(range, 255.0));
        let size = step_size(high - low, 255);
        Self { size, zero: (-low / f64::from(size)).round().clamp(0.0, 255.0) as u8 }
    }

    /// Signed bytes as far to the one side of zero as to the other.
    pub(crate) fn symmetric(range: &NodeRange, bounds: [f64; 2]) -> Self {
        let masses = Masses::new(range, bounds);
        let sides = masses.edges(bounds).into_iter().map(f64::abs).map(|side| [-side, side]).collect();
        let [_, high] = best(sides, |range| masses.error(range, 254.0));
        Self { size: step_size(high, 127), zero: 0 }
    }
}

/// The size of each of `count` steps that reach no further than `length`, so that whatever cuts values at `length` before
/// they are rounded is redundant, and runtimes leave it out.
fn step_size(length: f64, count: u16) -> f32 {
    let mut size = (length / f64::from(count)) as f32;
    while f64::from(size * f32::from(count)) > length {
        size = size.next_down();
    }
    if f64::from(size) < SMALLEST { 1.0 } else { size }
}

/// Every range that runs from an edge below zero, or zero, to one above.
fn pairs(edges: &[f64]) -> Vec<[f64; 2]> {
    let lows = || edges.iter().copied().filter(|&edge| edge <= 0.0);
    let highs = edges.iter().copied().filter(|&edge| edge >= 0.0);
    highs.rev().flat_map(|high| lows().map(move |low| [low, high])).collect()
}

/// The range of least error; of equal ones the first.
fn best(ranges: Vec<[f64; 2]>, error: impl Fn([f64; 2]) -> f64) -> [f64; 2] {
    let mut best = ([0.0, 0.0], f64::INFINITY);
    for range in ranges {
        let found = error(range);
        if found < best.1 {
            best = (range, found);
        }
    }
    best.0
}

/// A histogram as running sums, by which the error of a range costs the same however many bins it cuts off.
///
/// Rounding to steps of a size errs by `size² / 12` in the mean square; a value beyond the range errs by its distance from
/// the range's end. A wide range has large steps, a narrow one cuts much off, and the best is in between: a few outliers do
/// not coarsen all other values. Values that are exactly zero, as a ReLU makes them, are kept without error by every
/// range; taken for values like others they would call for ranges far too narrow. How many they are the histogram does not
/// say; the bin that begins at zero holds about as many other values as the one after it.
struct Masses {
    low: f64,
    width: f64,
    /// Before each bin: how many values, their sum, and their squares' sum.
    sums: Vec<[f64; 3]>,
    zeros: f64,
}

impl Masses {
    fn new(range: &NodeRange, bounds: [f64; 2]) -> Self {
        let [low, high] = [range.min, range.max].map(|end| f64::from(end).clamp(bounds[0], bounds[1]));
        let width = (high - low) / BINS as f64;
        let mut sums = vec![[0.0; 3]];
        for (bin, &count) in range.histogram.iter().enumerate() {
            let (count, centre) = (count as f64, low + (bin as f64 + 0.5) * width);
            let [values, sum, squares] = sums[bin];
            sums.push([
                values + count,
                sum + count * centre,
                squares + count * (centre * centre + width * width / 12.0),
            ]);
        }
        let zeros = match range.histogram[..] {
            [first, second, ..] if low == 0.0 => first.saturating_sub(second) as f64,
            _ => 0.0,
        };
        Self { low, width, sums, zeros }
    }

    /// Where ranges may end, widest first on both sides: the bins' edges and zero.
    fn edges(&self, bounds: [f64; 2]) -> Vec<f64> {
        let edge = |bin: usize| (self.low + bin as f64 * self.width).clamp(bounds[0], bounds[1]);
        let mut edges: Vec<f64> = (0..=BINS).map(edge).chain([0.0]).collect();
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        edges
    }

    /// Sum of the squared errors where values are rounded to `steps` steps over a range.
    fn error(&self, [low, high]: [f64; 2], steps: f64) -> f64 {
        let bin = |end: f64| match self.width {
            0.0 => 0.5,
            width => (end - self.low) / width,
        };
        // Values that are all the same lie in the first bin, and at its edge.
        let below = bin(low).round().clamp(0.0, BINS as f64) as usize;
        let above = bin(high).ceil().clamp(0.0, BINS as f64) as usize;
        let beyond = |from: usize, to: usize, end: f64| {
            let [values, sum, squares] = [0, 1, 2].map(|moment| self.sums[to][moment] - self.sums[from][moment]);
            squares - 2.0 * end * sum + end * end * values
        };
        let size = (high - low) / steps;
        let kept = self.sums[above][0] - self.sums[below][0] - self.zeros;
        kept.max(0.0) * size * size / 12.0 + beyond(0, below, low) + beyond(above, BINS, high)
    }
}

/// The kernels of a convolution in 8 bits, with its bias in 32 bits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kernels {
    /// Step of each output channel's kernel.
    pub(crate) sizes: Vec<f32>,
    /// The kernels, zero at 0.
    pub(crate) weights: Vec<i8>,
    /// Step of each bias: that of the input times that of the kernel, which makes it a summand of their products.
    pub(crate) bias_sizes: Vec<f32>,
    /// The biases.
    pub(crate) biases: Vec<i32>,
}

impl Kernels {
    /// The kernels that stand one after the other in `weights`, one for each bias, for an input in steps of `input`. A
    /// channel's largest weight becomes the largest integer of `bits` bits, unless its bias would then need more than 32.
    pub(crate) fn new(weights: &[f32], biases: &[f32], input: f32, bits: u8) -> Self {
        let largest = f64::from((1_i32 << (bits - 1)) - 1);
        let mut kernels = Self { sizes: vec![], weights: vec![], bias_sizes: vec![], biases: vec![] };
        for (kernel, &bias) in weights.chunks(weights.len() / biases.len().max(1)).zip(biases) {
            let reach = kernel.iter().fold(0.0, |reach: f64, weight| reach.max(f64::from(weight.abs())));
            let least = f64::from(bias.abs()) / f64::from(input) / LARGEST_BIAS;
            let size = (reach / largest).max(least).max(SMALLEST) as f32;
            let integer =
                |weight: &f32| (f64::from(*weight) / f64::from(size)).round_ties_even().clamp(-largest, largest) as i8;
            kernels.weights.extend(kernel.iter().map(integer));
            let bias_size = size * input;
            kernels.sizes.push(size);
            kernels.bias_sizes.push(bias_size);
            kernels.biases.push((f64::from(bias) / f64::from(bias_size)).round_ties_even() as i32);
        }
        kernels
    }
}
