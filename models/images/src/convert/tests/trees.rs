//! Trees like that of Pascal VOC: which classes the ids of their masks are.

use super::*;

const NAMES: &str = "_background_\ncar\nroad\n";

/// A tree of one mask `0 1 2 255`, with further files.
fn tree(files: &[(&str, &str)]) -> Fixture {
    let fixture = Fixture::new();
    fixture.image("v/JPEGImages/a.jpg", 4, 1);
    fixture.mask("v/SegmentationClass/a.png", 4, &[0, 1, 2, 255]);
    for (name, text) in files {
        fixture.text(name, text);
    }
    fixture
}

fn with_classes(fixture: &Fixture, name: &str) -> ConvertOptions {
    ConvertOptions { classes: Some(fixture.at(name)), ..fixture.options() }
}

#[test]
fn labelmes_names_are_the_classes_of_its_tree() {
    let ignoring = format!("\u{feff}__ignore__\r\n{}", NAMES.replace('\n', "\r\n"));
    for names in [NAMES, &ignoring] {
        let fixture = tree(&[("v/class_names.txt", names)]);
        // Overlays and arrays lie beside the masks.
        fixture.image("v/SegmentationClassVisualization/a.jpg", 4, 1);
        let (classes, labels) = fixture.convert("v", &fixture.options());
        let expected = "0 _background_ 0 0 0\n1 car 128 0 0\n2 road 0 128 0\n";
        assert_eq!((classes.as_str(), &labels[0].1[..]), (expected, &[0, 1, 2, 255][..]));
        // What is trained and scored without a conversion has the same classes.
        assert_eq!(Dataset::Voc.classes(&fixture.at("v")).unwrap().text(), expected);
        // In the order of a class file.
        fixture.text("mine.txt", "3 road\n5 car\n9 background\n");
        let labels = fixture.convert("v", &with_classes(&fixture, "mine.txt")).1;
        assert_eq!(labels[0].1, [2, 1, 0, 255]);
    }
    let fixture = tree(&[("v/class_names.txt", "_background_\n\nroad\n")]);
    let error = fixture.refusal("v", &fixture.options());
    assert!(error.contains("class_names.txt, line 2") && error.contains("`__ignore__`"), "{error}");
    let fixture = tree(&[("v/class_names.txt", "_background_\ncar\n")]);
    let error = fixture.refusal("v", &fixture.options());
    assert!(error.contains("class_names.txt, from 0; add a line for each up to there"), "{error}");
}

#[test]
fn a_class_file_gives_a_tree_its_classes() {
    let fixture = tree(&[("v/classes.txt", "0 sky\n1 car\n2 road\n")]);
    assert_eq!(fixture.convert("v", &fixture.options()).1[0].1, [0, 1, 2, 255]);
    fixture.text("mine.txt", "0 road\n1 car\n2 sky\n");
    assert_eq!(fixture.convert("v", &with_classes(&fixture, "mine.txt")).1[0].1, [2, 1, 0, 255]);
    fs::rename(fixture.at("v/classes.txt"), fixture.at("named.txt")).unwrap();
    let named = with_classes(&fixture, "named.txt");
    assert_eq!(fixture.convert("v", &named).1[0].1, [0, 1, 2, 255]);
    assert!(fixture.counts("v", &named).0[0].contains("the ids of the masks are those of"));
}

#[test]
fn only_masks_that_look_like_those_of_pascal_voc_have_its_classes() {
    let fixture = tree(&[]);
    let error = fixture.refusal("v", &fixture.options());
    let parts = ["no list of the classes", "such as a.png", "--classes FILE", "--classes voc"];
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    let voc = ConvertOptions { classes: Some("voc".into()), ..fixture.options() };
    let (classes, labels) = fixture.convert("v", &voc);
    assert!(classes.contains("1 aeroplane 128 0 0\n"), "{classes}");
    assert_eq!(labels[0].1, [0, 1, 2, 255]);
    for (from, to) in [
        ("JPEGImages/a.jpg", "JPEGImages/2007_000032.jpg"),
        ("SegmentationClass/a.png", "SegmentationClass/2007_000032.png"),
    ] {
        fs::rename(fixture.at("v").join(from), fixture.at("v").join(to)).unwrap();
    }
    assert!(fixture.convert("v", &fixture.options()).0.contains("1 aeroplane 128 0 0\n"));
    // Some of its classes, by their names.
    fixture.text("mine.txt", "0 background\n1 bicycle\n2 aeroplane\n");
    let mine = ConvertOptions { ignore: Vec::new(), ..with_classes(&fixture, "mine.txt") };
    assert!(fixture.refusal("v", &mine).contains("lacks the classes bird"));
    fixture.mask("v/SegmentationClass/2007_000032.png", 4, &[0, 1, 2, 40]);
    let error = fixture.refusal("v", &fixture.options());
    assert!(error.contains("40 (1 pixel") && error.contains("--classes FILE"), "{error}");
}

#[test]
fn a_color_that_cvats_list_lacks_is_ignored_by_the_line_that_is_advised() {
    let fixture = Fixture::new();
    let legend = "background:0,0,0::\ncar:128,0,0::\n";
    fixture.text("c/labelmap.txt", legend);
    fixture.image("c/JPEGImages/a.png", 4, 1);
    let colors = [[0; 3], [128, 0, 0], [51, 221, 255], [1, 2, 3]];
    fixture.colors("c/SegmentationClass/a.png", 4, &colors);
    let files = ["labelmap.txt", "JPEGImages/a.png", "SegmentationClass/a.png"];
    fixture.zip("c.zip", "c", &files);
    let conversion = Conversion::open(&fixture.at("c.zip"), &fixture.options()).unwrap();
    let error = conversion.write_folder(&fixture.at("out"), || ()).unwrap_err();
    let mut chain = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        chain.push_str(&error.to_string());
        source = error.source();
    }
    let advice = "add the lines `ignore:1,2,3::`, `ignore:51,221,255::` to ";
    assert_eq!(chain.matches(advice).count(), 1, "{chain}");
    assert!(
        !chain.contains("/.tmp")
            || chain.matches("/.tmp").count() == chain.matches("c.zip").count()
    );
    fixture.text("c/labelmap.txt", &format!("{legend}ignore:51,221,255::\nignore:1,2,3::\n"));
    assert_eq!(fixture.convert("c", &fixture.options()).1[0].1, [0, 1, 255, 255]);
    assert_eq!(Dataset::Voc.classes(&fixture.at("c")).unwrap().count(), 2);
    fixture.text("c/labelmap.txt", &format!("{legend}255 ignore 51 221 255\n"));
    let error = fixture.refusal("c", &fixture.options());
    assert!(error.contains("labelmap.txt, line 3") && error.contains("ignore:red,green,blue::"));
}
