//! Pseudo-labels: what a model is sure of, as a data set of the `folder` kind that `protoseg train` and `eval` read.
//!
//! Below its root, a picture `a/street.jpg` is `images/a/street.jpg`, its labels `labels/a/street.png`, how sure they are
//! `confidence/a/street.png`; `classes.txt` names the classes, and `train.txt` lists the pictures.
//!
//! The pictures are *linked*, not copied, and not merely listed where they lie: a list of paths breaks as soon as either
//! folder is moved or mounted elsewhere. A hard link costs no room, is a file like any other for whoever packs or mounts the
//! folder, and outlives its first name; where the file system refuses one, as between two disks, a symbolic link to the
//! picture's full path stands in.

use std::fs;
use std::path::{Path, PathBuf};

use protoseg_models::atomic;
use protoseg_models::classes::{ClassTable, IGNORE_INDEX};

use super::label_ids::source_ids;
use super::{FormatError, ImageLabels, names};

/// How sure a label must be to count, where nothing else is asked for.
pub const DEFAULT_MIN_CONFIDENCE: f64 = 0.9;

/// An 8-bit grey PNG of the classes' source ids, and 255 where the confidence, in steps of 1/255, is below `least`, in [0, 1].
/// A picture without confidence has no pseudo-labels: 255 everywhere.
pub fn labels_png(
    picture: &ImageLabels,
    least: f64,
    classes: &ClassTable,
) -> Result<Vec<u8>, FormatError> {
    picture.check(classes)?;
    let ids = source_ids(classes, IGNORE_INDEX);
    let counts: [bool; 256] = std::array::from_fn(|confidence| confidence as f64 / 255.0 >= least);
    let id = |(&label, &confidence): (&u8, &u8)| {
        if counts[usize::from(confidence)] { ids[usize::from(label)] } else { IGNORE_INDEX }
    };
    let samples: Vec<u8> = match &picture.confidence {
        Some(confidence) => picture.map.labels.iter().zip(confidence).map(id).collect(),
        None => vec![IGNORE_INDEX; picture.map.labels.len()],
    };
    Ok(picture.map.gray_png(&samples)?)
}

/// Where a picture's link lies below the root, `images/NAME`. Spaces, `%`, control characters and bytes that are no text are
/// written as `%` and two digits, so that every list of pictures can hold them, whoever reads it.
pub fn image_path(name: &Path) -> PathBuf {
    let keep = |letter: char| !letter.is_whitespace() && !letter.is_control();
    Path::new("images").join(names::percent_encoded(name, keep))
}

/// Where its labels lie: `labels/NAME.png`.
pub fn label_path(name: &Path) -> PathBuf {
    beside(name, "labels")
}

/// Where its confidence lies: `confidence/NAME.png`.
pub fn confidence_path(name: &Path) -> PathBuf {
    beside(name, "confidence")
}

fn beside(name: &Path, folder: &str) -> PathBuf {
    let image = image_path(name);
    names::png_name(&Path::new(folder).join(image.strip_prefix("images").unwrap_or(&image)))
}

/// Links a picture to its place below the root. What stood there under that name is replaced; the picture itself is kept.
pub fn link(picture: &Path, root: &Path, name: &Path) -> Result<(), FormatError> {
    let place = root.join(image_path(name));
    let made = place.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| atomic::link(picture, &place))
        .map_err(|source| FormatError::Io { path: place, source })
}

/// Writes `classes.txt` and `train.txt`, the pictures in order of their paths.
///
/// ```
/// use std::path::Path;
///
/// use protoseg_images::formats::{ImageLabels, pseudo_labels};
/// use protoseg_images::label_map::LabelMap;
/// use protoseg_images::labeled::LabeledDataset;
/// use protoseg_models::classes::ClassTable;
/// use protoseg_images::dataset::Dataset;
///
/// # let street = Path::new("../../infer/tests/fixtures/pictures/cmyk_adobe.jpg");
/// # let size = protoseg_images::image_file::read(street, 1 << 20)?.dimensions();
/// # let (width, height) = (size.0 as usize, size.1 as usize);
/// let (classes, name, root) = (ClassTable::cityscapes(), Path::new("street.jpg"), tempfile::tempdir()?);
/// let map = LabelMap { height, width, labels: vec![13; height * width] };
/// let picture = ImageLabels { name: name.into(), map, confidence: Some(vec![250; height * width]) };
///
/// std::fs::create_dir(root.path().join("labels"))?;
/// let labels = pseudo_labels::labels_png(&picture, pseudo_labels::DEFAULT_MIN_CONFIDENCE, &classes)?;
/// std::fs::write(root.path().join(pseudo_labels::label_path(name)), labels)?;
/// pseudo_labels::link(street, root.path(), name)?;
/// pseudo_labels::write_lists(root.path(), vec![name.into()], &classes)?;
///
/// let set = LabeledDataset::from_files(Dataset::Folder, root.path(), None, "train")?;
/// assert_eq!(set.read(0, 1 << 20)?.truth, picture.map.labels);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_lists(
    root: &Path,
    mut names: Vec<PathBuf>,
    classes: &ClassTable,
) -> Result<(), FormatError> {
    names.sort();
    let line = |name: &PathBuf| format!("{}\n", image_path(name).display());
    let list: String = names.iter().map(line).collect();
    for (name, text) in [("classes.txt", class_file(classes)?), ("train.txt", list)] {
        let path = root.join(name);
        atomic::write(&path, text.as_bytes()).map_err(|source| FormatError::Io { path, source })?;
    }
    Ok(())
}

/// The text of `classes.txt`, which is read back as the same table; fails where a name does not allow that, to be known before
/// anything is labelled.
pub fn class_file(classes: &ClassTable) -> Result<String, FormatError> {
    let text = classes.text();
    let back = ClassTable::parse(&text).ok();
    let kept = |index: usize| {
        back.as_ref().and_then(|back| back.classes().get(index)) == classes.classes().get(index)
    };
    match (0..classes.count()).find(|&index| !kept(index)) {
        None => Ok(text),
        Some(index) => Err(FormatError::Class {
            class: classes.classes()[index].name.clone(),
            reason: "has a name that classes.txt cannot hold, for its spaces, its line breaks or a `#`",
        }),
    }
}

#[cfg(test)]
mod tests {
    use crate::dataset::Dataset;
    use protoseg_models::random::Stream;

    use super::*;
    use crate::label_map::LabelMap;
    use crate::labeled::LabeledDataset;

    #[test]
    fn only_what_is_sure_counts() {
        let map = LabelMap { height: 1, width: 5, labels: vec![0, 1, 2, 255, 18] };
        let mut picture =
            ImageLabels { name: "a".into(), map, confidence: Some(vec![229, 230, 255, 255, 153]) };
        let read = |picture: &ImageLabels, least| {
            let png = labels_png(picture, least, &ClassTable::cityscapes()).unwrap();
            image::load_from_memory(&png).unwrap().into_luma8().into_raw()
        };
        assert_eq!(read(&picture, DEFAULT_MIN_CONFIDENCE), [255, 8, 11, 255, 255]);
        // 153 of 255 are 0.6, not less.
        assert_eq!(read(&picture, 0.6), [7, 8, 11, 255, 33]);
        picture.confidence = None;
        assert_eq!(read(&picture, 0.0), [255; 5]);
    }

    #[test]
    fn links_are_made_once_and_replace_others() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("one.png"), "one").unwrap();
        fs::write(at("two.png"), "two").unwrap();
        let name = Path::new("a/my street.png");
        for (picture, text) in [("one.png", "one"), ("one.png", "one"), ("two.png", "two")] {
            link(&at(picture), root.path(), name).unwrap();
            assert_eq!(fs::read_to_string(at("images/a/my%20street.png")).unwrap(), text);
        }
        assert_eq!(fs::read_to_string(at("one.png")).unwrap(), "one");
        let error = link(&at("gone.png"), root.path(), name).unwrap_err().to_string();
        assert!(error.contains("images/a/my%20street.png: "), "{error}");
    }

    #[test]
    fn the_data_set_is_read_back_as_it_was_written() {
        let (root, pictures) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let classes = ClassTable::cityscapes();
        let mut expected = Vec::new();
        let names = ["b.jpg", "a/my street.png", "a/100%.png"].map(PathBuf::from);
        for (name, seed) in names.iter().zip(0..) {
            let (height, width) = (20 + seed, 33);
            let stream = Stream::keyed(&[seed as u64]);
            let draw = |index: usize, count| stream.below(index as u64, count) as u8;
            let pixels = height * width;
            let labels: Vec<u8> = (0..pixels).map(|index| draw(index, 19)).collect();
            let confidence: Vec<u8> = (0..pixels).map(|index| draw(pixels + index, 256)).collect();
            let sure = |(&label, &confidence): (&u8, &u8)| {
                if confidence < 230 { IGNORE_INDEX } else { label }
            };
            expected.push(labels.iter().zip(&confidence).map(sure).collect::<Vec<u8>>());
            let (path, map) = (pictures.path().join(name), LabelMap { height, width, labels });
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::RgbImage::new(width as u32, height as u32).save(&path).unwrap();
            link(&path, root.path(), name).unwrap();
            let grey = map.gray_png(&confidence).unwrap();
            let picture = ImageLabels { name: name.clone(), map, confidence: Some(confidence) };
            let labels = labels_png(&picture, DEFAULT_MIN_CONFIDENCE, &classes).unwrap();
            for (place, png) in [(label_path(name), labels), (confidence_path(name), grey)] {
                let path = root.path().join(place);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, png).unwrap();
            }
        }
        write_lists(root.path(), names.to_vec(), &classes).unwrap();
        let set = LabeledDataset::from_files(Dataset::Folder, root.path(), None, "train").unwrap();
        assert_eq!((set.count(), set.classes()), (3, classes));
        // In order of their paths.
        expected.reverse();
        for (index, expected) in expected.iter().enumerate() {
            assert_eq!(&set.read(index, 10_000).unwrap().truth, expected, "{}", set.name(index));
        }
    }

    #[test]
    fn class_names_that_would_be_lost_are_refused() {
        let class = |name: &str, source_id| protoseg_models::classes::Class {
            name: name.into(),
            color: [1; 3],
            source_id,
        };
        let table =
            |name: &str| ClassTable::try_from(vec![class("a 1 2 3", 4), class(name, 5)]).unwrap();
        assert_eq!(class_file(&table("b c")).unwrap(), "4 a 1 2 3 1 1 1\n5 b c 1 1 1\n");
        for name in ["b#c", "b  c", " b", "", "b\nc"] {
            assert!(
                class_file(&table(name))
                    .unwrap_err()
                    .to_string()
                    .contains("classes.txt cannot hold"),
                "{name}"
            );
        }
    }
}
