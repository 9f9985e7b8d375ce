//! Check of files of the `logits` and `labels` kinds: compared with libtorch on the images of the
//! probe.

use std::path::Path;

use crate::config::EngineConfig;
use crate::session::Runner;
use crate::stitch::LogitMap;
use crate::upsample::{self, LogitGeometry, PixelDecision};
use protoseg_models::bundle::{Manifest, ModelFile};
use protoseg_models::gate::{Verdict, judged, tie_tolerance};
use protoseg_models::probe::ProbeCase;
use protoseg_models::prototypes::PROTOTYPE_CONFIDENCE;
use protoseg_models::variant::{ModelKind, Precision};
use protoseg_models::weights::Tensor;
use protoseg_models::window::LogitGrid;

use super::agreement::{Agreement, ConfidenceAgreement, Noise, ReferenceLabels};
use super::report::CaseReport;
use super::{CheckError, WithContext};

/// How far rounding may move a logit between two runs, as a share of the largest.
const REPEATED: f64 = 1e-3;

/// Runs every image of the probe. Returns the cases, and the noise-to-signal ratio over all of
/// them; None where logits are not known.
pub(super) fn check(
    folder: &Path,
    manifest: &Manifest,
    file: &ModelFile,
    cases: &[ProbeCase],
    config: &EngineConfig,
) -> Result<(Vec<CaseReport>, Option<f64>), CheckError> {
    let path = manifest.verified(folder, file)?;
    let mut runner = Runner::open_bundle_file(&path, file, config)?;
    let run = |case: &ProbeCase| {
        let about = || format!("{} on the probe's image `{}`", path.display(), case.name);
        let shape = [1, case.height, case.width];
        if file.variant.kind == ModelKind::Labels {
            let found = runner
                .run_labels(&case.image, shape, manifest.model.classes.count())
                .context(about)?;
            let size = [case.height, case.width];
            let frame = LogitGeometry::new(size, size, false);
            let labels = match found.shape[..] {
                [1, height, width] => frame.spread_labels(&found.data, [height, width]),
                _ => None,
            };
            let Some(labels) = labels else {
                let message = format!("{}: labels of shape {:?}", about(), found.shape);
                return Err(CheckError::Invalid(message));
            };
            return Ok(compare_labels(case, &labels));
        }
        let found = runner.run(&case.image, shape).context(about)?;
        let has_confidence = file.outputs.iter().any(|output| output.name == PROTOTYPE_CONFIDENCE);
        let sure = case.prototype_confidence.as_ref().filter(|_| has_confidence);
        let sure =
            sure.map(|_| runner.run_bytes(&case.image, shape, &[PROTOTYPE_CONFIDENCE])).transpose();
        let sure = sure.context(about)?.and_then(|mut outputs| outputs.pop());
        compare(case, found, sure.as_deref(), manifest.model.grid, file.variant.precision)
            .context(about)
    };
    let found: Vec<ProbeResult> = cases.iter().map(run).collect::<Result<_, CheckError>>()?;
    let mut labels = Agreement::default();
    found.iter().for_each(|found| labels.add(&found.labels));
    let noise = found.iter().filter_map(|found| found.logits).map(|scores| scores.noise);
    let noise = noise.reduce(|mut all, noise| {
        all.add(noise);
        all
    });
    let whole = ProbeTotals {
        agreement: labels.report().agreement,
        noise_to_signal: noise.map(Noise::ratio),
    };
    let judged: Vec<CaseReport> =
        found.into_iter().zip(cases).map(|(found, case)| found.judge(case, whole, file)).collect();
    if let Some((_, case)) =
        judged.iter().zip(cases).find(|(report, _)| report.verdict == Verdict::Failed)
        && is_unsteady(&mut runner, file, manifest.model.classes.count(), case)
            .context(|| format!("{} on the probe's image `{}`", path.display(), case.name))?
    {
        return Err(CheckError::Invalid(format!(
            "{} gives other values in two runs of the same image, so that nothing can be compared: it was exported in training mode, or \
             draws random numbers; call `model.eval()` before the export",
            path.display()
        )));
    }
    Ok((judged, whole.noise_to_signal))
}

/// True where two runs of an image give values that differ by more than rounding.
fn is_unsteady(
    runner: &mut Runner,
    file: &ModelFile,
    classes: usize,
    case: &ProbeCase,
) -> Result<bool, CheckError> {
    let shape = [1, case.height, case.width];
    if file.variant.kind == ModelKind::Labels {
        let mut labels = || runner.run_labels(&case.image, shape, classes);
        return Ok(labels()?.data != labels()?.data);
    }
    let mut logits = || runner.run(&case.image, shape).map(|found| found.data);
    let (first, second) = (logits()?, logits()?);
    // What is not finite has a message of its own, and equals nothing.
    let is_finite = first.iter().chain(&second).all(|value| value.is_finite());
    Ok(is_finite && logit_error(&first, &second) > REPEATED)
}

/// Results over all images, which are judged together: an image of the probe is small, so that a
/// few pixels along one boundary would decide.
#[derive(Clone, Copy)]
struct ProbeTotals {
    agreement: f64,
    noise_to_signal: Option<f64>,
}

/// Errors of logits against libtorch.
#[derive(Clone, Copy)]
struct LogitErrors {
    /// The largest difference over the largest logit.
    error: f64,
    noise: Noise,
}

/// Results of one image.
struct ProbeResult {
    /// None where logits are not known.
    logits: Option<LogitErrors>,
    labels: Agreement,
    /// None where the file does not give it.
    prototype_confidence: Option<ConfidenceAgreement>,
}

impl ProbeResult {
    fn judge(&self, case: &ProbeCase, whole: ProbeTotals, file: &ModelFile) -> CaseReport {
        let limits = file.limits();
        let logit_error = self.logits.map(|scores| scores.error);
        // As for frames: lower precision moves confidence by several steps.
        let exact = file.variant.precision == Precision::Fp32;
        let held = [
            logit_error.zip(limits.logit_error).map(|(error, limit)| error <= limit),
            judged(
                file.variant.precision,
                whole
                    .noise_to_signal
                    .zip(limits.noise_to_signal)
                    .map(|(ratio, limit)| ratio <= limit),
            ),
            judged(
                file.variant.precision,
                limits.label_agreement.map(|limit| whole.agreement >= limit),
            ),
            self.prototype_confidence
                .zip(limits.label_agreement.filter(|_| exact))
                .map(|(sure, limit)| sure.agreement >= limit),
            // Without a limit too: logits that are not finite are no rounding.
            (logit_error == Some(f64::MAX)).then_some(false),
        ];
        CaseReport {
            image: case.name.clone(),
            logit_error,
            noise_to_signal: self.logits.map(|scores| scores.noise.ratio()),
            labels: self.labels.report(),
            confidence: None,
            prototype_confidence: self.prototype_confidence,
            verdict: Verdict::from_checks(held),
        }
    }
}

fn compare(
    case: &ProbeCase,
    found: Tensor,
    sure: Option<&[u8]>,
    grid: LogitGrid,
    precision: Precision,
) -> Result<ProbeResult, CheckError> {
    let shape = |tensor: &Tensor| match tensor.shape[..] {
        [1, classes, height, width] if classes * height * width > 0 => {
            Some([classes, height, width])
        }
        _ => None,
    };
    let frame = LogitGeometry::new(
        [case.height, case.width],
        [case.height, case.width],
        grid.align_corners,
    );
    if case.logits == ProbeCase::no_logits()
        && let Some([classes, height, width]) = shape(&found)
    {
        let map = LogitMap { classes, height, width, data: found.data };
        return Ok(compare_labels(case, &upsample::labels(&map, &frame)));
    }
    let Some([classes, height, width]) =
        shape(&case.logits).filter(|_| found.shape == case.logits.shape)
    else {
        return Err(CheckError::Invalid(format!(
            "logits of shape {:?}, where libtorch has {:?}",
            found.shape, case.logits.shape
        )));
    };
    let error = logit_error(&case.logits.data, &found.data);
    let errors =
        LogitErrors { error, noise: Noise::compare(&case.logits.data, &found.data, classes) };
    let labels = upsample::labels(&LogitMap { classes, height, width, data: found.data }, &frame);
    let truth = LogitMap { classes, height, width, data: case.logits.data.clone() };
    let reference = ReferenceLabels {
        labels: &case.labels,
        width: case.width,
        decisions: &upsample::reference_decisions(&truth, &frame),
        largest: largest(&truth.data),
        rounding: tie_tolerance(precision),
    };
    let prototype_confidence =
        sure.zip(case.prototype_confidence.as_ref()).map(|(found, expected)| {
            ConfidenceAgreement::between(&reference, expected.iter().copied(), found)
        });
    Ok(ProbeResult {
        logits: Some(errors),
        labels: Agreement::compare(&reference, &labels),
        prototype_confidence,
    })
}

/// Labels without logits: neither errors of logits nor ties are known.
fn compare_labels(case: &ProbeCase, found: &[u8]) -> ProbeResult {
    let decisions = vec![PixelDecision { gap: 0.0, confidence: 0 }; case.labels.len()];
    let reference = ReferenceLabels {
        labels: &case.labels,
        width: case.width,
        decisions: &decisions,
        largest: 0.0,
        rounding: 0.0,
    };
    ProbeResult {
        logits: None,
        labels: Agreement::compare(&reference, found),
        prototype_confidence: None,
    }
}

/// The largest absolute logit.
pub(super) fn largest(logits: &[f32]) -> f64 {
    logits.iter().map(|logit| f64::from(logit.abs())).fold(0.0, f64::max)
}

/// The largest difference over the largest logit. JSON has no infinity: a ratio that is not finite
/// becomes `f64::MAX`.
fn logit_error(truth: &[f32], found: &[f32]) -> f64 {
    let differences =
        truth.iter().zip(found).map(|(truth, found)| f64::from((truth - found).abs()));
    // NaN must not pass for a small difference.
    let difference = differences.fold(0.0, |worst: f64, difference| {
        if difference.is_nan() { f64::INFINITY } else { worst.max(difference) }
    });
    let largest = largest(truth);
    let error = if largest > 0.0 { difference / largest } else { difference };
    if error.is_finite() { error } else { f64::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_shares_of_the_largest_logit_and_never_lost() {
        assert_eq!(logit_error(&[1.0, -4.0], &[1.5, -4.0]), 0.125);
        assert_eq!(logit_error(&[0.0, 0.0], &[0.0, 0.25]), 0.25);
        for lost in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(logit_error(&[1.0, 2.0], &[lost, 2.0]), f64::MAX);
        }
    }
}
