//! Reasons for a label map of another size than its image, and the ways out.

/// Largest whole number of times that one size is looked for in the other.
const TIMES: usize = 32;

/// Says what to do about a label of another size than its image; sizes are `[height, width]`.
pub(crate) fn size_hint(image: [usize; 2], label: [usize; 2]) -> String {
    let [height, width] = label;
    if image == [width, height] && width != height {
        return "one of them is turned, and the image has no EXIF orientation that says how (some programs \
                remove it): turn the label or the image, or make the label again"
            .to_owned();
    }
    if let Some(times) = times(image, label) {
        return format!(
            "the label has 1/{times} of the image's sides: enlarge it {times} times by nearest neighbor \
             (Pillow's `resize((WIDTH, HEIGHT), 0)`), or make the image as small"
        );
    }
    if let Some(times) = times(label, image) {
        return format!(
            "the label has {times} times the image's sides: use the images that it was made for, or make \
             it as small by nearest neighbor (Pillow's `resize((WIDTH, HEIGHT), 0)`)"
        );
    }
    let share = |axis: usize| label[axis] as f64 / image[axis].max(1) as f64;
    let (rows, columns) = (share(0), share(1));
    // Both sides were rounded to whole pixels.
    let rounding = 0.5 + 0.5 * image[1] as f64 / image[0].max(1) as f64;
    let is_off = (label[1] as f64 - rows * image[1] as f64).abs() > rounding;
    if !is_off && image.iter().zip(&label).all(|(image, label)| image != label) {
        return format!(
            "the label has {columns:.3} of the image's sides, as one of them was scaled: bring both to one \
             size, the label by nearest neighbor (Pillow's `resize((WIDTH, HEIGHT), 0)`)"
        );
    }
    "their sides differ in proportion, as one of them was cropped or is of another image: make the label \
     again for this image"
        .to_owned()
}

/// The whole number of times, from 2, that a small size is in a large one.
fn times(large: [usize; 2], small: [usize; 2]) -> Option<usize> {
    (2..=TIMES).find(|times| large == small.map(|side| side * times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proportion_of_sizes_tells_the_way_out() {
        for (image, label, part) in [
            ([48, 64], [64, 48], "one of them is turned"),
            ([48, 64], [24, 32], "1/2 of the image's sides: enlarge it 2 times"),
            ([48, 64], [144, 192], "3 times the image's sides"),
            ([481, 641], [320, 427], "0.666 of the image's sides"),
            ([48, 64], [48, 60], "differ in proportion"),
            ([0, 0], [48, 60], "differ in proportion"),
        ] {
            let hint = size_hint(image, label);
            assert!(hint.contains(part), "{hint}");
        }
    }
}
