//! When the pictures of the server scenario come: a Poisson process, drawn from a seed so that two models meet the same one.

use std::time::Duration;

use protoseg_models::random::Stream;

/// The moments at which pictures come, `rate` in a second on average, from the start on and without end.
///
/// The gaps between them are exponential and do not depend on each other. Pictures of a rate that is not above 0 never come:
/// their moment is [`Duration::MAX`].
///
/// ```
/// use protoseg_bench::arrivals;
///
/// let first: Vec<_> = arrivals::schedule(20.0, 1).take(3).collect();
/// assert!(first.is_sorted());
/// assert_eq!(first, arrivals::schedule(20.0, 1).take(3).collect::<Vec<_>>());
/// ```
pub fn schedule(rate: f64, seed: u64) -> impl Iterator<Item = Duration> {
    let draws = Stream::named("arrivals").child(seed);
    let mut seconds = 0.0;
    (0..).map(move |index| {
        seconds -= (1.0 - draws.unit(index)).ln() / rate;
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
    fn gaps_follow_the_exponential_law() {
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
            // The Kolmogorov-Smirnov distance that one in a hundred sets of draws exceeds.
            let critical = 1.628 / (COUNT as f64).sqrt();
            let distance = distance.fold(0.0, f64::max);
            assert!(distance < critical, "{seed}: {distance}");
        }
    }

    #[test]
    fn counts_of_a_second_vary_as_much_as_their_mean() {
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
        // What depends on what came before, as even gaps do, varies less or more. Its standard deviation here is 9 %.
        assert!((variance / mean - 1.0).abs() < 0.27, "{variance} of {mean}");
    }

    #[test]
    fn seeds_differ_and_senseless_rates_never_come() {
        assert_ne!(seconds(1), seconds(2));
        for rate in [0.0, -1.0, f64::NAN, 1e-300] {
            assert!(schedule(rate, 1).take(10).all(|moment| moment == Duration::MAX), "{rate}");
        }
        assert!(schedule(f64::INFINITY, 1).take(10).all(|moment| moment == Duration::ZERO));
    }
}
