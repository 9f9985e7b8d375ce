//! What is read off the scores of a pixel, in operations that every form does alike, and what corners say of their cell.
//!
//! Over a cell, every score is a mean of the four corner scores with the same weights. So where one class is the highest at
//! all four corners, it is the highest in between; its lead is nowhere less than at the worst corner; and the sum of the
//! powers of the others' distances, being convex along both directions, is nowhere more than at the worst corner.

use super::LogitPlanes;

/// Steps of a margin byte in one unit of score.
pub(crate) const MARGIN_STEPS: f32 = 16.0;

/// Sum of `exp(score - best)` at the corners up to which every confidence in between is the byte 255. It is so up to
/// 255 / 254.5 = 1.00196; the rest is room for rounding.
const SURE_SUM: f32 = 1.0019;

/// Lead at the corners from which every margin in between is the byte 255. It is so from 254.5 / 16 on; the rest is room
/// for rounding.
const SURE_MARGIN: f32 = 16.0;

/// Below it, powers count for nothing, and would leave the normal numbers.
pub(super) const LEAST_POWER: f32 = -87.0;
pub(super) const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// Added to a float, it leaves the nearest whole number in the last bits.
pub(super) const WHOLE: f32 = 12_582_912.0;
/// The natural logarithm of 2 in two parts; multiples of the first by small whole numbers are exact.
pub(super) const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Taylor's series of the exponential, the highest power first: its error on [-ln 2 / 2, ln 2 / 2] is below that of rounding.
pub(super) const SERIES: [f32; 7] =
    [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// The exponential of a number that is not above zero.
#[inline(always)]
pub(super) fn power(x: f32) -> f32 {
    let x = greater(x, LEAST_POWER);
    let shifted = x * LOG2_E + WHOLE;
    let whole = shifted - WHOLE;
    let rest = (x - whole * LN_2[0]) - whole * LN_2[1];
    let mut sum = SERIES[0];
    for factor in &SERIES[1..] {
        sum = sum * rest + factor;
    }
    sum * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()))
}

/// The largest probability, `1 / sum`, in steps of 1/255, rounded.
#[inline(always)]
pub(super) fn confidence(sum: f32) -> u8 {
    (255.0 / sum + 0.5) as u8
}

/// The lead in steps of 1/16, rounded; 255 stands for all from there on.
#[inline(always)]
pub(super) fn margin(best: f32, second: f32) -> u8 {
    lesser((best - second) * MARGIN_STEPS + 0.5, 255.0) as u8
}

/// The first where it is greater, else the second: as vector instructions do it, where one is no number too.
#[inline(always)]
pub(super) fn greater(first: f32, second: f32) -> f32 {
    if first > second { first } else { second }
}

/// The first where it is less, else the second.
#[inline(always)]
pub(super) fn lesser(first: f32, second: f32) -> f32 {
    if first < second { first } else { second }
}

/// What is decided of a row of logits.
#[derive(Debug)]
pub(crate) struct Corners {
    /// The class with the highest score; of equal ones, the first.
    pub(crate) labels: Vec<u8>,
    /// Whether confidence and margin, if wanted, are both at their highest byte as far as this corner goes.
    pub(crate) sure: Vec<bool>,
    wanted: [bool; 2],
    best: Vec<f32>,
    second: Vec<f32>,
    sum: Vec<f32>,
}

impl Corners {
    /// Room for a row of `width` scores.
    pub(crate) fn new(width: usize, confidence: bool, margin: bool) -> Self {
        let more = |wanted: bool| vec![0.0; if wanted { width } else { 0 }];
        Self {
            labels: vec![0; width],
            sure: vec![true; width],
            wanted: [confidence, margin],
            best: vec![0.0; width],
            second: more(margin),
            sum: more(confidence),
        }
    }
}

/// Decides every score of a row of logits.
#[inline(always)]
pub(super) fn corners(planes: LogitPlanes<'_>, row: usize, corners: &mut Corners) {
    let Corners { labels, sure, wanted: [confidence, margin], best, second, sum } = corners;
    labels.fill(0);
    best.fill(f32::NEG_INFINITY);
    second.fill(f32::NEG_INFINITY);
    for (class, scores) in planes.row(row).enumerate() {
        for ((second, &best), &score) in second.iter_mut().zip(&*best).zip(scores) {
            *second = greater(lesser(best, score), *second);
        }
        for ((best, label), &score) in best.iter_mut().zip(labels.iter_mut()).zip(scores) {
            *label = if score > *best { class as u8 } else { *label };
            *best = greater(score, *best);
        }
    }
    sure.fill(true);
    if *confidence {
        sum.fill(0.0);
        for scores in planes.row(row) {
            for ((sum, best), score) in sum.iter_mut().zip(&*best).zip(scores) {
                *sum += power(score - best);
            }
        }
        for (sure, sum) in sure.iter_mut().zip(sum) {
            *sure &= *sum <= SURE_SUM;
        }
    }
    if *margin {
        for ((sure, best), second) in sure.iter_mut().zip(best).zip(second) {
            *sure &= *best - *second >= SURE_MARGIN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_exponentials() {
        for step in 0..=100_000 {
            let x = -87.0 * step as f32 / 100_000.0;
            let expected = f64::from(x).exp();
            assert!(
                (f64::from(power(x)) - expected).abs() <= 3e-7 * expected,
                "{x}: {} {expected}",
                power(x)
            );
        }
        assert!(power(f32::NEG_INFINITY) < 1e-37 && power(0.0) == 1.0);
    }

    #[test]
    fn bytes_are_rounded_and_never_wrap() {
        assert_eq!(
            [1.0, 255.0 / 254.6, 255.0 / 254.4, 2.0, 1e9].map(confidence),
            [255, 255, 254, 128, 0]
        );
        let of = |lead: f32| margin(lead, 0.0);
        assert_eq!(
            [0.0, 0.03, 0.04, 1.0, 15.9, 15.92, 1e9, f32::INFINITY].map(of),
            [0, 0, 1, 16, 254, 255, 255, 255]
        );
        assert_eq!((confidence(SURE_SUM), of(SURE_MARGIN)), (255, 255));
    }
}
