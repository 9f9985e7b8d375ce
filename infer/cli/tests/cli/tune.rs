//! `protoseg tune`, and `protoseg label` with its results. Which options are fastest is not
//! asserted, as the machine is shared.

use protoseg_bench::tuning::Tuning;
use protoseg_bench::tuning::search::{Candidate, CandidateOutcome, TuningDecision};
use protoseg_infer::EngineConfig;
use protoseg_models::variant::Precision;
use protoseg_models::window::Tiling;

use crate::common::{LABEL, ProgramOutput, TestDir, answer, expect, stripes};
use crate::gate::{self, INT8};

/// Short measurements and few pairs.
const SHORT: &str = "tune bundle --image-size 48x64 --image-count 1 --time 0.01 --pairs 8";

fn run(place: &TestDir, arguments: &str) -> ProgramOutput {
    answer(&mut place.command(arguments))
}

fn read(place: &TestDir, name: &str) -> Tuning {
    Tuning::read(&place.at(name)).unwrap().unwrap()
}

/// Tunes the bundle, then replaces the choice, which differs from run to run.
pub(crate) fn tune(place: &TestDir, more: &str, choice: &[(&str, &str)]) {
    let given = run(place, &format!("{SHORT}{more}"));
    assert_eq!(given.status, 0, "{given:?}");
    change(place, |tuning| {
        let mut config = EngineConfig::default();
        choice.iter().for_each(|(name, value)| config.set(name, value).unwrap());
        tuning.entries[0].choice = config;
    });
}

fn change(place: &TestDir, change: impl FnOnce(&mut Tuning)) {
    let mut tuning = read(place, "bundle/tuning.json");
    change(&mut tuning);
    tuning.write(&place.at("bundle/tuning.json")).unwrap();
}

#[test]
fn every_candidate_is_written_with_its_results() {
    let place = TestDir::new();
    let given = run(&place, SHORT);
    assert_eq!(given.status, 0, "{given:?}");
    assert!(
        given.stdout.contains("because") && given.stdout.contains("bundle/tuning.json"),
        "{given:?}"
    );
    let entry = &read(&place, "bundle/tuning.json").entries[0];
    let candidates = &entry.candidates;
    assert_eq!(
        (&candidates[0].choice, &candidates[0].outcome),
        (&EngineConfig::default(), &CandidateOutcome::First)
    );
    assert!(
        candidates
            .iter()
            .any(|candidate| candidate.choice.window.is_some_and(|window| window == Tiling::Whole))
    );
    assert!(candidates.iter().any(|candidate| candidate.stage == "spin"));
    for candidate in &candidates[1..] {
        let measured = candidate.ms.is_some_and(|ms| ms > 0.0) && candidate.ratio.is_some();
        assert!(
            measured && candidate.agreement.unwrap().probe.is_some_and(|share| share > 0.99),
            "{candidate:?}"
        );
    }
    assert_eq!(entry.comparison.is_some(), entry.decision != TuningDecision::NothingFaster);
    assert_eq!((entry.choice == EngineConfig::default()), entry.decision != TuningDecision::Faster);
    // Earlier results are shown without measuring again.
    let before = std::fs::read(place.at("bundle/tuning.json")).unwrap();
    let shown = run(&place, &format!("{SHORT} --explain"));
    assert_eq!((shown.status, shown.stderr.as_str()), (0, ""), "{shown:?}");
    assert!(
        shown.stdout.contains("the defaults: start of the search") && shown.stdout.contains("spin"),
        "{shown:?}"
    );
    assert_eq!(std::fs::read(place.at("bundle/tuning.json")).unwrap(), before);
    let json = run(&place, &format!("{SHORT} --explain --json"));
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["candidates"].as_array().unwrap().len(), candidates.len());
    // The bundle is still valid.
    assert_eq!(run(&place, "check bundle").status, 0);
}

#[test]
fn whole_images_are_compared_with_windows_by_time_labels_and_score() {
    let place = TestDir::new();
    let given = run(&place, &format!("{SHORT} --data folder --root in"));
    assert_eq!(given.status, 0, "{given:?}");
    let whole = given.stdout.lines().find(|line| line.starts_with("whole ")).unwrap().to_owned();
    for part in [
        "times the time of windows",
        "% of labels as in windows",
        "mIoU 25.00 %, in windows 25.00 %",
    ] {
        assert!(whole.contains(part), "{part}: {given:?}");
    }
    let entry = &read(&place, "bundle/tuning.json").entries[0];
    let near =
        |found: Option<f64>, score: f64| found.is_some_and(|found| (found - score).abs() < 1e-6);
    assert!(near(entry.limits.least_score, 24.8), "{entry:?}");
    let score = |one: &Candidate| one.agreement.and_then(|agreement| agreement.score);
    assert!(entry.candidates.iter().all(|one| near(score(one), 25.0)), "{entry:?}");
}

#[test]
fn each_goal_and_machine_has_its_entry() {
    let place = TestDir::new();
    tune(&place, "", &[]);
    change(&place, |tuning| tuning.entries[0].machine.cores = 4096);
    for more in ["", " --goal latency", " --p99 60000 --clients 2", " --p99 50000 --clients 3"] {
        assert_eq!(run(&place, &format!("{SHORT}{more}")).status, 0);
    }
    let entries = read(&place, "bundle/tuning.json").entries;
    assert_eq!(entries.len(), 4);
    assert_eq!((entries[0].machine.cores, entries[3].limits.p99_ms), (4096, Some(50000.0)));
    assert!(
        entries[3].candidates[1..].iter().all(|candidate| candidate.p99_ms.is_some()),
        "{entries:?}"
    );
}

#[test]
fn limits_that_nothing_keeps_are_a_failure() {
    let place = TestDir::new();
    let given = run(&place, &format!("{SHORT} --p99 0.000001"));
    assert_eq!(given.status, 1, "{given:?}");
    let entry = &read(&place, "bundle/tuning.json").entries[0];
    assert_eq!(
        (entry.decision, &entry.choice),
        (TuningDecision::NothingFits, &EngineConfig::default())
    );
    let late = |outcome: &CandidateOutcome| matches!(outcome, CandidateOutcome::Dropped { why } if why.contains("99th percentile"));
    assert!(entry.candidates[1..].iter().all(|candidate| late(&candidate.outcome)), "{entry:?}");
}

#[test]
fn a_precision_with_other_labels_is_never_chosen() {
    let wrong = (&0.02_f32.to_le_bytes()[..], &0.5_f32.to_le_bytes()[..]);
    let place = gate::test_dir(INT8, gate::int8(), Some(wrong));
    assert_eq!(run(&place, SHORT).status, 0);
    let entry = &read(&place, "bundle/tuning.json").entries[0];
    let int8 = entry.candidates.iter().find(|candidate| candidate.stage == "precision").unwrap();
    assert_eq!(int8.choice.precision, Some(Precision::Int8));
    assert!(
        matches!(&int8.outcome, CandidateOutcome::Dropped { why } if why.contains("labels agree, and 99 % must")),
        "{int8:?}"
    );
    assert_eq!((int8.ms, entry.choice.precision), (None, None));
    // Only the given precisions are tried.
    assert_eq!(run(&place, &format!("{SHORT} --precision-candidates fp32")).status, 0);
    let entry = &read(&place, "bundle/tuning.json").entries[0];
    assert!(entry.candidates.iter().all(|candidate| candidate.stage != "precision"));
}

#[test]
fn labeling_uses_a_tuning_unless_options_are_given() {
    let place = TestDir::new();
    tune(&place, "", &[("window", "whole"), ("spin", "on")]);
    for (more, said) in [
        ("", "tuned: spin, window whole ("),
        (" --memory 1G --window whole --spin", "tuned: spin, window whole ("),
        (
            " --threads 1",
            "tuned: not used, as --threads was given (bundle/tuning.json says: spin, window whole)",
        ),
        (" --tuning bundle/tuning.json", "--tuning off runs it with its defaults"),
    ] {
        let given = run(&place, &format!("{LABEL} --resume --verbose{more}"));
        assert!(given.status == 0 && given.stderr.contains(said), "{more}: {given:?}");
    }
    let off = run(&place, &format!("{LABEL} --resume --verbose --tuning off"));
    assert!(off.status == 0 && !off.stderr.contains("tuned"), "{off:?}");
    // A tuning that is used is reported without --verbose too. Scoring does not use it.
    expect(
        "others",
        &without_remark(run(&place, &format!("{LABEL} --resume"))),
        0,
        &["labeled again: different windows"],
    );
    let again = run(&place, &format!("{LABEL} --resume")).stderr;
    assert!(
        again.starts_with("tuned: spin, window whole (") && again.lines().count() == 1,
        "{again}"
    );
    let eval = run(&place, "eval bundle --data folder --root in --verbose");
    assert!(
        eval.status == 0 && !eval.stderr.contains("tuned") && eval.stdout.contains("48:32"),
        "{eval:?}"
    );
    change(&place, |tuning| tuning.entries[0].machine.cores += 1);
    let other = run(&place, &format!("{LABEL} --resume --verbose"));
    assert!(
        other.stderr.contains("bundle/tuning.json holds nothing for this machine"),
        "{other:?}"
    );
    expect(
        "named",
        &run(&place, &format!("{LABEL} --resume --tuning bundle/tuning.json")),
        0,
        &["holds nothing"],
    );
    expect(
        "gone",
        &run(&place, &format!("{LABEL} --resume --tuning gone")),
        2,
        &["gone is not a file"],
    );
}

#[test]
fn labels_of_another_precision_are_not_mixed_with_earlier_ones() {
    let place = gate::test_dir(INT8, gate::int8(), None);
    stripes(64, 64).save(place.at("in/images/b.png")).unwrap();
    let line = "label bundle in/images --out out";
    let counts = |given: &ProgramOutput| {
        let summary: serde_json::Value = serde_json::from_str(&given.stdout).unwrap();
        ["labelled", "kept"].map(|count| summary[count].as_u64().unwrap())
    };
    assert_eq!(run(&place, line).status, 0);
    assert_eq!(counts(&run(&place, &format!("{line} --resume --json"))), [0, 2]);
    tune(&place, "", &[("precision", "int8")]);
    expect(
        "again",
        &without_remark(run(&place, line)),
        2,
        &["holds the results of 2 images", "--resume"],
    );
    assert_eq!(counts(&run(&place, &format!("{line} --resume --json"))), [2, 0]);
    assert_eq!(counts(&run(&place, &format!("{line} --resume --json --tuning off"))), [2, 0]);
    // The number of threads does not change labels.
    change(&place, |tuning| {
        tuning.entries[0].choice = EngineConfig::default();
        tuning.entries[0].choice.set("threads", "1").unwrap();
    });
    assert_eq!(counts(&run(&place, &format!("{line} --resume --json"))), [0, 2]);
}

#[test]
fn a_damaged_file_gives_a_warning_and_is_not_overwritten() {
    let place = TestDir::new();
    for text in ["{", r#"{"version": "2.0", "entries": []}"#] {
        std::fs::write(place.at("bundle/tuning.json"), text).unwrap();
        expect(
            "label",
            &run(&place, &format!("{LABEL} --resume")),
            0,
            &["bundle/tuning.json", "runs with its defaults"],
        );
        let named = run(&place, &format!("{LABEL} --resume --tuning bundle/tuning.json"));
        expect("named", &named, 2, &["bundle/tuning.json"]);
        expect("tune", &run(&place, SHORT), 2, &["bundle/tuning.json", "--out FILE"]);
        assert_eq!(std::fs::read_to_string(place.at("bundle/tuning.json")).unwrap(), text);
    }
    tune_again(&place);
    let path = place.at("bundle/tuning.json");
    let mut json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    json["entries"][0]["choice"] = serde_json::json!({"thread": "1"});
    std::fs::write(&path, json.to_string()).unwrap();
    expect(
        "unknown",
        &run(&place, &format!("{LABEL} --resume")),
        0,
        &["unknown engine option `thread`", "run `protoseg tune` again"],
    );
}

/// The output without the remark on the tuning, which must come first.
fn without_remark(answer: ProgramOutput) -> ProgramOutput {
    let (first, others) = answer.stderr.split_once('\n').unwrap();
    assert!(first.starts_with("tuned: "), "{answer:?}");
    ProgramOutput { stderr: others.to_owned(), ..answer }
}

fn tune_again(place: &TestDir) {
    std::fs::remove_file(place.at("bundle/tuning.json")).unwrap();
    tune(place, "", &[]);
}

#[test]
fn unwritable_files_are_refused_before_the_measurement() {
    let place = TestDir::new();
    // Not writable, even for root.
    let way_out = ["cannot be written", "--out FILE", "--tuning FILE"];
    expect("read-only", &run(&place, &format!("{SHORT} --out /proc/tuning.json")), 2, &way_out);
    expect("a folder", &run(&place, &format!("{SHORT} --out in")), 2, &["in is a folder"]);
    // In another place it is used only where it is named.
    assert_eq!(run(&place, &format!("{SHORT} --out here.json")).status, 0);
    assert!(!place.at("bundle/tuning.json").exists());
    let named = run(&place, &format!("{LABEL} --verbose --tuning here.json"));
    assert!(named.status == 0 && named.stderr.contains("tuned: "), "{named:?}");
}

#[test]
fn a_single_file_has_its_tuning_beside_it() {
    let place = TestDir::new();
    std::fs::create_dir(place.at("alone")).unwrap();
    std::fs::copy(place.at("bundle/model.onnx"), place.at("alone/model.onnx")).unwrap();
    std::fs::copy(place.at("alone/model.onnx"), place.at("alone/other.onnx")).unwrap();
    std::fs::write(place.at("alone/other.onnx.data"), "weights").unwrap();
    for file in ["alone/model.onnx", "alone/other.onnx"] {
        assert_eq!(run(&place, &SHORT.replace("bundle", file)).status, 0);
    }
    let entries = read(&place, "alone/tuning.json").entries;
    assert!(
        entries.len() == 2
            && entries.iter().all(|entry| entry.candidates[0].agreement.unwrap().probe.is_none())
    );
    let labeled = run(&place, "label alone/model.onnx in --out out --verbose");
    assert!(labeled.status == 0 && labeled.stderr.contains("tuned: "), "{labeled:?}");
    let inside = run(&place, &SHORT.replace("bundle", "bundle/gone.onnx"));
    expect("gone", &inside, 2, &["does not exist"]);
}

#[test]
fn invalid_arguments_are_refused() {
    let place = TestDir::new();
    for (more, said) in [
        ("--least-agreement 1.5", "share from 0 to 1"),
        ("--p99 0", "not a number above zero"),
        ("--device cuda:0", "does not run with its defaults"),
    ] {
        expect(more, &run(&place, &format!("{SHORT} {more}")), 2, &[said]);
    }
    let both = run(&place, &format!("{SHORT} --device cpu --device cuda:0"));
    assert_eq!(both.status, 0, "{both:?}");
    let entry = &read(&place, "bundle/tuning.json").entries[0];
    let cuda = entry.candidates.iter().find(|candidate| candidate.choice.device.is_some()).unwrap();
    assert!(
        matches!(&cuda.outcome, CandidateOutcome::Dropped { why } if !why.is_empty()),
        "{cuda:?}"
    );
}
