//! Shards that merge to the files of one run, and lists of images.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use crate::common::{LABELED, ProgramOutput, TestDir, answer, expect, results, stripes};

const FORMATS: &str = "--format ids,confidence,pseudo,coco,cvat,labelstudio";

fn test_dir() -> TestDir {
    let dir = TestDir::new();
    std::fs::create_dir(dir.at("in/images/deep")).unwrap();
    for index in 0..30 {
        let folder = if index % 2 == 0 { "deep/" } else { "" };
        stripes(48 + index, 32).save(dir.at(&format!("in/images/{folder}{index}.png"))).unwrap();
    }
    dir
}

fn run(dir: &TestDir, arguments: &str) -> ProgramOutput {
    answer(&mut dir.command(arguments))
}

fn contents(out: &Path) -> BTreeMap<String, Vec<u8>> {
    results(out)
        .into_iter()
        .map(|name| (name.clone(), std::fs::read(out.join(&name)).unwrap()))
        .collect()
}

#[test]
fn merged_shards_are_the_files_of_one_run() {
    let dir = test_dir();
    assert_eq!(run(&dir, &format!("label bundle in/images --out whole {FORMATS}")).status, 0);
    let whole = contents(&dir.at("whole"));
    // All into one folder, and each into its own.
    for shard in 1..=3 {
        for out in ["together".to_owned(), format!("part{shard}")] {
            let given = run(
                &dir,
                &format!("label bundle in/images --out {out} {FORMATS} --shard {shard}/3"),
            );
            assert_eq!(given.status, 0, "{given:?}");
        }
        let line = "merge together --bundle bundle";
        if shard < 3 {
            let missing = if shard == 1 { "2, 3" } else { "3" };
            expect("early", &run(&dir, line), 2, &["shards missing of", missing]);
        }
    }
    let parts: Vec<usize> =
        (1..=3).map(|shard| results(&dir.at(&format!("part{shard}/ids"))).len()).collect();
    assert_eq!(parts.iter().sum::<usize>(), 31);
    assert!(parts.iter().all(|&count| count > 3), "{parts:?}");

    let given = run(&dir, "merge together --bundle bundle --json");
    assert_eq!(given.status, 0, "{given:?}");
    assert!(contents(&dir.at("together")) == whole, "{:?}", results(&dir.at("together")));
    let summary: serde_json::Value = serde_json::from_str(&given.stdout).unwrap();
    assert_eq!(summary[LABELED], 31);
    let shares = ["red", "green", "blue"].map(|class| summary["classes"][class].as_f64().unwrap());
    assert!(
        (shares.iter().sum::<f64>() - 1.0).abs() < 1e-9 && shares.iter().all(|&share| share > 0.2),
        "{shares:?}"
    );

    expect("several", &run(&dir, "merge part1 part2 part3 --bundle bundle"), 2, &["--out"]);
    assert_eq!(run(&dir, "merge part1 part2 part3 --out all --bundle bundle").status, 0);
    assert!(contents(&dir.at("all")) == whole, "{:?}", results(&dir.at("all")));
}

#[test]
fn shards_of_different_runs_are_refused() {
    let dir = test_dir();
    let label =
        |out: &str, more: &str| run(&dir, &format!("label bundle in/images --out {out} {more}"));
    assert_eq!(label("one", "--shard 1/2").status, 0);
    assert_eq!(label("two", "--shard 2/2 --window 32:16").status, 0);
    let merge = |folders: &str| run(&dir, &format!("merge {folders} --out all --bundle bundle"));
    expect(
        "options",
        &merge("one two"),
        2,
        &["model, windows, device, ONNX Runtime or formats differ"],
    );
    expect("twice", &merge("one one"), 2, &["shard 1/2 exists twice"]);
    expect("none", &merge("one in"), 2, &["in holds no results"]);
    stripes(32, 32).save(dir.at("in/images/late.png")).unwrap();
    assert_eq!(label("late", "--shard 2/2").status, 0);
    expect("images", &merge("one late"), 2, &["their images differ"]);
    assert_eq!(label("one", "--shard 1/2 --resume").status, 0);
    assert_eq!(merge("one late").status, 0);
    let gone = results(&dir.at("late/ids"))[0].clone();
    std::fs::remove_file(dir.at("late/ids").join(&gone)).unwrap();
    expect("gone", &merge("one late"), 2, &[&format!("ids/{gone}"), "missing or has another size"]);
    assert_eq!(label("late", "--shard 2/2 --resume").status, 0);
    // An unreadable image is not missing; it is listed as failed.
    std::fs::write(dir.at("in/images/0bad.png"), "hello").unwrap();
    for (out, shard) in [("one", "1/2"), ("late", "2/2")] {
        assert!([0, 3].contains(&label(out, &format!("--shard {shard} --resume")).status));
    }
    let given = merge("one late");
    assert!(given.status == 3 && given.stdout.contains("1 failed (0bad.png"), "{given:?}");
}

#[test]
fn scheduler_variables_count_only_with_shard_auto() {
    let dir = test_dir();
    let mut command =
        dir.command("label bundle in/images --out out --shard auto --shards 4 --json");
    command.env("JOB_COMPLETION_INDEX", "2").env_remove("RANK");
    let given = answer(&mut command);
    assert_eq!((given.status, given.stderr.trim()), (0, "shard 3/4, as JOB_COMPLETION_INDEX says"));
    let summary: serde_json::Value = serde_json::from_str(&given.stdout).unwrap();
    assert_eq!(summary["shard"], "3/4");
    let mut command = dir.command("label bundle in/images --out whole --json");
    let given = answer(command.env("JOB_COMPLETION_INDEX", "2"));
    assert!(given.stdout.contains(&format!("\"{LABELED}\": 31")), "{given:?}");
    let mut command = dir.command("label bundle in/images --out none --shard auto");
    expect("none", &answer(&mut command), 2, &["no scheduler", "--shard i/n"]);
    for (arguments, part) in [("--shard 0/4", "i/n"), ("--shards 4", "--shard auto")] {
        expect(
            arguments,
            &run(&dir, &format!("label bundle in/images --out none {arguments}")),
            2,
            &[part],
        );
    }
}

#[test]
fn lists_name_images() {
    let dir = test_dir();
    let labeled = |arguments: &str, out: &str| {
        let given = run(&dir, &format!("label bundle --out {out} {arguments}"));
        assert_eq!(given.status, 0, "{arguments}: {given:?}");
        results(&dir.at(out).join("ids"))
    };
    std::fs::write(dir.at("in/list.txt"), "images/1.png\r\n\nimages/deep/2.png\n").unwrap();
    assert_eq!(labeled("--list in/list.txt", "a"), ["images/1.png", "images/deep/2.png"]);
    std::fs::write(dir.at("list.jsonl"), "{\"image\": \"deep/4.png\", \"name\": \"x/y.png\"}\n")
        .unwrap();
    assert_eq!(labeled("--list list.jsonl --root in/images", "b"), ["x/y.png"]);
    let mut command = dir.command("label bundle - --root in/images --out c");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"3.png\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(results(&dir.at("c/ids")), ["3.png"]);
    // A missing image of a list is an unreadable image.
    std::fs::write(dir.at("in/list.txt"), "images/1.png\nimages/gone.png\n").unwrap();
    expect("gone", &run(&dir, "label bundle --list in/list.txt --out d"), 3, &["gone.png"]);
    std::fs::write(dir.at("in/list.txt"), "street.mp4\n").unwrap();
    expect(
        "video",
        &run(&dir, "label bundle --list in/list.txt --out e"),
        2,
        &["is a video", "ffmpeg"],
    );
}
