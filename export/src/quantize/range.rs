//! Values as 8-bit integers: how large a step is and which integer is zero, chosen so that little is lost.
//!
//! Sums, products, quotients and roundings of 64-bit floats in one order: every machine chooses the same numbers.

use std::ops::Range;

use protoseg_models::calibration::NodeRange;

/// Steps of less than this are none: such values are zero to every network, and products of two sizes stay far above the
/// smallest float.
pub(crate) const SMALLEST: f64 = 1e-12;

/// The step of values that were zero on every picture, for others that may come: 255 of them stay below ReLU6's bound.
const UNKNOWN: f32 = 1.0 / 64.0;

/// How a value is kept in 8 bits: `x` as the integer nearest to `x / size + zero`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct QuantParams {
    /// From one integer to the next.
    pub(crate) size: f32,
    /// The integer that means zero.
    pub(crate) zero: u8,
}

impl QuantParams {
    /// Unsigned bytes over the part of `[low, high]` that [`HistogramMoments`] finds best.
    pub(crate) fn unsigned(range: &NodeRange, bounds: [f64; 2]) -> Self {
        let masses = HistogramMoments::new(range, bounds);
        let [low, high] = best(pairs(&masses.edges(bounds)), |range| masses.error(range, 255.0));
        let size = step_size(high - low, 255);
        Self { size, zero: (-low / f64::from(size)).round().clamp(0.0, 255.0) as u8 }
    }

    /// Signed bytes as far to the one side of zero as to the other.
    pub(crate) fn symmetric(range: &NodeRange, bounds: [f64; 2]) -> Self {
        let masses = HistogramMoments::new(range, bounds);
        let sides =
            masses.edges(bounds).into_iter().map(f64::abs).map(|side| [-side, side]).collect();
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
    if f64::from(size) < SMALLEST { UNKNOWN } else { size }
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
struct HistogramMoments {
    low: f64,
    width: f64,
    /// Before each bin: how many values, their sum, and their squares' sum.
    sums: Vec<[f64; 3]>,
    zeros: f64,
}

impl HistogramMoments {
    fn new(range: &NodeRange, bounds: [f64; 2]) -> Self {
        let [low, high] =
            [range.min, range.max].map(|end| f64::from(end).clamp(bounds[0], bounds[1]));
        let width = (high - low) / range.histogram.len() as f64;
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
        let mut edges: Vec<f64> = (0..self.sums.len()).map(edge).chain([0.0]).collect();
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        edges
    }

    /// Sum of the squared errors where values are rounded to `steps` steps over a range.
    fn error(&self, [low, high]: [f64; 2], steps: f64) -> f64 {
        let bins = self.sums.len() - 1;
        if self.width == 0.0 {
            let distance = self.low - self.low.clamp(low, high);
            return self.sums[bins][0] * distance * distance;
        }
        let edge = |bin: usize| self.low + bin as f64 * self.width;
        let bin = |end: f64| {
            ((end - self.low) / self.width).floor().clamp(0.0, (bins - 1) as f64) as usize
        };
        let (first, last) = (bin(low), bin(high));
        let below = self.cut(0..first, first, (low - edge(first)).clamp(0.0, self.width), low);
        let above =
            self.cut(last + 1..bins, last, (edge(last + 1) - high).clamp(0.0, self.width), high);
        let zeros = if high > 0.0 { self.zeros } else { 0.0 };
        let kept = self.sums[bins][0] - below[0] - above[0] - zeros;
        let size = (high - low) / steps;
        kept.max(0.0) * size * size / 12.0 + below[1] + above[1]
    }

    /// How many values lie beyond a range's end, and the sum of their squared distances from it: those of whole bins, and of
    /// the part of a bin that reaches `over` the end.
    fn cut(&self, whole: Range<usize>, partly: usize, over: f64, end: f64) -> [f64; 2] {
        let of = |bins: Range<usize>| {
            [0, 1, 2].map(|moment| self.sums[bins.end][moment] - self.sums[bins.start][moment])
        };
        let [values, sum, squares] = of(whole);
        let [more, ..] = of(partly..partly + 1);
        let share = over / self.width;
        [
            values + more * share,
            squares - 2.0 * end * sum + end * end * values + more * share * over * over / 3.0,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: [f64; 2] = [f64::NEG_INFINITY, f64::INFINITY];

    fn range(min: f32, max: f32, histogram: Vec<u64>) -> NodeRange {
        NodeRange { min, max, histogram, sensitivity: 0.0 }
    }

    /// Values spread evenly over their bins; in the bin at zero of a ReLU all but as many as in the next are zero.
    fn values(range: &NodeRange) -> Vec<f64> {
        let [min, max] = [range.min, range.max].map(f64::from);
        let width = (max - min) / range.histogram.len() as f64;
        let of_bin = |(bin, &count): (usize, &u64)| {
            let zeros =
                if min == 0.0 && bin == 0 { count.saturating_sub(range.histogram[1]) } else { 0 };
            let spread = count - zeros;
            let value =
                move |index: u64| min + width * (bin as f64 + (index as f64 + 0.5) / spread as f64);
            (0..spread).map(value).chain((0..zeros).map(|_| 0.0))
        };
        range.histogram.iter().enumerate().flat_map(of_bin).collect()
    }

    /// Sum of the squared errors where the values really are rounded.
    fn loss(values: &[f64], step: QuantParams, integers: [f64; 2]) -> f64 {
        let (size, zero) = (f64::from(step.size), f64::from(step.zero));
        let error = |value: &f64| {
            let integer = (value / size + zero).round_ties_even().clamp(integers[0], integers[1]);
            (value - (integer - zero) * size).powi(2)
        };
        values.iter().map(error).sum()
    }

    fn histograms() -> Vec<NodeRange> {
        vec![
            range(-3.0, 5.0, vec![1, 40, 900, 3000, 5000, 2500, 700, 30]),
            // A few outliers far away.
            range(-1.0, 63.0, vec![9000, 4000, 30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            // After a ReLU, most are zero.
            range(0.0, 8.0, vec![20000, 700, 300, 80, 20, 3, 0, 2]),
            range(0.0, 6.0, vec![5000, 500, 400, 400, 300, 900]),
            range(-4.0, -1.0, vec![5, 100, 2000, 400, 10]),
            range(0.5, 3.0, vec![10, 300, 200, 40, 1]),
        ]
    }

    #[test]
    fn ranges_are_the_best_by_brute_force() {
        for range in histograms() {
            let values = values(&range);
            let width =
                (f64::from(range.max) - f64::from(range.min)) / range.histogram.len() as f64;
            let edge = |bin: usize| f64::from(range.min) + bin as f64 * width;
            let ends: Vec<f64> = (0..=range.histogram.len()).map(edge).chain([0.0]).collect();
            let step = |low: f64, high: f64| {
                let size = step_size(high - low, 255);
                QuantParams { size, zero: (-low / f64::from(size)).round() as u8 }
            };
            let lows = || ends.iter().filter(|&&end| end <= 0.0);
            let steps = ends
                .iter()
                .filter(|&&end| end >= 0.0)
                .flat_map(|&high| lows().map(move |&low| step(low, high)));
            let best =
                steps.map(|step| loss(&values, step, [0.0, 255.0])).fold(f64::INFINITY, f64::min);
            let found = loss(&values, QuantParams::unsigned(&range, ANY), [0.0, 255.0]);
            // Rounding errs by a twelfth of a step's square only where values are spread over many steps.
            assert!(found < 1.02 * best, "{range:?}: {found} is not near {best}");

            let steps =
                ends.iter().map(|end| QuantParams { size: step_size(end.abs(), 127), zero: 0 });
            let best = steps
                .map(|step| loss(&values, step, [-127.0, 127.0]))
                .fold(f64::INFINITY, f64::min);
            let found = loss(&values, QuantParams::symmetric(&range, ANY), [-127.0, 127.0]);
            assert!(found < 1.02 * best, "{range:?}, symmetric: {found} is not near {best}");
        }
    }

    #[test]
    fn outliers_are_cut_off_and_zeros_cost_nothing() {
        let outlier = range(-1.0, 7.0, vec![900_000, 400_000, 30, 0, 0, 0, 0, 1]);
        assert_eq!(QuantParams::unsigned(&outlier, ANY).size, step_size(3.0, 255));
        // As many zeros as may be: the range is that of the other values.
        let relu = |zeros: u64| {
            QuantParams::unsigned(&range(0.0, 8.0, vec![zeros, 700, 300, 80, 20, 3, 0, 2]), ANY)
        };
        assert_eq!(relu(1_000), relu(100_000_000));
    }

    #[test]
    fn zero_is_an_integer_and_bounds_hold() {
        for range in histograms() {
            let step = QuantParams::unsigned(&range, [0.0, 6.0]);
            assert!(step.zero == 0 && step.size * 255.0 <= 6.0, "{step:?}");
        }
        let full = range(0.0, 6.0, vec![1, 1, 1, 1, 1, 900]);
        assert!((QuantParams::unsigned(&full, [0.0, 6.0]).size - 6.0 / 255.0).abs() < 1e-8);
        let even = range(-2.0, 2.0, vec![5; 8]);
        assert!(matches!(QuantParams::unsigned(&even, ANY).zero, 127 | 128));
        assert_eq!(
            QuantParams::symmetric(&even, ANY),
            QuantParams { size: step_size(2.0, 127), zero: 0 }
        );
    }

    #[test]
    fn values_that_are_all_the_same_have_steps_too() {
        let constant =
            |value: f32| QuantParams::unsigned(&range(value, value, vec![7, 0, 0, 0]), ANY);
        assert_eq!(constant(0.0), QuantParams { size: UNKNOWN, zero: 0 });
        assert_eq!(
            constant(5.1),
            QuantParams { size: step_size(f64::from(5.1_f32), 255), zero: 0 }
        );
        assert_eq!(constant(-5.1).zero, 255);
        assert_eq!(constant(1e-30), QuantParams { size: UNKNOWN, zero: 0 });
        let symmetric = QuantParams::symmetric(&range(-3.0, -3.0, vec![7, 0, 0, 0]), ANY);
        assert_eq!(symmetric, QuantParams { size: step_size(3.0, 127), zero: 0 });
    }
}
