//! Palettes that draw a color under several indices: no file says which class that is.

use super::*;

fn indexed(fixture: &Fixture, name: &str, palette: [[u8; 3]; 3]) {
    let file = fs::File::create(fixture.at(name)).unwrap();
    let mut encoder = png::Encoder::new(file, 3, 1);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_palette(palette.as_flattened().to_vec());
    encoder.write_header().unwrap().write_image_data(&[0, 1, 2]).unwrap();
}

#[test]
fn masks_whose_palettes_contradict_each_other_are_refused_with_counts() {
    let fixture = Fixture::new();
    let (red, blue) = ([200, 0, 0], [0, 0, 200]);
    fixture.text("set/classes.txt", "0 ground\n1 car\n2 road\n");
    for (name, colors) in [("a", [red, blue]), ("b", [red, blue]), ("c", [blue, red])] {
        fixture.image(&format!("set/images/{name}.png"), 3, 1);
        indexed(&fixture, &format!("set/labels/{name}.png"), [[0; 3], colors[0], colors[1]]);
    }
    fixture.text("map.txt", "* =\n");
    let renumbered = ConvertOptions { map: Some(fixture.at("map.txt")), ..fixture.options() };
    for options in [fixture.options(), renumbered] {
        let error = fixture.refusal("set", &options);
        for part in [
            "set/labels/c.png: the color 0,0,200 is the index 1 here and 2 in ",
            "the palettes differ (1 mask has 1, 2 masks have 2)",
            "save the masks as RGB",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    let conversion = Conversion::open(&fixture.at("set"), &fixture.options()).unwrap();
    let file = fixture.at("coco.json");
    assert!(conversion.write_annotations(AnnotationFormat::Coco, &file, || ()).is_err());
    assert!(!file.exists());
    indexed(&fixture, "set/labels/c.png", [[0; 3], red, blue]);
    assert_eq!(fixture.convert("set", &fixture.options()).1[2].1, [0, 1, 2]);
    // With colors, each file says what it means.
    indexed(&fixture, "set/labels/c.png", [[0; 3], blue, red]);
    fixture.text("set/classes.txt", "0 ground 0 0 0\n1 car 200 0 0\n2 road 0 0 200\n");
    assert!(
        fixture.refusal("set", &fixture.options()).contains("the palette was put in another order")
    );
}
