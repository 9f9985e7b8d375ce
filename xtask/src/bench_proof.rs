//! `cargo xtask prove bench`: what `protoseg bench` finds is what others find of the same work, in turns with it, and what was
//! planted.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::python::Python;
use crate::{demo, run, setup};

/// What the peers are made of.
const PACKAGES: [&str; 4] = ["aiohttp==3.14.5", "numpy", "onnxruntime==1.31.1", "pillow"];

/// The load generator that the peers call.
const GENERATOR: &str = "hey";

const FOLDER: &str = "runs/prove-bench";

/// Sessions of the planted slow-down, each way, and pairs of blocks of each: a tenth of a second a block, shorter than the
/// bursts of other load on a shared machine.
const PLANTED: [&str; 2] = ["20", "100"];

/// Takes a bundle, or the demo's.
pub(crate) fn prove(root: &Path, arguments: &[String]) -> Result<()> {
    let bundle = match arguments {
        [] => root.join(demo::OUT).join("bundle"),
        [bundle] => std::path::absolute(bundle)?,
        _ => bail!("the proof `bench` takes one bundle or nothing, not {arguments:?}"),
    };
    ensure!(
        bundle.is_dir(),
        "there is no bundle {}; `cargo xtask demo` makes one, or name one",
        bundle.display()
    );
    let found = Command::new(GENERATOR).arg("-h").output();
    ensure!(found.is_ok(), "there is no {GENERATOR}: `apt-get install {GENERATOR}` provides it");
    run::build_programs(root)?;
    let python = Python::find()?;
    let packages = setup::ensure_python_packages_in(root, "python-load", &python, &PACKAGES)?;
    for (script, count) in [("latency_ort.py", "4"), ("latency_http.py", "1")] {
        let scenes = draw(root, count)?;
        let mut peer = python.command();
        // Bytecode written into the folder would not agree with its stamp.
        peer.env("PYTHONPATH", &packages).env("PYTHONDONTWRITEBYTECODE", "1");
        peer.arg(root.join("benches/peers").join(script)).arg(run::programs()?.join("protoseg"));
        run::execute(peer.arg(&bundle).arg(scenes))
            .with_context(|| format!("{script} finds something else"))?;
    }
    // `cargo bench` knows no --release; the workspace is named for the reason given at `run::cargo`.
    let mut planted = run::bare_cargo(root);
    run::execute(
        planted
            .args(["bench", "--workspace", "--bench", "planted", "--"])
            .arg(&bundle)
            .args(PLANTED),
    )
}

/// So many pictures; returns their folder.
fn draw(root: &Path, count: &str) -> Result<PathBuf> {
    let folder = root.join(FOLDER).join(count);
    let mut scenes = run::program(root, "protoseg")?;
    run::execute(
        scenes.args(["synth", "--size", "512x512", "--count", count, "--out"]).arg(&folder),
    )?;
    Ok(folder.join("images"))
}
