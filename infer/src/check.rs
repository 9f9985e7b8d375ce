//! Check of a bundle: every file is compared with libtorch, whose outputs for a few images travel
//! in the bundle, and on labeled images with the score of the 32-bit file.

mod agreement;
pub(crate) mod error;
mod frame;
mod probe;
mod report;
mod score;
mod taps;

use std::path::Path;

use protoseg_models::bundle::{Manifest, ModelFile, ProbeReference};
use protoseg_models::errors::error_chain;
use protoseg_models::gate::Verdict;
use protoseg_models::probe::ProbeCase;
use protoseg_models::variant::{ModelKind, Precision};

pub use self::error::CheckError;
use self::error::WithContext;
pub use self::report::{CheckReport, FileReport};
pub use self::score::LabeledImages;
pub use self::taps::{TapsReport, compare as compare_taps};
use crate::config::EngineConfig;

/// Reads the probe of a bundle; an error where it is empty.
pub fn probe_cases(folder: &Path, manifest: &Manifest) -> Result<Vec<ProbeCase>, CheckError> {
    let cases = manifest.probe(folder)?;
    if cases.is_empty() {
        let shown = folder.display();
        return Err(CheckError::Invalid(format!(
            "{shown} has no probe, so nothing can be checked; export it from a checkpoint with one"
        )));
    }
    Ok(cases)
}

/// Runs every file of a bundle and judges each. `advance` is called after each labeled image.
pub fn check_bundle(
    folder: &Path,
    manifest: &Manifest,
    cases: &[ProbeCase],
    images: Option<&LabeledImages>,
    advance: &dyn Fn(),
) -> CheckReport {
    let check = |file: &ModelFile| check(folder, manifest, file, cases);
    let mut files: Vec<FileReport> = manifest.files.iter().map(check).collect();
    let scored =
        images.map_or(Ok(()), |images| score::score(folder, manifest, images, &mut files, advance));
    let errors: Vec<String> = scored.err().into_iter().map(|error| error_chain(&error)).collect();
    files.iter_mut().for_each(|file| file.conclude(images.is_some(), has_fp32_reference(manifest)));
    let passed = errors.is_empty() && files.iter().all(|file| file.verdict != Verdict::Failed);
    CheckReport { passed, files, errors }
}

/// True where a bundle holds the fp32 logits file that scores are compared with.
pub fn has_fp32_reference(manifest: &Manifest) -> bool {
    frame::reference_file(manifest, Precision::Fp32).is_some()
}

/// Configuration of a file. Files for TensorRT are run without optimization: ONNX Runtime's integer
/// kernels for CPUs sum signed bytes in 16 bits where the CPU has nothing better, which TensorRT
/// does not.
fn config_for(file: &ModelFile) -> EngineConfig {
    let symmetric =
        file.variant.quantization.as_ref().is_some_and(|quantization| quantization.symmetric);
    EngineConfig { unoptimized: symmetric, ..EngineConfig::default() }
}

fn check(folder: &Path, manifest: &Manifest, file: &ModelFile, cases: &[ProbeCase]) -> FileReport {
    let mut report = FileReport::new(file);
    let found = match file.variant.kind {
        ModelKind::Logits | ModelKind::Labels => {
            probe::check(folder, manifest, file, cases, &config_for(file))
        }
        ModelKind::Frame => frame::check(folder, manifest, file, &EngineConfig::default())
            .map(|cases| (cases, None)),
    };
    match found {
        Ok((cases, noise_to_signal)) => {
            (report.cases, report.noise_to_signal) = (cases, noise_to_signal);
        }
        Err(error) => report.errors.push(error_chain(&error)),
    }
    report
}

/// Share of pixels that a file labels as its reference does, but for ties: over the probe, or for a
/// frame file over synthetic images.
pub fn agreement(
    folder: &Path,
    manifest: &Manifest,
    file: &ModelFile,
    config: &EngineConfig,
) -> Result<f64, CheckError> {
    let cases = match file.variant.kind {
        ModelKind::Logits | ModelKind::Labels => {
            probe::check(folder, manifest, file, &probe_cases(folder, manifest)?, config)?.0
        }
        ModelKind::Frame => frame::check(folder, manifest, file, config)?,
    };
    let pixels: usize = cases.iter().map(|case| case.labels.pixels).sum();
    let agreeing: f64 =
        cases.iter().map(|case| case.labels.agreement * case.labels.pixels as f64).sum();
    Ok(agreeing / pixels.max(1) as f64)
}

/// The same for a file by its name, with the origin of the reference.
pub fn probe_agreement(
    bundle: &Path,
    file: &str,
    config: &EngineConfig,
) -> Result<(f64, String), CheckError> {
    if !bundle.is_dir() {
        let message = "a single file has no probe to compare with; name a bundle folder";
        return Err(CheckError::Invalid(message.to_owned()));
    }
    let manifest = Manifest::read(bundle)?.value;
    let listed = manifest.files.iter().find(|listed| listed.file == file);
    let listed = listed
        .ok_or_else(|| CheckError::Invalid(format!("{} does not list {file}", bundle.display())))?;
    let config = EngineConfig { input_size: None, ..config.clone() };
    let agreement = agreement(bundle, &manifest, listed, &config)?;
    let reference = match manifest.reference {
        ProbeReference::Libtorch => "libtorch",
        ProbeReference::OwnOutputs => "itself, as it was imported",
    };
    Ok((agreement, reference.to_owned()))
}
