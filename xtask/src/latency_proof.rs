//! `cargo xtask prove latency`: frames of 1024x2048 by protoseg beside ONNX Runtime, OpenVINO and PyTorch, in turns on this
//! machine's processor, and the report of ours. Both are kept in `benches/results/`.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::step_proof::torch_python;
use crate::{labeling_proof, run};

/// The networks by a short name: the preset, frames each, and frames of a block.
const NETWORKS: [(&str, &str, &str, &str); 2] = [
    ("lite0", "deeplabv3plus-efficientnet-lite0", "30", "5"),
    // A frame takes it a minute of two cores.
    ("resnet101", "deeplabv3plus-resnet101", "5", "1"),
];

/// Where bundles lie, below the root.
const FOLDER: &str = "runs/prove-latency";

/// Random weights take as long as trained ones.
const SEED: &str = "3";

/// Takes the short names of networks, or measures all.
pub(crate) fn prove(root: &Path, names: &[String]) -> Result<()> {
    let known: Vec<&str> = NETWORKS.iter().map(|(name, ..)| *name).collect();
    for name in names {
        ensure!(
            known.contains(&name.as_str()),
            "there is no network {name:?}; there are {}",
            known.join(", ")
        );
    }
    run::build_programs(root)?;
    let frames = labeling_proof::draw(root)?;
    let frames = frames.strip_prefix(root).context("the frames lie elsewhere")?;
    for (name, preset, count, block) in NETWORKS {
        if !names.is_empty() && !names.iter().any(|chosen| chosen == name) {
            continue;
        }
        // Below the root, as what is kept names no folder of this machine.
        let out = Path::new(FOLDER).join(name);
        let (checkpoint, bundle) = (out.join("checkpoint"), out.join("bundle"));
        if !root.join(&bundle).is_dir() {
            let mut init = run::program(root, "protoseg")?;
            run::execute(
                init.args(["train", "init", preset, "--seed", SEED, "--out"]).arg(&checkpoint),
            )?;
            run::execute(
                run::program(root, "protoseg")?
                    .arg("export")
                    .arg(&checkpoint)
                    .arg("--out")
                    .arg(&bundle),
            )?;
        }
        let [table, report] = ["table.md", "report.json"].map(|file| root.join(&out).join(file));
        let mut peers = torch_python(root)?;
        peers
            .current_dir(root)
            .stdout(File::create(&table).with_context(|| table.display().to_string())?);
        peers.arg("benches/peers/latency_frames.py").arg(run::programs()?.join("protoseg"));
        run::execute(peers.arg(&bundle).arg(&checkpoint).arg(frames).args([count, block]))?;
        keep(root, &table, &format!("latency-cpu-{name}.md"))?;
        let mut bench = run::program(root, "protoseg")?;
        bench.arg("bench").arg(&bundle).args([
            "--scenario",
            "single-stream",
            "--queries",
            count,
            "--warm-up",
            "0",
        ]);
        run::execute(bench.arg("--pictures").arg(frames).arg("--report").arg(&report))?;
        keep(root, &report, &format!("latency-cpu-{name}.json"))?;
    }
    Ok(())
}

/// Shows what was found and keeps it among the results, without the place of the repository on this machine.
fn keep(root: &Path, found: &Path, name: &str) -> Result<()> {
    let text = fs::read_to_string(found).with_context(|| found.display().to_string())?;
    let place = root.join("benches/results").join(name);
    if name.ends_with(".md") {
        eprint!("{text}");
    }
    let text = text.replace(&format!("{}/", root.display()), "");
    fs::write(&place, text).with_context(|| place.display().to_string())
}
