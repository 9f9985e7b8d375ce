//! How much of what class scores say about a picture is lost: their error beside their own spread.

/// Squares summed over pictures.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Noise {
    /// Of differences from the reference.
    error: f64,
    /// Of the reference's deviations from each class's mean over its picture.
    signal: f64,
}

impl Noise {
    /// Of one picture's scores `[1, classes, h, w]`, both of the same shape.
    pub(super) fn compare(truth: &[f32], found: &[f32], classes: usize) -> Self {
        let places = (truth.len() / classes.max(1)).max(1);
        let mut noise = Self::default();
        for (truth, found) in truth.chunks(places).zip(found.chunks(places)) {
            let mean = truth.iter().map(|&score| f64::from(score)).sum::<f64>() / places as f64;
            for (&truth, &found) in truth.iter().zip(found) {
                noise.error += (f64::from(found) - f64::from(truth)).powi(2);
                noise.signal += (f64::from(truth) - mean).powi(2);
            }
        }
        noise
    }

    /// Adds the squares of another picture.
    pub(super) fn add(&mut self, other: Self) {
        self.error += other.error;
        self.signal += other.signal;
    }

    /// The root of the one over that of the other: 1 is the ratio of scores that are the same wherever one looks. The
    /// largest number where it is none.
    pub(super) fn ratio(self) -> f64 {
        let ratio = if self.error == 0.0 { 0.0 } else { (self.error / self.signal).sqrt() };
        if ratio.is_finite() { ratio } else { f64::MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_that_say_nothing_of_the_picture_have_the_ratio_one() {
        // Two classes at four places, whose means are 2.5 and 10.
        let truth = [1.0, 2.0, 3.0, 4.0, 9.0, 11.0, 9.0, 11.0];
        let of = |found: &[f32]| Noise::compare(&truth, found, 2);
        assert_eq!(of(&truth).ratio(), 0.0);
        assert_eq!(of(&[2.5, 2.5, 2.5, 2.5, 10.0, 10.0, 10.0, 10.0]).ratio(), 1.0);
        // A square of 9 over the 5 + 4 of the deviations.
        let off = of(&[1.0, 2.0, 3.0, 7.0, 9.0, 11.0, 9.0, 11.0]);
        assert_eq!(off.ratio(), 1.0);
        let mut both = off;
        both.add(of(&truth));
        assert_eq!(both.ratio(), 0.5_f64.sqrt());
    }

    #[test]
    fn what_is_no_number_is_the_largest() {
        assert_eq!(Noise::compare(&[1.0, 2.0], &[1.0, f32::NAN], 1).ratio(), f64::MAX);
        assert_eq!(Noise::compare(&[1.0, 1.0], &[1.0, 1.5], 1).ratio(), f64::MAX);
        assert_eq!(Noise::compare(&[1.0, 1.0], &[1.0, 1.0], 1).ratio(), 0.0);
    }
}
