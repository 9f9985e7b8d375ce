//! Segmentations of COCO's annotations: polygons and run lengths.

use serde::Deserialize;
use serde_json::Value;

use super::coco::CocoAnnotation;
use super::raster::Area;

#[derive(Deserialize)]
struct RunLengths {
    size: [usize; 2],
    counts: Counts,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "the counts of a mask are a text or a list of numbers")]
enum Counts {
    Letters(String),
    Numbers(Vec<usize>),
}

/// A kind of annotation without an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MaskKind {
    Box,
    Keypoints,
    Empty,
}

/// Tells why an annotation has no area.
pub(super) fn kind_without_area(annotation: &CocoAnnotation) -> MaskKind {
    if annotation.keypoints.as_ref().is_some_and(|keypoints| !keypoints.is_null()) {
        return MaskKind::Keypoints;
    }
    match &annotation.segmentation {
        Some(segmentation) if !segmentation.is_null() => MaskKind::Empty,
        _ => MaskKind::Box,
    }
}

/// The area of a mask, `None` if it is empty, and the number of polygons that are none. The size of
/// the image is that of its run lengths where the file does not give it.
pub(super) fn area(
    segmentation: &Value,
    image: &mut Option<[usize; 2]>,
) -> Result<(Option<Area>, usize), String> {
    match segmentation {
        Value::Null => Ok((None, 0)),
        Value::Array(list) if list.is_empty() => Ok((None, 0)),
        Value::Object(object) if object.is_empty() => Ok((None, 0)),
        // A single polygon without its list.
        Value::Array(list) if list.iter().all(|value| number(value).is_some()) => {
            polygons(&[numbers(list)?])
        }
        Value::Array(list) => {
            let lists = list.iter().map(|polygon| numbers(polygon.as_array().ok_or(STRANGE)?));
            polygons(&lists.collect::<Result<Vec<_>, _>>()?)
        }
        Value::Object(_) => run_lengths(segmentation, image).map(|area| (Some(area), 0)),
        _ => Err(STRANGE.to_owned()),
    }
}

const STRANGE: &str = "is neither polygons nor run lengths";

fn numbers(list: &[Value]) -> Result<Vec<f64>, String> {
    let numbers: Option<Vec<f64>> = list.iter().map(number).collect();
    numbers.ok_or_else(|| STRANGE.to_owned())
}

/// A number, which some programs write as a text.
pub(super) fn number(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    number.filter(|number| number.is_finite())
}

/// True for polygons of which all coordinates are from 0 to 1, and some between: shares of an image's
/// sides; `None` if there is no polygon.
pub(super) fn are_shares<'a>(segmentations: impl Iterator<Item = &'a Value>) -> Option<bool> {
    let mut has_parts = None;
    for segmentation in segmentations {
        let Some(list) = segmentation.as_array() else { continue };
        let nested = list.iter().filter_map(Value::as_array).flatten();
        for value in list.iter().chain(nested).filter_map(number) {
            if !(0.0..=1.0).contains(&value) {
                return Some(false);
            }
            *has_parts.get_or_insert(false) |= value > 0.0 && value < 1.0;
        }
    }
    has_parts
}

fn polygons(lists: &[Vec<f64>]) -> Result<(Option<Area>, usize), String> {
    if lists.iter().any(|list| !list.len().is_multiple_of(2)) {
        return Err("has a polygon with an odd number of coordinates".to_owned());
    }
    let points = |list: &Vec<f64>| list.as_chunks().0.to_vec();
    let polygons: Vec<Vec<[f64; 2]>> =
        lists.iter().filter(|list| list.len() >= 6).map(points).collect();
    let short = lists.len() - polygons.len();
    Ok(((!polygons.is_empty()).then_some(Area::Polygons(polygons)), short))
}

fn run_lengths(segmentation: &Value, image: &mut Option<[usize; 2]>) -> Result<Area, String> {
    let RunLengths { size, counts } = RunLengths::deserialize(segmentation)
        .map_err(|error| format!("has broken run lengths ({error})"))?;
    if *image.get_or_insert(size) != size {
        return Err(format!("has {}x{} pixels, and the image another size", size[1], size[0]));
    }
    let counts = match counts {
        Counts::Numbers(numbers) => numbers,
        Counts::Letters(letters) => decode_letters(&letters).ok_or("has broken run lengths")?,
    };
    let all = counts.iter().try_fold(0_usize, |sum, &count| sum.checked_add(count));
    if all.is_none() || all != size[0].checked_mul(size[1]) {
        return Err("has run lengths of another size".to_owned());
    }
    Ok(Area::Columns(counts))
}

/// Decodes COCO's letters: five bits each, the lowest first; a sixth says that more follow. From the
/// fourth on, a count is the difference from the last but one.
fn decode_letters(letters: &str) -> Option<Vec<usize>> {
    let mut counts: Vec<i64> = Vec::new();
    let (mut value, mut shift) = (0_i64, 0_u32);
    for letter in letters.bytes() {
        let bits = i64::from(letter.checked_sub(48).filter(|bits| *bits < 64)?);
        value |= (bits & 0x1f).checked_shl(shift).filter(|_| shift < 55)?;
        shift += 5;
        if bits & 0x20 == 0 {
            if bits & 0x10 != 0 {
                value |= -1 << shift;
            }
            if counts.len() > 2 {
                value += counts[counts.len() - 2];
            }
            counts.push(value);
            (value, shift) = (0, 0);
        }
    }
    let whole = shift == 0;
    counts
        .into_iter()
        .map(|count| usize::try_from(count).ok())
        .collect::<Option<_>>()
        .filter(|_| whole)
}
