//! `protoseg import` where a file can be read in several ways, or in none: decided by trial, asked
//! with the options named, or refused with the way out.

use image::RgbImage;
use protoseg_models::bundle::Manifest;
use protoseg_models::interface::{OutputLayout, ScoreKind};

use crate::common::{ProgramOutput, TestDir, answer, expect, fixture, stripe_labels, stripes};
use crate::import::{import, imported, label, labels, noise, test_dir};

const UNIT: &str = "--normalization unit";

fn manifest(dir: &TestDir) -> Manifest {
    Manifest::read(&dir.at("imported")).unwrap().value
}

/// Red, green and blue from top to bottom.
fn rows(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |_, y| {
        let mut color = [0; 3];
        color[(y * 3 / height) as usize] = 255;
        image::Rgb(color)
    })
}

/// Imports a file with these bytes.
fn import_bytes(bytes: &[u8]) -> ProgramOutput {
    let dir = test_dir("float-nchw");
    std::fs::write(dir.at("theirs/other.onnx"), bytes).unwrap();
    let given = import(&dir, "other", UNIT);
    assert!(!dir.at("imported").exists());
    given
}

#[test]
fn the_order_of_an_output_is_tried_or_asked_for() {
    let expected: Vec<u8> = (0..64 * 64).map(|index| (index / 64 * 3 / 64) as u8).collect();
    for (name, options, layout) in [
        ("either-last", "", Some(OutputLayout::Nhwc)),
        ("either-first", "", None),
        ("either-last", "--output-layout nhwc", Some(OutputLayout::Nhwc)),
    ] {
        let dir = imported(name, format!("{UNIT} {options}").trim_end());
        let found = manifest(&dir).files[0].adapter.clone().unwrap().interface.output;
        assert_eq!(found, layout, "{name} {options}");
        let labels = labels(&dir, &rows(64, 64), "");
        let wrong = labels.iter().zip(&expected).filter(|(found, label)| found != label).count();
        assert!(wrong <= 4 * 64, "{name} {options}: {wrong}");
    }
    let dir = test_dir("either-last");
    let given = import(&dir, "either-last", UNIT);
    assert!(given.stdout.contains("taken as [N, h, w, C], as the trials show"), "{given:?}");
    let dir = test_dir("either");
    let parts = ["nchw ([N, C, h, w])", "nhwc ([N, h, w, C])", "--output-layout"];
    expect("either", &import(&dir, "either", UNIT), 2, &parts);
    imported("either", "--normalization unit --output-layout nchw");
    let given = import(&dir, "either", "--normalization unit --output-layout whcn");
    assert!(given.status == 2 && given.stderr.contains("nchw, nhwc"), "{given:?}");
}

#[test]
fn a_table_of_positions_tells_the_only_size() {
    for name in ["patch-map", "patch-sequence"] {
        let dir = test_dir(name);
        let given = import(&dir, name, UNIT);
        assert_eq!(given.status, 0, "{given:?}");
        assert!(given.stdout.contains("from 40x40 to 47x47 alone run"), "{given:?}");
        let adapter = manifest(&dir).files[0].adapter.clone().unwrap();
        assert_eq!((adapter.size, manifest(&dir).model.grid.stride), (Some([40; 2]), 8), "{name}");
        // What a configuration states is tried first.
        let dir = test_dir(name);
        std::fs::write(dir.at("theirs/config.json"), r#"{"image_size": 44}"#).unwrap();
        assert_eq!(import(&dir, name, UNIT).status, 0);
        let adapter = manifest(&dir).files[0].adapter.clone().unwrap();
        assert_eq!(adapter.size, Some([44; 2]), "{name}");
    }
}

#[test]
fn corners_on_corner_pixels_are_hinted_at_and_followed() {
    for (name, side, hint) in [
        ("corners-coarse", 65, "17 is (65 - 1) / 4 + 1"),
        ("corners-fine", 17, "65 is (17 - 1) * 4 + 1"),
    ] {
        let dir = test_dir(name);
        let given = import(&dir, name, UNIT);
        assert!(given.status == 0 && given.stdout.contains(hint), "{name}: {given:?}");
        assert!(given.stdout.contains("say --align-corners"), "{name}: {given:?}");
        let dir = test_dir(name);
        let given = import(&dir, name, "--normalization unit --align-corners --fit resize");
        assert!(given.status == 0 && !given.stdout.contains("say --align"), "{name}: {given:?}");
        if name == "corners-fine" {
            // Enlarged and taken back again, every pixel has its own scores.
            let image = noise(side, side);
            let strongest = |pixel: &image::Rgb<u8>| {
                let best = |best: usize, channel: usize| {
                    if pixel.0[channel] > pixel.0[best] { channel } else { best }
                };
                (0..3).fold(0, best) as u8
            };
            let expected: Vec<u8> = image.pixels().map(strongest).collect();
            assert_eq!(labels(&dir, &image, ""), expected);
        }
        let given = answer(&mut dir.command("check imported"));
        assert_eq!(given.status, 0, "{name}: {given:?}");
    }
    let dir = test_dir("square");
    let given = import(&dir, "square", "--normalization unit --align-corners");
    assert_eq!(given.status, 0, "{given:?}");
}

#[test]
fn files_that_are_no_segmentation_models_are_refused_with_the_way_out() {
    let dir = test_dir("queries");
    let parts = ["masks of 6 queries", "softmax(-1)[..., :-1]", "masks.sigmoid()"];
    expect("queries", &import(&dir, "queries", UNIT), 2, &parts);
    for name in ["yolo", "yolo-task"] {
        let dir = test_dir(name);
        let lines: String = (0..32).map(|id| format!("{id} c{id}\n")).collect();
        std::fs::write(dir.at("in/classes.txt"), lines).unwrap();
        let parts =
            ["`output0` of shape [1, 68,", "32 prototypes of masks", "semantic segmentation"];
        expect(name, &import(&dir, name, UNIT), 2, &parts);
        assert!(!dir.at("imported").exists());
    }
    let dir = test_dir("colored");
    let parts = ["3 colors alone", "before they are colored", "--scores logits"];
    expect("colored", &import(&dir, "colored", UNIT), 2, &parts);
    let dir = test_dir("flat");
    expect(
        "flat",
        &import(&dir, "flat", UNIT),
        2,
        &["4096 places in a row", "[N, 3, height, width]"],
    );
    let dir = imported("labels-sure", UNIT);
    assert_eq!(labels(&dir, &stripes(96, 32), ""), stripe_labels(96, 32));
    let dir = test_dir("two-inputs");
    expect("two inputs", &import(&dir, "two-inputs", UNIT), 2, &["holds the others as constants"]);
    let whole = std::fs::read(fixture("adopt").join("softmax.onnx")).unwrap();
    let cut = &whole[..whole.len() - 7];
    let length = cut.len().to_string();
    for (name, bytes, parts) in [
        ("cut short", cut, &["theirs/other.onnx", "cut short", length.as_str(), "copy"][..]),
        ("empty", &[], &["theirs/other.onnx is empty"]),
        ("a pointer", b"version https://git-lfs.github.com/spec/v1\n", &["git lfs pull"]),
        ("an archive", b"PK\x03\x04archive/data.pkl", &["torch.onnx.export"]),
    ] {
        let given = import_bytes(bytes);
        expect(name, &given, 2, parts);
        assert!(!given.stderr.contains("onnxruntime"), "{given:?}");
    }
    let dir = test_dir("constant");
    let given = import(&dir, "constant", UNIT);
    assert!(given.status == 0 && given.stdout.contains("the same scores"), "{given:?}");
}

#[test]
fn scores_that_tell_no_confidence_are_asked_about_or_marked() {
    let with_red = |name: &str, options: &str| {
        let dir = test_dir(name);
        std::fs::write(dir.at("in/classes.txt"), "0 other\n1 red\n").unwrap();
        let given = import(&dir, name, format!("{UNIT} {options}").trim_end());
        (dir, given)
    };
    let ramp = RgbImage::from_fn(256, 4, |x, _| image::Rgb([x as u8, 9, 9]));
    for name in ["binary-255", "soft-mask"] {
        let (dir, given) = with_red(name, "--threshold 127.5");
        assert_eq!(given.status, 0, "{name}: {given:?}");
        assert!(given.stdout.contains("never below 0: the labels follow --threshold"), "{given:?}");
        assert!(given.stdout.contains("scores are unscaled"), "{given:?}");
        let found = labels(&dir, &ramp, "");
        assert!(found.iter().enumerate().all(|(x, label)| *label == u8::from(x % 256 >= 128)));
        for format in ["confidence", "margin", "pseudo"] {
            let given = label(&dir, &ramp, &format!("--format ids,{format}"));
            let flag = format!("--format {format}");
            expect(name, &given, 2, &["neither logits nor probabilities", flag.as_str()]);
        }
        assert_eq!(label(&dir, &ramp, "--format labelstudio").status, 0);
        assert_eq!(answer(&mut dir.command("check imported")).status, 0);
        let kind = manifest(&dir).files[0].adapter.clone().unwrap().interface.scores;
        assert_eq!(kind, ScoreKind::Unscaled);
    }
    // A file that takes bytes tells its bounds by its last operation.
    let dir = test_dir("byte-tanh");
    let given = import(&dir, "byte-tanh", "");
    assert!(given.stdout.contains("scores are unscaled"), "{given:?}");
    assert_eq!(labels(&dir, &stripes(96, 32), ""), stripe_labels(96, 32));
    let given = label(&dir, &ramp, "--format confidence");
    expect("byte-tanh", &given, 2, &["neither logits nor probabilities"]);
    let (_, given) = with_red("binary-255", "");
    expect("255", &given, 2, &["never below 0", "--threshold"]);
    let (_, given) = with_red("binary-255", "--scores unscaled");
    expect("no half", &given, 2, &["--scores unscaled", "add --threshold"]);
    let (_, given) = with_red("binary-negative", "");
    let parts = ["never above 0", "--scores log-probabilities", "--scores logits"];
    expect("negative", &given, 2, &parts);
    let (dir, given) = with_red("binary-negative", "--threshold -1.5");
    assert!(given.stdout.contains("never above 0: the labels follow --threshold"), "{given:?}");
    let found = labels(&dir, &ramp, "");
    assert!(found.iter().enumerate().all(|(x, label)| *label == u8::from(x % 256 >= 128)));
    let (_, given) = with_red("binary-log-sigmoid", "");
    assert!(given.stdout.contains("scores are log-probabilities"), "{given:?}");
}

#[test]
fn refusals_of_classes_and_sizes_name_the_way_out() {
    let dir = test_dir("float-nchw");
    std::fs::write(dir.at("latin.txt"), b"0 rue\n1 for\xEAt\n2 ciel\n").unwrap();
    std::fs::write(dir.at("gap.json"), r#"{"id2label": {"0": "a", "2": "b"}}"#).unwrap();
    for (classes, parts) in [
        ("latin.txt", &["latin.txt: line 2", "0xea", "iconv -f latin1"][..]),
        ("gap.json", &["id2label has no 1", "unused 1"]),
    ] {
        let line =
            format!("import theirs/float-nchw.onnx {UNIT} --classes {classes} --out imported");
        expect(classes, &answer(&mut dir.command(&line)), 2, parts);
    }
    let dir = imported("square", "--normalization unit --fit pad");
    let given = label(&dir, &noise(65, 64), "");
    expect("pad", &given, 3, &["64x65", "at most 64x64", "--fit resize, letterbox or window"]);
    let dir = test_dir("hidden-classes");
    let given = import(&dir, "hidden-classes", UNIT);
    expect("classes", &given, 2, &["6 classes", "names 3", "a class for each channel"]);
}
