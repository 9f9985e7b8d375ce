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
    let mut command = run::bare_cargo(root);
    command.args([
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        &target()?,
    ]);
    let output = command.output().context("cargo metadata")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let linked = linked(&metadata, packages)?;
    let mut page = String::from(
        "# Third-party software\n\nCrates in the programs. Where a license is a choice, it is the first one.\n\n\
         | crate | version | license |\n|---|---|---|\n",
    );
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in &linked {
        let [name, version, license] = ["name", "version", "license"].map(|key| text(package, key));
        writeln!(page, "| {name} | {version} | {license} |")?;
        for text in license_texts(package)? {
            texts.entry(text).or_default().insert(format!("{name} {version}"));
        }
    }
    for (text, crates) in texts {
        let crates: Vec<String> = crates.into_iter().collect();
        writeln!(page, "\n## {}\n\n~~~text\n{text}\n~~~", crates.join(", "))?;
    }
    Ok(page)
}

fn text<'a>(package: &'a Value, key: &str) -> &'a str {
    package[key].as_str().unwrap_or("unknown")
}

/// Returns the crates of others that packages reach by normal dependencies, by name and version.
fn linked<'a>(metadata: &'a Value, packages: &[&str]) -> Result<Vec<&'a Value>> {
    let all: BTreeMap<&str, &Value> =
        list(&metadata["packages"]).iter().map(|package| (text(package, "id"), package)).collect();
    let nodes: BTreeMap<&str, &Value> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| (text(node, "id"), node)).collect();
    let is_root = |package: &&&Value| packages.contains(&text(package, "name"));
    let mut open: Vec<&str> =
        all.values().filter(is_root).map(|package| text(package, "id")).collect();
    ensure!(open.len() == packages.len(), "cargo metadata lacks one of {packages:?}");
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let node = nodes.get(id).with_context(|| format!("cargo metadata lacks {id}"))?;
        let normal =
            |link: &&Value| list(&link["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        open.extend(list(&node["deps"]).iter().filter(normal).map(|link| text(link, "pkg")));
    }
    let mut linked: Vec<&Value> = seen.into_iter().filter_map(|id| all.get(id).copied()).collect();
    linked.retain(|package| !package["source"].is_null());
    linked.sort_by_key(|package| (text(package, "name"), text(package, "version")));
    Ok(linked)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
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
    fn normal_dependencies_of_others_are_linked() {
        let link =
            |to: &str, kind: Value| serde_json::json!({"pkg": to, "dep_kinds": [{"kind": kind}]});
        let metadata = serde_json::json!({
            "packages": [
                {"id": "us", "name": "us", "source": null},
                {"id": "b1", "name": "b", "version": "1", "source": "registry"},
                {"id": "a2", "name": "a", "version": "2", "source": "registry"},
                {"id": "t3", "name": "t", "version": "3", "source": "registry"},
            ],
            "resolve": {"nodes": [
                {"id": "us", "deps": [link("b1", Value::Null), link("t3", "dev".into())]},
                {"id": "b1", "deps": [link("a2", Value::Null), link("t3", "build".into())]},
                {"id": "a2", "deps": []},
                {"id": "t3", "deps": []},
            ]},
        });
        let names: Vec<&str> = linked(&metadata, &["us"])
            .unwrap()
            .into_iter()
            .map(|package| text(package, "id"))
            .collect();
        assert_eq!(names, ["a2", "b1"]);
        assert!(linked(&metadata, &["them"]).is_err());
    }
}
