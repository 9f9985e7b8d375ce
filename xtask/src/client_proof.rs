//! `cargo xtask prove clients`: the clients of others ask `protoseg serve`, and get the labels of `protoseg label`.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::python::Python;
use crate::{run, setup};

const PACKAGES: [&str; 5] = [
    "tritonclient[http,grpc]==2.73.0",
    "kserve==0.21.0",
    "grpcio-health-checking==1.81.1",
    "grpcio-reflection==1.81.1",
    "pillow==13.0.0",
];
const FOLDER: &str = "runs/prove-clients";
/// A model made by hand, which the tests use too.
const BUNDLE: &str = "infer/tests/fixtures/colors";

/// Takes a bundle, or asks the model of the tests.
pub(crate) fn prove(root: &Path, arguments: &[String]) -> Result<()> {
    let bundle = match arguments {
        [] => root.join(BUNDLE),
        [bundle] => std::path::absolute(bundle)?,
        _ => bail!("the proof `clients` takes one bundle or nothing, not {arguments:?}"),
    };
    run::build_programs(root)?;
    let python = Python::find()?;
    let packages =
        setup::ensure_python_packages_in(root, "python-oip-clients", &python, &PACKAGES)?;
    let out = root.join(FOLDER);
    if out.exists() {
        std::fs::remove_dir_all(&out).with_context(|| format!("removing {}", out.display()))?;
    }
    let scenes = out.join("scenes");
    let mut draw = run::program(root, "protoseg")?;
    run::execute(draw.args(["synth", "--size", "192x320", "--count", "3", "--out"]).arg(&scenes))?;
    let mut ask = python.command();
    // Bytecode written into the folder would not agree with its stamp.
    ask.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    ask.env("ORT_DYLIB_PATH", root.join(".runtime/onnxruntime/libonnxruntime.so"));
    ask.arg(root.join("tests/external/test_oip_clients.py")).arg(run::programs()?.join("protoseg"));
    run::execute(ask.arg(bundle).arg(scenes.join("images")).arg(out.join("labels")))
}
