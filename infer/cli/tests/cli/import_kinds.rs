//! `protoseg import` on the many ways in which exporters write inputs and outputs
//! (`fixtures/adopt/make.py`): decided by trial, said, and run as the file means it.

use image::{GrayImage, Luma, RgbImage};
use protoseg_images::label_map;
use protoseg_models::bundle::Manifest;
use protoseg_models::interface::{Fit, InputElement, LabelValues, ScoreKind};

use crate::common::{ProgramOutput, TestDir, answer, expect, files, stripe_labels, stripes};
use crate::import::{import, imported, label, labels, noise, test_dir};

const UNIT: &str = "--normalization unit";

/// Imports with the given lines as class file.
fn import_with(classes: &str, name: &str, options: &str) -> (TestDir, ProgramOutput) {
    let dir = test_dir(name);
    std::fs::write(dir.at("own.txt"), classes).unwrap();
    let line = format!("import theirs/{name}.onnx --classes own.txt --out imported {options}");
    let given = answer(&mut dir.command(line.trim_end()));
    (dir, given)
}

fn imported_with(classes: &str, name: &str, options: &str) -> (TestDir, String) {
    let (dir, given) = import_with(classes, name, options);
    assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{name} {options}: {given:?}");
    (dir, given.stdout)
}

fn manifest(dir: &TestDir) -> Manifest {
    Manifest::read(&dir.at("imported")).unwrap().value
}

/// Files of one format that `label` wrote for the image.
fn plane(dir: &TestDir, format: &str) -> Vec<u8> {
    let path = dir.at("out").join(format).join("p.png");
    image::open(path).unwrap().into_luma8().into_raw()
}

#[test]
fn every_way_to_write_an_input_or_output_gives_the_same_labels() {
    let mut bands = stripe_labels(96, 64);
    for name in [
        "all-free",
        "half",
        "rank-3",
        "any-channels",
        "double",
        "classes-last",
        "thirds",
        "two-outputs",
        "labels-int8",
        "labels-float",
        "labels-no-batch",
        "small-labels",
        "float-nhwc",
        "softmax",
        "log-softmax",
        "sigmoid",
    ] {
        let dir = imported(name, UNIT);
        let found = labels(&dir, &stripes(96, 64), "");
        let wrong = found.iter().zip(&bands).filter(|(found, label)| found != label).count();
        // Coarse outputs may err at borders, of which a row has five.
        let allowed = if name == "thirds" { 64 * 5 * 2 } else { 0 };
        assert!(wrong <= allowed, "{name}: {wrong}");
        let given = answer(&mut dir.command("check imported"));
        assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{name}: {given:?}");
    }
    let (dir, _) = imported_with("0 other\n1 red\n", "labels-bool", UNIT);
    bands.iter_mut().for_each(|label| *label = u8::from(*label == 0));
    assert_eq!(labels(&dir, &stripes(96, 64), ""), bands);
    let dir = imported("gray", UNIT);
    let gray = GrayImage::from_fn(96, 40, |x, _| Luma([[30, 130, 230][x as usize / 32]]));
    let expected: Vec<u8> = (0..96 * 40).map(|index| (index % 96 / 32) as u8).collect();
    let colored: RgbImage = image::DynamicImage::ImageLuma8(gray).into_rgb8();
    assert_eq!(labels(&dir, &colored, ""), expected);
    assert!(manifest(&dir).files[0].adapter.as_ref().unwrap().interface.gray);
    let element =
        |name| manifest(&imported(name, UNIT)).files[0].adapter.clone().unwrap().interface;
    assert_eq!(element("half").element, Some(InputElement::Float16));
}

#[test]
fn the_trials_are_reported() {
    let dir = test_dir("all-free");
    let given = import(&dir, "all-free", UNIT);
    for part in ["input taken as [N, C, H, W] of 3 channels", "scores are logits", "--scores"] {
        assert!(given.stdout.contains(part), "{part}: {given:?}");
    }
    let dir = test_dir("two-outputs");
    let given = import(&dir, "two-outputs", UNIT);
    assert!(given.stdout.contains("of the outputs auxiliary, y `y` is taken"), "{given:?}");
    let dir = imported("height-free", UNIT);
    assert_eq!(labels(&dir, &stripes(64, 100), ""), stripe_labels(64, 100));
    let given = label(&dir, &noise(65, 100), "");
    expect("width", &given, 3, &["images/p.png", "100x65 pixels do not fit", "any x 64"]);
}

#[test]
fn probabilities_are_confidence_as_they_are() {
    let (height, width) = (32, 48);
    for (name, kind) in [
        ("softmax", ScoreKind::Probabilities),
        ("log-softmax", ScoreKind::LogProbabilities),
        ("sigmoid", ScoreKind::Probabilities),
    ] {
        let dir = imported(name, UNIT);
        let adapter = manifest(&dir).files[0].adapter.clone().unwrap();
        assert_eq!(adapter.interface.scores, kind, "{name}");
        let image = noise(width, height);
        labels(&dir, &image, "--format ids,confidence,margin");
        let (confidence, margin) = (plane(&dir, "confidence"), plane(&dir, "margin"));
        for (index, pixel) in image.pixels().enumerate() {
            let ten = pixel.0.map(|byte| f64::from(byte) / 25.5);
            let shares = if name == "sigmoid" {
                ten.map(|ten| 1.0 / (1.0 + (5.0 - ten).exp()))
            } else {
                let sum: f64 = ten.iter().map(|ten| ten.exp()).sum();
                ten.map(|ten| ten.exp() / sum)
            };
            let mut sorted = shares;
            sorted.sort_by(f64::total_cmp);
            let lead = (16.0 * (sorted[2] / sorted[1]).ln()).min(255.0);
            let near = |found: u8, expected: f64| (f64::from(found) - expected).abs() <= 1.0;
            assert!(near(confidence[index], 255.0 * sorted[2]), "{name} {pixel:?}");
            assert!(near(margin[index], lead), "{name} {pixel:?}: {} {lead}", margin[index]);
        }
    }
    // The option overrides the trials.
    let dir = imported("softmax", "--normalization unit --scores logits");
    labels(&dir, &stripes(32, 32), "--format ids,confidence");
    assert!(plane(&dir, "confidence").iter().all(|&step| step < 200));
    let given = label(&dir, &stripes(32, 32), "--format pseudo");
    expect("pseudo", &given, 0, &["no pixel of 1 images", "--pseudo-confidence 0.9"]);
}

#[test]
fn one_channel_is_two_classes_at_a_threshold() {
    let ramp = RgbImage::from_fn(256, 4, |x, _| image::Rgb([x as u8, 9, 9]));
    for (name, options, first) in [
        ("binary-logit", UNIT, 128),
        ("binary-sigmoid", UNIT, 128),
        ("binary-log-sigmoid", UNIT, 128),
        ("binary-log-sigmoid", "--normalization unit --threshold -2.578891", 96),
        ("binary-logit", "--normalization unit --threshold -2.5", 96),
        ("binary-sigmoid", "--normalization unit --threshold 0.0758581", 96),
    ] {
        let (dir, said) = imported_with("0 other\n1 red\n", name, options);
        assert!(said.contains("are `red`; --threshold"), "{said}");
        let found = labels(&dir, &ramp, "--format ids,confidence");
        let confidence = plane(&dir, "confidence");
        for x in 0..256 {
            let label = u8::from(x >= first);
            assert_eq!(found[x], label, "{name} {options} {x}");
            let p = 1.0 / (1.0 + (10.0 - x as f64 / 12.75).exp());
            let own = if label == 1 { p } else { 1.0 - p };
            let step = f64::from(confidence[x]);
            assert!((step - 255.0 * own).abs() <= 1.0, "{name} {options} {x}: {step} {own}");
        }
    }
    for list in ["0 crack 255 0 0\n", "crack\n"] {
        let (dir, said) = imported_with(list, "binary-sigmoid", UNIT);
        assert!(said.contains("one class, `crack`: class 0 is `background`"), "{said}");
        assert_eq!(manifest(&dir).model.classes.classes()[1].source_id, 1);
    }
}

#[test]
fn values_of_masks_find_their_classes() {
    let bands = stripes(96, 32);
    let values = |dir: &TestDir| {
        let adapter = manifest(dir).files[0].adapter.clone().unwrap();
        adapter.interface.labels.unwrap()
    };
    let (dir, said) = imported_with("0 other\n1 red\n", "mask", UNIT);
    assert_eq!(values(&dir), LabelValues { classes: vec![0, 255], void: vec![] });
    assert!(said.contains("labels 0, 255"), "{said}");
    let red: Vec<u8> = stripe_labels(96, 32).iter().map(|&label| u8::from(label == 0)).collect();
    assert_eq!(labels(&dir, &bands, ""), red);

    let dir = imported("unsure", UNIT);
    let dark = RgbImage::from_pixel(40, 40, image::Rgb([90, 100, 80]));
    assert_eq!(labels(&dir, &dark, ""), [255; 1600]);
    assert_eq!(labels(&dir, &bands, ""), stripe_labels(96, 32));
    let given = answer(&mut dir.command("eval imported --data folder --root in"));
    assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{given:?}");

    let (dir, _) = imported_with("1 red\n2 green\n3 blue\n", "from-1", UNIT);
    let given = label(&dir, &bands, "--format ids,labelids");
    let note = "ids holds train ids (0 red, 1 green, 2 blue); --format labelids writes those of the class file (1 red, 2 green, 3 blue)";
    assert!(given.stdout.contains(note), "{given:?}");
    let ids = label_map::read(&dir.at("out/labelids/p_labelIds.png"), 1 << 20).unwrap().labels;
    let expected: Vec<u8> = stripe_labels(96, 32).iter().map(|label| label + 1).collect();
    assert_eq!(ids, expected);
    let (_, given) = import_with("0 red\n1 green\n2 blue\n", "from-1", UNIT);
    expect("from 1", &given, 2, &["the label 3", "begin at 1", "--label-values 1,2,3"]);
    let (dir, _) = imported_with(
        "0 blue\n1 green\n2 red\n",
        "from-1",
        "--normalization unit --label-values 3,2,1",
    );
    let expected: Vec<u8> = stripe_labels(96, 32).iter().map(|label| 2 - label).collect();
    assert_eq!(labels(&dir, &bands, ""), expected);
}

#[test]
fn declarations_that_promise_too_much_become_limits() {
    let large = stripes(160, 96);
    for options in ["", "--window 64:42", "--size 64x64"] {
        let dir = imported("lying-size", format!("{UNIT} {options}").trim_end());
        let found = manifest(&dir);
        assert_eq!(found.files[0].adapter.as_ref().unwrap().size, Some([64, 64]));
        for options in ["", "--batch 4"] {
            assert_eq!(labels(&dir, &large, options), stripe_labels(160, 96), "{options}");
        }
    }
    let dir = imported("lying-batch", UNIT);
    assert_eq!(manifest(&dir).files[0].adapter.as_ref().unwrap().batch, Some(1));
    for options in ["", "--window 64:32 --batch 4"] {
        assert_eq!(labels(&dir, &large, options), stripe_labels(160, 96), "{options}");
    }
    let dir = test_dir("lying-size");
    let given = import(&dir, "lying-size", "--normalization unit --size 64x96");
    expect("another size", &given, 2, &["64x96", "failed", "--size"]);
}

#[test]
fn images_are_scaled_for_networks_that_judge_scenes() {
    for (options, fit) in [("--fit resize", Fit::Resize), ("--fit letterbox", Fit::Letterbox)] {
        let dir = imported("scene", &format!("{UNIT} {options}"));
        assert_eq!(manifest(&dir).files[0].adapter.as_ref().unwrap().interface.fit, fit);
        for (width, height) in [(160, 90), (64, 64), (320, 240), (31, 17)] {
            // Beside a wide image a letterbox has bars above and below alone.
            let found = labels(&dir, &noise(width, height), "");
            let halves = (0..height).flat_map(|_| (0..width).map(|x| (x >= width / 2, x)));
            let wrong = found.iter().zip(halves);
            let wrong = wrong.filter(|(label, (right, x))| {
                **label != if *right { 2 } else { 0 } && x.abs_diff(width / 2) > 1
            });
            assert_eq!(wrong.count(), 0, "{options} {width}x{height}");
        }
    }
    for (options, protocol) in [
        ("--fit resize", "resized to 64x64"),
        ("--fit letterbox", "scaled between bars to 64x64"),
        ("--fit pad", "padded to 64x64"),
    ] {
        let dir = imported("square", &format!("{UNIT} {options}"));
        let given = answer(&mut dir.command("eval imported --data folder --root in"));
        assert!(given.stdout.contains(protocol), "{protocol}: {given:?}");
    }
    let dir = imported("wide", "--normalization unit --fit window");
    let given = answer(&mut dir.command("eval imported --data folder --root in"));
    assert!(given.stdout.contains(", 32x64:21x42"), "{given:?}");
    let dir = imported("scene", "--normalization unit --fit pad");
    assert_eq!(labels(&dir, &noise(20, 10), ""), [0; 200]);
    expect("pad", &label(&dir, &noise(65, 10), ""), 3, &["10x65", "at most 64x64"]);
    // What Hugging Face writes beside a model is followed, and said.
    let dir = test_dir("scene");
    let known =
        r#"{"do_resize": true, "size": {"height": 64, "width": 64}, "do_normalize": false}"#;
    std::fs::write(dir.at("theirs/preprocessor_config.json"), known).unwrap();
    let given = import(&dir, "scene", "");
    assert!(given.stdout.contains("resized to it, as preprocessor_config.json says"), "{given:?}");
    assert_eq!(manifest(&dir).files[0].adapter.as_ref().unwrap().interface.fit, Fit::Resize);
}

#[test]
fn files_with_weights_move_into_the_bundle() {
    let dir = test_dir("external");
    let given = import(&dir, "external", UNIT);
    assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{given:?}");
    assert_eq!(
        files(&dir.at("imported")),
        ["external.data", "manifest.json", "model.onnx", "probe.safetensors"]
    );
    std::fs::remove_dir_all(dir.at("theirs")).unwrap();
    std::fs::rename(dir.at("imported"), dir.at("elsewhere")).unwrap();
    std::fs::rename(dir.at("elsewhere"), dir.at("imported")).unwrap();
    assert_eq!(labels(&dir, &stripes(96, 64), ""), stripe_labels(96, 64));
    let path = dir.at("imported/external.data");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let given = answer(&mut dir.command("check imported"));
    assert!(given.status == 1 && given.stdout.contains("external.data"), "{given:?}");

    let dir = test_dir("external");
    std::fs::write(dir.at("theirs/external.data"), [0; 5]).unwrap();
    let given = import(&dir, "external", UNIT);
    expect("short", &given, 2, &["`external.data`", "36 bytes are called for, 5 are there"]);
    std::fs::remove_file(dir.at("theirs/external.data")).unwrap();
    expect("missing", &import(&dir, "external", UNIT), 2, &["`external.data`", "cannot be read"]);
}
