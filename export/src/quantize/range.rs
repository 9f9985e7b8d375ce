//! Scale and zero point of 8-bit values, from the range with the least squared error.
//!
//! All arithmetic is in 64-bit floats and a fixed order, so that every machine chooses the same.

use std::ops::Range;

use protoseg_models::calibration::NodeRange;

/// Smallest scale: values below it are zero to every network, and products of two scales stay far
/// above the smallest float.
pub(crate) const MIN_SCALE: f64 = 1e-12;

/// Scale of values that were zero on every image; 255 steps stay below the bound of ReLU6.
const DEFAULT_SCALE: f32 = 1.0 / 64.0;

/// Quantization of a value: `x` is rounded to the integer nearest to `x / scale + zero_point`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct QuantParams {
    pub(crate) scale: f32,
    pub(crate) zero_point: u8,
}

impl QuantParams {
    /// Unsigned bytes over the best range within `bounds`.
    pub(crate) fn unsigned(range: &NodeRange, bounds: [f64; 2]) -> Self {
        let moments = HistogramMoments::new(range, bounds);
        let [low, high] = best(pairs(&moments.edges(bounds)), |range| moments.error(range, 255.0));
        let scale = scale(high - low, 255);
        let zero_point = (-low / f64::from(scale)).round().clamp(0.0, 255.0) as u8;
        Self { scale, zero_point }
    }

    /// Signed bytes over the best range that is symmetric around zero.
    pub(crate) fn symmetric(range: &NodeRange, bounds: [f64; 2]) -> Self {
        let moments = HistogramMoments::new(range, bounds);
        let sides =
            moments.edges(bounds).into_iter().map(f64::abs).map(|side| [-side, side]).collect();
        let [_, high] = best(sides, |range| moments.error(range, 254.0));
        Self { scale: scale(high, 127), zero_point: 0 }
    }
}

/// Returns the scale of `steps` steps that do not exceed `length`: a clipping at `length` before
/// the rounding is then redundant, and runtimes remove it.
fn scale(length: f64, steps: u16) -> f32 {
    let mut scale = (length / f64::from(steps)) as f32;
    while f64::from(scale * f32::from(steps)) > length {
        scale = scale.next_down();
    }
    if f64::from(scale) < MIN_SCALE { DEFAULT_SCALE } else { scale }
}

/// Returns every range between edges that contains zero.
fn pairs(edges: &[f64]) -> Vec<[f64; 2]> {
    let lows = || edges.iter().copied().filter(|&edge| edge <= 0.0);
    let highs = edges.iter().copied().filter(|&edge| edge >= 0.0);
    highs.rev().flat_map(|high| lows().map(move |low| [low, high])).collect()
}

/// Returns the range of least error, of equal ones the first.
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

/// Prefix sums of a histogram, which give the error of any range in constant time.
///
/// The mean squared error of rounding is `scale² / 12`; a value beyond the range errs by its
/// distance from it. A wide range has large steps and a narrow one clips much: in the best range in
/// between, a few outliers do not coarsen all other values. Exact zeros, as after a ReLU, have no
/// error in any range, and counted like other values they would ask for ranges far too narrow. The
/// histogram does not say how many they are; the bin that starts at zero has about as many other
/// values as the next.
struct HistogramMoments {
    low: f64,
    width: f64,
    /// Count, sum and sum of squares of the values before each bin.
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
            let count = count as f64;
            let center = low + (bin as f64 + 0.5) * width;
            let [values, sum, squares] = sums[bin];
            sums.push([
                values + count,
                sum + count * center,
                squares + count * (center * center + width * width / 12.0),
            ]);
        }
        let zeros = match range.histogram[..] {
            [first, second, ..] if low == 0.0 => first.saturating_sub(second) as f64,
            _ => 0.0,
        };
        Self { low, width, sums, zeros }
    }

    /// Returns the candidates for the ends of a range, ascending: edges of bins, and zero.
    fn edges(&self, bounds: [f64; 2]) -> Vec<f64> {
        let edge = |bin: usize| (self.low + bin as f64 * self.width).clamp(bounds[0], bounds[1]);
        let mut edges: Vec<f64> = (0..self.sums.len()).map(edge).chain([0.0]).collect();
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        edges
    }

    /// Returns the squared error of rounding to `steps` steps over a range.
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
        let first = bin(low);
        let last = bin(high);
        let below = self.clipped(0..first, first, (low - edge(first)).clamp(0.0, self.width), low);
        let beyond = (edge(last + 1) - high).clamp(0.0, self.width);
        let above = self.clipped(last + 1..bins, last, beyond, high);
        let zeros = if high > 0.0 { self.zeros } else { 0.0 };
        let kept = self.sums[bins][0] - below[0] - above[0] - zeros;
        let scale = (high - low) / steps;
        kept.max(0.0) * scale * scale / 12.0 + below[1] + above[1]
    }

    /// Returns the number of values beyond the end of a range, in whole bins and in the part of a
    /// bin of length `over`, and the sum of their squared distances from the end.
    fn clipped(&self, whole: Range<usize>, part: usize, over: f64, end: f64) -> [f64; 2] {
        let moments = |bins: Range<usize>| {
            [0, 1, 2].map(|moment| self.sums[bins.end][moment] - self.sums[bins.start][moment])
        };
        let [values, sum, squares] = moments(whole);
        let [more, ..] = moments(part..part + 1);
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

    /// Returns values spread evenly over their bins; in the bin at zero of a ReLU, all but as many
    /// as in the next bin are zero.
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

    /// Returns the sum of the squared errors of actual rounding.
    fn loss(values: &[f64], params: QuantParams, integers: [f64; 2]) -> f64 {
        let scale = f64::from(params.scale);
        let zero = f64::from(params.zero_point);
        let error = |value: &f64| {
            let integer = (value / scale + zero).round_ties_even().clamp(integers[0], integers[1]);
            (value - (integer - zero) * scale).powi(2)
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
    fn ranges_are_as_good_as_the_best_by_brute_force() {
        for range in histograms() {
            let values = values(&range);
            let width =
                (f64::from(range.max) - f64::from(range.min)) / range.histogram.len() as f64;
            let edge = |bin: usize| f64::from(range.min) + bin as f64 * width;
            let ends: Vec<f64> = (0..=range.histogram.len()).map(edge).chain([0.0]).collect();
            let step = |low: f64, high: f64| {
                let scale = scale(high - low, 255);
                QuantParams { scale, zero_point: (-low / f64::from(scale)).round() as u8 }
            };
            let lows = || ends.iter().filter(|&&end| end <= 0.0);
            let steps = ends
                .iter()
                .filter(|&&end| end >= 0.0)
                .flat_map(|&high| lows().map(move |&low| step(low, high)));
            let best =
                steps.map(|step| loss(&values, step, [0.0, 255.0])).fold(f64::INFINITY, f64::min);
            let found = loss(&values, QuantParams::unsigned(&range, ANY), [0.0, 255.0]);
            // The error is a twelfth of a squared step only for values spread over many steps.
            assert!(found < 1.02 * best, "{range:?}: {found} is not near {best}");

            let steps =
                ends.iter().map(|end| QuantParams { scale: scale(end.abs(), 127), zero_point: 0 });
            let best = steps
                .map(|step| loss(&values, step, [-127.0, 127.0]))
                .fold(f64::INFINITY, f64::min);
            let found = loss(&values, QuantParams::symmetric(&range, ANY), [-127.0, 127.0]);
            assert!(found < 1.02 * best, "{range:?}, symmetric: {found} is not near {best}");
        }
    }

    #[test]
    fn outliers_are_clipped_and_zeros_cost_nothing() {
        let outlier = range(-1.0, 7.0, vec![900_000, 400_000, 30, 0, 0, 0, 0, 1]);
        assert_eq!(QuantParams::unsigned(&outlier, ANY).scale, scale(3.0, 255));
        // Whatever the number of zeros, the range is that of the other values.
        let relu = |zeros: u64| {
            QuantParams::unsigned(&range(0.0, 8.0, vec![zeros, 700, 300, 80, 20, 3, 0, 2]), ANY)
        };
        assert_eq!(relu(1_000), relu(100_000_000));
    }

    #[test]
    fn zero_is_exact_and_bounds_hold() {
        for range in histograms() {
            let params = QuantParams::unsigned(&range, [0.0, 6.0]);
            assert!(params.zero_point == 0 && params.scale * 255.0 <= 6.0, "{params:?}");
        }
        let full = range(0.0, 6.0, vec![1, 1, 1, 1, 1, 900]);
        assert!((QuantParams::unsigned(&full, [0.0, 6.0]).scale - 6.0 / 255.0).abs() < 1e-8);
        let even = range(-2.0, 2.0, vec![5; 8]);
        assert!(matches!(QuantParams::unsigned(&even, ANY).zero_point, 127 | 128));
        assert_eq!(
            QuantParams::symmetric(&even, ANY),
            QuantParams { scale: scale(2.0, 127), zero_point: 0 }
        );
    }

    #[test]
    fn constant_values_have_a_scale_too() {
        let constant =
            |value: f32| QuantParams::unsigned(&range(value, value, vec![7, 0, 0, 0]), ANY);
        assert_eq!(constant(0.0), QuantParams { scale: DEFAULT_SCALE, zero_point: 0 });
        assert_eq!(
            constant(5.1),
            QuantParams { scale: scale(f64::from(5.1_f32), 255), zero_point: 0 }
        );
        assert_eq!(constant(-5.1).zero_point, 255);
        assert_eq!(constant(1e-30), QuantParams { scale: DEFAULT_SCALE, zero_point: 0 });
        let symmetric = QuantParams::symmetric(&range(-3.0, -3.0, vec![7, 0, 0, 0]), ANY);
        assert_eq!(symmetric, QuantParams { scale: scale(3.0, 127), zero_point: 0 });
    }
}
