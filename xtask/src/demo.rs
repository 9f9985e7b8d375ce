//! `cargo xtask demo`: from a fresh clone to a trained, exported and running model, each step timed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::steps::Steps;
use crate::{Usage, run, setup};

/// Everything that the demo leaves.
pub(crate) const OUT: &str = "runs/demo";
/// A series of scenes that training and its scores do not draw from.
const UNSEEN: &str = "77";

/// `cargo xtask demo [--data DIR]`.
pub(crate) fn command(root: &Path, arguments: &[String]) -> Result<()> {
    let camvid = match arguments {
        [] => None,
        [option, folder] if option == "--data" => Some(std::path::absolute(folder)?),
        _ => {
            return Err(
                Usage(format!("demo takes --data DIR or nothing, not {arguments:?}")).into()
            );
        }
    };
    let mut demo = Demo { root, steps: Steps::default() };
    let outcome = demo.run(camvid.as_deref());
    eprint!("\n{}", demo.steps.table());
    if outcome.is_ok() {
        eprintln!(
            "\nLook at {OUT}/sheet.png (picture, truth, prediction) and {OUT}/labels/overlay/."
        );
    }
    outcome
}

struct Demo<'a> {
    root: &'a Path,
    steps: Steps,
}

impl Demo<'_> {
    fn run(&mut self, camvid: Option<&Path>) -> Result<()> {
        self.steps.run("setup", || setup::ensure_runtimes(self.root))?;
        self.steps.run("build the programs", || run::build_programs(self.root))?;
        let out = self.root.join(OUT);
        if out.exists() {
            std::fs::remove_dir_all(&out).with_context(|| format!("removing {}", out.display()))?;
        }
        match camvid {
            // Scenes without labels would only be scored on, which takes longer than learning from the others.
            None => self.train("train/configs/synthetic.toml", &["synthetic_unlabeled=0"])?,
            Some(folder) => {
                let root = format!("root={}", folder.display());
                // Three minutes are too few for what the configuration is made for: all labels, and nothing else.
                let short = [
                    "mode=supervised",
                    "labeled=train.txt",
                    "unlabeled=train.txt",
                    "steps=160",
                    "warmup_steps=120",
                ];
                self.train(
                    "train/configs/camvid.toml",
                    &[[root.as_str()].as_slice(), &short].concat(),
                )?;
            }
        }
        let [checkpoint, bundle, sheet] = ["checkpoint", "bundle", "sheet.png"].map(below);
        self.step("export", &["export", &checkpoint, "--out", &bundle])?;
        self.step("check against libtorch", &["check", &bundle])?;
        let frames = match camvid {
            None => {
                let frames = below("frames");
                let data = [
                    "--data",
                    "synthetic",
                    "--seed",
                    UNSEEN,
                    "--size",
                    "512x1024",
                    "--limit",
                    "12",
                ];
                self.step(
                    "score on unseen scenes",
                    &[&["eval", &bundle, "--sheet", &sheet], data.as_slice()].concat(),
                )?;
                let draw = [
                    "scenes",
                    "--out",
                    &frames,
                    "--seed",
                    UNSEEN,
                    "--size",
                    "1024x2048",
                    "--count",
                    "4",
                ];
                self.step("draw four frames of 1024x2048", &draw)?;
                format!("{frames}/images")
            }
            Some(folder) => {
                let folder = utf8(folder)?;
                let data = ["--data", "camvid", "--root", &folder];
                self.step(
                    "score on val",
                    &[&["eval", &bundle, "--sheet", &sheet], data.as_slice()].concat(),
                )?;
                format!("{folder}/val")
            }
        };
        let labels = below("labels");
        self.step(
            "label frames",
            &["label", &bundle, &frames, "--out", &labels, "--format", "ids,color,overlay"],
        )
    }

    fn train(&mut self, config: &str, settings: &[&str]) -> Result<()> {
        let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        self.step("train", &[&["train", config, "--out", OUT], settings.as_slice()].concat())
    }

    /// Runs `protoseg` as one step.
    fn step(&mut self, title: &str, arguments: &[&str]) -> Result<()> {
        let mut command = run::program(self.root, "protoseg")?;
        command.args(arguments);
        self.steps.run(title, || run::execute(&mut command))
    }
}

fn below(name: &str) -> String {
    format!("{OUT}/{name}")
}

fn utf8(path: &Path) -> Result<String> {
    let path: PathBuf = path.into();
    path.into_os_string().into_string().ok().context("the folder's name is not UTF-8")
}
