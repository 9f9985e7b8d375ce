//! Runs into folders with results: results of other runs are kept, and differences from the last
//! run are reported.

use std::fs;

use crate::common::{ProgramOutput, TestDir, answer, expect, results, stripes};

fn test_dir(images: u32) -> TestDir {
    let dir = TestDir::new();
    for index in 1..images {
        stripes(48 + index, 32).save(dir.at(&format!("in/images/{index}.png"))).unwrap();
    }
    dir
}

fn run(dir: &TestDir, arguments: &str) -> ProgramOutput {
    answer(&mut dir.command(arguments))
}

fn done(dir: &TestDir, arguments: &str) -> ProgramOutput {
    let given = run(dir, arguments);
    assert_eq!(given.status, 0, "{arguments}: {given:?}");
    given
}

#[test]
fn results_of_another_run_are_not_overwritten() {
    let dir = test_dir(8);
    let label = |more: &str| run(&dir, &format!("label bundle in/images {more}"));
    for shard in ["1/2", "2/2"] {
        // Shards of one run may share a folder.
        done(&dir, &format!("label bundle in/images --out out --shard {shard}"));
    }
    let held = ["holds the results of", "--resume"];
    expect("whole", &label("--out out"), 2, &held);
    expect("other shards", &label("--out out --shard 1/3"), 2, &held);
    expect("itself", &label("--out out --shard 1/2"), 2, &held);
    done(&dir, "label bundle in/images --out one --shard 1/2");
    expect("other options", &label("--out one --shard 2/2 --window 32:16"), 2, &held);
    stripes(32, 32).save(dir.at("in/images/late.png")).unwrap();
    expect("other images", &label("--out one --shard 2/2"), 2, &held);
    fs::remove_file(dir.at("in/images/late.png")).unwrap();

    // A merged folder is as if all shards had been labeled into it.
    done(&dir, "label bundle in/images --out two --shard 2/2");
    done(&dir, "merge one two --out merged --bundle bundle");
    assert_eq!(results(&dir.at("merged/ids")).len(), 8);
    expect("merged", &label("--out merged"), 2, &held);
    done(&dir, "merge merged --bundle bundle");
    done(&dir, "merge one two --out merged --bundle bundle");
    let given = done(&dir, "label bundle in/images --out merged --shard 2/2 --resume");
    assert!(given.stdout.starts_with("0 labeled"), "{given:?}");
    done(&dir, "label bundle in/images --out other --window 32:16");
    let before = fs::read(dir.at("other/ids/a.png")).unwrap();
    expect(
        "another",
        &run(&dir, "merge one two --out other --bundle bundle"),
        2,
        &["other", "another labeling run"],
    );
    assert_eq!(fs::read(dir.at("other/ids/a.png")).unwrap(), before);
}

#[test]
fn merged_results_are_copies_unless_links_are_asked_for() {
    use std::os::unix::fs::MetadataExt;

    let dir = test_dir(4);
    for shard in ["1/2", "2/2"] {
        done(&dir, &format!("label bundle in/images --out out{} --shard {shard}", &shard[..1]));
    }
    let names = |out: &str| fs::metadata(dir.at(out).join("ids/a.png")).unwrap().nlink();
    for _ in 0..2 {
        // From copies to links and back; linked files are not truncated.
        done(&dir, "merge out1 out2 --out merged --bundle bundle");
        assert_eq!(names("merged"), 1);
        done(&dir, "merge out1 out2 --out merged --bundle bundle --link");
        assert_eq!(names("merged"), 2);
    }
    // Into one of the folders, twice, and by another path.
    done(&dir, "merge out1 out2 --out out2 --bundle bundle");
    done(&dir, "merge out1 out2 --out out2 --bundle bundle");
    assert_eq!(results(&dir.at("out2/ids")).len(), 4);
    done(&dir, "merge out1 out2 --out out1/../out1 --bundle bundle");
    assert_eq!(results(&dir.at("out1/ids")).len(), 4);
    assert!(
        fs::read_dir(dir.at("out1/ids")).unwrap().all(|file| file
            .unwrap()
            .metadata()
            .unwrap()
            .len()
            > 0)
    );
}

#[test]
fn shards_of_another_division_are_ignored() {
    let dir = test_dir(8);
    let label = |shard: &str| {
        done(&dir, &format!("label bundle in/images --out out --resume --shard {shard}"))
    };
    label("1/3");
    label("1/2");
    let merge = || run(&dir, "merge out --bundle bundle");
    expect(
        "none",
        &merge(),
        2,
        &[
            "into 2 and into 3 shards",
            "0 of these divisions are complete",
            "label the missing shards",
        ],
    );
    label("2/2");
    // Results of another division with the same options are kept.
    let given = label("3/3");
    assert!(given.stdout.starts_with("0 labeled"), "{given:?}");
    let given = merge();
    assert!(given.status == 0 && given.stdout.starts_with("8 images"), "{given:?}");
    assert!(
        given.stderr.starts_with("warning: out/.protoseg/journal-1-of-3.jsonl is ignored"),
        "{given:?}"
    );
    // Two complete divisions, with the same options and with others.
    let given = done(&dir, "label bundle in/images --out out --resume");
    assert!(given.stdout.starts_with("0 labeled"), "{given:?}");
    assert_eq!(merge().status, 0);
    done(&dir, "label bundle in/images --out out --resume --window 32:16");
    expect("two", &merge(), 2, &["2 of these divisions are complete", "remove .protoseg/journal"]);
}

#[test]
fn repeated_and_stale_results_are_warned_of() {
    let dir = test_dir(5);
    done(&dir, "label bundle in/images --out out --format ids,color");
    let resumed =
        |more: &str| done(&dir, &format!("label bundle in/images --out out --resume {more}"));
    let given = resumed("--window 32:16");
    let said = [
        "warning: 5 of 5 images are labeled again: different windows (was",
        "is 32:16)",
        "formats (was color,ids",
    ];
    assert!(said.iter().all(|part| given.stderr.contains(part)), "{given:?}");
    assert!(
        given.stderr.contains(
            "warning: out keeps 5 files of earlier runs for images or formats that are not requested now"
        ),
        "{given:?}"
    );
    fs::remove_file(dir.at("in/images/1.png")).unwrap();
    let given = resumed("--window 32:16");
    assert!(
        given.stderr.starts_with("warning: out keeps 1 files of earlier runs")
            && given.stderr.lines().count() == 1,
        "{given:?}"
    );
    assert!(dir.at("out/ids/1.png").is_file());
    // The same model, named by its file instead of its bundle.
    let given = done(&dir, "label bundle/model.onnx in/images --out out --resume --window 32:16");
    assert!(given.stdout.starts_with("0 labeled"), "{given:?}");
}

#[test]
fn a_damaged_line_costs_one_image() {
    let dir = test_dir(6);
    let line = "label bundle in/images --out out";
    done(&dir, line);
    let journal = dir.at("out/.protoseg/journal.jsonl");
    let text = fs::read_to_string(&journal).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    fs::write(
        &journal,
        [&lines[..3], &["{\"begun\":{\"vers\u{fffd}"], &lines[4..], &[""]].concat().join("\n"),
    )
    .unwrap();
    let merge = run(&dir, "merge out --bundle bundle");
    assert!(
        merge.status == 1
            && merge.stderr.contains("line 4 of out/.protoseg/journal.jsonl is damaged"),
        "{merge:?}"
    );
    let given = done(&dir, &format!("{line} --resume"));
    assert!(given.stdout.starts_with("1 labeled, 5 kept"), "{given:?}");
    assert!(
        given.stderr.starts_with("warning: line 4 of out/.protoseg/journal.jsonl is damaged"),
        "{given:?}"
    );
}

#[test]
fn a_broken_result_is_named_with_a_remedy() {
    let dir = test_dir(3);
    let line = "label bundle in/images --out out --format coco";
    done(&dir, line);
    let path = dir.at("out/ids/1.png");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xFF;
    fs::write(&path, bytes).unwrap();
    let again = format!("{line} --resume");
    expect("broken", &run(&dir, &again), 1, &["out/ids/1.png", "delete it", "--resume"]);
    expect(
        "merged",
        &run(&dir, "merge out --bundle bundle"),
        1,
        &["out/ids/1.png", "delete it", "--resume"],
    );
    fs::remove_file(path).unwrap();
    assert!(done(&dir, &again).stdout.starts_with("1 labeled, 2 kept"));
}

#[test]
fn an_impossible_name_costs_one_image() {
    let dir = test_dir(3);
    let long = format!("{}.png", "x".repeat(250));
    for name in [long.as_str(), "..png"] {
        stripes(32, 32).save(dir.at("in/images").join(name)).unwrap();
    }
    fs::create_dir_all(dir.at("in/images/deep")).unwrap();
    stripes(32, 32).save(dir.at("in/images/deep/b.png")).unwrap();
    fs::create_dir_all(dir.at("out/labelids")).unwrap();
    fs::write(dir.at("out/labelids/deep"), "mine").unwrap();
    let given = run(&dir, "label bundle in/images --out out --format ids,labelids,pseudo");
    assert_eq!(given.status, 3, "{given:?}");
    assert!(given.stdout.starts_with("4 labeled, 2 failed"), "{given:?}");
    let failed = fs::read_to_string(dir.at("out/.protoseg/failed.jsonl")).unwrap();
    assert!(
        failed.lines().count() == 2 && failed.contains("deep/b.png") && failed.contains("xxx"),
        "{failed}"
    );
    // They leave no files, and the others are complete.
    let names = results(&dir.at("out"));
    assert!(
        names.iter().all(|name| !name.contains("xxx") && !name.ends_with("b.png")),
        "{names:?}"
    );
    assert_eq!(results(&dir.at("out/ids")), ["..png", "1.png", "2.png", "a.png"]);
}

#[test]
fn a_file_has_results_under_each_of_its_names() {
    let dir = test_dir(2);
    let list = "{\"image\": \"images/a.png\", \"name\": \"x/a.png\"}\n{\"image\": \"images/a.png\", \"name\": \"y/a.png\"}\n\
                {\"image\": \"images/a.png\", \"name\": \"y/a.png\"}\n";
    fs::write(dir.at("in/list.jsonl"), list).unwrap();
    let given = done(&dir, "label bundle --list in/list.jsonl --out out");
    assert!(given.stdout.starts_with("2 labeled"), "{given:?}");
    assert_eq!(results(&dir.at("out/ids")), ["x/a.png", "y/a.png"]);
    std::os::unix::fs::symlink("a.png", dir.at("in/images/b.png")).unwrap();
    fs::hard_link(dir.at("in/images/a.png"), dir.at("in/images/c.png")).unwrap();
    done(&dir, "label bundle in/images --out links");
    assert_eq!(results(&dir.at("links/ids")), ["1.png", "a.png", "b.png", "c.png"]);
}

#[test]
fn lists_with_labels_are_refused_with_a_reason() {
    let dir = test_dir(2);
    fs::write(dir.at("in/list.txt"), "images/a.png labels/a.png\n").unwrap();
    let given = run(&dir, "label bundle --list in/list.txt --out out");
    expect("pairs", &given, 2, &["line 1", "in/images/a.png does", "without its label"]);
    stripes(32, 32).save(dir.at("in/images/a b.png")).unwrap();
    fs::write(dir.at("in/list.txt"), "\u{feff}images/a b.png\n").unwrap();
    done(&dir, "label bundle --list in/list.txt --out out");
    assert_eq!(results(&dir.at("out/ids")), ["images/a b.png"]);
}
