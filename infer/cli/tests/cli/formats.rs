//! `protoseg label --format`: combined files in other tools' formats, and files for each image.

use std::os::unix::ffi::OsStrExt;

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
fn names_that_a_format_cannot_hold_are_written_with_percent_signs() {
    let dir = TestDir::new();
    for name in ["#a.png", "new\nline.png"] {
        stripes(16, 16).save(dir.at("in/images").join(name)).unwrap();
    }
    let latin = std::ffi::OsStr::from_bytes(b"in/images/caf\xe9.png");
    std::fs::copy(dir.at("in/images/a.png"), dir.at("").join(latin)).unwrap();
    let given = answer(&mut dir.command("label bundle in/images --out out --format cvat,coco"));
    assert_eq!(given.status, 0, "{given:?}");
    assert!(given.stdout.starts_with("4 labeled"), "{given:?}");
    for part in [
        "note: coco.json names 2 images with percent signs",
        "caf%E9.png, new%0Aline.png",
        "note: cvat.zip names 3 images with percent signs",
        "%23a",
    ] {
        assert!(given.stderr.contains(part), "{part}: {given:?}");
    }
    let coco = json(&dir, "out/coco.json");
    let names: Vec<_> =
        coco["images"].as_array().unwrap().iter().map(|image| &image["file_name"]).collect();
    assert_eq!(names, ["#a.png", "a.png", "caf%E9.png", "new%0Aline.png"]);
}

#[test]
fn classes_are_left_out_and_pieces_are_apart_on_demand() {
    let dir = TestDir::new();
    // Red, green, blue, red: two pieces of red.
    stripes(64, 32).save(dir.at("in/images/a.png")).unwrap();
    let label = |out: &str, more: &str| {
        let formats = "--format coco,cvat,labelstudio";
        answer(&mut dir.command(&format!("label bundle in/images --out {out} {formats} {more}")))
    };
    let given = label("out", "--coco-pieces --skip-classes blue");
    assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{given:?}");
    let coco = json(&dir, "out/coco.json");
    let found: Vec<_> = coco["annotations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| (found["category_id"].as_u64().unwrap(), found["area"].as_u64().unwrap()))
        .collect();
    assert_eq!(found, [(1, 512), (1, 512), (2, 512)]);
    let studio = json(&dir, "out/labelstudio.json");
    assert_eq!(studio[0]["predictions"][0]["result"].as_array().unwrap().len(), 2);
    // A merge of shards follows the same choices.
    for shard in 1..=2 {
        let more = format!("--coco-pieces --skip-classes blue --shard {shard}/2");
        assert_eq!(label("parts", &more).status, 0);
    }
    let merged = answer(&mut dir.command("merge parts --bundle bundle"));
    assert_eq!(merged.status, 0, "{merged:?}");
    assert_eq!(json(&dir, "parts/coco.json"), coco);
    let given = label("none", "--skip-classes sky");
    expect("unknown", &given, 2, &["--skip-classes sky", "red, green, blue"]);
}

fn json(dir: &TestDir, name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(dir.at(name)).unwrap()).unwrap()
}
