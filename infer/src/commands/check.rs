//! `protoseg check`: holds ONNX Runtime against libtorch, whose answers for a few pictures travel in the bundle.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use protoseg_infer::session::{self, Runner, RunnerOptions};
use protoseg_infer::stitch::LogitMap;
use protoseg_infer::upsample::{self, Frame};
use protoseg_models::bundle::{Gate, Manifest, ModelFile, Reference};
use protoseg_models::errors::sentence;
use protoseg_models::form::{Kind, Precision};
use protoseg_models::probe::ProbeCase;
use protoseg_models::versioned::Read;
use protoseg_models::weights::Tensor;
use protoseg_models::window::LogitGrid;
use serde::Serialize;

use super::{Failure, Outcome, print, print_json, warn_of_newer};

/// What a file may differ by.
#[derive(Debug, Clone, Copy, Serialize)]
struct Limits {
    /// Largest difference of a logit, over the largest logit.
    logit_error: f64,
    /// Least share of pixels with libtorch's label.
    label_agreement: f64,
}

/// Of two runtimes in 32-bit floats, the logits differ by 3e-6 to 1e-5 of the largest; batch normalisation folded into
/// convolutions rounds every weight once more, so ten times the usual 1e-4 is allowed. An error of a wrong graph is larger
/// by orders of magnitude.
const FP32: Limits = Limits { logit_error: 1e-3, label_agreement: 0.9999 };

/// 16-bit floats were seen to move logits by 1.3 % of the largest and 0.024 % of the labels.
const FP16: Limits = Limits { logit_error: 0.05, label_agreement: 0.999 };

/// Labels whose two best scores are nearer than this share of the largest logit are a matter of rounding.
const TIE: f64 = 1e-5;

/// Check that ONNX Runtime computes on this machine what libtorch computed
///
/// Runs the pictures of the bundle's probe through every model file and holds logits and labels against libtorch's. A
/// bundle of `protoseg adopt` holds the model's own answers instead: the check tells whether this machine computes the same
/// as the one that adopted it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Bundle folder
    bundle: PathBuf,
    /// Write the result into the bundle's manifest
    #[arg(long)]
    record: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// How one file did on one picture.
#[derive(Debug, Serialize)]
struct Line {
    file: String,
    case: String,
    /// None where the file gives labels only; then nothing is known of ties either.
    logit_error: Option<f64>,
    label_agreement: f64,
    /// Pixels with another label whose two best scores are as good as equal; they count as agreeing.
    ties: usize,
    limits: Limits,
    passed: bool,
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, case, logit_error, label_agreement, ties, limits, passed } = self;
        let verdict = if *passed { "passed" } else { "FAILED" };
        write!(formatter, "{verdict}  {file} {case}: ")?;
        if let Some(logit_error) = logit_error {
            write!(formatter, "logit error {logit_error:.1e} (limit {:.0e}), ", limits.logit_error)?;
        }
        let (labels, limit) = (100.0 * label_agreement, 100.0 * limits.label_agreement);
        write!(formatter, "labels {labels:.4} % (limit {limit:.2} %), {ties} ties")
    }
}

#[derive(Debug, Serialize)]
struct Summary {
    passed: bool,
    /// Whose answers the files were held against.
    reference: Reference,
    lines: Vec<Line>,
    errors: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let folder = &arguments.bundle;
    session::load_runtime().map_err(Failure::usage)?;
    let Read { value: mut manifest, passed_over } = Manifest::read(folder).map_err(Failure::usage)?;
    warn_of_newer(folder, &passed_over);
    let cases = manifest.probe(folder).map_err(anyhow::Error::from)?;
    if cases.is_empty() {
        let shown = folder.display();
        return Err(
            anyhow!("{shown} has no probe, so nothing can be checked; export it from a checkpoint with one").into()
        );
    }
    let (mut summary, mut gates) =
        (Summary { passed: true, reference: manifest.reference, lines: Vec::new(), errors: Vec::new() }, Vec::new());
    for file in &manifest.files {
        match check(folder, &manifest, file, &cases) {
            Ok(lines) => {
                gates.push(gate(file, &lines));
                summary.lines.extend(lines);
            }
            Err(error) => summary.errors.push(sentence(error.as_ref())),
        }
    }
    summary.passed = summary.errors.is_empty() && summary.lines.iter().all(|line| line.passed);
    // Before the results are printed, as nobody may be listening; and they are worth printing if this fails.
    let recorded = if arguments.record {
        manifest.gate = gates;
        manifest.write(folder).map_err(anyhow::Error::from)
    } else {
        Ok(())
    };
    if arguments.json {
        print_json(&summary)?;
    } else {
        if summary.reference == Reference::Itself {
            print(
                "this model was adopted: held against its own answers on the machine that adopted it, not against libtorch",
            )?;
        }
        for line in &summary.lines {
            print(line)?;
        }
        for error in &summary.errors {
            print(format!("FAILED  {error}"))?;
        }
    }
    recorded?;
    Ok(if summary.passed { Outcome::Done } else { Outcome::Failed })
}

fn limits(precision: Precision) -> anyhow::Result<Limits> {
    match precision {
        Precision::Fp32 => Ok(FP32),
        Precision::Fp16 => Ok(FP16),
        Precision::Int8 => {
            Err(anyhow!("an int8 file cannot be judged by a few pictures; score it with `protoseg eval`"))
        }
    }
}

fn check(folder: &Path, manifest: &Manifest, file: &ModelFile, cases: &[ProbeCase]) -> anyhow::Result<Vec<Line>> {
    let path = manifest.verified(folder, file)?;
    let about = || path.display().to_string();
    let limits = limits(file.form.precision).with_context(about)?;
    if file.form.kind == Kind::Frame {
        return Err(anyhow!("frame files cannot be checked")).with_context(about);
    }
    let mut runner = Runner::open_listed(&path, file, &RunnerOptions::default())?;
    let line = |case: &ProbeCase| {
        let about = || format!("{} on the probe's picture `{}`", path.display(), case.name);
        let shape = [1, case.height, case.width];
        if file.form.kind == Kind::Labels {
            let found = runner.run_labels(&case.image, shape, manifest.model.classes.count()).with_context(about)?;
            ensure!(found.covers([case.height, case.width]), "{}: labels of shape {:?}", about(), found.shape);
            return Ok(compare_labels(file, case, &found.data, limits));
        }
        let found = runner.run(&case.image, shape).with_context(about)?;
        compare(file, case, found, manifest.model.grid, limits).with_context(about)
    };
    cases.iter().map(line).collect()
}

fn compare(file: &ModelFile, case: &ProbeCase, found: Tensor, grid: LogitGrid, limits: Limits) -> anyhow::Result<Line> {
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
        return Ok(compare_labels(file, case, &upsample::labels(&map, &frame), limits));
    }
    let Some([classes, height, width]) = shape(&case.logits).filter(|_| found.shape == case.logits.shape) else {
        return Err(anyhow!("logits of shape {:?}, where libtorch has {:?}", found.shape, case.logits.shape));
    };
    let truth = &case.logits.data;
    let largest = truth.iter().map(|logit| f64::from(logit.abs())).fold(0.0, f64::max);
    let differences = truth.iter().zip(&found.data).map(|(truth, found)| f64::from((truth - found).abs()));
    // A difference that is no number must not pass for a small one.
    let difference = differences
        .fold(0.0, |worst: f64, difference| if difference.is_nan() { f64::INFINITY } else { worst.max(difference) });
    let logit_error = if largest > 0.0 { difference / largest } else { difference };
    // JSON, and so the manifest, has no number for infinity.
    let logit_error = if logit_error.is_finite() { logit_error } else { f64::MAX };
    let labels = upsample::labels(&LogitMap { classes, height, width, data: found.data }, &frame);
    let reference = LogitMap { classes, height, width, data: truth.clone() };
    let (mut ties, mut wrong) = (0, 0);
    for (pixel, _) in labels.iter().zip(&case.labels).enumerate().filter(|(_, (found, truth))| found != truth) {
        let mut scores = upsample::scores_at(&reference, &frame, pixel / case.width, pixel % case.width);
        scores.sort_by(f64::total_cmp);
        let gap = scores.last().unwrap_or(&0.0) - scores.iter().rev().nth(1).unwrap_or(&0.0);
        if gap < TIE * largest { ties += 1 } else { wrong += 1 }
    }
    let label_agreement = 1.0 - f64::from(wrong) / case.labels.len().max(1) as f64;
    Ok(Line {
        file: file.file.clone(),
        case: case.name.clone(),
        logit_error: Some(logit_error),
        label_agreement,
        ties,
        limits,
        passed: logit_error <= limits.logit_error && label_agreement >= limits.label_agreement,
    })
}

/// Of labels without scores: no error of logits and no ties are known.
fn compare_labels(file: &ModelFile, case: &ProbeCase, found: &[u8], limits: Limits) -> Line {
    let agreeing = found.iter().zip(&case.labels).filter(|(found, truth)| found == truth).count();
    let label_agreement = agreeing as f64 / case.labels.len().max(1) as f64;
    Line {
        file: file.file.clone(),
        case: case.name.clone(),
        logit_error: None,
        label_agreement,
        ties: 0,
        limits,
        passed: label_agreement >= limits.label_agreement,
    }
}

/// The worst of a file's lines.
fn gate(file: &ModelFile, lines: &[Line]) -> Gate {
    let limits = limits(file.form.precision).unwrap_or(FP32);
    Gate {
        file: file.file.clone(),
        logit_error: lines.iter().filter_map(|line| line.logit_error).fold(0.0, f64::max),
        logit_limit: limits.logit_error,
        label_agreement: lines.iter().map(|line| line.label_agreement).fold(1.0, f64::min),
        label_limit: limits.label_agreement,
        passed: lines.iter().all(|line| line.passed),
    }
}
