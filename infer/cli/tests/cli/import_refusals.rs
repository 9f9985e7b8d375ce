//! `protoseg import` of files that would give wrong labels without a word: in training mode, without
//! the border of an image, of other sizes, or with class files of other forms.

use protoseg_models::bundle::Manifest;
use protoseg_models::digest;

use crate::common::{TestDir, answer, expect, fixture, stripe_labels, stripes};
use crate::import::{import, imported, label, labels, noise, test_dir};

const UNIT: &str = "--normalization unit";

/// A folder with a model and a class file.
fn with_classes(name: &str, classes: &str) -> TestDir {
    let dir = test_dir(name);
    std::fs::write(dir.at("in/classes.txt"), classes).unwrap();
    dir
}

#[test]
fn networks_that_give_other_values_at_every_run_are_refused() {
    for (name, parts) in [
        ("dropout", &["training mode", "`d` (Dropout)", "model.eval()"][..]),
        ("batch-statistics", &["training mode", "`y` (BatchNormalization)", "model.eval()"]),
        ("noise", &["two runs of the same image", "`noise` (RandomNormalLike)"]),
    ] {
        let dir = test_dir(name);
        expect(name, &import(&dir, name, UNIT), 2, parts);
        assert!(!dir.at("imported").exists());
    }
    // Switched on, and of a share of nothing.
    let dir = imported("dropout-none", UNIT);
    assert_eq!(labels(&dir, &stripes(96, 64), ""), stripe_labels(96, 64));
    // A bundle of before, or of another hand.
    let bytes = std::fs::read(fixture("adopt").join("dropout.onnx")).unwrap();
    std::fs::write(dir.at("imported/model.onnx"), &bytes).unwrap();
    let mut manifest = Manifest::read(&dir.at("imported")).unwrap().value;
    manifest.files[0].sha256 = digest::sha256_bytes(&bytes);
    manifest.write(&dir.at("imported")).unwrap();
    let given = answer(&mut dir.command("check imported"));
    assert!(
        given.status == 1 && given.stdout.contains("other values in two runs of the same image"),
        "{given:?}"
    );
}

#[test]
fn outputs_without_the_border_of_an_image_are_refused() {
    for (name, shape) in [("cut-square", "44x44"), ("cut-free", "108x172")] {
        let parts = [shape, "a border of 10 pixels on each side", "pad(x, [10] * 4"];
        expect(name, &import(&test_dir(name), name, UNIT), 2, &parts);
    }
    let dir = test_dir("covers");
    let given = import(&dir, "covers", UNIT);
    assert_eq!(given.status, 0, "{given:?}");
    assert!(given.stdout.contains("gives logits over the whole image"), "{given:?}");
    let wrong = labels(&dir, &stripes(96, 64), "");
    let wrong = wrong.iter().zip(stripe_labels(96, 64)).filter(|(found, label)| **found != *label);
    assert!(wrong.count() <= 4 * 64);
}

#[test]
fn rules_of_sizes_are_searched() {
    for (name, said) in [
        ("sixteen-and-one", "multiples of 16 and one pixel more"),
        ("step-112", "multiples of 112"),
    ] {
        let dir = test_dir(name);
        let given = import(&dir, name, UNIT);
        assert!(given.status == 0 && given.stdout.contains(said), "{name}: {given:?}");
        for (width, height) in [(96, 64), (130, 40)] {
            let image = stripes(width, height);
            assert_eq!(labels(&dir, &image, ""), stripe_labels(width, height), "{name}");
        }
        assert_eq!(answer(&mut dir.command("check imported")).status, 0, "{name}");
    }
}

#[test]
fn ways_that_messages_name_work_for_the_file() {
    let dir = test_dir("one-width");
    let given = import(&dir, "one-width", UNIT);
    for part in ["64 pixels wide", "--fit window", "--fit resize --size HEIGHTx64"] {
        assert!(given.stdout.contains(part), "{given:?}");
    }
    let parts = ["any x 64", "--fit window", "--fit resize --size HEIGHTx64"];
    expect("width", &label(&dir, &noise(96, 64), ""), 3, &parts);
    for options in ["--fit window", "--fit resize --size 64x64", "--window 64:32"] {
        let dir = imported("one-width", &format!("{UNIT} {options}"));
        assert_eq!(labels(&dir, &stripes(128, 96), ""), stripe_labels(128, 96), "{options}");
    }
    for (options, part) in [
        ("--fit resize", "--size HEIGHTx64 to --fit resize"),
        ("--window 32:16", "windows of 32x32 do not fit: the file takes any x 64"),
    ] {
        let given = import(&test_dir("one-width"), "one-width", &format!("{UNIT} {options}"));
        expect(options, &given, 2, &[part]);
    }
    // Labels of one size.
    let given = import(&test_dir("labels-byte"), "labels-byte", &format!("{UNIT} --fit window"));
    let parts = ["labels have no mean", "--fit resize, letterbox or pad", "--window whole"];
    expect("labels", &given, 2, &parts);
    let dir = imported("labels-byte", &format!("{UNIT} --fit pad"));
    let given = label(&dir, &noise(65, 64), "");
    expect("labels", &given, 3, &["at most 32x64", "--fit resize or letterbox for larger"]);
}

#[test]
fn outputs_that_do_not_depend_on_the_image_and_masks_of_queries_are_named() {
    let dir = with_classes("softmax-one", "lesion\n");
    let given = import(&dir, "softmax-one", UNIT);
    let said =
        "every pixel of every trial image gets the label 1 `lesion`; a softmax over one channel";
    assert!(given.status == 0 && given.stdout.contains(said), "{given:?}");
    for options in [UNIT, "--normalization unit --output masks_queries_logits"] {
        let given = import(&test_dir("queries-few"), "queries-few", options);
        expect(options, &given, 2, &["masks", "queries", "semantic post-processing"]);
    }
}

#[test]
fn the_classes_that_were_taken_are_printed() {
    let coco = r#"{"categories": [{"id": 2, "name": "cat"}, {"id": 1, "name": "bg"}, {"id": 3, "name": "dog"}]}"#;
    for (file, text, parts) in [
        (
            "label_colors.txt",
            "64 128 64\tAnimal\n192 0 128\tArchway\n0 128 192\tBicyclist\n",
            &["3 classes: `Animal`, `Archway`, `Bicyclist`"][..],
        ),
        ("a.csv", "id,name\n4,a\n5,b\n9,c\n", &["3 classes with ids: 4 `a`, 5 `b`, 9 `c`"]),
        ("comment.txt", "# my classes\nbg\ncat\ndog\n", &["3 classes: `bg`, `cat`, `dog`"]),
        (
            "coco.json",
            coco,
            &["with ids: 2 `cat`, 1 `bg`, 3 `dog`", "channel 0 is `cat` of id 2 and channel 1"],
        ),
    ] {
        let dir = test_dir("float-nchw");
        std::fs::write(dir.at(file), text).unwrap();
        let line = format!("import theirs/float-nchw.onnx --classes {file} {UNIT} --out imported");
        let given = answer(&mut dir.command(&line));
        assert_eq!(given.status, 0, "{given:?}");
        assert!(parts.iter().all(|part| given.stdout.contains(part)), "{file}: {given:?}");
    }
    // A configuration that cannot be read.
    let dir = test_dir("float-nchw");
    std::fs::write(dir.at("theirs/preprocessor_config.json"), r#"{"image_mean": {}}"#).unwrap();
    let given = import(&dir, "float-nchw", UNIT);
    assert!(given.status == 0 && given.stdout.contains("not followed"), "{given:?}");
    assert!(!given.stdout.contains("--normalization") && !given.stdout.contains("untagged"));
    expect("config", &import(&dir, "float-nchw", ""), 2, &["say --normalization", "image_mean"]);
}
