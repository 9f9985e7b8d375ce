//! Crates in the programs, with their licenses, from `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::run;

/// Beginnings of the names of license files, in lower case.
const LICENSE_FILES: [&str; 4] = ["license", "copying", "notice", "unlicense"];

/// Returns the platform of the compiler, such as x86_64-unknown-linux-gnu.
pub(crate) fn target() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not name its host")?.to_owned())
}

/// Returns a Markdown page: a table of the crates that are linked into packages of the workspace,
/// then the texts of their licenses.
pub(crate) fn document(root: &Path, packages: &[&str]) -> Result<String> {
    let target = target()?;
    // The tree has only what the features of these packages need; the metadata has the licenses.
    let tree = ["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none"];
    let mut tree: Vec<&str> = tree.into_iter().chain(["--target", &target]).collect();
    packages.iter().for_each(|package| tree.extend(["--package", package]));
    let linked = linked(&cargo(root, &tree)?);
    let metadata = ["metadata", "--format-version", "1", "--locked", "--filter-platform", &target];
    let metadata: Value = serde_json::from_str(&cargo(root, &metadata)?)?;
    let mut page = String::from(
        "# Third-party software\n\nCrates in the programs. Where a license is a choice, it is the first one.\n\n\
         | crate | version | license |\n|---|---|---|\n",
    );
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let described = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut found = 0;
    for package in described {
        let [name, version, license] = ["name", "version", "license"].map(|key| text(package, key));
        let title = format!("{name} {version}");
        if linked.contains(&title) {
            found += 1;
            writeln!(page, "| {name} | {version} | {license} |")?;
            for text in license_texts(package)? {
                texts.entry(text).or_default().insert(title.clone());
            }
        }
    }
    ensure!(found == linked.len(), "cargo metadata describes {found} of {} crates", linked.len());
    for (text, crates) in texts {
        let crates: Vec<String> = crates.into_iter().collect();
        writeln!(page, "\n## {}\n\n~~~text\n{text}\n~~~", crates.join(", "))?;
    }
    Ok(page)
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<String> {
    let output = run::bare_cargo(root).args(arguments).output().context("cargo")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn text<'a>(package: &'a Value, key: &str) -> &'a str {
    package[key].as_str().unwrap_or("unknown")
}

/// Returns the crates of others in the output of `cargo tree`, such as `anyhow 1.0.104`.
fn linked(tree: &str) -> BTreeSet<String> {
    // Packages of the workspace have their folder in the third column.
    let others = tree.lines().filter(|line| !line.contains(" (/"));
    let title = |line: &str| {
        let (name, rest) = line.split_once(" v")?;
        Some(format!("{name} {}", rest.split(' ').next()?))
    };
    others.filter_map(title).collect()
}

/// Returns the texts of the license files of a crate.
fn license_texts(package: &Value) -> Result<Vec<String>> {
    let manifest = Path::new(text(package, "manifest_path"));
    let folder = manifest.parent().context("a manifest without a folder")?;
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if LICENSE_FILES.iter().any(|start| name.starts_with(start)) && entry.path().is_file() {
            let bytes = fs::read(entry.path())?;
            texts.push(String::from_utf8_lossy(&bytes).trim().to_owned());
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_of_others_are_listed_once() {
        let tree =
            "us v0.1.0 (/home/us)\nb v1.2.0\na v2.0.1+c-3\nb v1.2.0 (*)\n\nours v1.0.0 (/x) (*)\n";
        let titles: Vec<String> = linked(tree).into_iter().collect();
        assert_eq!(titles, ["a 2.0.1+c-3", "b 1.2.0"]);
    }
}
