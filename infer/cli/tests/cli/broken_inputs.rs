//! Broken inputs, one row each: exit status, one error that names the file, no partial output.

use std::path::Path;

use crate::common::{
    EVAL, IMAGE_FIXTURES, LABEL, TestDir, answer, expect, fixture, results, stripe_labels, stripes,
};
use image::{DynamicImage, GrayImage, RgbaImage};
use protoseg_images::image_file;
use protoseg_images::label_map;

type Break = fn(&TestDir);

#[test]
fn usage_errors_have_status_2_and_write_nothing() {
    let rows: [(&str, Break, &str, &[&str]); 14] = [
        (
            "no bundle",
            |_| (),
            "label nowhere in --out out",
            &["nowhere is not a bundle", "manifest.json"],
        ),
        (
            "a bundle without manifest",
            |dir| std::fs::remove_file(dir.at("bundle/manifest.json")).unwrap(),
            LABEL,
            &["bundle is not a bundle"],
        ),
        (
            "an unknown field",
            |dir| dir.edit("bundle/manifest.json", "\"gate\"", "\"gait\": 1, \"gate\""),
            LABEL,
            &["bundle/manifest.json", "unknown field `gait`"],
        ),
        (
            "a newer version",
            |dir| dir.edit("bundle/manifest.json", "\"version\": \"1.0\"", "\"version\": \"2.0\""),
            LABEL,
            &["bundle/manifest.json has version 2.0"],
        ),
        (
            "another model file",
            |dir| std::fs::write(dir.at("bundle/model.onnx"), "x").unwrap(),
            LABEL,
            &["bundle/model.onnx", "sha256"],
        ),
        (
            "no model file",
            |dir| std::fs::remove_file(dir.at("bundle/model.onnx")).unwrap(),
            LABEL,
            &["bundle/model.onnx: missing"],
        ),
        (
            "a text as ONNX",
            |dir| std::fs::write(dir.at("x.onnx"), "hello").unwrap(),
            "label x.onnx in --out out",
            &["x.onnx cannot be opened"],
        ),
        (
            "a file beside the model",
            |_| (),
            "label bundle/manifest.json in --out out",
            &["bundle/manifest.json is not an ONNX file", "a bundle folder"],
        ),
        (
            "windows that do not fit",
            |_| (),
            "label bundle in --out out --window 50:32",
            &["50 pixels", "48 or 64"],
        ),
        (
            "batches of whole images",
            |_| (),
            "label bundle in --out out --window whole --batch 2",
            &["--batch"],
        ),
        (
            "no image",
            |dir| {
                std::fs::remove_dir_all(dir.at("in"))
                    .and_then(|()| std::fs::create_dir(dir.at("in")))
                    .unwrap();
            },
            LABEL,
            &["no image", "in"],
        ),
        ("no such input", |_| (), "label bundle gone.png --out out", &["gone.png does not exist"]),
        (
            "results among the inputs",
            |_| (),
            "label bundle in --out in/out",
            &["in/out", "inside the input folder in"],
        ),
        (
            "other classes",
            |dir| dir.edit("in/classes.txt", "red", "crimson"),
            EVAL,
            &["red, green, blue", "crimson, green, blue"],
        ),
    ];
    for (row, spoil, arguments, parts) in rows {
        let dir = TestDir::new();
        spoil(&dir);
        expect(row, &answer(&mut dir.command(arguments)), 2, parts);
        assert!(!dir.at("out").exists() && !dir.at("in/out").exists(), "{row}");
    }
}

#[test]
fn a_missing_runtime_is_one_error_with_a_remedy() {
    let dir = TestDir::new();
    std::fs::write(dir.at("text.so"), "hello").unwrap();
    for (library, part) in [
        ("gone.so", "there is no file"),
        ("text.so", "cannot be loaded as ONNX Runtime"),
        ("in", "cannot be loaded"),
    ] {
        let given = answer(dir.command(LABEL).env("ORT_DYLIB_PATH", dir.at(library)));
        expect(
            library,
            &given,
            2,
            &[library, part, "cargo xtask setup", "ORT_DYLIB_PATH", "1.24 or newer"],
        );
        assert!(!dir.at("out").exists());
        let given = answer(dir.command("check bundle").env("ORT_DYLIB_PATH", dir.at(library)));
        expect(library, &given, 2, &[library, part]);
    }
}

#[test]
fn fields_of_a_newer_minor_version_are_warned_of() {
    let dir = TestDir::new();
    let manifest = std::fs::read_to_string(dir.at("bundle/manifest.json")).unwrap();
    let newer =
        manifest.replacen("\"1.0\"", "\"1.1\"", 1).replace("\"gate\"", "\"gait\": 1, \"gate\"");
    std::fs::write(dir.at("bundle/manifest.json"), newer).unwrap();
    for arguments in [LABEL, "check bundle"] {
        expect(
            arguments,
            &answer(&mut dir.command(arguments)),
            0,
            &["bundle", "newer version", "gait"],
        );
    }
}

#[test]
fn broken_data_sets_have_no_score() {
    let rows: [(&str, Break, &[&str]); 5] = [
        (
            "a label of another size",
            |dir| dir.labels("in/labels/a.png", 32, 31, 10),
            &["images/a.png has 32x32", "labels/a.png has 32x31"],
        ),
        (
            "an unknown id",
            |dir| dir.labels("in/labels/a.png", 32, 32, 11),
            &["labels/a.png: the id 11 (1 pixel, first at row 1, column 3)", "`11 ignore`"],
        ),
        (
            "a colored label",
            |dir| stripes(32, 32).save(dir.at("in/labels/a.png")).unwrap(),
            &["labels/a.png holds the colors 20,220,20 (512 pixels)", "id name red green blue"],
        ),
        ("a label cut short", |dir| dir.cut("in/labels/a.png"), &["labels/a.png"]),
        (
            "an image cut short",
            |dir| dir.cut("in/images/a.png"),
            &["images/a.png: broken or cut short"],
        ),
    ];
    for (row, spoil, parts) in rows {
        let dir = TestDir::new();
        spoil(&dir);
        let given = answer(&mut dir.command(EVAL));
        // What comes up with the images is found in scoring, and else nothing is begun.
        let is_begun = ["a label of another size", "an image cut short"].contains(&row);
        let status = if is_begun { 1 } else { 2 };
        assert_eq!((given.status, given.stdout.as_str()), (status, ""), "{row}: {given:?}");
        assert!(given.stderr.lines().count() <= 2, "{row}: {given:?}");
        assert!(given.stderr.contains("so there is no score"), "{row}: {given:?}");
        for part in parts {
            assert!(given.stderr.contains(part), "{row}: `{part}` is not in {}", given.stderr);
        }
    }
    let dir = TestDir::new();
    std::fs::write(dir.at("bundle/model.onnx"), "x").unwrap();
    let given = answer(&mut dir.command("check bundle"));
    assert_eq!((given.status, given.stderr.as_str()), (1, ""), "{given:?}");
    assert!(
        given.stdout.contains("FAILED") && given.stdout.contains("bundle/model.onnx"),
        "{given:?}"
    );
}

#[test]
fn unreadable_images_have_status_3_and_no_output() {
    let rows: [(&str, Break, &[&str]); 4] = [
        ("png", |dir| dir.cut("in/images/a.png"), &["in/images/a.png: broken or cut short"]),
        (
            "no image",
            |dir| std::fs::write(dir.at("in/images/a.png"), "hello").unwrap(),
            &["in/images/a.png: not an image of a known format"],
        ),
        (
            "CMYK",
            |dir| put(dir, &fixture(IMAGE_FIXTURES).join("cmyk_plain.jpg")),
            &["in/images/a.png: a CMYK JPEG without Adobe's marker"],
        ),
        (
            "jpeg",
            |dir| {
                stripes(32, 32).save(dir.at("x.jpg")).unwrap();
                put(dir, &dir.at("x.jpg"));
                dir.cut("in/images/a.png");
            },
            &["in/images/a.png: cut short"],
        ),
    ];
    for (row, spoil, parts) in rows {
        let dir = TestDir::new();
        spoil(&dir);
        let given = answer(&mut dir.command("label bundle in/images/*.png --out out"));
        expect(row, &given, 3, parts);
        assert!(given.stdout.contains("0 labeled, 1 failed"), "{row}: {given:?}");
        assert_eq!(results(&dir.at("out")), [""; 0], "{row}");
    }
    let dir = TestDir::new();
    let given = answer(&mut dir.command("label bundle in/images --out out --max-pixels 1023"));
    expect("large", &given, 3, &["in/images/a.png: 32x32 pixels are more than the limit of 1023"]);
}

fn put(dir: &TestDir, image: &Path) {
    std::fs::copy(image, dir.at("in/images/a.png")).unwrap();
}

#[test]
fn unusual_image_formats_are_labeled_like_usual_ones() {
    let dir = TestDir::new();
    std::fs::create_dir(dir.at("odd")).unwrap();
    let usual = DynamicImage::from(stripes(48, 32));
    usual.to_rgb16().save(dir.at("odd/deep.png")).unwrap();
    usual.to_rgba8().save(dir.at("odd/opaque.webp")).unwrap();
    usual.to_rgb8().save(dir.at("odd/plain.tiff")).unwrap();
    GrayImage::new(48, 32).save(dir.at("odd/gray.png")).unwrap();
    // Transparent pixels keep their color.
    RgbaImage::from_fn(48, 32, |x, _| [0, 40, 0, if x < 16 { 255 } else { 0 }].into())
        .save(dir.at("odd/clear.png"))
        .unwrap();
    let given = answer(&mut dir.command("label bundle odd --out out"));
    expect("odd", &given, 0, &["1024 of 1536 pixels of odd/clear.png are not opaque"]);
    let labels =
        |name: &str| label_map::read(&dir.at("out/ids").join(name), 10_000).unwrap().labels;
    let expected = stripe_labels(48, 32);
    for name in ["deep.png", "opaque.png", "plain.png"] {
        assert!(labels(name) == expected, "{name}");
    }
    assert!(labels("gray.png").iter().all(|&label| label == 0));
    let clear = labels("clear.png");
    assert_eq!((clear[0], clear[40]), (1, 1));
}

#[test]
fn adobe_cmyk_converts_to_rgb() {
    for name in ["cmyk_adobe.jpg", "cmyk_ycck.jpg"] {
        let image = image_file::read(&fixture(IMAGE_FIXTURES).join(name), 10_000).unwrap();
        let near = image.pixels().all(|pixel| {
            pixel.0.iter().zip([200, 60, 30]).all(|(found, color)| found.abs_diff(color) <= 3)
        });
        assert!(near, "{name}: {:?}", image.get_pixel(5, 5));
    }
}
