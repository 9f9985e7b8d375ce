//! Small folders of masks.

use std::fs;
use std::path::Path;

use image::GrayImage;

use super::*;
use crate::dataset::Dataset;

/// A folder dataset with the given masks of 4x1 pixels.
fn folder(classes: &str, masks: &[[u8; 4]]) -> (tempfile::TempDir, LabeledDataset) {
    let root = tempfile::tempdir().unwrap();
    for name in ["images", "labels"] {
        fs::create_dir(root.path().join(name)).unwrap();
    }
    fs::write(root.path().join("classes.txt"), classes).unwrap();
    for (index, mask) in masks.iter().enumerate() {
        let mask = GrayImage::from_raw(4, 1, mask.to_vec()).unwrap();
        for folder in ["images", "labels"] {
            mask.save(root.path().join(folder).join(format!("{index}.png"))).unwrap();
        }
    }
    let set = open(root.path());
    (root, set)
}

fn open(root: &Path) -> LabeledDataset {
    LabeledDataset::from_files(Dataset::Folder, root, None, "all").unwrap()
}

#[test]
fn masks_of_0_and_255_are_told_and_count_once_that_is_said() {
    let masks = [[0, 0, 0, 255], [0, 0, 0, 255]];
    let (root, set) = folder("0 background\n1 crack\n", &masks);
    let census = set.label_census(100).unwrap();
    assert_eq!((census.masks, &census.classes[..], census.ignored), (2, &[6, 0][..], 2));
    let text = census.absent_text("train.txt").unwrap();
    for part in [
        "the class `crack` (id 1) has no labeled pixel in the 2 masks of train.txt",
        "25.0 % of the pixels are 255",
        "are these masks of 0 and 255? then write `255 crack` in ",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(census.ignored_text().unwrap(), "25.0 % of the pixels are ignored (id 255)");
    fs::write(root.path().join("classes.txt"), "0 background\n255 crack\n").unwrap();
    let census = open(root.path()).label_census(100).unwrap();
    assert_eq!(
        (&census.classes[..], census.absent_text("x"), census.ignored),
        (&[6, 2][..], None, 0)
    );
    fs::write(root.path().join("classes.txt"), "0 background\n1 crack\n255 ignore").unwrap();
    let text = open(root.path()).label_census(100).unwrap().absent_text("x").unwrap();
    assert!(text.ends_with("of x"), "255 is said to be ignored: {text}");
}

#[test]
fn unknown_ids_of_all_masks_are_named_at_once() {
    let masks = [[1, 2, 3, 0], [1, 2, 3, 0], [99, 99, 99, 1], [1, 1, 1, 77]];
    let (root, set) = folder("1 red\n2 green\n3 blue\n", &masks);
    let text = set.label_census(100).unwrap_err().to_string();
    for part in [
        "0 (2 pixels in 2 files)",
        "77 (1 pixel in ",
        "labels/3.png)",
        "99 (3 pixels in ",
        "add the line `0,77,99 ignore` to ",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("train ids"), "{text}");
    let classes = "1 red\n2 green\n3 blue\n0,77,99 ignore\n";
    fs::write(root.path().join("classes.txt"), classes).unwrap();
    let set = open(root.path());
    let census = set.label_census(100).unwrap();
    assert_eq!((&census.classes[..], census.ignored), (&[6, 2, 2][..], 6));
    let ignored = LabelCensus::ignored_by_file(&set).unwrap();
    assert!(ignored.ends_with("classes.txt ignores 0, 77, 99"), "{ignored}");
    let (_root, set) = folder("1 red\n2 green\n", &[[0, 1, 1, 0]]);
    let text = set.label_census(100).unwrap_err().to_string();
    assert!(text.contains("if these are train ids, 0 to 1, use"), "{text}");
}

#[test]
fn broken_masks_are_listed_and_void_classes_pointed_at() {
    let (root, set) = folder("0 void\n1 a\n", &[[0, 1, 1, 0]; 7]);
    let census = set.label_census(100).unwrap();
    let notes = census.void_classes();
    assert!(notes[0].starts_with("`void` is a class like any other") && notes.len() == 1);
    for index in 0..7 {
        fs::write(root.path().join(format!("labels/{index}.png")), "no").unwrap();
    }
    let faults = set.label_census(100).unwrap_err();
    assert_eq!(faults.faults.len(), 7);
    assert!(faults.to_string().ends_with("and 2 more of 7 masks cannot be read"), "{faults}");
}

#[test]
fn ids_above_255_are_named_with_the_way_to_other_ones() {
    let (root, set) = folder("24 person\n26 car\n", &[[24, 26, 26, 24]; 2]);
    for (index, first) in [(0, 24_001_u16), (1, 26_001)] {
        let ids = vec![first, 26_000, 26_000, 24_001];
        let mask = image::ImageBuffer::<image::Luma<u16>, _>::from_raw(4, 1, ids).unwrap();
        mask.save(root.path().join(format!("labels/{index}.png"))).unwrap();
    }
    let text = set.label_census(100).unwrap_err().to_string();
    for part in [
        "24001 (3 pixels in 2 files), 26000 (4 pixels in 2 files), 26001 (1 pixel in ",
        "protoseg convert ",
        "`1000-255999 /1000`",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("24001,26000 ignore"), "{text}");
}

#[test]
fn palettes_that_draw_a_color_under_several_indices_are_refused_with_both() {
    let (root, set) = folder("0 background\n1 car\n2 road\n", &[[0, 1, 2, 0]; 3]);
    let save = |index: usize, palette: [[u8; 3]; 3]| {
        let file = fs::File::create(root.path().join(format!("labels/{index}.png"))).unwrap();
        let mut encoder = png::Encoder::new(file, 4, 1);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_palette(palette.as_flattened().to_vec());
        encoder.write_header().unwrap().write_image_data(&[0, 1, 2, 0]).unwrap();
    };
    let (red, blue) = ([200, 0, 0], [0, 0, 200]);
    (0..3).for_each(|index| save(index, [[0; 3], red, blue]));
    assert_eq!(set.label_census(100).unwrap().classes, [6, 3, 3]);
    save(2, [[0; 3], blue, red]);
    let text = set.label_census(100).unwrap_err().to_string();
    for part in [
        "labels/2.png: the color 0,0,200 is the index 1 here and 2 in ",
        "labels/0.png: the palettes differ",
        "save the masks as RGB",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Shades from dark to bright are stretched from file to file.
    save(2, [[0; 3], [127; 3], [255; 3]]);
    assert!(set.label_census(100).is_ok());
}

#[test]
fn colors_of_no_class_are_covered_by_one_line() {
    let classes = "0 car 128 0 0\n1 road 0 128 0\n";
    let (root, set) = folder(classes, &[[0; 4]; 2]);
    for index in 0..2 {
        let mask = image::RgbImage::from_fn(12, 1, |x, _| match x {
            0 => [128, 0, 0].into(),
            1 => [0, 128, 0].into(),
            _ => [x as u8, 9, 9].into(),
        });
        mask.save(root.path().join(format!("labels/{index}.png"))).unwrap();
    }
    let text = set.label_census(100).unwrap_err().to_string();
    assert!(text.contains("add the line `* ignore` to ") && text.contains("2 more, as"), "{text}");
    fs::write(root.path().join("classes.txt"), format!("{classes}* ignore\n")).unwrap();
    let census = open(root.path()).label_census(100).unwrap();
    assert_eq!((&census.classes[..], census.ignored), (&[2, 2][..], 20));
    fs::write(root.path().join("classes.txt"), "0 car\n1 road\n").unwrap();
    let text = open(root.path()).label_census(100).unwrap_err().to_string();
    assert!(text.contains("the masks hold the colors 0,128,0 (2 pixels in 2 files)"), "{text}");
}
