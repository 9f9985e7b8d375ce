//! What `protoseg check` holds a bundle's files to, and what it found.

use serde::{Deserialize, Serialize};

use crate::variant::Precision;

/// How far apart two scores must be, as a share of the largest logit, for a number format's rounding not to decide which is
/// the larger: labels that differ where scores are nearer do not count against a file.
///
/// In 32 bits that is what the order of sums moves. A 16-bit float has 11 bits: rounding errs by 2.8e-4 in the root mean
/// square, and the 110 to 220 roundings on a path through these networks add as their squares do, to about 1e-3 of the largest
/// logit and 1.4e-3 of a gap of two; twice that is allowed. A hundredth would let layers pass whose weights are 1 % off. 8
/// bits move logits by tens of hundredths: no gap is beyond that.
pub fn tie_tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::Fp32 | Precision::Int8 => 1e-5,
        Precision::Fp16 => 3e-3,
    }
}

/// What a limit on scores or labels says of a file, which held or not. Of 8 bits it is a bound beyond which a file is broken:
/// to keep within it is no praise.
pub fn judged(precision: Precision, held: Option<bool>) -> Option<bool> {
    held.filter(|held| !held || precision != Precision::Int8)
}

/// What a file may differ by from libtorch on the probe, and from the 32-bit file on real pictures. Where a limit is none,
/// the figure is measured and not judged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GateLimits {
    /// Largest difference of a logit, over the largest logit.
    pub logit_error: Option<f64>,
    /// Largest error of the logits over the probe, over their spread, both in the root mean square: what they differ by, and
    /// what libtorch's deviate by from each class's mean over a picture.
    pub noise_to_signal: Option<f64>,
    /// Least share of pixels with the same label, in [0, 1], on the probe and on real pictures.
    pub label_agreement: Option<f64>,
    /// Largest loss of mean intersection over union on real pictures, in points of a hundred.
    pub mean_iou_drop: Option<f64>,
}

impl GateLimits {
    /// The limits of a number format, where nobody set others.
    ///
    /// Two runtimes in 32-bit floats differ by 3e-6 to 1e-5 of the largest logit, and batch normalisation folded into
    /// convolutions rounds every weight once more; a wrong graph is wrong by orders of magnitude. 16-bit floats move logits
    /// by about a hundredth, and by 0.001 to 0.005 of their spread in trained and random networks, 0.025 in networks that have
    /// hardly learnt, whose logits are nearly the same everywhere: twice that is allowed.
    ///
    /// Of 8 bits, labels say little: a network of small margins turns over many between classes that are as good as equal,
    /// and where one class fills the probe no error shows. So the score on real pictures judges, above two bounds. Scores
    /// that are the same wherever one looks err by as much as their spread, a ratio of 1. Ranges that fit make it 0.08 to 0.2
    /// in trained and random networks, up to 0.75 in those that have hardly learnt, and beyond 1 in some after four steps,
    /// whose 8 bits say nothing indeed; ranges a quarter as wide, or those of other layers, make it 1.04 to 2.3 in trained
    /// networks: 0.9 lies between. Labels fall to two thirds at the worst where
    /// ranges fit, and mostly below a half where they do not: less than three fifths is broken too.
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

/// Whether a file does what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every limit that could be judged held, and at least one could be.
    Passed,
    /// A limit did not hold, or the file could not be run.
    Failed,
    /// Nothing that was measured has a limit.
    NotJudged,
}

impl Verdict {
    /// The word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::NotJudged => "not judged",
        }
    }

    /// The verdict on limits that each held, did not, or could not be judged.
    pub fn from_checks(held: impl IntoIterator<Item = Option<bool>>) -> Self {
        held.into_iter().fold(Self::NotJudged, |verdict, held| verdict.and(Self::from(held)))
    }

    /// The verdict on two parts: one failure fails both, and what is not judged changes nothing.
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

/// What the last check found for one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateResult {
    /// The file.
    pub file: String,
    /// Whether it passed.
    pub verdict: Verdict,
    /// What it was held to.
    pub limits: GateLimits,
    /// Largest difference of a logit on the probe, over the largest logit; none where no logits could be compared.
    pub logit_error: Option<f64>,
    /// Error of the logits over their spread, as [`GateLimits`] has it; none where no logits could be compared.
    pub noise_to_signal: Option<f64>,
    /// Share of pixels labelled as the reference has them, or otherwise where rounding decides: libtorch's labels of the
    /// probe, or of frame files, of which it is the least of a picture, those of the windows stitched outside the file.
    pub label_agreement: Option<f64>,
    /// The same share without those where rounding decides.
    pub labels_equal: Option<f64>,
    /// The score on real pictures, where there were any.
    pub score: Option<GateScore>,
    /// Why it could not be run, or what the check cannot show.
    pub notes: Vec<String>,
}

/// The score of a file on labelled pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateScore {
    /// Data set and list, such as `camvid val`.
    pub data: String,
    /// How many pictures.
    pub images: usize,
    /// Mean intersection over union in percent.
    pub mean_iou: f64,
    /// By how much that is less than the 32-bit file's on the same pictures, in points; below zero where it is more. None
    /// for that file itself.
    pub mean_iou_drop: Option<f64>,
    /// Share of pixels labelled as the reference has them, or otherwise where rounding decides: of logits files the 32-bit
    /// file's labels, of frame files those of the windows stitched outside the file. None for the reference itself.
    pub label_agreement: Option<f64>,
    /// The same share without those where rounding decides.
    pub labels_equal: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_fails_and_nothing_judged_is_no_pass() {
        assert_eq!(Verdict::from_checks([]), Verdict::NotJudged);
        assert_eq!(Verdict::from_checks([None, None]), Verdict::NotJudged);
        assert_eq!(Verdict::from_checks([None, Some(true)]), Verdict::Passed);
        assert_eq!(Verdict::from_checks([Some(true), None, Some(false)]), Verdict::Failed);
        assert_eq!(serde_json::to_string(&Verdict::NotJudged).unwrap(), "\"not-judged\"");
    }
}
