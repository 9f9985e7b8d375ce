//! Names of classes that files hold, and that may not be meant.

use super::*;

#[test]
fn every_name_comes_back_from_the_class_file() {
    let fixture = Fixture::new();
    fixture.image("a.png", 16, 1);
    let names = [
        "a # b",
        "two  spaces",
        " edges ",
        "line\nbreak",
        "3 cars",
        "1 2 3",
        "#ff0000",
        "é",
        "\"x\"",
        "a:b",
        "a/b",
        "tab\there",
    ];
    let shape = |(name, left): (&&str, usize)| {
        serde_json::json!({
            "label": name, "points": [[left, 0], [left + 1, 1]], "shape_type": "rectangle",
        })
    };
    let shapes: Vec<serde_json::Value> = names.iter().zip(0..).map(shape).collect();
    let file = serde_json::json!({
        "imagePath": "a.png", "imageHeight": 1, "imageWidth": 16, "shapes": shapes,
    });
    fixture.text("a.json", &file.to_string());
    let (classes, labels) = fixture.convert("a.json", &fixture.options());
    let table = ClassTable::parse(&classes).unwrap();
    let found: Vec<&str> = table.classes().iter().map(|class| class.name.as_str()).collect();
    assert_eq!(found, names, "{classes}");
    let expected: Vec<u8> = (0..12).chain([255; 4]).collect();
    assert_eq!(labels, [("a.png".to_owned(), expected)]);
}

#[test]
fn names_that_may_not_be_meant_are_said() {
    let fixture = Fixture::new();
    fixture.image("a.png", 8, 1);
    let names = ["Car", "car", "", "void", "wall ignore", "traffic_light", "Traffic light"];
    let shape = |(name, left): (&&str, usize)| {
        format!(
            r#"{{"label": "{name}", "points": [[{left}, 0], [{}, 1]], "shape_type": "rectangle"}}"#,
            left + 1
        )
    };
    let shapes: Vec<String> = names.iter().zip(0..).map(shape).collect();
    fixture.text(
        "a.json",
        &format!(
            r#"{{"imagePath": "a.png", "imageHeight": 1, "imageWidth": 8, "shapes": [{}]}}"#,
            shapes.join(", ")
        ),
    );
    let (notes, counts) = fixture.counts("a.json", &fixture.options());
    let expected = [
        "a class without a name is called `unnamed`",
        "`void` is a class like any other; if its pixels count for nothing, give --ignore 'void'",
        "`wall ignore` counts for nothing, by its name",
        "`Car` and `car` are classes of their own; if they are one, give them one name in the annotations",
        "`traffic_light` and `Traffic light` are classes of their own; if they are one, give them one name \
         in the annotations",
    ];
    assert_eq!(notes, expected);
    // The last pixel is in no shape, and one counts for nothing by the name of its class.
    assert_eq!((&counts.classes[..], counts.uncovered, counts.ignored), (&[1; 6][..], 1, 2));
    let ignored = ConvertOptions { ignore: vec!["void".into()], ..fixture.options() };
    assert_eq!(fixture.counts("a.json", &ignored).1.ignored, 3);
}
