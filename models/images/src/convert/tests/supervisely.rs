//! Projects of Supervisely, as its SDK writes them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::*;

/// `sly.Bitmap.data_2_base64`: a PNG of one bit with a transparent background, in zlib, in base64.
fn bitmap(width: u32, pixels: &[bool]) -> String {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, pixels.len() as u32 / width);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_palette(vec![0, 0, 0, 255, 255, 255]);
    encoder.set_trns(vec![0]);
    let indices: Vec<u8> = pixels.iter().map(|pixel| u8::from(*pixel)).collect();
    encoder.write_header().unwrap().write_image_data(&indices).unwrap();
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&file).unwrap();
    BASE64_STANDARD.encode(packed.finish().unwrap())
}

const META: &str = r##"{"classes": [{"title": "sky", "shape": "any", "color": "#0000FF"},
    {"title": "car", "shape": "any", "color": "#FF0000"}], "tags": []}"##;

fn annotation(objects: &str) -> String {
    format!(
        r#"{{"description": "", "tags": [], "size": {{"height": 3, "width": 6}}, "objects": [{objects}]}}"#
    )
}

#[test]
fn bitmaps_and_polygons_with_holes_of_a_project_become_label_maps() {
    let fixture = Fixture::new();
    fixture.text("p/meta.json", META);
    let data = bitmap(2, &[true, false, true, true]);
    let sky = r#"{"classTitle": "sky", "geometryType": "polygon", "points": {"exterior": [[0, 0], [6, 0],
        [6, 3], [0, 3]], "interior": [[[4, 0], [6, 0], [6, 1], [4, 1]]]}}"#;
    let car = format!(
        r#"{{"classTitle": "car", "geometryType": "bitmap", "bitmap": {{"data": "{data}", "origin": [1, 1]}}}}"#
    );
    let point = r#"{"classTitle": "car", "geometryType": "point", "points": {"exterior": [[1, 1]], "interior": []}}"#;
    let boxed = r#"{"classTitle": "car", "geometryType": "rectangle", "points": {"exterior": [[4, 2], [5, 2]],
        "interior": []}}"#;
    fixture.text("p/one/ann/a.png.json", &annotation(&format!("{sky}, {car}, {point}")));
    fixture.text("p/two/ann/a.png.json", &annotation(boxed));
    for set in ["one", "two"] {
        fixture.image(&format!("p/{set}/img/a.png"), 6, 3);
    }
    let (classes, labels) = fixture.convert("p", &fixture.options());
    assert_eq!(classes, "0 sky 0 0 255\n1 car 255 0 0\n");
    let first = [0, 0, 0, 0, 255, 255, 0, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0];
    let mut second = [255; 18];
    second[16..].fill(1);
    let expected =
        [("one/a.png".to_owned(), first.to_vec()), ("two/a.png".into(), second.to_vec())];
    assert_eq!(labels, expected);
    let list =
        |name: &str| fs::read_to_string(fixture.at(&format!("converted/{name}.txt"))).unwrap();
    assert_eq!(
        (list("one"), list("two")),
        ("images/one/a.png\n".into(), "images/two/a.png\n".into())
    );
    let notes = fixture.counts("p", &fixture.options()).0.join("\n");
    assert!(notes.contains("1 of the type point"), "{notes}");
    // One data set of the project alone.
    assert_eq!(
        fixture.convert("p/two", &fixture.options()).1[0],
        ("a.png".into(), second.to_vec())
    );
}

#[test]
fn a_broken_bitmap_costs_its_image() {
    let fixture = Fixture::new();
    fixture.text("p/meta.json", META);
    let car = |data: &str| {
        annotation(&format!(
            r#"{{"classTitle": "car", "bitmap": {{"data": "{data}", "origin": [0, 0]}}}}"#
        ))
    };
    let whole = bitmap(2, &[true; 2]);
    for (name, data) in [("a", whole.as_str()), ("b", &whole[..20]), ("c", "%"), ("d", "")] {
        fixture.image(&format!("p/ds/img/{name}.png"), 6, 3);
        fixture.text(&format!("p/ds/ann/{name}.png.json"), &car(data));
    }
    let counts = fixture.counts("p", &fixture.options()).1;
    assert_eq!((counts.images, counts.failed.len()), (1, 3));
    for error in &counts.failed {
        assert!(error.to_string().contains("an object of `car` has a broken bitmap"), "{error}");
    }
    let small = ConvertOptions { max_pixels: 1, ..fixture.options() };
    assert!(fixture.refusal("p", &small).contains("--max-pixels"));
}
