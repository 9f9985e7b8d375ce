//! Signs that masks are not those of Pascal VOC, though they lie in a tree like its.

use std::path::Path;

use protoseg_models::classes::voc_color;

use super::VOC_BORDER;
use crate::mask::{Mask, MaskSamples};

/// Masks whose palettes are compared with that of Pascal VOC.
const LOOKED_AT: usize = 16;

/// The reason why masks are not those of Pascal VOC: their names, or their palette.
#[cfg(feature = "annotations")]
pub(crate) fn difference<P: AsRef<Path>>(masks: &[P], max_pixels: u64) -> Option<String> {
    other_names(masks).or_else(|| other_palette(masks, max_pixels))
}

/// Says where masks have no names such as `2007_000032`.
pub(crate) fn other_names<P: AsRef<Path>>(masks: &[P]) -> Option<String> {
    let is_official = |path: &Path| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let parts = stem.split_once('_');
        parts.is_some_and(|(year, number)| {
            year.len() == 4 && number.len() == 6 && digits(year) && digits(number)
        })
    };
    let other = masks.iter().map(AsRef::as_ref).find(|path| !is_official(path))?;
    let name = other.file_name().unwrap_or_default().to_string_lossy();
    Some(format!(
        "the masks have other names than those of Pascal VOC, such as {name} and not 2007_000032.png"
    ))
}

/// Says where an index in use has another color than in Pascal VOC.
pub(crate) fn other_palette<P: AsRef<Path>>(masks: &[P], max_pixels: u64) -> Option<String> {
    let has_other_palette = |path: &&Path| {
        // A mask that cannot be read is reported when it is read for its labels.
        let Ok(mask) = Mask::read(path, max_pixels) else { return false };
        let MaskSamples::Indexed { indices, palette } = mask.samples else { return false };
        let expected = |index: usize| match index {
            0 => [0; 3],
            255 => VOC_BORDER,
            index => voc_color(index - 1),
        };
        indices
            .iter()
            .map(|index| usize::from(*index))
            .any(|index| palette.get(index).is_some_and(|color| *color != expected(index)))
    };
    let other = masks.iter().map(AsRef::as_ref).take(LOOKED_AT).find(has_other_palette)?;
    Some(format!("the palette of {} is not that of Pascal VOC", other.display()))
}
