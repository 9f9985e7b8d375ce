//! `cargo xtask prove step`: whole optimisation steps against the same ones in PyTorch, every loss, gradient and move.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::python::Python;
use crate::{run, setup};

/// The steps, by name, and how their settings differ from the example's own.
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

/// The PyTorch whose kernels our libtorch is, with its CUDA build's libraries, 3 GB, and what its peers are made of.
const PACKAGES: [&str; 6] = [
    "torch==2.11.0",
    "numpy",
    "onnxruntime==1.31.1",
    "openvino==2026.4.1",
    "pillow",
    "safetensors",
];

/// Names the Python that has these packages already.
const PYTHON: &str = "PROTOSEG_TORCH_PYTHON";

/// Takes each step, or those named, and has PyTorch compare; a folder remains only where they differ.
pub(crate) fn prove(root: &Path, names: &[String]) -> Result<()> {
    let known: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
    for name in names {
        ensure!(
            known.contains(&name.as_str()),
            "there is no step {name:?}; there are {}",
            known.join(", ")
        );
    }
    // The test is there for the reason given at `build_programs`.
    run::execute(run::cargo(root, "build").args([
        "--bins",
        "--test",
        "layering",
        "--example",
        "record_step",
    ]))?;
    let chosen = |name: &str| names.is_empty() || names.iter().any(|chosen| chosen == name);
    STEPS
        .iter()
        .filter(|(name, _)| chosen(name))
        .try_for_each(|(name, settings)| compare(root, name, settings))
}

fn compare(root: &Path, name: &str, settings: &[&str]) -> Result<()> {
    let folder = root.join("runs/prove-step").join(name);
    let one_thread = ("OMP_NUM_THREADS", "1");
    let mut record = run::program(root, "examples/record_step")?;
    run::execute(record.arg(&folder).args(settings).env(one_thread.0, one_thread.1))?;
    let mut compare = torch_python(root)?;
    // Sums in another order, of threads or of the memory's layout, differ by more than the tolerance.
    compare
        .env(one_thread.0, one_thread.1)
        .arg(root.join("benches/peers/step.py"))
        .arg("compare")
        .arg(&folder);
    run::execute(compare.arg("--channels-last"))
        .with_context(|| format!("the step {name} is another in PyTorch"))?;
    std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))
}

/// A call of a Python that has PyTorch.
pub(crate) fn torch_python(root: &Path) -> Result<Command> {
    let mut command = if let Some(program) = std::env::var_os(PYTHON) {
        let mut command = Command::new(program);
        command.env_remove("LD_LIBRARY_PATH");
        command
    } else {
        let python = Python::find()?;
        let packages = setup::ensure_python_packages_in(root, "python-torch", &python, &PACKAGES)?;
        let mut command = python.command();
        command.env("PYTHONPATH", packages);
        command
    };
    // Bytecode written into the folder would not agree with its stamp.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}
