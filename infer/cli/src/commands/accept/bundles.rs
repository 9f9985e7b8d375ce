//! Bundles of random networks, made on the spot by the two sibling programs.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use protoseg_models::bundle::{Manifest, ModelFile};
use protoseg_models::variant::{ModelKind, Precision};

use super::Acceptance;
use crate::commands::sibling;

/// Seed of the weights.
const SEED: &str = "3";

/// A bundle with its manifest.
pub(super) struct TestBundle {
    pub(super) network: &'static str,
    pub(super) folder: PathBuf,
    pub(super) manifest: Manifest,
}

impl Acceptance<'_> {
    /// Height and width of the pictures that are measured.
    pub(super) fn size(&self) -> [usize; 2] {
        if self.arguments.brief { [192, 256] } else { [1024, 2048] }
    }

    /// Makes a network's bundle: logits and frame files in 32 and 16 bits, in the network's usual windows.
    pub(super) fn make(&self, network: &'static str) -> anyhow::Result<TestBundle> {
        let folder = self.work.join(network);
        let (checkpoint, bundle) = (folder.join("checkpoint"), folder.join("bundle"));
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let [height, width] = self.size();
        let mut init = sibling::command("train")?;
        finish(init.args(["init", network, "--seed", SEED, "--out"]).arg(&checkpoint))?;
        let mut export = sibling::command("export")?;
        export.arg(&checkpoint).arg("--out").arg(&bundle);
        export.args(["--precision", "fp32,fp16", "--frame", &format!("{height}x{width}")]);
        if self.arguments.brief {
            // In windows of the usual size a small picture would be run as a large one.
            export.args(["--window", "128:96"]);
        }
        finish(&mut export)?;
        let manifest = Manifest::read(&bundle)?.value;
        Ok(TestBundle { network, folder: bundle, manifest })
    }
}

/// Runs a program to its end, which says nothing unless it fails.
pub(super) fn finish(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| name.clone())?;
    let said = String::from_utf8_lossy(&output.stderr);
    // What follows a usage error is advice for who typed it.
    let first = said.lines().next().unwrap_or_default().trim_start_matches("error: ");
    ensure!(output.status.success(), "{name} ended with {}: {first}", output.status);
    Ok(())
}

impl TestBundle {
    /// Its files of one kind and precision.
    pub(super) fn file(&self, kind: ModelKind, precision: Precision) -> Option<&ModelFile> {
        self.manifest
            .files
            .iter()
            .find(|file| file.variant.kind == kind && file.variant.precision == precision)
    }
}
