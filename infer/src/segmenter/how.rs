//! Which file of a bundle is run, and how, as far as that follows from what the bundle says of it.

use std::path::Path;

use protoseg_models::bundle::{Manifest, ModelFile};
use protoseg_models::variant::{ModelKind, Precision};
use protoseg_models::window::Tiling;

use super::{SegmentError, SegmenterOptions};
use crate::session::{Device, RunnerOptions};

/// The file that runs windows or whole pictures. Where several have the wanted precision, TensorRT gets the one whose 8 bits
/// are signed, as it needs them, and other devices the one whose are not.
pub(super) fn chosen<'a>(
    path: &Path,
    manifest: &'a Manifest,
    options: &SegmenterOptions,
) -> Result<&'a ModelFile, SegmentError> {
    let files = || manifest.files.iter().filter(|file| file.variant.kind != ModelKind::Frame);
    let Some(precision) = options.precision else {
        return files().next().ok_or_else(|| SegmentError::NoLogits(path.into()));
    };
    let signed = matches!(options.runner.device, Device::TensorRt(_));
    let fits = |file: &&ModelFile| file.variant.precision == precision;
    let suits = |file: &&ModelFile| {
        file.variant.quantization.as_ref().is_none_or(|how| how.symmetric == signed)
    };
    let file = files().filter(fits).find(suits).or_else(|| files().find(fits));
    file.ok_or_else(|| {
        let known: Vec<&str> = files().map(|file| file.variant.precision.name()).collect();
        SegmentError::NoPrecision { path: path.into(), precision, known: known.join(", ") }
    })
}

/// The options with the size of every picture or window, and whether TensorRT counts in 8 bits.
pub(super) fn how(
    manifest: &Manifest,
    file: &ModelFile,
    options: &SegmenterOptions,
) -> Result<RunnerOptions, SegmentError> {
    let mut how = options.runner.clone();
    // On a CPU sizes that are known beforehand bring nothing.
    if how.device != Device::Cpu && how.size.is_none() {
        let window = options.pieces.map_or(manifest.model.window, Tiling::window);
        how.size = window.map(|window| [window.size; 2]);
    }
    let int8 = file.variant.precision == Precision::Int8;
    if how.tensorrt.int8 && !int8 {
        return Err(SegmentError::Floats(file.file.clone()));
    }
    how.tensorrt.int8 = int8;
    Ok(how)
}
