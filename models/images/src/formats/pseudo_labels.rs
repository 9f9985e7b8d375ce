//! Pseudo-labels: the confident predictions of a model as a dataset of the `folder` kind, for
//! `protoseg train` and `eval`.
//!
//! Below its root, the image `a/street.jpg` is `images/a/street.jpg`, its labels are
//! `labels/a/street.png`, their confidence is `confidence/a/street.png`; `classes.txt` holds the
//! classes, and `train.txt` lists the images.
//!
//! The images are *linked*, not copied, and not merely listed by path, which would break as soon as
//! either folder is moved or mounted elsewhere. A hard link takes no space, is a file like any
//! other for archivers and mounts, and outlives its first name; if the file system refuses one, as
//! between two disks, a symbolic link to the full path of the image takes its place.

use std::fs;
use std::path::{Path, PathBuf};

use protoseg_models::atomic;
use protoseg_models::classes::ClassTable;
use protoseg_models::errors::FileError;

use super::label_ids::source_ids;
use super::{FormatError, ImageLabels, percent_encode, png_name};

/// Default of the smallest confidence of a pseudo-label.
pub const DEFAULT_MIN_CONFIDENCE: f64 = 0.9;

/// Encodes an 8-bit gray PNG of the source ids of the classes, with the void id (255, unless it is a
/// class) where the confidence is below `min_confidence`, in [0, 1]. Without confidence every pixel
/// is void.
pub fn labels_png(
    image: &ImageLabels,
    min_confidence: f64,
    classes: &ClassTable,
) -> Result<Vec<u8>, FormatError> {
    image.check(classes)?;
    let void = classes.void_id();
    let ids = source_ids(classes, void);
    let kept: [bool; 256] = std::array::from_fn(|step| step as f64 / 255.0 >= min_confidence);
    let id = |(&label, &confidence): (&u8, &u8)| {
        if kept[usize::from(confidence)] { ids[usize::from(label)] } else { void }
    };
    let samples: Vec<u8> = match &image.confidence {
        Some(confidence) => image.map.labels.iter().zip(confidence).map(id).collect(),
        None => vec![void; image.map.labels.len()],
    };
    Ok(image.map.gray_png(&samples)?)
}

/// Returns the path of the link to an image below the root, `images/NAME`. Spaces, `%`, control
/// characters and bytes that are not UTF-8 become `%` and two digits, so that any list can hold
/// them.
pub fn image_path(name: &Path) -> PathBuf {
    let keep = |letter: char| !letter.is_whitespace() && !letter.is_control();
    Path::new("images").join(percent_encode(name, keep))
}

/// Returns the path of the labels of an image: `labels/NAME.png`.
pub fn label_path(name: &Path) -> PathBuf {
    sibling(name, "labels")
}

/// Returns the path of the confidence of an image: `confidence/NAME.png`.
pub fn confidence_path(name: &Path) -> PathBuf {
    sibling(name, "confidence")
}

fn sibling(name: &Path, folder: &str) -> PathBuf {
    let image = image_path(name);
    png_name(&Path::new(folder).join(image.strip_prefix("images").unwrap_or(&image)))
}

/// Links an image to its path below the root, and replaces an older link there.
pub fn link(image: &Path, root: &Path, name: &Path) -> Result<(), FormatError> {
    let path = root.join(image_path(name));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(FileError::at(&path))?;
    }
    Ok(atomic::link(image, &path).map_err(FileError::at(&path))?)
}

/// Writes `classes.txt` and `train.txt`, the images in order of their paths.
///
/// ```
/// use std::path::Path;
///
/// use protoseg_images::dataset::Dataset;
/// use protoseg_images::formats::{ImageLabels, pseudo_labels};
/// use protoseg_images::label_map::LabelMap;
/// use protoseg_images::labeled::LabeledDataset;
/// use protoseg_models::classes::ClassTable;
///
/// let (images, root) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// let street = images.path().join("street.png");
/// image::RgbImage::new(4, 3).save(&street)?;
/// let (classes, name) = (ClassTable::cityscapes(), Path::new("street.png"));
/// let map = LabelMap { height: 3, width: 4, labels: vec![13; 12] };
/// let image = ImageLabels { name: name.into(), map, confidence: Some(vec![250; 12]) };
///
/// std::fs::create_dir(root.path().join("labels"))?;
/// let labels =
///     pseudo_labels::labels_png(&image, pseudo_labels::DEFAULT_MIN_CONFIDENCE, &classes)?;
/// std::fs::write(root.path().join(pseudo_labels::label_path(name)), labels)?;
/// pseudo_labels::link(&street, root.path(), name)?;
/// pseudo_labels::write_lists(root.path(), vec![name.into()], &classes)?;
///
/// let set = LabeledDataset::from_files(Dataset::Folder, root.path(), None, "train")?;
/// assert_eq!(set.read(0, 1 << 20)?.truth, image.map.labels);
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
        atomic::write(&path, text.as_bytes()).map_err(FileError::at(&path))?;
    }
    Ok(())
}

/// Returns the text of `classes.txt`; fails if a class name would not be read back the same. To be
/// called before anything is labeled.
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
            reason: "has no name, which classes.txt cannot hold",
        }),
    }
}

#[cfg(test)]
mod tests {
    use crate::dataset::Dataset;
    use protoseg_models::classes::IGNORE_INDEX;
    use protoseg_models::random::Stream;

    use super::*;
    use crate::label_map::LabelMap;
    use crate::labeled::LabeledDataset;

    #[test]
    fn only_confident_labels_are_kept() {
        let map = LabelMap { height: 1, width: 5, labels: vec![0, 1, 2, 255, 18] };
        let mut image =
            ImageLabels { name: "a".into(), map, confidence: Some(vec![229, 230, 255, 255, 153]) };
        let read = |image: &ImageLabels, min_confidence| {
            let png = labels_png(image, min_confidence, &ClassTable::cityscapes()).unwrap();
            image::load_from_memory(&png).unwrap().into_luma8().into_raw()
        };
        assert_eq!(read(&image, DEFAULT_MIN_CONFIDENCE), [255, 8, 11, 255, 255]);
        // 153 of 255 is exactly 0.6.
        assert_eq!(read(&image, 0.6), [7, 8, 11, 255, 33]);
        image.confidence = None;
        assert_eq!(read(&image, 0.0), [255; 5]);
    }

    #[test]
    fn links_are_made_once_and_replace_others() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("one.png"), "one").unwrap();
        fs::write(at("two.png"), "two").unwrap();
        let name = Path::new("a/my street.png");
        for (image, text) in [("one.png", "one"), ("one.png", "one"), ("two.png", "two")] {
            link(&at(image), root.path(), name).unwrap();
            assert_eq!(fs::read_to_string(at("images/a/my%20street.png")).unwrap(), text);
        }
        assert_eq!(fs::read_to_string(at("one.png")).unwrap(), "one");
        let error = link(&at("gone.png"), root.path(), name).unwrap_err().to_string();
        assert!(error.contains("images/a/my%20street.png: "), "{error}");
    }

    #[test]
    fn the_dataset_is_read_back_as_it_was_written() {
        let (root, images) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
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
            let (path, map) = (images.path().join(name), LabelMap { height, width, labels });
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::RgbImage::new(width as u32, height as u32).save(&path).unwrap();
            link(&path, root.path(), name).unwrap();
            let gray = map.gray_png(&confidence).unwrap();
            let image = ImageLabels { name: name.clone(), map, confidence: Some(confidence) };
            let labels = labels_png(&image, DEFAULT_MIN_CONFIDENCE, &classes).unwrap();
            for (place, png) in [(label_path(name), labels), (confidence_path(name), gray)] {
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
        assert_eq!(class_file(&table("b # c")).unwrap(), "4 a 1 2 3 1 1 1\n5 \"b # c\" 1 1 1\n");
        let error = class_file(&table("")).unwrap_err().to_string();
        assert!(error.contains("classes.txt cannot hold"), "{error}");
    }
}
