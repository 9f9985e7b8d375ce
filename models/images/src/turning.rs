//! Label maps in the orientation of their images: EXIF turns images, and masks may be made for the
//! pixels as they are stored or as they are seen, or have an orientation of their own.

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage};

use crate::image_file::{seen_size, swaps_sides};
use crate::label_map::LabelMap;

/// Effect of EXIF orientations on the labels of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LabelTurn {
    /// None: the labels are for the image as it is seen.
    Seen,
    /// The labels were for the stored pixels, and turned like the image.
    WithImage,
    /// The size fits the image either way, and the labels are taken as for the image as it is seen.
    Unclear,
    /// The mask was turned by its own orientation, which its size or the image's orientation confirms.
    Own,
    /// The mask was turned by its own orientation, and its size fits either way.
    OwnUnclear,
    /// The mask has an orientation that was not applied: the stored pixels fit, and turned ones do not.
    OwnIgnored,
}

/// Turns a label map to the orientation of its image, which is of the size `seen` (height, width) after
/// the orientation `of_image`; `own` is that of the mask's file. A map that fits in no way comes back
/// as it was.
pub(crate) fn turn_to_image(
    map: LabelMap,
    own: Orientation,
    of_image: Orientation,
    seen: [usize; 2],
) -> (LabelMap, LabelTurn) {
    let stored = [map.height, map.width];
    if own != Orientation::NoTransforms {
        let after = seen_size(map.width as u32, map.height as u32, own).map(|side| side as usize);
        return match (after == seen, stored == seen) {
            (true, false) => (turned(map, own), LabelTurn::Own),
            (true, true) if own == of_image => (turned(map, own), LabelTurn::Own),
            (true, true) => (turned(map, own), LabelTurn::OwnUnclear),
            (false, true) => (map, LabelTurn::OwnIgnored),
            (false, false) => (map, LabelTurn::Seen),
        };
    }
    let tells = swaps_sides(of_image) && seen[0] != seen[1];
    if tells && stored == [seen[1], seen[0]] {
        return (turned(map, of_image), LabelTurn::WithImage);
    }
    let is_clear = tells || of_image == Orientation::NoTransforms || stored != seen;
    (map, if is_clear { LabelTurn::Seen } else { LabelTurn::Unclear })
}

/// Turns a mask that was made for the pixels as stored.
fn turned(map: LabelMap, orientation: Orientation) -> LabelMap {
    let LabelMap { height, width, labels } = map;
    let image = GrayImage::from_raw(width as u32, height as u32, labels).unwrap_or_default();
    let mut image = DynamicImage::ImageLuma8(image);
    image.apply_orientation(orientation);
    let image = image.into_luma8();
    let (width, height) = image.dimensions();
    LabelMap { height: height as usize, width: width as usize, labels: image.into_raw() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orientation_of_the_mask_is_applied_unless_sizes_tell_otherwise() {
        use Orientation::{NoTransforms, Rotate90, Rotate180};
        let map = |height, width| LabelMap { height, width, labels: (0..6).collect() };
        for (own, image, seen, expected) in [
            (Rotate90, Rotate90, [3, 2], LabelTurn::Own),
            (Rotate90, NoTransforms, [3, 2], LabelTurn::Own),
            (Rotate90, NoTransforms, [2, 3], LabelTurn::OwnIgnored),
            (Rotate180, NoTransforms, [2, 3], LabelTurn::OwnUnclear),
            (Rotate180, Rotate180, [2, 3], LabelTurn::Own),
            (NoTransforms, Rotate90, [3, 2], LabelTurn::WithImage),
            (NoTransforms, Rotate180, [2, 3], LabelTurn::Unclear),
            (NoTransforms, NoTransforms, [2, 3], LabelTurn::Seen),
            (Rotate90, NoTransforms, [7, 7], LabelTurn::Seen),
        ] {
            let (turned, turn) = turn_to_image(map(2, 3), own, image, seen);
            assert_eq!(turn, expected, "{own:?} {image:?} {seen:?}");
            let labels: &[u8] = match (turn, own, image) {
                (LabelTurn::Own | LabelTurn::WithImage, Rotate90, _)
                | (LabelTurn::WithImage, _, Rotate90) => &[3, 0, 4, 1, 5, 2],
                (LabelTurn::Own | LabelTurn::OwnUnclear, ..) => &[5, 4, 3, 2, 1, 0],
                _ => &[0, 1, 2, 3, 4, 5],
            };
            assert_eq!(turned.labels, labels);
        }
    }
}
