//! Lists as people have them: names of any bytes, images that are named again, folders, copies.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::broken_inputs::Fixture;
use crate::support::said;

fn plan(fixture: &Fixture, settings: &[&str]) -> String {
    let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
    let output = fixture.train_more(&settings, &["--dry-run"]);
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

#[test]
fn names_that_are_not_utf_8_are_names() {
    let fixture = Fixture::new();
    let at = |folder: &str| -> PathBuf {
        fixture.path("data").join(folder).join(OsStr::from_bytes(b"caf\xE9.png"))
    };
    for folder in ["images", "labels"] {
        fs::copy(fixture.path("data").join(folder).join("a.png"), at(folder)).unwrap();
    }
    fs::write(fixture.path("data/list.txt"), b"images/a.png\nimages/b.png\nimages/caf\xE9.png\n")
        .unwrap();
    let settings = ["steps=4", "batch=2", "precise_bn_batches=1", "mode=mean-teacher"];
    let settings = settings.iter().chain(&["unlabeled=list.txt", "skip_broken=true"]);
    let settings: Vec<String> = settings.map(ToString::to_string).collect();
    // Broken, it is named as well as text can.
    let whole = fs::read(at("images")).unwrap();
    fs::write(at("images"), &whole[..20]).unwrap();
    let output = fixture.train_more(&settings, &["--stop-after", "1"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(
        said(&output).contains("images/caf\u{fffd}.png: broken or cut short"),
        "{}",
        said(&output)
    );
    fs::write(fixture.path("data/good.txt"), "images/a.png\nimages/b.png\n").unwrap();
    let settings: Vec<String> =
        settings.into_iter().chain(["labeled=good.txt".to_owned()]).collect();
    let output = fixture.train_more(&settings, &["--stop-after", "1"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("2 unlabeled (1 broken ones are left out)"),
        "{}",
        said(&output)
    );
    let output = fixture.train_more(&settings, &["--resume", "--stop-after", "2"]);
    assert!(output.status.success(), "{}", said(&output));
    fs::write(at("images"), whole).unwrap();
    fs::remove_dir_all(fixture.path("run")).unwrap();
    let said = plan(&fixture, &["labeled=all"]);
    assert!(said.contains("images: 4 labeled"), "{said}");
}

#[test]
fn an_image_counts_once_however_often_it_is_named() {
    let fixture = Fixture::new();
    let absolute = fixture.path("data/images/b.png").display().to_string();
    let list = format!("images/a.png\n./images/a.png\nimages/b.png\n{absolute}\nimages/c.png\n");
    fs::write(fixture.path("data/list.txt"), list).unwrap();
    let said = plan(&fixture, &[]);
    assert!(said.contains("images: 3 labeled"), "{said}");
    assert!(
        said.contains("warning: ") && said.contains("2 of 5 samples are named again"),
        "{said}"
    );
    // Each of the three once.
    assert!(said.contains(" land   0.0 %") && said.contains(" sea  100.0 %"), "{said}");
}

#[test]
fn folders_are_lists_and_the_same_pixels_are_the_same_image() {
    let fixture = Fixture::new();
    for (file, folder) in [("a", "train"), ("b", "train"), ("c", "val")] {
        for kind in ["images", "labels"] {
            let from = fixture.path(&format!("data/{kind}/{file}.png"));
            fs::create_dir_all(fixture.path(&format!("data/{kind}/{folder}"))).unwrap();
            fs::rename(from, fixture.path(&format!("data/{kind}/{folder}/{file}.png"))).unwrap();
        }
    }
    let image = |name: &str, shade: u8| {
        let image = image::RgbImage::from_fn(64, 48, |x, y| [x as u8, y as u8, shade].into());
        image.save(fixture.path(&format!("data/images/{name}"))).unwrap();
    };
    image("train/b.png", 90);
    fs::remove_file(fixture.path("data/images/val/c.png")).unwrap();
    // The pixels of b.png in another format.
    image("val/c.tif", 90);
    let settings = ["labeled=images/train", "validation=images/val", "batch=2"];
    let said = plan(&fixture, &settings);
    assert!(said.contains("images: 2 labeled, none unlabeled, 1 validation"), "{said}");
    for part in [
        "of the validation images, 1 of 1, such as ",
        "c.tif, which has the pixels of ",
        "b.png, are labeled training images too",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    image("val/c.tif", 91);
    let said = plan(&fixture, &settings);
    assert!(!said.contains("which has the pixels of"), "{said}");
    assert!(said.contains("look like labeled training images"), "{said}");
    let other = image::RgbImage::from_fn(64, 48, |x, y| [255 - x as u8, y as u8, 90].into());
    other.save(fixture.path("data/images/val/c.tif")).unwrap();
    let said = plan(&fixture, &settings);
    assert!(!said.contains("warning: of the"), "{said}");
    image("train/b.png", 7);
    let said = plan(&fixture, &settings);
    assert!(said.contains("of the labeled images, 1 of 2 has the pixels of another one"), "{said}");
}
