//! COCO annotations with classes as *stuff*: one run-length mask per image and class, or per
//! connected piece of a class, as pycocotools reads them.

use std::io::Write;

use protoseg_models::classes::{Class, ClassTable, IGNORE_INDEX};
use serde::Serialize;

use super::{
    AnnotationOptions, FormatError, ImageLabels, Run, columns, pieces, runs, separate, text_name,
    write_json,
};
use crate::label_map::LabelMap;

#[derive(Serialize)]
struct Category<'a> {
    id: usize,
    name: &'a str,
    supercategory: &'static str,
    /// 0, as in COCO's panoptic files: a class without instances.
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

/// Writes the file. Images and masks are numbered from 1 in the given order, classes from 1 by
/// train id; pixels without a class are in no mask. `score` is the mean confidence of a mask, if
/// known. Skipped classes are in no mask and no category, and leave the numbers of the others as
/// they are.
///
/// Keeps the names and sizes of all images in memory, but the labels of one image at a time.
///
/// ```
/// use protoseg_images::formats::{ImageLabels, coco};
/// use protoseg_images::label_map::LabelMap;
/// use protoseg_models::classes::ClassTable;
///
/// let map = LabelMap { height: 2, width: 3, labels: vec![0, 0, 2, 0, 2, 255] };
/// let image = ImageLabels { name: "a.jpg".into(), map, confidence: None };
/// let mut file = Vec::new();
/// coco::write(&mut file, [Ok(image)], &ClassTable::cityscapes(), &Default::default())?;
/// let text = String::from_utf8(file)?;
/// assert!(text.contains(r#""category_id":1,"segmentation":{"size":[2,3],"counts":"033"}"#));
/// assert!(text.contains(r#""area":3,"bbox":[0,0,2,2]"#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(
    mut out: impl Write,
    images: impl IntoIterator<Item = Result<ImageLabels, FormatError>>,
    classes: &ClassTable,
    options: &AnnotationOptions,
) -> Result<(), FormatError> {
    let skipped =
        |id: usize| u8::try_from(id - 1).is_ok_and(|label| options.skipped.contains(&label));
    let numbered = classes.classes().iter().zip(1..).filter(|&(_, id)| !skipped(id));
    let categories: Vec<_> = numbered.map(category).collect();
    write!(out, r#"{{"info":{{"description":"labels by protoseg"}},"licenses":[],"categories":"#)?;
    write_json(&mut out, &categories)?;
    write!(out, ",\n\"annotations\":[")?;
    let mut entries = Vec::new();
    let mut count = 0;
    for (image, image_id) in options.without_skipped(images).zip(1..) {
        let image = image?;
        image.check(classes)?;
        let file_name = text_name(&image.name);
        let annotations = if options.coco_pieces {
            piece_annotations(&image, image_id)
        } else {
            class_annotations(&image, image_id, classes)
        };
        for mut annotation in annotations {
            separate(&mut out, count)?;
            count += 1;
            annotation.id = count;
            write_json(&mut out, &annotation)?;
        }
        separate(&mut entries, image_id - 1)?;
        let LabelMap { height, width, .. } = image.map;
        write_json(&mut entries, &Image { id: image_id, file_name: &file_name, width, height })?;
    }
    write!(out, "],\n\"images\":[")?;
    out.write_all(&entries)?;
    writeln!(out, "]}}")?;
    Ok(out.flush()?)
}

fn category((class, id): (&Class, usize)) -> Category<'_> {
    Category { id, name: &class.name, supercategory: "stuff", isthing: 0, color: class.color }
}

/// The masks of an image by class, with id 0.
fn class_annotations(
    image: &ImageLabels,
    image_id: usize,
    classes: &ClassTable,
) -> Vec<Annotation> {
    let (height, width) = (image.map.height, image.map.width);
    let mut masks: Vec<CocoRle> = (0..classes.count()).map(|_| CocoRle::new(height)).collect();
    for run in runs(&columns(&image.map)) {
        if let Some(mask) = masks.get_mut(usize::from(run.label)) {
            mask.push(run);
        }
    }
    let scores = image.mean_confidence();
    let present = masks.into_iter().enumerate().filter(|(_, mask)| mask.area > 0);
    let annotation = |(class, mask): (usize, CocoRle)| {
        let score = scores.as_ref().map(|scores| scores.labels[class]);
        mask.annotation(image_id, class + 1, [height, width], score)
    };
    present.map(annotation).collect()
}

/// The masks of an image by connected piece, those of a class in order of their first columns,
/// with id 0.
fn piece_annotations(image: &ImageLabels, image_id: usize) -> Vec<Annotation> {
    let LabelMap { height, width, .. } = image.map;
    let found = pieces::find(&columns(&image.map), height, |label| label != IGNORE_INDEX);
    let mut parts: Vec<Vec<Run>> = vec![Vec::new(); found.pieces.len()];
    let mut sums = vec![0_u64; found.pieces.len()];
    for (run, piece) in found.runs {
        if let Some(confidence) = &image.confidence {
            let row_major = (run.start..run.end()).map(|at| at % height * width + at / height);
            sums[piece] += row_major.map(|at| u64::from(confidence[at])).sum::<u64>();
        }
        match parts[piece].last_mut() {
            // Goes on at the top of the next column.
            Some(last) if last.end() == run.start => last.length += run.length,
            _ => parts[piece].push(run),
        }
    }
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|&piece| found.pieces[piece].label);
    let annotation = |piece: usize| {
        let mut mask = CocoRle::new(height);
        parts[piece].iter().for_each(|&run| mask.push(run));
        let score = image.confidence.as_ref().map(|_| {
            let mean = sums[piece] as f64 / (255 * mask.area.max(1)) as f64;
            (mean * 1e4).round() / 1e4
        });
        let category = usize::from(found.pieces[piece].label) + 1;
        mask.annotation(image_id, category, [height, width], score)
    };
    order.into_iter().map(annotation).collect()
}

/// COCO's compressed run-length encoding of a mask, with its area and bounding box.
///
/// Counts alternate between background and mask, down the columns. Letters hold five bits each.
#[derive(Debug)]
struct CocoRle {
    height: usize,
    text: String,
    /// The last two counts.
    last: [i64; 2],
    /// Number of counts.
    count: usize,
    /// Pixels that are encoded.
    end: usize,
    /// Pixels of the mask.
    area: usize,
    /// First and last row and column of the mask.
    rows: [usize; 2],
    columns: [usize; 2],
}

impl CocoRle {
    fn new(height: usize) -> Self {
        let (rows, columns) = ([usize::MAX, 0], [usize::MAX, 0]);
        Self { height, text: String::new(), last: [0; 2], count: 0, end: 0, area: 0, rows, columns }
    }

    /// The annotation of the mask, with id 0, in an image of `[height, width]`.
    fn annotation(
        self,
        image_id: usize,
        category_id: usize,
        size: [usize; 2],
        score: Option<f64>,
    ) -> Annotation {
        let (area, bbox) = (self.area, self.bounds());
        let segmentation = Segmentation { size, counts: self.finish(size[0] * size[1]) };
        Annotation { id: 0, image_id, category_id, segmentation, area, bbox, iscrowd: 0, score }
    }

    /// Adds a run of the mask, in order.
    fn push(&mut self, run: Run) {
        self.add(run.start - self.end);
        self.add(run.length);
        self.end = run.start + run.length;
        self.area += run.length;
        let last = self.end - 1;
        let columns = [run.start / self.height, last / self.height];
        let rows = if columns[0] == columns[1] {
            [run.start, last].map(|at| at % self.height)
        } else {
            [0, self.height - 1]
        };
        let widen =
            |[first, last]: [usize; 2], more: [usize; 2]| [first.min(more[0]), last.max(more[1])];
        self.rows = widen(self.rows, rows);
        self.columns = widen(self.columns, columns);
    }

    /// Returns the letters of a mask over `pixels` pixels.
    fn finish(mut self, pixels: usize) -> String {
        if self.end < pixels {
            self.add(pixels - self.end);
        }
        self.text
    }

    /// Bounding box: left, top, width and height.
    fn bounds(&self) -> [usize; 4] {
        let extent = |[first, last]: [usize; 2]| last + 1 - first;
        [self.columns[0], self.rows[0], extent(self.columns), extent(self.rows)]
    }

    /// Adds a count, from the fourth on as its difference from the last but one. Five bits per
    /// letter, the lowest first; a sixth says that more follow.
    fn add(&mut self, count: usize) {
        let count = count as i64;
        let mut rest = if self.count > 2 { count - self.last[0] } else { count };
        self.last = [self.last[1], count];
        self.count += 1;
        loop {
            let bits = (rest & 0x1f) as u8;
            rest >>= 5;
            let ends = rest == if bits & 0x10 == 0 { 0 } else { -1 };
            self.text.push(char::from(48 + if ends { bits } else { bits | 0x20 }));
            if ends {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_boxes_and_scores_are_those_of_the_labels() {
        let map = LabelMap { height: 2, width: 3, labels: vec![1, 1, 0, 255, 1, 0] };
        let image = ImageLabels {
            name: "a/b.png".into(),
            map,
            confidence: Some(vec![255, 51, 102, 0, 153, 102]),
        };
        let mut file = Vec::new();
        write(&mut file, [Ok(image)], &ClassTable::camvid(), &Default::default()).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&file).unwrap();
        let expected = serde_json::json!([
            {"id": 1, "image_id": 1, "category_id": 1,
             "segmentation": {"size": [2, 3], "counts": "42"}, "area": 2, "bbox": [2, 0, 1, 2], "iscrowd": 0, "score": 0.4},
            {"id": 2, "image_id": 1, "category_id": 2,
             "segmentation": {"size": [2, 3], "counts": "01111"}, "area": 3, "bbox": [0, 0, 2, 2], "iscrowd": 0, "score": 0.6},
        ]);
        // Counts 0, 1, 1, 2, 2: from the fourth on each is written as 1 more than the last but one.
        assert_eq!(value["annotations"], expected);
        assert_eq!(value["images"][0]["file_name"], "a/b.png");
        assert_eq!(value["categories"][10]["id"], 11);
    }

    #[test]
    fn a_file_may_hold_no_image_and_mismatches_are_reported() {
        let classes = ClassTable::camvid();
        let mut file = Vec::new();
        write(&mut file, [], &classes, &Default::default()).unwrap();
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&file).unwrap()["images"],
            serde_json::json!([])
        );
        let message = |labels: &[u8], confidence| {
            let map = LabelMap { height: 1, width: 2, labels: labels.to_vec() };
            let image = ImageLabels { name: "a.png".into(), map, confidence };
            let options = AnnotationOptions::default();
            write(Vec::new(), [Ok(image)], &classes, &options).unwrap_err().to_string()
        };
        assert_eq!(
            message(&[0, 11], None),
            "a.png: the label 11 at row 0, column 1 is not one of the 11 classes"
        );
        assert_eq!(message(&[0], None), "a.png: 1 bytes for 2x1 pixels");
        assert_eq!(message(&[0, 0], Some(vec![1, 2, 3])), "a.png: 3 bytes for 2x1 pixels");
    }

    #[test]
    fn pieces_are_apart_and_holes_stay_holes() {
        // Two pieces of class 1, one with a hole of class 0; a corner joins.
        let labels = vec![
            1, 1, 1, 0, 1, //
            1, 0, 1, 0, 0, //
            1, 1, 1, 0, 1, //
            0, 0, 0, 1, 255,
        ];
        let map = LabelMap { height: 4, width: 5, labels };
        let confidence = (0..20).map(|index| index * 10).collect();
        let image = ImageLabels { name: "a.png".into(), map, confidence: Some(confidence) };
        let options = AnnotationOptions {
            skipped: [0].into(),
            coco_pieces: true,
            ..AnnotationOptions::default()
        };
        let nothing = ImageLabels {
            name: "b.png".into(),
            map: LabelMap { height: 1, width: 2, labels: vec![0, 255] },
            confidence: None,
        };
        let mut file = Vec::new();
        let images = [Ok(image), Ok(nothing)];
        write(&mut file, images, &ClassTable::camvid(), &options).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&file).unwrap();
        assert_eq!(value["categories"].as_array().map(Vec::len), Some(10));
        assert_eq!(
            (&value["categories"][0]["id"], &value["images"][1]["id"]),
            (&2.into(), &2.into())
        );
        let annotations = value["annotations"].as_array().unwrap();
        let facts: Vec<_> = annotations
            .iter()
            .map(|found| (found["category_id"].as_u64(), found["area"].as_u64(), &found["bbox"]))
            .collect();
        let (first, second) = (serde_json::json!([0, 0, 5, 4]), serde_json::json!([4, 0, 1, 1]));
        assert_eq!(facts, [(Some(2), Some(10), &first), (Some(2), Some(1), &second)]);
        let counts = decode(annotations[0]["segmentation"]["counts"].as_str().unwrap());
        // Down the columns: 3, a gap, top and bottom of the ring, 3, then the corner pixels.
        assert_eq!(counts, [0, 3, 1, 1, 1, 1, 1, 3, 4, 1, 2, 1, 1]);
        assert_eq!(annotations[1]["score"], 0.1569);
    }

    /// Decoder after pycocotools' description of its letters.
    fn decode(text: &str) -> Vec<i64> {
        let mut counts: Vec<i64> = Vec::new();
        let mut letters = text.bytes();
        while let Some(first) = letters.next() {
            let (mut value, mut shift, mut letter) = (0_i64, 0, first - 48);
            loop {
                value |= i64::from(letter & 0x1f) << shift;
                shift += 5;
                if letter & 0x20 == 0 {
                    break;
                }
                letter = letters.next().unwrap() - 48;
            }
            if letter & 0x10 != 0 {
                value -= 1 << shift;
            }
            counts.push(if counts.len() > 2 { value + counts[counts.len() - 2] } else { value });
        }
        counts
    }

    #[test]
    fn counts_alternate_and_survive_their_letters() {
        let mut counts = CocoRle::new(10);
        for (start, length) in [(0, 3), (12, 2), (25, 100_000), (100_040, 1)] {
            counts.push(Run { label: 0, start, length });
        }
        assert_eq!((counts.area, counts.bounds()), (100_006, [0, 0, 10_005, 10]));
        let text = counts.finish(200_000);
        assert_eq!(decode(&text), [0, 3, 9, 2, 11, 100_000, 15, 1, 99_959]);
    }

    #[test]
    fn the_box_of_short_runs_is_tight() {
        let mut counts = CocoRle::new(10);
        counts.push(Run { label: 0, start: 34, length: 2 });
        counts.push(Run { label: 0, start: 53, length: 1 });
        assert_eq!(counts.bounds(), [3, 3, 3, 3]);
        assert_eq!(decode(&counts.finish(54)), [34, 2, 17, 1]);
    }
}
