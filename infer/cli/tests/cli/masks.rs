//! Scores on masks that mean something else than they seem to, and the ids of written masks.

use image::{GrayImage, Luma, Rgb, RgbImage};
use protoseg_images::mask::Mask;

use crate::common::{TestDir, answer, expect, stripe_labels, stripes};

const EVAL: &str = "eval bundle --data folder --root in";

/// A data set whose single mask has the samples of `sample` at the stripes' labels.
fn dir(classes: &str, sample: impl Fn(u8) -> u8) -> TestDir {
    let dir = TestDir::new();
    std::fs::write(dir.at("in/classes.txt"), classes).unwrap();
    stripes(48, 32).save(dir.at("in/images/a.png")).unwrap();
    let labels = stripe_labels(48, 32);
    let mask = GrayImage::from_fn(48, 32, |x, y| Luma([sample(labels[(y * 48 + x) as usize])]));
    mask.save(dir.at("in/labels/a.png")).unwrap();
    dir
}

#[test]
fn a_score_says_which_classes_it_leaves_out() {
    // Void where the label is red, so that a perfect score is one of two classes.
    let dir = dir("10 red\n20 green\n30 blue\n", |label| [255, 20, 30][usize::from(label)]);
    let given = answer(&mut dir.command(EVAL));
    expect(EVAL, &given, 0, &["the class `red` (id 10) has no labeled pixel", "`255 red`"]);
    let line = "mIoU            100.00 over 2 of 3 classes; absent: red\n";
    assert!(given.stdout.contains(line), "{}", given.stdout);
    let json = answer(&mut dir.command(&format!("{EVAL} --json")));
    let summary: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(summary["scores"]["absent"], serde_json::json!(["red"]));
    assert_eq!(summary["warnings"].as_array().map(Vec::len), Some(1));
}

#[test]
fn nothing_to_score_and_unknown_ids_give_no_score() {
    let void = dir("10 red\n20 green\n30 blue\n", |_| 255);
    let given = answer(&mut void.command(EVAL));
    expect("void", &given, 2, &["nothing to score"]);
    let unknown = dir("10 red\n20 green\n30 blue\n", |label| [10, 77, 99][usize::from(label)]);
    let given = answer(&mut unknown.command(EVAL));
    expect("unknown", &given, 2, &["77 (512 pixels", "99 (512 pixels", "`77,99 ignore`"]);
    unknown.edit("in/classes.txt", "10 red\n", "10 red\n77,99 ignore\n");
    let given = answer(&mut unknown.command(EVAL));
    let mean = "mIoU            100.00 over 1 of 3 classes; absent: green, blue\n";
    assert!(given.stdout.contains(mean), "{given:?}");
    let ignored = "66.7 % of the pixels are ignored (ids 77, 99)\n";
    assert!(given.stdout.ends_with(ignored) && given.stderr.is_empty(), "{given:?}");
}

#[test]
fn palettes_in_another_order_are_refused_and_colors_read() {
    let dir = dir("0 red 255 0 0\n1 green 0 255 0\n2 blue 0 0 255\n", |label| label);
    let labels = stripe_labels(48, 32);
    let order = [[0, 0, 255], [255, 0, 0], [0, 255, 0]];
    let indices: Vec<u8> = labels.iter().map(|label| [1, 2, 0][usize::from(*label)]).collect();
    let file = std::fs::File::create(dir.at("in/labels/a.png")).unwrap();
    let mut encoder = png::Encoder::new(file, 48, 32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_palette(order.as_flattened());
    encoder.write_header().unwrap().write_image_data(&indices).unwrap();
    let given = answer(&mut dir.command(EVAL));
    expect(
        "palette",
        &given,
        2,
        &["labels/a.png: index 0 is drawn in 0,0,255, which is `blue`", "classes.txt", "1 of 1"],
    );
    let color = |x, y| Rgb(order[usize::from(indices[(y * 48 + x) as usize])]);
    RgbImage::from_fn(48, 32, color).save(dir.at("in/labels/a.png")).unwrap();
    let given = answer(&mut dir.command(EVAL));
    assert!(given.stdout.contains("mIoU            100.00\n"), "{given:?}");
}

#[test]
fn masks_of_train_ids_say_so_and_are_read_as_such() {
    let ids = |label| [10, 20, 30][usize::from(label)];
    let dir = dir("10 red\n20 green\n30 blue\n", ids);
    let given = answer(&mut dir.command("label bundle in/images --out out --format ids,labelids"));
    let note = "ids holds train ids (0 red, 1 green, 2 blue); --format labelids writes those of \
                the class file (10 red, 20 green, 30 blue)\n";
    assert!(given.stdout.ends_with(note), "{given:?}");
    let names = Mask::read(&dir.at("out/ids/a.png"), 10_000).unwrap().train_ids_of.unwrap();
    assert_eq!(names, ["red", "green", "blue"]);
    for mask in ["out/ids/a.png", "out/labelids/a_labelIds.png"] {
        std::fs::copy(dir.at(mask), dir.at("in/labels/a.png")).unwrap();
        let given = answer(&mut dir.command(EVAL));
        assert!(given.stdout.contains("mIoU            100.00\n"), "{mask}: {given:?}");
    }
    std::fs::copy(dir.at("out/ids/a.png"), dir.at("in/labels/a.png")).unwrap();
    dir.edit("in/classes.txt", "10 red", "10 rot");
    expect("others", &answer(&mut dir.command(EVAL)), 2, &["a score would mean nothing"]);
}

#[test]
fn classes_in_another_order_are_refused_with_the_way_to_the_models() {
    let dir = dir("0 green\n1 red\n2 blue\n", |label| [1, 0, 2][usize::from(label)]);
    let parts = [
        "in/classes.txt has them in another order, green, red, blue: a score would mean nothing",
        "`protoseg convert in --classes FILE --out NEW`",
        "the lines `0 red`, `1 green`, `2 blue`",
    ];
    expect("order", &answer(&mut dir.command(EVAL)), 2, &parts);
    std::fs::write(dir.at("models.txt"), "0 red\n1 green\n2 blue\n").unwrap();
    let given = answer(&mut dir.command("convert in --classes models.txt --out new"));
    assert_eq!(given.status, 0, "{given:?}");
    let given = answer(&mut dir.command("eval bundle --data folder --root new"));
    assert!(given.stdout.contains("mIoU            100.00\n"), "{given:?}");
}
