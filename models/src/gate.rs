//! Limits of `protoseg check` on the files of a bundle, and its results.

use serde::{Deserialize, Serialize};

use crate::variant::Precision;

/// Returns the gap between two logits, as a share of the largest logit, within which the rounding
/// of a number format decides their order: different labels there do not count against a file.
///
/// In fp32 that is the effect of another order of summation. fp16 has 11 bits: rounding has a root
/// mean square error of 2.8e-4, and the 110 to 220 roundings on a path through these networks add
/// up in quadrature to about 1e-3 of the largest logit, 1.4e-3 of a gap between two; twice that is
/// allowed. A gap of 1e-2 would accept layers whose weights are wrong by 1 %. int8 moves logits by
/// tens of percent, more than any gap.
pub fn tie_tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::Fp32 | Precision::Int8 => 1e-5,
        Precision::Fp16 => 3e-3,
    }
}

/// Returns how the outcome of a limit on logits or labels counts: for int8 the limit is a bound
/// beyond which a file is broken, so staying within it proves nothing.
pub fn judged(precision: Precision, held: Option<bool>) -> Option<bool> {
    held.filter(|held| !held || precision != Precision::Int8)
}

/// Allowed differences of a file from libtorch on the probe, and from the fp32 file on real images.
/// A measurement without limit is reported and not judged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GateLimits {
    /// Largest difference of a logit, relative to the largest logit.
    pub logit_error: Option<f64>,
    /// Root mean square error of the probe's logits, relative to the root mean square deviation of
    /// libtorch's logits from the mean of their class over an image.
    pub noise_to_signal: Option<f64>,
    /// Smallest share of pixels with the same label in [0, 1], on the probe and on real images.
    pub label_agreement: Option<f64>,
    /// Largest loss of mean IoU on real images, in percentage points.
    pub mean_iou_drop: Option<f64>,
}

impl GateLimits {
    /// Returns the default limits of a precision.
    ///
    /// Two fp32 runtimes differ by 3e-6 to 1e-5 of the largest logit, and folded batch
    /// normalization rounds every weight once more; a wrong graph is wrong by orders of magnitude.
    /// fp16 moves logits by about 1e-2, and by 0.001 to 0.005 of their spread in trained and random
    /// networks, 0.025 in barely trained ones, whose logits are nearly constant: twice that is
    /// allowed.
    ///
    /// For int8, labels say little: a network with small margins changes many between classes that
    /// are nearly equal, and if one class fills the probe no error shows. So the score on real
    /// images judges, above two bounds. Logits that are constant over the image have a
    /// noise-to-signal ratio of 1. With fitting ranges it is 0.08 to 0.2 in trained and random
    /// networks, up to 0.75 in barely trained ones, and above 1 in some after four steps, whose
    /// int8 is indeed useless; with ranges a quarter as wide, or those of other layers, it is 1.04
    /// to 2.3 in trained networks: 0.9 lies between. Label agreement with fitting ranges is at
    /// least two thirds, and with wrong ranges mostly below one half: less than three fifths is
    /// broken too.
    pub fn for_precision(precision: Precision) -> Self {
        match precision {
            Precision::Fp32 => Self {
                logit_error: Some(1e-3),
                noise_to_signal: None,
                label_agreement: Some(0.9999),
                mean_iou_drop: Some(0.1),
            },
            Precision::Fp16 => Self {
                logit_error: Some(0.05),
                noise_to_signal: Some(0.05),
                label_agreement: Some(0.999),
                mean_iou_drop: Some(0.1),
            },
            Precision::Int8 => Self {
                logit_error: None,
                noise_to_signal: Some(0.9),
                label_agreement: Some(0.6),
                mean_iou_drop: Some(1.0),
            },
        }
    }
}

/// The result of checking a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// At least one limit was judged, and all judged ones held.
    Passed,
    /// A limit did not hold, or the file could not be run.
    Failed,
    /// No limit could be judged.
    NotJudged,
}

impl Verdict {
    /// Returns the word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::NotJudged => "not judged",
        }
    }

    /// Returns the verdict on limits that held, did not hold, or were not judged (`None`).
    pub fn from_checks(held: impl IntoIterator<Item = Option<bool>>) -> Self {
        held.into_iter().fold(Self::NotJudged, |verdict, held| verdict.and(Self::from(held)))
    }

    /// Combines two verdicts: a failure fails both, and a part that is not judged has no effect.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Failed, _) | (_, Self::Failed) => Self::Failed,
            (Self::Passed, _) | (_, Self::Passed) => Self::Passed,
            (Self::NotJudged, Self::NotJudged) => Self::NotJudged,
        }
    }
}

impl From<Option<bool>> for Verdict {
    fn from(held: Option<bool>) -> Self {
        match held {
            None => Self::NotJudged,
            Some(true) => Self::Passed,
            Some(false) => Self::Failed,
        }
    }
}

/// Result of the last check of one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateResult {
    /// Name of the file.
    pub file: String,
    /// The verdict on all limits.
    pub verdict: Verdict,
    /// Limits of this check.
    pub limits: GateLimits,
    /// As in [`GateLimits`]; none if no logits were compared.
    pub logit_error: Option<f64>,
    /// As in [`GateLimits`]; none if no logits were compared.
    pub noise_to_signal: Option<f64>,
    /// Share of pixels with the reference's label, or with another where rounding decides. The
    /// reference is libtorch on the probe; for frame files it is the windows stitched outside the
    /// file, and the share is the smallest of an image.
    pub label_agreement: Option<f64>,
    /// Share of pixels with the reference's label.
    pub labels_equal: Option<f64>,
    /// Score on real images, if any were given.
    pub score: Option<GateScore>,
    /// Reasons of a failure, and limitations of the check.
    pub notes: Vec<String>,
}

/// Score of a file on labeled images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateScore {
    /// Data set and list, such as `camvid val`.
    pub data: String,
    /// Number of images.
    pub images: usize,
    /// Mean IoU in percent.
    pub mean_iou: f64,
    /// Loss against the fp32 file on the same images in percentage points, negative for a gain.
    /// None for the fp32 file itself.
    pub mean_iou_drop: Option<f64>,
    /// As in [`GateResult`], but logits files are compared with the fp32 file. None for the
    /// reference itself.
    pub label_agreement: Option<f64>,
    /// Share of pixels with the reference's label.
    pub labels_equal: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_fails_and_an_unjudged_file_does_not_pass() {
        assert_eq!(Verdict::from_checks([]), Verdict::NotJudged);
        assert_eq!(Verdict::from_checks([None, None]), Verdict::NotJudged);
        assert_eq!(Verdict::from_checks([None, Some(true)]), Verdict::Passed);
        assert_eq!(Verdict::from_checks([Some(true), None, Some(false)]), Verdict::Failed);
        assert_eq!(serde_json::to_string(&Verdict::NotJudged).unwrap(), "\"not-judged\"");
    }
}
