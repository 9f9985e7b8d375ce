//! Circular block bootstrap (Politis and Romano, 1992) for the ratio of a percentile or mean of two
//! sets of samples that were measured at different times.
//!
//! Samples are correlated: a burst of other load or a full queue lasts for many queries. So blocks
//! of neighbors are resampled, wrapped around the end so that each sample is equally likely.
//! Resampling single samples would count a burst of a hundred slow queries as a hundred bursts, and
//! report a difference where there is none.

use protoseg_models::random::Stream;

use super::ab::{CONFIDENCE, Interval, Ratio};
use super::statistics;

/// Resamples: 10 ratios lie beyond each end of the interval.
const RESAMPLES: usize = 2000;

/// Least samples on either side of a percentile; with fewer the interval is too narrow.
const LEAST_BEYOND: f64 = 15.0;

/// First term of the expansion of Student's quantile relative to the normal one, times the degrees
/// of freedom: (z² + 1) / 4 with z = 2.576. It allows for the variance between few blocks being
/// estimated from few.
const FEW_BLOCKS: f64 = 1.909;

/// Statistic that is compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Statistic {
    /// In percent.
    Percentile(f64),
    /// Of the times between answers it is the reciprocal of the rate.
    Mean,
}

impl Statistic {
    /// `None` without samples.
    pub fn compute(self, samples: &[f64]) -> Option<f64> {
        self.compute_in_place(&mut samples.to_vec())
    }

    fn compute_in_place(self, samples: &mut [f64]) -> Option<f64> {
        match self {
            Self::Percentile(percent) => statistics::select(samples, percent),
            Self::Mean => statistics::mean(samples),
        }
    }

    fn least_samples(self) -> usize {
        let beyond = match self {
            Self::Percentile(percent) => percent.min(100.0 - percent) / 100.0,
            Self::Mean => 0.5,
        };
        (LEAST_BEYOND / beyond).ceil() as usize
    }

    /// Influence of each sample: for the mean its value, for a percentile 1 where it lies above and
    /// 0 elsewhere.
    fn influence(self, samples: &[f64]) -> Option<Vec<f64>> {
        match self {
            Self::Mean => Some(samples.to_vec()),
            Self::Percentile(_) => {
                let value = self.compute(samples)?;
                Some(samples.iter().map(|&sample| f64::from(u8::from(sample > value))).collect())
            }
        }
    }
}

/// Ratio of the statistic of `after` to that of `before`, each in the order of time, finite and not
/// below 0; `None` where one has no samples or its statistic is 0.
///
/// The interval needs 30 samples for medians and means, 1500 for the 99th percentile. It is
/// deterministic.
pub fn ratio(before: &[f64], after: &[f64], statistic: Statistic) -> Option<Ratio> {
    let ratio = statistic.compute(after)? / statistic.compute(before)?;
    if !ratio.is_finite() || ratio <= 0.0 {
        return None;
    }
    let lengths =
        [block_length(&statistic.influence(before)?), block_length(&statistic.influence(after)?)];
    let interval = if before.len().min(after.len()) >= statistic.least_samples() {
        interval([before, after], statistic, ratio, lengths)
    } else {
        None
    };
    Some(Ratio { ratio, interval })
}

fn interval(
    [before, after]: [&[f64]; 2],
    statistic: Statistic,
    ratio: f64,
    lengths: [usize; 2],
) -> Option<Interval> {
    let below = resample(before, statistic, lengths[0], 0);
    let above = resample(after, statistic, lengths[1], 1);
    let mut ratios: Vec<f64> =
        above.iter().zip(&below).map(|(above, below)| (above / below).ln()).collect();
    let miss = (1.0 - CONFIDENCE) / 2.0;
    let mut end = |share: f64| statistics::select(&mut ratios, 100.0 * share);
    let (low, high) = end(miss).zip(end(1.0 - miss))?;
    let blocks = (before.len() / lengths[0]).min(after.len() / lengths[1]);
    let factor = 1.0 + FEW_BLOCKS / blocks.saturating_sub(1).max(1) as f64;
    let widened = |end: f64| (ratio.ln() + factor * (end - ratio.ln())).exp();
    (low.is_finite() && high.is_finite())
        .then(|| Interval { low: widened(low), high: widened(high) })
}

/// The statistic of each resample.
fn resample(samples: &[f64], statistic: Statistic, length: usize, side: u64) -> Vec<f64> {
    let stream = Stream::named("bootstrap").child(side);
    let mut resampled = Vec::with_capacity(samples.len() + length);
    (0..RESAMPLES as u64)
        .filter_map(|index| {
            let starts = stream.child(index);
            resampled.clear();
            for block in 0..samples.len().div_ceil(length) as u64 {
                let start = starts.below(block, samples.len());
                let ahead = &samples[start..samples.len().min(start + length)];
                resampled.extend_from_slice(ahead);
                resampled.extend_from_slice(&samples[..length - ahead.len()]);
            }
            resampled.truncate(samples.len());
            statistic.compute_in_place(&mut resampled)
        })
        .collect()
}

/// Block length by the automatic rule of Politis and White (Econometric Reviews 23, 2004; corrected
/// 2009), doubled.
///
/// The rule balances bias and variance. Half the bias is that short blocks make the interval too
/// narrow, which twice the length halves; that there are then fewer blocks is allowed for by
/// [`FEW_BLOCKS`]. Where no autocorrelation is found, twice the cube root of the number of samples
/// still covers what is too faint to be found. The maximum is a third of the samples.
fn block_length(values: &[f64]) -> usize {
    let count = values.len();
    let root = (count as f64).cbrt();
    let covariances = autocovariances(values);
    let Some(&variance) = covariances.first().filter(|&&variance| variance > 0.0) else {
        return 1;
    };
    // From the first of several consecutive insignificant lags on, autocovariances count as 0.
    let threshold = 2.0 * ((count as f64).log10() / count as f64).sqrt();
    let is_small: Vec<bool> =
        covariances[1..].iter().map(|covariance| covariance.abs() < threshold * variance).collect();
    let last = is_small
        .windows(consecutive_lags(count))
        .position(|lags| lags.iter().all(|small| *small))
        .unwrap_or(is_small.len());
    let most = (2 * last).min(is_small.len());
    let flat_top = |lag: usize| (2.0 * (1.0 - lag as f64 / most as f64)).min(1.0);
    let weighted = |lag: usize| 2.0 * flat_top(lag) * covariances[lag];
    let slope: f64 = (1..=most).map(|lag| weighted(lag) * lag as f64).sum();
    let spectrum: f64 = variance + (1..=most).map(weighted).sum::<f64>();
    let best = (1.5 * (slope / spectrum).powi(2)).cbrt() * root;
    let longest = (count / 3).max(1) as f64;
    ((2.0 * best.max(root)).min(longest).ceil() as usize).max(1)
}

/// K_N of Politis and White.
fn consecutive_lags(count: usize) -> usize {
    ((count as f64).log10().sqrt().ceil() as usize).max(5)
}

fn autocovariances(values: &[f64]) -> Vec<f64> {
    let count = values.len();
    let mean = values.iter().sum::<f64>() / count as f64;
    let centered: Vec<f64> = values.iter().map(|value| value - mean).collect();
    let lags = (count as f64).sqrt().ceil() as usize + consecutive_lags(count);
    let at = |lag: usize| {
        let products = centered[lag..].iter().zip(&centered).map(|(one, other)| one * other);
        products.sum::<f64>() / count as f64
    };
    (0..=lags.min(count.saturating_sub(1))).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Latencies around 20 ms whose logarithms are an autoregressive process of the first order.
    fn latencies(count: usize, correlation: f64, slower: f64, seed: u64) -> Vec<f64> {
        let stream = Stream::keyed(&[6, seed]);
        let mut state = stream.normal(0);
        (1..=count as u64)
            .map(|at| {
                state = correlation * state
                    + (1.0 - correlation * correlation).sqrt() * stream.normal(at);
                20.0 * slower * (0.1 * state).exp()
            })
            .collect()
    }

    /// Number of 200 intervals that miss the true ratio.
    fn missed(
        count: usize,
        correlation: f64,
        statistic: Statistic,
        interval: impl Fn([&[f64]; 2]) -> Option<Interval>,
    ) -> usize {
        let key = (1000.0 * correlation) as u64 + u64::from(statistic == Statistic::Mean);
        let miss = |run: u64| {
            let before = latencies(count, correlation, 1.0, 1000 * key + 2 * run);
            let after = latencies(count, correlation, 1.05, 1000 * key + 2 * run + 1);
            !interval([&before, &after]).unwrap().contains(1.05)
        };
        (0..200).filter(|&run| miss(run)).count()
    }

    #[test]
    fn intervals_cover_the_true_ratio_at_their_confidence() {
        let median = Statistic::Percentile(50.0);
        let cases = [
            (30, 0.0, median),
            (30, 0.0, Statistic::Mean),
            (400, 0.8, median),
            (400, 0.8, Statistic::Mean),
            (1500, 0.5, Statistic::Percentile(99.0)),
        ];
        for (count, correlation, statistic) in cases {
            let missed = missed(count, correlation, statistic, |[before, after]| {
                ratio(before, after, statistic)?.interval
            });
            // 1 % of 200, and three standard deviations of 1.4.
            assert!(missed <= 6, "{count} {correlation} {statistic:?}: {missed}");
        }
    }

    #[test]
    fn resampling_single_samples_makes_intervals_too_narrow() {
        let median = Statistic::Percentile(50.0);
        let missed = missed(400, 0.8, median, |sets| interval(sets, median, 1.05, [1, 1]));
        // Twenty times the nominal 1 %.
        assert!(missed >= 40, "{missed}");
    }

    #[test]
    fn resamples_are_circular_blocks() {
        // All samples are equally likely, so the mean of all resamples is the mean.
        let samples: Vec<f64> = (0..100).map(f64::from).collect();
        let means = resample(&samples, Statistic::Mean, 7, 0);
        assert_eq!(means.len(), RESAMPLES);
        let mean = means.iter().sum::<f64>() / RESAMPLES as f64;
        // A mean of 14 blocks has a standard deviation of 7.7, and that of all resamples 0.17.
        assert!((mean - 49.5).abs() < 0.6, "{mean}");
        assert_eq!(resample(&samples, Statistic::Percentile(50.0), 100, 0), vec![49.0; RESAMPLES]);
    }

    #[test]
    fn block_lengths_follow_the_autocorrelation() {
        let lengths = [0.0, 0.5, 0.9, 0.98].map(|rho| block_length(&latencies(2000, rho, 1.0, 1)));
        assert!(lengths.is_sorted() && lengths[0] == 26 && lengths[3] > 100, "{lengths:?}");
        // The optimum of Politis and White for an autoregressive process of the first order,
        // doubled, within the error of an estimate from 20000 samples.
        for rho in [0.5_f64, 0.8] {
            let best = (6.0 * (rho / (1.0 - rho * rho)).powi(2)).cbrt() * 20_000_f64.cbrt();
            let logarithms: Vec<f64> =
                latencies(20_000, rho, 1.0, 2).iter().map(|latency| latency.ln()).collect();
            let found = block_length(&logarithms) as f64;
            assert!((0.7..1.4).contains(&(found / (2.0 * best))), "{rho}: {found} of {best}");
        }
    }

    #[test]
    fn too_few_samples_have_no_interval() {
        let median = Statistic::Percentile(50.0);
        let some = latencies(30, 0.0, 1.0, 1);
        assert!(ratio(&some, &some, median).unwrap().interval.unwrap().contains(1.0));
        assert_eq!(ratio(&some, &some[1..], median).unwrap().interval, None);
        assert_eq!(ratio(&some, &some, Statistic::Percentile(99.0)).unwrap().interval, None);
        for wrong in [vec![], vec![0.0; 40], vec![f64::NAN; 40], vec![f64::INFINITY; 40]] {
            assert_eq!(
                (ratio(&some, &wrong, median), ratio(&wrong, &some, Statistic::Mean)),
                (None, None)
            );
        }
        for count in [1, 2, 3, 5, 30, 31] {
            let constant = vec![20.0; count];
            let found = ratio(&constant, &constant, median).unwrap();
            assert_eq!(
                found.interval.is_some_and(|found| found.low == found.high),
                count >= 30,
                "{count}"
            );
            ratio(&some[..count.min(30)], &constant, Statistic::Mean).unwrap();
        }
    }
}
