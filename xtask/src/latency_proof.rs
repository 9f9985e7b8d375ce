//! `cargo xtask prove latency`: frames of 1024x2048 by protoseg beside ONNX Runtime, OpenVINO and PyTorch, in turns on this
//! machine's processor, and the report of ours.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::step_proof::torch_python;
use crate::{labelling_proof, run};

/// The networks by a short name: the preset, frames each, and frames of a block.
const NETWORKS: [(&str, &str, &str, &str); 2] = [
    ("lite0", "deeplabv3plus-efficientnet-lite0", "30", "5"),
    // A frame takes it a minute of two cores.
    ("resnet101", "deeplabv3plus-resnet101", "5", "1"),
];

/// Random weights take as long as trained ones.
const SEED: &str = "3";

/// Takes the short names of networks, or measures all.
pub(crate) fn prove(root: &Path, names: &[String]) -> Result<()> {
    let known: Vec<&str> = NETWORKS.iter().map(|(name, ..)| *name).collect();
    for name in names {
        ensure!(known.contains(&name.as_str()), "there is no network {name:?}; there are {}", known.join(", "));
    }
    run::build_programs(root)?;
    let frames = labelling_proof::draw(root)?;
    for (name, preset, count, block) in NETWORKS {
        if !names.is_empty() && !names.iter().any(|chosen| chosen == name) {
            continue;
        }
        let out = root.join("runs/prove-latency").join(name);
        let (checkpoint, bundle) = (out.join("checkpoint"), out.join("bundle"));
        if !bundle.is_dir() {
            let mut init = run::program(root, "protoseg")?;
            run::execute(init.args(["train", "init", preset, "--seed", SEED, "--out"]).arg(&checkpoint))?;
            run::execute(run::program(root, "protoseg")?.arg("export").arg(&checkpoint).arg("--out").arg(&bundle))?;
        }
        let mut peers = torch_python(root)?;
        peers.arg(root.join("benches/peers/latency_frames.py")).arg(run::programs()?.join("protoseg"));
        run::execute(peers.arg(&bundle).arg(&checkpoint).arg(&frames).args([count, block]))?;
        let report = root.join("benches/results").join(format!("latency-cpu-{name}.json"));
        let mut bench = run::program(root, "protoseg")?;
        bench.arg("bench").arg(&bundle).args(["--scenario", "single-stream", "--queries", count, "--warm-up", "0"]);
        run::execute(bench.arg("--pictures").arg(&frames).arg("--report").arg(report))?;
    }
    Ok(())
}
