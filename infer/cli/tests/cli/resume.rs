//! Runs that were stopped or killed resume and end in the files of one undisturbed run.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use protoseg_label::journal::Recipe;
use protoseg_models::random::Stream;

use crate::common::{
    IMAGE, LABELED, ProgramOutput, TestDir, answer, expect, results, signal, stripes,
};

/// Every format that works for images of any name.
const ALL: &str = "label bundle in/images --format ids,labelids,color,overlay,confidence,margin,pseudo,coco,cvat,labelstudio";

/// Test folder with that many different images.
fn test_dir(images: u32) -> TestDir {
    let dir = TestDir::new();
    std::fs::create_dir(dir.at("in/images/deep")).unwrap();
    for index in 0..images {
        let folder = if index % 3 == 0 { "deep/" } else { "" };
        stripes(64 + index, 48).save(dir.at(&format!("in/images/{folder}{index:04}.png"))).unwrap();
    }
    dir
}

fn run(dir: &TestDir, arguments: &str) -> ProgramOutput {
    answer(&mut dir.command(arguments))
}

/// The results with their content.
fn contents(out: &Path) -> BTreeMap<String, Vec<u8>> {
    results(out)
        .into_iter()
        .map(|name| (name.clone(), std::fs::read(out.join(&name)).unwrap()))
        .collect()
}

/// Compares file contents without printing them.
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
    [LABELED, "kept", "left"].map(|count| summary[count].as_u64().unwrap())
}

#[test]
fn a_run_killed_at_any_moment_resumes_to_the_same_files() {
    let dir = test_dir(60);
    assert_eq!(run(&dir, &format!("{ALL} --out clean")).status, 0);
    let clean = contents(&dir.at("clean"));
    assert!(
        clean.len() > 8 * 61
            && clean.contains_key("coco.json")
            && clean.contains_key("pseudo/train.txt")
    );
    let stream = Stream::named("moments");
    let (mut kills, mut round) = (0, 0);
    loop {
        let mut command = dir.command(&format!("{ALL} --out out --resume --threads 1"));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(20 + stream.below(round, 160) as u64));
        let over = child.try_wait().unwrap();
        if over.is_some() || round > 12 {
            assert!(child.wait().unwrap().success());
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        (kills, round) = (kills + 1, round + 1);
        for (name, bytes) in contents(&dir.at("out")) {
            // Partial links and lists have hidden names.
            let hidden = Path::new(&name).file_name().unwrap().to_string_lossy().starts_with('.');
            assert!(
                hidden || clean.get(&name) == Some(&bytes),
                "{name} is incomplete after kill {kills}"
            );
        }
    }
    assert!(kills > 1, "it was killed {kills} times");
    assert_same(&contents(&dir.at("out")), &clean);
    let again = run(&dir, &format!("{ALL} --out out --resume --json"));
    assert_eq!((again.status, summary(&again)), (0, [0, 61, 0]));
}

#[test]
fn only_changed_results_are_labeled_again() {
    let dir = test_dir(6);
    let first = "label bundle in/images --out out";
    assert_eq!(run(&dir, first).status, 0);
    expect("again", &run(&dir, first), 2, &["holds the results of 7 images", "--resume"]);
    let resumed = |more: &str| summary(&run(&dir, &format!("{first} --resume --json{more}")));
    assert_eq!(resumed(""), [0, 7, 0]);
    // A new image, a changed one, a touched one, a missing result, one of another size.
    stripes(40, 40).save(dir.at("in/images/new.png")).unwrap();
    stripes(41, 40).save(dir.at("in/images/a.png")).unwrap();
    assert_eq!(resumed(""), [2, 6, 0]);
    let touched = std::fs::File::options().write(true).open(dir.at("in/images/0001.png")).unwrap();
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(resumed(""), [1, 7, 0]);
    std::fs::remove_file(dir.at("out/ids/new.png")).unwrap();
    std::fs::write(dir.at("out/ids/a.png"), "").unwrap();
    assert_eq!(resumed(""), [2, 6, 0]);
    // Other options, and another model.
    assert_eq!(resumed(" --format ids,color"), [8, 0, 0]);
    assert_eq!(resumed(" --window 32:16"), [8, 0, 0]);
    assert_eq!(resumed(" --window 32:16"), [0, 8, 0]);
    dir.patch("bundle/model.onnx", b"pooled", b"POOLED");
    dir.sign();
    assert_eq!(resumed(" --window 32:16"), [8, 0, 0]);
    // Another ONNX Runtime according to the journal.
    let journal = dir.at("out/.protoseg/journal.jsonl");
    let lines = std::fs::read_to_string(&journal).unwrap();
    let begun = lines.lines().rfind(|line| line.starts_with("{\"begun\"")).unwrap();
    let begun: serde_json::Value = serde_json::from_str(begun).unwrap();
    let mut recipe: Recipe = serde_json::from_value(begun["begun"]["recipe"].clone()).unwrap();
    let own = recipe.key();
    assert!(recipe.runtime.contains("git-commit-id") && lines.contains(&own), "{recipe:?}");
    recipe.runtime = "another".to_owned();
    std::fs::write(&journal, lines.replace(&own, &recipe.key())).unwrap();
    assert_eq!(resumed(" --window 32:16"), [8, 0, 0]);
    // A combined file is made from existing results.
    assert_eq!(resumed(" --window 32:16 --format ids,coco"), [0, 8, 0]);
    assert!(dir.at("out/coco.json").is_file());
    // By content instead of time.
    assert_eq!(resumed(" --window 32:16 --verify-inputs"), [0, 8, 0]);
}

#[test]
fn verify_inputs_compares_contents() {
    let dir = test_dir(2);
    let line = "label bundle in/images --out out --verify-inputs --resume --json";
    assert_eq!(summary(&run(&dir, line)), [3, 0, 0]);
    let touched = std::fs::File::options().write(true).open(dir.at("in/images/0001.png")).unwrap();
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(summary(&run(&dir, line)), [0, 3, 0]);
}

#[test]
fn failures_are_listed_and_tried_again() {
    let dir = test_dir(3);
    std::fs::write(dir.at("in/images/bad.png"), "hello").unwrap();
    let line = "label bundle in/images --out out --resume";
    expect("bad", &run(&dir, line), 3, &["bad.png"]);
    let list = || std::fs::read_to_string(dir.at("out/.protoseg/failed.jsonl")).unwrap();
    let failed: serde_json::Value = serde_json::from_str(list().trim()).unwrap();
    assert_eq!(
        (failed[IMAGE].as_str(), failed["path"].as_str()),
        (Some("bad.png"), Some("in/images/bad.png"))
    );
    assert!(failed["error"].as_str().unwrap().contains("known format"), "{failed}");
    stripes(32, 32).save(dir.at("in/images/bad.png")).unwrap();
    let given = run(&dir, line);
    assert_eq!((given.status, list().as_str()), (0, ""), "{given:?}");
    assert!(given.stdout.contains("1 labeled, 4 kept"), "{given:?}");
    // Results of the earlier content are removed.
    std::fs::write(dir.at("in/images/bad.png"), "hello").unwrap();
    assert_eq!(run(&dir, line).status, 3);
    assert!(!dir.at("out/ids/bad.png").exists() && dir.at("out/ids/a.png").exists());
    assert_eq!(summary(&run(&dir, &format!("{line} --json"))), [0, 4, 0]);
}

#[test]
fn signals_stop_gracefully() {
    for (name, status) in [("TERM", 143), ("INT", 130)] {
        let dir = test_dir(300);
        let line = "label bundle in/images --out out --threads 1 --format ids,overlay --json";
        let child =
            dir.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        while results(&dir.at("out")).len() < 4 && begun.elapsed() < Duration::from_secs(20) {
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
        let [labeled, kept, left] = summary(&given);
        assert_eq!((kept, labeled + left), (0, 301));
        assert!(labeled > 0 && left > 0, "{labeled} labeled, {left} left");
        assert_eq!(results(&dir.at("out")).len() as u64, 2 * labeled);
        let rest = run(&dir, &format!("{line} --resume"));
        assert_eq!((rest.status, summary(&rest)), (0, [left, labeled, 0]));
    }
}

#[test]
fn a_full_disk_stops_the_run_and_loses_nothing() {
    let dir = test_dir(40);
    std::fs::create_dir(dir.at("small")).unwrap();
    let small = dir.at("small");
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
    let full = run(&dir, line);
    let left = results(&dir.at("small/out")).len();
    assert!(mount("16m").unwrap().success());
    let rest = run(&dir, &format!("{line} --resume"));
    assert_eq!(run(&dir, "label bundle in/images --out clean --format ids,overlay").status, 0);
    let equal = contents(&dir.at("small/out")) == contents(&dir.at("clean"));
    assert!(Command::new("umount").arg(&small).status().unwrap().success());
    expect("full", &full, 1, &["could not be written", "make room", "--resume", "No space left"]);
    assert!(rest.status == 0 && equal && left > 0, "{left} files, {rest:?}");
    let [labeled, kept, _] = summary(&rest);
    assert!(labeled > 0 && kept > 0 && labeled + kept == 41, "{labeled} and {kept}");
}

#[test]
fn another_run_into_the_same_folder_is_refused() {
    let dir = test_dir(1);
    std::fs::create_dir_all(dir.at("out/.protoseg")).unwrap();
    let held = std::fs::File::create(dir.at("out/.protoseg/journal.jsonl")).unwrap();
    held.lock().unwrap();
    expect(
        "busy",
        &run(&dir, "label bundle in/images --out out"),
        2,
        &["another process is labeling"],
    );
    drop(held);
    assert_eq!(run(&dir, "label bundle in/images --out out").status, 0);
}

/// Peak resident memory in KiB of labeling a folder.
fn peak(dir: &TestDir, folder: &str, out: &str) -> u64 {
    let line = format!("label bundle {folder} --out {out} --threads 1 --format ids,overlay");
    let mut child = dir.command(&line).stdout(Stdio::null()).spawn().unwrap();
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
fn a_thousand_images_take_no_more_memory_than_a_hundred() {
    let dir = TestDir::new();
    for (folder, count) in [("few", 100), ("many", 1000)] {
        std::fs::create_dir(dir.at(folder)).unwrap();
        stripes(320, 240).save(dir.at(&format!("{folder}/0000.png"))).unwrap();
        for index in 1..count {
            std::fs::hard_link(
                dir.at(&format!("{folder}/0000.png")),
                dir.at(&format!("{folder}/{index:04}.jpg.png")),
            )
            .unwrap();
        }
        // One file under many names would count once.
        if count == 1000 {
            continue;
        }
    }
    let few = peak(&dir, "few", "few-out");
    let many = peak(&dir, "many", "many-out");
    eprintln!("peak memory {few} KiB for 100 images, {many} KiB for 1000");
    // Ten times as many images of 225 KiB would be 200 MiB if they were kept.
    assert!(few > 0 && many < few + (12 << 10), "{few} KiB for 100 images, {many} KiB for 1000");
}
