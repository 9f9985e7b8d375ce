//! Which package may reach which, and which program may load which library.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// What no build of a package may reach, dev-dependencies left out.
const NEVER: [(&str, &[&str]); 6] = [
    ("protoseg-models", &["tch", "ort", "prost", "image", "png", "tokio"]),
    ("protoseg-pages", &["protoseg-models", "tch", "ort", "serde", "tokio"]),
    ("protoseg-pictures", &["tch", "ort", "prost", "tokio"]),
    ("protoseg-train", &["ort", "tokio", "protoseg-export", "protoseg-infer"]),
    ("protoseg-export", &["tch", "ort", "image", "tokio", "protoseg-train", "protoseg-infer"]),
    ("protoseg-infer", &["tch", "protoseg-train", "protoseg-export"]),
];

/// What no program may load, not even through another library.
const NEVER_LOADED: [(&str, &[&str]); 3] = [
    ("protoseg", &["torch", "libc10"]),
    ("protoseg-export", &["torch", "libc10", "onnxruntime"]),
    ("protoseg-train", &["onnxruntime"]),
];

fn metadata() -> Metadata {
    let manifest = format!("{}/Cargo.toml", env!("CARGO_MANIFEST_DIR"));
    MetadataCommand::new().manifest_path(manifest).other_options(["--offline".to_owned()]).exec().unwrap()
}

/// Names of everything that a package's own build reaches.
fn reached(metadata: &Metadata, package: &Package) -> BTreeSet<String> {
    let nodes = &metadata.resolve.as_ref().expect("a resolved graph").nodes;
    let links: BTreeMap<&PackageId, _> = nodes.iter().map(|node| (&node.id, &node.deps)).collect();
    let mut seen = BTreeSet::new();
    let mut open = vec![&package.id];
    while let Some(id) = open.pop() {
        for link in links[id] {
            let built = link.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development);
            if built && seen.insert(metadata[&link.pkg].name.to_string()) {
                open.push(&link.pkg);
            }
        }
    }
    seen
}

#[test]
fn no_package_reaches_what_it_must_not() {
    let metadata = metadata();
    for (name, forbidden) in NEVER {
        let package = metadata.workspace_packages().into_iter().find(|package| package.name == name);
        let reached = reached(&metadata, package.unwrap_or_else(|| panic!("no package {name}")));
        let wrong: Vec<_> = forbidden.iter().filter(|forbidden| reached.contains(**forbidden)).collect();
        assert!(wrong.is_empty(), "{name} reaches {wrong:?}");
        let alone = ["protoseg-models", "protoseg-pages"].contains(&name);
        assert!(alone || reached.contains("protoseg-models"), "{name}: {reached:?}");
    }
    let named: Vec<_> = metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    let known =
        |name: &String| ["protoseg", "xtask"].contains(&name.as_str()) || NEVER.iter().any(|(own, _)| own == name);
    assert!(named.iter().all(known), "a package without a rule: {named:?}");
}

#[test]
fn programs_load_only_their_own_runtime() {
    for (name, forbidden) in NEVER_LOADED {
        let program = support::program(name);
        let output = Command::new("ldd").arg(program.get_program()).env_remove("LD_LIBRARY_PATH").output().unwrap();
        let loaded = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && loaded.contains("libc.so"), "ldd: {loaded}");
        assert!(!loaded.contains("not found"), "{name} lacks a library:\n{loaded}");
        let wrong: Vec<_> = forbidden.iter().filter(|forbidden| loaded.contains(**forbidden)).collect();
        assert!(wrong.is_empty(), "{name} loads {wrong:?}:\n{loaded}");
    }
}
