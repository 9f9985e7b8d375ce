//! Journals that are torn, held, of another version; names that are no text.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::*;

fn recipe(model: &str) -> Recipe {
    let formats = ["ids".to_owned()].into();
    let [windows, device, runtime] = ["whole", "cpu", "1.30"].map(str::to_owned);
    Recipe { model: model.to_owned(), windows, device, runtime, formats }
}

fn entry(name: &str, recipe: &Recipe) -> JournalEntry {
    let input = FileFingerprint { bytes: 5, modified: 7, sha256: None, beside: None };
    let outputs = [(format!("ids/{name}"), 3)].into();
    JournalEntry {
        image: name.to_owned(),
        recipe: recipe.key(),
        input,
        outputs,
        pixels: vec![1, 2],
    }
}

#[test]
fn a_torn_line_and_what_follows_count_for_nothing() {
    let out = tempfile::tempdir().unwrap();
    let model = recipe("m");
    let (journal, contents) = Journal::open(out.path(), Shard::ALL).unwrap();
    assert_eq!(contents, JournalContents::default());
    let run = RunHeader::new(
        model.clone(),
        Shard::ALL,
        InputSetDigest::from_names(std::iter::empty()),
        BTreeSet::new(),
    );
    journal.begin(&run).unwrap();
    journal.add(entry("a.png", &model)).unwrap();
    journal.add(entry("b.png", &model)).unwrap();
    drop(journal);
    let path = Journal::path(out.path(), Shard::ALL);
    let whole = fs::read(&path).unwrap();
    let first_two =
        whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0 + 1;
    for end in first_two..whole.len() {
        fs::write(
            &path,
            [&whole[..end], if end % 2 == 0 { b"" } else { b"\n{\"x\":1}\n" }].concat(),
        )
        .unwrap();
        let (journal, contents) = Journal::open(out.path(), Shard::ALL).unwrap();
        // A line that lacks nothing but its end is whole once a line break follows.
        let rescued = end + 1 == whole.len() && end % 2 == 1;
        assert_eq!(contents.entries.len(), 1 + usize::from(rescued), "cut at {end}");
        assert_eq!(contents.run.as_ref(), Some(&run));
        journal.add(entry("b.png", &model)).unwrap();
        assert_eq!(fs::read(&path).unwrap()[..whole.len()], whole, "cut at {end}");
    }
}

#[test]
fn only_the_same_image_under_the_same_recipe_is_complete() {
    let out = tempfile::tempdir().unwrap();
    let model = recipe("m");
    let (journal, _) = Journal::open(out.path(), Shard::ALL).unwrap();
    journal.add(entry("a.png", &model)).unwrap();
    let contents = JournalContents::read(&Journal::path(out.path(), Shard::ALL)).unwrap();
    let input = FileFingerprint { bytes: 5, modified: 7, sha256: None, beside: None };
    let finished = |recipe: &Recipe, input: &FileFingerprint| {
        contents.completed(out.path(), Path::new("a.png"), &recipe.key(), input).is_some()
    };
    assert!(!finished(&model, &input), "the result is missing");
    fs::create_dir(out.path().join("ids")).unwrap();
    fs::write(out.path().join("ids/a.png"), "12").unwrap();
    assert!(!finished(&model, &input), "the result is too small");
    fs::write(out.path().join("ids/a.png"), "123").unwrap();
    assert!(finished(&model, &input));
    assert!(!finished(&recipe("n"), &input));
    for other in [
        Recipe { windows: "64:32".to_owned(), ..model.clone() },
        Recipe { device: "cuda".to_owned(), ..model.clone() },
        Recipe { runtime: "1.31".to_owned(), ..model.clone() },
        Recipe { formats: BTreeSet::new(), ..model.clone() },
    ] {
        assert!(!finished(&other, &input), "{other:?}");
    }
    assert!(!finished(&model, &FileFingerprint { modified: 8, ..input.clone() }));
    assert!(!finished(&model, &FileFingerprint { bytes: 6, ..input.clone() }));
    journal.invalidate("a.png").unwrap();
    let contents = JournalContents::read(&Journal::path(out.path(), Shard::ALL)).unwrap();
    assert_eq!(contents.completed(out.path(), Path::new("a.png"), &model.key(), &input), None);
}

#[test]
fn a_journal_has_one_holder_and_one_version() {
    let out = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(out.path(), Shard::ALL).unwrap();
    assert!(matches!(Journal::open(out.path(), Shard::ALL), Err(JournalError::Locked(_))));
    assert!(Journal::open(out.path(), "1/2".parse().unwrap()).is_ok());
    drop(journal);
    let path = Journal::path(out.path(), Shard::ALL);
    let run = RunHeader::new(
        recipe("m"),
        Shard::ALL,
        InputSetDigest::from_names(std::iter::empty()),
        BTreeSet::new(),
    );
    let line = serde_json::to_string(&JournalLine::Run(run)).unwrap();
    fs::write(&path, format!("{}\n", line.replace(VERSION, "9.0"))).unwrap();
    let error = Journal::open(out.path(), Shard::ALL).unwrap_err().to_string();
    assert!(error.contains("9.0") && error.contains("journal.jsonl"), "{error}");
}

#[test]
fn spelled_names_are_told_apart_and_found_again() {
    for name in
        [&b"a/b c.png"[..], b"a%20.png", b"\xff\xfe/x.png", b"100%.png", "ä\n.png".as_bytes()]
    {
        let name = Path::new(OsStr::from_bytes(name));
        assert_eq!(unescape_name(&escape_name(name)), name);
    }
}
