//! Folders and lists as people have them: trouble on the way costs one item, and is said.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use image::ImageFormat;

use crate::common::{LABELED, ProgramOutput, TestDir, answer, expect, files, results, stripes};

fn run(dir: &TestDir, arguments: &str) -> ProgramOutput {
    answer(&mut dir.command(arguments))
}

fn json(given: &ProgramOutput) -> serde_json::Value {
    serde_json::from_str(&given.stdout).unwrap()
}

/// Writes a JPEG under any name.
fn jpeg(dir: &TestDir, name: &str) {
    let path = dir.at(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    stripes(32, 32).save_with_format(path, ImageFormat::Jpeg).unwrap();
}

/// Starts the program as a user who cannot read other people's folders.
fn as_other_user(dir: &TestDir, command: &mut Command) {
    let root = dir.at("");
    if root.metadata().unwrap().uid() == 0 {
        for folder in ["", "out"] {
            fs::create_dir_all(dir.at(folder)).unwrap();
            fs::set_permissions(dir.at(folder), PermissionsExt::from_mode(0o777)).unwrap();
        }
        // `nobody`; the tests run as root in containers.
        command.uid(65_534);
    }
}

#[test]
fn an_unreadable_folder_costs_itself() {
    for (inputs, shards) in [("pics", 1), ("pics/**/*.jpg", 1), ("pics", 2)] {
        let dir = TestDir::new();
        for name in ["pics/a.jpg", "pics/b.jpg", "pics/site/c.jpg", "pics/closed/d.jpg"] {
            jpeg(&dir, name);
        }
        fs::set_permissions(dir.at("pics/closed"), PermissionsExt::from_mode(0o000)).unwrap();
        for shard in 1..=shards {
            let line = format!("label bundle {inputs} --out out --shard {shard}/{shards}");
            let mut command = dir.command(&line);
            as_other_user(&dir, &mut command);
            let given = answer(&mut command);
            expect(inputs, &given, 3, &["pics/closed: Permission denied"]);
            assert!(given.stdout.contains("1 failed"), "{given:?}");
        }
        assert_eq!(results(&dir.at("out")), ["ids/a.png", "ids/b.png", "ids/site/c.png"]);
        if shards > 1 {
            let merged = run(&dir, "merge out --bundle bundle");
            assert_eq!(merged.status, 3, "{merged:?}");
            assert!(merged.stdout.contains("pics/closed"), "{merged:?}");
        }
        fs::set_permissions(dir.at("pics/closed"), PermissionsExt::from_mode(0o700)).unwrap();
    }
}

#[test]
fn by_products_are_passed_over_in_one_line() {
    let dir = TestDir::new();
    fs::create_dir_all(dir.at("in/labels/site")).unwrap();
    dir.labels("in/labels/site/b.png", 32, 32, 10);
    for name in [
        "site/b.jpg",
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg",
        ".ipynb_checkpoints/a-checkpoint.jpg",
        ".Trash-1000/files/old.png",
        ".thumbnails/a.png",
    ] {
        jpeg(&dir, &format!("in/images/{name}"));
    }
    fs::create_dir(dir.at("in/images/__MACOSX")).unwrap();
    for name in ["._a.jpg", "__MACOSX/._a.jpg"] {
        fs::write(dir.at("in/images").join(name), "Mac OS X").unwrap();
    }
    for (inputs, out) in [("in/images", "out"), ("in/images/**/*.*g", "globbed")] {
        let given = run(&dir, &format!("label bundle {inputs} --out {out} --format ids,coco"));
        assert_eq!((given.status, given.stderr.lines().count()), (0, 1), "{given:?}");
        assert!(given.stderr.starts_with("note: 6 entries passed over"), "{given:?}");
        assert_eq!(results(&dir.at(out)), ["coco.json", "ids/a.png", "ids/site/b.png"]);
    }
    let given = run(&dir, "eval bundle --data folder --root in --split all --json");
    assert_eq!((given.status, &json(&given)["images"]), (0, &2.into()), "{given:?}");
    assert!(given.stderr.contains("6 entries passed over"), "{given:?}");
    let given = run(&dir, "label bundle in/images --out hidden --hidden --json");
    assert_eq!((given.status, &json(&given)[LABELED]), (3, &6.into()), "{given:?}");
    let given = run(&dir, "label bundle in/images/.thumbnails --out named");
    assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{given:?}");
}

#[test]
fn endings_that_are_not_read_are_counted() {
    let dir = TestDir::new();
    for name in ["a.jpg", "b.jfif", "b2.jpe", "b3.jfi", "f"] {
        jpeg(&dir, &format!("odd/{name}"));
    }
    for name in ["d.heic", "g.AVIF", "h.avif", "v.mp4", "notes.txt"] {
        fs::write(dir.at("odd").join(name), "no image").unwrap();
    }
    for (inputs, out) in [("odd", "out"), ("odd/*", "globbed")] {
        let given = run(&dir, &format!("label bundle {inputs} --out {out} --json"));
        let line = "note: 5 files of endings that are not read: avif 2, heic 1, mp4 1, none 1\n";
        assert_eq!((given.status, given.stderr.as_str()), (0, line), "{given:?}");
        assert_eq!(json(&given)["passed_over"], 5, "{given:?}");
        assert_eq!(json(&given)["passed_over_endings"]["avif"], 2, "{given:?}");
        assert_eq!(results(&dir.at(out).join("ids")), ["a.png", "b.png", "b2.png", "b3.png"]);
    }
    fs::create_dir(dir.at("none")).unwrap();
    fs::write(dir.at("none/d.heic"), "").unwrap();
    let given = run(&dir, "label bundle none --out none-out");
    expect("none", &given, 2, &["no image", "in none (1 file", "heic 1"]);
    // A video costs its line alone, and so does a line that could be two images.
    fs::write(dir.at("odd/list.txt"), "a.jpg\nv.mp4\n").unwrap();
    let given = run(&dir, "label bundle --list odd/list.txt --out listed");
    expect("video", &given, 3, &["odd/v.mp4: is a video", "ffmpeg"]);
    assert!(given.stdout.starts_with("1 labeled, 1 failed"), "{given:?}");
    let failed = fs::read_to_string(dir.at("listed/.protoseg/failed.jsonl")).unwrap();
    assert!(failed.contains("odd/v.mp4: is a video"), "{failed}");
}

#[test]
fn twins_cost_themselves_or_keep_their_endings() {
    let dir = TestDir::new();
    for name in ["a.jpg", "a.png", "b.jpg"] {
        jpeg(&dir, &format!("twins/{name}"));
    }
    let given = run(&dir, "label bundle twins --out out --format ids,coco,pseudo");
    assert_eq!((given.status, given.stderr.lines().count()), (3, 4), "{given:?}");
    assert!(given.stdout.starts_with("1 labeled, 2 failed"), "{given:?}");
    for part in [
        "warning: 2 images are not labeled",
        "warning: no pixel of 1 images reaches --pseudo-confidence 0.9",
        "twins/a.jpg and twins/a.png",
        "error: twins/a.png: ",
        "--keep-ending",
        "'twins/*.jpg'",
    ] {
        assert!(given.stderr.contains(part), "{part}: {given:?}");
    }
    assert_eq!(results(&dir.at("out/ids")), ["b.png"]);
    // One ending alone, into the same folder, and then the whole folder again.
    let more = "--out out --format ids,coco,pseudo --resume";
    assert_eq!(run(&dir, &format!("label bundle twins/*.jpg {more}")).status, 0);
    let given = run(&dir, &format!("label bundle twins {more}"));
    assert!(given.stdout.starts_with("0 labeled, 2 kept, 1 failed"), "{given:?}");

    let keep = "--format ids,coco,cvat,labelids,pseudo --keep-ending --pseudo-confidence 0";
    let given = run(&dir, &format!("label bundle twins --out kept {keep}"));
    assert_eq!(given.status, 0, "{given:?}");
    assert!(given.stderr.contains("cvat.zip leaves out 2 images"), "{given:?}");
    assert_eq!(results(&dir.at("kept/ids")), ["a.jpg.png", "a.png.png", "b.jpg.png"]);
    let coco: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.at("kept/coco.json")).unwrap()).unwrap();
    assert_eq!(coco["images"][1]["file_name"], "a.png");
    // The pseudo-labels are a data set, of which each image has its own.
    let given = run(&dir, "eval bundle --data folder --root kept/pseudo --split train --json");
    assert_eq!((given.status, &json(&given)["images"]), (0, &3.into()), "{given:?}");
    for shard in 1..=2 {
        let line = format!("label bundle twins --out parts {keep} --shard {shard}/2");
        assert_eq!(run(&dir, &line).status, 0);
    }
    assert_eq!(run(&dir, "merge parts --bundle bundle").status, 0);
    let same = |name: &str| {
        fs::read(dir.at("kept").join(name)).unwrap()
            == fs::read(dir.at("parts").join(name)).unwrap()
    };
    assert!(results(&dir.at("kept")).iter().all(|name| same(name)));
    assert_eq!(results(&dir.at("kept")), results(&dir.at("parts")));
}

#[test]
fn the_same_list_means_the_same_everywhere() {
    let dir = TestDir::new();
    let root = dir.at("in").display().to_string();
    for name in ["b", "gru\u{308}n"] {
        stripes(32, 32).save(dir.at(&format!("in/images/{name}.png"))).unwrap();
        dir.labels(&format!("in/labels/{name}.png"), 32, 32, 10);
    }
    let names = ["a", "b", "gr\u{fc}n"];
    let lines = |form: &dyn Fn(&str) -> String| names.map(form).join("\n") + "\n";
    let plain = lines(&|name| format!("images/{name}.png"));
    let utf_16: Vec<u8> =
        format!("\u{feff}{plain}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let lists: [(&str, Vec<u8>); 11] = [
        ("plain", plain.clone().into()),
        ("find", lines(&|name| format!("./images/{name}.png")).into()),
        ("slashes", lines(&|name| format!("images//{name}.png")).into()),
        ("absolute", lines(&|name| format!("{root}/images/{name}.png")).into()),
        ("crlf", plain.replace('\n', "\r\n").into()),
        ("bom", format!("\u{feff}{plain}").into()),
        ("utf-16", utf_16),
        ("comments", format!("# training\n\n{plain}\n# end").into()),
        ("spaces", lines(&|name| format!(" images/{name}.png \t")).into()),
        ("back-slashes", lines(&|name| format!("images\\{name}.png")).into()),
        ("stems", lines(&str::to_owned).into()),
    ];
    for (name, bytes) in lists {
        fs::write(dir.at("in").join(name), bytes).unwrap();
        // Below the data set's folder, as in a training's configuration.
        let given = run(&dir, &format!("eval bundle --data folder --root in --list {name} --json"));
        assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{name}: {given:?}");
        assert_eq!(json(&given)["images"], 3, "{name}: {given:?}");
        let given = run(&dir, &format!("label bundle --list in/{name} --out {name}-out"));
        assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{name}: {given:?}");
        assert!(given.stdout.starts_with("3 labeled"), "{name}: {given:?}");
    }
    // What a line cannot mean is said with what it could.
    fs::write(dir.at("in/near"), "images/a.jpg\nimages/b.png\n").unwrap();
    let given = run(&dir, "label bundle --list in/near --out near-out");
    expect("near", &given, 3, &["in/images/a.jpg: does not exist, but images/a.png does"]);
    let given = run(&dir, "eval bundle --data folder --root in --list near");
    expect("near", &given, 2, &["near, line 1: `images/a.jpg` is missing", "images/a.png"]);
    fs::write(dir.at("in/two"), "images/x.png\nimages/y.png\nimages/a.png\n").unwrap();
    let given = run(&dir, "eval bundle --data folder --root in --list two");
    expect("two", &given, 2, &["x.png is missing", "and 1 more like it in in/two"]);
}

#[test]
fn results_that_vanish_during_the_run_are_not_a_success() {
    for gone in ["out", "out/ids"] {
        let dir = TestDir::new();
        for index in 0..40 {
            jpeg(&dir, &format!("in/images/{index:02}.jpg"));
        }
        let mut child = dir
            .command("label bundle in/images --out out --max-pixels 2000 --threads 1")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // Removes the folder as soon as there are results, until the program ends.
        let mut removed = false;
        while child.try_wait().unwrap().is_none() {
            if !removed && dir.at("out/ids").is_dir() && !files(&dir.at("out/ids")).is_empty() {
                removed = fs::remove_dir_all(dir.at(gone)).is_ok();
            }
        }
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        if removed {
            assert_eq!(output.status.code(), Some(1), "{gone}: {stderr}");
            assert!(stderr.contains("the output folder out"), "{gone}: {stderr}");
            assert!(stderr.contains("during the run"), "{gone}: {stderr}");
        }
    }
}

#[test]
fn engine_errors_name_the_image() {
    let dir = TestDir::new();
    // A 100x100 mean: larger than the images.
    dir.patch("bundle/model.onnx", b"kernel_shape@\x04@\x04", b"kernel_shape@\x64@\x64");
    dir.sign();
    let given = run(&dir, "label bundle in/images --out out --window whole --json");
    expect("label", &given, 3, &["in/images/a.png: ", "failed to run"]);
    let failed = json(&given)["failed"][0]["error"].as_str().map(str::to_owned);
    assert!(failed.is_some_and(|error| error.starts_with("in/images/a.png: ")), "{given:?}");
    let given = run(&dir, "eval bundle --data folder --root in --window whole");
    assert!(given.status == 1 && given.stderr.contains("in/images/a.png: "), "{given:?}");
}

#[test]
fn an_image_without_any_class_has_no_annotations() {
    let dir = TestDir::new();
    let given = run(
        &dir,
        "label bundle in/images --out out --format coco,cvat,labelstudio --skip-classes \
         red,green,blue",
    );
    assert_eq!(given.status, 0, "{given:?}");
    let coco: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.at("out/coco.json")).unwrap()).unwrap();
    assert_eq!(coco["annotations"], serde_json::json!([]));
    assert_eq!(coco["images"].as_array().unwrap().len(), 1);
}
