//! Images that annotations name: by path, by bare name, turned, gone, and in archives.

use super::*;

/// COCO of images `(id, name, width, height)`, each with a car on its first pixel.
fn coco(images: &[(u32, &str, u32, u32)]) -> String {
    let image = |(id, name, width, height): &(u32, &str, u32, u32)| {
        format!(r#"{{"id": {id}, "file_name": "{name}", "width": {width}, "height": {height}}}"#)
    };
    let annotation = |(id, ..): &(u32, &str, u32, u32)| {
        format!(
            r#"{{"id": {id}, "image_id": {id}, "category_id": 1, "segmentation": [[0, 0, 1, 0, 1, 1, 0, 1]]}}"#
        )
    };
    let images_text: Vec<String> = images.iter().map(image).collect();
    let annotations: Vec<String> = images.iter().map(annotation).collect();
    format!(
        r#"{{"images": [{}], "categories": [{{"id": 1, "name": "car"}}], "annotations": [{}]}}"#,
        images_text.join(", "),
        annotations.join(", ")
    )
}

fn sky(fixture: &Fixture) -> ConvertOptions {
    ConvertOptions { background: Some("sky".into()), ..fixture.options() }
}

#[test]
fn images_of_one_name_are_told_apart_by_path_and_else_cost_themselves() {
    let fixture = Fixture::new();
    // The sizes tell whether the right image was taken.
    for (name, width) in [("a.png", 2), ("sub/a.png", 3), ("deep/sub/b.png", 4), ("other/b.png", 5)]
    {
        fixture.image(&format!("photos/{name}"), width, 1);
    }
    let options = ConvertOptions { images: Some(fixture.at("photos")), ..sky(&fixture) };
    let all = [
        (1, "a.png", 2, 1),
        (2, "sub/a.png", 3, 1),
        (3, "./sub/b.png", 4, 1),
        (4, "photos/other/b.png", 5, 1),
    ];
    fixture.text("coco.json", &coco(&all));
    let (_, labels) = fixture.convert("coco.json", &options);
    let names: Vec<(&str, usize)> =
        labels.iter().map(|(name, labels)| (name.as_str(), labels.len())).collect();
    let expected =
        [("a.png", 2), ("deep/sub/b.png", 4), ("photos/other/b.png", 5), ("sub/a.png", 3)];
    assert_eq!(names.into_iter().collect::<std::collections::BTreeSet<_>>(), expected.into());
    // A bare name of two images, and two of one.
    for (names, first, second) in [
        (["b.png", "a.png"], "deep/sub/b.png", "other/b.png"),
        (["a.png", "a.png"], "photos/a.png", "photos/sub/a.png"),
    ] {
        let images = [(1, names[0], 2, 1), (2, names[1], 2, 1), (3, "sub/a.png", 3, 1)];
        fixture.text("coco.json", &coco(&images));
        let (_, counts) = fixture.counts("coco.json", &options);
        assert_eq!(counts.images + counts.failed.len(), 3);
        let error = counts.failed[0].to_string();
        assert!(
            [first, second, "write its path there", "coco.json"]
                .iter()
                .all(|part| error.contains(part)),
            "{error}"
        );
    }
    // Only one image has the name.
    fixture
        .text("coco.json", &coco(&[(1, "other/b.png", 5, 1), (2, "x/other/b.png", 5, 1), all[0]]));
    let (_, counts) = fixture.counts("coco.json", &options);
    let error = counts.failed[0].to_string();
    assert!(
        counts.images + counts.failed.len() == 3 && error.contains("write the path"),
        "{error}"
    );
}

#[test]
fn one_of_many_images_costs_itself_and_lists_go_without_it() {
    let fixture = Fixture::new();
    fixture.image("images/a.png", 2, 1);
    fixture.image("images/a.jpg", 2, 1);
    fixture.image("images/c.png", 9, 9);
    let all = [(1, "a.png", 2, 1), (2, "a.jpg", 2, 1), (3, "c.png", 2, 1), (4, "gone.png", 2, 1)];
    fixture.text("coco.json", &coco(&all));
    let (_, counts) = fixture.counts("coco.json", &sky(&fixture));
    let errors: Vec<String> = counts.failed.iter().map(ToString::to_string).collect();
    assert_eq!((counts.images, errors.len()), (1, 3), "{errors:?}");
    assert!(errors[0].contains("`a.png` and `a.jpg` would share a label map"), "{errors:?}");
    assert!(errors[1].contains("9x9 pixels, but its annotations are for 2x1"), "{errors:?}");
    assert!(errors[2].contains("the image `gone.png` of") && errors[2].contains("coco.json"));
    let list = fs::read_to_string(fixture.at("counted/all.txt")).unwrap();
    assert_eq!(list, "images/a.png\n");
    // COCO needs no image, and tells a.png from a.jpg.
    let conversion = Conversion::open(&fixture.at("coco.json"), &sky(&fixture)).unwrap();
    let counts = conversion
        .write_annotations(AnnotationFormat::Coco, &fixture.at("out.json"), || ())
        .unwrap();
    assert_eq!((counts.images, counts.failed.len()), (3, 1));
}

#[test]
fn annotations_of_stored_and_of_seen_pixels_are_placed_right() {
    let fixture = Fixture::new();
    // Stored 3x2 and seen 2x3: the first stored pixel is seen at the top right.
    fixture.turned_image("images/a.jpg", 3, 2);
    let options = sky(&fixture);
    let stored = [0, 1, 0, 0, 0, 0];
    let seen = [1, 0, 0, 0, 0, 0];
    for (size, expected, note) in
        [((3, 2), stored, Some("were turned like their images")), ((2, 3), seen, None)]
    {
        let (width, height) = size;
        fixture.text("coco.json", &coco(&[(1, "a.jpg", width, height)]));
        let cvat = format!(
            r#"<annotations><image name="a.jpg" width="{width}" height="{height}">
            <box label="car" xtl="0" ytl="0" xbr="1" ybr="1"/></image></annotations>"#
        );
        fixture.text("annotations.xml", &cvat);
        let labelme = format!(
            r#"{{"imagePath": "a.jpg", "imageHeight": {height}, "imageWidth": {width}, "shapes":
            [{{"label": "car", "points": [[0, 0], [1, 0], [1, 1], [0, 1]]}}]}}"#
        );
        fixture.text("labelme.json", &labelme);
        for file in ["coco.json", "annotations.xml", "labelme.json"] {
            let (_, labels) = fixture.convert(file, &options);
            assert_eq!(labels[0].1, expected, "{file} {size:?}");
            let (notes, _) = fixture.counts(file, &options);
            assert_eq!(notes.len(), usize::from(note.is_some()), "{file} {notes:?}");
            assert!(notes.iter().all(|text| text.contains(note.unwrap())), "{notes:?}");
        }
    }
    // A mask is turned too.
    fixture.text("set/classes.txt", "0 sky\n1 car\n");
    fixture.turned_image("set/images/a.jpg", 3, 2);
    fixture.mask("set/labels/a.png", 3, &[1, 0, 0, 0, 0, 0]);
    assert_eq!(fixture.convert("set", &fixture.options()).1[0].1, stored);
    // The size of a square does not tell, and a strange one fits neither way.
    fixture.turned_image("images/a.jpg", 2, 2);
    fixture.text("coco.json", &coco(&[(1, "a.jpg", 2, 2)]));
    let (notes, _) = fixture.counts("coco.json", &options);
    assert!(notes[0].contains("does not tell") && notes[0].contains("exiftool"), "{notes:?}");
    fixture.image("images/a.jpg", 2, 3);
    fixture.text("coco.json", &coco(&[(1, "a.jpg", 3, 2)]));
    let error = fixture.refusal("coco.json", &options);
    assert!(error.contains("lost its EXIF orientation") && error.contains("--images"), "{error}");
}

#[test]
fn files_of_an_archive_are_named_by_it() {
    let fixture = Fixture::new();
    fixture.image("set/a.png", 2, 1);
    fixture.text("set/coco.json", &coco(&[(1, "a.png", 2, 1), (2, "gone.png", 2, 1)]));
    fixture.zip("export.zip", "set", &["coco.json", "a.png"]);
    let (_, counts) = fixture.counts("export.zip", &sky(&fixture));
    let error = counts.failed[0].to_string();
    let entry = fixture.at("export.zip").join("coco.json");
    let expected = format!(
        "the image `gone.png` of {} is not found; name its folder with --images",
        entry.display()
    );
    assert_eq!(error, expected);
    fixture.text("set/coco.json", "{");
    fixture.zip("export.zip", "set", &["coco.json"]);
    let error = fixture.refusal("export.zip", &fixture.options());
    assert!(error.starts_with(&format!("{}: ", entry.display())), "{error}");
    fixture.text("set/notes.md", "x");
    fixture.zip("export.zip", "set", &["notes.md"]);
    let error = fixture.refusal("export.zip", &fixture.options());
    assert!(
        error.starts_with(&format!("{} holds no", fixture.at("export.zip").display())),
        "{error}"
    );
}

#[test]
fn roboflows_folders_become_lists_and_its_supercategory_no_class() {
    let fixture = Fixture::new();
    for (folder, size) in [("train", 2), ("valid", 3)] {
        fixture.image(&format!("set/{folder}/a.jpg"), size, 1);
        let text = coco(&[(0, "a.jpg", size, 1)]).replace(
            r#""categories": ["#,
            r#""categories": [{"id": 0, "name": "vehicles", "supercategory": "none"}, "#,
        );
        let text =
            text.replace(r#""name": "car""#, r#""name": "car", "supercategory": "vehicles""#);
        fixture.text(&format!("set/{folder}/_annotations.coco.json"), &text);
    }
    let (notes, counts) = fixture.counts("set", &sky(&fixture));
    assert!(
        notes[0].starts_with("`vehicles` has no annotation and is the supercategory"),
        "{notes:?}"
    );
    assert_eq!((counts.images, notes.len(), &counts.classes[..]), (2, 1, &[3, 2][..]));
    for name in ["train", "valid"] {
        let list = fs::read_to_string(fixture.at(&format!("counted/{name}.txt"))).unwrap();
        assert_eq!(list, format!("images/{name}/a.jpg\n"));
    }
}

#[test]
fn kinds_of_coco_annotations_are_counted_and_said() {
    let fixture = Fixture::new();
    fixture.image("a.png", 2, 2);
    fixture.image("b.png", 2, 2);
    let square = "[[0, 0, 1, 0, 1, 1, 0, 1]]";
    let coco = |annotations: &str| {
        format!(
            r#"{{"images": [{{"id": "7", "file_name": "a.png"}}, {{"id": 8, "file_name": "b.png", "width": 2.0, "height": 2}}],
            "categories": [{{"id": 1, "name": "car"}}, {{"id": 2, "name": "car"}}],
            "annotations": [{annotations}]}}"#
        )
    };
    fixture.text(
        "coco.json",
        &coco(&format!(
            r#"{{"image_id": 7, "category_id": 1, "segmentation": {square}}},
            {{"image_id": 7, "category_id": 2, "iscrowd": 1, "segmentation": {{"size": [2, 2], "counts": [2, 2]}}}},
            {{"image_id": 7, "category_id": 1, "segmentation": [], "bbox": [0, 0, 1, 1]}},
            {{"image_id": 7, "category_id": 1, "keypoints": [0, 0, 1], "bbox": [0, 0, 1, 1]}},
            {{"image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1]}},
            {{"image_id": 7, "category_id": 1, "segmentation": [[0, 0, 1, 1], [1, 1, 2, 1, 2, 2, 1, 2]]}},
            {{"image_id": 7, "category_id": 1, "segmentation": [5, 5, 9, 5, 9, 9]}},
            {{"image_id": 99, "category_id": 1, "segmentation": {square}}}"#
        )),
    );
    let (notes, counts) = fixture.counts("coco.json", &sky(&fixture));
    for part in [
        "3 annotations without a mask are left out: 1 boxes, 1 keypoints, 1 empty segmentations",
        "1 polygons of fewer than three points",
        "1 annotations of crowds (iscrowd)",
        "1 annotations of images that their file does not list",
        "categories of one name are one class: `car`",
        "images without a shape: b.png",
        "shapes outside of their image, or too small for a pixel: a.png",
    ] {
        assert!(notes.iter().any(|note| note.starts_with(part)), "{part}: {notes:?}");
    }
    assert_eq!((notes.len(), &counts.classes[..]), (7, &[5, 3][..]));
    fixture.text("coco.json", &coco(r#"{"image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1]}"#));
    let error = fixture.refusal("coco.json", &sky(&fixture));
    assert!(error.contains("its 1 annotations have no mask: 1 boxes; annotate masks"), "{error}");
}

#[test]
fn an_image_inside_of_labelmes_file_is_taken_where_there_is_no_other() {
    use base64::Engine;

    let fixture = Fixture::new();
    fixture.image("x.png", 2, 1);
    let data = base64::prelude::BASE64_STANDARD.encode(fs::read(fixture.at("x.png")).unwrap());
    let text = format!(
        r#"{{"imagePath": "../photos/a.png", "imageHeight": 1, "imageWidth": 2, "imageData": "{data}",
        "shapes": [{{"label": "car", "points": [[0, 0], [1, 0], [1, 1], [0, 1]]}}]}}"#
    );
    fixture.text("set/a.json", &text);
    let (notes, counts) = fixture.counts("set", &sky(&fixture));
    assert!(notes[0].starts_with("1 images are not found, and taken out of the JSON"), "{notes:?}");
    assert_eq!((counts.images, &counts.classes[..]), (1, &[1, 1][..]));
    let image = image::open(fixture.at("counted/images/photos/a.png")).unwrap();
    assert_eq!((image.width(), image.height()), (2, 1));
}

#[test]
fn panoptic_masks_count_before_other_files_of_their_images() {
    let fixture = Fixture::new();
    fixture.image("set/a.png", 2, 1);
    fixture.text("set/annotations/instances.json", &coco(&[(1, "a.png", 2, 1)]));
    fixture.text("set/annotations/stuff.json", &coco(&[(1, "a.png", 2, 1)]));
    let error = fixture.refusal("set", &sky(&fixture));
    assert!(error.contains("stuff.json: the image `a.png` has annotations in "), "{error}");
    assert!(error.contains("instances.json too; convert one of the files"), "{error}");
    fixture.colors("set/annotations/panoptic/a.png", 2, &[[0; 3], [7, 0, 0]]);
    fixture.text(
        "set/annotations/panoptic.json",
        r#"{"images": [{"id": 1, "file_name": "a.png", "width": 2, "height": 1}],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 7, "category_id": 1}]}]}"#,
    );
    let (notes, counts) = fixture.counts("set", &sky(&fixture));
    assert!(
        notes.len() == 1 && notes[0].contains("count before") && notes[0].contains("stuff.json")
    );
    assert_eq!((counts.images, counts.uncovered, &counts.classes[..]), (1, 1, &[1, 1][..]));
}

#[test]
fn a_broken_file_or_shape_costs_its_image() {
    let fixture = Fixture::new();
    let good = r#"{"label": "car", "points": [[0, 0], [1, 0], [1, 1]]}"#;
    for (name, shape) in
        [("b", good), ("c", r#"{"label": "car", "points": [], "shape_type": "circle"}"#)]
    {
        fixture.image(&format!("set/{name}.png"), 2, 1);
        let text = format!(
            r#"{{"imagePath": "{name}.png", "imageHeight": 1, "imageWidth": 2, "shapes": [{shape}]}}"#
        );
        fixture.text(&format!("set/{name}.json"), &text);
    }
    fixture.image("set/a.png", 2, 1);
    fixture.text("set/a.json", "{\"shapes\": [");
    let (_, counts) = fixture.counts("set", &sky(&fixture));
    let errors: Vec<String> = counts.failed.iter().map(ToString::to_string).collect();
    assert_eq!((counts.images, errors.len()), (1, 2), "{errors:?}");
    assert!(errors[0].contains("a.json: cannot be read"), "{errors:?}");
    assert!(errors[1].contains("c.json: a shape of `car` needs two points"), "{errors:?}");
    let cvat = r#"<annotations><image name="b.png" width="2" height="1"><polygon label="car"
        points="0,0;1,0;1,1"/></image><image name="c.png" width="2" height="1"><polygon label="car"
        points="x"/></image></annotations>"#;
    fixture.text("set/annotations.xml", cvat);
    let (_, counts) = fixture.counts("set/annotations.xml", &sky(&fixture));
    let error = counts.failed[0].to_string();
    assert!(
        counts.images == 1 && error.contains("in `c.png`, a polygon has broken points"),
        "{error}"
    );
    fixture.text(
        "set/coco.json",
        &coco(&[(1, "b.png", 2, 1), (2, "c.png", 2, 1)]).replacen(
            r#""image_id": 2, "category_id": 1"#,
            r#""image_id": 2, "category_id": 9"#,
            1,
        ),
    );
    let (_, counts) = fixture.counts("set/coco.json", &sky(&fixture));
    let error = counts.failed[0].to_string();
    assert!(counts.images == 1 && error.contains("no category with the id 9"), "{error}");
}

#[test]
fn cocos_numbers_may_be_texts_and_faults_name_their_entry() {
    let fixture = Fixture::new();
    fixture.image("a.png", 4, 2);
    let coco = |size: &str, polygon: &str, further: &str| {
        format!(
            r#"{{"images": [{{"id": 1, "file_name": "a.png"{size}}}{further}],
            "categories": [{{"id": 3, "name": "car"}}],
            "annotations": [{{"id": 12, "image_id": 1, "category_id": 3, "segmentation": {polygon}}}]}}"#
        )
    };
    let size = r#", "width": "4", "height": "2""#;
    let texts = r#"[["0", "0", "2", "0", "2", "2", "0", "2"]]"#;
    fixture.text("coco.json", &coco(size, texts, ""));
    assert_eq!(fixture.convert("coco.json", &sky(&fixture)).1[0].1, [1, 1, 0, 0, 1, 1, 0, 0]);
    fs::remove_dir_all(fixture.at("converted")).unwrap();
    // Shares of the sides, whether the file has the size or not.
    for size in [size, ""] {
        fixture.text("coco.json", &coco(size, "[[0, 0, 0.5, 0, 0.5, 1, 0, 1]]", ""));
        let error = fixture.refusal("coco.json", &sky(&fixture));
        assert!(error.contains("from 0 to 1") && error.contains("multiply them"), "{error}");
    }
    let whole = "[[0, 0, 2, 0, 2, 2, 0, 2]]";
    fixture.text(
        "coco.json",
        &coco(size, whole, "").replace(r#""category_id": 3"#, r#""category_id": 9"#),
    );
    let error = fixture.refusal("coco.json", &sky(&fixture));
    let parts = ["the id 9 of the annotation 12 of `a.png`; the file has 3", "`category_id`"];
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    fixture.text("coco.json", &coco(size, whole, "").replace(r#""image_id": 1, "#, ""));
    let error = fixture.refusal("coco.json", &sky(&fixture));
    assert!(error.contains("entry 1 of `annotations` (id 12)"), "{error}");
    fixture.text("coco.json", &coco(size, whole, r#", {"id": 2, "file_name": "a.png"}"#));
    let error = fixture.refusal("coco.json", &sky(&fixture));
    assert!(error.contains("a.png twice") && error.contains("one of the two ids"), "{error}");
}
