//! Arrivals of the server scenario: a Poisson process, seeded so that two models meet the same one.

use std::time::Duration;

use protoseg_models::random::Stream;

/// Endless arrival times since the start, `rate` per second on average, with independent
/// exponential gaps. A rate that is not above 0 gives [`Duration::MAX`].
///
/// ```
/// use protoseg_bench::arrivals;
///
/// let first: Vec<_> = arrivals::schedule(20.0, 1).take(3).collect();
/// assert!(first.is_sorted());
/// assert_eq!(first, arrivals::schedule(20.0, 1).take(3).collect::<Vec<_>>());
/// ```
pub fn schedule(rate: f64, seed: u64) -> impl Iterator<Item = Duration> {
    let stream = Stream::named("arrivals").child(seed);
    let mut seconds = 0.0;
    (0..).map(move |index| {
        seconds -= (1.0 - stream.unit(index)).ln() / rate;
        if rate > 0.0 {
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
        } else {
            Duration::MAX
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: usize = 10_000;
    const RATE: f64 = 40.0;

    fn seconds(seed: u64) -> Vec<f64> {
        schedule(RATE, seed).take(COUNT).map(|moment| moment.as_secs_f64()).collect()
    }

    #[test]
    fn gaps_are_exponential() {
        for seed in 0..5 {
            let moments = seconds(seed);
            let mut gaps: Vec<f64> = std::iter::once(&0.0)
                .chain(&moments)
                .zip(&moments)
                .map(|(before, at)| at - before)
                .collect();
            // The mean of so many gaps has a standard deviation of 1 %.
            assert!((gaps.iter().sum::<f64>() / COUNT as f64 * RATE - 1.0).abs() < 0.03, "{seed}");
            gaps.sort_by(f64::total_cmp);
            let distance = gaps.iter().enumerate().map(|(index, gap)| {
                let law = 1.0 - (-gap * RATE).exp();
                (law - index as f64 / COUNT as f64).max((index + 1) as f64 / COUNT as f64 - law)
            });
            // The Kolmogorov-Smirnov distance that one in a hundred samples exceeds.
            let critical = 1.628 / (COUNT as f64).sqrt();
            let distance = distance.fold(0.0, f64::max);
            assert!(distance < critical, "{seed}: {distance}");
        }
    }

    #[test]
    fn counts_per_second_have_the_variance_of_their_mean() {
        let moments = seconds(6);
        let whole = moments[COUNT - 1] as usize;
        let mut counts = vec![0.0; whole];
        moments
            .iter()
            .filter(|&&moment| (moment as usize) < whole)
            .for_each(|&moment| counts[moment as usize] += 1.0);
        let mean = counts.iter().sum::<f64>() / whole as f64;
        let variance = counts.iter().map(|count| (count - mean) * (count - mean)).sum::<f64>()
            / (whole - 1) as f64;
        // Dependent gaps, such as even ones, vary less or more. The standard deviation of the ratio
        // is 9 %.
        assert!((variance / mean - 1.0).abs() < 0.27, "{variance} of {mean}");
    }

    #[test]
    fn seeds_differ_and_invalid_rates_never_arrive() {
        assert_ne!(seconds(1), seconds(2));
        for rate in [0.0, -1.0, f64::NAN, 1e-300] {
            assert!(schedule(rate, 1).take(10).all(|moment| moment == Duration::MAX), "{rate}");
        }
        assert!(schedule(f64::INFINITY, 1).take(10).all(|moment| moment == Duration::ZERO));
    }
}
