//! How one time compares with another, and how sure that is.

use serde::{Deserialize, Serialize};

/// How often the interval of a ratio holds the true one.
///
/// A report compares several points, and a change that is not there costs somebody a day: with 95 %, one comparison of
/// twenty would find one.
pub const CONFIDENCE: f64 = 0.99;

/// One time over another: above 1 the one above the line is slower.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The estimate.
    pub ratio: f64,
    /// What holds the true one with [`CONFIDENCE`]; none where there is too little to say.
    pub interval: Option<Interval>,
}

/// From where to where.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Whether a number lies in it.
    pub fn contains(self, number: f64) -> bool {
        self.low <= number && number <= self.high
    }
}

/// As percentages above or below 1: `+10.2 % (+9.1 to +11.5 %)`.
impl std::fmt::Display for Ratio {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = |ratio: f64| 100.0 * (ratio - 1.0);
        write!(formatter, "{:+.1} %", percent(self.ratio))?;
        match self.interval {
            Some(Interval { low, high }) => {
                write!(formatter, " ({:+.1} to {:+.1} %)", percent(low), percent(high))
            }
            None => write!(formatter, " (too few to say how sure)"),
        }
    }
}
