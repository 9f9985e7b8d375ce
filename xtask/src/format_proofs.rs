//! `cargo xtask prove formats` and `prove cityscapes`: others' programs read what `protoseg label` writes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::python::Python;
use crate::test::PYTHON_PACKAGES;
use crate::{demo, proofs, run, setup};

/// A reader that needs an environment of its own.
struct Reader {
    /// Its folder below `.runtime/`.
    folder: &'static str,
    packages: &'static [&'static str],
    /// The test that it is for.
    test: &'static str,
}

const READERS: [Reader; 3] = [
    Reader {
        // CVAT keeps its own datumaro, which left the common one at 0.3.
        folder: "python-datumaro-0.3",
        packages: &["datumaro==0.3.1", "numpy==1.26.4", "setuptools==79.0.1"],
        test: "datumaro_reads_the_cvat_archive",
    },
    Reader {
        folder: "python-datumaro",
        packages: &["datumaro==1.13.12"],
        test: "datumaro_reads_the_cvat_archive",
    },
    Reader {
        folder: "python-label-studio",
        packages: &["label-studio-sdk==2.1.2"],
        test: "label_studio_reads_its_tasks",
    },
];

/// Each reader's test with its packages, then pycocotools with those of the common tests.
pub(crate) fn formats(root: &Path, arguments: &[String]) -> Result<()> {
    ensure!(arguments.is_empty(), "the proof `formats` takes no arguments");
    let python = Python::find()?;
    for Reader { folder, packages, test } in READERS {
        let packages = setup::ensure_python_packages_in(root, folder, &python, packages)?;
        run_test(root, &packages, test)?;
    }
    run_test(
        root,
        &setup::ensure_python_packages(root, &python, &PYTHON_PACKAGES)?,
        "pycocotools_reads_coco",
    )
}

fn run_test(root: &Path, packages: &Path, test: &str) -> Result<()> {
    let mut command = run::cargo(root, "test");
    command.args([
        "--test",
        "annotation_formats",
        "--",
        "--include-ignored",
        "--nocapture",
        "--exact",
        test,
    ]);
    // Bytecode written into the folder would not agree with its stamp.
    command
        .env("PROTOSEG_PYTHON", "python3")
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    run::execute(&mut command)
}

/// How many pictures are scored at once: all, and few enough that classes are absent.
const LIMITS: [&str; 2] = ["500", "1"];

/// The official evaluation of our label files for `cityscapes-mini` equals `protoseg eval`, class by class.
pub(crate) fn cityscapes(root: &Path, arguments: &[String]) -> Result<()> {
    let data = proofs::data(root, "cityscapes-mini")?;
    let bundle = match arguments {
        [] => demo_bundle(root)?,
        [bundle] => std::path::absolute(bundle)?,
        _ => anyhow::bail!("the proof `cityscapes` takes one bundle or nothing, not {arguments:?}"),
    };
    run::build_programs(root)?;
    let python = Python::find()?;
    let packages = ["cityscapesscripts==2.3.0"];
    let packages = setup::ensure_python_packages_in(root, "python-cityscapes", &python, &packages)?;
    let out = root.join("runs/prove-cityscapes");
    if out.exists() {
        std::fs::remove_dir_all(&out).with_context(|| format!("removing {}", out.display()))?;
    }
    let labels = out.join("labels");
    let mut label = protoseg(root, "label", &bundle)?;
    run::execute(
        label
            .arg(data.join("leftImg8bit/train"))
            .arg("--out")
            .arg(&labels)
            .args(["--format", "labelids"]),
    )?;
    for limit in LIMITS {
        let mut eval = protoseg(root, "eval", &bundle)?;
        eval.args([
            "--data",
            "cityscapes",
            "--split",
            "train",
            "--limit",
            limit,
            "--json",
            "--root",
        ])
        .arg(&data);
        let output = eval.output().context("protoseg eval could not be started")?;
        ensure!(
            output.status.success(),
            "protoseg eval failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let score = out.join(format!("score-{limit}.json"));
        std::fs::write(&score, &output.stdout)
            .with_context(|| format!("writing {}", score.display()))?;
        let mut compare = python.command();
        compare
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(root.join("tests/external/test_cityscapes.py"))
            .arg(&packages);
        compare.arg(data.join("gtFine/train")).arg(labels.join("labelids")).arg(&score);
        run::execute(&mut compare).context("the official evaluation gives another score")?;
    }
    Ok(())
}

fn protoseg(root: &Path, command: &str, bundle: &Path) -> Result<Command> {
    let mut program = run::program(root, "protoseg")?;
    program.arg(command).arg(bundle);
    Ok(program)
}

/// The demo's bundle, made by the demo if it is not there.
pub(crate) fn demo_bundle(root: &Path) -> Result<PathBuf> {
    let bundle = root.join(demo::OUT).join("bundle");
    if !bundle.is_dir() {
        demo::command(root, &[])?;
    }
    Ok(bundle)
}
