//! `protoseg label --format`: combined files in other tools' formats, and files for each image.

use protoseg_images::label_map;

use crate::common::{TestDir, answer, expect, results, stripe_labels, stripes};

#[test]
fn one_pass_writes_files_for_each_image_and_for_all() {
    let dir = TestDir::new();
    std::fs::create_dir(dir.at("in/images/b")).unwrap();
    stripes(48, 16).save(dir.at("in/images/b/c.png")).unwrap();
    std::fs::write(dir.at("in/images/broken.png"), "no image").unwrap();
    let label = |inputs: &str, out: &str| {
        let formats = "cvat,labelids,coco,labelstudio";
        answer(&mut dir.command(&format!("label bundle {inputs} --out {out} --format {formats}")))
    };
    assert_eq!(label("in/images", "out").status, 3);
    let expected = [
        "coco.json",
        "confidence/a.png",
        "confidence/b/c.png",
        "cvat.zip",
        "ids/a.png",
        "ids/b/c.png",
        "labelids/a_labelIds.png",
        "labelids/b/c_labelIds.png",
        "labelstudio.json",
    ];
    assert_eq!(results(&dir.at("out")), expected);
    let train_ids = stripe_labels(48, 16);
    assert_eq!(label_map::read(&dir.at("out/ids/b/c.png"), 10_000).unwrap().labels, train_ids);
    let source_ids: Vec<u8> =
        train_ids.iter().map(|&label| SOURCE_IDS[usize::from(label)]).collect();
    assert_eq!(
        label_map::read(&dir.at("out/labelids/b/c_labelIds.png"), 10_000).unwrap().labels,
        source_ids
    );
    let coco: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.at("out/coco.json")).unwrap()).unwrap();
    let names: Vec<_> =
        coco["images"].as_array().unwrap().iter().map(|image| &image["file_name"]).collect();
    assert_eq!(names, ["a.png", "b/c.png"]);

    // Inputs in another order and without the broken image give the same bytes.
    std::fs::remove_file(dir.at("in/images/broken.png")).unwrap();
    let equal = |one: &str, other: &str| {
        for name in ["coco.json", "cvat.zip", "labelstudio.json"] {
            let [one, other] =
                [one, other].map(|out| std::fs::read(dir.at(out).join(name)).unwrap());
            assert!(one == other, "{name}");
        }
    };
    assert_eq!(label("in/images", "again").status, 0);
    equal("out", "again");
    assert_eq!(label("in/images/a.png in/images/b", "forth").status, 0);
    assert_eq!(label("in/images/b in/images/a.png", "back").status, 0);
    equal("forth", "back");
}

/// Source ids of red, green and blue in the bundle's manifest.
const SOURCE_IDS: [u8; 3] = [10, 20, 30];

#[test]
fn names_that_a_format_cannot_hold_are_refused_before_any_work() {
    let dir = TestDir::new();
    stripes(16, 16).save(dir.at("in/images/#a.png")).unwrap();
    let given = answer(&mut dir.command("label bundle in/images --out out --format cvat"));
    expect(
        "a comment in CVAT's list",
        &given,
        2,
        &["#a.png", "CVAT's list of images", "rename it"],
    );
    assert!(!dir.at("out").exists());
    assert_eq!(
        answer(&mut dir.command("label bundle in/images --out out --format coco")).status,
        0
    );
}
