//! COCO's annotation file with classes as *stuff*: for each picture and each class in it one mask, as pycocotools reads it.

use std::io::Write;

use protoseg_models::classes::{Class, ClassTable};
use serde::Serialize;

use super::coco_rle::CocoRle;
use super::runs::{columns, runs};
use super::{FormatError, ImageLabels, names};

#[derive(Serialize)]
struct Category<'a> {
    id: usize,
    name: &'a str,
    supercategory: &'static str,
    /// As in COCO's panoptic files: 0, a class without instances.
    isthing: u8,
    color: [u8; 3],
}

#[derive(Serialize)]
struct Image<'a> {
    id: usize,
    file_name: &'a str,
    width: usize,
    height: usize,
}

#[derive(Serialize)]
struct Annotation {
    id: usize,
    image_id: usize,
    category_id: usize,
    segmentation: Segmentation,
    area: usize,
    bbox: [usize; 4],
    iscrowd: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
}

#[derive(Serialize)]
struct Segmentation {
    size: [usize; 2],
    counts: String,
}

/// Writes the file. Pictures and masks are numbered from 1 in the order in which they come, classes by train id from 1;
/// pixels without a class are in no mask. `score` is the mean confidence of a mask's pixels where it is known.
///
/// The pictures' names and sizes are kept until the end; of labels there is one picture at a time.
///
/// ```
/// use protoseg_images::formats::{ImageLabels, coco};
/// use protoseg_images::label_map::LabelMap;
/// use protoseg_models::classes::ClassTable;
///
/// let map = LabelMap { height: 2, width: 3, labels: vec![0, 0, 2, 0, 2, 255] };
/// let picture = ImageLabels { name: "a.jpg".into(), map, confidence: None };
/// let mut file = Vec::new();
/// coco::write(&mut file, [Ok(picture)], &ClassTable::cityscapes())?;
/// let text = String::from_utf8(file)?;
/// assert!(text.contains(r#""category_id":1,"segmentation":{"size":[2,3],"counts":"033"},"area":3,"bbox":[0,0,2,2]"#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(
    mut out: impl Write,
    pictures: impl IntoIterator<Item = Result<ImageLabels, FormatError>>,
    classes: &ClassTable,
) -> Result<(), FormatError> {
    let categories: Vec<_> = classes.classes().iter().zip(1..).map(category).collect();
    write!(out, r#"{{"info":{{"description":"labels by protoseg"}},"licenses":[],"categories":"#)?;
    json(&mut out, &categories)?;
    write!(out, ",\n\"annotations\":[")?;
    let mut images = Vec::new();
    let mut id = 0;
    for (picture, image_id) in pictures.into_iter().zip(1..) {
        let picture = picture?;
        let file_name = names::text(&picture.name)?;
        for mut annotation in annotations(&picture, image_id, classes)? {
            separate(&mut out, id)?;
            id += 1;
            annotation.id = id;
            json(&mut out, &annotation)?;
        }
        separate(&mut images, image_id - 1)?;
        json(
            &mut images,
            &Image {
                id: image_id,
                file_name,
                width: picture.map.width,
                height: picture.map.height,
            },
        )?;
    }
    write!(out, "],\n\"images\":[")?;
    out.write_all(&images)?;
    writeln!(out, "]}}")?;
    Ok(out.flush()?)
}

fn category((class, id): (&Class, usize)) -> Category<'_> {
    Category { id, name: &class.name, supercategory: "stuff", isthing: 0, color: class.color }
}

/// The masks of a picture, not numbered yet.
fn annotations(
    picture: &ImageLabels,
    image_id: usize,
    classes: &ClassTable,
) -> Result<impl Iterator<Item = Annotation>, FormatError> {
    picture.check(classes)?;
    let (height, width) = (picture.map.height, picture.map.width);
    let mut masks: Vec<CocoRle> = (0..classes.count()).map(|_| CocoRle::new(height)).collect();
    for run in runs(&columns(&picture.map)) {
        if let Some(mask) = masks.get_mut(usize::from(run.label)) {
            mask.push(run);
        }
    }
    let scores = picture.mean_confidence();
    let present = masks.into_iter().enumerate().filter(|(_, mask)| mask.area > 0);
    Ok(present.map(move |(class, mask)| Annotation {
        id: 0,
        image_id,
        category_id: class + 1,
        area: mask.area,
        bbox: mask.bounds(),
        segmentation: Segmentation { size: [height, width], counts: mask.finish(height * width) },
        iscrowd: 0,
        score: scores.as_ref().map(|scores| scores.labels[class]),
    }))
}

/// What stands before an entry of a list that has so many.
pub(super) fn separate(out: &mut impl Write, count: usize) -> std::io::Result<()> {
    out.write_all(if count == 0 { b"\n" } else { b",\n" })
}

/// Writes a value on one line.
pub(super) fn json(out: &mut impl Write, value: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(out, value).map_err(std::io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label_map::LabelMap;

    #[test]
    fn masks_boxes_and_scores_are_those_of_the_labels() {
        let map = LabelMap { height: 2, width: 3, labels: vec![1, 1, 0, 255, 1, 0] };
        let picture = ImageLabels {
            name: "a/b.png".into(),
            map,
            confidence: Some(vec![255, 51, 102, 0, 153, 102]),
        };
        let mut file = Vec::new();
        write(&mut file, [Ok(picture)], &ClassTable::camvid()).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&file).unwrap();
        let expected = serde_json::json!([
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": {"size": [2, 3], "counts": "42"}, "area": 2,
             "bbox": [2, 0, 1, 2], "iscrowd": 0, "score": 0.4},
            {"id": 2, "image_id": 1, "category_id": 2, "segmentation": {"size": [2, 3], "counts": "01111"}, "area": 3,
             "bbox": [0, 0, 2, 2], "iscrowd": 0, "score": 0.6},
        ]);
        // 0 of none, 1 of the class, 1 of none, then 2 of the class and 2 of none: each 1 more than the last but one.
        assert_eq!(value["annotations"], expected);
        assert_eq!(value["images"][0]["file_name"], "a/b.png");
        assert_eq!(value["categories"][10]["id"], 11);
    }

    #[test]
    fn no_picture_is_a_file_too_and_misfits_are_named() {
        let classes = ClassTable::camvid();
        let mut file = Vec::new();
        write(&mut file, [], &classes).unwrap();
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&file).unwrap()["images"],
            serde_json::json!([])
        );
        let message = |labels: &[u8], confidence| {
            let map = LabelMap { height: 1, width: 2, labels: labels.to_vec() };
            let picture = ImageLabels { name: "a.png".into(), map, confidence };
            write(Vec::new(), [Ok(picture)], &classes).unwrap_err().to_string()
        };
        assert_eq!(
            message(&[0, 11], None),
            "a.png: the label 11 at row 0, column 1, where there are 11 classes"
        );
        assert_eq!(message(&[0], None), "a.png: 1 bytes for 2x1 pixels");
        assert_eq!(message(&[0, 0], Some(vec![1, 2, 3])), "a.png: 3 bytes for 2x1 pixels");
    }
}
