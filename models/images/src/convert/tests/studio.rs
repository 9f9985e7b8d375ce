//! Label Studio's regions, whose areas and labels may be results of their own.

use super::*;

/// Two tasks: one of these results, and one of a road over all pixels.
fn tasks(results: &str) -> Fixture {
    let fixture = Fixture::new();
    fixture.image("images/a.png", 4, 2);
    fixture.image("images/b.png", 4, 2);
    let road = region("z", "rectanglelabels", r#""rectanglelabels": ["road"]"#, "");
    let task = |id: u8, name: &str, results: &str| {
        format!(
            r#"{{"id": {id}, "data": {{"image": "{name}"}}, "annotations": [{{"result": [{results}]}}]}}"#
        )
    };
    let text = format!("[{}, {}]", task(71, "a.png", results), task(72, "b.png", &road));
    fixture.text("studio.json", &text);
    fixture
}

/// A result over the left half of an image, or over all of it for a rectangle.
fn region(id: &str, kind: &str, labels: &str, further: &str) -> String {
    let comma = if labels.is_empty() { "" } else { ", " };
    let shape = if kind.starts_with("rectangle") {
        r#""x": 0, "y": 0, "width": 100, "height": 100"#
    } else {
        r#""points": [[0, 0], [50, 0], [50, 100], [0, 100]]"#
    };
    format!(
        r#"{{"id": "{id}", "type": "{kind}", "original_width": 4, "original_height": 2{further},
        "value": {{{shape}{comma}{labels}}}}}"#
    )
}

fn options(fixture: &Fixture) -> ConvertOptions {
    let images = Some(fixture.at("images"));
    ConvertOptions { images, background: Some("sky".into()), ..fixture.options() }
}

#[test]
fn an_area_and_its_label_are_joined_by_their_id() {
    let polygon = region("p", "polygon", "", "");
    let label = region("p", "labels", r#""labels": ["car"]"#, "");
    let other = region("q", "rectanglelabels", r#""rectanglelabels": ["road"]"#, "");
    let with_choice = r#"{"id": "p", "type": "choices", "value": {"choices": ["wet"]}}"#;
    for order in [[&other, &polygon, &label], [&other, &label, &polygon]] {
        let fixture = tasks(&format!("{}, {}, {}, {with_choice}", order[0], order[1], order[2]));
        let (notes, counts) = fixture.counts("studio.json", &options(&fixture));
        assert_eq!((counts.failed.len(), counts.overlapping), (0, 4), "{notes:?}");
        let (classes, labels) = fixture.convert("studio.json", &options(&fixture));
        let names: Vec<&str> =
            classes.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
        assert_eq!(names, ["sky", "road", "car"]);
        assert_eq!(labels[0].1, [2, 2, 1, 1, 2, 2, 1, 1]);
        assert_eq!(notes, [""; 0]);
    }
}

#[test]
fn regions_that_mean_no_class_cost_their_task_or_are_named() {
    let both = r#""polygonlabels": ["car", "wet"]"#;
    let turned = r#", "image_rotation": 90"#;
    for (results, parts) in [
        (region("p", "polygonlabels", both, ""), ["labels car, wet", "--ignore NAME"]),
        (
            region("p", "polygonlabels", r#""polygonlabels": ["car"]"#, turned),
            ["turned by 90 degrees (image_rotation)", "turn the image back"],
        ),
    ] {
        let fixture = tasks(&results);
        let (_, counts) = fixture.counts("studio.json", &options(&fixture));
        let error = counts.failed[0].to_string();
        assert!(error.contains("studio.json: in `a.png` (task 71), a region "), "{error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        assert_eq!((counts.images, counts.failed.len()), (1, 1));
    }
    // A label that counts for nothing is not the other one's rival.
    let fixture = tasks(&region("p", "polygonlabels", both, ""));
    let ignoring = ConvertOptions { ignore: vec!["wet".into()], ..options(&fixture) };
    assert_eq!(fixture.convert("studio.json", &ignoring).1[0].1, [1, 1, 0, 0, 1, 1, 0, 0]);
    let bare = region("p", "polygon", "", "");
    let choice = r#"{"type": "choices", "value": {"choices": ["wet"]}}"#;
    let fixture = tasks(&format!("{bare}, {choice}"));
    let (notes, _) = fixture.counts("studio.json", &options(&fixture));
    for part in [
        "1 region without a label is left out, such as `polygon` in `a.png` (task 71)",
        "1 region without an area is left out, such as `choices` in `a.png` (task 71)",
    ] {
        assert!(notes.iter().any(|note| note.contains(part)), "{notes:?}");
    }
}

#[test]
fn json_min_is_named_with_the_way_to_json() {
    let fixture = Fixture::new();
    let label = r#"{"points": [[0, 0]], "polygonlabels": ["car"], "original_width": 4}"#;
    for further in ["", r#", "annotator": 1"#] {
        fixture
            .text("min.json", &format!(r#"[{{"image": "a.png", "label": [{label}]{further}}}]"#));
        for format in [None, Some(SourceFormat::LabelStudio)] {
            let options = ConvertOptions { format, ..fixture.options() };
            let error = fixture.refusal("min.json", &options);
            assert!(error.contains("JSON-MIN") && error.contains("format `JSON`"), "{error}");
        }
    }
}
