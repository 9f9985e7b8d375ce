//! Runs into folders with results: results of other runs are kept, and differences from the last
//! run are reported.

use std::fs;

use crate::common::{ProgramOutput, TestDir, answer, expect, results, stripes};

fn place(images: u32) -> TestDir {
    let place = TestDir::new();
    for index in 1..images {
        stripes(48 + index, 32).save(place.at(&format!("in/images/{index}.png"))).unwrap();
    }
    place
}

fn run(place: &TestDir, arguments: &str) -> ProgramOutput {
    answer(&mut place.command(arguments))
}

fn done(place: &TestDir, arguments: &str) -> ProgramOutput {
    let given = run(place, arguments);
    assert_eq!(given.status, 0, "{arguments}: {given:?}");
    given
}

#[test]
fn results_of_another_run_are_not_overwritten() {
    let place = place(8);
    let label = |more: &str| run(&place, &format!("label bundle in/images {more}"));
    for shard in ["1/2", "2/2"] {
        // Shards of one run may share a folder.
        done(&place, &format!("label bundle in/images --out out --shard {shard}"));
    }
    let held = ["holds the results of", "--resume"];
    expect("whole", &label("--out out"), 2, &held);
    expect("other shards", &label("--out out --shard 1/3"), 2, &held);
    expect("itself", &label("--out out --shard 1/2"), 2, &held);
    done(&place, "label bundle in/images --out one --shard 1/2");
    expect("other options", &label("--out one --shard 2/2 --window 32:16"), 2, &held);
    stripes(32, 32).save(place.at("in/images/late.png")).unwrap();
    expect("other images", &label("--out one --shard 2/2"), 2, &held);
    fs::remove_file(place.at("in/images/late.png")).unwrap();

    // A merged folder is as if all shards had been labeled into it.
    done(&place, "label bundle in/images --out two --shard 2/2");
    done(&place, "merge one two --out merged --bundle bundle");
    assert_eq!(results(&place.at("merged/ids")).len(), 8);
    expect("merged", &label("--out merged"), 2, &held);
    done(&place, "merge merged --bundle bundle");
    done(&place, "merge one two --out merged --bundle bundle");
    let given = done(&place, "label bundle in/images --out merged --shard 2/2 --resume");
    assert!(given.stdout.starts_with("0 labeled"), "{given:?}");
    done(&place, "label bundle in/images --out other --window 32:16");
    let before = fs::read(place.at("other/ids/a.png")).unwrap();
    expect(
        "another",
        &run(&place, "merge one two --out other --bundle bundle"),
        2,
        &["other", "another labeling run"],
    );
    assert_eq!(fs::read(place.at("other/ids/a.png")).unwrap(), before);
}

#[test]
fn merged_results_are_copies_unless_links_are_asked_for() {
    use std::os::unix::fs::MetadataExt;

    let place = place(4);
    for shard in ["1/2", "2/2"] {
        done(&place, &format!("label bundle in/images --out out{} --shard {shard}", &shard[..1]));
    }
    let names = |out: &str| fs::metadata(place.at(out).join("ids/a.png")).unwrap().nlink();
    for _ in 0..2 {
        // From copies to links and back; linked files are not truncated.
        done(&place, "merge out1 out2 --out merged --bundle bundle");
        assert_eq!(names("merged"), 1);
        done(&place, "merge out1 out2 --out merged --bundle bundle --link");
        assert_eq!(names("merged"), 2);
    }
    // Into one of the folders, twice, and by another path.
    done(&place, "merge out1 out2 --out out2 --bundle bundle");
    done(&place, "merge out1 out2 --out out2 --bundle bundle");
    assert_eq!(results(&place.at("out2/ids")).len(), 4);
    done(&place, "merge out1 out2 --out out1/../out1 --bundle bundle");
    assert_eq!(results(&place.at("out1/ids")).len(), 4);
    assert!(
        fs::read_dir(place.at("out1/ids")).unwrap().all(|file| file
            .unwrap()
            .metadata()
            .unwrap()
            .len()
            > 0)
    );
}

#[test]
fn shards_of_another_division_are_ignored() {
    let place = place(8);
    let label = |shard: &str| {
        done(&place, &format!("label bundle in/images --out out --resume --shard {shard}"))
    };
    label("1/3");
    label("1/2");
    let merge = || run(&place, "merge out --bundle bundle");
    expect(
        "none",
        &merge(),
        2,
        &["into 2 and into 3 shards", "0 of these are whole", "label the missing shards"],
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
    let given = done(&place, "label bundle in/images --out out --resume");
    assert!(given.stdout.starts_with("0 labeled"), "{given:?}");
    assert_eq!(merge().status, 0);
    done(&place, "label bundle in/images --out out --resume --window 32:16");
    expect("two", &merge(), 2, &["2 of these are whole", "remove .protoseg/journal"]);
}

#[test]
fn repeated_and_stale_results_are_warned_of() {
    let place = place(5);
    done(&place, "label bundle in/images --out out --format ids,color");
    let resumed =
        |more: &str| done(&place, &format!("label bundle in/images --out out --resume {more}"));
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
    fs::remove_file(place.at("in/images/1.png")).unwrap();
    let given = resumed("--window 32:16");
    assert!(
        given.stderr.starts_with("warning: out keeps 1 files of earlier runs")
            && given.stderr.lines().count() == 1,
        "{given:?}"
    );
    assert!(place.at("out/ids/1.png").is_file());
    // The same model, named by its file instead of its bundle.
    let given = done(&place, "label bundle/model.onnx in/images --out out --resume --window 32:16");
    assert!(given.stdout.starts_with("0 labeled"), "{given:?}");
}

#[test]
fn a_damaged_line_costs_one_image() {
    let place = place(6);
    let line = "label bundle in/images --out out";
    done(&place, line);
    let journal = place.at("out/.protoseg/journal.jsonl");
    let text = fs::read_to_string(&journal).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    fs::write(
        &journal,
        [&lines[..3], &["{\"labelled\":{\"pict\u{fffd}"], &lines[4..], &[""]].concat().join("\n"),
    )
    .unwrap();
    let merge = run(&place, "merge out --bundle bundle");
    assert!(
        merge.status == 1
            && merge.stderr.contains("line 4 of out/.protoseg/journal.jsonl is damaged"),
        "{merge:?}"
    );
    let given = done(&place, &format!("{line} --resume"));
    assert!(given.stdout.starts_with("1 labeled, 5 kept"), "{given:?}");
    assert!(
        given.stderr.starts_with("warning: line 4 of out/.protoseg/journal.jsonl is damaged"),
        "{given:?}"
    );
}

#[test]
fn a_broken_result_is_named_with_a_remedy() {
    let place = place(3);
    let line = "label bundle in/images --out out --format coco";
    done(&place, line);
    let path = place.at("out/ids/1.png");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xFF;
    fs::write(&path, bytes).unwrap();
    let again = format!("{line} --resume");
    expect("broken", &run(&place, &again), 1, &["out/ids/1.png", "delete it", "--resume"]);
    expect(
        "merged",
        &run(&place, "merge out --bundle bundle"),
        1,
        &["out/ids/1.png", "delete it", "--resume"],
    );
    fs::remove_file(path).unwrap();
    assert!(done(&place, &again).stdout.starts_with("1 labeled, 2 kept"));
}

#[test]
fn an_impossible_name_costs_one_image() {
    let place = place(3);
    let long = format!("{}.png", "x".repeat(250));
    for name in [long.as_str(), "..png"] {
        stripes(32, 32).save(place.at("in/images").join(name)).unwrap();
    }
    fs::create_dir_all(place.at("in/images/deep")).unwrap();
    stripes(32, 32).save(place.at("in/images/deep/b.png")).unwrap();
    fs::create_dir_all(place.at("out/labelids")).unwrap();
    fs::write(place.at("out/labelids/deep"), "mine").unwrap();
    let given = run(&place, "label bundle in/images --out out --format ids,labelids,pseudo");
    assert_eq!(given.status, 3, "{given:?}");
    assert!(given.stdout.starts_with("4 labeled, 2 failed"), "{given:?}");
    let failed = fs::read_to_string(place.at("out/.protoseg/failed.jsonl")).unwrap();
    assert!(
        failed.lines().count() == 2 && failed.contains("deep/b.png") && failed.contains("xxx"),
        "{failed}"
    );
    // They leave no files, and the others are complete.
    let names = results(&place.at("out"));
    assert!(
        names.iter().all(|name| !name.contains("xxx") && !name.ends_with("b.png")),
        "{names:?}"
    );
    assert_eq!(results(&place.at("out/ids")), ["..png", "1.png", "2.png", "a.png"]);
}

#[test]
fn a_file_has_results_under_each_of_its_names() {
    let place = place(2);
    let list = "{\"image\": \"images/a.png\", \"name\": \"x/a.png\"}\n{\"image\": \"images/a.png\", \"name\": \"y/a.png\"}\n\
                {\"image\": \"images/a.png\", \"name\": \"y/a.png\"}\n";
    fs::write(place.at("in/list.jsonl"), list).unwrap();
    let given = done(&place, "label bundle --list in/list.jsonl --out out");
    assert!(given.stdout.starts_with("2 labeled"), "{given:?}");
    assert_eq!(results(&place.at("out/ids")), ["x/a.png", "y/a.png"]);
    std::os::unix::fs::symlink("a.png", place.at("in/images/b.png")).unwrap();
    fs::hard_link(place.at("in/images/a.png"), place.at("in/images/c.png")).unwrap();
    done(&place, "label bundle in/images --out links");
    assert_eq!(results(&place.at("links/ids")), ["1.png", "a.png", "b.png", "c.png"]);
}

#[test]
fn lists_with_labels_are_refused_with_a_reason() {
    let place = place(2);
    fs::write(place.at("in/list.txt"), "images/a.png labels/a.png\n").unwrap();
    let given = run(&place, "label bundle --list in/list.txt --out out");
    expect("pairs", &given, 2, &["line 1", "in/images/a.png does", "without its label"]);
    stripes(32, 32).save(place.at("in/images/a b.png")).unwrap();
    fs::write(place.at("in/list.txt"), "\u{feff}images/a b.png\n").unwrap();
    done(&place, "label bundle --list in/list.txt --out out");
    assert_eq!(results(&place.at("out/ids")), ["images/a b.png"]);
}
