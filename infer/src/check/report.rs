//! Report of a check: as text, as JSON, and as the gate in the manifest.

use protoseg_models::bundle::ModelFile;
use protoseg_models::gate::{GateLimits, GateResult, GateScore, Verdict};
use protoseg_models::variant::{ModelKind, Precision, Variant};
use serde::Serialize;

use super::agreement::{ConfidenceAgreement, LabelAgreement};

/// Report on all files of a bundle.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    /// True where nothing failed. Files that were not judged do not fail.
    pub passed: bool,
    /// Files in the manifest's order.
    pub files: Vec<FileReport>,
    /// Errors of scoring labeled images.
    pub errors: Vec<String>,
}

/// Report on one file.
#[derive(Debug, Serialize)]
pub struct FileReport {
    /// Name of the file in the bundle.
    pub file: String,
    pub(super) kind: ModelKind,
    pub(super) precision: Precision,
    /// Passed, failed or not judged.
    pub verdict: Verdict,
    pub(super) limits: GateLimits,
    pub(super) cases: Vec<CaseReport>,
    /// Noise-to-signal ratio of the logits over the whole probe; None for files that give labels.
    pub(super) noise_to_signal: Option<f64>,
    pub(super) score: Option<ScoreReport>,
    /// Errors of running it.
    pub(super) errors: Vec<String>,
    /// Reason why it was not judged.
    pub not_judged: Option<String>,
    /// Limitations of the check.
    pub(super) notes: Vec<String>,
}

/// Results of one file on one image.
#[derive(Debug, Serialize)]
pub(super) struct CaseReport {
    #[serde(rename = "picture")]
    pub(super) image: String,
    /// Largest difference of a logit over the largest logit; None for files that give labels.
    pub(super) logit_error: Option<f64>,
    /// Noise-to-signal ratio of the logits; None for files that give labels.
    pub(super) noise_to_signal: Option<f64>,
    pub(super) labels: LabelAgreement,
    pub(super) confidence: Option<ConfidenceAgreement>,
    /// Agreement of the prototypes' confidence; None for files that do not give it.
    pub(super) prototype_confidence: Option<ConfidenceAgreement>,
    pub(super) verdict: Verdict,
}

/// Score of one file on labeled images.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ScoreReport {
    /// Name of the images.
    pub(super) data: String,
    /// Images that were scored.
    pub(super) images: usize,
    /// Images of another size than the file takes.
    pub(super) skipped: usize,
    /// In percent.
    pub(super) mean_iou: f64,
    /// Points below the fp32 logits file in the same windows; None for that file itself.
    pub(super) mean_iou_drop: Option<f64>,
    /// Agreement with the labels of the reference; None for the reference itself.
    pub(super) labels: Option<LabelAgreement>,
    pub(super) verdict: Verdict,
}

impl CheckReport {
    /// Formats a line per result.
    pub fn lines(&self) -> Vec<String> {
        let files = self.files.iter().flat_map(FileReport::lines);
        files.chain(self.errors.iter().map(|error| format!("FAILED  {error}"))).collect()
    }

    /// Returns the gates for the manifest.
    pub fn gates(&self) -> Vec<GateResult> {
        self.files.iter().map(FileReport::gate).collect()
    }
}

impl FileReport {
    /// An empty report.
    pub(super) fn new(file: &ModelFile) -> Self {
        Self {
            file: file.file.clone(),
            kind: file.variant.kind,
            precision: file.variant.precision,
            verdict: Verdict::NotJudged,
            limits: file.limits(),
            cases: Vec::new(),
            noise_to_signal: None,
            score: None,
            errors: Vec::new(),
            not_judged: None,
            notes: notes(&file.variant),
        }
    }

    /// Computes the verdict. `data`: there are labeled images; `measure`: the bundle holds a file
    /// that scores are compared with.
    pub(super) fn conclude(&mut self, data: bool, measure: bool) {
        let cases = self.cases.iter().map(|case| case.verdict);
        let found = cases
            .chain(self.score.iter().map(|score| score.verdict))
            .fold(Verdict::NotJudged, Verdict::and);
        self.verdict = if self.errors.is_empty() { found } else { Verdict::Failed };
        if self.verdict == Verdict::NotJudged {
            let why = match &self.score {
                None if !data && measure => "needs --data",
                None if !data => {
                    "needs --data, and an fp32 file in the bundle, whose score is the measure; add fp32 to --precision"
                }
                None => "no image of its size was among the data",
                Some(_) => {
                    "its score is compared with that of an fp32 file, which the bundle lacks; add fp32 to --precision"
                }
            };
            self.not_judged = Some(why.to_owned());
        }
    }

    /// A share of labels: for frames the least, else over the whole probe.
    fn labels(&self, share: impl Fn(&LabelAgreement) -> f64) -> Option<f64> {
        let each = self.cases.iter().map(|case| &case.labels);
        if self.kind == ModelKind::Frame {
            return each.map(share).reduce(f64::min);
        }
        let pixels: usize = each.clone().map(|labels| labels.pixels).sum();
        let agreeing: f64 = each.map(|labels| share(labels) * labels.pixels as f64).sum();
        (pixels > 0).then(|| agreeing / pixels as f64)
    }

    fn lines(&self) -> Vec<String> {
        let file = &self.file;
        let mut lines: Vec<String> = self.cases.iter().map(|case| self.case_line(case)).collect();
        if let Some(score) = &self.score {
            lines.push(self.score_line(score));
        }
        lines
            .extend(self.errors.iter().map(|error| format!("{}  {error}", Verdict::Failed.name())));
        lines.extend(
            self.not_judged
                .iter()
                .map(|why| format!("{}  {file}: {why}", Verdict::NotJudged.name())),
        );
        lines.extend(self.notes.iter().map(|note| format!("note  {file}: {note}")));
        lines
    }

    fn case_line(&self, case: &CaseReport) -> String {
        let CaseReport {
            image,
            logit_error,
            noise_to_signal,
            labels,
            confidence,
            prototype_confidence,
            verdict,
        } = case;
        let GateLimits { logit_error: logit_limit, noise_to_signal: noise_limit, .. } = self.limits;
        // Each frame is judged by itself.
        let over = if self.kind == ModelKind::Frame { "" } else { " over the probe" };
        let logits = logit_error.map_or_else(String::new, |error| {
            if error == f64::MAX {
                return "logits that are not finite, ".to_owned();
            }
            let noise = noise_to_signal.map_or_else(String::new, |ratio| {
                let limit = limit(noise_limit.map(|limit| format!("{limit:.2}{over}")));
                format!("noise to signal {ratio:.4} ({limit}), ")
            });
            format!(
                "logit error {error:.1e} ({}), {noise}",
                limit(logit_limit.map(|limit| format!("{limit:.0e}")))
            )
        });
        let sure = |what: &str, confidence: Option<ConfidenceAgreement>| {
            confidence.map_or_else(String::new, |ConfidenceAgreement { agreement, largest }| {
                format!(
                    ", {what} within one step {:.4} %, largest difference {largest} steps",
                    100.0 * agreement
                )
            })
        };
        let confidence =
            sure("confidence", *confidence) + &sure("prototype confidence", *prototype_confidence);
        let labels = self.labels_part(labels, over);
        format!("{}  {} {image}: {logits}{labels}{confidence}", verdict.name(), self.file)
    }

    /// Formats the agreement of labels with its limit.
    fn labels_part(&self, labels: &LabelAgreement, over: &str) -> String {
        let limit =
            limit(self.limits.label_agreement.map(|limit| format!("{:.2} %{over}", 100.0 * limit)));
        format!("labels {:.4} % ({limit}), {labels}", 100.0 * labels.agreement)
    }

    fn score_line(&self, score: &ScoreReport) -> String {
        let ScoreReport { data, images, skipped, mean_iou, mean_iou_drop, labels, verdict } = score;
        let limit = limit(self.limits.mean_iou_drop.map(|limit| format!("{limit:.2}")));
        let drop = mean_iou_drop.map_or_else(String::new, |drop| {
            let side = if drop > 0.0 { "below" } else { "above" };
            format!(", {:.3} {side} the fp32 file ({limit})", drop.abs())
        });
        let compared = labels
            .map_or_else(String::new, |labels| format!(", {}", self.labels_part(&labels, "")));
        let skipped = match skipped {
            0 => String::new(),
            _ => format!(" ({skipped} of another size skipped)"),
        };
        // The reference has no verdict by its own score.
        let verdict =
            if mean_iou_drop.is_some() || labels.is_some() { verdict.name() } else { "score" };
        format!(
            "{verdict}  {}: mIoU {mean_iou:.2} on {images} images, {data}{skipped}{drop}{compared}",
            self.file
        )
    }

    fn gate(&self) -> GateResult {
        let score = self.score.as_ref().map(|score| GateScore {
            data: score.data.clone(),
            images: score.images,
            mean_iou: score.mean_iou,
            mean_iou_drop: score.mean_iou_drop,
            label_agreement: score.labels.map(|labels| labels.agreement),
            labels_equal: score.labels.map(|labels| labels.equal),
        });
        let because = self.not_judged.iter().map(|why| format!("not judged: {why}"));
        GateResult {
            file: self.file.clone(),
            verdict: self.verdict,
            limits: self.limits,
            logit_error: self.cases.iter().filter_map(|case| case.logit_error).reduce(f64::max),
            noise_to_signal: self.noise_to_signal,
            label_agreement: self.labels(|labels| labels.agreement),
            labels_equal: self.labels(|labels| labels.equal),
            score,
            notes: self
                .errors
                .iter()
                .cloned()
                .chain(because)
                .chain(self.notes.iter().cloned())
                .collect(),
        }
    }
}

/// Formats a limit.
fn limit(limit: Option<String>) -> String {
    limit.map_or_else(|| "no limit".to_owned(), |limit| format!("limit {limit}"))
}

/// Limitations of running a file on a CPU.
fn notes(form: &Variant) -> Vec<String> {
    let precision = match (form.precision, &form.quantization) {
        (Precision::Fp32, _) => None,
        (Precision::Fp16, _) => Some(
            "a CPU rounds values to 16 bits and mostly sums in 32; sums in 16 bits, as GPUs may make them, are not shown here",
        ),
        (Precision::Int8, Some(quantization)) if quantization.symmetric => Some(
            "made for TensorRT, which fuses and rounds in its own way; here its operators were run one by one in floats",
        ),
        (Precision::Int8, Some(quantization)) if quantization.weight_bits > 7 => Some(
            "with weights of 8 bits, x86 CPUs without VNNI may overflow in sums of products; the result holds for this machine only",
        ),
        (Precision::Int8, _) => None,
    };
    precision.into_iter().map(str::to_owned).collect()
}
