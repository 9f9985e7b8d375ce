//! CVAT's archive "Segmentation mask 1.1": a coloured PNG a picture, and what the colours mean.

use std::collections::HashSet;
use std::io::{Seek, Write};
use std::path::Path;

use protoseg_models::classes::{ClassTable, IGNORE_INDEX};
use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, DateTime};

use super::{FormatError, ImageLabels, names};

/// The class that CVAT's readers expect, black, for pixels that have none.
const BACKGROUND: &str = "background";

/// Writes the archive. In it a picture is known by its name without the ending, folders included, as CVAT looks for it among
/// those of a task. Pixels without a class become `background`.
///
/// Colours tell the classes apart, so that a class whose colour is black or another's gets the next that is free, as
/// [`colors`] says. The pictures' names are kept until the end; of labels there is one picture at a time.
///
/// ```
/// use std::io::Cursor;
///
/// use protoseg_images::formats::{ImageLabels, cvat};
/// use protoseg_images::label_map::LabelMap;
/// use protoseg_models::classes::ClassTable;
///
/// let map = LabelMap { height: 1, width: 2, labels: vec![0, 255] };
/// let picture = ImageLabels { name: "a.jpg".into(), map, confidence: None };
/// let mut archive = Cursor::new(Vec::new());
/// cvat::write(&mut archive, [Ok(picture)], &ClassTable::cityscapes())?;
/// # Ok::<(), protoseg_images::formats::FormatError>(())
/// ```
pub fn write(
    out: impl Write + Seek,
    pictures: impl IntoIterator<Item = Result<ImageLabels, FormatError>>,
    classes: &ClassTable,
) -> Result<(), FormatError> {
    // Neither the time nor the system may show: the same pictures give the same bytes.
    let options = SimpleFileOptions::default()
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    let packed = options.compression_method(CompressionMethod::Deflated);
    let mut archive = ZipWriter::new(out);
    archive.start_file("labelmap.txt", packed)?;
    archive.write_all(label_map(classes)?.as_bytes())?;
    let colors = colors(classes);
    let mut list = String::new();
    for picture in pictures {
        let picture = picture?;
        picture.check(classes)?;
        let item = item(&picture.name)?;
        let png = picture.map.rgb_png(&colors)?;
        archive.start_file(
            format!("SegmentationClass/{item}.png"),
            options.compression_method(CompressionMethod::Stored),
        )?;
        archive.write_all(&png)?;
        list.push_str(&item);
        list.push('\n');
    }
    archive.start_file("ImageSets/Segmentation/default.txt", packed)?;
    archive.write_all(list.as_bytes())?;
    archive.finish()?.flush()?;
    Ok(())
}

/// The colour of each label in the archive: black where it has no class or is the class `background`, else the class's own;
/// for black ones and those that an earlier class has, the next free of Pascal VOC's palette.
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

/// The text of `labelmap.txt`: `name:red,green,blue::` a line, for the background first.
pub(super) fn label_map(classes: &ClassTable) -> Result<String, FormatError> {
    let mut text = format!("# label:color_rgb:parts:actions\n{BACKGROUND}:0,0,0::\n");
    for (class, [red, green, blue]) in classes.classes().iter().zip(colors(classes)) {
        let refused = |reason| FormatError::Class { class: class.name.clone(), reason };
        if class.name.contains(|letter: char| letter == ':' || letter.is_control()) {
            return Err(refused(
                "holds a colon or control character, which CVAT's labelmap.txt cannot",
            ));
        }
        if class.name.starts_with(|letter: char| letter == '#' || letter.is_whitespace())
            || class.name.is_empty()
        {
            return Err(refused("starts with no letter, and CVAT's labelmap.txt would lose it"));
        }
        if class.name != BACKGROUND {
            text.push_str(&format!("{}:{red},{green},{blue}::\n", class.name));
        }
    }
    Ok(text)
}

/// What a picture is called in the archive.
pub(super) fn item(name: &Path) -> Result<String, FormatError> {
    let item = name.with_extension("");
    let text = names::text(&item)?;
    if text.starts_with('#') || text.trim() != text {
        let reason = "has a name that starts with `#` or spaces, or ends so, which CVAT's list of pictures cannot hold";
        return Err(FormatError::Name { name: name.into(), reason });
    }
    Ok(text.to_owned())
}
