//! Round trips through every format that is written, and small files of other programs.

mod layouts;
mod names;
mod palettes;
mod places;
mod samples;
mod studio;
mod supervisely;
mod tracks;
mod trees;

use std::fs;
use std::io::Write;

use image::{GrayImage, RgbImage};
use protoseg_models::random::Stream;

use super::*;
use crate::dataset::Dataset;
use crate::formats::AnnotationFormat;
use crate::labeled::LabeledDataset;

/// A folder with files, and the folder that is converted to.
struct Fixture {
    root: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        let path = self.root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn text(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
    }

    fn image(&self, name: &str, width: u32, height: u32) {
        RgbImage::new(width, height).save(self.at(name)).unwrap();
    }

    fn mask(&self, name: &str, width: u32, samples: &[u8]) {
        let height = samples.len() as u32 / width;
        let mask = GrayImage::from_raw(width, height, samples.to_vec()).unwrap();
        mask.save(self.at(name)).unwrap();
    }

    /// An image that is stored with these sides, and seen after a quarter turn to the right.
    fn turned_image(&self, name: &str, width: u32, height: u32) {
        use image::ImageEncoder;
        // TIFF header and one entry: orientation 6.
        let exif = b"MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let file = fs::File::create(self.at(name)).unwrap();
        let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(file, 90);
        encoder.set_exif_metadata(exif.to_vec()).unwrap();
        encoder.encode_image(&RgbImage::new(width, height)).unwrap();
    }

    /// A mask in RGB.
    fn colors(&self, name: &str, width: u32, colors: &[[u8; 3]]) {
        let height = colors.len() as u32 / width;
        let samples = colors.as_flattened().to_vec();
        RgbImage::from_raw(width, height, samples).unwrap().save(self.at(name)).unwrap();
    }

    /// An archive of files below a folder of the fixture.
    fn zip(&self, name: &str, folder: &str, files: &[&str]) {
        let mut archive = zip::ZipWriter::new(fs::File::create(self.at(name)).unwrap());
        for file in files {
            archive.start_file(*file, zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(&fs::read(self.at(folder).join(file)).unwrap()).unwrap();
        }
        archive.finish().unwrap();
    }

    /// Converts `name` to a folder; returns the notes of reading and of drawing, and the counts.
    fn counts(&self, name: &str, options: &ConvertOptions) -> (Vec<String>, ConversionCounts) {
        let _ = fs::remove_dir_all(self.at("counted"));
        let conversion = Conversion::open(&self.at(name), options).unwrap();
        let counts = conversion.write_folder(&self.at("counted"), || ()).unwrap();
        let notes = conversion.notes().iter().cloned().chain(counts.notes()).collect();
        (notes, counts)
    }

    /// The reason why `name` cannot be converted; nothing may be written.
    fn refusal(&self, name: &str, options: &ConvertOptions) -> String {
        let out = self.at("refused");
        let opened = Conversion::open(&self.at(name), options);
        let written = opened.and_then(|opened| opened.write_folder(&out, || ()).map(drop));
        assert!(!out.exists());
        written.unwrap_err().to_string()
    }

    fn options(&self) -> ConvertOptions {
        ConvertOptions { max_pixels: 1 << 20, ..ConvertOptions::default() }
    }

    /// Converts `name` to a folder and reads it: text of the class file, and train ids of each image.
    fn convert(&self, name: &str, options: &ConvertOptions) -> (String, Vec<(String, Vec<u8>)>) {
        let out = self.at("converted");
        let _ = fs::remove_dir_all(&out);
        let conversion = Conversion::open(&self.at(name), options).unwrap();
        conversion.write_folder(&out, || ()).unwrap();
        let set = LabeledDataset::from_files(Dataset::Folder, &out, Some(&out.join("all.txt")), "")
            .unwrap();
        let labels = |index| {
            let name =
                Path::new(&set.name(index)).strip_prefix(out.join("images")).unwrap().to_owned();
            (name.display().to_string(), set.read(index, 1 << 20).unwrap().truth)
        };
        let labels = (0..set.count()).map(labels).collect();
        (fs::read_to_string(out.join("classes.txt")).unwrap(), labels)
    }
}

#[test]
fn a_round_trip_through_every_format_loses_nothing() {
    let fixture = Fixture::new();
    let classes = "3 open water 0 0 255\n8 field 0 255 0\n9 road, old 9 9 9\n";
    fixture.text("set/classes.txt", classes);
    let mut expected = Vec::new();
    for (seed, name) in ["a", "deep b/c"].into_iter().enumerate() {
        let stream = Stream::keyed(&[seed as u64]);
        let draw = |index: u64| [3, 8, 9, 255][stream.below(index, 4)];
        let samples: Vec<u8> = (0..19 * 31).map(draw).collect();
        fixture.image(&format!("set/images/{name}.png"), 31, 19);
        fixture.mask(&format!("set/labels/{name}.png"), 31, &samples);
        let label =
            |id: &u8| [3, 8, 9].iter().position(|class| class == id).map_or(255, |at| at as u8);
        expected.push((format!("{name}.png"), samples.iter().map(label).collect::<Vec<_>>()));
    }
    let options = fixture.options();
    let plain = fixture.convert("set", &options);
    assert_eq!(plain, (classes.to_owned(), expected.clone()));
    let conversion = Conversion::open(&fixture.at("set"), &options).unwrap();
    let back = ConvertOptions {
        images: Some(fixture.at("set/images")),
        classes: Some(fixture.at("set/classes.txt")),
        ..options
    };
    for format in [AnnotationFormat::Coco, AnnotationFormat::Cvat, AnnotationFormat::LabelStudio] {
        let file = format.file_name();
        let counts = conversion.write_annotations(format, &fixture.at(file), || ()).unwrap();
        assert_eq!((counts.images, counts.pixels()), (2, 2 * 19 * 31));
        assert_eq!(fixture.convert(file, &back), (classes.to_owned(), expected.clone()), "{file}");
    }
}

#[test]
fn cvats_masks_and_lists_are_read_from_folder_and_archive() {
    let fixture = Fixture::new();
    fixture.text(
        "cvat/labelmap.txt",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:128,0,0::\n",
    );
    fixture.image("cvat/JPEGImages/a.jpg", 2, 1);
    fixture.text("cvat/ImageSets/Segmentation/train.txt", "a\n");
    RgbImage::from_raw(2, 1, vec![128, 0, 0, 0, 0, 0])
        .unwrap()
        .save(fixture.at("cvat/SegmentationClass/a.png"))
        .unwrap();
    let classes = "0 background 0 0 0\n1 car 128 0 0\n".to_owned();
    let expected = (classes, vec![("a.jpg".to_owned(), vec![1, 0])]);
    assert_eq!(fixture.convert("cvat", &fixture.options()), expected);
    assert_eq!(fs::read_to_string(fixture.at("converted/train.txt")).unwrap(), "images/a.jpg\n");
    let files = ["labelmap.txt", "JPEGImages/a.jpg", "SegmentationClass/a.png"];
    fixture.zip("cvat.zip", "cvat", &files);
    assert_eq!(fixture.convert("cvat.zip", &fixture.options()), expected);
    // People pack the folder too.
    let deep = files.map(|name| format!("cvat/{name}"));
    fixture.zip("deep.zip", ".", &deep.each_ref().map(String::as_str));
    assert_eq!(fixture.convert("deep.zip", &fixture.options()), expected);
}

#[test]
fn shapes_of_coco_cvat_labelme_and_label_studio_become_the_same_labels() {
    let fixture = Fixture::new();
    fixture.image("images/a.png", 6, 4);
    // A car over the middle of a road; the sky is in no shape.
    let coco = r#"{"images": [{"id": 7, "file_name": "a.png", "width": 6, "height": 4}],
        "categories": [{"id": 2, "name": "road"}, {"id": 5, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 2, "segmentation": [[0, 2, 6, 2, 6, 4, 0, 4]]},
            {"id": 2, "image_id": 7, "category_id": 5, "iscrowd": 1,
             "segmentation": {"size": [4, 6], "counts": [9, 2, 2, 2, 9]}},
            {"id": 3, "image_id": 7, "category_id": 5, "bbox": [0, 0, 1, 1]}]}"#;
    let cvat = r##"<annotations><meta><task><labels><label><name>road</name><color>#ff0001</color></label>
        <label><name>car</name></label></labels></task></meta>
        <image id="0" name="a.png" width="6" height="4">
        <mask label="car" rle="0, 4" left="2" top="1" width="2" height="2" z_order="1"/>
        <box label="road" xtl="0" ytl="2" xbr="6" ybr="4" z_order="0"/><tag label="car"/>
        </image></annotations>"##;
    let labelme = r#"{"version": "5", "imagePath": "..\\images\\a.png", "imageHeight": 4, "imageWidth": 6,
        "shapes": [{"label": "road", "points": [[0, 2], [6, 4]], "shape_type": "rectangle"},
        {"label": "car", "points": [[2, 1], [4, 1], [4, 3], [2, 3]], "shape_type": "polygon"},
        {"label": "car", "points": [[0, 0]], "shape_type": "point"}]}"#;
    let percent = |side: f64, of: f64| 100.0 * side / of;
    let label_studio = format!(
        r#"[{{"data": {{"image": "/data/upload/3/0123abcd-a.png"}}, "annotations": [{{"result": [
        {{"original_width": 6, "original_height": 4, "type": "rectanglelabels", "value":
          {{"x": 0, "y": 50, "width": 100, "height": 50, "rotation": 0, "rectanglelabels": ["road"]}}}},
        {{"original_width": 6, "original_height": 4, "type": "polygonlabels", "value":
          {{"points": [[{l}, 25], [{r}, 25], [{r}, 75], [{l}, 75]], "polygonlabels": ["car"]}}}},
        {{"type": "choices", "value": {{"choices": ["sunny"]}}}}]}}]}}]"#,
        l = percent(2.0, 6.0),
        r = percent(4.0, 6.0)
    );
    let expected = vec![
        9, 9, 9, 9, 9, 9, //
        9, 9, 2, 2, 9, 9, //
        1, 1, 2, 2, 1, 1, //
        1, 1, 1, 1, 1, 1,
    ];
    let with =
        |sky: u8| expected.iter().map(|&label| if label == 9 { sky } else { label }).collect();
    for (file, text) in [
        ("coco.json", coco),
        ("annotations.xml", cvat),
        ("labelme.json", labelme),
        ("studio.json", &label_studio),
    ] {
        fixture.text(file, text);
        let options = ConvertOptions { background: Some("sky".into()), ..fixture.options() };
        let options = ConvertOptions { images: Some(fixture.at("images")), ..options };
        let conversion = Conversion::open(&fixture.at(file), &options).unwrap();
        // Shapes without an area, and a crowd.
        let notes = if file == "coco.json" { 2 } else { 1 };
        assert_eq!(conversion.notes().len(), notes, "{file}: {:?}", conversion.notes());
        let (classes, labels) = fixture.convert(file, &options);
        let names: Vec<&str> =
            classes.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
        assert_eq!(names, ["sky", "road", "car"], "{file}");
        assert_eq!(labels, [("a.png".to_owned(), with(0))], "{file}");
        // Without a background, what no shape covers counts for nothing.
        let bare = ConvertOptions { background: None, ..options };
        let conversion = Conversion::open(&fixture.at(file), &bare).unwrap();
        let counts = conversion.write_annotations(AnnotationFormat::Coco, &fixture.at("x"), || ());
        let counts = counts.unwrap();
        assert_eq!((counts.uncovered, counts.ignored, counts.overlapping), (10, 10, 2), "{file}");
    }
}

#[test]
fn panoptic_segments_are_read_by_their_colors() {
    let fixture = Fixture::new();
    fixture.image("images/a.jpg", 2, 1);
    RgbImage::from_raw(2, 1, vec![1, 1, 0, 0, 0, 0])
        .unwrap()
        .save(fixture.at("panoptic/a.png"))
        .unwrap();
    fixture.text(
        "panoptic.json",
        r#"{"images": [{"id": 1, "file_name": "a.jpg", "width": 2, "height": 1}],
        "categories": [{"id": 3, "name": "car", "color": [9, 8, 7]}, {"id": 4, "name": "sky"}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 257, "category_id": 4}]}]}"#,
    );
    let (classes, labels) = fixture.convert("panoptic.json", &fixture.options());
    assert!(classes.starts_with("0 car 9 8 7\n1 sky "), "{classes}");
    assert_eq!(labels, [("a.jpg".to_owned(), vec![1, 255])]);
}

#[test]
fn a_mask_for_each_class_is_found_by_every_kind_of_name() {
    for names in [
        ["labels/a.car.png", "labels/b.car.png", "labels/b.old tree.png"],
        ["labels/car/a.png", "labels/car/b.png", "labels/old tree/b.png"],
        ["labels/a/car.png", "labels/b/car.png", "labels/b/old_tree.png"],
        ["masks/a_Car_0.png", "masks/b_Car_0.png", "masks/b_old-tree_1.png"],
        [
            "labels/task-3-annotation-1-by-1-tag-car-0.png",
            "labels/task-12-annotation-1-by-1-tag-car-0.png",
            "labels/task-12-annotation-1-by-1-tag-old tree-0.png",
        ],
    ] {
        let fixture = Fixture::new();
        fixture.text("set/classes.txt", "0 background\n1 car\n2 old tree\n");
        for (image, masks) in [("a", 0..1), ("b", 1..3)] {
            fixture.image(&format!("set/images/{image}.png"), 3, 1);
            for mask in masks {
                let samples = [[255, 0, 0], [255, 0, 0], [0, 1, 0]][mask];
                fixture.mask(&format!("set/{}", names[mask]), 3, &samples);
            }
        }
        let (_, labels) = fixture.convert("set", &fixture.options());
        let expected = [("a.png".to_owned(), vec![1, 0, 0]), ("b.png".to_owned(), vec![1, 2, 0])];
        assert_eq!(labels, expected, "{names:?}");
    }
}

#[test]
fn a_threshold_makes_ids_of_smoothed_masks_and_jpegs() {
    let fixture = Fixture::new();
    fixture.image("set/images/a.png", 16, 8);
    fixture.mask("set/labels/a.jpg", 16, &[[0; 8], [255; 8]].concat().repeat(8));
    let options = ConvertOptions { threshold: Some(128), ..fixture.options() };
    let (classes, labels) = fixture.convert("set", &options);
    assert!(
        classes.starts_with("0 background ") && classes.contains("\n1 foreground "),
        "{classes}"
    );
    assert_eq!(labels[0].1, [[0; 8], [1; 8]].concat().repeat(8));
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_way_out() {
    let fixture = Fixture::new();
    let coco = |size: usize, name: &str| {
        format!(
            r#"{{"images": [{{"id": 1, "file_name": "{name}", "width": {size}, "height": 1}}],
            "categories": [{{"id": 1, "name": "car"}}],
            "annotations": [{{"image_id": 1, "category_id": 1,
             "segmentation": {{"size": [1, {size}], "counts": "01"}}}}]}}"#
        )
    };
    fixture.image("one/a.png", 2, 1);
    fixture.image("two/a.png", 2, 1);
    let refused = |options: &ConvertOptions| {
        let opened = Conversion::open(&fixture.at("coco.json"), options);
        let _ = fs::remove_dir_all(fixture.at("out"));
        let written = opened.and_then(|opened| opened.write_folder(&fixture.at("out"), || ()));
        assert!(!fixture.at("out").exists());
        written.unwrap_err().to_string()
    };
    let plain = ConvertOptions { background: Some("sky".into()), ..fixture.options() };
    let one = ConvertOptions { images: Some(fixture.at("one")), ..plain.clone() };
    fixture.text("coco.json", &coco(1, "a.png"));
    assert!(refused(&plain).contains("name the right folder with --images"));
    assert!(
        refused(&ConvertOptions { background: None, ..one.clone() }).contains("--background NAME")
    );
    let size = refused(&one);
    assert!(size.contains("a.png has 2x1 pixels, but its annotations are for 1x1"), "{size}");
    fixture.text("coco.json", &coco(1, "b.png"));
    assert!(refused(&one).contains("the image `b.png`"), "{}", refused(&one));
    fixture.text("coco.json", &coco(3, "a.png"));
    assert!(refused(&one).contains("run lengths of another size"), "{}", refused(&one));
    fixture.text("classes.txt", "0 sky\n1 bus\n");
    let classes = ConvertOptions { classes: Some(fixture.at("classes.txt")), ..one.clone() };
    fixture.text("coco.json", &coco(1, "a.png"));
    assert!(refused(&classes).contains("lacks the classes car"), "{}", refused(&classes));
    let ignored = ConvertOptions { ignore: vec!["tram".into()], ..one };
    assert!(refused(&ignored).contains("--ignore `tram` is none of the classes car"));
    fixture.text("coco.json", "{");
    assert!(refused(&plain).contains("coco.json"));
}
