//! A file of the `frame` kind, held against windows that are stitched outside the file.

use std::path::Path;

use crate::config::EngineConfig;
use crate::segmenter::{ImageLogits, Segmenter};
use crate::session::Runner;
use crate::upsample::{self, PixelDecision};
use anyhow::{Context, anyhow, ensure};
use image::RgbImage;
use protoseg_models::bundle::{Manifest, ModelFile};
use protoseg_models::gate::{GateLimits, Verdict, tie_tolerance};
use protoseg_models::variant::{FrameSpec, ModelKind, Precision};
use protoseg_models::window::Tiling;

use super::agreement::{Agreement, ConfidenceAgreement, ReferenceLabels};
use super::probe::largest;
use super::report::CaseReport;

/// Rendered scenes that every frame file is run on.
const SCENES: u64 = 2;

/// What a logits file makes of one picture.
#[derive(Debug)]
pub(super) struct ReferencePrediction {
    width: usize,
    /// Train ids `[height, width]`.
    pub(super) labels: Vec<u8>,
    choices: Vec<PixelDecision>,
    largest: f64,
}

impl ReferencePrediction {
    /// Runs a picture in the segmenter's windows.
    pub(super) fn new(segmenter: &mut Segmenter, picture: &RgbImage) -> anyhow::Result<Self> {
        let ImageLogits { map, frame } = segmenter.logits(&picture.into())?;
        Ok(Self {
            width: frame.width,
            labels: upsample::labels(&map, &frame),
            choices: upsample::reference_decisions(&map, &frame),
            largest: largest(&map.data),
        })
    }

    /// What another file is held against.
    pub(super) fn reference(&self, rounding: f64) -> ReferenceLabels<'_> {
        let Self { labels, width, choices, largest } = self;
        ReferenceLabels { labels, width: *width, choices, largest: *largest, rounding }
    }
}

/// The logits file that a file is held against: that of the same precision, where there is one, else that of 32-bit floats.
pub(super) fn reference_file(manifest: &Manifest, precision: Precision) -> Option<&ModelFile> {
    let of = |precision: Precision| {
        let fits = |file: &&ModelFile| {
            file.variant.kind == ModelKind::Logits && file.variant.precision == precision
        };
        manifest.files.iter().find(fits)
    };
    of(precision).or_else(|| of(Precision::Fp32))
}

/// What rounding may decide between the labels of a file and those of its reference. Where both count alike, only the order
/// of sums differs.
pub(super) fn rounding_between(file: &ModelFile, reference: &ModelFile) -> f64 {
    let alike = file.variant.precision == reference.variant.precision;
    tie_tolerance(if alike { Precision::Fp32 } else { file.variant.precision })
}

/// The frames that a file takes.
pub(super) fn form(file: &ModelFile) -> anyhow::Result<FrameSpec> {
    file.variant.frame.with_context(|| {
        format!("the manifest does not say which frames {} takes; export again", file.file)
    })
}

/// Opens a logits file of a bundle to run pictures in given pieces.
pub(super) fn open(
    folder: &Path,
    manifest: &Manifest,
    file: &ModelFile,
    pieces: Option<Tiling>,
) -> anyhow::Result<Segmenter> {
    let config = EngineConfig { window: pieces, ..super::options(file) };
    Ok(Segmenter::open_file(folder, manifest, file, &config)?)
}

/// Labels and confidence of one frame.
pub(super) fn run(
    runner: &mut Runner,
    form: FrameSpec,
    pixels: &[u8],
) -> anyhow::Result<[Vec<u8>; 2]> {
    let outputs = runner.run_frames(pixels, [1, form.height, form.width])?;
    let found = [outputs[0].len(), outputs[1].len()];
    ensure!(
        found == [form.height * form.width; 2],
        "{found:?} labels and confidences for {}x{}",
        form.height,
        form.width
    );
    Ok(outputs)
}

/// Runs rendered scenes.
pub(super) fn check(
    folder: &Path,
    manifest: &Manifest,
    file: &ModelFile,
    options: &EngineConfig,
) -> anyhow::Result<Vec<CaseReport>> {
    let path = manifest.verified(folder, file)?;
    let form = form(file)?;
    let reference = reference_file(manifest, file.variant.precision).ok_or_else(|| {
        anyhow!(
            "{} has no file of the kind `logits` to hold {} against",
            folder.display(),
            file.file
        )
    })?;
    let mut segmenter = open(folder, manifest, reference, Some(form.tiling))?;
    let mut runner = Runner::open(&path, options)?;
    let scene = |index: u64| {
        let name = format!("scene {index} of {}x{}", form.height, form.width);
        let about = || format!("{} on {name}", path.display());
        let scene = protoseg_synthetic::render_scene(0, index, form.height, form.width);
        let [labels, confidence] = run(&mut runner, form, &scene.image).with_context(about)?;
        let picture = RgbImage::from_raw(form.width as u32, form.height as u32, scene.image)
            .with_context(about)?;
        let stitched = ReferencePrediction::new(&mut segmenter, &picture).with_context(about)?;
        let truth = stitched.reference(rounding_between(file, reference));
        let found = (
            Agreement::compare(&truth, &labels),
            ConfidenceAgreement::compare(&truth, &confidence),
        );
        Ok(case(name, found, file, reference))
    };
    (0..SCENES).map(scene).collect()
}

fn case(
    picture: String,
    found: (Agreement, ConfidenceAgreement),
    file: &ModelFile,
    reference: &ModelFile,
) -> CaseReport {
    let (labels, confidence) = (found.0.report(), found.1);
    let GateLimits { label_agreement: limit, .. } = file.limits();
    // Narrower numbers move confidence by several steps wherever scores are near; only of 32 bits is one step the measure.
    let precisions = [file.variant.precision, reference.variant.precision];
    let exact = precisions == [Precision::Fp32; 2];
    let held = [
        limit.map(|limit| labels.agreement >= limit),
        limit.filter(|_| exact).map(|limit| confidence.agreement >= limit),
    ];
    CaseReport {
        picture,
        logit_error: None,
        noise_to_signal: None,
        labels,
        confidence: Some(confidence),
        prototype_confidence: None,
        verdict: Verdict::from_checks(held),
    }
}
