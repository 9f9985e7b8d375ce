//! Ids, palettes and colors of small masks.

use super::*;

const COLORED: &str = "0 red 255 0 0\n1 green 0 255 0\n2 blue 0 0 255\n255 ignore 0 0 0\n";
const PLAIN: &str = "0 red\n1 green\n2 blue\n";
const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 255, 0];
const BLUE: [u8; 3] = [0, 0, 255];

fn map(classes: &str, samples: MaskSamples, names: Option<&[&str]>) -> Result<Vec<u8>, String> {
    let origin = ClassOrigin::File("classes.txt".into());
    let classes = ClassFile::parse(classes).unwrap();
    let mapping = LabelMapping::new(classes, origin, |_| false, &[]);
    let train_ids_of = names.map(|names| names.iter().map(ToString::to_string).collect());
    let orientation = image::metadata::Orientation::NoTransforms;
    let mask = Mask { height: 1, width: 4, samples, orientation, train_ids_of };
    let mapped = mapping.map(mask, Path::new("labels/a.png"));
    mapped.map(|mapped| mapped.labels).map_err(|error| error.to_string())
}

fn ids(classes: &str, ids: &[u8]) -> Result<Vec<u8>, String> {
    map(classes, MaskSamples::Ids(ids.to_vec()), None)
}

fn colors(classes: &str, colors: &[[u8; 3]]) -> Result<Vec<u8>, String> {
    map(classes, MaskSamples::Colors(colors.to_vec()), None)
}

fn indexed(classes: &str, indices: &[u8], palette: &[[u8; 3]]) -> Result<Vec<u8>, String> {
    let samples = MaskSamples::Indexed { indices: indices.to_vec(), palette: palette.to_vec() };
    map(classes, samples, None)
}

fn assert_holds(result: Result<Vec<u8>, String>, parts: &[&str]) {
    let message = result.unwrap_err();
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
}

#[test]
fn all_unknown_ids_are_named_with_counts_and_the_way_to_ignore_them() {
    assert_eq!(ids("1 a\n2 b\n0 ignore", &[0, 1, 2, 255]), Ok(vec![255, 0, 1, 255]));
    assert_eq!(ids("0 a\n255 b", &[0, 255, 0, 255]), Ok(vec![0, 1, 0, 1]));
    assert_holds(
        ids("1 a\n2 b", &[0, 1, 99, 0]),
        &[
            "labels/a.png: the ids 0 (2 pixels, first at row 0, column 0), 99 (1 pixel",
            "add the line `0,99 ignore` to classes.txt",
        ],
    );
    let wide = MaskSamples::WideIds(vec![0, 1, 300, 300]);
    assert_holds(
        map(PLAIN, wide, None),
        &[
            "300 (2 pixels, first at row 0, column 2)",
            "ids above 255 do not fit into a label map: `protoseg convert",
            "--map FILE --out NEW`",
            "`300 7` or `300 ignore`",
        ],
    );
}

#[test]
fn ids_of_instances_are_told_by_their_classes() {
    let cityscapes = "24 person\n26 car\n0 ignore";
    let wide = |ids: &[u32]| map(cityscapes, MaskSamples::WideIds(ids.to_vec()), None);
    assert_holds(
        wide(&[7, 26_000, 26_001, 24_017]),
        &[
            "the ids 7 (1 pixel, first at row 0, column 0), 24017 (1 pixel",
            "when divided by 1000: the lines are `1000-255999 /1000` and `* =`",
            "if they count for nothing, add the line `7 ignore`",
        ],
    );
    assert_holds(wide(&[26 * 256 + 3, 24 * 256, 0, 0]), &["`256-65535 /256`"]);
    // 25 is no class.
    assert_holds(wide(&[25_001, 26_001, 0, 0]), &["`25001 7` or `25001 ignore`"]);
    let many: Vec<u32> = (0..40).map(|number| 26_000 + number).collect();
    assert_holds(wide(&many), &["26015 (1 pixel", " and 24 more up to 26039 are neither"]);
}

#[test]
fn colors_are_ids_where_the_class_file_gives_them() {
    assert_eq!(colors(COLORED, &[RED, BLUE, [0; 3], GREEN]), Ok(vec![0, 2, 255, 1]));
    assert_holds(
        colors(COLORED, &[RED, [77, 13, 5], [77, 13, 5], [1, 2, 3]]),
        &["77,13,5 (2 pixels), 1,2,3 (1 pixel)", "`255 ignore 77 13 5`"],
    );
    assert_holds(colors(PLAIN, &[RED; 4]), &["classes.txt gives no class a color"]);
    // Ids in three equal channels.
    assert_eq!(colors(PLAIN, &[[0; 3], [2; 3], [255; 3], [1; 3]]), Ok(vec![0, 2, 255, 1]));
    assert_holds(
        colors("0 a 1 1 1\n1 b 1 1 1", &[[1; 3]; 4]),
        &["the color 1,1,1 is that of `a` and of `b`"],
    );
    let smooth: Vec<[u8; 3]> = (0..40).map(|shade| [shade, 0, 1]).collect();
    assert_holds(colors(COLORED, &smooth), &["and 32 more, as smoothed edges have"]);
}

#[test]
fn palettes_in_another_order_are_refused_and_others_are_looked_at_only() {
    let indices = [0, 1, 2, 0];
    assert_eq!(indexed(COLORED, &indices, &[RED, GREEN, BLUE]), Ok(indices.to_vec()));
    for palette in [
        &[BLUE, RED, GREEN][..],
        &[BLUE, GREEN, RED, [0; 3]],
        // Void has moved too, in a color of no class.
        &[BLUE, RED, [9; 3], GREEN],
    ] {
        assert_holds(
            indexed(COLORED, &indices, palette),
            &["index 0 is drawn in 0,0,255, which is `blue`", "0 is `red` there, 255,0,0"],
        );
    }
    // A rainbow, one that holds a single color of a class, and the colors of Pascal VOC.
    let rainbow = [[1, 2, 3], [4, 5, 6], [7, 8, 9]];
    assert_eq!(indexed(COLORED, &indices, &rainbow), Ok(indices.to_vec()));
    let black = "0 red 255 0 0\n1 green 0 255 0\n2 black 0 0 0";
    assert_eq!(indexed(black, &[0; 4], &[[0; 3], [5; 3], [6; 3]]), Ok(vec![0; 4]));
    let voc: Vec<[u8; 3]> = std::iter::once([0; 3]).chain((0..255).map(voc_color)).collect();
    let shifted = "0 red 128 0 0\n1 green 0 128 0\n2 olive 128 128 0";
    assert_eq!(indexed(shifted, &[1, 1, 1, 1], &voc), Ok(vec![1; 4]));
    // A palette with nothing but the used colors.
    assert_holds(indexed(COLORED, &[0; 4], &[GREEN]), &["index 0 is drawn in 0,255,0"]);
    // Indices without a meaning, in colors that have one.
    let cityscapes = "7 red 255 0 0\n8 green 0 255 0";
    assert_eq!(indexed(cityscapes, &[0, 1, 1, 0], &[GREEN, RED]), Ok(vec![1, 0, 0, 1]));
    // Without colors in the class file, only indices count.
    assert_eq!(indexed(PLAIN, &indices, &[BLUE, RED, GREEN]), Ok(indices.to_vec()));
}

#[test]
fn train_ids_of_the_same_classes_are_read_and_of_others_refused() {
    let train_ids = || MaskSamples::Ids(vec![0, 1, 255, 0]);
    let names = ["red", "green"];
    let mapped = map("1 red\n2 green", train_ids(), Some(&names));
    assert_eq!(mapped, Ok(vec![0, 1, 255, 0]));
    assert_holds(
        map("1 green\n2 red", train_ids(), Some(&names)),
        &["holds the train ids of the classes red, green", "labelids"],
    );
}

#[test]
fn mappings_of_one_file_have_one_text() {
    let lines: Vec<String> =
        (0..30).map(|id| format!("{id} class{id} {} {id} 7", 255 - id)).collect();
    let text = || {
        let classes = ClassFile::parse(&lines.join("\n")).unwrap();
        let origin = ClassOrigin::File("classes.txt".into());
        format!("{:?}", LabelMapping::new(classes, origin, |_| false, &[]))
    };
    assert_eq!(text(), text());
}

#[test]
fn gray_values_in_rgb_are_no_colors_and_said_so() {
    let grays = [0, 1, 2, 1].map(|value| [value; 3]);
    let parts = [
        "labels/a.png: all pixels are gray",
        "0 (1 pixel), 1 (2 pixels), 2 (1 pixel)",
        "with one channel",
        "take the colors out of classes.txt",
    ];
    assert_holds(colors("0 sky 0 0 0\n1 car 255 0 0\n2 road 9 9 0\n", &grays), &parts);
    // The way that is named.
    assert_eq!(colors(PLAIN, &grays).unwrap(), [0, 1, 2, 1]);
}
