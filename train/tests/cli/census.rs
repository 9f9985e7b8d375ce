//! The look before training: every broken file is named in one start, and the next start remembers the good ones.

use std::fs;
use std::process::Output;

use crate::broken_inputs::Fixture;
use crate::support::said;
use image::{ImageFormat, RgbImage};

/// A fixture with ten unlabeled images, of which three are cut short.
fn with_unlabeled() -> Fixture {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path("data/un")).unwrap();
    let whole = fixture.path("data/un/whole.jpg");
    RgbImage::from_fn(64, 48, |x, y| [x as u8, y as u8, 7].into())
        .save_with_format(&whole, ImageFormat::Jpeg)
        .unwrap();
    let bytes = fs::read(&whole).unwrap();
    let mut list = String::new();
    for index in 0..10 {
        let kept = if [2, 5, 8].contains(&index) { bytes.len() / 2 } else { bytes.len() };
        fs::write(fixture.path(&format!("data/un/{index}.jpg")), &bytes[..kept]).unwrap();
        list.push_str(&format!("un/{index}.jpg\n"));
    }
    fs::write(fixture.path("data/un.txt"), list).unwrap();
    fixture
}

fn train(fixture: &Fixture, more: &[&str], arguments: &[&str]) -> Output {
    let settings = ["mode=mean-teacher", "unlabeled=un.txt", "precise_bn_batches=1"];
    let settings: Vec<String> =
        settings.iter().chain(more).map(|setting| (*setting).to_owned()).collect();
    fixture.train_more(&settings, arguments)
}

#[test]
fn all_broken_files_are_named_in_one_start() {
    let fixture = with_unlabeled();
    for name in ["a", "c"] {
        fixture.label(name, 64, 48, 77);
    }
    // A broken image with a broken label: both are to be mended.
    fs::write(fixture.path("data/images/a.png"), "no image").unwrap();
    let output = train(&fixture, &[], &["--dry-run"]);
    let message = said(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    for file in ["images/a.png", "labels/a.png", "labels/c.png", "un/2.jpg", "un/5.jpg", "un/8.jpg"]
    {
        assert_eq!(message.matches(file).count(), 1, "{file}: {message}");
    }
    for words in ["6 files cannot be used (3 labeled, 3 unlabeled)", "bad.jsonl", "skip_broken"] {
        assert!(message.contains(words), "{words}: {message}");
    }
    let bad = fs::read_to_string(fixture.path("run/bad.jsonl")).unwrap();
    let lists: Vec<String> = bad
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["list"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(lists, ["labeled", "labeled", "labeled", "unlabeled", "unlabeled", "unlabeled"]);
}

#[test]
fn broken_unlabeled_images_are_left_out_on_request_also_after_a_resume() {
    let fixture = with_unlabeled();
    let settings = ["skip_broken=true", "steps=3", "warmup_steps=1"];
    let output = train(&fixture, &settings, &["--stop-after", "2"]);
    let message = said(&output);
    assert!(output.status.success(), "{message}");
    assert!(message.contains("7 unlabeled (3 broken ones are left out)"), "{message}");
    assert_eq!(fs::read_to_string(fixture.path("run/bad.jsonl")).unwrap().lines().count(), 3);
    let output = train(&fixture, &settings, &["--resume"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(fixture.path("run/checkpoint").is_dir());
}

#[test]
fn a_second_start_reads_only_what_has_changed() {
    let fixture = with_unlabeled();
    let output = train(&fixture, &[], &["--dry-run"]);
    assert_eq!(output.status.code(), Some(2));
    let census = || fs::read_to_string(fixture.path("run/census.jsonl")).unwrap();
    // A header, and the good images of both lists.
    assert_eq!(census().lines().count(), 1 + 3 + 7);
    let altered = census().replace("[48,64]", "[31,64]");
    fs::write(fixture.path("run/census.jsonl"), altered).unwrap();
    fs::copy(fixture.path("data/un/0.jpg"), fixture.path("data/un/2.jpg")).unwrap();
    let output = train(&fixture, &["skip_broken=true"], &["--dry-run"]);
    let message = said(&output);
    assert!(output.status.success(), "{message}");
    // The sizes are those that were remembered.
    assert!(message.contains("7 of 8 unlabeled images are smaller than a crop of 32"), "{message}");
    assert!(message.contains("(64x31)"), "{message}");
    // Other classes give pixels another meaning.
    fs::write(fixture.path("data/classes.txt"), "3 land\n8 lake\n").unwrap();
    let output = train(&fixture, &["skip_broken=true"], &["--dry-run"]);
    assert!(
        output.status.success() && !said(&output).contains("smaller than"),
        "{}",
        said(&output)
    );
}

#[test]
fn validation_images_without_a_class_are_refused() {
    let fixture = Fixture::new();
    let ignored = image::GrayImage::from_pixel(64, 48, image::Luma([255]));
    ignored.save(fixture.path("data/labels/c.png")).unwrap();
    fs::write(fixture.path("data/val.txt"), "images/c.png\n").unwrap();
    let output = fixture.train(&["validation=val.txt".to_owned()]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("no pixel of the validation images"), "{}", said(&output));
}
