//! Check of files of the `frame` kind: compared with windows that are stitched outside the file.

use std::path::Path;

use crate::config::EngineConfig;
use crate::segmenter::{ImageLogits, SegmentError, Segmenter};
use crate::session::Runner;
use crate::upsample::{self, PixelDecision};
use image::RgbImage;
use protoseg_models::bundle::{Manifest, ModelFile};
use protoseg_models::gate::{GateLimits, Verdict, tie_tolerance};
use protoseg_models::variant::{FrameSpec, ModelKind, Precision};
use protoseg_models::window::Tiling;

use super::agreement::{Agreement, ConfidenceAgreement, ReferenceLabels};
use super::probe::largest;
use super::report::CaseReport;
use super::{CheckError, WithContext};

/// Synthetic images that every frame file is run on.
const SCENES: u64 = 2;

/// Prediction of one image by a logits file.
#[derive(Debug)]
pub(super) struct ReferencePrediction {
    width: usize,
    /// Train ids `[height, width]`.
    pub(super) labels: Vec<u8>,
    decisions: Vec<PixelDecision>,
    largest: f64,
}

impl ReferencePrediction {
    /// Runs an image in the segmenter's windows.
    pub(super) fn new(segmenter: &mut Segmenter, image: &RgbImage) -> Result<Self, CheckError> {
        let ImageLogits { map, frame } = segmenter.logits(&image.into())?;
        Ok(Self {
            width: frame.width,
            labels: upsample::labels(&map, &frame),
            decisions: upsample::reference_decisions(&map, &frame),
            largest: largest(&map.data),
        })
    }

    /// Returns the labels to compare another file with.
    pub(super) fn reference(&self, rounding: f64) -> ReferenceLabels<'_> {
        let Self { labels, width, decisions, largest } = self;
        ReferenceLabels { labels, width: *width, decisions, largest: *largest, rounding }
    }
}

/// The logits file to compare a file with: that of the same precision, where there is one, else
/// that of fp32.
pub(super) fn reference_file(manifest: &Manifest, precision: Precision) -> Option<&ModelFile> {
    let find = |precision: Precision| {
        let fits = |file: &&ModelFile| {
            file.variant.kind == ModelKind::Logits && file.variant.precision == precision
        };
        manifest.files.iter().find(fits)
    };
    find(precision).or_else(|| find(Precision::Fp32))
}

/// Tie tolerance between the labels of a file and those of its reference. In the same precision,
/// only the order of sums differs.
pub(super) fn rounding_between(file: &ModelFile, reference: &ModelFile) -> f64 {
    let alike = file.variant.precision == reference.variant.precision;
    tie_tolerance(if alike { Precision::Fp32 } else { file.variant.precision })
}

/// The frames that a file takes.
pub(super) fn spec(file: &ModelFile) -> Result<FrameSpec, CheckError> {
    let missing =
        || format!("the manifest does not say which frames {} takes; export again", file.file);
    file.variant.frame.ok_or_else(|| CheckError::Invalid(missing()))
}

/// Opens a logits file of a bundle with a tiling.
pub(super) fn open(
    folder: &Path,
    manifest: &Manifest,
    file: &ModelFile,
    tiling: Option<Tiling>,
) -> Result<Segmenter, CheckError> {
    let config = EngineConfig { window: tiling, ..super::config_for(file) };
    Ok(Segmenter::open_file(folder, manifest, file, &config)?)
}

/// Labels and confidence of one frame.
pub(super) fn run(
    runner: &mut Runner,
    spec: FrameSpec,
    pixels: &[u8],
) -> Result<[Vec<u8>; 2], CheckError> {
    let outputs = runner.run_frames(pixels, [1, spec.height, spec.width])?;
    let found = [outputs[0].len(), outputs[1].len()];
    if found != [spec.height * spec.width; 2] {
        let FrameSpec { height, width, .. } = spec;
        let message = format!("{found:?} labels and confidences for {height}x{width}");
        return Err(CheckError::Invalid(message));
    }
    Ok(outputs)
}

/// Runs synthetic images.
pub(super) fn check(
    folder: &Path,
    manifest: &Manifest,
    file: &ModelFile,
    config: &EngineConfig,
) -> Result<Vec<CaseReport>, CheckError> {
    let path = manifest.verified(folder, file)?;
    let spec = spec(file)?;
    let reference = reference_file(manifest, file.variant.precision).ok_or_else(|| {
        CheckError::Invalid(format!(
            "{} has no file of the kind `logits` to compare {} with",
            folder.display(),
            file.file
        ))
    })?;
    let mut segmenter = open(folder, manifest, reference, Some(spec.tiling))?;
    let mut runner = Runner::open(&path, config)?;
    let scene = |index: u64| {
        let name = format!("scene {index} of {}x{}", spec.height, spec.width);
        let about = || format!("{} on {name}", path.display());
        let scene = protoseg_synthetic::render_scene(0, index, spec.height, spec.width);
        let [labels, confidence] = run(&mut runner, spec, &scene.image).context(about)?;
        let image = RgbImage::from_raw(spec.width as u32, spec.height as u32, scene.image)
            .ok_or(SegmentError::Empty)
            .context(about)?;
        let stitched = ReferencePrediction::new(&mut segmenter, &image).context(about)?;
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
    image: String,
    found: (Agreement, ConfidenceAgreement),
    file: &ModelFile,
    reference: &ModelFile,
) -> CaseReport {
    let (labels, confidence) = (found.0.report(), found.1);
    let GateLimits { label_agreement: limit, .. } = file.limits();
    // Lower precision moves confidence by several steps wherever logits are near; one step is the
    // limit in fp32 alone.
    let precisions = [file.variant.precision, reference.variant.precision];
    let exact = precisions == [Precision::Fp32; 2];
    let held = [
        limit.map(|limit| labels.agreement >= limit),
        limit.filter(|_| exact).map(|limit| confidence.agreement >= limit),
    ];
    CaseReport {
        image,
        logit_error: None,
        noise_to_signal: None,
        labels,
        confidence: Some(confidence),
        prototype_confidence: None,
        verdict: Verdict::from_checks(held),
    }
}
