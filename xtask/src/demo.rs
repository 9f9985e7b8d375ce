//! `cargo xtask demo`: trains, exports and runs a small model, with the time of each step.
//!
//! Trains with prototypes on few labeled and many unlabeled images, and a supervised baseline of as
//! many steps from the same warm-up.

use std::path::Path;

use anyhow::{Context, Result};

use crate::steps::Steps;
use crate::{Usage, run, setup};

/// Folder of all outputs.
pub(crate) const OUT: &str = "runs/demo";
/// What is drawn: few labeled images, many unlabeled ones, and images that training does not see.
pub(crate) const CELLS: [&str; 14] = [
    "synth",
    "--kind",
    "cells",
    "--count",
    "232",
    "--labeled",
    "12",
    "--validation",
    "100",
    "--size",
    "128x128",
    "--seed",
    "1",
    "--out",
];

/// `cargo xtask demo [--data DIR]`.
pub(crate) fn command(root: &Path, arguments: &[String]) -> Result<()> {
    let camvid = match arguments {
        [] => None,
        [option, folder] if option == "--data" => Some(std::path::absolute(folder)?),
        _ => {
            let message = format!("demo takes --data DIR or nothing, not {arguments:?}");
            return Err(Usage(message).into());
        }
    };
    let mut demo = Demo { root, steps: Steps::default() };
    let outcome = demo.run(camvid.as_deref());
    eprint!("\n{}", demo.steps.table());
    if outcome.is_ok() {
        eprintln!(
            "\nLook at {OUT}/sheet.png (image, ground truth, prototypes, supervised), \
             {OUT}/labels/overlay/ and {OUT}/mode=prototype/report.html."
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
        let data = camvid.map(utf8).transpose()?;
        let cells = output("cells");
        match &data {
            None => {
                self.step("draw images of cells", &[&CELLS[..], &[&cells]].concat())?;
                self.train("train/configs/demo.toml", &[&format!("root={cells}")])?;
            }
            // Fewer steps than configured, which would take most of an hour.
            Some(folder) => {
                let root = format!("root={folder}");
                self.train("train/configs/camvid.toml", &[&root, "steps=160", "warmup_steps=110"])?;
            }
        }
        let [bundle, baseline] = [output("bundle"), output("supervised-bundle")];
        for (mode, bundle) in [("prototype", &bundle), ("supervised", &baseline)] {
            let checkpoint = output(&format!("mode={mode}/checkpoint"));
            self.step(&format!("export {mode}"), &["export", &checkpoint, "--out", bundle])?;
        }
        self.step("check against libtorch", &["check", &bundle])?;
        let (scored_on, images) = match &data {
            None => {
                let set = ["--data", "folder", "--root", &cells, "--list", "val.txt"];
                (set.to_vec(), vec!["--list".to_owned(), format!("{cells}/val.txt")])
            }
            Some(folder) => {
                (vec!["--data", "camvid", "--root", folder], vec![format!("{folder}/val")])
            }
        };
        let eval = ["eval", &bundle, "--beside", &baseline, "--sheet", &output("sheet.png")];
        self.step("score both on unseen images", &[eval.as_slice(), &scored_on].concat())?;
        let images = images.iter().map(String::as_str);
        let (labels, formats) = (output("labels"), "ids,color,overlay");
        let label = ["label", &bundle, "--out", &labels, "--format", formats];
        self.step("label images", &label.into_iter().chain(images).collect::<Vec<_>>())
    }

    fn train(&mut self, config: &str, settings: &[&str]) -> Result<()> {
        let grid = ["train", config, "--out", OUT, "--ablate", "mode=prototype,supervised"];
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        self.step(
            "train with prototypes, and supervised",
            &grid.into_iter().chain(settings).collect::<Vec<_>>(),
        )
    }

    /// Runs `protoseg` as a step.
    fn step(&mut self, title: &str, arguments: &[&str]) -> Result<()> {
        let mut command = run::program(self.root, "protoseg")?;
        command.args(arguments);
        self.steps.run(title, || run::execute(&mut command))
    }
}

fn output(name: &str) -> String {
    format!("{OUT}/{name}")
}

fn utf8(path: &Path) -> Result<String> {
    let text = path.to_str().context("the path of the data folder is not UTF-8")?;
    Ok(text.to_owned())
}
