//! How a file of a bundle is run, as far as that follows from what the bundle says of it.

use protoseg_models::bundle::{Manifest, ModelFile};
use protoseg_models::form::Precision;
use protoseg_models::window::Pieces;

use super::{SegmentError, SegmenterOptions};
use crate::session::{Device, RunnerOptions};

/// The options with the size of every picture or window, and whether TensorRT counts in 8 bits.
pub(super) fn how(
    manifest: &Manifest,
    file: &ModelFile,
    options: &SegmenterOptions,
) -> Result<RunnerOptions, SegmentError> {
    let mut how = options.runner.clone();
    // On a CPU sizes that are known beforehand bring nothing.
    if how.device != Device::Cpu && how.size.is_none() {
        let window = options.pieces.map_or(manifest.model.window, Pieces::window);
        how.size = window.map(|window| [window.size; 2]);
    }
    let int8 = file.form.precision == Precision::Int8;
    if how.tensorrt.int8 && !int8 {
        return Err(SegmentError::Floats(file.file.clone()));
    }
    how.tensorrt.int8 = int8;
    Ok(how)
}
