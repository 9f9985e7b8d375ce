//! Allowed dependencies of each package, and libraries that each program may load.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// Packages of this workspace that a package may depend on, directly or not, and crates that it
/// must never reach.
const RULES: [(&str, &[&str], &[&str]); 11] = [
    ("protoseg-models", &[], &["tch", "ort", "prost", "image", "png", "tokio", "clap"]),
    ("protoseg-program", &[], &["tch", "ort", "image", "tokio"]),
    ("protoseg-pages", &[], &["tch", "ort", "image", "tokio", "clap"]),
    (
        "protoseg-synthetic",
        &["protoseg-models"],
        &["tch", "ort", "prost", "image", "tokio", "clap"],
    ),
    (
        "protoseg-images",
        &["protoseg-models", "protoseg-synthetic"],
        &["tch", "ort", "prost", "tokio", "clap"],
    ),
    (
        "protoseg-train",
        &[
            "protoseg-models",
            "protoseg-images",
            "protoseg-synthetic",
            "protoseg-program",
            "protoseg-pages",
        ],
        &["ort", "tokio"],
    ),
    (
        "protoseg-export",
        &["protoseg-models", "protoseg-program"],
        &["tch", "ort", "image", "tokio"],
    ),
    (
        "protoseg-infer",
        &["protoseg-models", "protoseg-images", "protoseg-synthetic"],
        &["tch", "tokio", "clap", "axum"],
    ),
    (
        "protoseg-label",
        &["protoseg-models", "protoseg-images", "protoseg-synthetic", "protoseg-infer"],
        &["tch", "tokio", "clap", "axum"],
    ),
    (
        "protoseg-serve",
        &["protoseg-models", "protoseg-images", "protoseg-synthetic", "protoseg-infer"],
        &["tch", "clap"],
    ),
    (
        "protoseg-bench",
        &[
            "protoseg-models",
            "protoseg-images",
            "protoseg-synthetic",
            "protoseg-pages",
            "protoseg-infer",
            "protoseg-serve",
        ],
        &["tch", "clap"],
    ),
];

/// The command line may depend on everything else but these.
const TOP: (&str, &[&str]) = ("protoseg-cli", &["tch", "protoseg-train", "protoseg-export"]);

/// Libraries that a program must not load, even through others.
const NEVER_LOADED: [(&str, &[&str]); 3] = [
    ("protoseg", &["torch", "libc10"]),
    ("protoseg-export", &["torch", "libc10", "onnxruntime"]),
    ("protoseg-train", &["onnxruntime"]),
];

/// Returns the metadata for this platform: crates of others may never have been fetched.
fn metadata() -> Metadata {
    let manifest = format!("{}/Cargo.toml", env!("CARGO_MANIFEST_DIR"));
    let compiler = Command::new("rustc").arg("-vV").output().unwrap();
    let compiler = String::from_utf8(compiler.stdout).unwrap();
    let host = compiler.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc's host");
    let options = ["--offline", "--locked", "--filter-platform", host].map(str::to_owned);
    MetadataCommand::new().manifest_path(manifest).other_options(options).exec().unwrap()
}

/// Returns the names of all crates that a package's own build reaches.
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
fn packages_depend_only_on_allowed_ones() {
    let metadata = metadata();
    let packages: BTreeMap<String, &Package> = metadata
        .workspace_packages()
        .into_iter()
        .map(|package| (package.name.to_string(), package))
        .collect();
    for (name, allowed, never) in RULES {
        let reached =
            reached(&metadata, packages.get(name).unwrap_or_else(|| panic!("no package {name}")));
        let wrong: Vec<_> = never.iter().filter(|never| reached.contains(**never)).collect();
        assert!(wrong.is_empty(), "{name} reaches {wrong:?}");
        let own: BTreeSet<_> =
            reached.iter().filter(|reached| packages.contains_key(*reached)).cloned().collect();
        let allowed: BTreeSet<_> = allowed.iter().map(|&name| name.to_owned()).collect();
        assert!(own.is_subset(&allowed), "{name} depends on {:?}", own.difference(&allowed));
    }
    let (top, never) = TOP;
    let reached = reached(&metadata, packages[top]);
    assert!(never.iter().all(|never| !reached.contains(*never)), "{top} reaches one of {never:?}");
    let ruled: BTreeSet<_> =
        RULES.iter().map(|(name, ..)| *name).chain([top, "protoseg-workspace", "xtask"]).collect();
    let without: Vec<_> = packages.keys().filter(|name| !ruled.contains(name.as_str())).collect();
    assert!(without.is_empty(), "packages without a rule: {without:?}");
}

/// Users embed the library, so it stays small. Counted by `cargo tree`, which resolves features for the package alone.
#[test]
fn the_library_depends_on_few_crates() {
    let mut tree = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    tree.current_dir(env!("CARGO_MANIFEST_DIR")).args(["tree", "--offline", "--locked"]);
    tree.args(["--package", "protoseg-infer", "--edges", "normal", "--prefix", "none"]);
    let output = tree.args(["--format", "{p}"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let name = |line: &str| line.split(" (").next().unwrap().to_owned();
    let crates: BTreeSet<String> = text.lines().map(name).collect();
    assert!(
        (20..=100).contains(&crates.len()),
        "protoseg-infer depends on {} crates",
        crates.len()
    );
}

#[test]
fn programs_load_only_their_own_runtime() {
    for (name, forbidden) in NEVER_LOADED {
        let program = support::program(name);
        let output = Command::new("ldd")
            .arg(program.get_program())
            .env_remove("LD_LIBRARY_PATH")
            .output()
            .unwrap();
        let loaded = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && loaded.contains("libc.so"), "ldd: {loaded}");
        assert!(!loaded.contains("not found"), "{name} misses a library:\n{loaded}");
        let wrong: Vec<_> =
            forbidden.iter().filter(|forbidden| loaded.contains(**forbidden)).collect();
        assert!(wrong.is_empty(), "{name} loads {wrong:?}:\n{loaded}");
    }
}
