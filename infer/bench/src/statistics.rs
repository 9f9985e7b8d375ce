//! Latency percentiles with order-statistic intervals, and mean stage times.
//!
//! The number of samples below a percentile is binomial, so two ranks bound it for any distribution
//! and without approximation (Conover, Practical Nonparametric Statistics). Samples are taken as
//! independent; where neighbors are alike, the true interval is wider.

use super::report::{Latency, Percentile, SampleColumns, ScenarioResult};

/// Reported percentiles.
const PERCENTS: [f64; 4] = [50.0, 90.0, 95.0, 99.0];

/// Error probability at each end of the two-sided 95 % interval.
const EACH_SIDE: f64 = 0.025;

/// Error probability of the one-sided bound, as in MLPerf's early stopping.
const ONE_SIDE: f64 = 0.01;

/// Distribution of latencies in milliseconds; `None` without samples.
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

/// `sorted` holds at least one sample.
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

/// Nearest rank of a percentile, from 1.
pub(super) fn rank(count: usize, percent: f64) -> usize {
    ((percent * count as f64 / 100.0).ceil() as usize).clamp(1, count.max(1))
}

/// Nearest-rank percentile of unsorted samples, which are reordered; `None` without samples.
pub(super) fn select(samples: &mut [f64], percent: f64) -> Option<f64> {
    let index = rank(samples.len(), percent) - 1;
    (!samples.is_empty()).then(|| *samples.select_nth_unstable_by(index, f64::total_cmp).1)
}

/// Nearest-rank median; `None` without samples.
pub(super) fn median(samples: &[f64]) -> Option<f64> {
    select(&mut samples.to_vec(), 50.0)
}

/// Arithmetic mean; `None` without samples.
pub(super) fn mean(samples: &[f64]) -> Option<f64> {
    (!samples.is_empty()).then(|| samples.iter().sum::<f64>() / samples.len() as f64)
}

/// Binomial distribution of the number of `count` samples that lie below a quantile.
pub(super) struct Binomial {
    count: usize,
    /// Smallest number with a probability that is not negligible.
    first: usize,
    /// Probabilities of `first` and the numbers that follow.
    probabilities: Vec<f64>,
}

impl Binomial {
    /// Weights below this share of the largest are dropped: their sum changes no digit of the rest.
    const NEGLIGIBLE: f64 = 1e-30;

    /// Walks outwards from the mode by the ratio of neighboring probabilities and scales the sum to
    /// 1, which needs no factorials and stays exact for millions of samples.
    pub(super) fn new(count: usize, share: f64) -> Self {
        let odds = share / (1.0 - share);
        let mode = (((count + 1) as f64 * share) as usize).min(count);
        let ratio = |number: usize| (count - number) as f64 / (number + 1) as f64 * odds;
        let mut above = vec![1.0];
        for number in mode..count {
            let weight = above[above.len() - 1] * ratio(number);
            if weight <= Self::NEGLIGIBLE {
                break;
            }
            above.push(weight);
        }
        let mut probabilities = Vec::new();
        let mut weight = 1.0;
        for number in (0..mode).rev() {
            weight /= ratio(number);
            if weight <= Self::NEGLIGIBLE {
                break;
            }
            probabilities.push(weight);
        }
        let first = mode - probabilities.len();
        probabilities.reverse();
        probabilities.append(&mut above);
        let sum: f64 = probabilities.iter().sum();
        probabilities.iter_mut().for_each(|probability| *probability /= sum);
        Self { count, first, probabilities }
    }

    /// Smallest rank whose sample lies below the quantile with at most probability `miss`; `None`
    /// where the largest sample does with more.
    pub(super) fn upper_rank(&self, miss: f64) -> Option<usize> {
        let mut tail = 0.0;
        let fits = self.probabilities.iter().rev().take_while(|probability| {
            tail += **probability;
            tail <= miss
        });
        let rank = self.first + self.probabilities.len() - fits.count();
        (rank <= self.count).then_some(rank.max(1))
    }

    /// Largest rank whose sample lies above the quantile with at most probability `miss`.
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

/// Mean time of one stage.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Share {
    /// `other` for the part of the latency that no stage accounts for.
    pub(super) name: String,
    pub(super) ms: f64,
    /// Of all stages and `other`.
    pub(super) share: f64,
}

/// Mean stage times in order, then `other`; empty where no stage was timed.
pub(super) fn shares(point: &ScenarioResult) -> Vec<Share> {
    let finite_mean = |ms: &[f64]| mean(ms).filter(|mean| mean.is_finite());
    let stages = point.samples.stages.iter();
    let means: Vec<(&str, f64)> =
        stages.filter_map(|stage| Some((stage.name.as_str(), finite_mean(&stage.ms)?))).collect();
    let timed: f64 = means.iter().map(|(_, ms)| ms).sum();
    let other = point.latency.as_ref().map_or(0.0, |latency| (latency.mean_ms - timed).max(0.0));
    let all = timed + other;
    if all <= 0.0 || means.is_empty() {
        return Vec::new();
    }
    // Below a thousandth it is rounding and the timers themselves.
    let other = (other > 0.001 * all).then_some(("other", other));
    means
        .into_iter()
        .chain(other)
        .map(|(name, ms)| Share { name: name.to_owned(), ms, share: ms / all })
        .collect()
}

/// Mean of a stage in milliseconds; 0 where it was not timed.
pub(super) fn mean_of(samples: &SampleColumns, name: &str) -> f64 {
    let stage = samples.stages.iter().find(|stage| stage.name == name);
    stage.and_then(|stage| mean(&stage.ms)).filter(|mean| mean.is_finite()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use protoseg_models::random::Stream;

    use super::*;
    use crate::report::StageColumn;
    use crate::sample;

    /// The distribution by adding one sample after the other.
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
    fn ranks_of_the_median_match_the_published_table() {
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
    fn a_bound_needs_as_many_samples_as_mlperf_requires() {
        // Least query counts of early stopping; a percentile needs the first for which the second
        // largest is a bound.
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
        // MLPerf's full count for the 90th percentile: within half a percent of the samples at 99 %
        // confidence.
        let rank = Binomial::new(24_576, 0.9).upper_rank(ONE_SIDE).unwrap();
        assert!((0.9..0.905).contains(&(rank as f64 / 24_576.0)), "{rank}");
        let many = Binomial::new(3_000_000, 0.99);
        let sum: f64 = many.probabilities.iter().sum();
        assert!((sum - 1.0).abs() < 1e-9);
        // The normal distribution's 99 %: 2.326 standard deviations of 172.3.
        let above = many.upper_rank(ONE_SIDE).unwrap() - 2_970_000;
        assert!((400..=403).contains(&above), "{above}");
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let shuffled: Vec<f64> = Stream::keyed(&[1])
            .permutation(100)
            .into_iter()
            .map(|rank| rank as f64 + 1.0)
            .collect();
        let latency = latency(&shuffled).unwrap();
        assert_eq!((latency.mean_ms, latency.min_ms, latency.max_ms), (50.5, 1.0, 100.0));
        let reported: Vec<(f64, f64)> = latency
            .percentiles
            .iter()
            .map(|percentile| (percentile.percent, percentile.ms))
            .collect();
        assert_eq!(reported, [(50.0, 50.0), (90.0, 90.0), (95.0, 95.0), (99.0, 99.0)]);
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
    fn intervals_cover_the_true_percentile_at_their_confidence() {
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
            // Ranks are whole, so the true confidence lies between the nominal and that of the next
            // rank; three standard deviations of a count of 2000 runs are 1.5 % and 0.7 %.
            let (held, bounded) = (held as f64 / RUNS as f64, bounded as f64 / RUNS as f64);
            assert!(
                (0.935..0.99).contains(&held) && (0.983..0.9999).contains(&bounded),
                "{percent}: {held} {bounded}"
            );
        }
    }

    /// A result of these stages with this mean latency.
    fn point(stages: &[(&str, &[f64])], mean_ms: f64) -> ScenarioResult {
        let stage =
            |(name, ms): &(&str, &[f64])| StageColumn { name: (*name).to_owned(), ms: ms.to_vec() };
        let mut point = sample::report().runs[0].points[0].clone();
        point.samples.stages = stages.iter().map(stage).collect();
        point.latency =
            Some(Latency { mean_ms, min_ms: mean_ms, max_ms: mean_ms, percentiles: Vec::new() });
        point
    }

    fn stage_shares(point: &ScenarioResult) -> Vec<(String, f64, f64)> {
        shares(point).into_iter().map(|share| (share.name, share.ms, share.share)).collect()
    }

    #[test]
    fn time_outside_of_stages_is_other() {
        let halves = point(&[("decode", &[1.0, 3.0]), ("compute", &[4.0, 8.0])], 16.0);
        let named = |name: &str, ms, share| (name.to_owned(), ms, share);
        assert_eq!(
            stage_shares(&halves),
            [named("decode", 2.0, 0.125), named("compute", 6.0, 0.375), named("other", 8.0, 0.5)]
        );
        let overlapping = point(&[("decode", &[2.0]), ("compute", &[6.0])], 5.0);
        assert_eq!(
            stage_shares(&overlapping),
            [named("decode", 2.0, 0.25), named("compute", 6.0, 0.75)]
        );
    }

    #[test]
    fn untimed_queries_have_no_shares() {
        for stages in [&[][..], &[("compute", &[][..])], &[("compute", &[f64::NAN])]] {
            assert_eq!(stage_shares(&point(stages, 5.0)), []);
        }
    }
}
