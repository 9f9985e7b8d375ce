//! How fast a model's segmenters are while they have work: what a wait will be is told from it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What the newest run counts for: the last twenty or so decide.
const NEWEST: f64 = 0.05;

/// Pixels and seconds of runs, the older the less.
#[derive(Debug)]
pub(super) struct ThroughputMeter {
    owners: usize,
    /// Pixels and seconds of a run on average.
    mean: Mutex<Option<(f64, f64)>>,
}

impl ThroughputMeter {
    /// Of so many segmenters side by side.
    pub(super) fn new(owners: usize) -> Self {
        Self { owners, mean: Mutex::new(None) }
    }

    /// Takes a run into account.
    pub(super) fn add(&self, pixels: u64, took: Duration) {
        let mut mean = self.mean.lock().unwrap_or_else(PoisonError::into_inner);
        let new = (pixels as f64, took.as_secs_f64());
        let blend = |old: f64, new: f64| old + NEWEST * (new - old);
        *mean = Some(mean.map_or(new, |old| (blend(old.0, new.0), blend(old.1, new.1))));
    }

    /// Pixels a second of all segmenters together; none before the first run.
    pub(super) fn pixels_per_second(&self) -> Option<f64> {
        let (pixels, seconds) = (*self.mean.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(pixels / seconds.max(1e-9) * self.owners as f64).filter(|rate| *rate > 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_the_last_runs() {
        let meter = ThroughputMeter::new(2);
        assert_eq!(meter.pixels_per_second(), None);
        meter.add(1000, Duration::from_secs(1));
        assert_eq!(meter.pixels_per_second(), Some(2000.0));
        for _ in 0..200 {
            meter.add(1000, Duration::from_secs(4));
        }
        let rate = meter.pixels_per_second().unwrap();
        assert!((rate - 500.0).abs() < 1.0, "{rate}");
    }
}
