//! CVAT's archive "Segmentation mask 1.1": two colored PNGs per image, its classes and its pieces,
//! and a legend.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{Seek, Write};
use std::path::Path;

use protoseg_models::classes::{ClassTable, IGNORE_INDEX, voc_color};
use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, DateTime};

use super::{AnnotationOptions, FormatError, ImageLabels, percent_encode, pieces};
use crate::label_map::{LabelMap, LabelMapError};

/// The class of pixels without one, black, which CVAT's readers expect.
const BACKGROUND: &str = "background";

/// Writes the archive. An image is named without its extension, with folders, as CVAT looks for it
/// in a task. Each connected piece of a class becomes an annotation. Pixels without a class and
/// skipped classes have none, nor has the class `background` by default: CVAT refuses the whole
/// archive where a task has no such label.
///
/// Colors tell the classes apart, so they must differ: see [`colors`]. Keeps the names of all
/// images in memory, but the labels of one image at a time.
///
/// ```
/// use std::io::Cursor;
///
/// use protoseg_images::formats::{ImageLabels, cvat};
/// use protoseg_images::label_map::LabelMap;
/// use protoseg_models::classes::ClassTable;
///
/// let map = LabelMap { height: 1, width: 2, labels: vec![0, 255] };
/// let image = ImageLabels { name: "a.jpg".into(), map, confidence: None };
/// let mut archive = Cursor::new(Vec::new());
/// cvat::write(&mut archive, [Ok(image)], &ClassTable::cityscapes(), &Default::default())?;
/// # Ok::<(), protoseg_images::formats::FormatError>(())
/// ```
pub fn write(
    out: impl Write + Seek,
    images: impl IntoIterator<Item = Result<ImageLabels, FormatError>>,
    classes: &ClassTable,
    options: &AnnotationOptions,
) -> Result<(), FormatError> {
    // Neither the time nor the system may show: the same images give the same bytes.
    let entry = SimpleFileOptions::default()
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    let packed = entry.compression_method(CompressionMethod::Deflated);
    let mut archive = ZipWriter::new(out);
    archive.start_file("labelmap.txt", packed)?;
    archive.write_all(label_map(classes, options)?.as_bytes())?;
    let colors = colors(classes);
    let mut list = String::new();
    let stored = entry.compression_method(CompressionMethod::Stored);
    for image in options.without_skipped(images) {
        let image = image?;
        image.check(classes)?;
        let item = item(&image.name);
        let png = image.map.rgb_png(&colors)?;
        archive.start_file(format!("SegmentationClass/{item}.png"), stored)?;
        archive.write_all(&png)?;
        archive.start_file(format!("SegmentationObject/{item}.png"), stored)?;
        archive.write_all(&objects_png(&image.map, classes, options)?)?;
        list.push_str(&item);
        list.push('\n');
    }
    archive.start_file("ImageSets/Segmentation/default.txt", packed)?;
    archive.write_all(list.as_bytes())?;
    archive.finish()?.flush()?;
    Ok(())
}

/// Encodes the number of each pixel's piece from 1, in the colors of Pascal VOC's palette, the only
/// ones that CVAT's reader knows; 0 for what is not annotated. It has 255 numbers: past that, the
/// smallest pieces of a class share one.
fn objects_png(
    map: &LabelMap,
    classes: &ClassTable,
    options: &AnnotationOptions,
) -> Result<Vec<u8>, LabelMapError> {
    let kept: [bool; 256] = std::array::from_fn(|label| {
        let class = classes.classes().get(label);
        class.is_some_and(|class| options.cvat_background || !is_background(&class.name))
    });
    let found = pieces::find(&map.labels, map.width, |label| kept[usize::from(label)]);
    let mut numbers: Vec<u8> = vec![0; found.pieces.len()];
    let mut order: Vec<usize> = (0..found.pieces.len()).collect();
    let mut next = 1_u8;
    let mut number = || {
        let number = next;
        next = next.saturating_add(1);
        number
    };
    if order.len() > usize::from(u8::MAX) {
        order.sort_by_key(|&piece| std::cmp::Reverse(found.pieces[piece].area));
        let labels: HashSet<u8> = found.pieces.iter().map(|piece| piece.label).collect();
        let shared = order.split_off(usize::from(u8::MAX).saturating_sub(labels.len()));
        let mut of_label = [0; 256];
        for piece in shared {
            let label = usize::from(found.pieces[piece].label);
            if of_label[label] == 0 {
                of_label[label] = number();
            }
            numbers[piece] = of_label[label];
        }
    }
    for piece in order {
        numbers[piece] = number();
    }
    let mut objects =
        LabelMap { height: map.height, width: map.width, labels: vec![0; map.labels.len()] };
    for (run, piece) in found.runs {
        objects.labels[run.start..run.end()].fill(numbers[piece]);
    }
    objects.rgb_png(&std::array::from_fn(object_color))
}

/// The color of a piece's number in Pascal VOC's palette, whose first color is black.
fn object_color(number: usize) -> [u8; 3] {
    number.checked_sub(1).map_or([0; 3], voc_color)
}

/// True for the class that stands for no class.
fn is_background(name: &str) -> bool {
    name.eq_ignore_ascii_case(BACKGROUND)
}

/// Returns true if the classes have a `background`, which the archive leaves out by default.
pub fn has_background(classes: &ClassTable) -> bool {
    classes.classes().iter().any(|class| is_background(&class.name))
}

/// Returns the color of each label in the archive: black without a class and for the class
/// `background`, else the class's own; instead of black, or the color of an earlier class, the next
/// free one of Pascal VOC's palette.
pub fn colors(classes: &ClassTable) -> [[u8; 3]; 256] {
    let mut colors = [[0; 3]; 256];
    let named = || {
        classes.classes().iter().zip(0..IGNORE_INDEX).filter(|(class, _)| class.name != BACKGROUND)
    };
    let own: HashSet<[u8; 3]> = named().map(|(class, _)| class.color).collect();
    let mut taken = HashSet::from([[0; 3]]);
    let mut free =
        (0..).map(protoseg_models::classes::voc_color).filter(|color| !own.contains(color));
    for (class, label) in named() {
        let color = if taken.insert(class.color) { Some(class.color) } else { free.next() };
        colors[usize::from(label)] = color.unwrap_or_default();
    }
    colors
}

/// The text of `labelmap.txt`: a line `name:red,green,blue::` per class, the background first.
pub(super) fn label_map(
    classes: &ClassTable,
    options: &AnnotationOptions,
) -> Result<String, FormatError> {
    let mut text = format!("# label:color_rgb:parts:actions\n{BACKGROUND}:0,0,0::\n");
    let numbered = classes.classes().iter().zip(0..=u8::MAX);
    let kept = numbered.filter(|(_, label)| !options.skipped.contains(label));
    let colors = colors(classes);
    for (class, label) in kept {
        let [red, green, blue] = colors[usize::from(label)];
        let refused = |reason| FormatError::Class { class: class.name.clone(), reason };
        if class.name.contains(|letter: char| letter == ':' || letter.is_control()) {
            let reason = "has a colon or control character, which CVAT's labelmap.txt cannot hold";
            return Err(refused(reason));
        }
        if class.name.starts_with(|letter: char| letter == '#' || letter.is_whitespace())
            || class.name.is_empty()
        {
            let reason = "is empty or starts with `#` or a space, which CVAT's labelmap.txt loses";
            return Err(refused(reason));
        }
        if class.name != BACKGROUND {
            text.push_str(&format!("{}:{red},{green},{blue}::\n", class.name));
        }
    }
    Ok(text)
}

/// The name of an image in the archive.
pub(super) fn item(name: &Path) -> String {
    item_name(&name.with_extension("")).into_owned()
}

/// A name as CVAT's list of images can hold it: control characters, bytes that are not UTF-8, and
/// spaces around a name or `#` before it become `%` and two digits, and so does `%` there.
pub(super) fn item_name(name: &Path) -> Cow<'_, str> {
    match name.to_str() {
        Some(text)
            if !text.starts_with('#')
                && text.trim() == text
                && !text.contains(char::is_control) =>
        {
            Cow::Borrowed(text)
        }
        _ => Cow::Owned(percent_encode(name, |letter| {
            letter != '#' && !letter.is_control() && !letter.is_whitespace()
        })),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read};

    use protoseg_models::classes::Class;

    use super::*;

    fn classes() -> ClassTable {
        let class = |name: &str, color| Class { name: name.into(), color, source_id: color[0] };
        ClassTable::try_from(vec![
            class("background", [0; 3]),
            class("crack", [200, 0, 0]),
            class("rust", [100, 50, 0]),
        ])
        .unwrap()
    }

    /// Files of the archive of one map.
    fn archive(map: LabelMap, options: &AnnotationOptions) -> zip::ZipArchive<Cursor<Vec<u8>>> {
        let image = ImageLabels { name: "a.jpg".into(), map, confidence: None };
        let mut out = Cursor::new(Vec::new());
        write(&mut out, [Ok(image)], &classes(), options).unwrap();
        zip::ZipArchive::new(out).unwrap()
    }

    fn pixels(archive: &mut zip::ZipArchive<Cursor<Vec<u8>>>, folder: &str) -> Vec<[u8; 3]> {
        let mut bytes = Vec::new();
        archive.by_name(&format!("{folder}/a.png")).unwrap().read_to_end(&mut bytes).unwrap();
        let image = image::load_from_memory(&bytes).unwrap().into_rgb8();
        image.pixels().map(|pixel| pixel.0).collect()
    }

    #[test]
    fn each_piece_is_an_object_and_the_background_is_none() {
        let labels = vec![1, 0, 1, 2, 0, 0, 255, 2];
        let map = || LabelMap { height: 2, width: 4, labels: labels.clone() };
        let numbered = |numbers: [usize; 8]| numbers.map(object_color).to_vec();
        let mut plain = archive(map(), &AnnotationOptions::default());
        assert_eq!(pixels(&mut plain, "SegmentationObject"), numbered([1, 0, 2, 3, 0, 0, 0, 3]));
        assert_eq!(pixels(&mut plain, "SegmentationClass")[..2], [[200, 0, 0], [0; 3]]);
        let options = AnnotationOptions { cvat_background: true, ..AnnotationOptions::default() };
        let mut with_background = archive(map(), &options);
        let objects = pixels(&mut with_background, "SegmentationObject");
        assert_eq!(objects, numbered([1, 2, 3, 4, 2, 2, 0, 4]));
        let options = AnnotationOptions { skipped: [1].into(), ..AnnotationOptions::default() };
        let mut without_cracks = archive(map(), &options);
        let objects = pixels(&mut without_cracks, "SegmentationObject");
        assert_eq!(objects, numbered([0, 0, 0, 1, 0, 0, 0, 1]));
        let mut legend = String::new();
        without_cracks.by_name("labelmap.txt").unwrap().read_to_string(&mut legend).unwrap();
        assert!(legend.contains("rust:") && !legend.contains("crack"), "{legend}");
    }

    #[test]
    fn more_pieces_than_numbers_share_those_of_their_class() {
        // 300 single pixels of each class, and one large piece.
        let (height, width) = (41, 61);
        let label = |index: usize| match (index / width, index % width) {
            (row, _) if row > 38 => 1,
            (row, column) if row < 38 && row % 2 == 0 && column % 2 == 0 => {
                if column % 4 == 0 {
                    1
                } else {
                    2
                }
            }
            _ => 0,
        };
        let labels: Vec<u8> = (0..height * width).map(label).collect();
        let map = LabelMap { height, width, labels: labels.clone() };
        let objects =
            pixels(&mut archive(map, &AnnotationOptions::default()), "SegmentationObject");
        let mut labels_of = std::collections::HashMap::new();
        for (color, label) in objects.iter().zip(&labels) {
            labels_of.entry(*color).or_insert_with(HashSet::new).insert(*label);
        }
        assert_eq!(labels_of.len(), 256);
        assert!(labels_of.values().all(|labels| labels.len() == 1));
        let large = objects[height * width - 1];
        assert_eq!(objects.iter().filter(|&&color| color == large).count(), 2 * width);
    }

    #[test]
    fn names_that_the_list_cannot_hold_are_escaped() {
        for (name, item_name) in [
            ("a/b c.jpg", "a/b c"),
            ("#a.jpg", "%23a"),
            (" 9%.jpg", "%209%25"),
            ("a\nb.jpg", "a%0Ab"),
        ] {
            assert_eq!(item(Path::new(name)), item_name);
        }
    }
}
