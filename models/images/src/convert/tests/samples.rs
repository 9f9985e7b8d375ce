//! Samples of masks: thresholds, wide ids, floats, pixels of no annotation, and a mask for each class.

use super::*;
use image::{ImageBuffer, Luma};

/// Images and masks of 4x1 pixels in a folder `set`.
fn masks(masks: &[(&str, [u8; 4])]) -> Fixture {
    let fixture = Fixture::new();
    for (name, samples) in masks {
        let stem = Path::new(name).file_stem().unwrap().to_str().unwrap();
        fixture.image(&format!("set/images/{stem}.png"), 4, 1);
        fixture.mask(&format!("set/labels/{name}"), 4, samples);
    }
    fixture
}

fn threshold(fixture: &Fixture, least: u8) -> ConvertOptions {
    ConvertOptions { threshold: Some(least), ..fixture.options() }
}

#[test]
fn a_threshold_that_leaves_one_side_empty_is_refused_with_numbers() {
    let fixture = masks(&[("a.png", [0, 1, 1, 0]), ("b.png", [1, 1, 1, 0])]);
    let error = fixture.refusal("set", &threshold(&fixture, 128));
    for part in [
        "--threshold 128 leaves one side empty: all 8 pixels of 2 masks of `foreground` are darker, from 0 \
         to 1 (",
        "labels/a.png); --threshold 1 parts them",
        "leave --threshold out: classes.txt says",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(fixture.convert("set", &threshold(&fixture, 1)).1[0].1, [0, 1, 1, 0]);
    let fixture = masks(&[("a.png", [200, 210, 255, 200])]);
    let error = fixture.refusal("set", &threshold(&fixture, 100));
    assert!(error.contains("are at least as bright, from 200 to 255"), "{error}");
    assert!(error.contains("a threshold from 210 to 255 parts them"), "{error}");
    // An image without foreground is none of the kind, and one of other values is said.
    let fixture = masks(&[("a.png", [0, 255, 255, 0]), ("b.png", [0; 4]), ("c.png", [0, 0, 1, 1])]);
    let (notes, counts) = fixture.counts("set", &threshold(&fixture, 128));
    assert_eq!(&counts.classes[..], [10, 2]);
    assert!(notes[0].starts_with("masks with a few values, of which the threshold parts none: "));
    assert!(notes.len() == 1 && notes[0].contains("labels/c.png"), "{notes:?}");
    // 16 bits of which 8 are used, and floats.
    let fixture = masks(&[("a.png", [0; 4])]);
    let wide = ImageBuffer::<Luma<u16>, _>::from_raw(4, 1, vec![0, 255, 255, 0]).unwrap();
    wide.save(fixture.at("set/labels/a.png")).unwrap();
    let error = fixture.refusal("set", &threshold(&fixture, 128));
    assert!(
        error.contains("as their samples, 0 to 255, are no shades from black to white"),
        "{error}"
    );
    fs::remove_file(fixture.at("set/labels/a.png")).unwrap();
    fs::write(fixture.at("set/labels/a.tif"), float_tiff([0.0, 1.0, 1.0, 0.0])).unwrap();
    let error = fixture.refusal("set", &threshold(&fixture, 128));
    assert!(
        error.contains("from 0 to 1 (") && error.contains("--threshold 1 parts them"),
        "{error}"
    );
    // A mask for each class.
    let fixture = masks(&[("a.car.png", [0, 1, 1, 0]), ("a.road.png", [255, 0, 0, 0])]);
    fs::rename(fixture.at("set/images/a.car.png"), fixture.at("set/images/a.png")).unwrap();
    fs::remove_file(fixture.at("set/images/a.road.png")).unwrap();
    let error = fixture.refusal("set", &threshold(&fixture, 128));
    assert!(error.contains("all 4 pixels of the mask of `car` are darker, from 0 to 1"), "{error}");
}

fn float_tiff(samples: [f32; 4]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut encoder = tiff::encoder::TiffEncoder::new(&mut bytes).unwrap();
    encoder.write_image::<tiff::encoder::colortype::Gray32Float>(4, 1, &samples).unwrap();
    bytes.into_inner()
}

#[test]
fn wide_ids_get_new_ones_and_the_way_is_named() {
    let fixture = masks(&[("a.png", [0; 4])]);
    fixture.text("set/classes.txt", "7 road\n26 car\n0 ignore\n");
    let wide = ImageBuffer::<Luma<u16>, _>::from_raw(4, 1, vec![7, 26_001, 26_002, 0]).unwrap();
    wide.save(fixture.at("set/labels/a.png")).unwrap();
    let error = fixture.refusal("set", &fixture.options());
    for part in [
        "26001 (1 pixel, first at row 0, column 1), 26002 (1 pixel",
        "--map FILE --out NEW`",
        "`1000-255999 /1000` and `* =`",
    ] {
        assert!(error.contains(part), "{error}");
    }
    fixture.text("ids.txt", "1000-255999 /1000\n* =\n");
    let with = ConvertOptions { map: Some(fixture.at("ids.txt")), ..fixture.options() };
    let (classes, labels) = fixture.convert("set", &with);
    assert!(classes.starts_with("7 road ") && classes.contains("\n26 car "), "{classes}");
    assert_eq!(labels[0].1, [0, 1, 1, 255]);
    fixture.text("ids.txt", "26000-26999 26\n0 ignore\n");
    let error = fixture.refusal("set", &with);
    assert!(error.contains("the id 7 (1 pixel in 1 mask) of the masks has no new id"), "{error}");
    fixture.text("ids.txt", "* 9\n");
    let error = fixture.refusal("set", &with);
    assert!(error.contains("the id 9 (4 pixels, first"), "{error}");
}

#[test]
fn masks_of_whole_floats_are_ids() {
    let fixture = masks(&[("a.png", [0; 4])]);
    fixture.text("set/classes.txt", "0 sky\n1 car\n");
    fs::remove_file(fixture.at("set/labels/a.png")).unwrap();
    fs::write(fixture.at("set/labels/a.tif"), float_tiff([0.0, 1.0, 255.0, 0.0])).unwrap();
    assert_eq!(fixture.convert("set", &fixture.options()).1[0].1, [0, 1, 255, 0]);
    fs::write(fixture.at("set/labels/a.tif"), float_tiff([0.0, 0.25, 1.0, 0.0])).unwrap();
    let error = fixture.refusal("set", &fixture.options());
    assert!(error.contains("from 0 to 1, of which 1 of 4 are no ids"), "{error}");
}

#[test]
fn pixels_outside_of_cvats_annotations_are_what_the_archive_says() {
    let fixture = Fixture::new();
    let [black, red, blue] = [[0; 3], [128, 0, 0], [0, 0, 128]];
    fixture.text("cvat/labelmap.txt", "background:0,0,0::\ncar:128,0,0::\nfence:0,0,128::\n");
    fixture.image("cvat/JPEGImages/a.png", 4, 1);
    fixture.colors("cvat/SegmentationClass/a.png", 4, &[black, red, blue, black]);
    let ignoring = |names: &[&str]| ConvertOptions {
        ignore: names.iter().map(|name| (*name).to_owned()).collect(),
        ..fixture.options()
    };
    // Black has no annotation: it is the background, and counted.
    let (_, counts) = fixture.counts("cvat", &fixture.options());
    assert_eq!((counts.uncovered, counts.ignored, &counts.classes[..]), (2, 0, &[2, 1, 1][..]));
    // An ignored label is no background.
    assert_eq!(fixture.convert("cvat", &ignoring(&["fence"])).1[0].1, [0, 1, 255, 0]);
    assert_eq!(fixture.convert("cvat", &ignoring(&["background"])).1[0].1, [255, 0, 1, 255]);
    // The first black pixel is an annotation of the background, so that the last is none.
    fixture.colors("cvat/SegmentationObject/a.png", 4, &[[9, 9, 9], red, blue, black]);
    let (_, counts) = fixture.counts("cvat", &fixture.options());
    assert_eq!((counts.uncovered, counts.ignored, &counts.classes[..]), (1, 1, &[1, 1, 1][..]));
    let with = ConvertOptions { background: Some("background".into()), ..fixture.options() };
    assert_eq!(fixture.convert("cvat", &with).1[0].1, [0, 1, 2, 0]);
    // By its name, or by the class file.
    fixture.text("cvat/labelmap.txt", "background:0,0,0::\ncar:128,0,0::\nignore:0,0,128::\n");
    let (notes, counts) = fixture.counts("cvat", &fixture.options());
    assert_eq!(notes, ["`ignore` counts for nothing, by its name"]);
    assert_eq!((counts.ignored, &counts.classes[..]), (2, &[1, 1][..]));
    fixture.text("cvat/labelmap.txt", "background:0,0,0::\ncar:128,0,0::\nfence:0,0,128::\n");
    fixture.text("classes.txt", "0 background\n4 car\n9 fence ignore\n");
    let with = ConvertOptions { classes: Some(fixture.at("classes.txt")), ..fixture.options() };
    assert_eq!(fixture.convert("cvat", &with).1[0].1, [0, 1, 255, 255]);
}

#[test]
fn a_mask_for_each_class_may_lie_apart_from_the_images() {
    let car = [255, 255, 0, 0];
    let tree = [0, 0, 255, 0];
    for (names, input, images) in [
        (["apart/car/a.png", "apart/tree/a.png"], "apart", "photos"),
        (["apart/a_car.png", "apart/a_tree.png"], "apart", "photos"),
        (["apart/masks/a.car.png", "apart/masks/a.tree.png"], "apart", "photos"),
        (["set/car/a.png", "set/tree/a.png"], "set", "set/images"),
        (["set/car/a.png", "set/tree/a.png"], "set", "set/photos"),
        (["apart/x/car/y/a.png", "apart/x/tree/y/a.png"], "apart/x", "photos/y"),
    ] {
        let fixture = Fixture::new();
        fixture.image(&format!("{images}/a.jpg"), 4, 1);
        fixture.mask(names[0], 4, &car);
        fixture.mask(names[1], 4, &tree);
        let folder = images.strip_suffix("/y").unwrap_or(images);
        let own = images == "set/images";
        let with = ConvertOptions {
            images: (!own).then(|| fixture.at(folder)),
            background: Some("ground".into()),
            ..fixture.options()
        };
        let (classes, labels) = fixture.convert(input, &with);
        let classes: Vec<&str> =
            classes.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
        assert_eq!(classes, ["ground", "car", "tree"], "{names:?}");
        assert_eq!(labels[0].1, [1, 1, 2, 0], "{names:?}");
    }
    // A mask of an image that is not there costs itself.
    let fixture = Fixture::new();
    fixture.image("photos/a.jpg", 4, 1);
    fixture.mask("masks/car/a.png", 4, &car);
    fixture.mask("masks/car/gone.png", 4, &car);
    let with = ConvertOptions {
        images: Some(fixture.at("photos")),
        background: Some("ground".into()),
        ..fixture.options()
    };
    let (notes, counts) = fixture.counts("masks", &with);
    assert!(
        notes[0].starts_with("1 mask is named after no image and left out, such as "),
        "{notes:?}"
    );
    assert_eq!((counts.images, notes.len()), (1, 2));
    assert!(notes[1].contains("`car` (1 mask, such as car/a.png)"), "{notes:?}");
    // A label map for each image, apart from the images.
    let fixture = Fixture::new();
    fixture.image("photos/a.jpg", 4, 1);
    fixture.image("photos/b.jpg", 4, 1);
    fixture.mask("maps/a.png", 4, &[0, 1, 1, 0]);
    fixture.text("maps/classes.txt", "0 ground\n1 car\n");
    let with = ConvertOptions { images: Some(fixture.at("photos")), ..fixture.options() };
    assert_eq!(fixture.convert("maps", &with).1, [("a.jpg".to_owned(), vec![0, 1, 1, 0])]);
    let (notes, _) = fixture.counts("maps", &with);
    assert!(
        notes[0]
            .starts_with("1 image has no annotations and is left out, such as b.jpg; --unlabeled"),
        "{notes:?}"
    );
}

#[test]
fn what_all_masks_have_in_their_names_is_taken_away_and_said() {
    for (names, images) in [
        (["set/labels/a_L.png", "set/labels/b_L.png"], "set/images"),
        (["set/masks/gt-a.png", "set/masks/gt-b.png"], "set/images"),
        (["set/labels/a_any.png", "set/labels/b_any.png"], "set/images"),
        (["set/a_mask.png", "set/b_mask.png"], "set"),
    ] {
        let fixture = Fixture::new();
        for (name, mask) in ["a", "b"].into_iter().zip(names) {
            fixture.image(&format!("{images}/{name}.png"), 2, 1);
            fixture.mask(mask, 2, &[0, 1]);
        }
        fixture.text("set/classes.txt", "0 road\n1 car\n");
        for format in [None, Some(SourceFormat::Masks), Some(SourceFormat::Folder)] {
            let options = ConvertOptions { format, ..fixture.options() };
            let conversion = Conversion::open(&fixture.at("set"), &options).unwrap();
            assert!(conversion.notes()[0].contains("NAME is that of the image"), "{names:?}");
            let labels = fixture.convert("set", &options).1;
            let expected = ["a.png", "b.png"].map(|name| (name.to_owned(), vec![0, 1]));
            assert_eq!(labels, expected, "{names:?}");
        }
    }
    // The name of a class is no such thing.
    let fixture = Fixture::new();
    fixture.image("set/images/a.png", 2, 1);
    fixture.mask("set/labels/a_car_0.png", 2, &[0, 255]);
    fixture.text("set/classes.txt", "0 background\n1 car\n");
    let conversion = Conversion::open(&fixture.at("set"), &fixture.options()).unwrap();
    assert_eq!(conversion.format(), SourceFormat::Masks);
}
