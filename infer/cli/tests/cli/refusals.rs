//! Refusals before work begins, and stops at the first result that cannot be written.

use protoseg_models::bundle::Manifest;
use protoseg_models::gate::Verdict;

use crate::common::{EVAL, LABEL, TestDir, answer, expect, files, stripes};

#[test]
fn an_occupied_output_path_is_refused_before_the_work() {
    for (occupied, says) in [("out", "results need a folder"), ("out/ids", "cannot be written")] {
        let dir = TestDir::new();
        std::fs::create_dir_all(dir.at(occupied).parent().unwrap()).unwrap();
        std::fs::write(dir.at(occupied), "mine").unwrap();
        expect(occupied, &answer(&mut dir.command(LABEL)), 2, &[occupied, says]);
        assert_eq!(std::fs::read_to_string(dir.at(occupied)).unwrap(), "mine");
    }
}

#[test]
fn the_first_result_that_cannot_be_written_ends_the_run() {
    let dir = TestDir::new();
    std::fs::create_dir_all(dir.at("in/images/deep")).unwrap();
    for index in 0..20 {
        stripes(32, 32).save(dir.at(&format!("in/images/deep/{index}.png"))).unwrap();
    }
    // Another file system, to which rename(2) fails.
    std::fs::create_dir_all(dir.at("out/ids")).unwrap();
    std::os::unix::fs::symlink("/proc/self", dir.at("out/ids/deep")).unwrap();
    let given = answer(&mut dir.command("label bundle in/images --out out --json"));
    expect("stopped", &given, 1, &["stopped", "in/images/deep/", "out/ids/deep/"]);
    assert_eq!(given.stdout, "");
}

#[cfg(target_os = "linux")]
#[test]
fn json_names_images_with_names_that_are_not_utf8() {
    use std::os::unix::ffi::OsStrExt;

    let dir = TestDir::new();
    let name = std::ffi::OsStr::from_bytes(b"in/images/x\xff.png");
    std::fs::write(dir.at("").join(name), "hello").unwrap();
    let given = answer(&mut dir.command("label bundle in/images --out out --json"));
    assert_eq!(given.status, 3, "{given:?}");
    let summary: serde_json::Value = serde_json::from_str(&given.stdout).unwrap();
    assert_eq!(summary["failed"][0]["path"], "in/images/x\u{fffd}.png");
}

#[test]
fn a_contact_sheet_that_cannot_be_written_is_refused_before_the_work() {
    for (sheet, part) in
        [("gone/s.png", "the folder gone"), ("s.jpg", "s.jpg"), ("s", ".png"), ("in", ".png")]
    {
        let dir = TestDir::new();
        let given = answer(&mut dir.command(&format!("{EVAL} --sheet {sheet}")));
        expect(sheet, &given, 2, &[part]);
        assert_eq!(given.stdout, "");
    }
    let dir = TestDir::new();
    let given = answer(&mut dir.command(&format!("{EVAL} --sheet s.png")));
    assert_eq!(given.status, 0, "{given:?}");
    assert!(dir.at("s.png").is_file());
}

#[test]
fn numbers_out_of_range_are_refused() {
    let dir = TestDir::new();
    for arguments in [
        "synth --out new --size 100000x100000",
        "synth --out new --count 0",
        "synth --out new --count 18446744073709551615",
        "eval bundle --data synthetic --size 8193x1",
        "eval bundle --data synthetic --limit 0",
        "label bundle in --out new --max-pixels 0",
        "label bundle in --out new --threads 1025",
        "label bundle in --out new --threads 99999999999",
        "label bundle in --out new --batch 99999999999",
        "label bundle in --out new --window 18446744073709551600:16",
        "label bundle in --out new --window 1099511627776:16",
    ] {
        let given = answer(&mut dir.command(arguments));
        assert_eq!((given.status, given.stdout.as_str()), (2, ""), "{arguments}: {given:?}");
        assert!(!dir.at("new").exists(), "{arguments}");
    }
}

#[test]
fn scenes_replace_scenes_but_nothing_else() {
    let dir = TestDir::new();
    for row in 0..2 {
        let given = answer(&mut dir.command("synth --out new --count 2 --size 24x32"));
        assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{row}: {given:?}");
        assert_eq!(files(&dir.at("new")).len(), 6);
    }
    let spoils: [fn(&TestDir); 4] = [
        |dir| std::fs::write(dir.at("new/notes.txt"), "mine").unwrap(),
        |dir| std::fs::remove_file(dir.at("new/classes.txt")).unwrap(),
        |dir| std::fs::write(dir.at("new/classes.txt"), "10 red\n").unwrap(),
        |dir| {
            std::fs::remove_dir_all(dir.at("new"))
                .and_then(|()| std::fs::write(dir.at("new"), "x"))
                .unwrap();
        },
    ];
    for spoil in spoils {
        let dir = TestDir::new();
        answer(&mut dir.command("synth --out new --count 1 --size 24x32"));
        spoil(&dir);
        let before = files(&dir.at("new"));
        expect(
            "scenes",
            &answer(&mut dir.command("synth --out new --count 2 --size 24x32")),
            2,
            &["new"],
        );
        assert_eq!(files(&dir.at("new")), before);
    }
    let given = answer(&mut dir.command("scenes --out in --count 1 --size 24x32"));
    expect("a data set", &given, 2, &["in holds files", "new folder"]);
    assert_eq!(files(&dir.at("in")), ["classes.txt", "images/a.png", "labels/a.png"]);
}

#[test]
fn a_model_file_that_the_manifest_does_not_describe_is_refused() {
    for (from, to, field) in [
        ("\"name\": \"green\"", "\"name\": \"grown\"", "classes"),
        ("\"encoder_stride\": 16", "\"encoder_stride\": 32", "grid"),
        ("{\"version\": \"1.0\"", "{\"version\": \"1.1\"", "version"),
    ] {
        let dir = TestDir::new();
        dir.patch("bundle/model.onnx", from.as_bytes(), to.as_bytes());
        dir.sign();
        expect(
            field,
            &answer(&mut dir.command(LABEL)),
            2,
            &["bundle", "model.onnx", "different models", field],
        );
        assert!(!dir.at("out").exists());
    }
    let dir = TestDir::new();
    dir.patch("bundle/model.onnx", b"\"name\": \"colors\"", b"\"name\": \"COLORS\"");
    dir.sign();
    let given = answer(&mut dir.command(LABEL));
    assert_eq!((given.status, given.stderr.as_str()), (0, ""), "{given:?}");
}

#[test]
fn another_number_of_classes_is_refused_at_the_start() {
    let dir = TestDir::new();
    dir.patch("bundle/model.onnx", b"protoseg\x12", b"another!\x12");
    dir.sign();
    let given = answer(&mut dir.command(LABEL));
    assert_eq!((given.status, given.stderr.as_str()), (0, ""), "no metadata: {given:?}");
    let dir = TestDir::new();
    dir.patch("bundle/model.onnx", b"protoseg\x12", b"another!\x12");
    dir.sign();
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.at("bundle/manifest.json")).unwrap()).unwrap();
    manifest["model"]["classes"].as_array_mut().unwrap().pop();
    std::fs::write(dir.at("bundle/manifest.json"), manifest.to_string()).unwrap();
    expect("classes", &answer(&mut dir.command(LABEL)), 2, &["bundle", "3 classes", "names 2"]);
    assert!(!dir.at("out").exists());
}

#[test]
fn a_check_with_nan_logits_is_recorded_and_read_again() {
    let dir = TestDir::new();
    dir.patch("bundle/model.onnx", &(1.0_f32 / 255.0).to_le_bytes(), &f32::NAN.to_le_bytes());
    dir.sign();
    for json in ["", " --json"] {
        let given = answer(&mut dir.command(&format!("check bundle --record{json}")));
        assert_eq!((given.status, given.stderr.as_str()), (1, ""), "{given:?}");
        let gate = &Manifest::read(&dir.at("bundle")).unwrap().value.gate[0];
        assert!(gate.logit_error == Some(f64::MAX) && gate.verdict == Verdict::Failed);
    }
    let given = answer(&mut dir.command(LABEL));
    assert_eq!(given.status, 3, "{given:?}");
    assert!(given.stderr.contains("not finite"), "{given:?}");
}

#[test]
fn a_failed_run_names_the_file_and_the_image() {
    let dir = TestDir::new();
    // A 100x100 mean: larger than the images.
    dir.patch("bundle/model.onnx", b"kernel_shape@\x04@\x04", b"kernel_shape@\x64@\x64");
    dir.sign();
    let given = answer(&mut dir.command("check bundle"));
    assert_eq!(
        (given.status, given.stderr.as_str(), given.stdout.lines().count()),
        (1, "", 1),
        "{given:?}"
    );
    assert!(
        given.stdout.starts_with("FAILED  bundle/model.onnx on the probe's image `33x47`: "),
        "{given:?}"
    );
    let given = answer(&mut dir.command("label bundle in/images --out out --window whole"));
    expect("label", &given, 3, &["bundle/model.onnx failed to run"]);
}
