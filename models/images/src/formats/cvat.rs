//! CVAT's archive "Segmentation mask 1.1": one colored PNG per image, and a legend.

use std::collections::HashSet;
use std::io::{Seek, Write};
use std::path::Path;

use protoseg_models::classes::{ClassTable, IGNORE_INDEX};
use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, DateTime};

use super::{FormatError, ImageLabels, text_name};

/// The class of pixels without one, black, which CVAT's readers expect.
const BACKGROUND: &str = "background";

/// Writes the archive. An image is named without its extension, with folders, as CVAT looks for it
/// in a task. Pixels without a class become `background`.
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
/// cvat::write(&mut archive, [Ok(image)], &ClassTable::cityscapes())?;
/// # Ok::<(), protoseg_images::formats::FormatError>(())
/// ```
pub fn write(
    out: impl Write + Seek,
    images: impl IntoIterator<Item = Result<ImageLabels, FormatError>>,
    classes: &ClassTable,
) -> Result<(), FormatError> {
    // Neither the time nor the system may show: the same images give the same bytes.
    let options = SimpleFileOptions::default()
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    let packed = options.compression_method(CompressionMethod::Deflated);
    let mut archive = ZipWriter::new(out);
    archive.start_file("labelmap.txt", packed)?;
    archive.write_all(label_map(classes)?.as_bytes())?;
    let colors = colors(classes);
    let mut list = String::new();
    let stored = options.compression_method(CompressionMethod::Stored);
    for image in images {
        let image = image?;
        image.check(classes)?;
        let item = item(&image.name)?;
        let png = image.map.rgb_png(&colors)?;
        archive.start_file(format!("SegmentationClass/{item}.png"), stored)?;
        archive.write_all(&png)?;
        list.push_str(&item);
        list.push('\n');
    }
    archive.start_file("ImageSets/Segmentation/default.txt", packed)?;
    archive.write_all(list.as_bytes())?;
    archive.finish()?.flush()?;
    Ok(())
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
pub(super) fn label_map(classes: &ClassTable) -> Result<String, FormatError> {
    let mut text = format!("# label:color_rgb:parts:actions\n{BACKGROUND}:0,0,0::\n");
    for (class, [red, green, blue]) in classes.classes().iter().zip(colors(classes)) {
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
pub(super) fn item(name: &Path) -> Result<String, FormatError> {
    let item = name.with_extension("");
    let text = text_name(&item)?;
    if text.starts_with('#') || text.trim() != text {
        let reason = "has a name that starts with `#` or a space, or ends with a space, which \
                      CVAT's list of images cannot hold";
        return Err(FormatError::Name { name: name.into(), reason });
    }
    Ok(text.to_owned())
}
