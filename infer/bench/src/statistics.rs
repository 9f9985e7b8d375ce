//! How latency is distributed, and how sure each percentile is. Ranks of samples bound a percentile whatever the distribution
//! is: the number of samples below the true one is binomial, so no shape is assumed and nothing is approximated. It does
//! assume samples that do not depend on each other; where neighbours are alike, the true interval is wider.

use super::report::{Latency, Percentile};

/// The percentiles that are told.
const PERCENTS: [f64; 4] = [50.0, 90.0, 95.0, 99.0];

/// What each end of the two-sided interval of 95 % may miss the true percentile with.
const EACH_SIDE: f64 = 0.025;

/// What the one-sided bound may miss it with: that of MLPerf's early stopping.
const ONE_SIDE: f64 = 0.01;

/// How latencies in milliseconds are distributed; none of no samples.
pub fn latency(ms: &[f64]) -> Option<Latency> {
    let mut sorted = ms.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (&min_ms, &max_ms) = (sorted.first()?, sorted.last()?);
    let percentiles = PERCENTS.iter().map(|&percent| percentile(&sorted, percent)).collect();
    Some(Latency {
        mean_ms: sorted.iter().sum::<f64>() / sorted.len() as f64,
        min_ms,
        max_ms,
        percentiles,
    })
}

/// Of samples in order, at least one.
fn percentile(sorted: &[f64], percent: f64) -> Percentile {
    let below = Binomial::new(sorted.len(), percent / 100.0);
    let sample = |rank: usize| sorted[rank - 1];
    Percentile {
        percent,
        ms: sample(rank(sorted.len(), percent)),
        low_ms: below.lower_rank(EACH_SIDE).map(sample),
        high_ms: below.upper_rank(EACH_SIDE).map(sample),
        bound_ms: below.upper_rank(ONE_SIDE).map(sample),
    }
}

/// The nearest rank of a percentile, from 1: the least that so many of a hundred samples do not exceed.
pub(super) fn rank(count: usize, percent: f64) -> usize {
    ((percent * count as f64 / 100.0).ceil() as usize).clamp(1, count.max(1))
}

/// The percentile of samples in any order, by nearest rank; none of no samples. Changes their order.
pub(super) fn select(samples: &mut [f64], percent: f64) -> Option<f64> {
    let index = rank(samples.len(), percent) - 1;
    (!samples.is_empty()).then(|| *samples.select_nth_unstable_by(index, f64::total_cmp).1)
}

/// The sample in the middle, by nearest rank; none of no samples.
pub(super) fn median(samples: &[f64]) -> Option<f64> {
    select(&mut samples.to_vec(), 50.0)
}

/// How likely it is that so many of `count` samples lie below what a share of all lies below.
pub(super) struct Binomial {
    count: usize,
    /// The least number that is not all but impossible.
    first: usize,
    /// The probability of that number and of those that follow.
    probabilities: Vec<f64>,
}

impl Binomial {
    /// Probabilities this far below the largest are taken as none: all of them together change no digit of the rest.
    const NOTHING: f64 = 1e-30;

    /// Each probability is had from its neighbour's, outwards from the largest, and their sum is 1: no factorial is needed,
    /// and no digits are lost with many samples.
    pub(super) fn new(count: usize, share: f64) -> Self {
        let odds = share / (1.0 - share);
        let most_likely = (((count + 1) as f64 * share) as usize).min(count);
        let up = |number: usize| (count - number) as f64 / (number + 1) as f64 * odds;
        let walk = |from: usize, step: &dyn Fn(usize) -> Option<(usize, f64)>| {
            std::iter::successors(Some((from, 1.0)), |&(number, weight)| {
                let (next, factor) = step(number)?;
                Some((next, weight * factor)).filter(|(_, weight)| *weight > Self::NOTHING)
            })
            .skip(1)
            .collect::<Vec<_>>()
        };
        let above = walk(most_likely, &|number| (number < count).then(|| (number + 1, up(number))));
        let below =
            walk(most_likely, &|number| number.checked_sub(1).map(|less| (less, 1.0 / up(less))));
        let first = below.last().map_or(most_likely, |(number, _)| *number);
        let weights = below.into_iter().rev().map(|(_, weight)| weight);
        let mut probabilities: Vec<f64> =
            weights.chain([1.0]).chain(above.into_iter().map(|(_, weight)| weight)).collect();
        let sum: f64 = probabilities.iter().sum();
        probabilities.iter_mut().for_each(|probability| *probability /= sum);
        Self { count, first, probabilities }
    }

    /// The least rank whose sample lies below the true percentile with no more than this probability; none where even the
    /// largest does with more. It does where no fewer samples than the rank lie below.
    pub(super) fn upper_rank(&self, miss: f64) -> Option<usize> {
        let mut tail = 0.0;
        let fits = self.probabilities.iter().rev().take_while(|probability| {
            tail += **probability;
            tail <= miss
        });
        let rank = self.first + self.probabilities.len() - fits.count();
        (rank <= self.count).then_some(rank.max(1))
    }

    /// The largest rank whose sample lies above it with no more than this probability: fewer than the rank lie below.
    pub(super) fn lower_rank(&self, miss: f64) -> Option<usize> {
        let mut tail = 0.0;
        let fits = self.probabilities.iter().take_while(|probability| {
            tail += **probability;
            tail <= miss
        });
        let rank = self.first + fits.count();
        (rank > 0).then_some(rank)
    }
}

#[cfg(test)]
mod tests {
    use protoseg_models::random::Stream;

    use super::*;

    /// The same distribution by adding one sample after the other.
    fn brute_force(count: usize, share: f64) -> Vec<f64> {
        let mut probabilities = vec![1.0];
        for _ in 0..count {
            let mut next = vec![0.0; probabilities.len() + 1];
            for (number, probability) in probabilities.iter().enumerate() {
                next[number] += probability * (1.0 - share);
                next[number + 1] += probability * share;
            }
            probabilities = next;
        }
        probabilities
    }

    #[test]
    fn probabilities_are_those_of_adding_samples_one_by_one() {
        for share in [0.5, 0.9, 0.95, 0.99] {
            for count in [1, 2, 7, 64, 300, 2000] {
                let (one, other) = (Binomial::new(count, share), brute_force(count, share));
                for (number, &wanted) in other.iter().enumerate() {
                    let index = number.checked_sub(one.first);
                    let found = index
                        .and_then(|index| one.probabilities.get(index))
                        .copied()
                        .unwrap_or(0.0);
                    assert!(
                        (found - wanted).abs() < 1e-12,
                        "{number} of {count} at {share}: {found}, not {wanted}"
                    );
                }
                let likely: Vec<usize> = (1..=count).collect();
                let above = |rank: usize| other[rank..].iter().sum::<f64>();
                for miss in [EACH_SIDE, ONE_SIDE] {
                    let upper = likely.iter().copied().find(|&rank| above(rank) <= miss);
                    let lower = likely
                        .iter()
                        .copied()
                        .rev()
                        .find(|&rank| other[..rank].iter().sum::<f64>() <= miss);
                    assert_eq!(
                        (one.upper_rank(miss), one.lower_rank(miss)),
                        (upper, lower),
                        "{count} at {share}"
                    );
                }
            }
        }
    }

    #[test]
    fn ranks_of_the_median_are_those_of_the_tables() {
        // Conover, Practical Nonparametric Statistics, table of confidence limits for the median.
        let table = [
            (5, None),
            (6, Some((1, 6))),
            (10, Some((2, 9))),
            (20, Some((6, 15))),
            (50, Some((18, 33))),
            (100, Some((40, 61))),
        ];
        for (count, ranks) in table {
            let median = Binomial::new(count, 0.5);
            assert_eq!(
                median.lower_rank(EACH_SIDE).zip(median.upper_rank(EACH_SIDE)),
                ranks,
                "{count}"
            );
        }
    }

    #[test]
    fn a_bound_needs_as_many_samples_as_the_rules_of_mlperf_say() {
        // The least query counts of early stopping: that of a percentile is the first for which the second largest is a bound.
        for (share, ranks_below, least) in [(0.9, 0, 44), (0.9, 1, 64), (0.99, 1, 662)] {
            let bound = |count| {
                Binomial::new(count, share).upper_rank(ONE_SIDE).map(|rank: usize| count - rank)
            };
            assert!(bound(least - 1).is_none_or(|below: usize| below < ranks_below), "{share}");
            assert_eq!(bound(least), Some(ranks_below), "{share}");
        }
    }

    #[test]
    fn many_samples_leave_the_bound_near_the_percentile() {
        // MLPerf's full count for the 90th: within half a percent of samples at 99 % confidence.
        let rank = Binomial::new(24_576, 0.9).upper_rank(ONE_SIDE).unwrap();
        assert!((0.9..0.905).contains(&(rank as f64 / 24_576.0)), "{rank}");
        let many = Binomial::new(3_000_000, 0.99);
        let sum: f64 = many.probabilities.iter().sum();
        assert!((sum - 1.0).abs() < 1e-9);
        // 2.326 standard deviations of 172.3 above, where the normal distribution's 99 % lie.
        let above = many.upper_rank(ONE_SIDE).unwrap() - 2_970_000;
        assert!((400..=403).contains(&above), "{above}");
    }

    #[test]
    fn figures_are_nearest_ranks() {
        let shuffled: Vec<f64> = Stream::keyed(&[1])
            .permutation(100)
            .into_iter()
            .map(|rank| rank as f64 + 1.0)
            .collect();
        let latency = latency(&shuffled).unwrap();
        assert_eq!((latency.mean_ms, latency.min_ms, latency.max_ms), (50.5, 1.0, 100.0));
        let told: Vec<(f64, f64)> =
            latency.percentiles.iter().map(|told| (told.percent, told.ms)).collect();
        assert_eq!(told, [(50.0, 50.0), (90.0, 90.0), (95.0, 95.0), (99.0, 99.0)]);
        let ninety = latency.percentiles[1];
        assert_eq!(
            (ninety.low_ms, ninety.high_ms, ninety.bound_ms),
            (Some(84.0), Some(96.0), Some(97.0))
        );
        assert_eq!(latency.percentiles[3].high_ms, None);
        assert_eq!(
            [rank(1, 50.0), rank(2, 50.0), rank(3, 50.0), rank(20, 95.0), rank(1000, 99.9)],
            [1, 1, 2, 19, 999]
        );
        assert_eq!(super::latency(&[]), None);
        let one = super::latency(&[7.0]).unwrap().percentiles[0];
        assert_eq!((one.ms, one.low_ms, one.high_ms, one.bound_ms), (7.0, None, None, None));
    }

    #[test]
    fn intervals_hold_the_true_percentile_as_often_as_they_say() {
        const RUNS: u64 = 2000;
        for (index, percent) in PERCENTS.into_iter().enumerate() {
            // Of the exponential distribution.
            let truth = -(1.0 - percent / 100.0).ln();
            let (mut held, mut bounded) = (0, 0);
            for run in 0..RUNS {
                let draws = Stream::keyed(&[2, index as u64, run]);
                let mut samples: Vec<f64> =
                    (0..1000).map(|at| -(1.0 - draws.unit(at)).ln()).collect();
                samples.sort_by(f64::total_cmp);
                let found = percentile(&samples, percent);
                held +=
                    usize::from(found.low_ms.unwrap() <= truth && truth <= found.high_ms.unwrap());
                bounded += usize::from(truth <= found.bound_ms.unwrap());
            }
            // Ranks are whole, so the true confidence lies between what is claimed and the next rank's; three standard
            // deviations of a count of 2000 runs are 1.5 % and 0.7 %.
            let (held, bounded) = (held as f64 / RUNS as f64, bounded as f64 / RUNS as f64);
            assert!(
                (0.935..0.99).contains(&held) && (0.983..0.9999).contains(&bounded),
                "{percent}: {held} {bounded}"
            );
        }
    }
}
