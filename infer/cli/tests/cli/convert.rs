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
