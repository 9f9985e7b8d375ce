//! Interleaved comparisons with other programs: runs of the scripts in `benches/peers/`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::external::{python, torch_python};
use crate::run;

/// Networks of `latency`: short name, preset, frames, frames per block.
const NETWORKS: [(&str, &str, &str, &str); 2] = [
    ("lite0", "deeplabv3plus-efficientnet-lite0", "30", "5"),
    // A frame takes a minute on two cores.
    ("resnet101", "deeplabv3plus-resnet101", "5", "1"),
];
/// Folder of bundles with random weights, which are as fast as trained ones.
const BUNDLES: &str = "runs/prove-bundles";
const FRAMES: &str = "runs/prove-frames";

/// Training steps that PyTorch repeats, and settings that differ from those of the example.
const STEPS: [(&str, &[&str]); 3] = [
    ("lite0", &[]),
    ("lite0-raw", &["average=raw", "cutmix=1", "crop=128", "seed=3"]),
    (
        "resnet101",
        &[
            "network=deeplabv3plus-resnet101",
            "batch=1",
            "precise_bn_batches=0",
            "cutmix=0",
            "crop=65",
            "warmup_steps=0",
            "synthetic_size=[64, 128]",
        ],
    ),
];

/// Sessions with and without the planted slowdown, and pairs of blocks in each. A block takes a
/// tenth of a second, less than bursts of other load on a shared machine.
const PLANTED: [&str; 2] = ["20", "100"];

/// Compares whole optimizer steps with PyTorch. Takes names of steps, or runs all; the folder of a
/// step is kept if it differs.
pub(crate) fn step(root: &Path, names: &[String]) -> Result<()> {
    let chosen = choose(&STEPS.map(|(name, _)| name), names)?;
    // For the test see `build_programs`.
    let build = ["--bins", "--test", "layering", "--example", "record_step"];
    run::execute(run::cargo(root, "build").args(build))?;
    for (name, settings) in STEPS.iter().filter(|(name, _)| chosen.contains(name)) {
        let folder = root.join("runs/prove-step").join(name);
        // Another order of summation, by threads or memory layout, differs by more than the
        // tolerance.
        let mut record = run::program(root, "examples/record_step")?;
        run::execute(record.arg(&folder).args(*settings).env("OMP_NUM_THREADS", "1"))?;
        let mut compare = torch_python(root)?;
        compare.env("OMP_NUM_THREADS", "1").args(["benches/peers/step.py", "compare"]);
        run::execute(compare.arg(&folder).arg("--channels-last"))
            .with_context(|| format!("the step {name} differs from that of PyTorch"))?;
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
}

/// Compares `protoseg label` with a Python script and PyTorch. Takes a bundle, its checkpoint and a
/// folder of PNG frames.
pub(crate) fn labeling(root: &Path, arguments: &[String]) -> Result<()> {
    run::build_programs(root)?;
    let (own_checkpoint, own_bundle) = own_bundle(root, NETWORKS[0].0, NETWORKS[0].1)?;
    let named = |index: usize, own: PathBuf| arguments.get(index).map_or(own, PathBuf::from);
    let frames = match arguments.get(2) {
        Some(frames) => PathBuf::from(frames),
        None => synthetic(root, FRAMES, "1024x2048", "8")?,
    };
    let mut pairs = torch_python(root)?;
    pairs.args(["benches/peers/label_pairs.py", "3"]).arg(run::programs()?.join("protoseg"));
    pairs.arg(named(0, own_bundle)).arg(frames).arg(named(1, own_checkpoint));
    run::execute(&mut pairs)
}

/// Compares the latency of 1024x2048 frames with ONNX Runtime, OpenVINO and PyTorch. Takes short
/// names of networks, or measures all; writes tables and reports to `benches/results/`.
pub(crate) fn latency(root: &Path, names: &[String]) -> Result<()> {
    let chosen = choose(&NETWORKS.map(|(name, ..)| name), names)?;
    run::build_programs(root)?;
    let frames = synthetic(root, FRAMES, "1024x2048", "8")?;
    for (name, preset, count, block) in NETWORKS {
        if !chosen.contains(&name) {
            continue;
        }
        let (checkpoint, bundle) = own_bundle(root, name, preset)?;
        let out = root.join(BUNDLES).join(name);
        let [table, report] = ["table.md", "report.json"].map(|file| out.join(file));
        let mut peers = torch_python(root)?;
        peers.stdout(File::create(&table).with_context(|| table.display().to_string())?);
        peers.arg("benches/peers/latency_frames.py").arg(run::programs()?.join("protoseg"));
        run::execute(peers.arg(&bundle).arg(&checkpoint).arg(&frames).args([count, block]))?;
        store(root, &table, &format!("latency-cpu-{name}.md"))?;
        let mut bench = run::program(root, "protoseg")?;
        bench.arg("bench").arg(&bundle).args(["--scenario", "single-stream", "--warm-up", "0"]);
        bench.args(["--queries", count]).arg("--images").arg(&frames);
        run::execute(bench.arg("--report").arg(&report))?;
        store(root, &report, &format!("latency-cpu-{name}.json"))?;
    }
    Ok(())
}

/// Compares `protoseg bench` with a loop in Python and other load generators, and measures a
/// planted slowdown. Takes a bundle.
pub(crate) fn bench(root: &Path, arguments: &[String]) -> Result<()> {
    ensure!(arguments.len() < 2, "`prove bench` takes one bundle or nothing, not {arguments:?}");
    let generator = Command::new("hey").arg("-h").output();
    ensure!(generator.is_ok(), "hey not found; run `apt-get install hey`");
    run::build_programs(root)?;
    let bundle = match arguments.first() {
        Some(bundle) => std::path::absolute(bundle)?,
        None => own_bundle(root, NETWORKS[0].0, NETWORKS[0].1)?.1,
    };
    for (script, count) in [("latency_ort.py", "4"), ("latency_http.py", "1")] {
        let images = synthetic(root, &format!("{FRAMES}-{count}"), "512x512", count)?;
        let mut peer = python(root, "load")?;
        peer.arg(format!("benches/peers/{script}")).arg(run::programs()?.join("protoseg"));
        run::execute(peer.arg(&bundle).arg(images))
            .with_context(|| format!("{script} measures something else"))?;
    }
    // `cargo bench` takes no --release; for --workspace see `run::cargo`.
    let mut planted = run::bare_cargo(root);
    planted.args(["bench", "--workspace", "--bench", "planted", "--"]).arg(&bundle);
    run::execute(planted.args(PLANTED))
}

/// Returns the given names, or all known ones if none is given.
fn choose<'a>(known: &[&'a str], names: &[String]) -> Result<Vec<&'a str>> {
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("unknown name {unknown:?}; choose from {}", known.join(", "));
    }
    let chosen = |name: &&str| names.is_empty() || names.iter().any(|given| given == name);
    Ok(known.iter().copied().filter(chosen).collect())
}

/// Returns checkpoint and bundle of a network with random weights, and writes them if they are
/// missing.
fn own_bundle(root: &Path, name: &str, preset: &str) -> Result<(PathBuf, PathBuf)> {
    // Relative: results contain no folder of this machine.
    let out = Path::new(BUNDLES).join(name);
    let (checkpoint, bundle) = (out.join("checkpoint"), out.join("bundle"));
    if !root.join(&bundle).is_dir() {
        let mut init = run::program(root, "protoseg")?;
        run::execute(
            init.args(["train", "init", preset, "--seed", "3", "--out"]).arg(&checkpoint),
        )?;
        let mut export = run::program(root, "protoseg")?;
        run::execute(export.arg("export").arg(&checkpoint).arg("--out").arg(&bundle))?;
    }
    Ok((checkpoint, bundle))
}

/// Returns a folder of synthetic images relative to the root, and writes it if it is missing.
fn synthetic(root: &Path, folder: &str, size: &str, count: &str) -> Result<PathBuf> {
    if !root.join(folder).is_dir() {
        let mut write = run::program(root, "protoseg")?;
        run::execute(write.args(["synth", "--size", size, "--count", count, "--out", folder]))?;
    }
    Ok(Path::new(folder).join("images"))
}

/// Prints a table, and copies it or a report to `benches/results/` without the path of the
/// repository.
fn store(root: &Path, source: &Path, name: &str) -> Result<()> {
    let text = fs::read_to_string(source).with_context(|| source.display().to_string())?;
    let target = root.join("benches/results").join(name);
    if name.ends_with(".md") {
        eprint!("{text}");
    }
    let text = text.replace(&format!("{}/", root.display()), "");
    fs::write(&target, text).with_context(|| target.display().to_string())
}
