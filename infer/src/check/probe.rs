//! A file of the `logits` kind on the pictures of the probe, held against libtorch.

use std::path::Path;

use crate::session::{Runner, RunnerOptions};
use crate::stitch::LogitMap;
use crate::upsample::{self, Choice, Frame};
use anyhow::{Context, anyhow, ensure};
use protoseg_models::bundle::{Manifest, ModelFile};
use protoseg_models::form::{Kind, Precision};
use protoseg_models::gate::{Verdict, counted, rounding};
use protoseg_models::probe::ProbeCase;
use protoseg_models::prototypes::PROTOTYPE_CONFIDENCE;
use protoseg_models::weights::Tensor;
use protoseg_models::window::LogitGrid;

use super::agreement::{Agreement, Confidence, Reference};
use super::noise::Noise;
use super::report::Case;

/// Runs every picture of the probe. Beside the cases, the ratio of noise to signal over all of them; none where scores are
/// not known.
pub(super) fn check(
    folder: &Path,
    manifest: &Manifest,
    file: &ModelFile,
    cases: &[ProbeCase],
    options: &RunnerOptions,
) -> anyhow::Result<(Vec<Case>, Option<f64>)> {
    let path = manifest.verified(folder, file)?;
    let mut runner = Runner::open_listed(&path, file, options)?;
    let run = |case: &ProbeCase| {
        let about = || format!("{} on the probe's picture `{}`", path.display(), case.name);
        let shape = [1, case.height, case.width];
        if file.form.kind == Kind::Labels {
            let found = runner.run_labels(&case.image, shape, manifest.model.classes.count()).with_context(about)?;
            ensure!(found.covers([case.height, case.width]), "{}: labels of shape {:?}", about(), found.shape);
            return Ok(compare_labels(case, &found.data));
        }
        let found = runner.run(&case.image, shape).with_context(about)?;
        let says = file.outputs.iter().any(|output| output.name == PROTOTYPE_CONFIDENCE);
        let sure = case.prototype_confidence.as_ref().filter(|_| says);
        let sure = sure.map(|_| runner.run_bytes(&case.image, shape, &[PROTOTYPE_CONFIDENCE])).transpose();
        let sure = sure.with_context(about)?.and_then(|mut outputs| outputs.pop());
        compare(case, found, sure.as_deref(), manifest.model.grid, file.form.precision).with_context(about)
    };
    let found: Vec<Found> = cases.iter().map(run).collect::<anyhow::Result<_>>()?;
    let mut labels = Agreement::default();
    found.iter().for_each(|found| labels.add(&found.labels));
    let noise = found.iter().filter_map(|found| found.scores).map(|scores| scores.noise);
    let noise = noise.reduce(|mut all, noise| {
        all.add(noise);
        all
    });
    let whole = Whole { agreement: labels.report().agreement, noise_to_signal: noise.map(Noise::ratio) };
    let cases = found.into_iter().zip(cases).map(|(found, case)| found.judge(case, whole, file)).collect();
    Ok((cases, whole.noise_to_signal))
}

/// What was found on all pictures together. They are judged by that: a picture of the probe is small, so that a few pixels
/// along one border would decide.
#[derive(Clone, Copy)]
struct Whole {
    agreement: f64,
    noise_to_signal: Option<f64>,
}

/// How far scores are from libtorch's.
#[derive(Clone, Copy)]
struct Scores {
    /// The largest difference over the largest score.
    error: f64,
    noise: Noise,
}

/// What was found on one picture.
struct Found {
    /// None where scores are not known.
    scores: Option<Scores>,
    labels: Agreement,
    /// None where prototypes are not asked.
    prototype_confidence: Option<Confidence>,
}

impl Found {
    fn judge(&self, case: &ProbeCase, whole: Whole, file: &ModelFile) -> Case {
        let limits = file.limits();
        let logit_error = self.scores.map(|scores| scores.error);
        // As of frames: narrower numbers move confidence by several steps.
        let exact = file.form.precision == Precision::Fp32;
        let held = [
            logit_error.zip(limits.logit_error).map(|(error, limit)| error <= limit),
            counted(
                file.form.precision,
                whole.noise_to_signal.zip(limits.noise_to_signal).map(|(ratio, limit)| ratio <= limit),
            ),
            counted(file.form.precision, limits.label_agreement.map(|limit| whole.agreement >= limit)),
            self.prototype_confidence
                .zip(limits.label_agreement.filter(|_| exact))
                .map(|(sure, limit)| sure.agreement >= limit),
            // Without a limit too: scores that are no numbers are no rounding.
            (logit_error == Some(f64::MAX)).then_some(false),
        ];
        Case {
            picture: case.name.clone(),
            logit_error,
            noise_to_signal: self.scores.map(|scores| scores.noise.ratio()),
            labels: self.labels.report(),
            confidence: None,
            prototype_confidence: self.prototype_confidence,
            verdict: Verdict::of(held),
        }
    }
}

fn compare(
    case: &ProbeCase,
    found: Tensor,
    sure: Option<&[u8]>,
    grid: LogitGrid,
    precision: Precision,
) -> anyhow::Result<Found> {
    let shape = |tensor: &Tensor| match tensor.shape[..] {
        [1, classes, height, width] if classes * height * width > 0 => Some([classes, height, width]),
        _ => None,
    };
    let frame = Frame {
        height: case.height,
        width: case.width,
        padded: [case.height, case.width],
        align_corners: grid.align_corners,
    };
    if case.logits == ProbeCase::no_logits()
        && let Some([classes, height, width]) = shape(&found)
    {
        let map = LogitMap { classes, height, width, data: found.data };
        return Ok(compare_labels(case, &upsample::labels(&map, &frame)));
    }
    let Some([classes, height, width]) = shape(&case.logits).filter(|_| found.shape == case.logits.shape) else {
        return Err(anyhow!("logits of shape {:?}, where libtorch has {:?}", found.shape, case.logits.shape));
    };
    let error = logit_error(&case.logits.data, &found.data);
    let scores = Scores { error, noise: Noise::of(&case.logits.data, &found.data, classes) };
    let labels = upsample::labels(&LogitMap { classes, height, width, data: found.data }, &frame);
    let truth = LogitMap { classes, height, width, data: case.logits.data.clone() };
    let reference = Reference {
        labels: &case.labels,
        width: case.width,
        choices: &upsample::choices(&truth, &frame),
        largest: largest(&truth.data),
        rounding: rounding(precision),
    };
    let prototype_confidence = sure
        .zip(case.prototype_confidence.as_ref())
        .map(|(found, expected)| Confidence::between(&reference, expected.iter().copied(), found));
    Ok(Found { scores: Some(scores), labels: Agreement::of(&reference, &labels), prototype_confidence })
}

/// Of labels without scores: no error of logits is known, and neither ties nor whether a choice was clear.
fn compare_labels(case: &ProbeCase, found: &[u8]) -> Found {
    let choices = vec![Choice { gap: 0.0, confidence: 0 }; case.labels.len()];
    let reference =
        Reference { labels: &case.labels, width: case.width, choices: &choices, largest: 0.0, rounding: 0.0 };
    Found { scores: None, labels: Agreement::of(&reference, found), prototype_confidence: None }
}

/// The largest logit, whatever its sign.
pub(super) fn largest(logits: &[f32]) -> f64 {
    logits.iter().map(|logit| f64::from(logit.abs())).fold(0.0, f64::max)
}

/// The largest difference over the largest logit. JSON, and so the manifest, has no number for infinity: one that is no
/// number becomes the largest that there is.
fn logit_error(truth: &[f32], found: &[f32]) -> f64 {
    let differences = truth.iter().zip(found).map(|(truth, found)| f64::from((truth - found).abs()));
    // A difference that is no number must not pass for a small one.
    let difference = differences
        .fold(0.0, |worst: f64, difference| if difference.is_nan() { f64::INFINITY } else { worst.max(difference) });
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
