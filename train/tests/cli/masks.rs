//! Plans and refusals on masks that mean something else than they seem to.

use image::codecs::jpeg::JpegEncoder;
use image::{GrayImage, Luma, RgbImage};

use crate::broken_inputs::Fixture;
use crate::support::said;

/// A plan of the fixture with another class file and a function that gives the sample of a pixel.
fn plan(classes: &str, sample: impl Fn(u32, u32) -> u8, settings: &[&str]) -> (i32, String) {
    let fixture = Fixture::new();
    write(&fixture, classes, |name| {
        let mask = GrayImage::from_fn(64, 48, |x, y| Luma([sample(x, y)]));
        mask.save(fixture.path(&format!("data/labels/{name}.png"))).unwrap();
    });
    dry_run(&fixture, settings)
}

fn write(fixture: &Fixture, classes: &str, mask: impl Fn(&str)) {
    std::fs::write(fixture.path("data/classes.txt"), classes).unwrap();
    ["a", "b", "c"].into_iter().for_each(mask);
}

fn dry_run(fixture: &Fixture, settings: &[&str]) -> (i32, String) {
    let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
    let output = fixture.train_more(&settings, &["--dry-run"]);
    (output.status.code().unwrap(), said(&output))
}

fn assert_says((status, text): &(i32, String), expected: i32, parts: &[&str]) {
    assert_eq!(*status, expected, "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing: {text}");
    }
}

#[test]
fn masks_of_0_and_255_are_refused_until_their_meaning_is_said() {
    let quarter = |x, _| if x < 16 { 255 } else { 0 };
    let refused = plan("0 background\n1 crack\n", quarter, &[]);
    assert_says(
        &refused,
        2,
        &[
            "the class `crack` (id 1) has no labeled pixel",
            "25.0 % of the pixels are 255",
            "`255 crack`",
        ],
    );
    let said = plan("0 background\n255 crack\n", quarter, &[]);
    assert_says(&said, 0, &["background  75.0 % ", "crack       25.0 % "]);
    let meant = plan("0 background\n1 crack\n", quarter, &["allow_absent_classes=true"]);
    assert_says(&meant, 0, &["crack        0.0 % none", "warning: the class `crack`"]);
}

#[test]
fn void_may_have_any_id_and_unknown_ids_are_all_named() {
    let thirds = |x: u32, y: u32| if (x, y) == (5, 2) { 99 } else { (x / 16).min(2) as u8 };
    let unknown = plan("1 red\n2 green\n", thirds, &[]);
    assert_says(
        &unknown,
        2,
        &["0 (2301 pixels in 3 files)", "99 (3 pixels in 3 files)", "the line `0,99 ignore`"],
    );
    let ignored = plan("1 red\n2 green\n0,99 ignore\n", thirds, &[]);
    assert_says(
        &ignored,
        0,
        &[
            "red    33.3 % ",
            "green  66.7 % ",
            "25.0 % of the pixels are ignored (ids 0, 99)",
            "ignores 0, 99",
        ],
    );
    let learned = plan("0 void\n1 red\n2,99 ignore", thirds, &[]);
    assert_says(&learned, 0, &["`void` is a class like any other", "`0 ignore`"]);
}

#[test]
fn colors_are_read_where_the_classes_have_them() {
    let colored = |foreign: bool| {
        let fixture = Fixture::new();
        write(&fixture, "0 car #800000\n1 tree 0 128 0\n", |name| {
            let color = |x: u32, y: u32| match (x, y) {
                (5, 2) if foreign => [77, 13, 5],
                (0..16, _) => [128, 0, 0],
                _ => [0, 128, 0],
            };
            let mask = RgbImage::from_fn(64, 48, |x, y| color(x, y).into());
            mask.save(fixture.path(&format!("data/labels/{name}.png"))).unwrap();
        });
        dry_run(&fixture, &[])
    };
    assert_says(&colored(false), 0, &["car   25.0 % ", "tree  75.0 % "]);
    assert_says(&colored(true), 2, &["77,13,5 (3 pixels in 3 files)", "`255 ignore 77 13 5`"]);
}

#[test]
fn validation_images_that_are_trained_on_are_counted() {
    let fixture = Fixture::new();
    std::fs::copy(fixture.path("data/images/a.png"), fixture.path("data/images/d.png")).unwrap();
    std::fs::copy(fixture.path("data/labels/a.png"), fixture.path("data/labels/d.png")).unwrap();
    std::fs::write(fixture.path("data/val.txt"), "images/d.png\n").unwrap();
    let plan = dry_run(&fixture, &["validation=val.txt"]);
    assert_says(
        &plan,
        0,
        &["warning: of the validation images, 1 of 1, such as", "are labeled training images too"],
    );
}

#[test]
fn the_way_out_of_many_masks_is_said_once() {
    let fixture = Fixture::new();
    // Half the size of the images.
    for name in ["a", "b", "c"] {
        fixture.label(name, 32, 24, 3);
    }
    let halved = dry_run(&fixture, &[]);
    let way = "the label has 1/2 of the image's sides: enlarge it 2 times";
    assert_says(&halved, 2, &["b.png has 64x48 pixels, but its label ", "c.png has 32x24", way]);
    assert_eq!(halved.1.matches(way).count(), 1, "{}", halved.1);
    let unknown = plan("1 red\n2 green\n", |x, _| if x < 9 { 77 } else { 1 }, &[]);
    assert_says(&unknown, 2, &["labels/b.png: the id 77 (432 pixels", "the line `77 ignore`"]);
    assert_eq!(unknown.1.matches("`77 ignore`").count(), 1, "{}", unknown.1);
}

#[test]
fn validation_images_that_were_saved_again_with_loss_are_counted() {
    let fixture = Fixture::new();
    let image = RgbImage::from_fn(64, 48, |x, y| [3 * x as u8, 5 * y as u8, 7].into());
    image.save(fixture.path("data/images/a.png")).unwrap();
    let file = std::fs::File::create(fixture.path("data/images/d.jpg")).unwrap();
    JpegEncoder::new_with_quality(file, 40).encode_image(&image).unwrap();
    std::fs::copy(fixture.path("data/labels/a.png"), fixture.path("data/labels/d.png")).unwrap();
    std::fs::write(fixture.path("data/val.txt"), "images/d.jpg\nimages/b.png\n").unwrap();
    std::fs::write(fixture.path("data/list.txt"), "images/a.png\nimages/c.png\n").unwrap();
    RgbImage::from_fn(64, 48, |x, y| [(x * y) as u8, 0, 4 * y as u8].into())
        .save(fixture.path("data/images/b.png"))
        .unwrap();
    for _ in 0..2 {
        // The second time from what is remembered.
        let plan = dry_run(&fixture, &["validation=val.txt", "batch=2"]);
        let parts = ["of the validation images, 1 of 2, such as ", "d.jpg, which looks like "];
        assert_says(&plan, 0, &parts);
        assert_says(&plan, 0, &["look like labeled training images"]);
    }
}
