//! The documents hold: links and paths exist, the book is complete, commands and their flags are
//! those of the programs.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use support::repository;

/// Longest README that a newcomer reads.
const README_LINES: usize = 150;

/// Every Markdown file that people read, relative to the repository.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["", "docs/src", "docs/src/reference", "deploy", "benches", "tests/external"] {
        let Ok(entries) = fs::read_dir(repository().join(folder)) else { continue };
        let names = entries.map(|entry| Path::new(folder).join(entry.unwrap().file_name()));
        found.extend(names.filter(|name| name.extension().is_some_and(|ending| ending == "md")));
    }
    found.sort();
    found
}

fn read(document: &Path) -> String {
    fs::read_to_string(repository().join(document)).unwrap()
}

/// Every text between `open` and `close` that stays on its line.
fn between<'a>(text: &'a str, open: &str, close: char) -> Vec<&'a str> {
    let parts = text.split(open).skip(1);
    parts.filter_map(|part| part.split_once(close)).map(|(inner, _)| inner).collect()
}

#[test]
fn links_and_includes_exist() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = read(&document);
        let folder = document.parent().unwrap();
        let links = between(&text, "](", ')').into_iter().filter(|link| !link.contains("://"));
        for link in links.chain(between(&text, "{{#include ", '}')) {
            let path = link.split('#').next().unwrap();
            // Text that is included elsewhere has its links checked where it stands.
            if !path.is_empty() && !repository().join(folder).join(path).exists() {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_book_lists_every_page() {
    let summary = read(Path::new("docs/src/SUMMARY.md"));
    let listed: BTreeSet<&str> = between(&summary, "](", ')').into_iter().collect();
    let pages = documents().into_iter().filter_map(|document| {
        let page = document.strip_prefix("docs/src").ok()?.to_str()?.to_owned();
        (page != "SUMMARY.md").then_some(page)
    });
    let pages: BTreeSet<String> = pages.collect();
    assert_eq!(listed, pages.iter().map(String::as_str).collect());
}

#[test]
fn the_readme_is_for_a_newcomer() {
    let lines = read(Path::new("README.md")).lines().count();
    assert!(lines <= README_LINES, "{lines} lines");
}

#[test]
fn paths_in_backticks_exist() {
    let folders =
        ["models/", "train/", "export/", "infer/", "tests/", "benches/", "xtask/", "deploy/"];
    let mut missing = Vec::new();
    let mut checked = 0;
    for document in documents() {
        let text = read(&document);
        // Every second part between backticks is code.
        for path in text.split('`').skip(1).step_by(2) {
            let ours = folders.iter().any(|folder| path.starts_with(folder));
            if ours && !path.contains([' ', '\n', '*', '{', '…']) {
                checked += 1;
                if !repository().join(path).exists() {
                    missing.push(format!("{}: {path}", document.display()));
                }
            }
        }
    }
    assert!(checked > 50, "only {checked} paths were found");
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The commands of a document's shell blocks, with continued lines joined and comments left out.
fn commands(text: &str) -> Vec<String> {
    let blocks = text.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    let joined = blocks.map(|block| block.replace("\\\n", " "));
    let lines: Vec<String> =
        joined.flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    lines.into_iter().map(|line| line.split(" #").next().unwrap().trim().to_owned()).collect()
}

#[test]
fn documented_commands_have_their_flags() {
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for document in documents() {
        for command in commands(&read(&document)) {
            let mut words = command.split_whitespace();
            let (program, subcommand) = match (words.next(), words.next()) {
                (Some("protoseg"), Some("train")) => ("protoseg-train", None),
                (Some("protoseg"), Some(name)) => ("protoseg", Some(name)),
                (Some("protoseg-train"), _) => ("protoseg-train", None),
                (Some("protoseg-export"), _) => ("protoseg-export", None),
                _ => continue,
            };
            let key = format!("{program} {}", subcommand.unwrap_or_default());
            let help = helps.entry(key.clone()).or_insert_with(|| {
                let mut run = support::program(program);
                let output = run.args(subcommand).arg("--help").output().unwrap();
                assert!(output.status.success(), "{key} --help: {:?}", output.status);
                String::from_utf8(output.stdout).unwrap()
            });
            for flag in words.filter(|word| word.starts_with("--") && word.len() > 2) {
                let name = flag.split('=').next().unwrap();
                checked += 1;
                // `bench compare` has a help of its own.
                let known =
                    help.contains(&format!("{name} ")) || help.contains(&format!("{name}\n"));
                if !known && !command.contains("bench compare") {
                    wrong.push(format!("{}: {key} has no {name}", document.display()));
                }
            }
        }
    }
    assert!(checked > 30, "only {checked} flags were found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
