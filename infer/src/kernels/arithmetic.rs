//! Arithmetic that all instruction sets do alike, and predictions at the corners of cells.
//!
//! Within a cell, every logit is a mean of the four corner logits with the same weights. So where
//! one class is the highest at all four corners, it is the highest in between; its lead is nowhere
//! less than at the worst corner; and the softmax denominator, being convex along both directions,
//! is nowhere more than at the worst corner.

use super::LogitPlanes;

/// Steps of a margin byte per unit of logits.
pub(crate) const MARGIN_STEPS: f32 = 16.0;

/// Softmax denominator at the corners up to which every confidence in between is the byte 255. The
/// bound is 255 / 254.5 = 1.00196; the rest is for rounding.
const SURE_SUM: f32 = 1.0019;

/// Lead at the corners from which every margin in between is the byte 255. The bound is 254.5 / 16;
/// the rest is for rounding.
const SURE_MARGIN: f32 = 16.0;

/// Below it, exponentials are negligible, and would be subnormal.
pub(super) const MIN_EXPONENT: f32 = -87.0;
pub(super) const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// Added to a float, it leaves the nearest integer in the last bits.
pub(super) const WHOLE: f32 = 12_582_912.0;
/// ln 2 in two parts (Cody and Waite); products of the first with small integers are exact.
pub(super) const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Taylor series of exp, highest power first: its error on [-ln 2 / 2, ln 2 / 2] is below that of
/// rounding.
pub(super) const SERIES: [f32; 7] =
    [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// exp(x) for x <= 0.
#[inline(always)]
pub(super) fn exponential(x: f32) -> f32 {
    let x = greater(x, MIN_EXPONENT);
    let shifted = x * LOG2_E + WHOLE;
    let whole = shifted - WHOLE;
    let rest = (x - whole * LN_2[0]) - whole * LN_2[1];
    let mut sum = SERIES[0];
    for factor in &SERIES[1..] {
        sum = sum * rest + factor;
    }
    sum * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()))
}

/// The largest probability, 1 / `sum`, in steps of 1/255, rounded.
#[inline(always)]
pub(super) fn confidence(sum: f32) -> u8 {
    (255.0 / sum + 0.5) as u8
}

/// The lead in steps of 1/16, rounded and clamped to 255.
#[inline(always)]
pub(super) fn margin(best: f32, second: f32) -> u8 {
    lesser((best - second) * MARGIN_STEPS + 0.5, 255.0) as u8
}

/// The first where it is greater, else the second: the semantics of vector instructions for NaN.
#[inline(always)]
pub(super) fn greater(first: f32, second: f32) -> f32 {
    if first > second { first } else { second }
}

/// The first where it is less, else the second.
#[inline(always)]
pub(super) fn lesser(first: f32, second: f32) -> f32 {
    if first < second { first } else { second }
}

/// Predictions of a row of logits.
#[derive(Debug)]
pub(crate) struct Corners {
    /// Class with the highest logit; of equal ones, the first.
    pub(crate) labels: Vec<u8>,
    /// True where confidence and margin, if asked for, are at their highest byte as far as this
    /// corner goes.
    pub(crate) sure: Vec<bool>,
    outputs: [bool; 2],
    best: Vec<f32>,
    second: Vec<f32>,
    sum: Vec<f32>,
}

impl Corners {
    /// Allocates a row of `width` positions.
    pub(crate) fn new(width: usize, confidence: bool, margin: bool) -> Self {
        let plane = |asked: bool| vec![0.0; if asked { width } else { 0 }];
        Self {
            labels: vec![0; width],
            sure: vec![true; width],
            outputs: [confidence, margin],
            best: vec![0.0; width],
            second: plane(margin),
            sum: plane(confidence),
        }
    }
}

/// Predicts every position of a row of logits.
#[inline(always)]
pub(super) fn corners(planes: LogitPlanes<'_>, row: usize, corners: &mut Corners) {
    let Corners { labels, sure, outputs: [confidence, margin], best, second, sum } = corners;
    labels.fill(0);
    best.fill(f32::NEG_INFINITY);
    second.fill(f32::NEG_INFINITY);
    for (class, logits) in planes.row(row).enumerate() {
        for ((second, &best), &logit) in second.iter_mut().zip(&*best).zip(logits) {
            *second = greater(lesser(best, logit), *second);
        }
        for ((best, label), &logit) in best.iter_mut().zip(labels.iter_mut()).zip(logits) {
            *label = if logit > *best { class as u8 } else { *label };
            *best = greater(logit, *best);
        }
    }
    sure.fill(true);
    if *confidence {
        sum.fill(0.0);
        for logits in planes.row(row) {
            for ((sum, best), logit) in sum.iter_mut().zip(&*best).zip(logits) {
                *sum += exponential(logit - best);
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
    fn exponentials_are_close() {
        for step in 0..=100_000 {
            let x = -87.0 * step as f32 / 100_000.0;
            let expected = f64::from(x).exp();
            assert!(
                (f64::from(exponential(x)) - expected).abs() <= 3e-7 * expected,
                "{x}: {} {expected}",
                exponential(x)
            );
        }
        assert!(exponential(f32::NEG_INFINITY) < 1e-37 && exponential(0.0) == 1.0);
    }

    #[test]
    fn bytes_are_rounded_and_never_wrap() {
        assert_eq!(
            [1.0, 255.0 / 254.6, 255.0 / 254.4, 2.0, 1e9].map(confidence),
            [255, 255, 254, 128, 0]
        );
        let lead = |lead: f32| margin(lead, 0.0);
        assert_eq!(
            [0.0, 0.03, 0.04, 1.0, 15.9, 15.92, 1e9, f32::INFINITY].map(lead),
            [0, 0, 1, 16, 254, 255, 255, 255]
        );
        assert_eq!((confidence(SURE_SUM), lead(SURE_MARGIN)), (255, 255));
    }
}
