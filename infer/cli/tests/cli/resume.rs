//! Labelling that was stopped, killed or hindered goes on, and ends in the files of one undisturbed run.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use protoseg_label::journal::Recipe;
use protoseg_models::random::Stream;

use crate::common::{ProgramOutput, TestDir, answer, expect, results, signal, stripes};

/// Every format that works for pictures of any name.
const ALL: &str = "label bundle in/images --format ids,labelids,color,overlay,confidence,margin,pseudo,coco,cvat,labelstudio";

/// A place with so many pictures, each another one.
fn place(pictures: u32) -> TestDir {
    let place = TestDir::new();
    std::fs::create_dir(place.at("in/images/deep")).unwrap();
    for index in 0..pictures {
        let folder = if index % 3 == 0 { "deep/" } else { "" };
        stripes(64 + index, 48)
            .save(place.at(&format!("in/images/{folder}{index:04}.png")))
            .unwrap();
    }
    place
}

fn run(place: &TestDir, arguments: &str) -> ProgramOutput {
    answer(&mut place.command(arguments))
}

/// The results with their content.
fn contents(out: &Path) -> BTreeMap<String, Vec<u8>> {
    results(out)
        .into_iter()
        .map(|name| (name.clone(), std::fs::read(out.join(&name)).unwrap()))
        .collect()
}

/// Without printing megabytes where they are not.
fn assert_same(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    let [more, less] = [(found, expected), (expected, found)].map(|(one, other)| {
        one.keys().filter(|name| !other.contains_key(*name)).collect::<Vec<_>>()
    });
    assert!(more.is_empty() && less.is_empty(), "{more:?} too many, {less:?} too few");
    let other: Vec<&String> = found.keys().filter(|name| found[*name] != expected[*name]).collect();
    assert!(other.is_empty(), "{other:?} differ");
}

fn summary(given: &ProgramOutput) -> [u64; 3] {
    let summary: serde_json::Value = serde_json::from_str(&given.stdout).unwrap();
    ["labelled", "kept", "left"].map(|count| summary[count].as_u64().unwrap())
}

#[test]
fn killed_at_any_moment_it_ends_in_the_same_files() {
    let place = place(60);
    assert_eq!(run(&place, &format!("{ALL} --out clean")).status, 0);
    let clean = contents(&place.at("clean"));
    assert!(
        clean.len() > 8 * 61
            && clean.contains_key("coco.json")
            && clean.contains_key("pseudo/train.txt")
    );
    let stream = Stream::named("moments");
    let (mut kills, mut round) = (0, 0);
    loop {
        let mut command = place.command(&format!("{ALL} --out out --resume --threads 1"));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The last rounds are let run.
        std::thread::sleep(Duration::from_millis(20 + stream.below(round, 160) as u64));
        let over = child.try_wait().unwrap();
        if over.is_some() || round > 12 {
            assert!(child.wait().unwrap().success());
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        (kills, round) = (kills + 1, round + 1);
        for (name, bytes) in contents(&place.at("out")) {
            // Of links and lists, what is not whole has a hidden name.
            let hidden = Path::new(&name).file_name().unwrap().to_string_lossy().starts_with('.');
            assert!(
                hidden || clean.get(&name) == Some(&bytes),
                "{name} is not whole after kill {kills}"
            );
        }
    }
    assert!(kills > 1, "it was killed {kills} times");
    assert_same(&contents(&place.at("out")), &clean);
    let again = run(&place, &format!("{ALL} --out out --resume --json"));
    assert_eq!((again.status, summary(&again)), (0, [0, 61, 0]));
}

#[test]
fn only_what_would_come_out_otherwise_is_done_again() {
    let place = place(6);
    let first = "label bundle in/images --out out";
    assert_eq!(run(&place, first).status, 0);
    expect("again", &run(&place, first), 2, &["holds the results of 7 images", "--resume"]);
    let resumed = |more: &str| summary(&run(&place, &format!("{first} --resume --json{more}")));
    assert_eq!(resumed(""), [0, 7, 0]);
    // A new picture, a changed one, one that looks changed, a missing result, one of another size.
    stripes(40, 40).save(place.at("in/images/new.png")).unwrap();
    stripes(41, 40).save(place.at("in/images/a.png")).unwrap();
    assert_eq!(resumed(""), [2, 6, 0]);
    let touched =
        std::fs::File::options().write(true).open(place.at("in/images/0001.png")).unwrap();
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(resumed(""), [1, 7, 0]);
    std::fs::remove_file(place.at("out/ids/new.png")).unwrap();
    std::fs::write(place.at("out/ids/a.png"), "").unwrap();
    assert_eq!(resumed(""), [2, 6, 0]);
    // Other options, and another model.
    assert_eq!(resumed(" --format ids,color"), [8, 0, 0]);
    assert_eq!(resumed(" --window 32:16"), [8, 0, 0]);
    assert_eq!(resumed(" --window 32:16"), [0, 8, 0]);
    place.patch("bundle/model.onnx", b"pooled", b"POOLED");
    place.sign();
    assert_eq!(resumed(" --window 32:16"), [8, 0, 0]);
    // Another ONNX Runtime, as far as the journal of the run before knows.
    let journal = place.at("out/.protoseg/journal.jsonl");
    let lines = std::fs::read_to_string(&journal).unwrap();
    let begun = lines.lines().rfind(|line| line.starts_with("{\"begun\"")).unwrap();
    let begun: serde_json::Value = serde_json::from_str(begun).unwrap();
    let mut recipe: Recipe = serde_json::from_value(begun["begun"]["recipe"].clone()).unwrap();
    let own = recipe.key();
    assert!(recipe.runtime.contains("git-commit-id") && lines.contains(&own), "{recipe:?}");
    recipe.runtime = "another".to_owned();
    std::fs::write(&journal, lines.replace(&own, &recipe.key())).unwrap();
    assert_eq!(resumed(" --window 32:16"), [8, 0, 0]);
    // A file for all pictures is made of what is there.
    assert_eq!(resumed(" --window 32:16 --format ids,coco"), [0, 8, 0]);
    assert!(place.at("out/coco.json").is_file());
    // By content instead of time.
    assert_eq!(resumed(" --window 32:16 --verify-inputs"), [0, 8, 0]);
}

#[test]
fn an_input_is_told_by_its_content_where_that_is_asked_for() {
    let place = place(2);
    let line = "label bundle in/images --out out --verify-inputs --resume --json";
    assert_eq!(summary(&run(&place, line)), [3, 0, 0]);
    let touched =
        std::fs::File::options().write(true).open(place.at("in/images/0001.png")).unwrap();
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(summary(&run(&place, line)), [0, 3, 0]);
}

#[test]
fn failures_are_listed_and_tried_again() {
    let place = place(3);
    std::fs::write(place.at("in/images/bad.png"), "hello").unwrap();
    let line = "label bundle in/images --out out --resume";
    expect("bad", &run(&place, line), 3, &["bad.png"]);
    let list = || std::fs::read_to_string(place.at("out/.protoseg/failed.jsonl")).unwrap();
    let failed: serde_json::Value = serde_json::from_str(list().trim()).unwrap();
    assert_eq!(
        (failed["picture"].as_str(), failed["path"].as_str()),
        (Some("bad.png"), Some("in/images/bad.png"))
    );
    assert!(failed["error"].as_str().unwrap().contains("known format"), "{failed}");
    stripes(32, 32).save(place.at("in/images/bad.png")).unwrap();
    let given = run(&place, line);
    assert_eq!((given.status, list().as_str()), (0, ""), "{given:?}");
    assert!(given.stdout.contains("1 labelled, 4 there before"), "{given:?}");
    // Labels of what it was are not labels of what it is.
    std::fs::write(place.at("in/images/bad.png"), "hello").unwrap();
    assert_eq!(run(&place, line).status, 3);
    assert!(!place.at("out/ids/bad.png").exists() && place.at("out/ids/a.png").exists());
    assert_eq!(summary(&run(&place, &format!("{line} --json"))), [0, 4, 0]);
}

#[test]
fn signals_end_the_work_in_good_order() {
    for (name, status) in [("TERM", 143), ("INT", 130)] {
        let place = place(300);
        let line = "label bundle in/images --out out --threads 1 --format ids,overlay --json";
        let child =
            place.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        while results(&place.at("out")).len() < 4 && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(2));
        }
        signal(child.id(), name);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        let given = ProgramOutput {
            status,
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::new(),
        };
        let [labelled, kept, left] = summary(&given);
        assert_eq!((kept, labelled + left), (0, 301));
        assert!(labelled > 0 && left > 0, "{labelled} labelled, {left} left");
        assert_eq!(results(&place.at("out")).len() as u64, 2 * labelled);
        let rest = run(&place, &format!("{line} --resume"));
        assert_eq!((rest.status, summary(&rest)), (0, [left, labelled, 0]));
    }
}

#[test]
fn a_full_disk_stops_the_work_and_loses_nothing() {
    let place = place(40);
    std::fs::create_dir(place.at("small")).unwrap();
    let small = place.at("small");
    let mount = |size: &str| {
        let how = format!("size={size}{}", if size == "64k" { "" } else { ",remount" });
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", &how, "tmpfs"])
            .arg(&small)
            .stderr(Stdio::null())
            .status()
    };
    if !mount("64k").is_ok_and(|status| status.success()) {
        eprintln!("skipped: a small file system cannot be mounted here");
        return;
    }
    let line = "label bundle in/images --out small/out --format ids,overlay --json";
    let full = run(&place, line);
    let left = results(&place.at("small/out")).len();
    assert!(mount("16m").unwrap().success());
    let rest = run(&place, &format!("{line} --resume"));
    assert_eq!(run(&place, "label bundle in/images --out clean --format ids,overlay").status, 0);
    let equal = contents(&place.at("small/out")) == contents(&place.at("clean"));
    assert!(Command::new("umount").arg(&small).status().unwrap().success());
    expect("full", &full, 1, &["could not be written", "make room", "--resume", "No space left"]);
    assert!(rest.status == 0 && equal && left > 0, "{left} files, {rest:?}");
    let [labelled, kept, _] = summary(&rest);
    assert!(labelled > 0 && kept > 0 && labelled + kept == 41, "{labelled} and {kept}");
}

#[test]
fn another_run_into_the_same_folder_is_refused() {
    let place = place(1);
    std::fs::create_dir_all(place.at("out/.protoseg")).unwrap();
    let held = std::fs::File::create(place.at("out/.protoseg/journal.jsonl")).unwrap();
    held.lock().unwrap();
    expect(
        "busy",
        &run(&place, "label bundle in/images --out out"),
        2,
        &["another process is labeling"],
    );
    drop(held);
    assert_eq!(run(&place, "label bundle in/images --out out").status, 0);
}

/// Peak resident memory in KiB of labelling a folder.
fn peak(place: &TestDir, folder: &str, out: &str) -> u64 {
    let line = format!("label bundle {folder} --out {out} --threads 1 --format ids,overlay");
    let mut child = place.command(&line).stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let now = text
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak = now.map_or(peak, |now: u64| peak.max(now));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(child.wait().unwrap().success());
    peak
}

#[test]
fn a_thousand_pictures_take_no_more_memory_than_a_hundred() {
    let place = TestDir::new();
    for (folder, count) in [("few", 100), ("many", 1000)] {
        std::fs::create_dir(place.at(folder)).unwrap();
        stripes(320, 240).save(place.at(&format!("{folder}/0000.png"))).unwrap();
        for index in 1..count {
            std::fs::hard_link(
                place.at(&format!("{folder}/0000.png")),
                place.at(&format!("{folder}/{index:04}.jpg.png")),
            )
            .unwrap();
        }
        // One file under many names would count once.
        if count == 1000 {
            continue;
        }
    }
    let few = peak(&place, "few", "few-out");
    let many = peak(&place, "many", "many-out");
    eprintln!("peak memory {few} KiB for 100 pictures, {many} KiB for 1000");
    // Ten times as many pictures of 225 KiB would be 200 MiB if they were kept.
    assert!(few > 0 && many < few + (12 << 10), "{few} KiB for 100 pictures, {many} KiB for 1000");
}
