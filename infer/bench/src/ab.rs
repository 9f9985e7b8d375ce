//! Two subjects measured in turns: what `protoseg bench A --against B` found.

use serde::{Deserialize, Serialize};

use super::paired;
use super::ratio::{CONFIDENCE, Ratio};
use super::scenario::Scenario;

/// What the layout of one subject's memory alone is taken to make of its time: where weights and buffers happen to lie moves
/// a program's time by hundredths (Mytkowicz et al., Producing Wrong Data Without Doing Anything Obviously Wrong, ASPLOS 2009).
/// It is the same in all blocks of a session, so no number of blocks averages it out, and no smaller difference is called one.
pub const LAYOUT_EFFECT: f64 = 0.01;

/// One subject against another under one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AbComparison {
    /// Name of the subject that the other is held against.
    pub a: String,
    /// Name of the other.
    pub b: String,
    /// How requests came.
    pub scenario: Scenario,
    /// Every block, in the order in which they were measured.
    pub blocks: Vec<Block>,
    /// Time of B over time of A.
    pub ratio: Ratio,
    /// What follows.
    pub verdict: AbVerdict,
}

/// Some queries in a row of one subject.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// Whose turn it was.
    #[serde(alias = "turn")]
    pub side: Side,
    /// Its median latency in milliseconds; offline the milliseconds for a picture.
    pub ms: f64,
}

/// Which of two subjects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The one that the other is held against.
    A,
    /// The other.
    B,
}

/// Whether B differs from A.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AbVerdict {
    /// The whole interval of the ratio lies below 1, by more than [`LAYOUT_EFFECT`].
    Faster,
    /// It lies above 1, by more than that.
    Slower,
    /// Neither is shown: the interval says how large a difference could still be.
    NoDifference,
}

impl AbVerdict {
    /// The words in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::NoDifference => "no difference shown",
        }
    }
}

/// Why blocks cannot be compared.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum AbError {
    /// Not one pair.
    #[error(
        "{a} and {b} were not both measured: one block of each is the least, and 8 of each give an interval"
    )]
    NoPair {
        /// The one subject.
        a: String,
        /// The other.
        b: String,
    },
    /// Two blocks that should be a pair are of one subject.
    #[error("blocks {block} and {} are of the same subject, and each two in a row must be one of either", block + 1)]
    SameTurn {
        /// The first of them, from 0.
        block: usize,
    },
    /// A block took no time, or none that can be counted.
    #[error("block {block} took {ms} ms, which is no time that can be compared")]
    NoTime {
        /// The block, from 0.
        block: usize,
        /// What it took.
        ms: f64,
    },
}

impl AbComparison {
    /// Compares blocks in the order in which they were measured, each two in a row a pair; a last one without a partner is
    /// kept and does not count.
    pub fn from_blocks(
        a: &str,
        b: &str,
        scenario: Scenario,
        blocks: Vec<Block>,
    ) -> Result<Self, AbError> {
        if let Some((block, &Block { ms, .. })) =
            blocks.iter().enumerate().find(|(_, block)| !block.ms.is_finite() || block.ms <= 0.0)
        {
            return Err(AbError::NoTime { block, ms });
        }
        let (chunks, _) = blocks.as_chunks::<2>();
        let pairs = chunks.iter().enumerate().map(|(index, [first, second])| {
            match (first.side, second.side) {
                (Side::A, Side::B) => Ok([first.ms, second.ms]),
                (Side::B, Side::A) => Ok([second.ms, first.ms]),
                (Side::A, Side::A) | (Side::B, Side::B) => {
                    Err(AbError::SameTurn { block: 2 * index })
                }
            }
        });
        let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        let ratio =
            paired::ratio(&pairs).ok_or_else(|| AbError::NoPair { a: a.into(), b: b.into() })?;
        let verdict = match ratio.interval {
            Some(interval) if interval.low > 1.0 + LAYOUT_EFFECT => AbVerdict::Slower,
            Some(interval) if interval.high < 1.0 / (1.0 + LAYOUT_EFFECT) => AbVerdict::Faster,
            _ => AbVerdict::NoDifference,
        };
        Ok(Self { a: a.into(), b: b.into(), scenario, blocks, ratio, verdict })
    }
}

/// Whose turn block i is, from 0: A B B A, B A A B, then all of it the other way round, and so on (Thue and Morse).
///
/// Each two in a row are one of either, so that a pair meets one machine. In turns of A B A B, B would always come later,
/// and a machine that grows slower by the hour would make it the slower one. Here each four blocks cancel a drift that is
/// steady, each eight one that speeds up steadily, and each sixteen the next power of time.
pub fn abba_side(block: usize) -> Side {
    if block.count_ones().is_multiple_of(2) { Side::A } else { Side::B }
}

impl std::fmt::Display for AbComparison {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { a, b, scenario, blocks, ratio, verdict } = self;
        let (pairs, confidence) = (blocks.len() / 2, 100.0 * CONFIDENCE);
        write!(
            formatter,
            "{scenario}: time of {b} against {a}: {ratio}, by {pairs} pairs of blocks"
        )?;
        match ratio.interval {
            Some(_) => write!(formatter, ", {confidence:.0} % confidence: {}", verdict.name()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(count: usize, ms: impl Fn(usize, Side) -> f64) -> Vec<Block> {
        (0..count)
            .map(|block| Block { side: abba_side(block), ms: ms(block, abba_side(block)) })
            .collect()
    }

    fn against(blocks: Vec<Block>) -> Result<AbComparison, AbError> {
        AbComparison::from_blocks("main", "branch", Scenario::SingleStream, blocks)
    }

    #[test]
    fn turns_cancel_drift_up_to_the_third_power() {
        let letters: String =
            (0..16).map(|block| if abba_side(block) == Side::A { 'A' } else { 'B' }).collect();
        assert_eq!(letters, "ABBABAABBAABABBA");
        for power in 0..=3 {
            let sum = |wanted: Side| -> u64 {
                (0..16_u64)
                    .filter(|&block| abba_side(block as usize) == wanted)
                    .map(|block| (block + 5).pow(power))
                    .sum()
            };
            assert_eq!(sum(Side::A), sum(Side::B), "{power}");
        }
        assert!((0..1000).all(|pair| abba_side(2 * pair) != abba_side(2 * pair + 1)));
    }

    #[test]
    fn a_steady_drift_is_no_difference_and_a_slower_one_is() {
        let drift = |block: usize| 20.0 * (1.0 + 0.02 * block as f64);
        let same = against(blocks(40, |block, _| drift(block))).unwrap();
        assert_eq!(same.verdict, AbVerdict::NoDifference, "{same}");
        assert!(same.ratio.interval.unwrap().contains(1.0));
        let times = |factor: f64| {
            against(blocks(40, |block, turn| {
                drift(block) * if turn == Side::B { factor } else { 1.0 }
            }))
        };
        assert_eq!(times(1.1).unwrap().verdict, AbVerdict::Slower);
        assert_eq!(times(0.9).unwrap().verdict, AbVerdict::Faster);
    }

    #[test]
    fn a_difference_that_layout_alone_can_make_is_none() {
        let times = |factor: f64| {
            against(blocks(40, |_, turn| if turn == Side::B { 20.0 * factor } else { 20.0 }))
        };
        assert_eq!(times(1.009).unwrap().verdict, AbVerdict::NoDifference);
        assert_eq!(times(1.011).unwrap().verdict, AbVerdict::Slower);
    }

    #[test]
    fn files_hold_all_of_it() {
        let found = against(blocks(16, |block, _| 16.0 + block as f64)).unwrap();
        let text = serde_json::to_string(&found).unwrap();
        let read: AbComparison = serde_json::from_str(&text).unwrap();
        assert_eq!((read.blocks, read.verdict), (found.blocks, found.verdict));
        assert!(
            text.contains(r#"{"side":"b","ms":17.0}"#) && text.contains(r#""no-difference""#),
            "{text}"
        );
    }

    #[test]
    fn blocks_that_cannot_be_compared_are_refused() {
        assert!(matches!(against(blocks(1, |_, _| 1.0)), Err(AbError::NoPair { .. })));
        assert_eq!(against(blocks(3, |_, _| 1.0)).unwrap().blocks.len(), 3);
        assert_eq!(
            against(vec![Block { side: Side::A, ms: 1.0 }; 4]),
            Err(AbError::SameTurn { block: 0 })
        );
        for ms in [0.0, -1.0, f64::INFINITY, f64::NAN] {
            let error =
                against(blocks(4, |block, _| if block == 3 { ms } else { 1.0 })).unwrap_err();
            assert!(matches!(error, AbError::NoTime { block: 3, .. }), "{error}");
        }
    }
}
