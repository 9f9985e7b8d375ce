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
/// Seed of synthetic images that training does not use.
const UNSEEN_SEED: &str = "77";
/// Height and width of synthetic images, as in `train/configs/demo.toml`.
const SIZE: &str = "128x256";

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
        match &data {
            None => self.train("train/configs/demo.toml", &[])?,
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
        let frames = output("frames");
        let (scored_on, images) = match &data {
            None => {
                let synth = ["synth", "--out", &frames, "--seed", UNSEEN_SEED, "--size", SIZE];
                self.step("render four images", &[synth.as_slice(), &["--count", "4"]].concat())?;
                let set = ["--data", "synthetic", "--seed", UNSEEN_SEED, "--size", SIZE];
                ([set.as_slice(), &["--limit", "100"]].concat(), format!("{frames}/images"))
            }
            Some(folder) => (vec!["--data", "camvid", "--root", folder], format!("{folder}/val")),
        };
        let eval = ["eval", &bundle, "--beside", &baseline, "--sheet", &output("sheet.png")];
        self.step("score both on unseen images", &[eval.as_slice(), &scored_on].concat())?;
        let label = ["label", &bundle, &images, "--out", &output("labels")];
        self.step("label images", &[label.as_slice(), &["--format", "ids,color,overlay"]].concat())
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
