//! Where people keep masks: beside their images, in folders of splits, one for each class.

use super::*;

const CLASSES: &str = "0 road\n1 car\n";

fn with_background(fixture: &Fixture) -> ConvertOptions {
    ConvertOptions { background: Some("ground".into()), ..fixture.options() }
}

/// Images of a folder, and masks `0 1` of others.
fn set(images: &[&str], masks: &[&str]) -> Fixture {
    let fixture = Fixture::new();
    for image in images {
        fixture.image(&format!("set/{image}"), 2, 1);
    }
    for mask in masks {
        fixture.mask(&format!("set/{mask}"), 2, &[0, 1]);
    }
    fixture.text("set/classes.txt", CLASSES);
    fixture
}

fn names(fixture: &Fixture) -> Vec<String> {
    let labels = fixture.convert("set", &fixture.options()).1;
    assert!(labels.iter().all(|(_, labels)| *labels == [0, 1]), "{labels:?}");
    labels.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn masks_are_paired_as_in_training() {
    for (images, masks) in [
        (["1.jpg", "2.jpg"], ["1.png", "2.png"]),
        (["images/train/a.jpg", "images/val/b.jpg"], ["masks/a.png", "masks/b.png"]),
        (["images/a.jpg", "images/b.jpg"], ["masks/train/a.png", "masks/val/b.png"]),
        (["images/a.JPG", "images/b.JPG"], ["labels/A.png", "labels/B.tif"]),
        (["img/a.jpg", "img/b.jpg"], ["annotations/a.png", "annotations/b.png"]),
        (["train/images/a.jpg", "val/images/b.jpg"], ["train/masks/a.png", "val/masks/b.png"]),
        (["train/a.png", "val/b.png"], ["train_labels/a_L.png", "val_labels/b_L.png"]),
        (["images/1_sat.jpg", "images/2_sat.jpg"], ["masks/1_mask.png", "masks/2_mask.png"]),
        (["img_1.jpg", "img_2.jpg"], ["img_1_seg.png", "img_2_seg.png"]),
        (
            ["images/x_leftImg8bit.png", "images/y_leftImg8bit.png"],
            ["labels/x_gtFine_labelIds.png", "labels/y_gtFine_labelIds.png"],
        ),
    ] {
        let fixture = set(&images, &masks);
        assert_eq!(names(&fixture).len(), 2, "{images:?}");
        let conversion = Conversion::open(&fixture.at("set"), &fixture.options()).unwrap();
        assert_eq!(conversion.format(), SourceFormat::Folder, "{images:?}");
        // What is in one place for training is the same there.
        if let Ok(list) = Dataset::Folder.split(&fixture.at("set"), "all") {
            assert_eq!(list.samples.len(), 2, "{images:?}");
        }
    }
    let fixture =
        set(&["train/images/a.jpg", "val/images/b.jpg"], &["train/masks/a.png", "val/masks/b.png"]);
    assert_eq!(names(&fixture), ["train/a.jpg", "val/b.jpg"]);
    let list = fs::read_to_string(fixture.at("converted/val.txt")).unwrap();
    assert_eq!(list, "images/val/b.jpg\n");
    // Two masks of one image, and one of no image.
    let masks = ["labels/a.png", "labels/a.tif", "labels/b.png", "labels/c.png"];
    let fixture = set(&["images/a.jpg", "images/b.jpg"], &masks);
    let (notes, counts) = fixture.counts("set", &fixture.options());
    assert_eq!(counts.images, 1);
    let failed = counts.failed[0].to_string();
    assert!(
        failed.contains("a.png: is a label map of `a.jpg`") && failed.contains("a.tif"),
        "{failed}"
    );
    assert!(notes[0].starts_with("1 of 4 files among the masks has no image"), "{notes:?}");
}

#[test]
fn unlabeled_images_are_counted_and_taken_over_if_wanted() {
    let shape = r#"{"label": "car", "points": [[0, 0], [1, 0], [1, 1], [0, 1]]}"#;
    let labelme = format!(
        r#"{{"shapes": [{shape}], "imagePath": "a.png", "imageHeight": 1, "imageWidth": 2}}"#
    );
    let coco = r#"{"images": [{"id": 1, "file_name": "a.png", "width": 2, "height": 1}],
        "categories": [{"id": 1, "name": "car"}], "annotations": [{"id": 1, "image_id": 1,
        "category_id": 1, "iscrowd": 0, "segmentation": [[0, 0, 1, 0, 1, 1, 0, 1]]}]}"#;
    let cvat = r#"<annotations><image name="a.png" width="2" height="1"><box label="car" xtl="0" ytl="0"
        xbr="1" ybr="1"/></image></annotations>"#;
    for (file, text) in [("a.json", &*labelme), ("x.json", coco), ("annotations.xml", cvat)] {
        let fixture = Fixture::new();
        for name in ["a", "b", "deep/c"] {
            fixture.image(&format!("set/{name}.png"), 2, 1);
        }
        fixture.text(&format!("set/{file}"), text);
        let options = with_background(&fixture);
        let (notes, counts) = fixture.counts("set", &options);
        assert_eq!(counts.images, 1, "{file}");
        let expected = "2 images have no annotations and are left out, such as b.png, deep/c.png; \
                        --unlabeled takes them over, for semi-supervised training";
        assert!(notes.iter().any(|note| note == expected), "{file}: {notes:?}");
        let wanted = ConvertOptions { unlabeled: true, ..options };
        let (notes, _) = fixture.counts("set", &wanted);
        assert!(notes.iter().any(|note| note.contains("listed in unlabeled.txt")), "{notes:?}");
        let list = fixture.at("counted/unlabeled.txt");
        assert_eq!(fs::read_to_string(&list).unwrap(), "unlabeled/b.png\nunlabeled/deep/c.png\n");
        for list in ["unlabeled.txt", "unlabeled"] {
            let list = fixture.at("counted").join(list);
            let images = Dataset::Folder.unlabeled(&fixture.at("counted"), &list).unwrap();
            assert_eq!(images.samples.len(), 2);
        }
        // The labeled ones are a data set without a list.
        assert_eq!(Dataset::Folder.split(&fixture.at("counted"), "all").unwrap().samples.len(), 1);
    }
    let fixture = set(&["images/a.jpg", "images/b.jpg"], &["masks/a.png"]);
    let (notes, _) = fixture.counts("set", &fixture.options());
    assert!(notes[0].starts_with("1 image has no annotations and is left out"), "{notes:?}");
}

#[test]
fn a_mask_for_each_class_is_read_in_both_layouts() {
    for masks in [
        ["masks/1_car_mask.png", "masks/1_open water_mask.png"],
        ["masks/car/1.png", "masks/open water/1.png"],
        ["labels/1.car.png", "labels/1.open water.png"],
        ["1_car.png", "1_open water.png"],
        ["car/1.png", "open water/1.png"],
        ["gt/1-seg-car.png", "gt/1-seg-open water.png"],
    ] {
        let fixture = Fixture::new();
        let image = if masks[0].starts_with("1_") { "set/1.jpg" } else { "set/images/1.jpg" };
        fixture.image(image, 3, 1);
        fixture.mask(&format!("set/{}", masks[0]), 3, &[255, 0, 0]);
        fixture.mask(&format!("set/{}", masks[1]), 3, &[0, 255, 0]);
        let (classes, labels) = fixture.convert("set", &with_background(&fixture));
        let names: Vec<&str> = classes.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        assert_eq!(
            (names, &labels[0].1[..]),
            (vec!["ground", "car", "open"], &[1, 2, 0][..]),
            "{masks:?}"
        );
        let (notes, _) = fixture.counts("set", &with_background(&fixture));
        assert!(notes[0].contains("`car` (1 mask, such as"), "{notes:?}");
    }
    // Numbers that name images.
    let fixture = Fixture::new();
    for name in ["1", "2"] {
        fixture.image(&format!("set/images/{name}.jpg"), 1, 1);
        fixture.mask(&format!("set/masks/{name}_car_2.png"), 1, &[255]);
    }
    assert_eq!(fixture.convert("set", &with_background(&fixture)).1.len(), 2);
}

#[test]
fn roboflows_masks_have_the_classes_of_their_table() {
    let fixture = Fixture::new();
    let table = "Pixel Value, Class\n0, background\n1, car\n2, road\n";
    for split in ["train", "valid"] {
        for name in ["a_jpg.rf.1", "b_jpg.rf.2"] {
            fixture.image(&format!("rf/{split}/{name}.jpg"), 4, 1);
            fixture.mask(&format!("rf/{split}/{name}_mask.png"), 4, &[0, 1, 2, 255]);
        }
        fixture.image(&format!("rf/{split}/bare.jpg"), 4, 1);
        fixture.text(&format!("rf/{split}/_classes.csv"), table);
    }
    let (classes, labels) = fixture.convert("rf", &fixture.options());
    assert!(classes.starts_with("0 background") && classes.contains("\n2 road"), "{classes}");
    assert_eq!(labels.len(), 4);
    assert_eq!(labels[0], ("train/a_jpg.rf.1.jpg".to_owned(), vec![0, 1, 2, 255]));
    let list = fs::read_to_string(fixture.at("converted/valid.txt")).unwrap();
    assert_eq!(list, "images/valid/a_jpg.rf.1.jpg\nimages/valid/b_jpg.rf.2.jpg\n");
    let (notes, _) = fixture.counts("rf", &fixture.options());
    assert!(notes.iter().any(|note| note.starts_with("2 images have no annotations")), "{notes:?}");
    assert_eq!(fixture.convert("rf/train", &fixture.options()).1[0].0, "a_jpg.rf.1.jpg");
    // In the order of another file.
    fixture.text("mine.txt", "7 road\n8 car\n9 background\n");
    let mine = ConvertOptions { classes: Some(fixture.at("mine.txt")), ..fixture.options() };
    assert_eq!(fixture.convert("rf", &mine).1[0].1, [2, 1, 0, 255]);
    fixture.mask("rf/train/a_jpg.rf.1_mask.png", 4, &[0, 1, 2, 9]);
    let error = fixture.refusal("rf", &fixture.options());
    assert!(error.contains("add a row of the name `ignore`"), "{error}");
    fixture.text("rf/valid/_classes.csv", "Pixel Value, Class\n0, background\n1, road\n");
    assert!(fixture.refusal("rf", &fixture.options()).contains("has other classes than"));
    // The table of a folder that is trained on as it stands.
    let fixture = set(&["images/a.jpg"], &["labels/a.png"]);
    fs::remove_file(fixture.at("set/classes.txt")).unwrap();
    fixture.text("set/_classes.csv", table);
    assert_eq!(Dataset::Folder.classes(&fixture.at("set")).unwrap().count(), 3);
    assert_eq!(fixture.convert("set", &fixture.options()).1.len(), 1);
}

#[test]
fn what_is_not_read_is_named_by_its_content() {
    let fixture = Fixture::new();
    let row = r#"{"data_row": {"id": "1"}, "media_attributes": {}, "projects": {}}"#;
    for name in ["lb/export.ndjson", "lb2/export.json"] {
        fixture.text(name, &format!("{row}\n{row}\n"));
    }
    for name in ["lb", "lb/export.ndjson", "lb2", "lb2/export.json"] {
        let error = fixture.refusal(name, &fixture.options());
        let parts = ["Labelbox", "URLs, which are not fetched", "--from masks"];
        assert!(parts.iter().all(|part| error.contains(part)), "{name}: {error}");
    }
    fixture.text("city/leftImg8bit/train/x/a.txt", "");
    fixture.text("city/gtFine/train/x/a.txt", "");
    assert!(fixture.refusal("city", &fixture.options()).contains("`data = \"cityscapes\"`"));
    fixture.image("npy/images/a.jpg", 1, 1);
    fixture.text("npy/masks/a.npy", "");
    assert!(fixture.refusal("npy", &fixture.options()).contains("save the masks as PNG"));
    fixture.image("none/a.jpg", 1, 1);
    let error = fixture.refusal("none", &fixture.options());
    assert!(
        error.contains("`labels` beside `images`") && error.contains("masks/car/a.png"),
        "{error}"
    );
}

#[test]
fn a_mask_with_an_orientation_of_its_own_is_turned_and_said() {
    // An eXIf chunk of orientation 6, behind the header of a PNG.
    let oriented = |fixture: &Fixture, name: &str, width: u32, samples: &[u8]| {
        let height = samples.len() as u32 / width;
        let mut bytes = Vec::new();
        let mut info = png::Info::with_size(width, height);
        info.exif_metadata =
            Some(b"MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".into());
        let mut encoder = png::Encoder::with_info(&mut bytes, info).unwrap();
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header().unwrap().write_image_data(samples).unwrap();
        fs::write(fixture.at(name), bytes).unwrap();
    };
    let fixture = Fixture::new();
    fixture.text("set/classes.txt", CLASSES);
    fixture.turned_image("set/images/a.jpg", 3, 1);
    fixture.image("set/images/b.png", 1, 3);
    fixture.image("set/images/c.png", 3, 1);
    fixture.image("set/images/d.png", 2, 2);
    for name in ["a", "b", "c"] {
        oriented(&fixture, &format!("set/labels/{name}.png"), 3, &[0, 1, 1]);
    }
    oriented(&fixture, "set/labels/d.png", 2, &[0, 1, 1, 1]);
    let (notes, counts) = fixture.counts("set", &fixture.options());
    assert_eq!(counts.images, 4);
    let set = LabeledDataset::from_files(Dataset::Folder, &fixture.at("set"), None, "all").unwrap();
    let truth: Vec<Vec<u8>> = (0..4).map(|index| set.read(index, 100).unwrap().truth).collect();
    assert_eq!(truth[..3], [[0, 1, 1], [0, 1, 1], [0, 1, 1]]);
    assert_eq!(truth[3], [1, 0, 1, 1]);
    let converted = fixture.convert("set", &fixture.options()).1;
    assert_eq!(converted.into_iter().map(|(_, labels)| labels).collect::<Vec<_>>(), truth);
    for notes in [notes, set.warnings(4)] {
        let text = notes.join("\n");
        for part in [
            "turned by the EXIF orientation of their own files",
            "that was not applied, as only the pixels as stored have",
            "whether that is right",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
