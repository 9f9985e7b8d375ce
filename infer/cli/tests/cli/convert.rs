//! `protoseg convert`, and that what it writes is scored.

use image::{GrayImage, Luma};

use crate::common::{TestDir, answer, expect, stripe_labels, stripes};

#[test]
fn what_label_writes_for_cvat_comes_back_and_is_scored() {
    let dir = TestDir::new();
    stripes(48, 32).save(dir.at("in/images/a.png")).unwrap();
    let line = "label bundle in/images --out out --format cvat,coco,labelstudio";
    assert_eq!(answer(&mut dir.command(line)).status, 0);
    for file in ["cvat.zip", "coco.json", "labelstudio.json"] {
        let line = format!(
            "convert out/{file} --images in/images --classes in/classes.txt --out back-{file}"
        );
        let given = answer(&mut dir.command(&line));
        assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{file}: {given:?}");
        assert!(
            given.stdout.contains("pixels: red 33.3 %, green 33.3 %, blue 33.3 %\n"),
            "{given:?}"
        );
        let line = format!("eval bundle --data folder --root back-{file}");
        let given = answer(&mut dir.command(&line));
        assert!(given.stdout.contains("mIoU            100.00\n"), "{file}: {given:?}");
    }
}

#[test]
fn jpeg_masks_need_a_threshold_and_output_a_new_place() {
    let dir = TestDir::new();
    let labels = stripe_labels(32, 32);
    let mask = GrayImage::from_fn(32, 32, |x, y| Luma([255 * labels[(y * 32 + x) as usize]]));
    std::fs::remove_file(dir.at("in/labels/a.png")).unwrap();
    mask.save(dir.at("in/labels/a.jpg")).unwrap();
    std::fs::write(dir.at("in/classes.txt"), "0 wall\n1 crack\n").unwrap();
    let given = answer(&mut dir.command("eval bundle --data folder --root in"));
    expect("jpeg", &given, 2, &["labels/a.jpg is there, but JPEG cannot hold ids", "--threshold"]);
    let given = answer(&mut dir.command("convert in --threshold 128 --out new"));
    assert!(given.stdout.contains("pixels: wall 50.0 %, crack 50.0 %\n"), "{given:?}");
    let given = answer(&mut dir.command("convert in --threshold 128 --out new"));
    assert_eq!(given.status, 1, "{given:?}");
    expect("folder", &given, 1, &["new", "name another folder"]);
    let given = answer(&mut dir.command("convert bundle --out other"));
    expect("no annotations", &given, 2, &["bundle holds no annotations of a known format"]);
}

#[test]
fn one_image_that_is_gone_is_named_and_costs_itself() {
    let dir = TestDir::new();
    let coco = r#"{"images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 32},
        {"id": 2, "file_name": "gone.png", "width": 32, "height": 32}],
        "categories": [{"id": 1, "name": "car"}], "annotations": [{"id": 1, "image_id": 1,
        "category_id": 1, "segmentation": [[0, 0, 32, 0, 32, 16, 0, 16]]}]}"#;
    std::fs::write(dir.at("coco.json"), coco).unwrap();
    let line = "convert coco.json --images in/images --background road --out new";
    let given = answer(&mut dir.command(line));
    assert_eq!(given.status, 3, "{given:?}");
    let lines: Vec<&str> = given.stderr.lines().collect();
    let expected = [
        "error: the image `gone.png` of coco.json is not found; name its folder with --images",
        "1 of 2 images cannot be converted and are left out",
    ];
    assert_eq!(lines, expected);
    assert!(
        given.stdout.starts_with("1 images of COCO into new\npixels: road 50.0 %, car 50.0 %\n")
    );
    assert!(given.stdout.ends_with("512 pixels (50.0 %) are in no shape and are `road`\n"));
    assert_eq!(std::fs::read_to_string(dir.at("new/all.txt")).unwrap(), "images/a.png\n");
}

#[test]
fn pixels_in_no_shape_are_said_whatever_becomes_of_them() {
    let dir = TestDir::new();
    let xml = r#"<annotations><meta><label><name>background</name></label></meta>
        <image name="a.png" width="32" height="32">
        <box label="car" xtl="0" ytl="0" xbr="32" ybr="24"/></image></annotations>"#;
    std::fs::write(dir.at("annotations.xml"), xml).unwrap();
    for (arguments, part) in [
        (
            "",
            "256 pixels (25.0 %) are in no shape and are `background`; --ignore 'background' makes",
        ),
        (
            " --ignore background --background sky",
            "256 pixels (25.0 %) are in no shape and are `sky`",
        ),
    ] {
        let line = format!("convert annotations.xml --images in/images --out new{arguments}");
        let given = answer(&mut dir.command(&line));
        assert!(given.status == 0 && given.stdout.contains(part), "{given:?}");
        std::fs::remove_dir_all(dir.at("new")).unwrap();
    }
    // CVAT's masks have no pixels that count for nothing.
    std::fs::write(dir.at("in/classes.txt"), "0 sky\n1 car\n").unwrap();
    let mask = GrayImage::from_fn(32, 32, |x, _| Luma([if x < 16 { 255 } else { 1 }]));
    mask.save(dir.at("in/labels/a.png")).unwrap();
    let given = answer(&mut dir.command("convert in --to cvat --out cvat.zip"));
    assert!(given.stdout.contains("50.0 % count for nothing\n"), "{given:?}");
    assert!(given.stdout.contains("are black in CVAT's masks, as `background` is"), "{given:?}");
    let given = answer(&mut dir.command("convert cvat.zip --images in/images --out new"));
    assert!(given.stdout.contains("512 pixels (50.0 %) are in no shape and are `background`"));
}

#[test]
fn thresholds_and_wide_ids_are_asked_about() {
    let dir = TestDir::new();
    let mask = GrayImage::from_fn(32, 32, |x, _| Luma([u8::from(x < 16)]));
    mask.save(dir.at("in/labels/a.png")).unwrap();
    std::fs::write(dir.at("in/classes.txt"), "0 wall\n1 crack\n").unwrap();
    let given = answer(&mut dir.command("convert in --threshold 128 --out new"));
    let parts = [
        "all 1024 pixels of the mask of `crack` are darker, from 0 to 1",
        "--threshold 1 parts them",
    ];
    expect("threshold", &given, 2, &parts);
    assert!(!dir.at("new").exists());
    std::fs::write(dir.at("in/classes.txt"), "10 red\n20 green\n30 blue\n").unwrap();
    let wide = |x: u32, _: u32| Luma([if x < 16 { 10_u16 } else { 20_001 }]);
    image::ImageBuffer::from_fn(32, 32, wide).save(dir.at("in/labels/a.png")).unwrap();
    let given = answer(&mut dir.command("eval bundle --data folder --root in"));
    let parts =
        ["20001 (512 pixels", "protoseg convert in --map FILE --out NEW", "/1000` and `* =`"];
    assert!(parts.iter().all(|part| given.stderr.contains(part)), "{given:?}");
    std::fs::write(dir.at("ids.txt"), "1000-255999 /1000\n* =\n").unwrap();
    let given = answer(&mut dir.command("convert in --map ids.txt --out new"));
    assert_eq!(given.status, 0, "{given:?}");
    assert!(given.stdout.contains("pixels: red 50.0 %, green 50.0 %, blue 0.0 %\n"), "{given:?}");
    assert!(given.stdout.contains("no pixel is of the class `blue`"), "{given:?}");
    let given = answer(&mut dir.command("convert in --map ids.txt --from coco --out other"));
    expect("map", &given, 2, &["--map is for folders of images and labels"]);
}

#[test]
fn images_without_annotations_are_named_and_taken_over() {
    let dir = TestDir::new();
    stripes(8, 8).save(dir.at("in/images/bare.png")).unwrap();
    let given = answer(&mut dir.command("eval bundle --data folder --root in"));
    let parts = ["1 of 2 images in in/images", "`--split labeled`", "`images/a.png`"];
    expect("all", &given, 2, &parts);
    let given = answer(&mut dir.command("eval bundle --data folder --root in --split labeled"));
    expect("labeled", &given, 0, &["1 of 2 images in in/images are read"]);
    let given = answer(&mut dir.command("convert in --out new"));
    let parts = ["1 image has no annotations and is left out, such as bare.png", "--unlabeled"];
    expect("convert", &given, 0, &parts);
    let given = answer(&mut dir.command("convert in --unlabeled --out more"));
    expect("unlabeled", &given, 0, &["listed in unlabeled.txt"]);
    let list = std::fs::read_to_string(dir.at("more/unlabeled.txt")).unwrap();
    assert_eq!(list, "unlabeled/bare.png\n");
    assert!(dir.at("more/unlabeled/bare.png").is_file());
    let given = answer(&mut dir.command("convert in --unlabeled --to coco --out x.json"));
    expect("coco", &given, 2, &["--unlabeled is for --to folder"]);
}

#[test]
fn lists_in_json_are_read_and_others_named() {
    let dir = TestDir::new();
    let eval = "eval bundle --data folder --root in --list list.json";
    for (list, part) in [
        (r#"{"train": ["a.png"], "val": ["b.png"]}"#, "`train` (1 name), `val` (1 name)"),
        (r#"{"images": [], "annotations": []}"#, "protoseg convert FILE"),
        ("- images/a.png\n", "YAML, which is not read"),
    ] {
        std::fs::write(dir.at("list.json"), list).unwrap();
        expect(list, &answer(&mut dir.command(eval)), 2, &[part]);
    }
    std::fs::write(dir.at("list.json"), r#"["images/a.png"]"#).unwrap();
    let given = answer(&mut dir.command(eval));
    assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{given:?}");
    std::fs::write(dir.at("list.json"), r#"["in/images/a.png"]"#).unwrap();
    let given = answer(&mut dir.command("label bundle --list list.json --out labels"));
    assert_eq!(given.status, 0, "{given:?}");
}
