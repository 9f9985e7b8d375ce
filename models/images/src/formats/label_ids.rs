//! Label maps in the ids of the dataset that the classes come from: for Cityscapes, the input of
//! its official evaluation.

use std::path::{Path, PathBuf};

use protoseg_models::classes::ClassTable;

use crate::label_map::{LabelMap, LabelMapError};

/// Encodes an 8-bit gray PNG of the source ids of the classes. Pixels without a class get 0, which
/// is `unlabeled` in Cityscapes, or 255 if 0 is a class, or the highest free id if 255 is one too.
///
/// ```
/// use protoseg_images::formats::label_ids;
/// use protoseg_images::label_map::LabelMap;
/// use protoseg_models::classes::ClassTable;
///
/// let map = LabelMap { height: 1, width: 3, labels: vec![0, 18, 255] };
/// let png = label_ids::png(&map, &ClassTable::cityscapes())?; // holds 7, 33 and 0
/// assert_eq!(png[1..4], *b"PNG");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn png(map: &LabelMap, classes: &ClassTable) -> Result<Vec<u8>, LabelMapError> {
    let ids = ids(classes);
    let samples: Vec<u8> = map.labels.iter().map(|&label| ids[usize::from(label)]).collect();
    map.gray_png(&samples)
}

/// The id that [`png()`] writes for each label.
pub fn ids(classes: &ClassTable) -> [u8; 256] {
    let taken = classes.classes().iter().any(|class| class.source_id == 0);
    source_ids(classes, if taken { classes.void_id() } else { 0 })
}

/// The source id of each label, and `none` for labels without a class.
pub(super) fn source_ids(classes: &ClassTable, none: u8) -> [u8; 256] {
    let mut ids = [none; 256];
    for (id, class) in ids.iter_mut().zip(classes.classes()) {
        *id = class.source_id;
    }
    ids
}

/// Returns the file name for an image: `aachen_000000_000019_leftImg8bit.png` becomes
/// `aachen_000000_000019_leftImg8bit_labelIds.png`.
///
/// The evaluation takes every `aachen_000000_000019*.png` below its results folder, and refuses
/// two. The whole name is kept so that images of different names never share a file.
pub fn file_name(image: &Path) -> PathBuf {
    let mut name = image.file_stem().unwrap_or_default().to_owned();
    name.push("_labelIds.png");
    image.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_source_ids_under_the_names_that_the_evaluation_finds() {
        let map = LabelMap { height: 1, width: 3, labels: vec![2, 255, 10] };
        let read = |classes: &ClassTable| {
            let png = png(&map, classes).unwrap();
            image::load_from_memory(&png).unwrap().into_luma8().into_raw()
        };
        assert_eq!(read(&ClassTable::cityscapes()), [11, 0, 23]);
        assert_eq!(read(&ClassTable::camvid()), [2, 255, 10]);
        let binary = ClassTable::parse("0 background\n255 crack").unwrap();
        let map = LabelMap { height: 1, width: 3, labels: vec![0, 1, 255] };
        let png = super::png(&map, &binary).unwrap();
        assert_eq!(image::load_from_memory(&png).unwrap().into_luma8().into_raw(), [0, 255, 254]);
        let name = file_name(Path::new("aachen/aachen_000000_000019_leftImg8bit.png"));
        assert_eq!(name, Path::new("aachen/aachen_000000_000019_leftImg8bit_labelIds.png"));
        assert_eq!(file_name(Path::new("a.b.jpg")), Path::new("a.b_labelIds.png"));
    }
}
